//! `register`: makes a runner, or takes a created one, and writes its entry. Safe to repeat.

pub(super) mod draft;
mod existing;
mod prompt;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use existing::Existing;

use super::arguments::{RegisterArguments, RegisterModeArgs};
use super::context::Context;
use super::interrupt::Interrupt;
use super::outcome::{RunnerOutcome, of_runner};
use super::session::{CommandSession, Nap};
use super::text::expiry_text;
use super::{Error, Exit};
use crate::clock::{Clock as _, SystemClock};
use crate::error_chain::chain;
use crate::gitlab::ErrorClass;
use crate::lifecycle::Outcome;
use crate::model::{Action, RunnerReport, StateName, format_span};
use crate::ops::{self, Enrollment, EntryFate, Registration, Runner, Verification};
use crate::retry::Delays;
use crate::settings::{self, Draft, Environment, Mistake, Place, parse_boolean};
use crate::store;

/// How often an entry is tried to be written after the runner was made.
const SAVE_TRIES: u32 = 4;

/// The pause between two such tries.
const SAVE_PAUSE: Duration = Duration::from_millis(500);

/// Registers, and tells what became of it.
pub(super) async fn register(
    context: &Context<'_>,
    arguments: RegisterArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    let mode = RegisterMode::new(&arguments.mode, &context.environment)?;
    let mut draft = draft::draft(arguments, &context.environment)?;
    let is_named = draft.name.is_some();
    if !mode.is_silent && io::stdin().is_terminal() {
        draft = prompt::complete(draft, context.environment.hostname.clone(), &interrupt).await?;
    }
    enroll(context, draft, is_named, mode, interrupt).await
}

/// Makes the runner of a draft that is complete.
///
/// # Errors
/// Every mistake in the draft, and what keeps files from being used.
pub(super) async fn enroll(
    context: &Context<'_>,
    draft: Draft,
    is_named: bool,
    mode: RegisterMode,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    let (enrollment, warnings) = settings::enrollment(draft, &context.environment)?;
    for warning in warnings {
        context.reporter.remark(&format!("warning: {warning}"));
    }
    let session = CommandSession::open(context, interrupt).await?;
    let registrar = Registrar { session, enrollment, mode, is_named };
    let told = match registrar.register().await {
        Ok(told) => told,
        Err(error @ Error::Usage(_)) => return Err(error),
        Err(error) => registrar.failed(&error),
    };
    Ok(context.reporter.report_outcomes(vec![told]))
}

/// How it is done.
#[derive(Default)]
pub(super) struct RegisterMode {
    is_silent: bool,
    leaves_runner: bool,
    wait: Duration,
    force: bool,
}

impl RegisterMode {
    /// Asks nobody, and waits this long for a server that is not there.
    pub(super) fn waiting(wait: Duration, force: bool) -> Self {
        Self { is_silent: true, wait, force, ..Self::default() }
    }

    fn new(arguments: &RegisterModeArgs, environment: &Environment) -> Result<Self, Error> {
        let either = |flag: Option<bool>, variable: &'static str| match (flag, environment.text(variable)) {
            (Some(flag), _) => Ok(flag),
            (None, Some(text)) => parse_boolean(&text)
                .map_err(|message| settings::Errors::from(Mistake { place: Place::Variable(variable), message })),
            (None, None) => Ok(false),
        };
        Ok(Self {
            is_silent: either(arguments.non_interactive, "REGISTER_NON_INTERACTIVE")?,
            leaves_runner: either(arguments.leave_runner, "REGISTER_LEAVE_RUNNER")?,
            wait: arguments.wait.unwrap_or_default(),
            force: arguments.force,
        })
    }
}

struct Registrar {
    session: CommandSession,
    enrollment: Enrollment,
    mode: RegisterMode,
    /// Whether the user chose the name.
    is_named: bool,
}

impl Registrar {
    async fn register(&self) -> Result<RunnerOutcome, Error> {
        match Existing::find(&self.session, &self.enrollment).await? {
            Existing::None => self.make(self.blank(), Entry::New).await,
            existing if self.mode.force => self.make(self.sited(existing.into_runner(self.blank())), Entry::Same).await,
            Existing::Same(runner) => Ok(self.unchanged(&runner)),
            Existing::Gone(runner) => self.restore(runner).await,
            Existing::Given(runner) => self.check(runner, true).await,
            Existing::Unknown(runner) => self.check(runner, self.is_named).await,
            Existing::Other(runner) => Err(taken(
                &self.enrollment,
                &format!("{} came of another token", super::text::label(&of_runner(&runner, self.session.now()))),
            )),
        }
    }

    fn blank(&self) -> Runner {
        let mut runner =
            Runner::blank(self.enrollment.key.clone(), self.enrollment.source.origin(), self.enrollment.site.clone());
        runner.record.name = Some(self.enrollment.entry.name.clone());
        runner
    }

