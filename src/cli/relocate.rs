//! `relocate`: lets the records of runners follow them to another address of their GitLab.

use std::collections::VecDeque;
use std::rc::Rc;

use tokio::task::JoinSet;

use super::arguments::RelocateArguments;
use super::context::Context;
use super::interrupt::Interrupt;
use super::outcome::RunnerOutcome;
use super::session::CommandSession;
use super::text::expiry_text;
use super::{Error, Exit, reload};
use crate::engine::{Addresses, Inventory, record_report, runner_of};
use crate::error_chain::chain;
use crate::limits::operations_at_once;
use crate::model::{Action, RunnerReport, ServerUrl, Timestamp};
use crate::ops::{Relocation, Runner};
use crate::settings::{self, Settings};
use crate::status::StatusClientError;
use crate::store::{Record, Snapshot};

/// A record of the former address, and the runner of its entry at the new one.
struct Move {
    record: Record,
    there: Runner,
}

/// Moves every record of the former address. An interrupt begins no further one.
pub(super) async fn relocate(
    context: &Context<'_>,
    arguments: RelocateArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    let RelocateArguments { old, new, .. } = &arguments;
    if old == new {
        return Err(Error::Usage(format!("both addresses are {old}: name the former one first, and then the new one")));
    }
    let settings = context.command_settings()?;
    check_enrollments(&settings, old, new)?;
    let session = CommandSession::with_settings(context, settings, interrupt.clone(), None).await?;
    let (inventory, snapshot) = session.inventory().await?;
    let mut records = session.ops().disk().records().await?.records;
    records.retain(|record| record.credential.is_some());
    let at_new = records.iter().filter(|record| record.url == *new).count();
    records.retain(|record| record.url == *old);
    if records.is_empty() {
        return nothing_to_move(&session, &arguments, at_new, &inventory);
    }
    let (moves, mut outcomes) = assigned(records, new, (&inventory, &snapshot), session.now());
    drop(inventory);
    let reporter = session.reporter;
    outcomes.extend(move_all(Rc::new(session), moves).await);
    outcomes.sort_by(|(one, _), (other, _)| one.cmp(other));
    let is_any_moved = outcomes.iter().any(|(_, outcome)| outcome.exit == Exit::Done);
    let exit = reporter.report_outcomes(outcomes.into_iter().map(|(_, outcome)| outcome).collect());
    if is_any_moved {
        tell_daemon(context).await;
    }
    Ok(exit)
}

/// An enrollment that names the former address would register anew there.
fn check_enrollments(settings: &Settings, old: &ServerUrl, new: &ServerUrl) -> Result<(), Error> {
    let of_old = settings.engine.enrollments.iter().filter(|enrollment| enrollment.site.url == *old);
    let names: Vec<_> = of_old.map(|enrollment| format!("`{}`", enrollment.key)).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(Error::Verdict {
        exit: Exit::LocalFile,
        message: format!("agent.toml still names {old} for enrollment {}", names.join(", ")),
        hint: Some(format!("write url = \"{new}\" there first: the daemon would register anew at the former address")),
    })
}

