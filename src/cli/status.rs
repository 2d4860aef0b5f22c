//! `status`: how the runners of a running daemon stand, and waiting until they are ready.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::arguments::{StatusArguments, Wait};
use super::context::Context;
use super::list::table_with_next;
use super::outcome::{label, shown};
use super::{Error, Exit};
use crate::error_chain::chain;
use crate::model::{Report, RunnerReport, Timestamp, format_span};
use crate::settings;
use crate::signals::Signals;
use crate::status::{NotReadyReason, Readiness, StatusClient, StatusClientError};

/// How often a daemon is asked whether it is ready.
const POLL: Duration = Duration::from_millis(500);

/// How long is waited where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Tells how the daemon's runners stand. Reads no file: the socket is enough.
pub(super) async fn status(
    context: &Context<'_>,
    arguments: &StatusArguments,
    mut signals: Signals,
) -> Result<Exit, Error> {
    let daemon = settings::paths(&context.overrides, &context.environment).status_client();
    let Some(Wait::Ready) = arguments.wait else {
        tell(context, &daemon).await?;
        return Ok(Exit::Done);
    };
    let timeout = arguments.timeout.unwrap_or(TIMEOUT);
    let waited = tokio::select! {
        biased;
        waited = wait(&daemon, timeout) => waited?,
        _ = signals.next() => return Err(Error::Interrupted("while waiting for the daemon".to_owned())),
    };
    match waited {
        Waited::Ready => tell(context, &daemon).await.map(|()| Exit::Done),
        Waited::For { reasons, has_answered } => {
            if has_answered {
                // What it waits for is told in any case; that there is nothing else to tell is part of it.
                tell(context, &daemon).await.ok();
            }
            context.reporter.remark(&format!("error: not ready after {}", format_span(timeout)));
            reasons.iter().for_each(|reason| context.reporter.remark(&format!("  {}", shown(reason))));
            Ok(Exit::Failed)
        }
    }
}

enum Waited {
    Ready,
    For {
        /// Why not, one sentence each.
        reasons: Vec<String>,
        /// Whether that came from the daemon.
        has_answered: bool,
    },
}

/// Asks until the daemon is ready; one that does not answer is not ready yet.
async fn wait(daemon: &StatusClient, drain_mode: Duration) -> Result<Waited, Error> {
    let began = Instant::now();
    let deadline = began.checked_add(drain_mode).unwrap_or(began + FOR_EVER);
    loop {
        // Whoever gives no time at all has one answer waited for.
        let asked = timeout_at(deadline.max(Instant::now() + POLL), daemon.get("/readyz")).await;
        let (reasons, has_answered) = match asked {
            Ok(Ok(reply)) if reply.is_ok => return Ok(Waited::Ready),
            Ok(Ok(reply)) => (reasons(&reply.body), true),
            // With several places the daemon may come at the next one.
            Ok(Err(error @ StatusClientError::Connect { .. })) if daemon.sockets.len() == 1 => return Err(error.into()),
            Ok(Err(error)) => (vec![chain(&error)], false),
            Err(_) => (vec!["the daemon has not answered in this time".to_owned()], false),
        };
        let now = Instant::now();
        if now >= deadline {
            return Ok(Waited::For { reasons, has_answered });
        }
        sleep(POLL.min(deadline - now)).await;
    }
}

/// As long as nobody waits, and short enough to be added to any time.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What a daemon that is not ready waits for, one sentence each.
pub(super) fn reasons(body: &[u8]) -> Vec<String> {
    match serde_json::from_slice::<Readiness>(body) {
        Ok(readiness) => readiness.waiting_for.iter().map(reason).collect(),
        Err(error) => vec![format!("the daemon has not said why: {error}")],
    }
}

fn reason(unready: &NotReadyReason) -> String {
    let NotReadyReason { name, id, why } = unready;
    match (name, id) {
        (Some(name), Some(id)) => format!("runner `{}` (id {id}): {why}", shown(name)),
        (Some(name), None) => format!("runner `{}`: {why}", shown(name)),
        (None, _) => why.clone(),
    }
}

async fn tell(context: &Context<'_>, daemon: &StatusClient) -> Result<(), Error> {
    let reply = daemon.get("/status").await?;
    let report: Report = serde_json::from_slice(&reply.body).map_err(|error| Error::Verdict {
        exit: Exit::Unreachable,
        message: format!("the daemon's answer cannot be understood: {error}"),
        hint: Some("restart the daemon if it is of another version than this command".to_owned()),
    })?;
    let now = context.now();
    context.reporter.runners(report.runners, |runners| text(runners, now));
    Ok(())
}

fn text(runners: &[RunnerReport], now: Timestamp) -> String {
    if runners.is_empty() {
        return "the daemon serves no runners\n".to_owned();
    }
    let troubles = runners.iter().filter_map(|runner| Some((runner, runner.error.as_ref()?)));
    let sentences: String =
        troubles.map(|(runner, trouble)| format!("\nrunner {}: {}\n", label(runner), shown(trouble))).collect();
    table_with_next(runners, now) + &sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_daemon_says_moves_no_cursor() {
        let trick = "a\u{1b}[2J\u{202e}b\u{2028}c\u{200b}";
        let report: Report = serde_json::from_value(serde_json::json!({ "schema": 1, "runners": [{
            "name": trick, "executor": trick, "state": trick, "error": trick,
            "next": { "step": trick, "at": "2027-01-01T00:00:00Z", "why": trick },
        }] }))
        .unwrap();
        let text = text(&report.runners, "2027-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(
            text.matches("a?[2J?b?c?").count(),
            3 + 1,
            "the name comes twice, and names that are unknown not at all: {text}"
        );
        assert!(!text.chars().any(|character| character != '\n' && crate::model::is_unprintable(character)));
    }
}