    /// The flags say how to trust the server; where they do not, the entry does.
    fn sited(&self, mut runner: Runner) -> Runner {
        if self.enrollment.site.tls != crate::model::TlsFiles::default() {
            runner.site = self.enrollment.site.clone();
        }
        runner
    }

    fn unchanged(&self, runner: &Runner) -> RunnerOutcome {
        let now = self.session.now();
        RunnerOutcome::done(of_runner(runner, now), Action::Unchanged, "registered already, nothing was changed")
    }

    /// The record knows the runner, but somebody has taken its entry away.
    async fn restore(&self, mut runner: Runner) -> Result<RunnerOutcome, Error> {
        match self.session.ops.verify(&mut runner, self.session.now()).await {
            Ok(_) => {}
            Err(error) => return Err(with_force_hint(error)),
        }
        self.session.ops.restore(&mut runner, &self.enrollment).await?;
        let line = "registered already, its entry was gone from config.toml and is back";
        Ok(RunnerOutcome::done(of_runner(&runner, self.session.now()), Action::Restored, line))
    }

    /// An entry that no record tells the origin of: good if the server accepts it, and if it is surely the
    /// one that is meant.
    async fn check(&self, mut runner: Runner, is_meant: bool) -> Result<RunnerOutcome, Error> {
        let verification = self.session.ops.verify(&mut runner, self.session.now()).await.map_err(with_force_hint)?;
        let report = of_runner(&runner, self.session.now());
        let label = super::text::label(&report);
        if !is_meant {
            return Err(taken(&self.enrollment, &format!("{label} is there already")));
        }
        let action = match verification {
            Verification::Accepted { .. } => Action::Unchanged,
            Verification::Adopted(_) => Action::Adopted,
        };
        self.session.reporter.remark(&format!(
            "warning: config.toml has runner {label} at {} already, whose token is accepted: nothing was registered",
            self.enrollment.site.url
        ));
        Ok(RunnerOutcome::done(report, action, "there already, nothing was changed"))
    }

    async fn make(&self, mut runner: Runner, entry: Entry) -> Result<RunnerOutcome, Error> {
        let before = runner.record.id;
        let unsaved = match self.request(&mut runner, entry).await? {
            Registration::Already(_) => return Ok(self.unchanged(&runner)),
            Registration::Registered { unsaved, .. } => unsaved,
        };
        if let Some(error) = unsaved
            && let Err(error) = self.save(&mut runner, error).await
        {
            return Err(self.give_up(&mut runner, entry, &error).await);
        }
        // Lets a signal in that came while the disk was busy.
        tokio::task::yield_now().await;
        if self.session.interrupt.is_asked() && !self.mode.leaves_runner {
            let undone = self.undo(&mut runner, entry).await;
            return Err(Error::Interrupted(undone));
        }
        let now = runner.date.unwrap_or_else(|| self.session.now());
        self.session.ops.note_state(&mut runner, StateName::Active, now).await?;
        let report = of_runner(&runner, now);
        let path = self.session.ops.disk().config_path().display();
        let line = format!("registered, its token {} and is in {path}", expiry_text(report.token_expires_at, now));
        let mut told = RunnerOutcome::done(report, Action::Registered, line);
        told.hint = before.filter(|before| runner.record.id != Some(*before)).map(|before| {
            format!("the entry was that of runner {before} before, which is not unregistered: delete it in GitLab if it is still there")
        });
        Ok(told)
    }

    /// Asks the server, again and again for as long as was granted while it surely did not act.
    async fn request(&self, runner: &mut Runner, entry: Entry) -> Result<Registration, Error> {
        let since_boot = || SystemClock.read().since_boot;
        let until = since_boot() + self.mode.wait;
        let mut delays = Delays::within(self.mode.wait);
        let mut is_first = true;
        loop {
            if self.session.interrupt.is_asked() {
                return Err(Error::Interrupted("nothing was registered".to_owned()));
            }
            let now = self.session.now();
            let asked = match entry {
                Entry::New => self.session.ops.register(&self.enrollment, runner, now).await,
                Entry::Same => self.session.ops.register_again(&self.enrollment, runner, now).await,
            };
            let error = match asked {
                Ok(registration) => return Ok(registration),
                Err(error) => error,
            };
            let left = until.saturating_sub(since_boot());
            let (Some(wish), false) = (repeatable(&error), left.is_zero()) else {
                return Err(self.explained(error));
            };
            let Some(delay) = delays.next() else { return Err(self.explained(error)) };
            if std::mem::take(&mut is_first) {
                let error = Error::from(error);
                self.session.reporter.remark(&format!("waiting up to {}: {}", format_span(left), chain(&error)));
            }
            if self.session.nap(delay.max(wish).min(left)).await == Nap::Interrupted {
                return Err(Error::Interrupted("nothing was registered".to_owned()));
            }
        }
    }

