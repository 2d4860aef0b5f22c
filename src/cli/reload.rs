//! `reload`: lets the daemon read its files again, and reports whether they are in force.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::arguments::ReloadArguments;
use super::context::Context;
use super::{Error, Exit, status};
use crate::model::{DaemonReport, format_span};
use crate::settings;
use crate::status::StatusClient;

/// The pause between two questions whether the reload is done.
const POLL: Duration = Duration::from_millis(100);

/// The default of --timeout.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// Sends the signal, and waits until the daemon has read its files.
pub(super) async fn reload(context: &Context<'_>, arguments: &ReloadArguments) -> Result<Exit, Error> {
    let client = settings::paths(&context.overrides, &context.environment).status_client();
    let daemon = ask(&client, arguments.timeout.unwrap_or(TIMEOUT)).await?;
    Ok(result(context, &daemon))
}

/// The same without a report for people.
///
/// # Errors
/// [`Error::Question`] if no daemon answers, [`Error::Verdict`] if it cannot be sent the signal or does not read its files
/// within the timeout.
pub(super) async fn ask(client: &StatusClient, timeout: Duration) -> Result<DaemonReport, Error> {
    let (before, process) = status::report(client).await?;
    let process = process.and_then(Pid::from_raw).ok_or_else(|| {
        failed(
            "the daemon's process cannot be seen from here",
            "run this command in the daemon's container, or send HUP",
        )
    })?;
    kill_process(process, Signal::HUP).map_err(|error| {
        let message = format!("cannot send HUP to the daemon (process {}): {error}", process.as_raw_nonzero());
        failed(&message, "run as the daemon's user or as root")
    })?;
    let Some(before) = before.daemon else {
        let hint = "see the daemon's log, and restart it to use the version of this command";
        return Err(failed("HUP was sent, but this daemon's version does not report the result", hint));
    };
    let began = Instant::now();
    loop {
        let (report, _) = status::report(client).await?;
        if let Some(daemon) = report.daemon.filter(|daemon| daemon.reloads_done > before.reloads_begun) {
            return Ok(daemon);
        }
        if began.elapsed() >= timeout {
            let message = format!("HUP was sent, and the files were not read within {}", format_span(timeout));
            return Err(failed(&message, "see the daemon's log: a disk or network share may not answer"));
        }
        sleep(POLL).await;
    }
}

fn result(context: &Context<'_>, daemon: &DaemonReport) -> Exit {
    if context.reporter.is_json() {
        context.reporter.document_line("daemon", daemon);
    }
    let errors: Vec<_> = [&daemon.settings_error, &daemon.config_error].into_iter().flatten().collect();
    for line in errors.iter().flat_map(|error| error.lines()) {
        context.reporter.remark(&format!("error: {line}"));
    }
    if !errors.is_empty() {
        context.reporter.remark("the daemon goes on with the previous content");
        return Exit::LocalFile;
    }
    if !context.reporter.is_json() {
        context.reporter.answer("reloaded: agent.toml and config.toml are in force\n");
    }
    Exit::Done
}

fn failed(message: &str, hint: &str) -> Error {
    Error::Verdict { exit: Exit::Failed, message: message.to_owned(), hint: Some(hint.to_owned()) }
}
