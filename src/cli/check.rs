//! `check`: looks for mistakes in the settings, in config.toml and in the files that they name, without asking a server.

mod files;
mod finding;
mod hooks;
mod runners;
mod secrets;
mod sharing;
mod sockets;

use std::sync::Arc;

use super::context::Context;
use super::report::Reporter;
use super::text::printable;
use super::{Error, Exit};
use crate::model::RunnerKey;
use crate::settings::{self, Paths, Settings};
use crate::store::{Record, Snapshot, Store};

pub(super) use finding::{Finding, Severity};

use finding::count_text;

/// What was found, and what can be worked with nevertheless.
pub(super) struct Checked {
    /// The findings in the order of the files.
    pub(super) findings: Vec<Finding>,
    /// The files.
    pub(super) paths: Paths,
    /// The settings, if they are valid.
    pub(super) settings: Option<Settings>,
    /// The disk, if it can be opened.
    pub(super) store: Option<Store>,
    /// config.toml, if it can be read.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// The valid records.
    pub(super) records: Vec<Record>,
}

/// Reports the findings. Exits with 4 if there is an error.
pub(super) async fn check(context: &Context<'_>) -> Result<Exit, Error> {
    let Checked { findings, .. } = checked(context).await?;
    report(context, &findings);
    let has_errors = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if has_errors { Exit::LocalFile } else { Exit::Done })
}

/// Looks for mistakes.
pub(super) async fn checked(context: &Context<'_>) -> Result<Checked, Error> {
    let mut checked = read(context).await?;
    sockets::check(&mut checked).await;
    let Some(settings) = checked.settings.take() else { return Ok(checked) };
    let findings = &mut checked.findings;
    let agent_toml = &checked.paths.agent_config;
    if !settings.has_file {
        findings.push(Finding::note("the file does not exist: the defaults apply").in_file(agent_toml));
    }
    findings.extend(settings.warnings.iter().map(|warning| Finding::warning(warning).in_file(agent_toml)));
    secrets::check(&settings, &checked.records, checked.store.as_ref(), agent_toml, findings).await;
    sharing::check(&settings, findings).await;
    hooks::check(&settings, &checked.records, checked.snapshot.as_deref(), &checked.paths, findings).await;
    runners::check_files(&settings, checked.snapshot.as_deref(), &checked.paths, findings).await;
    if let Some(snapshot) = &checked.snapshot {
        runners::check_tokens(snapshot, &checked.paths, findings);
        runners::check_inventory(&settings, checked.records.clone(), snapshot, &checked.paths, findings).await;
    }
    checked.settings = Some(settings);
    Ok(checked)
}

/// Looks for what stops the daemon's start. Returns all of it, so that a user can correct it at once.
pub(super) async fn mistakes_at_start(context: &Context<'_>) -> Result<Vec<Finding>, Error> {
    let Checked { findings, .. } = read(context).await?;
    Ok(findings.into_iter().filter(|finding| finding.stops_start).collect())
}

/// Reads the settings, config.toml and the state directory.
async fn read(context: &Context<'_>) -> Result<Checked, Error> {
    let paths = settings::paths(&context.overrides, &context.environment);
    let mut findings = Vec::new();
    let opened = files::open(&paths, &mut findings)?;
    let mut records = Vec::new();
    let mut snapshot = None;
    if let Some(store) = &opened {
        records = files::read_records(store, &paths, &mut findings).await;
        snapshot = files::read_config(store, &paths, &mut findings).await;
    }
    let settings = read_settings(context, &records, &mut findings)?;
    if let (Some(settings), Some(store)) = (&settings, &opened)
        && snapshot.is_some()
    {
        files::check_start(context, settings, store, &mut findings).await;
    }
    Ok(Checked { findings, paths, settings, store: opened, snapshot, records })
}

/// Errors of the settings come first, as they do in the file.
fn read_settings(
    context: &Context<'_>,
    records: &[Record],
    findings: &mut Vec<Finding>,
) -> Result<Option<Settings>, Error> {
    match context.daemon_settings(recorded_names(records)) {
        Ok(settings) => Ok(Some(settings)),
        Err(Error::Settings(errors)) => {
            findings.splice(0..0, errors.diagnostics().iter().map(Finding::of_setting));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The names that enrollments have recorded.
fn recorded_names(records: &[Record]) -> Vec<(RunnerKey, String)> {
    records.iter().filter_map(|record| Some((record.key.clone(), record.name.clone()?))).collect()
}

fn report(context: &Context<'_>, findings: &[Finding]) {
    if context.reporter.is_json() {
        return context.reporter.rows("findings", findings.iter());
    }
    let mut text = String::new();
    for finding in findings {
        text.push_str(&finding.line_of_text());
        text.push('\n');
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!("  {}\n", printable(remedy)));
        }
    }
    context.reporter.answer(&format!("{text}{}\n", count_text(findings)));
}

/// Says why the daemon does not start, one line per finding.
pub(super) fn report_mistakes(reporter: &Reporter, findings: &[Finding]) {
    for finding in findings {
        reporter.remark(&format!("error: {}", finding.place_and_message()));
        if let Some(remedy) = &finding.remedy {
            reporter.remark(&format!("hint: {remedy}"));
        }
    }
}
