//! What the system shows of a process.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;

use test_gitlab::{Endpoint, Fault, NewRunner};

use super::bench::{Bench, Process};

#[test]
fn no_token_of_the_command_line_stays_in_it() {
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
    for (words, endpoint) in cases {
        let bench = Bench::new();
        let url = bench.gitlab.url();
        if words[0] == "verify" {
            bench.write("config.toml", &bench.entry("a", 1, PLANTED));
        }
        let order = bench.gitlab.order(Endpoint::Any, Fault::hold());
        let process = bench.start(bench.command(&[words, &["--url", &url]].concat()));
        bench.wait_for(Endpoint::Any, 1);
        process.shows_nothing_of("planted");
        order.release();
        process.end().tells_nothing_of(&["planted"]);
        let request = &bench.gitlab.requests()[0];
        assert_eq!((request.endpoint, request.parameter("token")), (endpoint, Some(PLANTED)), "{words:?}");
    }
}

#[test]
fn no_access_token_of_the_command_line_stays_in_it() {
    for words in [&["--pat", "glpat-planted"][..], &["--pat=glpat-planted"]] {
        let bench = Bench::new();
        let (id, token) = bench.gitlab.add_runner(NewRunner::instance());
        bench.gitlab.accept_access_token("glpat-planted");
        bench.write("config.toml", &bench.entry("a", id, &token));
        let order = bench.gitlab.order(Endpoint::ResetById, Fault::hold());
        let process = bench.start(bench.command(&[&["rotate", "--name", "a"], words].concat()));
        bench.wait_for(Endpoint::ResetById, 1);
        process.shows_nothing_of("planted");
        order.release();
        process.end().exits(0).tells_nothing_of(&["planted"]);
    }
}

#[test]
fn no_token_of_a_variable_stays_in_the_environment() {
    let registration = "registration_token = { env = \"MY_OWN\" }";
    let cases = [
        ("REGISTRATION_TOKEN", "GR1348941planted", Endpoint::Register, ""),
        ("CI_SERVER_TOKEN", "glrt-planted", Endpoint::Verify, ""),
        ("MY_OWN", "GR1348941planted", Endpoint::Register, registration),
    ];
    for (name, token, endpoint, secret) in cases {
        let bench = Bench::new();
        if !secret.is_empty() {
            bench.write_settings(&bench.enrollment("a", secret));
        }
        let process = daemon(&bench, &[(name, token)], endpoint);
        process.shows_nothing_of("planted");
        process.stop().tells_nothing_of(&["planted"]);
        assert_eq!(bench.gitlab.requests()[0].parameter("token"), Some(token));
    }
}

#[test]
fn no_variable_of_an_entry_stays_in_the_environment() {
    for token in ["$MY_OWN", "${MY_OWN}"] {
        let bench = Bench::new();
        bench.write("config.toml", &bench.entry("a", 1, token));
        let process = daemon(&bench, &[("MY_OWN", "glrt-planted")], Endpoint::Verify);
        process.shows_nothing_of("planted");
        process.stop().tells_nothing_of(&["planted"]);
        assert_eq!(bench.gitlab.requests()[0].parameter("token"), Some("glrt-planted"));
    }
}

#[test]
fn what_is_not_used_as_a_token_but_is_one_does_not_stay_in_the_environment_either() {
    let bench = Bench::new();
    let (id, token) = bench.gitlab.add_runner(NewRunner::instance());
    bench.write("config.toml", &bench.entry("a", id, &token));
    let proxy = "http://user:planted@127.0.0.1:9";
    for (name, value) in [("GITLAB_TOKEN", "planted"), ("PRIVATE_TOKEN", "planted"), ("https_proxy", proxy)] {
        bench.gitlab.clear_requests();
        let process = daemon(&bench, &[(name, value)], Endpoint::Verify);
        process.shows_nothing_of("planted");
        process.stop().tells_nothing_of(&["planted"]);
    }
}

