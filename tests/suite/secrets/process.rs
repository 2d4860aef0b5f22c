//! What the system shows about a process.

use super::assert_hidden;
use super::write_settings;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use test_support::{Process, Sandbox};

use fake_gitlab::{Endpoint, Fault, NewRunner};

#[test]
fn runner_tokens_are_removed_from_the_command_line() {
    const PLANTED: &str = "glrt-planted-in-argv-0001";
    let cases: [(&[&str], Endpoint); 13] = [
        (&["verify", "--token", PLANTED], Endpoint::Verify),
        (&["verify", "--token=glrt-planted-in-argv-0001"], Endpoint::Verify),
        (&["verify", "-t", PLANTED], Endpoint::Verify),
        (&["verify", "-tglrt-planted-in-argv-0001"], Endpoint::Verify),
        (&["verify", "-t=glrt-planted-in-argv-0001"], Endpoint::Verify),
        (&["verify", "--token", " glrt-planted-in-argv-0001\n"], Endpoint::Verify),
        (&["unregister", "--token", PLANTED], Endpoint::DeleteManager),
        (&["register", "-n", "--token", PLANTED], Endpoint::Verify),
        (&["register", "-nt", PLANTED], Endpoint::Verify),
        (&["register", "-n", "--registration-token", PLANTED], Endpoint::Verify),
        (&["register", "-n", "--registration-token=glrt-planted-in-argv-0001"], Endpoint::Verify),
        (&["register", "-n", "-r", PLANTED], Endpoint::Verify),
        (&["register", "-nrglrt-planted-in-argv-0001"], Endpoint::Verify),
    ];
    for (args, endpoint) in cases {
        let sandbox = super::sandbox();
        let url = sandbox.gitlab.url();
        if args[0] == "verify" {
            sandbox.write_config(&sandbox.entry("a", 1, PLANTED));
        }
        let order = sandbox.gitlab.order(Endpoint::Any, Fault::hold());
        let process = sandbox.start(&[args, &["--url", &url]].concat());
        sandbox.wait_for_requests(Endpoint::Any, 1);
        assert_hidden(&process, "planted");
        order.release();
        process.end().hides(&["planted"]);
        let request = &sandbox.gitlab.requests()[0];
        assert_eq!((request.endpoint, request.parameter("token")), (endpoint, Some(PLANTED)), "{args:?}");
    }
}

#[test]
fn access_tokens_are_removed_from_the_command_line() {
    for args in [&["--pat", "glpat-planted"][..], &["--pat=glpat-planted"]] {
        let sandbox = super::sandbox();
        let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
        sandbox.gitlab.accept_access_token("glpat-planted");
        sandbox.write_config(&sandbox.entry("a", id, &token));
        let order = sandbox.gitlab.order(Endpoint::ResetById, Fault::hold());
        let process = sandbox.start(&[&["rotate", "--name", "a", "--force"], args].concat());
        sandbox.wait_for_requests(Endpoint::ResetById, 1);
        assert_hidden(&process, "planted");
        order.release();
        process.end().exits(0).hides(&["planted"]);
    }
}

#[test]
fn tokens_are_removed_from_the_environment() {
    let registration = "registration_token = { env = \"MY_OWN\" }";
    let cases = [
        ("REGISTRATION_TOKEN", "GR1348941planted", Endpoint::Register, ""),
        ("CI_SERVER_TOKEN", "glrt-planted", Endpoint::Verify, ""),
        ("MY_OWN", "GR1348941planted", Endpoint::Register, registration),
    ];
    for (name, token, endpoint, secret) in cases {
        let sandbox = super::sandbox();
        if !secret.is_empty() {
            write_settings(&sandbox, &sandbox.enrollment("a", secret));
        }
        let process = daemon(&sandbox, &[(name, token)], endpoint);
        assert_hidden(&process, "planted");
        // A stop waits for the answer to a registration.
        sandbox.gitlab.clear_faults();
        process.stop(Signal::QUIT).hides(&["planted"]);
        assert_eq!(sandbox.gitlab.requests_to(endpoint)[0].parameter("token"), Some(token));
    }
}

#[test]
fn variables_of_entries_leave_the_environment() {
    for token in ["$MY_OWN", "${MY_OWN}"] {
        let sandbox = super::sandbox();
        sandbox.write_config(&sandbox.entry("a", 1, token));
        let process = daemon(&sandbox, &[("MY_OWN", "glrt-planted")], Endpoint::Verify);
        assert_hidden(&process, "planted");
        process.stop(Signal::QUIT).hides(&["planted"]);
        assert_eq!(sandbox.gitlab.requests()[0].parameter("token"), Some("glrt-planted"));
    }
}

#[test]
fn secrets_of_the_store_of_shared_runners_are_removed_from_the_environment() {
    let sandbox = super::sandbox();
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write_config(&sandbox.entry("a", id, &token));
    let variables = [
        ("SHARING_ENGINE", "etcd"),
        ("SHARING_ENDPOINTS", "https://127.0.0.1:9"),
        ("SHARING_USERNAME", "agent"),
        ("SHARING_PASSWORD", "a-planted-password"),
        ("SHARING_ENCRYPTION_KEY", "a-planted-key-of-more-than-32-characters"),
    ];
    // No runner is shared, so nothing is connected.
    let process = daemon(&sandbox, &variables, Endpoint::Verify);
    assert_hidden(&process, "planted");
    process.stop(Signal::QUIT).hides(&["planted"]);
}

