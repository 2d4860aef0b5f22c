//! The worker: one runner, from what is due to what became of it.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::census::Member;
use super::{Config, RotatePolicy, Shared};
use crate::clock::{Clock, ServerTime};
use crate::lifecycle::{self, Moment, Outcome, Plan, Recovery, RegisterAgain, Rules, State, Step, Trouble};
use crate::model::{Origin, RunnerId, SystemId, Timestamp};
use crate::observe::chain;
use crate::ops::{
    Disk, Enrollment, EntryFate, Error, Registration, Rotation, Runner, Seed, Server, Standing, Unfinished,
};

/// What the supervisor tells a worker.
#[derive(Clone, Debug)]
pub(super) enum Mail {
    /// Look now.
    Nudge,
    /// config.toml has changed.
    Changed {
        /// Whether it has been still for a while, so that what is missing is missing for good.
        settled: bool,
        /// What becomes of the runner if another process has unregistered it.
        retired: Retired,
    },
    /// New settings.
    Settings(Rc<Config>),
    /// Plan nothing more.
    Stop,
}

/// What becomes of enrollments that another process has unregistered while the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retired {
    /// They stay away: somebody wanted it so.
    Stay,
    /// They are registered again: somebody asked for a new look.
    ComeBack,
}

/// How far a stopping worker may go on with a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Patience {
    /// Let everything under way finish.
    Finish,
    /// Give up what changes nothing.
    GiveUpVerify,
}

/// Where the supervisor can see which entries a worker answers for.
pub(super) type SharedTarget = Rc<std::cell::RefCell<crate::store::Target>>;

pub(super) struct Worker<S, D, C> {
    shared: Rc<Shared<S, D, C>>,
    runner: Runner,
    enrollment: Option<Enrollment>,
    config: Rc<Config>,
    rules: Rules,
    state: State,
    time: ServerTime,
    unfinished: Option<Unfinished>,
    target: SharedTarget,
    mailbox: mpsc::UnboundedReceiver<Mail>,
    patience: watch::Receiver<Patience>,
    /// Whether the failure that lasts was told already.
    has_complained: bool,
}

/// What a worker leaves behind when it ends.
pub(super) struct Leftover {
    pub(super) runner: Runner,
    pub(super) state: State,
    pub(super) now: Timestamp,
    /// Whether an enrollment can make it again.
    pub(super) is_enrolled: bool,
}

/// The lines that tie a worker to its supervisor.
pub(super) struct Lines {
    pub(super) target: SharedTarget,
    pub(super) mailbox: mpsc::UnboundedReceiver<Mail>,
    pub(super) patience: watch::Receiver<Patience>,
}

impl<S: Server, D: Disk, C: Clock> Worker<S, D, C> {
    pub(super) fn new(
        shared: Rc<Shared<S, D, C>>,
        member: Member,
        config: Rc<Config>,
        unfinished: Option<Unfinished>,
        lines: Lines,
    ) -> Self {
        let Member { runner, enrollment } = member;
        let time = ServerTime::assumed(shared.clock.read());
        let now = time.now(shared.clock.read());
        let rules = rules(&config, &runner, enrollment.as_ref(), shared.ops.system_id());
        let state = runner.initial_state(&config.timing, now);
        let Lines { target, mailbox, patience } = lines;
        let mut worker = Self {
            shared,
            runner,
            enrollment,
            config,
            rules,
            state,
            time,
            unfinished,
            target,
            mailbox,
            patience,
            has_complained: false,
        };
        match worker.unfinished {
            Some(Unfinished::LostReset) => worker.enter(Outcome::Lost { retry_after: None }),
            Some(Unfinished::Unsaved) => worker.enter(Outcome::Unsaved),
            Some(Unfinished::Unregistration) | None => {}
        }
        worker
    }