    /// Says what a lost answer may have left behind.
    fn explained(&self, error: ops::Error) -> Error {
        if !matches!(error.outcome(), Outcome::Lost { .. }) {
            return error.into();
        }
        let description = self.enrollment.parameters.description.as_deref().unwrap_or_default();
        Error::Verdict {
            exit: Exit::Unreachable,
            message: format!("{}: nothing was written to config.toml", chain(&error)),
            hint: Some(format!(
                "GitLab may have made the runner all the same: before trying again, delete there what is described `{description}` and was never contacted"
            )),
        }
    }

    async fn save(&self, runner: &mut Runner, first: store::Error) -> Result<(), ops::Error> {
        let mut last = ops::Error::from(first);
        for _ in 0..SAVE_TRIES {
            if self.session.nap(SAVE_PAUSE).await == Nap::Interrupted {
                return Err(last);
            }
            match self.session.ops.save(runner).await {
                Ok(_) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The runner was made, but its entry cannot be written.
    async fn give_up(&self, runner: &mut Runner, entry: Entry, error: &ops::Error) -> Error {
        let because = format!("config.toml does not take its entry: {}", chain(error));
        if !self.mode.leaves_runner {
            let undone = self.undo(runner, entry).await;
            return Error::Verdict { exit: Exit::LocalFile, message: format!("{because}; {undone}"), hint: None };
        }
        let kept = if self.session.ops.disk().has_state() {
            "its token is safe in the state directory, and the next command writes it"
        } else {
            "its token is lost, because there is no state directory"
        };
        Error::Verdict {
            exit: Exit::LocalFile,
            message: format!("{because}; runner {} stays registered, {kept}", id_of(runner)),
            hint: None,
        }
    }

    /// Unregisters what was made, and says in words how that went. A second signal ends even this.
    async fn undo(&self, runner: &mut Runner, entry: Entry) -> String {
        let made = id_of(runner);
        let undo = async {
            // The record holds the token; an answer in the journal would keep the deletion from beginning.
            self.session.ops.settle(runner).await?;
            let fate = match entry {
                Entry::New => EntryFate::Drop,
                Entry::Same => EntryFate::Keep,
            };
            let undone = self.session.ops.unregister(runner, fate, self.session.now()).await;
            if entry == Entry::Same {
                // A token that is dead is not to be taken for one that came of this registration token.
                runner.record.seed = None;
                self.session.ops.disk().save_record(runner.record.clone()).await?;
            }
            undone
        };
        let undone = tokio::select! {
            biased;
            () = self.session.interrupt.insisted() => None,
            undone = undo => Some(undone),
        };
        let is_gone = runner.record.state == Some(StateName::Retired);
        match undone {
            Some(Ok(_)) => format!("runner {made}, which was made, is unregistered again"),
            // What the disk did not take is finished by the journal.
            Some(Err(ops::Error::Disk(_))) if is_gone => {
                format!("runner {made}, which was made, is unregistered again")
            }
            Some(Err(error)) => format!(
                "runner {made}, which was made, cannot be unregistered again, delete it in GitLab: {}",
                chain(&error)
            ),
            None => format!("runner {made} may remain in GitLab, delete it there"),
        }
    }

    fn failed(&self, error: &Error) -> RunnerOutcome {
        let report = RunnerReport {
            executor: self.enrollment.entry.executor.clone(),
            ..of_runner(&self.blank(), self.session.now())
        };
        let action = if error.exit() == Exit::Refused { Action::Refused } else { Action::Failed };
        RunnerOutcome::failed(report, action, "", error)
    }
}

/// Which entry the runner gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    New,
    Same,
}

/// How long the server asked to wait, if the request was surely not executed and can be repeated.
fn repeatable(error: &ops::Error) -> Option<Duration> {
    let failure = error.failure().filter(|failure| failure.class == ErrorClass::Unreachable)?;
    tracing::debug!(%failure, "can be repeated unless its outcome is unknown");
    match error.outcome() {
        Outcome::Deferred { retry_after } => Some(retry_after.unwrap_or_default()),
        _ => None,
    }
}

fn with_force_hint(error: ops::Error) -> Error {
    if error.outcome() != Outcome::Refused {
        return error.into();
    }
    Error::Verdict {
        exit: Exit::Refused,
        message: format!("config.toml has a runner of this server and name already: {}", chain(&error)),
        hint: Some("register anew into the same entry with --force".to_owned()),
    }
}

fn taken(enrollment: &Enrollment, what: &str) -> Error {
    Error::Usage(format!(
        "config.toml has a runner of this name at {} already: {what}: use --name or --force",
        enrollment.site.url
    ))
}

fn id_of(runner: &Runner) -> String {
    runner.record.id.map_or_else(|| format!("`{}`", runner.label()), |id| id.to_string())
}
