//! The stores of shared runners against the real engines: three members of etcd with TLS and users, and a kube-apiserver
//! with the Role that the packages have.
//!
//! Needs `RUNNER_AGENT_E2E=1`, etcd-server and etcd-client, and for Kubernetes what `kube-apiserver.sh` needs;
//! `cargo test --features etcd,kubernetes --test sharing -- NAME…` plays the cases whose names start with one of the names.
//! All servers listen on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "this is a test from its first line to its last"
)]

#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod cases;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod commands;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod conformance;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod etcd;
#[cfg(all(feature = "etcd", feature = "kubernetes"))]
mod kube;

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
