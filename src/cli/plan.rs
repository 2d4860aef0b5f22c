//! `plan` and `run --dry-run`: what the daemon would do next for every runner, and what its stop would unregister.

use std::borrow::Borrow;
use std::rc::Rc;

use tokio::task::JoinSet;

use super::arguments::PlanArguments;
use super::context::Context;
use super::interrupt::Interrupt;
use super::list::{self, expiry, next_step};
use super::run::of_unusable;
use super::session::CommandSession;
use super::table::{Cell, Screen, Table};
use super::text::{label, printable};
use super::verify::not_verified;
use super::{Error, Exit};
use crate::engine::{
    Asker, AtStop, Budget, Config, ManagedRunner, at_stop, at_stop_once_registered, deletion_at_stop, inventory,
    planned_report, rules,
};
use crate::error_chain::chain;
use crate::gitlab::Client;
use crate::lifecycle::{Goal, Outcome, State};
use crate::limits::operations_at_once;
use crate::model::{
    NextStep, PlannedRotation, RotationRule, RunnerKey, RunnerReport, StateName, Step, StopAction, SystemId, Timestamp,
    Why, format_span,
};
use crate::ops::{Deletion, Enrollment, EntryFate, Identity, Ops, Runner};
use crate::secret::SourceError;
use crate::settings::{self, Settings, this_program};
use crate::store::{Snapshot, Store};

/// What is planned for the runners, in their order, with the exit code of each.
type Rows = Vec<(Exit, RunnerReport)>;

/// Shows the plan. Changes nothing; an interrupt ends it at once.
pub(super) async fn plan(context: &Context<'_>, arguments: PlanArguments, interrupt: Interrupt) -> Result<Exit, Error> {
    let work = async {
        let store = list::open(settings::paths(&context.overrides, &context.environment).store())?;
        let settings = context.daemon_settings(recorded_names(&store).await?)?;
        let rows = if arguments.verify {
            verified(CommandSession::with_settings(context, settings, interrupt.clone(), None).await?).await?
        } else {
            planned(context, store, settings).await?
        };
        Ok(show(context, rows))
    };
    tokio::select! {
        biased;
        () = interrupt.asked() => Err(Error::Interrupted("interrupted".to_owned())),
        result = work => result,
    }
}

fn show(context: &Context<'_>, rows: Rows) -> Exit {
    let now = context.now();
    let (exits, runners): (Vec<_>, Vec<_>) = rows.into_iter().map(|(exit, runner)| (exit, runner.as_of(now))).unzip();
    if runners.is_empty() && !context.reporter.is_json() {
        context.reporter.answer("nothing to do: config.toml has no runners, and the settings enroll none\n");
        return Exit::Done;
    }
    if !context.reporter.is_json() {
        for (runner, error) in runners.iter().filter_map(|runner| Some((runner, runner.error.as_ref()?))) {
            context.reporter.remark(&format!("warning: runner {}: {}", label(runner), printable(error)));
        }
    }
    context.reporter.runners(runners.iter(), || table(&runners, now));
    Exit::of_all(&exits)
}

/// What a start of the daemon would find on this machine.
async fn planned(context: &Context<'_>, store: Store, settings: Settings) -> Result<Rows, Error> {
    settings.log_warnings();
    let Settings { gitlab, engine: config, .. } = settings;
    let records = store.records().await?;
    for damaged in &records.damaged {
        tracing::error!(error = %damaged, "a runner's record is damaged");
    }
    let snapshot = store.read().await?;
    let mut inventory = inventory(&config, records.records, &snapshot).await;
    inventory.log_warnings();
    let system_id = expected_system_id(&store).await?;
    let machine = store.machine().await;
    let identity = Identity { system_id: system_id.clone(), host: String::new(), machine, info: this_program() };
    let ops = Ops::new(Client::new(gitlab), store, identity);
    ops.load_held_of(inventory.runners.iter_mut().map(|managed| &mut managed.runner)).await?;
    let now = context.now();
    let row = |ManagedRunner { runner, enrollment, .. }: &ManagedRunner| {
        let state = runner.initial_state(&config.timing, now);
        (Exit::Done, report(&config, runner, enrollment.as_deref(), &state, &system_id, now))
    };
    Ok(inventory.runners.iter().map(row).chain(unusable(&snapshot)).collect())
}

