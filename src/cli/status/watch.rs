//! `status --watch`: shows the runners again and again, until a signal ends it.

use std::time::Duration;

use tokio::time::sleep;

use super::{View, fetch};
use crate::cli::context::Context;
use crate::cli::text::printable;
use crate::cli::{Error, Exit};
use crate::error_chain::chain;
use crate::model::{Report, RunnerReport, SharingReport};
use crate::signals::Signals;
use crate::status::StatusClient;

/// The interval of the requests.
const INTERVAL: Duration = Duration::from_secs(2);

/// Moves a terminal's cursor to the top, and clears everything from there.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Shows the runners anew every two seconds on a terminal, and elsewhere each time that something has changed. A daemon
/// that does not answer fails the first time only: later it may be restarting.
pub(super) async fn watch(
    context: &Context<'_>,
    daemon: &StatusClient,
    view: &View,
    mut signals: Signals,
) -> Result<Exit, Error> {
    tokio::select! {
        biased;
        _ = signals.next() => Ok(Exit::Done),
        ended = show_frames(context, daemon, view) => ended,
    }
}

async fn show_frames(context: &Context<'_>, daemon: &StatusClient, view: &View) -> Result<Exit, Error> {
    let reporter = context.reporter;
    let is_redrawn = reporter.is_stdout_terminal() && !reporter.is_json();
    let mut shown = None;
    loop {
        let frame = match fetch(context, daemon, view).await {
            Ok(report) => Ok(report),
            Err(error) if shown.is_none() => return Err(error),
            Err(error) => Err(chain(&error)),
        };
        let content = frame.clone().map(without_ages);
        if is_redrawn || shown.as_ref() != Some(&content) {
            let is_first = shown.is_none();
            let began = if is_redrawn {
                reporter.try_answer(CLEAR)
            } else if is_first || reporter.is_json() {
                Ok(())
            } else {
                reporter.try_answer("\n")
            };
            if began.is_err() {
                // Its reader has left.
                return Ok(Exit::Done);
            }
            match &frame {
                Ok(report) => view.show(context, report),
                Err(error) => reporter.remark(&format!("error: {}", printable(error))),
            }
        }
        shown = Some(content);
        sleep(INTERVAL).await;
    }
}

/// What changes by itself is no change.
fn without_ages(report: Report) -> Report {
    let still = |mut runner: RunnerReport| {
        let sharing = runner.sharing.take().map(|it| Box::new(SharingReport { contact_seconds: None, ..*it }));
        let clock_skew_seconds = runner.clock_skew_seconds.map(|seconds| seconds / 60);
        RunnerReport { sharing, clock_skew_seconds, ..runner }
    };
    Report { runners: report.runners.into_iter().map(still).collect(), ..report }
}
