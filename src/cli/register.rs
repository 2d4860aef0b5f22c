//! `register`: makes a runner, or takes a created one, and writes its entry. Safe to repeat.

mod differences;
pub(super) mod draft;
mod existing;
mod prompt;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use existing::Existing;

use super::arguments::{RegisterArguments, RegisterModeArgs};
use super::context::Context;
use super::interrupt::Interrupt;
use super::outcome::RunnerOutcome;
use super::session::{CommandSession, Driver, error_of};
use super::text::expiry_text;
use super::{Error, Exit};
use crate::engine::{Asker, Budget, Drive, ManagedRunner, StepFailure, record_report};
use crate::error_chain::chain;
use crate::lifecycle::{Goal, Outcome, State};
use crate::model::{Action, RunnerReport, StateName, TlsFiles};
use crate::ops::{self, Enrollment, EntryFate, Runner};
use crate::settings::{self, Diagnostic, Draft, Environment, Place, parse_boolean};

/// Registers a runner, and reports what became of it.
pub(super) async fn register(
    context: &Context<'_>,
    arguments: RegisterArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    let mode = RegisterMode::new(&arguments.mode, &context.environment)?;
    let mut draft = draft::draft(arguments, &context.environment)?;
    draft.allows_unknown |= mode.force;
    let is_named = draft.name.is_some();
    if !mode.is_silent && io::stdin().is_terminal() {
        draft = prompt::complete(draft, context.environment.hostname.clone(), &interrupt).await?;
    }
    enroll(context, draft, is_named, mode, interrupt).await
}

/// Makes the runner of a complete draft.
pub(super) async fn enroll(
    context: &Context<'_>,
    draft: Draft,
    is_named: bool,
    mode: RegisterMode,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    let share_place = draft.share_as.as_ref().map(|name| name.place.clone());
    let (enrollment, warnings) = settings::enrollment(draft, &context.environment)?;
    for warning in enrollment.source.secret().warning().into_iter().chain(warnings) {
        context.reporter.remark(&format!("warning: {warning}"));
    }
    let session = CommandSession::open(context, interrupt, None).await?;
    if let Some(place) = share_place {
        settings::check_share(&enrollment, &place, &session.config)?;
    }
    let registrar = Registrar { session, enrollment, mode, is_named };
    let outcome = match registrar.register().await {
        Ok(outcome) => outcome,
        Err(error @ Error::Usage(_)) => return Err(error),
        Err(error) => registrar.failed(&error),
    };
    Ok(context.reporter.report_outcomes(vec![outcome]))
}

/// How a registration goes about it.
#[derive(Default)]
pub(super) struct RegisterMode {
    is_silent: bool,
    leaves_runner: bool,
    wait: Duration,
    force: bool,
}

impl RegisterMode {
    /// Asks no questions, and waits this long for an unreachable server.
    pub(super) fn waiting(wait: Duration, force: bool) -> Self {
        Self { is_silent: true, wait, force, ..Self::default() }
    }

    fn new(arguments: &RegisterModeArgs, environment: &Environment) -> Result<Self, Error> {
        let either = |flag: Option<bool>, variable: &'static str| match (flag, environment.text(variable)) {
            (Some(flag), _) => Ok(flag),
            (None, Some(text)) => parse_boolean(&text)
                .map_err(|message| settings::Errors::from(Diagnostic::new(Place::Variable(variable), message))),
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
        // Another process may register the same between the look and the request; the second look finds its runner.
        for _ in 0..2 {
            if let Some(outcome) = self.register_once().await? {
                return Ok(outcome);
            }
        }
        Err(taken(&self.enrollment, "another process has registered one meanwhile"))
    }

    /// `None` if another process was faster; nothing was sent then.
    async fn register_once(&self) -> Result<Option<RunnerOutcome>, Error> {
        let done = match Existing::find(&self.session, &self.enrollment).await? {
            Existing::None => return self.make(self.unregistered(), TargetEntry::New).await,
            Existing::Prepared => return self.make(self.unregistered(), TargetEntry::Prepared).await,
            existing if self.mode.force => {
                let managed =
                    existing.into_managed().map_or_else(|| self.unregistered(), |managed| self.sited(managed));
                return self.make(managed, TargetEntry::Same).await;
            }
            Existing::Same(managed) => self.unchanged(&managed.runner).await?,
            Existing::Gone(managed) => self.restore(*managed).await?,
            Existing::Given(managed) => self.check(*managed, true).await?,
            Existing::Unknown(managed) => self.check(*managed, self.is_named).await?,
            Existing::Other(managed) => {
                let label = super::text::label(&self.report(&managed.runner));
                return Err(taken(&self.enrollment, &format!("{label} was made from another token")));
            }
        };
        Ok(Some(done))
    }