    /// Serves the runner until it is told to stop or is retired.
    pub(super) async fn run(mut self) -> Leftover {
        self.finish_unregistration().await;
        loop {
            *self.target.borrow_mut() = self.runner.target();
            self.rules = self.current_rules();
            let Some(plan) = lifecycle::plan(&self.state, &self.rules) else { break };
            let nap = plan.at.since(self.now()).min(self.rules.timing.longest_nap);
            tokio::select! {
                biased;
                mail = self.mailbox.recv() => match mail {
                    None | Some(Mail::Stop) => break,
                    Some(mail) => self.read(mail).await,
                },
                () = tokio::time::sleep(nap) => {
                    self.look_at_clock();
                    if plan.at <= self.now() {
                        self.execute(plan).await;
                    }
                }
            }
        }
        self.leave()
    }

    /// Makes one pass: what is due now, each kind of step once.
    pub(super) async fn once(mut self) -> Leftover {
        self.finish_unregistration().await;
        self.reconcile(true, Retired::Stay).await;
        let mut done = Vec::new();
        self.rules = self.current_rules();
        while let Some(plan) = lifecycle::plan(&self.state, &self.rules) {
            if plan.at > self.now() || done.contains(&plan.step) {
                break;
            }
            done.push(plan.step);
            self.execute(plan).await;
        }
        self.leave()
    }

    fn leave(self) -> Leftover {
        let now = self.now();
        Leftover { runner: self.runner, state: self.state, now, is_enrolled: self.enrollment.is_some() }
    }

    fn now(&self) -> Timestamp {
        self.time.now(self.shared.clock.read())
    }

    /// A wall clock that jumped means that a clock was set or the machine was paused: only the server
    /// knows what time it is now.
    fn look_at_clock(&mut self) {
        let reading = self.shared.clock.read();
        if self.time.is_doubtful(reading) {
            tracing::info!(runner = self.runner.label(), "the clock has jumped: asking the server for the time");
            self.time = self.time.accepted(reading);
            self.enter(Outcome::Nudged);
        }
    }

    async fn execute(&mut self, plan: Plan) {
        tracing::debug!(runner = self.runner.label(), step = plan.step.word(), why = plan.why.word(), "due");
        if self.unfinished == Some(Unfinished::Unregistration) {
            self.finish_unregistration().await;
            if self.unfinished.is_some() {
                return self.enter(Outcome::Deferred { retry_after: None });
            }
            return;
        }
        let result = match plan.step {
            Step::Register => self.register().await,
            Step::Verify => self.verify().await,
            Step::Rotate => self.rotate().await,
            Step::Save => self.save().await,
            Step::ResetById => self.reset_by_id().await,
            Step::RegisterAgain => self.register_again().await,
        };
        self.take_date();
        match result {
            Ok(outcomes) => {
                for outcome in outcomes {
                    self.enter(outcome);
                    if outcome != Outcome::Unsaved {
                        self.stop_complaining();
                    }
                }
            }
            Err(error) => {
                self.complain(plan.step, &error);
                self.enter(error.outcome());
            }
        }
        self.settle().await;
        self.note_state().await;
    }

    /// The server's time of the last answer, for all that is planned from it.
    fn take_date(&mut self) {
        if let Some(date) = self.runner.date.take() {
            self.time = self.time.told(date, self.shared.clock.read());
        }
    }

    async fn register(&mut self) -> Result<Vec<Outcome>, Error> {
        let Some(enrollment) = self.enrollment.clone() else { return Ok(Vec::new()) };
        let now = self.now();
        let registration = self.shared.ops.register(&enrollment, &mut self.runner, now).await?;
        if let Registration::Registered { unsaved, .. } = &registration {
            tracing::info!(
                runner = self.runner.label(),
                id = self.runner.record.id.map(RunnerId::number),
                "registered"
            );
            self.tell_unsaved(unsaved.as_ref());
        }
        self.rules = self.current_rules();
        let unsaved = matches!(registration, Registration::Registered { unsaved: Some(_), .. });
        Ok(with_unsaved(registration.outcome(), unsaved))
    }

