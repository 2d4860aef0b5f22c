//! Signals while the process executes itself again.

use std::fs;
use test_support::Process;

use rustix::process::Signal;

#[test]
fn signal_during_the_start_is_never_lost() {
    let sandbox = super::sandbox();
    for round in 0..40 {
        let mut command = sandbox.command(&["run"]);
        command.env("REGISTRATION_TOKEN", "GR1348941planted").env("CI_SERVER_URL", sandbox.gitlab.url());
        let process = Process::start(command);
        while !is_prepared(&process) {
            assert!(process.is_running());
        }
        for _ in 0..round * 50 {
            std::hint::spin_loop();
        }
        process.signal(Signal::QUIT);
        assert!(process.end().code.is_some(), "the signal killed the process");
    }
}

#[test]
fn inherited_blocked_signals_are_unblocked() {
    let sandbox = super::sandbox();
    for token in ["", "GR1348941planted"] {
        let mut command = sandbox.command(&["run"]);
        command.env("REGISTRATION_TOKEN", token).env("CI_SERVER_URL", sandbox.gitlab.url());
        let process = Process::start(command);
        sandbox.wait("the signals to be unblocked", |_| is_prepared(&process) && mask(&process, "SigBlk") == 0);
        process.stop(Signal::QUIT);
    }
}

/// Whether SIGQUIT is caught or blocked.
fn is_prepared(process: &Process) -> bool {
    let quit = 1 << (Signal::QUIT.as_raw() - 1);
    (mask(process, "SigCgt") | mask(process, "SigBlk")) & quit != 0
}

fn mask(process: &Process, name: &str) -> u64 {
    let status = fs::read_to_string(process.proc("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
}
