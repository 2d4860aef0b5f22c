//! `status`: shows the status of the daemon's runners, or waits until they are ready.

mod life;
mod wait;
mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use super::access_text::access_line;
use super::arguments::{StatusArguments, Wait};
use super::context::Context;
use super::list::table_with_next;
use super::row_filter::RowFilter;
use super::selection::misplaced_token;
use super::short::{is_coloured, short_table};
use super::table::Screen;
use super::text::{label, printable};
use super::{Error, Exit};
use life::life_text;

use crate::clock::Skew;
use crate::model::{DaemonReport, Report, RunnerReport, Timestamp, format_span};
use crate::settings;
use crate::signals::Signals;
use crate::status::{NotReadyReason, Readiness, StatusClient};

/// The default of --timeout.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Shows the status of the daemon's runners. Reads no file, only the socket.
pub(super) async fn status(
    context: &Context<'_>,
    arguments: &StatusArguments,
    mut signals: Signals,
) -> Result<Exit, Error> {
    let daemon = settings::paths(&context.overrides, &context.environment).status_client();
    let name = arguments.name.as_ref().map(|name| name.name().map_err(misplaced_token)).transpose()?;
    let name = name.map(str::to_owned);
    let view = View { name, filter: arguments.filter.clone(), is_short: arguments.short };
    if arguments.watch {
        return watch::watch(context, &daemon, &view, signals).await;
    }
    let Some(Wait::Ready) = arguments.wait else {
        show_runners(context, &daemon, &view).await?;
        return Ok(Exit::Done);
    };
    let timeout = arguments.timeout.unwrap_or(TIMEOUT);
    let waited = tokio::select! {
        biased;
        waited = wait::wait(context.reporter, &daemon, timeout) => waited?,
        _ = signals.next() => return Err(Error::Interrupted("while waiting for the daemon".to_owned())),
    };
    match waited {
        wait::Waited::Ready => show_runners(context, &daemon, &view).await.map(|()| Exit::Done),
        wait::Waited::For { reasons, has_answered } => {
            if has_answered {
                // Best effort: the reasons below are reported in any case.
                show_runners(context, &daemon, &view).await.ok();
            }
            context.reporter.remark(&format!("error: not ready after {}", format_span(timeout)));
            reasons.iter().for_each(|reason| context.reporter.remark(&format!("  {}", printable(reason))));
            Ok(Exit::Failed)
        }
    }
}

/// Why the daemon is not ready, one sentence each.
pub(super) fn reasons(body: &[u8]) -> Vec<String> {
    match serde_json::from_slice::<Readiness>(body) {
        Ok(readiness) => readiness.waiting_for.iter().map(reason).collect(),
        Err(error) => vec![format!("the daemon gave no reason: {error}")],
    }
}

fn reason(unready: &NotReadyReason) -> String {
    let NotReadyReason { name, id, why } = unready;
    match (name, id) {
        (Some(name), Some(id)) => format!("runner `{}` (id {id}): {why}", printable(name)),
        (Some(name), None) => format!("runner `{}`: {why}", printable(name)),
        (None, _) => why.clone(),
    }
}

async fn show_runners(context: &Context<'_>, daemon: &StatusClient, view: &View) -> Result<(), Error> {
    view.show(context, &fetch(context, daemon, view).await?);
    Ok(())
}

/// Asks the daemon for its runners; returns those that are shown.
async fn fetch(context: &Context<'_>, daemon: &StatusClient, view: &View) -> Result<Report, Error> {
    let (mut report, _) = report(daemon).await?;
    let now = context.now();
    let runners = report.runners.into_iter().map(|runner| runner.as_of(now));
    report.runners = runners.filter(|runner| view.matches(runner, now)).collect();
    Ok(report)
}

/// What the daemon reports, and its process id if this process can see it.
pub(super) async fn report(daemon: &StatusClient) -> Result<(Report, Option<i32>), Error> {
    let reply = daemon.get("/status").await?;
    let report = serde_json::from_slice(&reply.body).map_err(|error| Error::Verdict {
        exit: Exit::Unreachable,
        message: format!("the daemon's answer is invalid: {error}"),
        hint: Some("restart the daemon if its version differs from this command's".to_owned()),
    })?;
    Ok((report, reply.process))
}