    fn unregistered(&self) -> ManagedRunner {
        ManagedRunner { runner: self.blank(), enrollment: None, unfinished: None, twin_of: None }
    }

    fn blank(&self) -> Runner {
        let mut runner =
            Runner::blank(self.enrollment.key.clone(), self.enrollment.source.origin(), self.enrollment.site.clone());
        runner.record.name = Some(self.enrollment.entry.name.clone());
        runner
    }

    /// TLS files given as flags go before those of the entry.
    fn sited(&self, mut managed: ManagedRunner) -> ManagedRunner {
        if self.enrollment.site.tls != TlsFiles::default() {
            managed.runner.site = self.enrollment.site.clone();
        }
        managed
    }

    fn report(&self, runner: &Runner) -> RunnerReport {
        record_report(runner, self.session.now())
    }

    async fn unchanged(&self, runner: &Runner) -> Result<RunnerOutcome, Error> {
        let line = "registered already, nothing was changed";
        let outcome = RunnerOutcome::done(self.report(runner), Action::Unchanged, line);
        Ok(RunnerOutcome { hint: self.differences(runner).await?, ..outcome })
    }

    /// What was asked for and the runner has otherwise, with the remedy.
    async fn differences(&self, runner: &Runner) -> Result<Option<String>, Error> {
        let disk = self.session.ops().disk();
        let texts = disk.texts(runner.target()).await.map_err(ops::Error::from)?;
        let (enrollment, config) = (&self.enrollment, &self.session.config);
        Ok(differences::hint(enrollment, runner, texts.first(), config, disk.config_path()))
    }

    fn driver(&self, managed: ManagedRunner, enrollment: Option<Enrollment>, entry_fate: EntryFate) -> Driver {
        let managed = ManagedRunner { enrollment: enrollment.map(Box::new), ..managed };
        self.session.driver(managed, Asker::Command { access_token: None, entry_fate })
    }

    /// Verifies a runner that exists already; returns its driver, and whether the token was replaced meanwhile.
    async fn verify(&self, managed: ManagedRunner) -> Result<(Driver, Action), Error> {
        let mut driver = self.driver(ManagedRunner { unfinished: None, ..managed }, None, EntryFate::Keep);
        let drive = self.session.drive(&mut driver, Goal::Verified, Budget::BY_RULES).await;
        match drive.outcome() {
            Some(Outcome::Accepted(_)) => Ok((driver, Action::Unchanged)),
            Some(Outcome::Adopted(_)) => Ok((driver, Action::Adopted)),
            Some(Outcome::Refused) => Err(Error::Verdict {
                exit: Exit::Refused,
                message: format!(
                    "config.toml has a runner of this server and name already: {}",
                    chain(&error_of(drive))
                ),
                hint: Some("register anew into the same entry with --force".to_owned()),
            }),
            _ => Err(error_of(drive)),
        }
    }

    /// The record knows the runner, but its entry was removed.
    async fn restore(&self, managed: ManagedRunner) -> Result<RunnerOutcome, Error> {
        let (mut driver, _) = self.verify(managed).await?;
        self.session.ops().restore(&mut driver.runner, &self.enrollment).await?;
        let line = "registered already, its entry was gone from config.toml and is back";
        Ok(RunnerOutcome::done(self.report(&driver.runner), Action::Restored, line))
    }

    /// An entry without a record of its origin is good if the server accepts its token, and if it is surely the one
    /// that the user means.
    async fn check(&self, managed: ManagedRunner, is_meant: bool) -> Result<RunnerOutcome, Error> {
        let (driver, action) = self.verify(managed).await?;
        let report = self.report(&driver.runner);
        let label = super::text::label(&report);
        if !is_meant {
            return Err(taken(&self.enrollment, &format!("{label} is there already")));
        }
        self.session.reporter.remark(&format!(
            "warning: config.toml has runner {label} at {} already, whose token is accepted: nothing was registered",
            self.enrollment.site.url
        ));
        let outcome = RunnerOutcome::done(report, action, "there already, nothing was changed");
        Ok(RunnerOutcome { hint: self.differences(&driver.runner).await?, ..outcome })
    }

