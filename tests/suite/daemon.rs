//! The daemon as a process against a real server.
//!
//! Tokens live for seconds; the tests assert the order and number of events.

mod access_tokens;
mod changes;
mod containers;
mod crashes;
mod ends;
mod expired;
mod hooks;
mod lives;
mod machine;
mod once;
mod page;
mod reload;
mod secrets;
mod service;
mod status_command;
mod status_server;

use fake_gitlab::Builder;
use test_support::Sandbox;

use crate::BINARY;

/// A sandbox with an empty agent.toml.
fn sandbox(gitlab: Builder) -> Sandbox {
    Sandbox::new(BINARY, gitlab)
}

/// A sandbox whose agent.toml has these settings and enrolls one runner named `build-1`.
fn enrolled(gitlab: Builder, settings: &str) -> Sandbox {
    let sandbox = sandbox(gitlab);
    sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    sandbox.write("agent.toml", &format!("{settings}\n{}", enrollment(&sandbox, "build-1")));
    sandbox
}

/// An `[[enroll]]` table that registers with the token in the file `token`.
fn enrollment(sandbox: &Sandbox, name: &str) -> String {
    sandbox.enrollment(name, "registration_token = { file = \"token\" }")
}
