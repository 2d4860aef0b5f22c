//! Files, descriptors and credentials that hold tokens.

use test_gitlab::{Endpoint, NewRunner};

use super::bench::{Bench, Done};

/// The ways in which a command takes a file.
const WAYS: [&[&str]; 5] = [
    &["register", "-n", "--name", "b", "--token-file"],
    &["register", "-n", "--name", "b", "--registration-token-file"],
    &["verify", "--token-file"],
    &["unregister", "--token-file"],
    &["rotate", "--name", "a", "--pat-file"],
];

#[test]
fn a_file_that_others_can_write_is_refused_before_anything_is_asked() {
    let bench = Bench::new();
    let token = with_entry(&bench);
    for mode in [0o620, 0o602, 0o666] {
        bench.write_with("secret", &token, mode);
        for words in WAYS {
            let done = run(&bench, words);
            done.exits(4).says("can be written by others").tells_nothing_of(&[&token]);
        }
        for name in ["REGISTRATION_TOKEN_FILE", "CI_SERVER_TOKEN_FILE"] {
            let url = bench.gitlab.url();
            let mut command = bench.command(&["register", "-n", "--url", &url]);
            command.env(name, "secret");
            bench.start(command).end().exits(4).says("can be written by others");
        }
    }
    assert_eq!(bench.gitlab.requests().len(), 0);
}

#[test]
fn a_file_that_everybody_can_read_is_warned_of() {
    for words in WAYS {
        let bench = Bench::new();
        let token = with_entry(&bench);
        bench.write_with("secret", &token, 0o644);
        run(&bench, words).says("all users can read the token file").tells_nothing_of(&[&token]);
        bench.write_with("secret", &token, 0o640);
        assert!(!run(&bench, words).stderr.contains("everybody"), "{words:?}");
    }
}

#[test]
fn the_daemon_warns_of_every_open_file_that_agent_toml_names() {
    let bench = Bench::new();
    let (_, token) = bench.gitlab.add_runner(NewRunner::instance());
    bench.write_with("secret", &token, 0o644);
    bench.write_with("access", "glpat-planted", 0o604);
    let server = format!("[[server]]\nurl = \"{}\"\naccess_token = {{ file = \"access\" }}\n", bench.gitlab.url());
    bench.write_settings(&format!("{server}{}", bench.enrollment("a", "token = { file = \"secret\" }")));
    let done = bench.run(&["run", "--once"]);
    done.exits(0).says("access` (mode 0604)").says("secret` (mode 0644)").tells_nothing_of(&[&token, "planted"]);
}

#[test]
fn a_descriptor_that_was_left_open_is_a_place_for_a_token() {
    let bench = Bench::new();
    let token = with_entry(&bench);
    bench.write("secret", &token);
    let url = bench.gitlab.url();
    let words = ["verify", "--url", &url, "--token-file", "fd:7"];
    for script in ["exec \"$0\" \"$@\" 7< secret", "cat secret | \"$0\" \"$@\" 7<&0 0< /dev/null"] {
        // Also where the process executes itself again in between.
        for secret in ["", "GR1348941planted"] {
            let mut command = bench.shell(script, &words);
            command.env("REGISTRATION_TOKEN", secret).env("PATH", "/usr/bin:/bin");
            bench.start(command).end().exits(0).tells_nothing_of(&[&token, "planted"]);
        }
    }
    let done = bench.run(&["verify", "--url", &url, "--token-file", "fd:7"]);
    done.exits(4).says("cannot read the token file `fd:7`");
}

#[test]
fn a_systemd_credential_is_a_place_for_a_token() {
    let bench = Bench::new();
    let token = bench.gitlab.instance_registration_token();
    bench.write("credentials/registration", &token);
    bench.write_settings(&bench.enrollment("a", "registration_token = { credential = \"registration\" }"));
    let mut command = bench.command(&["run", "--once", "--log-level", "trace"]);
    command.env("CREDENTIALS_DIRECTORY", bench.path("credentials"));
    bench.start(command).end().exits(0).tells_nothing_of(&[&token]);
    assert_eq!(bench.gitlab.requests_to(Endpoint::Register).len(), 1);
    assert_eq!(bench.files_with(&token), ["credentials/registration"]);
}

fn with_entry(bench: &Bench) -> String {
    let (id, token) = bench.gitlab.add_runner(NewRunner::instance());
    bench.write("config.toml", &bench.entry("a", id, &token));
    token
}

fn run(bench: &Bench, words: &[&str]) -> Done {
    let url = bench.gitlab.url();
    bench.run(&[words, &["secret", "--url", &url]].concat())
}
