//! The driver of one runner, the only one: the daemon and the commands use it alike.
//!
//! A driver asks `lifecycle` what is due, lets `ops` do it, and enters the outcome into the state. Its caller waits
//! in between, and logs or reports what a step did.

mod shared;
mod steps;

use shared::FollowUp;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Config, Engine, ManagedRunner, command_rules, expired_text, planned_report, rules, unprefixed_text};
use crate::clock::{Clock, ServerTime, Skew};
use crate::error_chain::chain;
use crate::gitlab::ErrorClass;
use crate::lifecycle::{self, Goal, Moment, Outcome, Plan, Rejection, Rules, State, Step, Taken};
use crate::model::{RunnerReport, SharingReport, StateName, Timestamp};
use crate::ops::{self, AccessToken, Disk, Enrollment, EntryFate, Inquiry, Runner, Server, Unfinished, Unregistration};
use crate::secret::Digest;

/// Who asks for the steps.
#[derive(Clone, Debug)]
pub enum Asker {
    /// The daemon, which goes by its settings alone.
    Daemon,
    /// A person's command, which overrides settings that only restrict automatic actions.
    Command {
        /// The access token that was given for this command; else the one in agent.toml counts. Without TLS files of its
        /// own it is sent with those of agent.toml.
        access_token: Option<AccessToken>,
        /// What an unregistration does with the entry.
        entry_fate: EntryFate,
    },
}

impl Asker {
    fn is_daemon(&self) -> bool {
        match self {
            Self::Daemon => true,
            Self::Command { .. } => false,
        }
    }
}

/// What speaks for a runner's id that only config.toml claims, before something is done by it with an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdTrust {
    /// Nothing.
    None,
    /// A person has named it: the server is asked whether it can be this runner's.
    Named,
    /// A person vouches for it.
    Vouched,
}

/// What a step did.
#[derive(Debug)]
pub struct StepReport {
    /// The step.
    pub step: Step,
    /// The outcomes in the order in which they were applied; the first is the step's own.
    pub outcomes: Vec<Outcome>,
    /// The `Date` of the last genuine answer.
    pub server_time: Option<Timestamp>,
    /// What an unregistration found.
    pub unregistration: Option<Unregistration>,
    /// Where the text of an entry is kept that was dropped from config.toml.
    pub dropped_to: Option<PathBuf>,
    /// What went wrong. A token that config.toml does not hold yet is a failure too.
    pub failure: Option<StepFailure>,
}

/// What went wrong with a step.
#[derive(Debug, thiserror::Error)]
pub enum StepFailure {
    /// It failed, or its result is unknown.
    #[error(transparent)]
    Operation(#[from] ops::Error),
    /// It happened, and config.toml does not hold the token.
    #[error(transparent)]
    Unsaved(ops::Error),
    /// It was not sent.
    #[error("another machine ({machine}) uses its token too, and would be shut out")]
    UsedElsewhere {
        /// The other machine's system_id.
        machine: String,
    },
}

impl StepFailure {
    /// Whether the server could not be reached, so that the same request may succeed later.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Operation(error) => error.failure().is_some_and(|failure| failure.class == ErrorClass::Unreachable),
            Self::Unsaved(_) | Self::UsedElsewhere { .. } => false,
        }
    }

    /// Whether the server does not accept the token.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Operation(error) if error.outcome() == Outcome::Refused)
    }

    /// What the user can do about it, unless the message says so already.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Operation(error) | Self::Unsaved(error) => error.hint(),
            Self::UsedElsewhere { .. } => Some(
                "create a runner for each machine, or say `shared = true` or `rotate = \"always\"` in a [[runner]]",
            ),
        }
    }
}

