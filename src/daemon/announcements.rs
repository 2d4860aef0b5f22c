//! Lines of the log that say beforehand what the daemon does with all runners of a kind, and how to change it.

use crate::engine::RotateFound;

/// Logs in one line what is done with the runners that were only found in config.toml.
pub(super) fn log_found(runners: usize, policy: RotateFound) {
    match policy {
        RotateFound::Never => tracing::info!(
            runners,
            "entries of config.toml that were not made by this agent are verified, and their tokens are not rotated; `[rotate]` in agent.toml changes that: `found` may be \"never\", \"last_resort\" or \"always\""
        ),
        RotateFound::LastResort => tracing::info!(
            runners,
            "entries of config.toml that were not made by this agent are verified, and their tokens are rotated only if gitlab-runner has not done it at 90 % of their life; `[rotate] found` in agent.toml changes that: \"never\", \"last_resort\" or \"always\""
        ),
        RotateFound::Always => tracing::info!(
            runners,
            "entries of config.toml that were not made by this agent are verified, and their tokens are rotated like those that it made; `[rotate] found` in agent.toml changes that: \"never\", \"last_resort\" or \"always\""
        ),
    }
}

/// How many runners a line names; it counts the others.
const MOST_NAMES: usize = 5;

/// Logs in one line which runners a stop is about to unregister.
pub(super) fn log_unregistrations(runners: &[String]) {
    if runners.is_empty() {
        return;
    }
    let (named, others) = runners.split_at(runners.len().min(MOST_NAMES));
    let others = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
    tracing::info!(
        runners = runners.len(),
        names = format!("{}{others}", named.join(", ")),
        "unregistering these runners: `[shutdown] unregister = \"never\"` in agent.toml keeps them registered at a stop, and so does the signal QUIT instead of TERM"
    );
}
