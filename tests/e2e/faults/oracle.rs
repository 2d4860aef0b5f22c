//! Checks that server and disk are consistent.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use toml::{Table, Value};

use super::access_token;
use super::sandbox::{FOREIGN, FaultSandbox};

/// What the daemon and `register` report about a registration without a response.
const NAMES_AN_ORPHAN: [&str; 2] =
    ["the answer to a registration was lost", "GitLab may have created the runner anyway"];

/// The keys that the agent may change.
const OURS: [&str; 6] = ["name", "url", "id", "token", "token_obtained_at", "token_expires_at"];

/// How many runners there must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    One,
    None,
    /// One or none, but the same on the server and in config.toml.
    InStep,
    /// The same, or the entry of a runner that is gone: a command that was cut off leaves nothing that acts later.
    InStepOrGone,
    /// None, and an access token in its file that the server accepts.
    AccessToken,
}

/// Compares server and disk.
///
/// # Errors
/// The first difference.
pub(crate) fn check(sandbox: &FaultSandbox, goal: Goal) -> Result<(), String> {
    let text = sandbox.config();
    let config: Table = text.parse().map_err(|error| format!("config.toml does not parse: {error}"))?;
    let mode =
        fs::metadata(sandbox.path("config/config.toml")).map_err(|error| error.to_string())?.permissions().mode();
    if mode & 0o777 != 0o600 {
        return Err(format!("config.toml has the mode {:o}", mode & 0o777));
    }
    check_foreign(&text)?;
    check_runners(sandbox, &config, goal)?;
    if goal == Goal::AccessToken {
        access_token::check(sandbox)?;
    }
    check_files(sandbox.root())
}

/// Checks that foreign lines are unchanged and that all other lines belong to the agent's entries.
fn check_foreign(text: &str) -> Result<(), String> {
    let ours = text.strip_prefix(FOREIGN).ok_or_else(|| format!("config.toml has lost foreign lines:\n{text}"))?;
    for line in ours.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let key = line.split('=').next().unwrap_or_default().trim();
        if line != "[[runners]]" && line != "executor = \"shell\"" && !OURS.contains(&key) {
            return Err(format!("config.toml has an unexpected line: {line}"));
        }
    }
    Ok(())
}

fn check_runners(sandbox: &FaultSandbox, config: &Table, goal: Goal) -> Result<(), String> {
    let entries = config.get("runners").and_then(Value::as_array).cloned().unwrap_or_default();
    let of = |entry: &Value, key: &str| entry.get(key).map(ToString::to_string).unwrap_or_default();
    let ours: Vec<&Value> = entries.iter().filter(|entry| of(entry, "name") == "\"build-1\"").collect();
    if ours.len() + 1 != entries.len() {
        return Err(format!("config.toml has {} entries, {} of them ours", entries.len(), ours.len()));
    }
    for entry in &ours {
        let token = entry.get("token").and_then(Value::as_str).unwrap_or_default();
        let Some(runner) = sandbox.gitlab.runner_by_token(token) else {
            if goal == Goal::InStepOrGone && sandbox.gitlab.runners().is_empty() {
                continue;
            }
            return Err("config.toml holds a token that the server refuses".to_owned());
        };
        if runner.token_expires_at.is_some_and(|at| at <= sandbox.gitlab.now()) {
            return Err("config.toml holds a token that has expired".to_owned());
        }
        if of(entry, "id") != runner.id.to_string() {
            return Err(format!("the entry of runner {} has the id {:?}", runner.id, of(entry, "id")));
        }
    }
    let orphans = sandbox.gitlab.runners().len().saturating_sub(ours.len());
    let named = orphans_named(sandbox);
    if orphans > named {
        return Err(format!("the server has {orphans} runners that no entry holds, and the log names {named}"));
    }
    let is_reached = match goal {
        Goal::One => ours.len() == 1,
        Goal::None | Goal::AccessToken => ours.is_empty(),
        Goal::InStep | Goal::InStepOrGone => ours.len() <= 1,
    };
    if is_reached { Ok(()) } else { Err(format!("config.toml has {} entries of ours, not {goal:?}", ours.len())) }
}