/// Drives one runner.
pub struct Driver<S, D, C> {
    /// The runner, with its record.
    pub runner: Runner,
    /// What asked for the runner; `None` for an entry that was only found.
    pub enrollment: Option<Box<Enrollment>>,
    /// The settings, which the next plan follows.
    pub config: Rc<Config>,
    /// The rules by which the last plan was made.
    pub rules: Rules,
    /// What speaks for an id that config.toml claims.
    pub id_trust: IdTrust,
    /// Whether a person heals a shared runner: its store needs no reason for a reset by the runner's id.
    pub is_healing: bool,
    /// The estimate of the server's time.
    pub time: ServerTime,
    /// Server time minus this machine's in milliseconds, when the last answer came.
    pub skew_millis: Option<i64>,
    /// The last answer's `Date` minus this machine's time in milliseconds, also of a `Date` that does not count.
    seen_skew_millis: Option<i64>,
    engine: Rc<Engine<S, D, C>>,
    asker: Asker,
    state: State,
    /// Whether an answer has shown the server's time.
    is_time_known: bool,
    /// What a crash left to be done.
    unfinished: Option<Unfinished>,
    /// Whether a deletion was sent already.
    is_deletion_sent: bool,
    /// What a verification has found that is to be done, and must not be cancelled as a verification is.
    follow_up: Option<FollowUp>,
    /// Whether the disk has said that the answer to its registration was lost, since it waits for a person.
    is_loss_noted: bool,
}

impl<S: Server, D: Disk, C: Clock> Driver<S, D, C> {
    /// Takes up a runner as it was read from the disk.
    pub fn new(engine: Rc<Engine<S, D, C>>, managed: ManagedRunner, config: Rc<Config>, asker: Asker) -> Self {
        let ManagedRunner { mut runner, enrollment, unfinished, twin_of } = managed;
        runner.twin_of = twin_of;
        if unfinished == Some(Unfinished::LostReset) {
            // What a command has concluded meanwhile was concluded without the journal.
            runner.blame_lost_reset();
        }
        let time = ServerTime::from_local(engine.clock.read());
        let now = time.now(engine.clock.read());
        let rules = rules(&config, &runner, enrollment.as_deref(), engine.ops.system_id());
        let state = runner.initial_state(&config.timing, now);
        let mut driver = Self {
            runner,
            enrollment,
            engine,
            config,
            asker,
            rules,
            state,
            time,
            unfinished,
            is_time_known: false,
            skew_millis: None,
            seen_skew_millis: None,
            id_trust: IdTrust::None,
            is_healing: false,
            is_deletion_sent: false,
            follow_up: None,
            is_loss_noted: false,
        };
        match driver.unfinished {
            // What is concluded already rests on the lost answer too.
            Some(Unfinished::LostReset) if matches!(driver.state, State::Rejected(_)) => {}
            Some(Unfinished::LostReset) => driver.enter(Outcome::Lost { retry_after: None }),
            Some(Unfinished::Unsaved) => driver.enter(Outcome::Unsaved),
            Some(Unfinished::Unregistration) | None => {}
        }
        driver
    }

    #[cfg(test)]
    pub(super) fn asked_by(self, asker: Asker) -> Self {
        Self { asker, ..self }
    }

    /// What comes next, by rules that follow the present settings; `None` once the runner is retired.
    pub fn plan(&mut self) -> Option<Plan> {
        self.rules = self.current_rules();
        lifecycle::plan(&self.state, &self.rules)
    }

    /// What is due now, for a pass that takes each kind of step once; `None` at its end.
    pub fn plan_once(&mut self, done: &[Step]) -> Option<Plan> {
        self.plan().filter(|plan| plan.at <= self.now() && !done.contains(&plan.step))
    }

    /// What comes next towards a command's goal; `None` once it is reached or out of reach.
    pub fn plan_towards(&mut self, goal: Goal, taken: &[Taken]) -> Option<Plan> {
        self.rules = self.current_rules();
        lifecycle::plan_towards(goal, &self.state, taken, &self.rules, self.now())
    }

