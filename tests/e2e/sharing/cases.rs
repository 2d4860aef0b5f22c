//! The cases, by name.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use crate::{etcd, kube, manifests};

/// A case, by the sentence that it proves.
type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("etcd-keeps-what-every-engine-has-to", etcd::keeps_what_every_engine_has_to),
    ("etcd-goes-on-without-one-member", etcd::goes_on_without_one_member),
    ("etcd-without-a-majority-is-unreachable-and-no-write-is-believed", etcd::without_a_majority),
    ("etcd-session-that-ended-is-renewed", etcd::session_that_ended),
    ("etcd-names-the-permission-that-is-missing", etcd::names_the_permission),
    ("etcd-by-a-wrong-password-or-authority-is-said", etcd::wrong_credentials),
    ("etcd-takes-users-and-passwords-of-any-characters", etcd::users_of_any_name),
    ("etcd-commands-show-heal-and-forget-a-shared-runner", etcd::commands),
    ("kubernetes-keeps-what-every-engine-has-to", kube::keeps_what_every_engine_has_to),
    ("kubernetes-names-the-verb-that-is-missing", kube::names_the_verb),
    ("kubernetes-names-the-secret-that-is-missing", kube::names_the_secret),
    ("kubernetes-that-is-gone-is-unreachable", kube::gone),
    ("kubernetes-manifests-apply-twice-and-give-a-pod-what-it-needs", manifests::applied_twice),
    ("kubernetes-commands-show-heal-and-forget-a-shared-runner", kube::commands),
    ("start-together-and-propagation", etcd::starts_together),
];

/// Cases that take as long as they are told to, all at the same time.
const TOGETHER: &[Case] = &[("torture-etcd", etcd::tortured), ("torture-kubernetes", kube::tortured)];

pub(crate) fn play() -> ExitCode {
    let wanted: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if env::var("RUNNER_AGENT_E2E").as_deref() != Ok("1") {
        println!("sharing: skipped: RUNNER_AGENT_E2E=1 is not set");
        return ExitCode::SUCCESS;
    }
    let began = Instant::now();
    let is_wanted =
        |(name, _): &&Case| wanted.is_empty() || wanted.iter().any(|wanted| name.starts_with(wanted.as_str()));
    let mut results: Vec<bool> = CASES.iter().filter(is_wanted).map(is_passed).collect();
    thread::scope(|scope| {
        let together = TOGETHER.iter().filter(is_wanted).map(|case| scope.spawn(|| is_passed(case)));
        let together: Vec<_> = together.collect();
        results.extend(together.into_iter().map(|case| case.join().unwrap()));
    });
    let (passed, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(|is_passed| *is_passed);
    println!("{} passed, {} failed, {} s", passed.len(), failed.len(), began.elapsed().as_secs());
    if failed.is_empty() && !passed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays a case.
fn is_passed((name, case): &Case) -> bool {
    let started = Instant::now();
    let is_passed = catch_unwind(AssertUnwindSafe(case)).is_ok();
    println!("{name}: {}, {} s", if is_passed { "ok" } else { "FAILED" }, started.elapsed().as_secs());
    is_passed
}

/// Runs a future to its end.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// A port of loopback that is free now, and that no second call returns.
///
/// It lies below the ports that Linux gives to outgoing connections: those could take it before a server listens, or
/// while a server starts again.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Two processes of tests begin at different ports.
    let port = || FIRST + (std::process::id() * 64 + TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
    let mut ports = std::iter::repeat_with(port).take(COUNT as usize).map(|port| u16::try_from(port).unwrap());
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("no port is free")
}
