//! Plants tokens in every source, and searches every place that must not contain them.

mod files;
mod output;
mod process;
mod signals;

use fake_gitlab::{Builder, Gitlab};
use test_support::{Process, Sandbox};

use crate::BINARY;

/// A sandbox with short delays.
fn sandbox() -> Sandbox {
    sandbox_with(Gitlab::builder())
}

fn sandbox_with(gitlab: Builder) -> Sandbox {
    let sandbox = Sandbox::new(BINARY, gitlab);
    write_settings(&sandbox, "");
    sandbox
}

fn write_settings(sandbox: &Sandbox, settings: &str) {
    sandbox.write_fast_settings(&format!("[shutdown]\ngrace = \"100ms\"\n{settings}"));
}

/// Asserts that the command line and the environment of a process, as the system shows them now, hold no token.
#[track_caller]
fn assert_hidden(process: &Process, token: &str) {
    let command_line = std::fs::read_to_string(process.proc("cmdline")).unwrap();
    assert!(!command_line.is_empty() && !command_line.contains(token), "{command_line}");
    // Only root can read the environment of a process that is not dumpable.
    if let Ok(variables) = std::fs::read(process.proc("environ")) {
        let variables = String::from_utf8_lossy(&variables);
        assert!(!variables.contains(token), "{variables}");
    }
}
