//! What must hold after a rotation of an access token.

use std::fs;
use std::path::Path;
use std::time::Duration;

use fake_gitlab::{NewAccessToken, Scope};
use rustix::process::Signal;
use test_support::PATIENCE;

use super::oracle::{self, Goal};
use super::sandbox::{ACCESS_TOKEN, FaultSandbox};

/// No replica is behind for longer.
const SETTLE_AFTER: Duration = Duration::from_secs(11 * 60);

/// What the daemon logs if the answer to the rotation was lost.
const IS_UNSETTLED: &str = "a rotation of the access token was sent and its answer was lost";
const IS_LOST: &str = "the new access token is lost with the answer to its rotation";

/// The file holds a token that the server accepts, and no token was rotated twice.
///
/// # Errors
/// What is wrong.
pub(crate) fn check(sandbox: &FaultSandbox) -> Result<(), String> {
    check_reuse(sandbox)?;
    let token = fs::read_to_string(sandbox.path(ACCESS_TOKEN)).map_err(|error| error.to_string())?;
    let is_accepted = sandbox.gitlab.accepts_access_token(token.trim());
    if is_accepted { Ok(()) } else { Err("the token file holds a token that the server refuses".to_owned()) }
}

fn check_reuse(sandbox: &FaultSandbox) -> Result<(), String> {
    match sandbox.gitlab.access_tokens().values().find(|token| token.rotate_requests > 1) {
        Some(token) => Err(format!("access token {} was rotated {} times", token.id, token.rotate_requests)),
        None => Ok(()),
    }
}

/// Starts the daemon without a fault, and lets it settle what the command has left. If nothing on the disk has a good
/// token, it is lost, and a person makes a new one.
///
/// # Errors
/// What was lost or done twice.
pub(crate) fn recover(sandbox: &FaultSandbox) -> Result<(), String> {
    let is_kept = holds_good_token(sandbox, sandbox.root());
    let daemon = sandbox.start(&["run"], &[]);
    let is_good = |log: &str| log.contains("the access token is accepted") && check(sandbox).is_ok();
    let is_over = |log: &str| is_good(log) || log.contains(IS_LOST);
    let mut unsettled = 0;
    let is_settled = daemon.wait_for(PATIENCE, |daemon| {
        let log = daemon.log();
        if !is_over(&log) && log.contains(IS_UNSETTLED) && unsettled < 3 {
            unsettled += 1;
            sandbox.gitlab.advance(SETTLE_AFTER);
            daemon.signal(Signal::HUP);
            daemon.wait_for(Duration::from_millis(500), |daemon| is_over(&daemon.log()));
        }
        is_over(&daemon.log())
    });
    check_reuse(sandbox)?;
    if !is_settled {
        return Err("the daemon settles nothing".to_owned());
    }
    if daemon.log().contains(IS_LOST) {
        if is_kept {
            return Err("a good token was on the disk, and counts as lost".to_owned());
        }
        let new = NewAccessToken::personal().scopes([Scope::Api]);
        sandbox.write_with_mode(ACCESS_TOKEN, &sandbox.gitlab.create_access_token(new), 0o600);
        if !daemon.wait_for(PATIENCE, |daemon| is_good(&daemon.log())) {
            return Err("the daemon does not take the token of a person".to_owned());
        }
    }
    daemon.signal(Signal::QUIT);
    if !daemon.try_end()?.is_success() {
        return Err("the daemon exits with an error".to_owned());
    }
    oracle::check(sandbox, Goal::AccessToken).map_err(|lost| format!("after it had settled: {lost}"))
}

/// Whether a file below the directory contains an access token that the server accepts.
fn holds_good_token(sandbox: &FaultSandbox, directory: &Path) -> bool {
    fs::read_dir(directory).into_iter().flatten().map_while(Result::ok).any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds_good_token(sandbox, &path);
        }
        let content = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&content);
        let words = text.split(|character: char| !character.is_ascii_alphanumeric() && !"-_.".contains(character));
        words.filter(|word| word.starts_with("glpat-")).any(|word| sandbox.gitlab.accepts_access_token(word))
    })
}