    /// Registers the runner; `None` if another process was faster.
    async fn make(&self, managed: ManagedRunner, entry: TargetEntry) -> Result<Option<RunnerOutcome>, Error> {
        let before = managed.runner.record.id;
        let mut driver = self.driver(managed, Some(self.enrollment.clone()), entry.fate_if_undone());
        if self.mode.force {
            driver.forget_lost_registration(None).await?;
        }
        if entry == TargetEntry::Same {
            self.settle(&mut driver).await?;
            driver.enter(Outcome::Reenrolled(None));
        }
        let drive = self.session.drive(&mut driver, entry.goal(), Budget::Within(self.mode.wait)).await;
        match drive.outcome() {
            Some(Outcome::Registered(_)) => {}
            Some(Outcome::Adopted(_)) => return Ok(Some(self.unchanged(&driver.runner).await?)),
            Some(Outcome::Released) => return Ok(None),
            _ if drive.is_interrupted => return Err(Error::Interrupted("nothing was registered".to_owned())),
            outcome => return Err(self.explained(outcome, drive)),
        }
        if let Some(StepFailure::Unsaved(error)) = drive.into_failure() {
            // A runner that stays must not lose its only token; any other is unregistered again.
            let budget = if self.mode.leaves_runner {
                self.session.saving_budget(&driver.runner, &error)
            } else {
                Budget::FOR_CONFIG
            };
            let saved = self.session.drive(&mut driver, Goal::Saved, budget).await;
            if saved.outcome() != Some(Outcome::Saved) {
                let error = saved.into_failure().unwrap_or(StepFailure::Unsaved(error));
                return Err(self.give_up(&mut driver, entry, &error).await);
            }
        }
        // Lets a signal in that came while the disk was busy.
        tokio::task::yield_now().await;
        if self.session.interrupt.is_interrupted() && !self.mode.leaves_runner {
            return Err(Error::Interrupted(self.undo(&mut driver, entry).await));
        }
        let report = record_report(&driver.runner, driver.now());
        let path = self.session.ops().disk().config_path().display();
        let line =
            format!("registered, its token {} and is in {path}", expiry_text(report.token_expires_at, driver.now()));
        let mut outcome = RunnerOutcome::done(report, Action::Registered, line);
        outcome.hint = before.filter(|before| driver.runner.record.id != Some(*before)).map(|before| {
            format!("the entry belonged to runner {before} before, which was not unregistered: delete it in GitLab if it still exists")
        });
        Ok(Some(outcome))
    }

    /// Finds out what became of a reset that was cut off, before its journal is needed for the registration.
    async fn settle(&self, driver: &mut Driver) -> Result<(), Error> {
        if !matches!(driver.state(), State::Uncertain(_)) {
            return Ok(());
        }
        self.session
            .reporter
            .remark("the answer to the last reset of its token was lost: verifying the old token first");
        let drive = self.session.drive(driver, Goal::Settled, Budget::BY_RULES).await;
        if !matches!(driver.state(), State::Uncertain(_)) {
            return Ok(());
        }
        let unsettled = "it is not known what became of the last reset of its token";
        if drive.is_interrupted {
            return Err(Error::Interrupted(unsettled.to_owned()));
        }
        Err(Error::Verdict {
            exit: Exit::Unreachable,
            message: format!("{unsettled}: {}", chain(&error_of(drive))),
            hint: Some("run the same command again once the server answers `runner-agent verify`".to_owned()),
        })
    }

    /// Says what a lost answer may have left behind. Nothing, if GitLab has not seen the request.
    fn explained(&self, outcome: Option<Outcome>, drive: Drive) -> Error {
        let error = error_of(drive);
        if let Error::Operation(ops::Error::Probing(_)) = &error {
            return Error::Verdict {
                exit: error.exit(),
                message: format!("{}: no registration was sent", chain(&error)),
                hint: error.hint().map(str::to_owned),
            };
        }
        let may_have_reached = match &error {
            Error::Operation(error) => error.failure().is_some_and(|failure| failure.may_have_reached),
            _ => false,
        };
        if !(may_have_reached && matches!(outcome, Some(Outcome::Lost { .. }))) {
            return error;
        }
        let description = self.enrollment.parameters.description.as_deref().unwrap_or_default();
        Error::Verdict {
            exit: Exit::Unreachable,
            message: format!("{}: nothing was written to config.toml", chain(&error)),
            hint: Some(format!(
                "GitLab may have created the runner anyway: delete the runner there that has the description `{description}` and was never contacted, then go on with --force"
            )),
        }
    }