    async fn verify(&mut self) -> Result<Vec<Outcome>, Error> {
        let now = self.now();
        let mut patience = self.patience.clone();
        let (ops, runner, enrollment) = (&self.shared.ops, &mut self.runner, self.enrollment.as_ref());
        let ask = async {
            if let Some(enrollment) = enrollment
                && let Some(held) = ops.reseed(enrollment, runner, now).await?
            {
                return Ok(vec![Outcome::Adopted(held)]);
            }
            Ok(vec![ops.verify(runner, now).await?.outcome()])
        };
        tokio::select! {
            biased;
            outcomes = ask => outcomes,
            _ = patience.wait_for(|patience| *patience >= Patience::GiveUpVerify) => Ok(Vec::new()),
        }
    }

    async fn rotate(&mut self) -> Result<Vec<Outcome>, Error> {
        let now = self.now();
        let rotation = self.shared.ops.rotate(&mut self.runner, None, now).await?;
        if let Rotation::Rotated { held, unsaved } = &rotation {
            let expires_at = held.expiry.at().map(|at| at.to_string());
            tracing::info!(runner = self.runner.label(), expires_at, "rotated the token");
            self.tell_unsaved(unsaved.as_ref());
        }
        let unsaved = matches!(rotation, Rotation::Rotated { unsaved: Some(_), .. });
        Ok(with_unsaved(rotation.outcome(), unsaved))
    }

    /// The rung of the ladder that needs an access token.
    async fn reset_by_id(&mut self) -> Result<Vec<Outcome>, Error> {
        let Some(access) = self.config.access_to(&self.runner.record.url) else {
            return Ok(vec![Outcome::MustAct(Trouble::AccessDenied)]);
        };
        let access_token = access.access_token.read()?;
        let now = self.now();
        let rotation = self.shared.ops.rotate(&mut self.runner, Some(&access_token), now).await?;
        if let Rotation::Rotated { unsaved, .. } = &rotation {
            tracing::warn!(runner = self.runner.label(), "recovered: its token was reset with the access token");
            self.tell_unsaved(unsaved.as_ref());
        }
        let unsaved = matches!(rotation, Rotation::Rotated { unsaved: Some(_), .. });
        Ok(with_unsaved(rotation.outcome(), unsaved))
    }

    /// The last rung of the ladder.
    async fn register_again(&mut self) -> Result<Vec<Outcome>, Error> {
        let Some(enrollment) = self.enrollment.clone() else {
            return Ok(vec![Outcome::MustAct(Trouble::RegistrationRefused)]);
        };
        let (now, old) = (self.now(), self.runner.record.id);
        let registration = self.shared.ops.register_again(&enrollment, &mut self.runner, now).await?;
        if let Registration::Registered { unsaved, .. } = &registration {
            tracing::warn!(
                runner = self.runner.label(),
                old_id = old.map(RunnerId::number),
                id = self.runner.record.id.map(RunnerId::number),
                "recovered: registered anew into the same entry; the old runner may be deleted in GitLab"
            );
            self.tell_unsaved(unsaved.as_ref());
        }
        let unsaved = matches!(registration, Registration::Registered { unsaved: Some(_), .. });
        Ok(with_unsaved(registration.outcome(), unsaved))
    }

    async fn save(&mut self) -> Result<Vec<Outcome>, Error> {
        match self.shared.ops.save(&mut self.runner).await {
            Ok(Standing::Foreign { .. }) => Ok(vec![Outcome::Saved, Outcome::Nudged]),
            Ok(_) => {
                tracing::info!(runner = self.runner.label(), "config.toml holds the token now");
                Ok(vec![Outcome::Saved])
            }
            Err(error) => {
                tracing::error!(
                    runner = self.runner.label(),
                    error = chain(&error),
                    "config.toml still does not hold the token"
                );
                Ok(vec![Outcome::Unsaved])
            }
        }
    }