/// Needs no right to look into another process: the process looks at itself, and tells the length.
#[test]
fn the_process_itself_sees_an_environment_without_the_secret() {
    let bench = Bench::new();
    let mut command = bench.command(&["verify", "--token-file", "/proc/self/environ"]);
    command.env_clear().env("HOME", bench.directory()).env("REGISTRATION_TOKEN", "x".repeat(500));
    bench.start(command).end().exits(4).says("a character that no token has");
}

#[test]
fn nothing_of_the_handing_over_is_left_and_stdin_is_what_it_was() {
    let bench = Bench::new();
    bench.write("stdin", "glrt-from-stdin");
    bench.write("config.toml", &bench.entry("a", 1, "glrt-from-stdin"));
    let url = bench.gitlab.url();
    let order = bench.gitlab.order(Endpoint::Verify, Fault::hold());
    let words = ["verify", "--token-file", "-", "--url", &url];
    let mut command = bench.shell("exec \"$0\" \"$@\" < stdin", &words);
    command.env("REGISTRATION_TOKEN", "planted");
    let process = bench.start(command);
    bench.wait_for(Endpoint::Verify, 1);
    assert_eq!(fs::read_to_string(process.proc("comm")).unwrap(), "runner-agent\n");
    let words = fs::read_to_string(process.proc("cmdline")).unwrap();
    assert!(words.starts_with(env!("CARGO_BIN_EXE_runner-agent")), "{words}");
    if let Ok(stdin) = fs::read_link(process.proc("fd/0")) {
        assert_eq!(stdin, bench.path("stdin").canonicalize().unwrap());
    }
    order.release();
    process.end();
    assert_eq!(bench.gitlab.requests()[0].parameter("token"), Some("glrt-from-stdin"));
}

#[test]
fn a_marker_of_somebody_elses_does_not_keep_a_token_in_the_environment() {
    let bench = Bench::new();
    let variables = [("RUNNER_AGENT_HANDED_OVER_TO", "1"), ("REGISTRATION_TOKEN", "GR1348941planted")];
    let process = daemon(&bench, &variables, Endpoint::Register);
    process.shows_nothing_of("planted");
}

#[test]
fn cores_and_debuggers_are_kept_out() {
    let bench = Bench::new();
    for variables in [&[("REGISTRATION_TOKEN", "GR1348941planted")][..], &[]] {
        bench.gitlab.clear_requests();
        bench.write("given", "GR1348941given");
        bench.write_settings(&bench.enrollment("a", "registration_token = { file = \"given\" }"));
        let mut command = bench.command(&["run"]);
        command.envs(variables.iter().copied()).env("CI_SERVER_URL", bench.gitlab.url());
        if rustix::process::geteuid().is_root() {
            // To root's own processes the system shows no difference.
            hand_to_nobody(&bench);
            command.uid(NOBODY).gid(NOBODY);
        }
        bench.gitlab.order(Endpoint::Register, Fault::hold()).always();
        let process = bench.start(command);
        bench.wait_for(Endpoint::Register, 1);
        let limits = fs::read_to_string(process.proc("limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
        assert_eq!(fs::metadata(process.proc("environ")).unwrap().uid(), 0, "it belongs to root alone");
        bench.gitlab.clear_faults();
    }
}

const NOBODY: u32 = 65534;

fn hand_to_nobody(bench: &Bench) {
    for path in [bench.directory().to_owned(), bench.path("agent.toml"), bench.path("given")] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// A daemon that waits for its first answer, which is held.
fn daemon(bench: &Bench, variables: &[(&str, &str)], endpoint: Endpoint) -> Process {
    bench.gitlab.clear_faults();
    bench.gitlab.order(endpoint, Fault::status(503).held()).always();
    let mut command = bench.command(&["run", "--log-level", "trace"]);
    command.envs(variables.iter().copied()).env("CI_SERVER_URL", bench.gitlab.url());
    let process = bench.start(command);
    bench.wait_for(endpoint, 1);
    process
}
