//! The worker: one runner, from what is due to what became of it.

mod complaint;
mod news;
mod posting;
mod steps;

use std::rc::Rc;

use tokio::sync::{mpsc, watch};

use super::census::Member;
use super::rules::rules;
use super::telling::tell_transition;
use super::{Config, Shared};
use complaint::Complaint;
use posting::Acceptance;

use crate::clock::{Clock, ServerTime};
use crate::lifecycle::{self, Moment, Outcome, Rules, State};
use crate::model::Timestamp;
use crate::observe::chain;
use crate::ops::{Disk, Enrollment, Runner, Server, Unfinished};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Server time minus this machine's when the server told it last.
    skew_millis: Option<i64>,
    acceptance: Acceptance,
    /// The failure that lasts, which was told already.
    complaint: Option<Complaint>,
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
            skew_millis: None,
            acceptance: Acceptance::default(),
            complaint: None,
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
            self.post();
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

    fn enter(&mut self, outcome: Outcome) {
        let moment = Moment { now: self.now(), chance: (self.shared.chance)() };
        let before = self.state.word();
        self.acceptance = self.acceptance.after(&outcome);
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
}