    fn tell_unsaved(&self, unsaved: Option<&crate::store::Error>) {
        if let Some(error) = unsaved {
            tracing::error!(
                runner = self.runner.label(),
                error = chain(&error),
                "config.toml does not hold the new token yet: it is safe in the state directory, and writing it is tried again"
            );
        }
    }

    /// Ends the journal of a lost reset once the old token has told what happened.
    async fn settle(&mut self) {
        let is_lost = matches!(self.state, State::Uncertain(_));
        if is_lost {
            self.unfinished = Some(Unfinished::LostReset);
        } else if self.unfinished == Some(Unfinished::LostReset) {
            match self.shared.ops.settle(&mut self.runner).await {
                Ok(()) => self.unfinished = None,
                Err(error) => {
                    tracing::warn!(runner = self.runner.label(), error = chain(&error), "cannot clear the journal")
                }
            }
        }
    }

    /// A shutdown that was interrupted after it had asked the server to delete the runner.
    async fn finish_unregistration(&mut self) {
        if self.unfinished != Some(Unfinished::Unregistration) {
            return;
        }
        let fate = EntryFate::at_shutdown(&self.runner.record);
        let now = self.now();
        match self.shared.ops.unregister(&mut self.runner, fate, now).await {
            Ok(found) => {
                tracing::info!(
                    runner = self.runner.label(),
                    ?found,
                    "finished an unregistration that had been interrupted"
                );
                self.unfinished = None;
                self.take_date();
                let now = self.now();
                self.state = if self.enrollment.is_some() {
                    self.runner.initial_state(&self.config.timing, now)
                } else {
                    State::Retired { since: now }
                };
            }
            Err(error) => {
                tracing::warn!(
                    runner = self.runner.label(),
                    error = chain(&error),
                    "cannot finish an interrupted unregistration: serving the runner on"
                );
            }
        }
    }

    async fn read(&mut self, mail: Mail) {
        match mail {
            Mail::Nudge => self.enter(Outcome::Nudged),
            Mail::Changed { settled, retired } => self.reconcile(settled, retired).await,
            Mail::Settings(config) => self.take_settings(config).await,
            Mail::Stop => {}
        }
    }

    /// Takes new settings. A runner that no enrollment asks for any more is served on as one that was found,
    /// and one whose enrollment now names another server is left to the next census.
    async fn take_settings(&mut self, config: Rc<Config>) {
        let wanted = config.enrollments.iter().find(|wanted| wanted.key == self.runner.record.key).cloned();
        let was_enrolled = self.enrollment.is_some();
        self.config = config;
        let has_moved = wanted.as_ref().is_some_and(|wanted| wanted.site.url != self.runner.site.url);
        if has_moved || (wanted.is_none() && self.runner.record.credential.is_none()) {
            self.state = State::Retired { since: self.now() };
            return;
        }
        if wanted.is_some() != was_enrolled
            && let Err(error) = self.shared.ops.note_enrollment(&mut self.runner, wanted.as_ref()).await
        {
            tracing::warn!(runner = self.runner.label(), error = chain(&error), "cannot write the runner's record");
        }
        self.enrollment = wanted;
        self.enter(Outcome::Nudged);
    }

