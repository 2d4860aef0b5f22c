//! Files, descriptors and credentials that hold tokens.

use super::write_settings;
use fake_gitlab::{Endpoint, NewRunner};
use test_support::{Output, Process, Sandbox};

/// The commands that read a token from a file, without the file's name.
const COMMANDS: [&[&str]; 5] = [
    &["register", "-n", "--name", "b", "--token-file"],
    &["register", "-n", "--name", "b", "--registration-token-file"],
    &["verify", "--token-file"],
    &["unregister", "--token-file"],
    &["rotate", "--name", "a", "--pat-file"],
];

#[test]
fn file_writable_by_others_fails_before_any_request() {
    let sandbox = super::sandbox();
    let token = with_entry(&sandbox);
    for mode in [0o620, 0o602, 0o666] {
        sandbox.write_with_mode("secret", &token, mode);
        for args in COMMANDS {
            let done = run(&sandbox, args);
            done.exits(4).says("can be written by others").hides(&[&token]);
        }
        for name in ["REGISTRATION_TOKEN_FILE", "CI_SERVER_TOKEN_FILE"] {
            let url = sandbox.gitlab.url();
            let mut command = sandbox.command(&["register", "-n", "--url", &url]);
            command.env(name, "secret");
            Process::start(command).end().exits(4).says("can be written by others");
        }
    }
    assert_eq!(sandbox.gitlab.requests().len(), 0);
}

#[test]
fn world_readable_file_causes_a_warning() {
    for args in COMMANDS {
        let sandbox = super::sandbox();
        let token = with_entry(&sandbox);
        sandbox.write_with_mode("secret", &token, 0o644);
        run(&sandbox, args).says("all users can read the token file").hides(&[&token]);
        sandbox.write_with_mode("secret", &token, 0o640);
        assert!(!run(&sandbox, args).stderr.contains("all users can read"), "{args:?}");
    }
}

#[test]
fn daemon_warns_about_each_world_readable_file() {
    let sandbox = super::sandbox();
    let (_, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write_with_mode("secret", &token, 0o644);
    sandbox.write_with_mode("access", "glpat-planted", 0o604);
    let server = format!("[[server]]\nurl = \"{}\"\naccess_token = {{ file = \"access\" }}\n", sandbox.gitlab.url());
    write_settings(&sandbox, &format!("{server}{}", sandbox.enrollment("a", "token = { file = \"secret\" }")));
    let done = sandbox.run(&["run", "--once"]);
    done.exits(0).says("access` (mode 0604)").says("secret` (mode 0644)").hides(&[&token, "planted"]);
}

#[test]
fn token_can_come_from_a_file_descriptor() {
    let sandbox = super::sandbox();
    let token = with_entry(&sandbox);
    sandbox.write("secret", &token);
    let url = sandbox.gitlab.url();
    let args = ["verify", "--url", &url, "--token-file", "fd:7"];
    for script in ["exec \"$0\" \"$@\" 7< secret", "cat secret | \"$0\" \"$@\" 7<&0 0< /dev/null"] {
        // A secret in the environment makes the process execute itself again.
        for secret in ["", "GR1348941planted"] {
            let mut command = sandbox.shell(script, &args);
            command.env("REGISTRATION_TOKEN", secret).env("PATH", "/usr/bin:/bin");
            Process::start(command).end().exits(0).hides(&[&token, "planted"]);
        }
    }
    let done = sandbox.run(&["verify", "--url", &url, "--token-file", "fd:7"]);
    done.exits(4).says("cannot read the token file `fd:7`");
}

#[test]
fn token_can_come_from_a_systemd_credential() {
    let sandbox = super::sandbox();
    let token = sandbox.gitlab.instance_registration_token();
    sandbox.write("credentials/registration", &token);
    write_settings(&sandbox, &sandbox.enrollment("a", "registration_token = { credential = \"registration\" }"));
    let mut command = sandbox.command(&["run", "--once", "--log-level", "trace"]);
    command.env("CREDENTIALS_DIRECTORY", sandbox.path("credentials"));
    Process::start(command).end().exits(0).hides(&[&token]);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
    assert_eq!(sandbox.files_with(&token), ["credentials/registration"]);
}

fn with_entry(sandbox: &Sandbox) -> String {
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write_config(&sandbox.entry("a", id, &token));
    token
}

fn run(sandbox: &Sandbox, args: &[&str]) -> Output {
    let url = sandbox.gitlab.url();
    sandbox.run(&[args, &["secret", "--url", &url]].concat())
}
