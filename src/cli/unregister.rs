//! `unregister`: removes runners from the server and from config.toml.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::rc::Rc;

use super::arguments::{Api, UnregisterArguments};
use super::confirm::ask_to_confirm;
use super::context::Context;
use super::interrupt::Interrupt;
use super::outcome::{RunnerOutcome, described};
use super::selection::{Candidate, RunnerSelector, Selected};
use super::session::{CommandSession, Driver, error_of};
use super::shared_entry::drop_entry;
use super::{Error, Exit};
use crate::engine::{Asker, Budget, Drive, ManagedRunner, record_report};
use crate::lifecycle::Goal;
use crate::model::{Action, Credential, Expiry, Origin, RunnerKey, RunnerReport, ServerUrl, Site, StateName, TlsFiles};
use crate::ops::{EntryFate, Runner, Unfinished, Unregistration};
use crate::secret::Token;
use crate::store::{Entry, Record};

/// Unregisters the selected runners. What is under way is finished before an interrupt ends it; a second one ends it
/// at once, and the journal lets the next command or start finish.
pub(super) async fn unregister(
    context: &Context<'_>,
    arguments: UnregisterArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    if arguments.selection.is_empty() && !arguments.all_runners {
        return Err(Error::Usage("specify runners: --name, --url, --id, --token, or --all-runners".to_owned()));
    }
    let tls = arguments.tls.clone().files(&context.environment);
    let (api, parallel) = (arguments.api, arguments.parallel);
    let asks = arguments.all_runners && !arguments.yes && io::stdin().is_terminal();
    let selector = RunnerSelector::new(arguments.selection, &context.environment)?;
    let work = async {
        let session = CommandSession::open(context, interrupt.clone(), parallel).await?;
        if let Some((url, token)) = selector.without_entry()
            && selector.choose(session.candidates().await?).is_err()
        {
            let reporter = session.reporter;
            let managed = ManagedRunner {
                runner: runner_without_entry(url, token, tls),
                enrollment: None,
                unfinished: None,
                twin_of: None,
            };
            let outcome = unregister_one(Rc::new(session), with_api(api, managed)).await;
            return Ok(reporter.report_outcomes(vec![outcome]));
        }
        if asks {
            confirm_all(&session, &selector).await?;
        }
        session.for_all_selected(&selector, |session, selected| unregister_selected(session, api, selected)).await
    };
    tokio::select! {
        biased;
        () = interrupt.interrupted_twice() => Err(Error::Interrupted("the next command finishes the interrupted operations".to_owned())),
        result = work => result,
    }
}

/// Shows on a terminal how many runners are unregistered, and asks whether to continue.
async fn confirm_all(session: &CommandSession, selector: &RunnerSelector) -> Result<(), Error> {
    let chosen = selector.choose(session.candidates().await?)?;
    if chosen.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = chosen.iter().filter_map(Candidate::name).collect();
    let (shown, more) = names.split_at(names.len().min(MOST_NAMES));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    let (count, config) = (chosen.len(), session.ops().disk().config_path().display());
    session.reporter.remark(&format!("unregistering all runners in {config} ({count}): {}{more}", shown.join(", ")));
    ask_to_confirm(&session.interrupt, "confirm with --yes").await
}

/// How many runners the question names.
const MOST_NAMES: usize = 10;

/// Unregisters a runner, or only removes the selected entry if others use its token. Does nothing if an entry that is
/// not selected may be the same runner.
async fn unregister_selected(session: Rc<CommandSession>, api: Option<Api>, selected: Selected) -> RunnerOutcome {
    if !selected.others.is_empty() {
        return drop_entry(session, selected).await;
    }
    if selected.twins.is_empty() {
        let mut managed = with_api(api, selected.managed);
        managed.runner.select(selected.entries.into_iter().map(|entry| entry.name).collect());
        return unregister_one(session, managed).await;
    }
    let report = record_report(&selected.managed.runner, session.now());
    RunnerOutcome::failed(report, Action::Failed, "not unregistered", &may_be_shared(&selected.twins))
}

fn may_be_shared(twins: &[Entry]) -> Error {
    let described = described(&twins.iter().collect::<Vec<_>>());
    let named = twins.iter().find_map(|entry| entry.name.as_deref()).map(|name| format!(" --name {name}"));
    Error::Verdict {
        exit: Exit::Usage,
        message: format!("{described} had the same token before a rotation, and may be the same runner"),
        hint: Some(format!(
            "run `runner-agent verify{}`, which gives it the new token if it is the same runner, and then try again; if it is a runner of its own, verify shows that ten minutes after the rotation; if the entry is no longer needed, remove it",
            named.unwrap_or_default()
        )),
    }
}