/// The same after each token was verified.
async fn verified(session: CommandSession) -> Result<Rows, Error> {
    let (inventory, snapshot) = session.inventory().await?;
    inventory.log_warnings();
    let session = Rc::new(session);
    let mut waiting = inventory.runners.into_iter().enumerate();
    let (mut rows, mut tasks) = (Vec::new(), JoinSet::new());
    loop {
        while tasks.len() < operations_at_once()
            && let Some((position, managed)) = waiting.next()
        {
            let session = Rc::clone(&session);
            tasks.spawn_local(async move { (position, verify(&session, managed).await) });
        }
        match tasks.join_next().await {
            Some(Ok(row)) => rows.push(row),
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => break,
        }
    }
    rows.sort_by_key(|(position, _)| *position);
    Ok(rows.into_iter().map(|(_, row)| row).chain(unusable(&snapshot)).collect())
}

async fn verify(session: &CommandSession, managed: ManagedRunner) -> (Exit, RunnerReport) {
    let enrollment = managed.enrollment.clone();
    let (config, system_id) = (&session.config, session.ops().system_id());
    // A verification would make the manager of a retired one again.
    if managed.runner.record.credential.is_none() || is_retired(&managed.runner) {
        let state = managed.runner.initial_state(&config.timing, session.now());
        let report = report(config, &managed.runner, enrollment.as_deref(), &state, system_id, session.now());
        return (Exit::Done, report);
    }
    // What an enrollment wants is the daemon's to do.
    let managed = ManagedRunner { enrollment: None, unfinished: None, ..managed };
    let asker = Asker::Command { access_token: None, entry_fate: EntryFate::Drop };
    let mut driver = session.driver(managed, asker);
    let drive = session.drive(&mut driver, Goal::Verified, Budget::BY_RULES).await;
    let report = report(config, &driver.runner, enrollment.as_deref(), driver.state(), system_id, driver.now());
    match drive.outcome() {
        Some(Outcome::Accepted(_) | Outcome::Adopted(_)) => (Exit::Done, report),
        _ => {
            let outcome = not_verified(report, drive);
            (outcome.exit, RunnerReport { action: None, ..outcome.report })
        }
    }
}

fn unusable(snapshot: &Snapshot) -> impl Iterator<Item = (Exit, RunnerReport)> {
    let unusable = snapshot.entries.iter().filter(|entry| entry.access().is_err());
    unusable.map(|entry| (Exit::Done, of_unusable(entry)))
}

fn report(
    config: &Config,
    runner: &Runner,
    enrollment: Option<&Enrollment>,
    state: &State,
    system_id: &SystemId,
    now: Timestamp,
) -> RunnerReport {
    let rules = rules(config, runner, enrollment, system_id);
    let wanted_name = enrollment.map(|enrollment| enrollment.entry.name.clone());
    let mut report = planned_report(runner, state, &rules, now);
    if is_retired(runner) {
        (report.state, report.since) = (StateName::Retired, runner.record.since);
        report.next = report
            .next
            .map(|next| NextStep { why: if next.step == Step::Verify { Why::Revive } else { next.why }, ..next });
    }
    let is_to_be_registered = report.next.as_ref().is_some_and(|next| next.step == Step::Register);
    let expected = enrollment.filter(|_| is_to_be_registered).map(|enrollment| registered(runner, enrollment));
    let at_stop = match &expected {
        Some(expected) => at_stop_once_registered(config, expected, enrollment),
        None => at_stop(config, runner, enrollment, state),
    };
    let is_unregistered = match at_stop {
        AtStop::Keep | AtStop::TokenLost => false,
        AtStop::Unregister => true,
        AtStop::UnregisterRenewable => enrollment.is_some_and(|it| it.source.secret().read().is_ok()),
    };
    let at_stop = match deletion_at_stop(config, expected.as_ref().unwrap_or(runner)) {
        _ if !is_unregistered => StopAction::Keep,
        Deletion::Runner | Deletion::SharedRunner => StopAction::DeleteRunner,
        Deletion::Manager => StopAction::DeleteManager,
    };
    let error = enrollment.filter(|_| is_to_be_registered).and_then(cannot_register).or_else(|| report.error.take());
    RunnerReport { name: report.name.clone().or(wanted_name), at_stop: Some(at_stop), error, ..report }
}

