//! `status`: how the runners of a running daemon stand, and waiting until they are ready.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::arguments::{StatusArguments, Wait};
use super::context::Context;
use super::list::table_with_next;
use super::told::label;
use super::{Error, Exit};
use crate::model::{Report, RunnerReport, Timestamp, format_span};
use crate::observe::{QuestionError, Readiness, Unready, ask, chain};
use crate::settings;
use crate::signals::Signals;

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
    let sockets = settings::paths(&context.overrides, &context.environment).sockets;
    let Some(Wait::Ready) = arguments.wait else {
        tell(context, &sockets).await?;
        return Ok(Exit::Done);
    };
    let timeout = arguments.timeout.unwrap_or(TIMEOUT);
    let waited = tokio::select! {
        biased;
        waited = wait(&sockets, timeout) => waited?,
        _ = signals.next() => return Err(Error::Interrupted("while waiting for the daemon".to_owned())),
    };
    let told = tell(context, &sockets).await;
    match waited {
        Waited::Ready => told.map(|()| Exit::Done),
        // What it waits for is told in any case; that there is nothing else to tell is part of it.
        Waited::For(reasons) => {
            context.reporter.remark(&format!("error: not ready after {}", format_span(timeout)));
            reasons.iter().for_each(|reason| context.reporter.remark(&format!("  {reason}")));
            Ok(Exit::Failed)
        }
    }
}

enum Waited {
    Ready,
    /// Why not, one sentence each.
    For(Vec<String>),
}

/// Asks until the daemon is ready; one that does not answer is not ready yet.
async fn wait(sockets: &[PathBuf], timeout: Duration) -> Result<Waited, Error> {
    let deadline = Instant::now() + timeout;
    loop {
        let reasons = match ask(sockets, "/readyz").await {
            Ok(reply) if reply.is_yes => return Ok(Waited::Ready),
            Ok(reply) => reasons(&reply.body),
            Err(error @ QuestionError::Connect { .. }) => return Err(error.into()),
            Err(error) => vec![chain(&error)],
        };
        let now = Instant::now();
        if now >= deadline {
            return Ok(Waited::For(reasons));
        }
        sleep(POLL.min(deadline - now)).await;
    }
}

/// What a daemon that is not ready waits for, one sentence each.
pub(super) fn reasons(body: &[u8]) -> Vec<String> {
    match serde_json::from_slice::<Readiness>(body) {
        Ok(readiness) => readiness.waiting_for.iter().map(reason).collect(),
        Err(error) => vec![format!("the daemon has not said why: {error}")],
    }
}

fn reason(unready: &Unready) -> String {
    let Unready { name, id, why } = unready;
    match (name, id) {
        (Some(name), Some(id)) => format!("runner `{}` (id {id}): {why}", super::told::shown(name)),
        (Some(name), None) => format!("runner `{}`: {why}", super::told::shown(name)),
        (None, _) => why.clone(),
    }
}

async fn tell(context: &Context<'_>, sockets: &[PathBuf]) -> Result<(), Error> {
    let reply = ask(sockets, "/status").await?;
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
        troubles.map(|(runner, trouble)| format!("\nrunner {}: {trouble}\n", label(runner))).collect();
    table_with_next(runners, now) + &sentences
}
