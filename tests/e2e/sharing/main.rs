//! The stores of shared runners against the real engines: three members of etcd with TLS and users, and a kube-apiserver
//! with the Role that the packages have.
//!
//! Needs `RUNNER_AGENT_E2E=1`, etcd-server, etcd-client and libfaketime, and for Kubernetes what `kube-apiserver.sh` needs;
//! `cargo test --features etcd,kubernetes --test sharing -- NAME…` plays the cases whose names start with one of the names.
//! All servers listen on loopback.
//!
//! - `etcd-…`, `kubernetes-…`: what an engine has to keep, and what it says if it cannot be used.
//! - `start-together-and-propagation`: two hundred agents that make one runner, and that hear of a rotation.
//! - `torture-…`: agents whose tokens live twenty seconds, while agents and servers are killed, paused and cut off, and
//!   clocks are moved, at random. Beside each agent is a gitlab-runner that no rotation may make give up.
//!
//! `SHARING_SEED` repeats a torture, as far as the same disturbances at the same times repeat it; of a list with commas,
//! each seed has a torture at the same time. `SHARING_TORTURE_SECS` sets their length, `SHARING_MACHINES` the number of
//! agents, `SHARING_BINARY` another binary, and `SHARING_LOG` its log level; `SHARING_CALM=1` disturbs nothing. After a
//! fault, or with `SHARING_KEEP=1`, the files and logs of all agents stay, with the disturbances and GitLab's requests.
//! `SHARING_STRICT=1` is for a machine that does nothing else: a token that is late, by the limits that the checker has, is a
//! fault then, and not only printed.
//! Agents need root: each has a mount namespace with hosts of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "this is a test from its first line to its last"
)]

#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod agents;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod cases;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod checker;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod commands;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod conformance;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod etcd;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod fleet;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod gitlab_runner;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod kube;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod manifests;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod proxy;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod torture;

use std::process::ExitCode;

#[cfg(all(feature = "etcd", feature = "kubernetes"))]
fn main() -> ExitCode {
    cases::play()
}

#[cfg(not(all(feature = "etcd", feature = "kubernetes")))]
fn main() -> ExitCode {
    println!("sharing: skipped: it is built without the features etcd and kubernetes");
    ExitCode::SUCCESS
}
