//! Commands as users and scripts run them.

mod access_token;
mod addresses;
mod beside_daemon;
mod check;
mod completions;
mod doctor;
mod entry_keys;
mod file_remedies;
mod first_api;
mod fleet;
mod help;
mod hook;
mod init;
mod list;
mod plan;
mod proxies;
mod register;
mod relocate;
mod rotate;
mod schemes;
mod shared;
mod shared_tokens;
mod terminal;
mod token_classes;
mod unregister;
mod upgrade;
mod verify;
mod views;

use fake_gitlab::{Builder, Gitlab};
use test_support::Sandbox;

use crate::BINARY;

/// A sandbox with short delays and a fixed system_id.
fn sandbox() -> Sandbox {
    sandbox_with(Gitlab::builder())
}

fn sandbox_with(gitlab: Builder) -> Sandbox {
    let sandbox = Sandbox::new(BINARY, gitlab);
    sandbox.write("config/.runner_system_id", "s_0123456789ab\n");
    sandbox.write_fast_settings("");
    sandbox
}
