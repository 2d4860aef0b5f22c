//! The served runners. One at rest is a value here and a place among the timers; a task has it while something is done for it.
//!
//! As many runners of a host are at work at a time as [`operations_at_once`] allows: more than there are requests under
//! way, because most of them wait for the disk, and their changes of config.toml are made together. Thousands which are due
//! at once need no more memory and files than those. Of the others, a change of a token goes before a verification.

mod hands;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tokio::task::{self, JoinError};
use tokio::time::Instant;

use super::worker::{RunnerCommand, Worker};
use crate::clock::Clock;
use crate::engine::Driver;
use crate::lifecycle::{Plan, Step};
use crate::limits::operations_at_once;
use crate::model::{RunnerKey, Why};
use crate::ops::{Disk, Server};
use crate::store::EntrySelector;
use hands::{Hand, Hands, Job};

/// The runners that are served, each by its worker.
pub(super) struct Roster<S, D, C> {
    members: BTreeMap<RunnerKey, Member<S, D, C>>,
    /// When something is due for those at rest.
    timers: BTreeSet<(Instant, RunnerKey)>,
    /// Those that wait until fewer runners of their host are at work.
    queues: BTreeMap<Rc<str>, BTreeSet<Turn>>,
    /// How many are at work, by host.
    busy: BTreeMap<Rc<str>, usize>,
    hands: WorkHands<S, D, C>,
    /// Those that have ended, to be dismissed.
    #[expect(clippy::vec_box, reason = "each is in a box already")]
    ended: Vec<Box<Worker<S, D, C>>>,
    /// Counts the turns that were given.
    turns: u64,
    /// The most runners of a host at work.
    most: usize,
    is_stopping: bool,
}

struct Member<S, D, C> {
    place: Place<S, D, C>,
    /// What it was told while it was at work, or before its turn.
    commands: Vec<RunnerCommand>,
    /// Whether it has ever had a twin: what the other one does concerns it.
    has_twin: bool,
}

enum Place<S, D, C> {
    Rest { worker: Box<Worker<S, D, C>>, until: Instant },
    Queue { worker: Box<Worker<S, D, C>>, turn: Turn },
    Work(Box<AtWork<S, D, C>>),
}

/// A runner at work.
struct AtWork<S, D, C> {
    hand: Hand<Work<S, D, C>>,
    /// Its name if a stop unregisters it, as it was when it began.
    leaving: Option<String>,
    /// The entries that the runner answered for when it began.
    target: EntrySelector,
    host: Rc<str>,
    /// Whether it only writes what is in memory alone, and the daemon stops after it.
    is_last: bool,
}

/// The tasks, and what comes back from them.
type WorkHands<S, D, C> = Hands<Work<S, D, C>, Box<Worker<S, D, C>>>;

/// A piece of work on a runner.
enum Work<S, D, C> {
    /// What it was told, or else what is due.
    Due(Box<Worker<S, D, C>>, Vec<RunnerCommand>),
    /// Writes a token that is in memory alone.
    Store(Box<Worker<S, D, C>>),
}

impl<S: Server, D: Disk, C: Clock> Job for Work<S, D, C> {
    type Done = Box<Worker<S, D, C>>;

    async fn work(self) -> Box<Worker<S, D, C>> {
        match self {
            Self::Due(worker, commands) => worker.work(commands).await,
            Self::Store(worker) => worker.store().await,
        }
    }
}

/// A place in a queue: by urgency, and first come, first served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    urgency: Urgency,
    number: u64,
    key: RunnerKey,
}

/// What goes before what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// Something has changed on this machine, or a person asks.
    Told,
    /// A step that changes a token, or writes one, or that the next one waits for.
    Change,
    Verification,
}

/// How the work on a runner has ended.
pub(super) enum Ended<S, D, C> {
    /// It is retired, or the daemon stops.
    Driver(Box<Driver<S, D, C>>),
    /// By a panic, which has been logged.
    Panic(RunnerKey),
}