    /// The runner was made, but its entry cannot be written.
    async fn give_up(&self, driver: &mut Driver, entry: TargetEntry, error: &StepFailure) -> Error {
        let because = format!("its entry cannot be written to config.toml: {}", chain(error));
        if !self.mode.leaves_runner {
            let undone = self.undo(driver, entry).await;
            return Error::Verdict { exit: Exit::LocalFile, message: format!("{because}; {undone}"), hint: None };
        }
        let kept = if driver.runner.is_unstored() {
            "its token is lost, because no file took it"
        } else {
            "its token is safe in the state directory, and the next command writes it"
        };
        Error::Verdict {
            exit: Exit::LocalFile,
            message: format!("{because}; runner {} stays registered, {kept}", id_of(&driver.runner)),
            hint: None,
        }
    }

    /// Unregisters the runner that was made, and describes how that went. A second signal ends even this.
    async fn undo(&self, driver: &mut Driver, entry: TargetEntry) -> String {
        let made = id_of(&driver.runner);
        let undone = tokio::select! {
            biased;
            () = self.session.interrupt.interrupted_twice() => return self.left_behind(driver, &made).await,
            undone = self.unregister(driver, entry) => undone,
        };
        let is_gone = driver.runner.record.state == Some(StateName::Retired);
        match undone {
            // A write that the disk did not take is finished by the journal.
            Err(error) if !(is_gone && matches!(error, Error::Operation(ops::Error::Disk(_)))) => {
                let left_behind = self.left_behind(driver, &made).await;
                format!("the new runner {made} could not be unregistered again: {}; {left_behind}", chain(&error))
            }
            Ok(()) | Err(_) => format!("the new runner {made} is unregistered again"),
        }
    }

    /// Says where a runner is that was made and may not have been deleted again: while a file on this machine holds its
    /// token, this machine can remove both.
    async fn left_behind(&self, driver: &Driver, made: &str) -> String {
        let disk = self.session.ops().disk();
        let Some(digest) = driver.runner.digest() else {
            return format!("runner {made} may remain in GitLab, delete it there");
        };
        let url = &driver.runner.record.url;
        let has_entry = disk.read().await.is_ok_and(|snapshot| snapshot.with_token(url, digest).next().is_some());
        let key = &driver.runner.record.key;
        let record = disk.record(key).await.ok().flatten();
        let journaled = disk.pending_of(key).await.ok().flatten().and_then(|pending| pending.answer?.token);
        let is_kept = record.and_then(|record| record.credential).is_some_and(|held| held.token.digest() == digest)
            || journaled.is_some_and(|token| token.digest() == digest);
        let name = driver.runner.label();
        let remedy = format!("`runner-agent unregister --name {name}` removes both");
        if has_entry {
            let path = disk.config_path().display();
            format!("runner {made} may stay registered, and its entry with its token is in {path}: {remedy}")
        } else if is_kept {
            format!(
                "runner {made} may stay registered, and its token is in the state directory: the same command once more takes it, or {remedy}"
            )
        } else {
            format!("runner {made} may remain in GitLab, delete it there")
        }
    }

    async fn unregister(&self, driver: &mut Driver, entry: TargetEntry) -> Result<(), Error> {
        // The record holds the token; an answer in the journal would keep the deletion from beginning.
        self.session.ops().settle(&mut driver.runner).await?;
        let drive = self.session.drive(driver, Goal::Unregistered, Budget::BY_RULES).await;
        if entry != TargetEntry::New {
            // A dead token must not be taken for one that this registration token has made.
            driver.runner.record.seed = None;
            driver.runner.record.seed_digest = None;
            self.session.ops().disk().save_record(driver.runner.record.clone()).await?;
        }
        drive.into_failure().map_or(Ok(()), |failure| Err(failure.into()))
    }

    fn failed(&self, error: &Error) -> RunnerOutcome {
        let executor = self.enrollment.entry.executor.as_deref().map(Into::into);
        let report = RunnerReport { executor, ..self.report(&self.blank()) };
        let action = if error.exit() == Exit::Refused { Action::Refused } else { Action::Failed };
        RunnerOutcome::failed(report, action, "", error)
    }
}

/// Which entry the runner gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TargetEntry {
    /// A new one.
    New,
    /// One without a token, which is completed.
    Prepared,
    /// The one that the former runner has.
    Same,
}

impl TargetEntry {
    fn goal(self) -> Goal {
        match self {
            Self::New | Self::Prepared => Goal::Registered,
            Self::Same => Goal::RegisteredAgain,
        }
    }

    /// What happens to the entry if the registration is undone.
    fn fate_if_undone(self) -> EntryFate {
        match self {
            Self::New => EntryFate::Drop,
            Self::Prepared | Self::Same => EntryFate::Keep,
        }
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