/// A runner that has no entry.
fn runner_without_entry(url: ServerUrl, token: Token, tls: TlsFiles) -> Runner {
    let key = RunnerKey::found(&url, None, token.digest());
    let origin = if token.looks_created() { Origin::Given } else { Origin::Registered };
    let mut runner = Runner::blank(key, origin, Site { url, tls });
    runner.record.credential = Some(Credential { token, obtained_at: None, expiry: Expiry::Unknown });
    runner
}

/// The same runner, made through the API that the user names.
fn with_api(api: Option<Api>, mut managed: ManagedRunner) -> ManagedRunner {
    let origin = &mut managed.runner.record.origin;
    *origin = match (api, *origin) {
        (Some(Api::V1), Origin::Registered) => Origin::V1,
        (Some(Api::V4), Origin::V1) => Origin::Registered,
        (_, origin) => origin,
    };
    managed
}

async fn unregister_one(session: Rc<CommandSession>, managed: ManagedRunner) -> RunnerOutcome {
    let before = record_report(&managed.runner, session.now());
    let unfinished = managed.unfinished.clone();
    let mut driver = session.driver(managed, Asker::Command { access_token: None, entry_fate: EntryFate::Drop });
    let drive = match try_unregister(&session, &mut driver, unfinished.as_ref()).await {
        Ok(drive) => drive,
        Err(error) => return RunnerOutcome::failed(before, Action::Failed, "not unregistered", &error),
    };
    let Some((found, dropped_to)) = drive.unregistration() else {
        let is_accepted = drive.failure().is_none() && drive.last.is_some();
        let error = if is_accepted { still_there() } else { error_of(drive) };
        let action = if error.exit() == Exit::Refused { Action::Refused } else { Action::Failed };
        return RunnerOutcome::failed(before, action, "not unregistered", &error);
    };
    // If the answer to a reset was lost, the old token is refused for that reason.
    let is_doubtful = unfinished == Some(Unfinished::LostReset) && found == Unregistration::AlreadyGone;
    let found = if is_doubtful { Unregistration::MayRemain } else { found };
    let is_enrolled = session.config.enrollments.iter().any(|enrollment| enrollment.key == driver.runner.record.key);
    let report = RunnerReport { state: StateName::Retired, ..before };
    done(&driver.runner, report, found, dropped_to, is_enrolled)
}

fn still_there() -> Error {
    Error::Verdict {
        exit: Exit::Unreachable,
        message: "the server did not confirm the deletion, and it still accepts the token".to_owned(),
        hint: Some("run it again: nothing is deleted later by itself".to_owned()),
    }
}

async fn try_unregister(
    session: &CommandSession,
    driver: &mut Driver,
    unfinished: Option<&Unfinished>,
) -> Result<Drive, Error> {
    if session.interrupt.is_interrupted() {
        return Err(Error::Interrupted("not begun".to_owned()));
    }
    if unfinished == Some(&Unfinished::Unsaved) {
        // The record holds the current token; the journal would keep the deletion from beginning.
        session.ops().settle(&mut driver.runner).await?;
    }
    Ok(session.drive(driver, Goal::Unregistered, Budget::BY_RULES).await)
}

fn done(
    runner: &Runner,
    report: RunnerReport,
    found: Unregistration,
    dropped_to: Option<PathBuf>,
    is_enrolled: bool,
) -> RunnerOutcome {
    let kept = match dropped_to {
        Some(path) => format!("; its entry is kept in {}", path.display()),
        None => String::new(),
    };
    let (action, line) = match (found, runner.record.origin) {
        (Unregistration::Deleted, Origin::Given) => {
            (Action::Unregistered, "this machine's runner manager is deleted, the runner itself remains in GitLab")
        }
        (Unregistration::Deleted, Origin::Registered | Origin::V1) => (Action::Unregistered, "unregistered"),
        (Unregistration::AlreadyGone, _) => (Action::AlreadyGone, "was already gone"),
        (Unregistration::MayRemain, _) => (Action::MayRemain, "its token is not accepted any more"),
    };
    let mut outcome = RunnerOutcome::done(report, action, format!("{line}{kept}"));
    outcome.hint = match found {
        Unregistration::MayRemain => Some("the runner may remain in GitLab: delete it there".to_owned()),
        Unregistration::Deleted | Unregistration::AlreadyGone if is_enrolled => Some(enrolled_hint(&runner.record)),
        Unregistration::Deleted | Unregistration::AlreadyGone => None,
    };
    outcome
}

/// What comes of a runner that is unregistered here and that agent.toml enrolls.
fn enrolled_hint(record: &Record) -> String {
    if record.origin == Origin::Given && record.last_reset_at.is_some() {
        return "agent.toml enrolls it by a token that a rotation has replaced: before the daemon starts again, reset the token in GitLab and write it into that file, or remove the [[enroll]]".to_owned();
    }
    "agent.toml enrolls it: the daemon registers it again at its next start".to_owned()
}