fn orphans_named(sandbox: &FaultSandbox) -> usize {
    let logs = sandbox.logs();
    // A one-shot command reports both.
    NAMES_AN_ORPHAN.iter().map(|text| logs.matches(text).count()).max().unwrap_or_default()
}

/// Checks that only files with a known name exist.
fn check_files(root: &Path) -> Result<(), String> {
    for directory in ["config", "state"] {
        let mut found = Vec::new();
        collect(&root.join(directory), &mut found);
        for path in found {
            let below = path.strip_prefix(&format!("{}/", root.display())).unwrap_or(&path);
            if !is_fixed(below) {
                return Err(format!("{below} is left over"));
            }
        }
    }
    Ok(())
}

fn is_fixed(path: &str) -> bool {
    let Some((_, inside)) = path.split_once('/').filter(|(directory, _)| *directory == "state") else {
        return is_fixed_beside_config(path);
    };
    let Some((_, file)) = inside.split_once('/') else { return false };
    match file.split_once('/') {
        None => {
            let files = ["config.copy", "config.paths"];
            let is_temporary = |name: &&str| file == format!(".{name}.runner-agent.tmp");
            ["lock", ".probe"].contains(&file) || files.contains(&file) || files.iter().any(is_temporary)
        }
        Some(("dropped", ".entry.runner-agent.tmp")) => true,
        Some(("dropped", name)) => !name.starts_with('.') && name.contains("Z-build-1") && name.ends_with(".toml"),
        Some(("runners", ".probe")) => true,
        Some(("runners", name)) => is_fixed_of_runner(name),
        Some(("access", ".probe")) => true,
        Some(("hooks", name)) => is_fixed_of_hooks(name),
        Some(("access", name)) => name.contains("access-token@") && is_fixed_of_runner(name),
        Some(_) => false,
    }
}

/// Whether this is a known file of the hooks; one with a token is not.
fn is_fixed_of_hooks(name: &str) -> bool {
    let stem = name.strip_prefix('.').and_then(|name| name.strip_suffix(".runner-agent.tmp")).unwrap_or(name);
    stem == "begun" || ["build-1.json", "settings@agent.json"].contains(&stem) || stem.starts_with("access-token@")
}

fn is_fixed_beside_config(path: &str) -> bool {
    let names = [
        "config.toml",
        ".config.toml.daemon",
        ".config.toml.lock",
        ".config.toml.runner-agent.tmp",
        ".runner_system_id",
        "..runner_system_id.runner-agent.tmp",
        "access-token",
        ".access-token.lock",
        ".access-token.rotating",
        ".access-token.runner-agent.tmp",
        "..access-token.rotating.runner-agent.tmp",
        "written",
        ".written.runner-agent.tmp",
    ];
    names.iter().any(|name| path.strip_prefix("config/") == Some(name))
}

/// Whether this is a known file of a runner; an unfinished journal is not.
fn is_fixed_of_runner(name: &str) -> bool {
    let (hidden, stem) = match name.strip_prefix('.').and_then(|name| name.strip_suffix(".runner-agent.tmp")) {
        Some(stem) => (true, stem),
        None => (false, name),
    };
    let Some((key, kind)) = stem.rsplit_once('.') else { return false };
    let is_key = key == "build-1" || key.starts_with("register-") || key.contains('@');
    is_key
        && (["json", "held", "probe"].contains(&kind) || (kind == "lock" && !hidden) || (kind == "pending" && hidden))
}

fn collect(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().map_while(Result::ok) {
        let path = entry.path();
        if path.is_dir() { collect(&path, found) } else { found.push(path.display().to_string()) }
    }
}
