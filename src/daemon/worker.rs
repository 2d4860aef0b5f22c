//! The worker: one runner, from what is due to what became of it.

mod changes;
mod ongoing_failure;
mod status;
mod steps;

use std::rc::Rc;

use tokio::sync::{mpsc, watch};

use super::Shared;
use super::transition_log::tell_transition;
use crate::engine::{Config, ManagedRunner, rules};
use ongoing_failure::OngoingFailure;
use status::Acceptance;

use crate::clock::{Clock, ServerTime};
use crate::error_chain::chain;
use crate::lifecycle::{self, Moment, Outcome, Rules, State};
use crate::model::Timestamp;
use crate::ops::{Disk, Enrollment, Runner, Server, Unfinished};

/// What the supervisor tells a worker.
#[derive(Clone, Debug)]
pub(super) enum RunnerCommand {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Retired {
    /// They stay away: somebody wanted it so.
    Stay,
    /// They are registered again: somebody asked for a new look.
    ComeBack,
}

/// How far a stopping worker may go on with a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DrainMode {
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
    commands: mpsc::UnboundedReceiver<RunnerCommand>,
    drain_mode: watch::Receiver<DrainMode>,
    /// Server time minus this machine's when the server told it last.
    skew_millis: Option<i64>,
    acceptance: Acceptance,
    /// The failure that lasts, which was told already.
    ongoing_failure: Option<OngoingFailure>,
}

/// What a worker leaves behind when it ends.
pub(super) struct WorkerExit {
    pub(super) runner: Runner,
    pub(super) state: State,
    pub(super) now: Timestamp,
    /// Whether an enrollment can make it again.
    pub(super) is_enrolled: bool,
}

/// The lines that tie a worker to its supervisor.
pub(super) struct RunnerChannels {
    pub(super) target: SharedTarget,
    pub(super) commands: mpsc::UnboundedReceiver<RunnerCommand>,
    pub(super) drain_mode: watch::Receiver<DrainMode>,
}

impl<S: Server, D: Disk, C: Clock> Worker<S, D, C> {
    pub(super) fn new(
        shared: Rc<Shared<S, D, C>>,
        member: ManagedRunner,
        config: Rc<Config>,
        unfinished: Option<Unfinished>,
        lines: RunnerChannels,
    ) -> Self {
        let ManagedRunner { runner, enrollment } = member;
        let time = ServerTime::from_local(shared.engine.clock.read());
        let now = time.now(shared.engine.clock.read());
        let rules = rules(&config, &runner, enrollment.as_ref(), shared.engine.ops.system_id());
        let state = runner.initial_state(&config.timing, now);
        let RunnerChannels { target, commands, drain_mode } = lines;
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
            commands,
            drain_mode,
            skew_millis: None,
            acceptance: Acceptance::default(),
            ongoing_failure: None,
        };
        match worker.unfinished {
            Some(Unfinished::LostReset) => worker.enter(Outcome::Lost { retry_after: None }),
            Some(Unfinished::Unsaved) => worker.enter(Outcome::Unsaved),
            Some(Unfinished::Unregistration) | None => {}
        }
        worker
    }

    /// Serves the runner until it is told to stop or is retired.
    pub(super) async fn run(mut self) -> WorkerExit {
        self.finish_unregistration().await;
        loop {
            *self.target.borrow_mut() = self.runner.target();
            self.rules = self.current_rules();
            let Some(plan) = lifecycle::plan(&self.state, &self.rules) else { break };
            self.post();
            let nap = plan.at.since(self.now()).min(self.rules.timing.longest_nap);
            tokio::select! {
                biased;
                mail = self.commands.recv() => match mail {
                    None | Some(RunnerCommand::Stop) => break,
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
    pub(super) async fn once(mut self) -> WorkerExit {
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

    fn leave(self) -> WorkerExit {
        let now = self.now();
        WorkerExit { runner: self.runner, state: self.state, now, is_enrolled: self.enrollment.is_some() }
    }

    fn now(&self) -> Timestamp {
        self.time.now(self.shared.engine.clock.read())
    }

    /// A wall clock that jumped means that a clock was set or the machine was paused: only the server
    /// knows what time it is now.
    fn look_at_clock(&mut self) {
        let reading = self.shared.engine.clock.read();
        if self.time.is_doubtful(reading) {
            tracing::info!(runner = self.runner.label(), "the clock has jumped: asking the server for the time");
            self.time = self.time.accept_jump(reading);
            self.enter(Outcome::Nudged);
        }
    }

    fn enter(&mut self, outcome: Outcome) {
        let moment = Moment { now: self.now(), chance: (self.shared.engine.chance)() };
        let before = self.state.name();
        self.acceptance = self.acceptance.after(&outcome);
        let state = std::mem::replace(&mut self.state, State::Retired { since: moment.now });
        self.state = lifecycle::apply(state, outcome, &self.rules, moment);
        if self.state.name() != before {
            tell_transition(&self.runner, before, &self.state, moment.now);
        }
    }

    fn current_rules(&self) -> Rules {
        rules(&self.config, &self.runner, self.enrollment.as_ref(), self.shared.engine.ops.system_id())
    }

    async fn note_state(&mut self) {
        let (word, since) = (self.state.name(), self.state.since());
        if let Err(error) = self.shared.engine.ops.note_state(&mut self.runner, word, since).await {
            tracing::warn!(runner = self.runner.label(), error = chain(&error), "cannot write the runner's record");
        }
    }
}
