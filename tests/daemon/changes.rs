//! Files that change while the daemon runs.

use rustix::process::Signal;
use test_gitlab::{Endpoint, Gitlab, NewRunner};

use super::bench::Bench;

const SHORT: &str = "[timing]\nbetween_resets_floor = \"1s\"\nfloor = \"200ms\"\n";

/// Everything that a re-serialising editor would spoil: a BOM, CRLF, comments, dotted and inline tables, odd
/// spacing, foreign keys, no final newline.
fn intricate(url: &str, id: u64, token: &str) -> String {
    let text = format!(
        "\u{feff}# ours\nconcurrent   =  4\nsession_server.listen_address = \"[::]:8093\"\n\n\
         [[runners]] # the builder\n  name = 'b\u{fc}ilder'\n  url = \"{url}\"\n  id = {id}\n\
         \ttoken = \"{token}\"   # do not touch\n  token_obtained_at = 2020-01-01T00:00:00Z\n\
         \x20 token_expires_at = 2020-01-02T00:00:00Z # nor this\n  executor = \"docker\"\n\
         \x20 environment = [ \"A=1\",\n    \"B=2\", ]\n  feature_flags = {{ FF_X = true }}\n\
         \x20 docker.image = \"alpine\" # dotted\n  docker.volumes = [\"/cache\"]\n  [runners.cache]\n    Type = \"s3\"\n\n\
         [foreign]\nx = 0x1F"
    );
    text.replace('\n', "\r\n")
}

#[test]
fn a_rotation_changes_the_three_token_lines_and_not_a_byte_more() {
    let bench = Bench::new(Gitlab::builder().token_life("1h"));
    let (id, token) = bench.gitlab.add_runner(NewRunner::instance());
    let before = intricate(&bench.gitlab.url(), id, &token);
    bench.write("config.toml", &before);
    let (status, log) = bench.start_with(&["--once"]).end();
    assert!(status.success(), "{log}");
    let after = bench.config();
    let runner = bench.gitlab.runner(id).unwrap();
    assert_eq!(runner.rotations, 1, "{log}");
    let (before, after): (Vec<_>, Vec<_>) = (before.split("\r\n").collect(), after.split("\r\n").collect());
    assert_eq!(before.len(), after.len());
    let changed: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).map(|(_, new)| *new).collect();
    assert_eq!(changed.len(), 3, "{changed:?}");
    assert_eq!(changed[0], format!("\ttoken = \"{}\"   # do not touch", runner.token));
    assert!(changed[1].starts_with("  token_obtained_at = 20") && changed[1].ends_with('Z'));
    assert!(changed[2].starts_with("  token_expires_at = 20") && changed[2].ends_with("Z # nor this"));
}

#[test]
fn an_old_copy_written_over_ours_is_put_right_without_a_request() {
    let bench = Bench::enrolling(Gitlab::builder().token_life("6s"), SHORT);
    let daemon = bench.start();
    bench.wait_for_registration();
    let old = bench.config();
    bench.wait("a rotation", |bench| bench.gitlab.runners()[0].rotations == 1 && bench.is_in_step());
    // From here on the token lives an hour, so that nothing is due while we look.
    bench.gitlab.set_token_life("1h");
    bench.wait("a second rotation", |bench| bench.gitlab.runners()[0].rotations == 2 && bench.is_in_step());
    bench.gitlab.clear_requests();
    bench.write("config.toml", &old);
    bench.wait("the current token to be back", Bench::is_in_step);
    assert!(bench.gitlab.requests().is_empty(), "{:?}", bench.gitlab.requests());
    assert!(daemon.log().contains("putting the current one back"));
}

#[test]
fn an_enrollment_that_is_added_is_registered_without_a_restart() {
    let bench = Bench::enrolling(Gitlab::builder(), "");
    let mut daemon = bench.start();
    bench.wait_for_registration();
    bench.write("agent.toml", "nonsense = 1");
    bench.wait("the complaint", |_| daemon.log().contains("keeping the previous ones"));
    bench.write("agent.toml", &format!("{}{}", bench.enrollment("build-1"), bench.enrollment("build-2")));
    bench.wait("the second runner", |bench| bench.gitlab.runners().len() == 2 && bench.is_in_step());
    assert!(daemon.is_running());
}

#[test]
fn an_entry_that_somebody_adds_is_served_and_a_broken_one_does_not_disturb() {
    let bench = Bench::new(Gitlab::builder().token_life("1h"));
    let daemon = bench.serving();
    let (id, token) = bench.gitlab.add_runner(NewRunner::instance());
    let url = bench.gitlab.url();
    let config = format!(
        "[[runners]]\nname = \"no token\"\nurl = \"{url}\"\n[[runners]]\nname = \"variable\"\nurl = \"{url}\"\ntoken = \"$NOT_SET\"\n\
         [[runners]]\nname = \"good\"\nurl = \"{url}\"\nid = {id}\ntoken = \"{token}\"\n"
    );
    bench.write("config.toml", &config);
    bench.wait("a verification", |bench| bench.gitlab.requests_to(Endpoint::Verify).len() == 1);
    assert_eq!(bench.config(), config);
    bench.write("config.toml", "[[runners]\n");
    bench.wait("the complaint", |_| daemon.log().contains("line 1, column"));
    assert_eq!(bench.config(), "[[runners]\n");
    bench.write("config.toml", &config);
}

#[test]
fn a_hangup_verifies_now() {
    let bench = Bench::enrolling(Gitlab::builder(), "");
    let daemon = bench.start();
    bench.wait_for_registration();
    assert!(bench.gitlab.requests_to(Endpoint::Verify).is_empty());
    daemon.signal(Signal::HUP);
    bench.wait("a verification", |bench| bench.gitlab.requests_to(Endpoint::Verify).len() == 1);
}

#[test]
fn a_token_file_that_a_later_enrollment_names_is_watched() {
    let bench = Bench::new(Gitlab::builder());
    let daemon = bench.serving();
    std::fs::create_dir(bench.path("secrets")).unwrap();
    bench.write("secrets/token", "GR1348941not-the-right-one");
    let enrollment = bench.enrollment("build-1").replace("\"token\"", "\"secrets/token\"");
    bench.write("agent.toml", &enrollment);
    bench.wait("the complaint", |_| daemon.log().contains("ERROR"));
    bench.write("secrets/token", &bench.gitlab.instance_registration_token());
    bench.wait_for_registration();
}