    async fn reconcile(&mut self, settled: bool, retired: Retired) {
        self.look_at_seed();
        if self.runner.record.credential.is_none() {
            return;
        }
        let reconciled = match self.shared.ops.reconcile(&mut self.runner).await {
            Ok(reconciled) => reconciled,
            Err(error) => {
                tracing::warn!(
                    runner = self.runner.label(),
                    error = chain(&error),
                    "config.toml has changed and cannot be compared: serving on with what is known"
                );
                return;
            }
        };
        if self.runner.record.credential.is_none() {
            tracing::info!(runner = self.runner.label(), "another process has unregistered it");
            let now = self.now();
            let comes_back = retired == Retired::ComeBack && self.enrollment.is_some();
            self.state = if comes_back { State::unregistered(now) } else { State::Retired { since: now } };
            return;
        }
        if reconciled.is_replaced
            && let Some(held) = self.runner.held(self.now())
        {
            tracing::info!(runner = self.runner.label(), "another process has replaced the token");
            self.enter(Outcome::Adopted(held));
        }
        if let Some(error) = reconciled.unsaved {
            tracing::error!(
                runner = self.runner.label(),
                error = chain(&error),
                "cannot put the current token back: trying again"
            );
            self.enter(Outcome::Unsaved);
        }
        match reconciled.standing {
            Standing::Foreign { .. } => self.enter(Outcome::Nudged),
            Standing::Missing if settled => self.missing().await,
            Standing::Ours | Standing::Stale | Standing::Variable(_) | Standing::Broken | Standing::Missing => {}
        }
    }

    /// What failed or was refused is tried again at once when the token that it is made from was replaced.
    fn look_at_seed(&mut self) {
        let waits = matches!(self.state, State::Unregistered(_) | State::Failed(_) | State::Rejected(_));
        let Some(enrollment) = self.enrollment.as_ref().filter(|_| waits) else { return };
        let Ok(seed) = enrollment.seed.read() else { return };
        if self.runner.record.seed != Some(seed.fingerprint()) {
            self.enter(Outcome::Nudged);
        }
    }

    /// The entry is gone for good: an enrollment wants it back, a person has taken any other away.
    async fn missing(&mut self) {
        let Some(enrollment) = self.enrollment.clone() else {
            tracing::warn!(
                runner = self.runner.label(),
                "its entry was removed from config.toml: not serving it any more, and not unregistering it"
            );
            self.state = State::Retired { since: self.now() };
            return;
        };
        match self.shared.ops.restore(&mut self.runner, &enrollment).await {
            Ok(()) => tracing::warn!(
                runner = self.runner.label(),
                "its entry was gone from config.toml: put it back, since agent.toml enrolls it"
            ),
            Err(error) => {
                tracing::error!(
                    runner = self.runner.label(),
                    error = chain(&error),
                    "cannot put its entry back into config.toml"
                );
                self.enter(Outcome::Unsaved);
            }
        }
    }

    fn enter(&mut self, outcome: Outcome) {
        let moment = Moment { now: self.now(), chance: (self.shared.chance)() };
        let before = self.state.word();
        let state = std::mem::replace(&mut self.state, State::Retired { since: moment.now });
        self.state = lifecycle::apply(state, outcome, &self.rules, moment);
        if self.state.word() != before {
            tell_transition(&self.runner, before, &self.state, moment.now);
        }
    }

    fn current_rules(&self) -> Rules {
        rules(&self.config, &self.runner, self.enrollment.as_ref(), self.shared.ops.system_id())
    }

    async fn note_state(&mut self) {
        let (word, since) = (self.state.word(), self.state.since());
        if let Err(error) = self.shared.ops.note_state(&mut self.runner, word, since).await {
            tracing::warn!(runner = self.runner.label(), error = chain(&error), "cannot write the runner's record");
        }
    }

    /// A failure that lasts is told once, when it begins; its repetitions are for the debug log.
    fn complain(&mut self, step: Step, error: &Error) {
        let runner = self.runner.label();
        let (step, hint) = (step.word(), error.hint());
        if self.has_complained {
            tracing::debug!(runner, step, error = chain(&error), "failed again");
        } else {
            tracing::warn!(runner, step, error = chain(&error), hint, "failed, trying again");
            self.has_complained = true;
        }
    }

    fn stop_complaining(&mut self) {
        if std::mem::take(&mut self.has_complained) {
            tracing::info!(runner = self.runner.label(), "works again");
        }
    }
}

fn with_unsaved(outcome: Outcome, unsaved: bool) -> Vec<Outcome> {
    if unsaved { vec![outcome, Outcome::Unsaved] } else { vec![outcome] }
}