    /// Does what was planned and enters what came of it.
    ///
    /// `cancelled` ends a verification, which changes nothing; it has no outcome then. No other step is cancelled, and
    /// neither may this call be.
    pub async fn step(&mut self, plan: Plan, cancelled: impl Future<Output = ()>) -> StepReport {
        tracing::debug!(runner = self.runner.label(), step = plan.step.as_str(), why = plan.why.as_str(), "due");
        let token = self.runner.digest();
        let report = if plan.step == Step::Verify {
            tokio::select! {
                biased;
                report = self.attempt(plan.step) => report,
                () = cancelled => StepReport::new(plan.step, Vec::new()),
            }
        } else {
            self.attempt(plan.step).await
        };
        let report = match self.follow_up.take() {
            Some(follow_up) => self.follow(follow_up, report).await,
            None => report,
        };
        if let Some(date) = report.server_time {
            self.take_date(date);
        } else if self.engine.ops.distrusts(&self.runner) {
            self.correct_time(ServerTime::from_local(self.engine.clock.read()));
        }
        self.rules = self.current_rules();
        self.notice_replaced(token, &report);
        for outcome in &report.outcomes {
            self.enter(*outcome);
        }
        let mut report = report;
        if let Some(StepFailure::Operation(error)) = &mut report.failure {
            let enrollment = self.enrollment.as_deref();
            let record = &self.runner.record;
            let expired = expired_text(record, self.state.validity(), enrollment, self.now());
            error.explain_refusal(|| expired.or_else(|| unprefixed_text(record, enrollment)));
        }
        if report.step != Step::Unregister {
            self.settle(&mut report).await;
            self.notice_go_ahead(&mut report).await;
            self.note_evidence().await;
            self.note_state(&report).await;
        }
        report
    }

    /// Another process has replaced the token during a step that does not say so: what was concluded about the former
    /// one says nothing about it. Or it has unregistered the runner.
    fn notice_replaced(&mut self, before: Option<Digest>, report: &StepReport) {
        let says_so = report.outcomes.iter().any(|outcome| {
            matches!(
                outcome,
                Outcome::Registered(_)
                    | Outcome::Rotated(_)
                    | Outcome::Adopted(_)
                    | Outcome::Unregistered
                    | Outcome::Reenrolled(_)
            )
        });
        match (before, self.runner.digest()) {
            _ if says_so => {}
            (Some(_), None) if self.runner.is_unregistered() => self.enter(Outcome::Unregistered),
            (Some(before), Some(now)) if now != before => {
                if let Some(validity) = self.runner.validity(self.now()) {
                    self.enter(Outcome::Adopted(validity));
                }
            }
            _ => {}
        }
    }

    /// Enters what was found out; the only way in which the state changes.
    pub fn enter(&mut self, outcome: Outcome) {
        let moment = self.moment();
        self.runner.is_replaced &= !outcome.tells_of_token();
        let state = std::mem::replace(&mut self.state, State::Retired { since: moment.now });
        self.state = lifecycle::apply(state, outcome, &self.rules, moment);
    }

    /// A person goes on after a lost registration: neither that of this runner nor another one of its name holds up the
    /// next one any more. A daemon's person asked at this time, and did not know of what was lost since.
    ///
    /// # Errors
    /// [`ops::Error::Disk`].
    pub async fn forget_lost_registration(&mut self, asked_at: Option<Instant>) -> Result<(), ops::Error> {
        let Some(enrollment) = &self.enrollment else { return Ok(()) };
        self.engine.ops.forget_lost_registrations(enrollment, &mut self.runner, asked_at).await
    }

    /// A person's command beside the daemon can go on after a lost registration, and fail: only the disk says so.
    async fn notice_go_ahead(&mut self, report: &mut StepReport) {
        let Some(enrollment) = self.enrollment.as_deref().filter(|_| self.asker.is_daemon()) else { return };
        if !self.state.has_lost_registration() {
            self.is_loss_noted = false;
            return;
        }
        // A disk that cannot be read says nothing.
        let Ok(lost_at) = self.engine.ops.lost_registration(enrollment, &self.runner).await else { return };
        let was_noted = std::mem::replace(&mut self.is_loss_noted, lost_at.is_some());
        if was_noted && lost_at.is_none() {
            tracing::info!(
                runner = self.runner.label(),
                "a command has gone on after the lost registration: so does the daemon"
            );
            report.outcomes.push(Outcome::Requested);
            self.enter(Outcome::Requested);
        }
    }