/// Why the secret of an enrollment cannot be used, as far as this process can know it.
fn cannot_register(enrollment: &Enrollment) -> Option<String> {
    match enrollment.source.read() {
        // systemd passes them to the unit alone.
        Ok(_) | Err(SourceError::NoCredential(_)) => None,
        Err(error) => Some(format!("it cannot be registered: {}", chain(&error))),
    }
}

/// Whether it was unregistered here, by a stop or a command, and not taken up since.
fn is_retired(runner: &Runner) -> bool {
    runner.record.state == Some(StateName::Retired)
}

/// The runner as the registration of its enrollment makes it, as far as a later stop depends on that.
fn registered(runner: &Runner, enrollment: &Enrollment) -> Runner {
    let mut registered = runner.clone();
    registered.record.origin = enrollment.source.origin();
    registered.record.enrollment = Some(enrollment.key.as_str().to_owned());
    registered
}

/// Names that enrollments have recorded.
async fn recorded_names(store: &Store) -> Result<Vec<(RunnerKey, String)>, Error> {
    let records = store.records().await?.records;
    Ok(records.into_iter().filter_map(|record| Some((record.key, record.name?))).collect())
}

/// It only spreads the times. One that is still to be chosen by chance may be any.
async fn expected_system_id(store: &Store) -> Result<SystemId, Error> {
    let unknown = || "r_000000000000".parse().map_err(|_| Error::Usage("no system_id".to_owned()));
    store.expected_system_id().await?.map_or_else(unknown, Ok)
}

const HEADINGS: [&str; 8] = ["NAME", "ID", "URL", "STATE", "EXPIRES", "AT START", "ROTATION", "AT STOP"];

fn table<R: Borrow<RunnerReport>>(runners: &[R], now: Timestamp) -> impl Iterator<Item = String> {
    let rows = || runners.iter().map(move |runner| row(runner.borrow(), now));
    let table = Table::new(HEADINGS.iter().map(|heading| (*heading, false)).collect(), Screen::default());
    let mut table = table.measured(rows());
    let headings = table.lines(&[]);
    std::iter::once(headings).chain(rows().map(move |row| table.lines(&[row])))
}

fn row(runner: &RunnerReport, now: Timestamp) -> Vec<Cell> {
    vec![
        Cell::new(runner.name.as_deref()),
        Cell::new(runner.id.map(|id| id.to_string())),
        Cell::new(runner.url.as_ref().map(ToString::to_string)),
        Cell::new(Some(runner.state.to_string())),
        Cell::new(runner.token_expires_at.map(|at| expiry(at, now))),
        Cell::new(runner.next.as_ref().map(|next| next_step(next, now))),
        Cell::new(runner.rotation.map(|rotation| rotation_text(rotation, now))),
        Cell::new(runner.at_stop.map(|action| action.as_str().replace('_', " "))),
    ]
}

/// When the token is rotated and by which rule: `2027-01-01T00:00:00Z (in 4h, last resort)`.
fn rotation_text(PlannedRotation { rule, at }: PlannedRotation, now: Timestamp) -> String {
    let rule_text = rule.as_str().replace('_', " ");
    match (rule, at.map(Timestamp::whole_seconds)) {
        (RotationRule::Off, _) => "never".to_owned(),
        (RotationRule::ShareOfLife | RotationRule::LastResort, None) => format!("no expiry known ({rule_text})"),
        (RotationRule::ShareOfLife | RotationRule::LastResort, Some(at)) if at <= now => {
            format!("{at} (now, {rule_text})")
        }
        (RotationRule::ShareOfLife | RotationRule::LastResort, Some(at)) => {
            format!("{at} (in {}, {rule_text})", format_span(at.since(now)))
        }
    }
}
