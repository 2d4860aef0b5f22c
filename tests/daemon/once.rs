//! One pass, and signals that come in the middle of it.

use rustix::process::Signal;
use test_gitlab::{Endpoint, Fault, Gitlab, Order};

use super::bench::{Bench, Daemon};

const FINISHING: &str = "interrupted: finishing what is under way";

/// A pass whose registration is held by the server, and which was told to stop.
fn interrupted(bench: &Bench) -> (Daemon, Order) {
    let held = bench.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let pass = bench.start_with(&["--once"]);
    bench.wait("the runner to be made", |bench| bench.gitlab.runners().len() == 1);
    pass.signal(Signal::TERM);
    bench.wait("the signal to be noticed", |_| pass.log().contains(FINISHING));
    (pass, held)
}

#[test]
fn a_pass_that_is_told_to_stop_finishes_what_is_under_way() {
    let bench = Bench::enrolling(Gitlab::builder(), "[shutdown]\ngrace = \"1h\"\n");
    let (pass, held) = interrupted(&bench);
    held.release();
    let (status, log) = pass.end();
    assert!(status.success(), "{log}");
    assert!(bench.is_in_step());
}

#[test]
fn a_pass_that_is_told_to_stop_ends_with_the_grace_time() {
    let bench = Bench::enrolling(Gitlab::builder(), "[shutdown]\ngrace = \"200ms\"\n");
    let (pass, _held) = interrupted(&bench);
    let (status, log) = pass.end();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("the grace time is over"), "{log}");
}

#[test]
fn a_pass_that_is_told_to_stop_twice_ends_at_once() {
    let bench = Bench::enrolling(Gitlab::builder(), "[shutdown]\ngrace = \"1h\"\n");
    let (pass, _held) = interrupted(&bench);
    let (status, log) = pass.stop(Signal::INT);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("told to stop a second time"), "{log}");
}