fn tell_transition(runner: &Runner, before: &str, state: &State, now: Timestamp) {
    let (name, after) = (runner.label(), state.word());
    match state {
        // That it was registered has been told already.
        State::Active(_) if before == "unregistered" => {}
        State::Active(_) | State::Unregistered(_) | State::Retired { .. } => {
            tracing::info!(runner = name, from = before, to = after, "changed its state");
        }
        State::Uncertain(_) => tracing::warn!(
            runner = name,
            from = before,
            to = after,
            "the answer to a rotation was lost: asking about the old token before anything else is done"
        ),
        State::Rejected(rejected) => tracing::error!(
            runner = name,
            from = before,
            to = after,
            rejection = ?rejected.rejection,
            "the server refuses the token: register the runner again, or reset its token in GitLab and put the new one into config.toml"
        ),
        State::NotRenewable(state) => {
            let left = state.held.left(now).map(crate::model::format_span);
            tracing::error!(
                runner = name,
                from = before,
                to = after,
                left,
                "the server does not renew this token: create the runner anew before the token expires"
            );
        }
        State::Failed(failed) => tracing::error!(
            runner = name,
            from = before,
            to = after,
            trouble = failed.trouble.word(),
            remedy = remedy(failed.trouble),
            "cannot go on until somebody acts"
        ),
    }
}

fn remedy(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::RegistrationDisabled => {
            "create the runner in GitLab's UI and give its glrt- token as `token` instead of the registration token"
        }
        Trouble::RegistrationRefused => "put a valid registration token where the enrollment reads it",
        Trouble::GivenTokenRefused => "put the token of an existing runner where the enrollment reads it",
        Trouble::Orphaned => "its project or group is gone: remove its entry, and enroll it elsewhere",
        Trouble::Unassigned => "assign the runner to a project in GitLab",
        Trouble::InvalidRequest => "correct the parameters that the server names",
        Trouble::AccessDenied => "give an access token with the scope `manage_runner` or `api`",
        Trouble::Unsupported => "this GitLab is too old for it",
        Trouble::LocalFile => "make the file that the error names usable",
    }
}

/// What governs a runner: the settings, its policy, and what its origin allows.
fn rules(config: &Config, runner: &Runner, enrollment: Option<&Enrollment>, system_id: &SystemId) -> Rules {
    let policy = config.policy_of(runner);
    let is_shared = policy.shared.unwrap_or(runner.record.is_copy);
    let rotate = match policy.rotate.unwrap_or(RotatePolicy::Auto) {
        RotatePolicy::Always => config.rotate.or(Some(crate::lifecycle::Share::DEFAULT)),
        RotatePolicy::Off => None,
        RotatePolicy::Auto => {
            let can_rotate = match runner.record.origin {
                Origin::Registered | Origin::Given => !is_shared && runner.variable.is_none(),
                Origin::V1 => false,
            };
            config.rotate.filter(|_| can_rotate && !runner.rotation_disabled)
        }
    };
    let verify_interval: Duration = if enrollment.is_some() { config.verify_enrolled } else { config.verify_found };
    let recovery = recovery(config, runner, enrollment, is_shared);
    Rules { timing: config.timing.clone(), verify_interval, rotate, recovery, phase: runner.phase(system_id) }
}

/// Which rungs of the recovery ladder there are for a runner.
fn recovery(config: &Config, runner: &Runner, enrollment: Option<&Enrollment>, is_shared: bool) -> Recovery {
    let record = &runner.record;
    let token = record.credential.as_ref().map(|credential| credential.token.fingerprint());
    let was_recovered = record.recovered.is_some() && record.recovered == token;
    let can_register = enrollment.is_some_and(|enrollment| matches!(enrollment.seed, Seed::Registration(_)));
    Recovery {
        reset_by_id: config.access_to(&record.url).is_some() && record.id.is_some() && !is_shared && !was_recovered,
        register: if can_register { config.register_again } else { RegisterAgain::Never },
    }
}