    /// A command ends without having unregistered the runner. The daemon's intent stays, and its next start asks.
    pub(super) async fn call_off_unregistration(&mut self) {
        if self.asker.is_daemon() {
            return;
        }
        if let Err(error) = self.engine.ops.call_off_unregistration(&mut self.runner).await {
            tracing::warn!(
                runner = self.runner.label(),
                error = chain(&error),
                "cannot clear the journal: the next start asks whether the runner is gone"
            );
        }
    }

    fn moment(&self) -> Moment {
        let reading = self.engine.clock.read();
        Moment {
            now: self.time.now(reading),
            boot: self.engine.clock.boot(),
            since_boot: reading.since_boot,
            chance: (self.engine.chance)(),
        }
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The server's time now.
    pub fn now(&self) -> Timestamp {
        self.time.now(self.engine.clock.read())
    }

    /// Notices a wall clock that jumped: a clock was set or the machine was paused, and only the server knows the
    /// time. Returns whether it did; the next plan is a verification then.
    pub fn check_clock(&mut self) -> bool {
        let reading = self.engine.clock.read();
        let has_jumped = self.time.is_doubtful(reading);
        if has_jumped {
            self.time = self.time.accept_jump(reading);
            self.enter(Outcome::Nudged);
        }
        has_jumped
    }

    /// The runner in the shape that all commands and the daemon share, with its present state.
    pub fn report(&self) -> RunnerReport {
        let seen = self.seen_skew_millis.filter(|millis| Skew::of_millis(*millis).is_some());
        RunnerReport {
            sharing: self.sharing().map(Box::new),
            clock_skew_seconds: seen.map(|millis| millis / 1000),
            ..planned_report(&self.runner, &self.state, &self.rules, self.now())
        }
    }

    /// How the runner is shared, as far as it is.
    pub fn sharing(&self) -> Option<SharingReport> {
        let engine = self.config.sharing.as_ref().map(|sharing| sharing.engine.as_str().to_owned());
        Some(SharingReport { engine, ..self.runner.sharing(self.share(), self.now())? })
    }

    fn current_rules(&self) -> Rules {
        let system_id = self.engine.ops.system_id();
        let rules = rules(&self.config, &self.runner, self.enrollment.as_deref(), system_id);
        match &self.asker {
            Asker::Daemon => rules,
            Asker::Command { .. } => command_rules(&self.config, &self.runner, rules),
        }
    }

    /// The `Date` of a server that contradicts itself does not count.
    fn take_date(&mut self, date: Timestamp) {
        let reading = self.engine.clock.read();
        let seen = date.as_millis() - reading.wall.as_millis();
        self.seen_skew_millis = Some(seen);
        self.engine.note_skew(self.runner.record.url.host(), seen);
        if self.engine.ops.trusted(&self.runner, Some(date)).is_none() {
            return self.correct_time(ServerTime::from_local(reading));
        }
        self.correct_time(self.time.with_date(date, reading));
        self.skew_millis = Some(self.time.skew_millis(reading));
    }

    /// What was planned by the former estimate follows the new one: a `Date` that was believed for a while leaves nothing
    /// behind. The first one shows how long the last reset was ago.
    fn correct_time(&mut self, time: ServerTime) {
        let before = self.now();
        self.time = time;
        let was_known = std::mem::replace(&mut self.is_time_known, true);
        if self.now() != before {
            let reset_from = if was_known { None } else { self.runner.reset_from(&self.rules.timing, self.now()) };
            self.enter(Outcome::TimeCorrected { before, reset_from });
        }
    }

    /// Ends the journal of a lost reset or unregistration once a verification has settled what happened.
    async fn settle(&mut self, report: &mut StepReport) {
        let settled = match (&self.state, &self.unfinished) {
            (State::Uncertain(_), _) => {
                self.unfinished = Some(Unfinished::LostReset);
                return;
            }
            // A reset by the runner's id was lost. A refusal shows that the token is still none of those we know.
            (State::Rejected(_), None) if matches!(report.outcomes.first(), Some(Outcome::Lost { .. })) => {
                self.unfinished = Some(Unfinished::LostReset);
                return;
            }
            (State::Rejected(_), Some(Unfinished::LostReset)) if report.step != Step::Verify => return,
            (State::Rejected(_), None) if report.outcomes.contains(&Outcome::LostElsewhere) => {
                self.engine.ops.settle(&mut self.runner).await
            }
            (_, Some(Unfinished::LostReset)) => self.engine.ops.settle(&mut self.runner).await,
            (State::Rejected(rejected), Some(Unfinished::Unregistration)) if rejected.is_settled() => {
                self.conclude_unregistration(report).await
            }
            (_, Some(Unfinished::Unregistration)) if matches!(report.outcomes.first(), Some(Outcome::Accepted(_))) => {
                self.engine.ops.clear_unregistration(&mut self.runner).await
            }
            _ => return,
        };
        match settled {
            Ok(()) => self.unfinished = None,
            Err(error) => {
                tracing::warn!(runner = self.runner.label(), error = chain(&error), "cannot clear the journal");
            }
        }
    }

    /// The runner is gone, as it was asked for.
    async fn conclude_unregistration(&mut self, report: &mut StepReport) -> Result<(), ops::Error> {
        let (now, timing) = (self.now(), Arc::clone(&self.rules.timing));
        let inquiry = Inquiry { timing: &timing, ..self.inquiry() };
        let result = match self.engine.ops.conclude_unregistration(&mut self.runner, &inquiry).await {
            Ok(None) => return Ok(()),
            Ok(Some(result)) => Some(result),
            // The state follows the runner, which has given its token up already: what was concluded about that token says
            // nothing about the next one. Only its journal is left, and a registration writes its own over it.
            Err(error) if self.runner.digest().is_none() => {
                tracing::warn!(runner = self.runner.label(), error = chain(&error), "cannot clear the journal");
                None
            }
            Err(error) => return Err(error),
        };
        tracing::info!(
            runner = self.runner.label(),
            "finished an unregistration that was cut off: the server no longer has the runner"
        );
        let outcome = match &self.enrollment {
            Some(_) => Outcome::Reenrolled(self.runner.validity(now)),
            None => Outcome::Unregistered,
        };
        self.enter(outcome);
        report.outcomes.push(outcome);
        if let Some(result) = result {
            report.unregistration = Some(result.found);
            report.dropped_to = result.dropped_to;
        }
        Ok(())
    }

    /// Writes what the answers have said so far, for the next process.
    async fn note_evidence(&mut self) {
        // A registration into an entry that exists says nothing about the token in it.
        let is_into_entry = matches!(self.state, State::Unregistered(_)) && self.runner.digest().is_some();
        // Another process has concluded what is settled here once more, and has cleared the journal.
        let is_concluded = matches!(self.state, State::Uncertain(_)) && self.runner.was_lost_elsewhere();
        if is_into_entry || is_concluded || matches!(self.state, State::Retired { .. }) {
            return;
        }
        if let Err(error) = self.engine.ops.note_evidence(&mut self.runner, self.state.evidence()).await {
            tracing::warn!(
                runner = self.runner.label(),
                error = chain(&error),
                "cannot write what the server has said"
            );
        }
    }

    /// Writes the state into the record, for `list`. A command that failed writes only a state that an answer has
    /// proven: the failure is its own, and the runner's state is the daemon's to judge.
    async fn note_state(&mut self, report: &StepReport) {
        let (name, since) = (self.state.name(), self.state.since());
        let is_lost = matches!(&self.state, State::Rejected(rejected) if rejected.rejection == Rejection::Lost);
        let is_proven = match &report.failure {
            None => name == StateName::Active,
            Some(_) => is_lost,
        };
        if !(is_proven || self.asker.is_daemon()) {
            return;
        }
        if let Err(error) = self.engine.ops.note_state(&mut self.runner, name, since).await {
            tracing::warn!(runner = self.runner.label(), error = chain(&error), "cannot write the runner's record");
        }
    }
}