/// No record has the former address: all are at the new one already, or the address is mistyped.
fn nothing_to_move(
    session: &CommandSession,
    RelocateArguments { old, new, .. }: &RelocateArguments,
    at_new: usize,
    inventory: &Inventory,
) -> Result<Exit, Error> {
    if at_new > 0 {
        session.reporter.remark(&format!("nothing to do: no runner is recorded at {old}, and {at_new} at {new}"));
        return Ok(session.reporter.report_outcomes(Vec::new()));
    }
    let mut known: Vec<_> = inventory.runners.iter().map(|managed| managed.runner.record.url.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    let others = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(Error::Usage(format!(
        "no runner of this machine is recorded at {old} (known addresses: {others}): an entry without a record only needs its `url` changed in config.toml"
    )))
}

/// Finds the runner of each record at the new address; says for each other one why it stays.
fn assigned(
    records: Vec<Record>,
    new: &ServerUrl,
    (inventory, snapshot): (&Inventory, &Snapshot),
    now: Timestamp,
) -> (VecDeque<Move>, Vec<(String, RunnerOutcome)>) {
    let addresses = Addresses::of(&inventory.runners);
    let (mut moves, mut stay) = (VecDeque::new(), Vec::new());
    for record in records {
        let remains = snapshot.of(&runner_of(&record).target()).next();
        let (message, hint) = match (addresses.at(&record, new), remains) {
            _ if record.shared.is_some() => (
                "it is shared with other machines".to_owned(),
                "end the sharing in agent.toml on all machines, relocate, and share it anew".to_owned(),
            ),
            (Some(there), _) if there.variable.is_some() => (
                "its entry takes the token from the environment".to_owned(),
                "remove its record: the token is not stored here".to_owned(),
            ),
            (_, Some(entry)) => (
                format!("line {} of config.toml still names {}", entry.line, record.url),
                format!("write url = \"{new}\" there first"),
            ),
            (Some(there), None) => {
                moves.push_back(Move { record, there: there.clone() });
                continue;
            }
            (None, None) => (
                format!("config.toml has no entry for it at {new}"),
                "restore its entry with the new address".to_owned(),
            ),
        };
        let error = Error::Verdict { exit: Exit::LocalFile, message, hint: Some(hint) };
        let report = report_of(&record, now);
        stay.push((record.key.to_string(), RunnerOutcome::failed(report, Action::Failed, "not relocated", &error)));
    }
    (moves, stay)
}

/// Moves them, as many at a time as may wait for the disk.
async fn move_all(session: Rc<CommandSession>, mut moves: VecDeque<Move>) -> Vec<(String, RunnerOutcome)> {
    let (mut tasks, now) = (JoinSet::new(), session.now());
    let mut outcomes = Vec::new();
    loop {
        while tasks.len() < operations_at_once()
            && !session.interrupt.is_interrupted()
            && let Some(next) = moves.pop_front()
        {
            let session = Rc::clone(&session);
            tasks.spawn_local(async move { (next.record.key.to_string(), move_one(&session, &next).await) });
        }
        match tasks.join_next().await {
            Some(Ok(outcome)) => outcomes.push(outcome),
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => break,
        }
    }
    let interrupted = Error::Interrupted("not begun".to_owned());
    outcomes.extend(moves.into_iter().map(|Move { record, .. }| {
        let outcome = RunnerOutcome::failed(report_of(&record, now), Action::Failed, "not relocated", &interrupted);
        (record.key.to_string(), outcome)
    }));
    outcomes
}

async fn move_one(session: &CommandSession, Move { record, there }: &Move) -> RunnerOutcome {
    let now = session.now();
    let failed = |message: &str, hint: &str| {
        let error = Error::Verdict { exit: Exit::LocalFile, message: message.to_owned(), hint: Some(hint.to_owned()) };
        RunnerOutcome::failed(report_of(record, now), Action::Failed, "not relocated", &error)
    };
    match session.ops().relocate(record, there, now).await {
        Ok(Relocation::Done(runner)) => {
            let report = record_report(&runner, now);
            let line = format!("accepted at {}, {}", runner.record.url, expiry_text(report.token_expires_at, now));
            RunnerOutcome::done(report, Action::Relocated, line)
        }
        Ok(Relocation::Other(Some(id))) => failed(
            &format!("the token in its entry is that of runner {id} at {}", there.record.url),
            "this server is another GitLab, or the entry has another runner's token: compare it with GitLab's page of the runner",
        ),
        Ok(Relocation::Other(None)) => failed(
            "its entry has another token, and this GitLab does not say whose",
            "put its own token into the entry",
        ),
        Ok(Relocation::Changed) => failed("another process has changed its record meanwhile", "run the command again"),
        Ok(Relocation::Unfinished) => failed(
            "a registration or unregistration of it is not finished",
            "let the daemon or the command that began it finish first",
        ),
        Err(error) => RunnerOutcome::failed(report_of(record, now), Action::Failed, "not relocated", &error.into()),
    }
}

/// The running daemon reads the records at a reload.
async fn tell_daemon(context: &Context<'_>) {
    let client = settings::paths(&context.overrides, &context.environment).status_client();
    match reload::ask(&client, reload::TIMEOUT).await {
        Ok(_) | Err(Error::Question(StatusClientError::NotRunning(_) | StatusClientError::NoDaemon(_))) => {}
        Err(error) => {
            let text = chain(&error);
            context.reporter.remark(&format!("warning: the daemon was not told: {text}: run `runner-agent reload`"));
        }
    }
}

fn report_of(record: &Record, now: Timestamp) -> RunnerReport {
    record_report(&runner_of(record), now)
}