#[test]
fn unused_secrets_are_removed_from_the_environment() {
    let sandbox = super::sandbox();
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write_config(&sandbox.entry("a", id, &token));
    let proxy = "http://user:planted@127.0.0.1:9";
    for (name, value) in [
        ("GITLAB_TOKEN", "planted"),
        ("PRIVATE_TOKEN", "planted"),
        ("https_proxy", proxy),
        ("ALL_PROXY", proxy),
        ("MY_NOTES", "glpat-planted-for-this-test"),
    ] {
        sandbox.gitlab.clear_requests();
        let process = daemon(&sandbox, &[(name, value)], Endpoint::Verify);
        assert_hidden(&process, "planted");
        process.stop(Signal::QUIT).hides(&["planted"]);
    }
}

#[test]
fn long_secrets_are_removed_from_the_environment() {
    let sandbox = super::sandbox();
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write_config(&sandbox.entry("a", id, &token));
    let long = format!("{} glpat-planted-for-this-test", "x".repeat(100_000));
    let variables = [("A", &*long), ("B", &*long), ("C", &*long), ("REGISTRATION_TOKEN", "planted")];
    let process = daemon(&sandbox, &variables, Endpoint::Verify);
    assert_hidden(&process, "planted");
    process.stop(Signal::QUIT).hides(&["planted"]);
}

#[test]
fn a_file_of_the_kernel_is_no_token_file() {
    let sandbox = super::sandbox();
    let mut command = sandbox.command(&["verify", "--token-file", "/proc/self/environ"]);
    command.env_clear().env("HOME", sandbox.root()).env("REGISTRATION_TOKEN", "x".repeat(500));
    Process::start(command).end().exits(4).says("it is a file of the kernel");
}

#[test]
fn handover_keeps_the_process_name_and_stdin() {
    let sandbox = super::sandbox();
    sandbox.write("stdin", "glrt-from-stdin");
    sandbox.write_config(&sandbox.entry("a", 1, "glrt-from-stdin"));
    let url = sandbox.gitlab.url();
    let order = sandbox.gitlab.order(Endpoint::Verify, Fault::hold());
    let args = ["verify", "--token-file", "-", "--url", &url];
    let mut command = sandbox.shell("exec \"$0\" \"$@\" < stdin", &args);
    command.env("REGISTRATION_TOKEN", "planted");
    let process = Process::start(command);
    sandbox.wait_for_requests(Endpoint::Verify, 1);
    assert_eq!(fs::read_to_string(process.proc("comm")).unwrap(), "runner-agent\n");
    let args = fs::read_to_string(process.proc("cmdline")).unwrap();
    assert!(args.starts_with(crate::BINARY), "{args}");
    if let Ok(stdin) = fs::read_link(process.proc("fd/0")) {
        assert_eq!(stdin, sandbox.path("stdin").canonicalize().unwrap());
    }
    order.release();
    process.end();
    assert_eq!(sandbox.gitlab.requests()[0].parameter("token"), Some("glrt-from-stdin"));
}

#[test]
fn foreign_handover_marker_is_ignored() {
    let sandbox = super::sandbox();
    let variables = [("RUNNER_AGENT_HANDED_OVER_TO", "1"), ("REGISTRATION_TOKEN", "GR1348941planted")];
    let process = daemon(&sandbox, &variables, Endpoint::Register);
    assert_hidden(&process, "planted");
}

#[test]
fn core_dumps_and_debuggers_are_disabled() {
    for variables in [&[("REGISTRATION_TOKEN", "GR1348941planted")][..], &[]] {
        let sandbox = super::sandbox();
        sandbox.write("given", "GR1348941given");
        write_settings(&sandbox, &sandbox.enrollment("a", "registration_token = { file = \"given\" }"));
        let mut command = sandbox.command(&["run"]);
        command.envs(variables.iter().copied()).env("CI_SERVER_URL", sandbox.gitlab.url());
        if rustix::process::geteuid().is_root() {
            // A process of root looks the same with and without the protection.
            change_owner(&sandbox, UNPRIVILEGED);
            command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        sandbox.gitlab.order(Endpoint::Register, Fault::hold()).always();
        let process = Process::start(command);
        sandbox.wait_for_requests(Endpoint::Register, 1);
        let limits = fs::read_to_string(process.proc("limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
        assert_eq!(fs::metadata(process.proc("environ")).unwrap().uid(), 0, "only root can read the environment");
    }
}

/// A user and group without any rights.
const UNPRIVILEGED: u32 = 65534;

fn change_owner(sandbox: &Sandbox, id: u32) {
    for name in ["", "config", "agent.toml", "given"] {
        chown(sandbox.path(name), Some(id), Some(id)).unwrap();
    }
}

/// Starts a daemon whose first response is held.
fn daemon(sandbox: &Sandbox, variables: &[(&str, &str)], endpoint: Endpoint) -> Process {
    sandbox.gitlab.clear_faults();
    sandbox.gitlab.order(endpoint, Fault::status(503).held()).always();
    let mut command = sandbox.command(&["run", "--log-level", "trace"]);
    command.envs(variables.iter().copied()).env("CI_SERVER_URL", sandbox.gitlab.url());
    let process = Process::start(command);
    sandbox.wait_for_requests(endpoint, 1);
    process
}

#[test]
fn a_token_in_the_wrong_place_is_not_echoed() {
    let sandbox = super::sandbox();
    let token = "glrt-t1_AbCdEfGhIjKlMnOpQrSt";
    for args in [
        &["list", token][..],
        &["register", "--limit", token],
        &["verify", "--token-file", token],
        &["verify", "--name", token],
        &["status", "--socket", token],
        &["register", "--template-config", token],
    ] {
        let output = sandbox.run(args);
        assert!(!output.is_success(), "{args:?}");
        output.hides(&["AbCdEfGhIjKl"]).says("[token]");
    }
    sandbox.run(&["verify", token]).exits(2).hides(&["AbCdEfGhIjKl"]).says("not a name");
}
