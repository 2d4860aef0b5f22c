//! What `list` and `status` show: rows by state and expiry, a short table, and a status that is watched.

use std::fs::File;
use std::io::Read as _;

use fake_gitlab::{Gitlab, NewRunner};
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use test_support::{Process, Sandbox};

use super::{sandbox, sandbox_with};

#[test]
fn list_shows_runners_by_state_and_by_what_is_left_of_their_tokens() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("30d"));
    sandbox.add_created("fresh");
    let (id, _) = sandbox.add_created("soon");
    sandbox.gitlab.expire_at(id, Some(Timestamp::now() + SignedDuration::from_hours(48)));
    sandbox.run(&["verify"]).exits(0);
    sandbox.add_entry("unverified", None, &sandbox.gitlab.add_runner(NewRunner::instance()).1);
    let shown = |args: &[&str]| {
        let rows = sandbox.run(&[&["list", "--output", "json"], args].concat()).runners();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&["--state", "active"]), ["fresh", "soon"]);
    assert_eq!(shown(&["--state", "unknown"]), ["unverified"]);
    assert_eq!(shown(&["--state", "unknown", "--state", "active"]), ["fresh", "soon", "unverified"]);
    assert_eq!(shown(&["--expires-within", "7d"]), ["soon"]);
    assert_eq!(shown(&["--expires-within", "7d", "--state", "unknown"]), [""; 0]);
    assert_eq!(sandbox.run(&["list", "--state", "failed"]).exits(0).stdout, "no runner matches\n");
    sandbox.run(&["list", "--state", "broken"]).exits(2).says("possible values").says("not_renewable");
}

#[test]
fn short_view_fits_80_columns_and_has_no_colours_in_a_file() {
    let sandbox = sandbox();
    sandbox.add_created(&"a-long-name-".repeat(12));
    sandbox.run(&["verify"]).exits(0);
    let text = sandbox.run(&["list", "--short"]).exits(0).stdout.clone();
    assert!(text.lines().all(|line| line.chars().count() <= 80) && text.contains('…'), "{text}");
    assert!(text.starts_with("NAME") && text.contains("active") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn watched_status_is_written_at_each_change_and_ends_cleanly() {
    let sandbox = sandbox();
    sandbox.run(&["status", "--watch"]).exits(5);
    sandbox.add_created("a");
    let _daemon = sandbox.start_serving();
    sandbox.wait("the verification", |sandbox| sandbox.run(&["status"]).stdout.contains("active"));
    let args = ["status", "--watch", "--output", "jsonl"];
    let watch = Process::start(sandbox.shell("exec \"$0\" \"$@\" >frames", &args));
    let frames = |sandbox: &Sandbox| std::fs::read_to_string(sandbox.path("frames")).unwrap_or_default();
    sandbox.wait("the first frame", |sandbox| frames(sandbox).contains("\"name\":\"a\""));
    sandbox.add_created("b");
    sandbox.wait("the second runner", |sandbox| frames(sandbox).contains("\"name\":\"b\""));
    watch.stop(Signal::INT).exits(0);
}

#[test]
fn states_have_colours_on_a_terminal_unless_no_color_is_set() {
    let sandbox = sandbox();
    sandbox.add_created("a");
    sandbox.run(&["verify"]).exits(0);
    for (variables, is_coloured) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        for args in [&["list"][..], &["list", "--short"]] {
            let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
            grantpt(&own).unwrap();
            unlockpt(&own).unwrap();
            let name = ptsname(&own, Vec::new()).unwrap().into_string().unwrap();
            let terminal = File::options().read(true).write(true).open(name).unwrap();
            let mut command = sandbox.command(args);
            command.envs(variables.iter().copied());
            Process::start_writing_to(command, terminal.try_clone().unwrap()).end().exits(0);
            let mut bytes = [0; 4096];
            let length = File::from(own).read(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            assert_eq!(text.contains("\u{1b}[32mactive\u{1b}[0m"), is_coloured, "{text:?}");
            assert!(text.contains("active"), "{text:?}");
            drop(terminal);
        }
    }
}

#[test]
fn a_named_runner_is_shown_with_the_life_of_its_token() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("30d"));
    sandbox.add_created("a");
    sandbox.add_created("b");
    let _daemon = sandbox.start_serving();
    sandbox.run(&["status", "--wait", "ready"]).exits(0);
    assert!(!sandbox.run(&["status"]).stdout.contains("life is over"));
    let named = sandbox.run(&["status", "a"]).exits(0).stdout.clone();
    assert!(named.contains("\nrunner `a` (id ") && !named.contains("\nb "), "{named}");
    assert!(named.contains(" % of its token's life is over\n  #") && named.contains("R rotation in "), "{named}");
    assert_eq!(sandbox.run(&["status", "b", "--output", "json"]).exits(0).runners().len(), 1);
    assert_eq!(sandbox.run(&["status", "c"]).exits(0).stdout, "no runner matches\n");
    let token = sandbox.run(&["status", "glrt-0123456789abcdefghij"]);
    assert!(!token.exits(2).stderr.contains("0123456789"), "{}", token.stderr);
}