impl<S: Server, D: Disk, C: Clock> Roster<S, D, C> {
    pub(super) fn new() -> Self {
        Self {
            members: BTreeMap::new(),
            timers: BTreeSet::new(),
            queues: BTreeMap::new(),
            busy: BTreeMap::new(),
            hands: Hands::new(),
            ended: Vec::new(),
            turns: 0,
            most: operations_at_once(),
            is_stopping: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether none is served any more, and none is to be dismissed.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.ended.is_empty()
    }

    /// How many are at work.
    pub(super) fn at_work(&self) -> usize {
        self.hands.at_work()
    }

    pub(super) fn contains(&self, key: &RunnerKey) -> bool {
        self.members.contains_key(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &RunnerKey> {
        self.members.keys()
    }

    /// Takes a worker up.
    pub(super) fn add(&mut self, worker: Worker<S, D, C>, has_twin: bool) {
        self.settle(Box::new(worker), Vec::new(), has_twin);
        self.give_turns();
    }

    /// Tells a runner something, which it does in its turn.
    pub(super) fn tell(&mut self, key: &RunnerKey, command: RunnerCommand) {
        if let Some((key, mut member)) = self.members.remove_entry(key) {
            member.commands.push(command);
            let place = self.moved_up(member.place);
            self.members.insert(key, Member { place, ..member });
            self.give_turns();
        }
    }

    /// Tells each runner something whose entries are concerned.
    pub(super) fn tell_those(&mut self, is_concerned: impl Fn(&EntrySelector) -> bool, command: &RunnerCommand) {
        let concerned = self.members.iter().filter(|(_, member)| is_concerned(&member.target()));
        let keys: Vec<_> = concerned.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.tell(&key, command.clone());
        }
    }

    pub(super) fn tell_all(&mut self, command: &RunnerCommand) {
        self.tell_those(|_| true, command);
    }

    /// Notes that a runner has a twin; returns whether it ever had one.
    pub(super) fn note_twin(&mut self, key: &RunnerKey, has_twin: bool) -> bool {
        self.members.get_mut(key).is_some_and(|member| {
            member.has_twin |= has_twin;
            member.has_twin
        })
    }

    pub(super) fn has_twins(&self) -> bool {
        self.members.values().any(|member| member.has_twin)
    }

    /// The runners that answer for some entries, as far as this is known.
    pub(super) fn keys_of(&self, is_own: impl Fn(&EntrySelector) -> bool) -> Vec<RunnerKey> {
        let own = self.members.iter().filter(|(_, member)| is_own(&member.target()));
        own.map(|(key, _)| key.clone()).collect()
    }

    /// Whether one of the runners answers for an entry, as far as this is known.
    pub(super) fn answers_for(&self, is_own: impl Fn(&EntrySelector) -> bool) -> bool {
        self.members.values().any(|member| is_own(&member.target()))
    }

    /// Waits until the work on a runner ends. Meanwhile it gives each its turn. Cancel safe.
    pub(super) async fn ended(&mut self) -> Ended<S, D, C> {
        loop {
            if let Some(worker) = self.ended.pop() {
                return Ended::Driver(Box::new(worker.into_driver()));
            }
            let due = self.timers.first().map(|(until, _)| *until);
            tokio::select! {
                biased;
                back = self.hands.ended() => {
                    if let Some(ended) = self.take_back(back) {
                        return ended;
                    }
                }
                () = super::supervisor::reached(due) => self.wake(),
            }
        }
    }

    /// The runners that a stop unregisters, as far as this is known: one at work may come to another state.
    pub(super) fn leaving(&self) -> Vec<String> {
        self.members.values().filter_map(Member::leaving).collect()
    }

    /// Gives no more turns. What is at work may finish, and a token that is in memory alone is written; every other runner
    /// ends at once. Told commands are forgotten.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.timers.clear();
        self.queues.clear();
        for (key, member) in std::mem::take(&mut self.members) {
            match member.place {
                Place::Rest { worker, .. } | Place::Queue { worker, .. } => self.finish(worker),
                Place::Work(_) => drop(self.members.insert(key, Member { commands: Vec::new(), ..member })),
            }
        }
    }

    /// The work on a runner has ended.
    fn take_back(&mut self, back: Result<Box<Worker<S, D, C>>, JoinError>) -> Option<Ended<S, D, C>> {
        let key = match &back {
            Ok(worker) => worker.key().clone(),
            Err(error) => self.at_work_in(error.id())?,
        };
        let Member { place: Place::Work(work), commands, has_twin } = self.members.remove(&key)? else { return None };
        let AtWork { hand, host, is_last, .. } = *work;
        if let Some(count) = self.busy.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(&host);
            }
        }
        if back.is_ok() {
            self.hands.release(hand);
        }
        let mut panicked = None;
        match back {
            Err(_) => panicked = Some(Ended::Panic(key)),
            Ok(worker) if is_last => self.ended.push(worker),
            Ok(worker) if self.is_stopping => self.finish(worker),
            Ok(worker) => self.settle(worker, commands, has_twin),
        }
        self.give_turns();
        panicked
    }

    fn at_work_in(&self, task: task::Id) -> Option<RunnerKey> {
        let is_it = |member: &Member<S, D, C>| matches!(&member.place, Place::Work(work) if work.hand.is(task));
        self.members.iter().find(|(_, member)| is_it(member)).map(|(key, _)| key.clone())
    }

    /// Puts a worker to rest until something is due, or into the queue if it is due already or was told something.
    fn settle(&mut self, mut worker: Box<Worker<S, D, C>>, commands: Vec<RunnerCommand>, has_twin: bool) {
        let Some((until, plan)) = worker.rest() else {
            self.ended.push(worker);
            return;
        };
        let key = worker.key().clone();
        let place = if !commands.is_empty() {
            self.queued(worker, Urgency::Told)
        } else if until > Instant::now() {
            self.timers.insert((until, key.clone()));
            Place::Rest { worker, until }
        } else {
            self.queued(worker, urgency_of(plan))
        };
        self.members.insert(key, Member { place, commands, has_twin });
    }

    fn queued(&mut self, worker: Box<Worker<S, D, C>>, urgency: Urgency) -> Place<S, D, C> {
        self.turns += 1;
        let turn = Turn { urgency, number: self.turns, key: worker.key().clone() };
        self.queues.entry(worker.host()).or_default().insert(turn.clone());
        Place::Queue { worker, turn }
    }

    /// Those whose time has come look at the clock, and enter the queue if something is due.
    fn wake(&mut self) {
        let now = Instant::now();
        while self.timers.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, key)) = self.timers.pop_first() else { break };
            if let Some(Member { place: Place::Rest { mut worker, .. }, commands, has_twin }) =
                self.members.remove(&key)
            {
                worker.check_clock();
                self.settle(worker, commands, has_twin);
            }
        }
        self.give_turns();
    }

    /// The place of one that was told something: it waits no longer than those that were told before it.
    fn moved_up(&mut self, place: Place<S, D, C>) -> Place<S, D, C> {
        match place {
            Place::Rest { worker, until } => {
                self.timers.remove(&(until, worker.key().clone()));
                self.queued(worker, Urgency::Told)
            }
            Place::Queue { worker, turn } if turn.urgency > Urgency::Told => {
                if let Some(queue) = self.queues.get_mut(&worker.host()) {
                    queue.remove(&turn);
                }
                self.queued(worker, Urgency::Told)
            }
            Place::Queue { .. } | Place::Work(_) => place,
        }
    }

    /// Lets as many work as may.
    fn give_turns(&mut self) {
        let mut queues = std::mem::take(&mut self.queues);
        for (host, queue) in &mut queues {
            while self.busy.get(host).is_none_or(|count| *count < self.most)
                && let Some(turn) = queue.pop_first()
            {
                let Some(Member { place: Place::Queue { worker, .. }, commands, has_twin }) =
                    self.members.remove(&turn.key)
                else {
                    continue;
                };
                let place = self.begin(worker, false, |worker| Work::Due(worker, commands));
                self.members.insert(turn.key, Member { place, commands: Vec::new(), has_twin });
            }
        }
        queues.retain(|_, queue| !queue.is_empty());
        self.queues = queues;
    }

    /// Ends the work on a runner, after a token that is in memory alone is written.
    fn finish(&mut self, worker: Box<Worker<S, D, C>>) {
        if !worker.has_sole_copy() {
            self.ended.push(worker);
            return;
        }
        let key = worker.key().clone();
        let place = self.begin(worker, true, Work::Store);
        self.members.insert(key, Member { place, commands: Vec::new(), has_twin: false });
    }

    fn begin(
        &mut self,
        worker: Box<Worker<S, D, C>>,
        is_last: bool,
        work: impl FnOnce(Box<Worker<S, D, C>>) -> Work<S, D, C>,
    ) -> Place<S, D, C> {
        let (leaving, target, host) = (worker.leaving(), worker.target(), worker.host());
        *self.busy.entry(Rc::clone(&host)).or_default() += 1;
        let hand = self.hands.begin(work(worker));
        Place::Work(Box::new(AtWork { hand, leaving, target, host, is_last }))
    }
}

impl<S: Server, D: Disk, C: Clock> Member<S, D, C> {
    fn leaving(&self) -> Option<String> {
        match &self.place {
            Place::Rest { worker, .. } | Place::Queue { worker, .. } => worker.leaving(),
            Place::Work(work) => work.leaving.clone(),
        }
    }

    fn target(&self) -> EntrySelector {
        match &self.place {
            Place::Rest { worker, .. } | Place::Queue { worker, .. } => worker.target(),
            Place::Work(work) => work.target.clone(),
        }
    }
}

fn urgency_of(plan: Plan) -> Urgency {
    match plan.step {
        // The next token waits for it.
        Step::Verify if plan.why == Why::SettleLostAnswer => Urgency::Change,
        Step::Verify => Urgency::Verification,
        Step::Register | Step::RegisterAgain | Step::Rotate | Step::ResetById | Step::Save | Step::Unregister => {
            Urgency::Change
        }
    }
}