/// Which files on the disk are not in force, one paragraph each.
fn not_in_force(daemon: Option<&DaemonReport>) -> impl Iterator<Item = String> {
    let settings = daemon.and_then(|daemon| daemon.settings_error.as_deref());
    let config = daemon.and_then(|daemon| daemon.config_error.as_deref());
    let lines = |errors: &str| errors.lines().map(|line| format!("  {}\n", printable(line))).collect::<String>();
    let settings = settings.map(|errors| {
        format!("\nthe settings on the disk are invalid, and the previous ones are in force:\n{}", lines(errors))
    });
    let config = config.map(|errors| {
        format!("\nconfig.toml cannot be read, and its last known content is in force:\n{}", lines(errors))
    });
    settings.into_iter().chain(config)
}

/// The access tokens, a paragraph each.
fn access_tokens(daemon: Option<&DaemonReport>, now: Timestamp) -> impl Iterator<Item = String> {
    daemon.into_iter().flat_map(|daemon| &daemon.access_tokens).map(move |report| {
        let problem = report.last_error.as_ref().map(|why| format!("\n  {}", printable(why))).unwrap_or_default();
        format!("\naccess token for {}: {}{problem}\n", report.server, access_line(report, now))
    })
}

/// How the runners are shown.
struct View {
    /// The only name that is shown; the lives of tokens are drawn then.
    name: Option<String>,
    filter: RowFilter,
    is_short: bool,
}

impl View {
    fn matches(&self, runner: &RunnerReport, now: Timestamp) -> bool {
        let is_named = self.name.as_ref().is_none_or(|name| runner.name.as_ref() == Some(name));
        is_named && self.filter.matches(runner, now)
    }

    /// The lives of the tokens, if runners are named.
    fn lives<'a>(
        &self,
        context: &'a Context<'_>,
        runners: &'a [RunnerReport],
        now: Timestamp,
    ) -> impl Iterator<Item = String> + use<'a> {
        let runners = if self.name.is_some() { runners } else { &[] };
        runners.iter().map(move |runner| life_text(context, runner, now))
    }

    fn show(&self, context: &Context<'_>, report: &Report) {
        let (runners, now) = (&report.runners, context.now());
        let none = if self.filter.is_empty() && self.name.is_none() {
            "the daemon serves no runners\n"
        } else {
            "no runner matches\n"
        };
        let table = || -> Vec<String> {
            if runners.is_empty() {
                vec![none.to_owned()]
            } else if self.is_short {
                vec![short_table(context, runners, now)]
            } else {
                let screen = Screen { width: None, is_coloured: is_coloured(context) };
                table_with_next(|| runners.iter(), now, screen).collect()
            }
        };
        let daemon = report.daemon.as_ref();
        let lives = || self.lives(context, runners, now);
        let after = || lives().chain(sentences(runners)).chain(access_tokens(daemon, now)).chain(not_in_force(daemon));
        context.reporter.status(report, || table().into_iter().chain(after()));
    }
}

/// What each runner waits for, and the servers whose clocks differ.
fn sentences(runners: &[RunnerReport]) -> impl Iterator<Item = String> {
    let troubles = runners.iter().filter_map(|runner| Some((runner, runner.error.as_ref()?)));
    let sentences = troubles.map(|(runner, trouble)| format!("\nrunner {}: {}\n", label(runner), printable(trouble)));
    sentences.chain(skews(runners))
}

/// A sentence for each server whose clock differs from the daemon's.
fn skews(runners: &[RunnerReport]) -> impl Iterator<Item = String> {
    let skews: BTreeMap<_, _> =
        runners.iter().filter_map(|runner| Some((runner.url.as_ref()?.host(), runner.clock_skew_seconds?))).collect();
    skews.into_iter().filter_map(|(host, seconds)| {
        let skew = Skew::of_millis(seconds.saturating_mul(1000))?;
        Some(format!("\nserver {}: {skew}\n", printable(host)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_the_daemon_cannot_move_the_cursor() {
        let trick = "a\u{1b}[2J\u{202e}b\u{2028}c\u{200b}";
        let report: Report = serde_json::from_value(serde_json::json!({ "schema": 1, "runners": [{
            "name": trick, "executor": trick, "state": trick, "error": trick,
            "next": { "step": trick, "at": "2027-01-01T00:00:00Z", "why": trick },
        }] }))
        .unwrap();
        let now = "2027-01-01T00:00:00Z".parse().unwrap();
        let table = table_with_next(|| report.runners.iter(), now, Screen::default());
        let text: String = table.chain(sentences(&report.runners)).collect();
        assert_eq!(
            text.matches("a?[2J?b?c?").count(),
            3 + 1,
            "the name comes twice, and names that are unknown not at all: {text}"
        );
        assert!(!text.chars().any(|character| character != '\n' && crate::model::is_unprintable(character)));
    }
}
