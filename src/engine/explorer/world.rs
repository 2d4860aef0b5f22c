//! The world around the agent: its files, GitLab, the clock, and what is watched for.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::act::Act;
use super::agent_log;
use super::gitlab::{Call, Gitlab, GitlabRunner};
use crate::clock::{Clock, Reading};
use crate::daemon::Changed;
use crate::engine::Config;
use crate::model::{Boot, CandidateSource, Credential, Held, RunnerId, RunnerKey, Timestamp};
use crate::ops::memory::KnownEntries;
use crate::secret::Token;
use crate::store::{AskedBy, Entry, EntryToken, JournalOperation, Pending, Record};

/// The wall time at the start of every run, in milliseconds.
pub(super) const START: i64 = 1_800_000_000_000;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) kind: Kind,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The only copy of a token is gone.
    TokenLost,
    /// Something was deleted without an intent in force.
    Deleted,
    /// An enrollment has two runners.
    SecondRunner,
    /// Too many requests.
    TooManyRequests,
    /// A runner that can be served is not.
    NotServed,
    /// A request that changes something was repeated before a verification was answered.
    Repeated,
    /// The daemon has sent an access token that it had rotated.
    DeadAccessToken,
    /// A process has panicked.
    Panic,
}

/// A request.
#[derive(Clone)]
pub(super) struct CallLog {
    pub(super) call: Call,
    /// The number of the runner, or a token that is none's.
    pub(super) about: String,
    pub(super) is_faulted: bool,
    /// What the agent held when it was sent.
    pub(super) files: Files,
}

/// Whether the token that GitLab accepts for a runner is held by config.toml or the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holding {
    /// The agent has never had one.
    Never,
    Held,
    /// GitLab has issued it to a process, since this time.
    Flight {
        process: u64,
        since: i64,
    },
    /// Gone, for a reason that the agent cannot help.
    Excused(Excuse),
    /// Gone, and reported.
    Reported,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excuse {
    /// Someone outside has replaced or removed it.
    Outsider,
    /// No byte of the answer arrived.
    Cut,
    /// The process was killed before it could write it.
    Killed,
    /// A person wanted the entry to go.
    Wanted,
}

/// Who causes a change of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A process of the agent, by a request or on the disk.
    Process(u64),
    /// A write of such a process.
    Write(u64),
    /// A request of a process that GitLab has executed and whose answer is cut.
    CutAnswer(u64),
    /// A person or GitLab.
    Outsider,
    /// A backup is restored.
    Restore,
    /// A process is killed.
    Kill(u64),
    /// A process has ended by itself.
    End(u64),
    /// Time has passed.
    Time,
}

/// What a process may delete.
#[derive(Clone, Debug, Default)]
pub(super) struct Intent {
    /// Runners that may be deleted, or whose manager may be.
    pub(super) runners: BTreeSet<u64>,
    /// Runners whose manager alone may be deleted.
    pub(super) managers: BTreeSet<u64>,
    /// Entries that may be removed although their runner lives on.
    pub(super) names: BTreeSet<String>,
    /// Entries whose runner may be deleted, whichever that is by then.
    pub(super) homes: BTreeSet<String>,
    /// Enrollments that may get a second runner.
    pub(super) makes_anew: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    pub(super) intent: Intent,
    pub(super) is_daemon: bool,
    pub(super) began: i64,
    /// config.toml as it knows it.
    pub(super) known: KnownEntries,
}

/// config.toml and the state directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    pub(super) entries: Vec<Entry>,
    pub(super) records: BTreeMap<RunnerKey, Record>,
    pub(super) held: BTreeMap<RunnerKey, Held>,
    pub(super) journal: BTreeMap<RunnerKey, Pending>,
    /// Tokens of entries whose text is kept.
    pub(super) locks: BTreeSet<RunnerKey>,
    /// Each fails so many times.
    pub(super) failing: BTreeMap<&'static str, u32>,
    pub(super) backup: Vec<Entry>,
}

pub(super) struct State {
    began: tokio::time::Instant,
    booted_at: i64,
    pub(super) wall_offset: i64,
    pub(super) gitlab: Gitlab,
    pub(super) files: Files,
    pub(super) config: Config,
    pub(super) processes: BTreeMap<u64, Process>,
    next_process: u64,
    /// A port stops at the so-manieth await from now.
    armed: Option<u32>,
    pub(super) is_blocked: bool,
    pub(super) holdings: BTreeMap<u64, Holding>,
    /// The runner of every token that was ever issued.
    pub(super) owners: BTreeMap<String, u64>,
    /// Tokens that a person has put into the entries of their runner.
    pub(super) put_tokens: BTreeSet<String>,
    /// Tokens whose runner an answer has named to the agent.
    pub(super) named: BTreeSet<String>,
    /// Processes that an answer has named a runner to.
    pub(super) confirmed: BTreeSet<(u64, u64)>,
    /// How many tokens had been issued when their owners were noted.
    noted: u64,
    /// When tokens expire, and how long they live.
    expiries: BTreeMap<String, (i64, i64)>,
    /// Tokens that the agent's files have ever held.
    ever_held: BTreeSet<String>,
    /// Tokens that the state directory has ever held.
    ever_kept: BTreeSet<String>,
    /// Names whose entry a person had removed while another one goes on with its runner: they are free.
    pub(super) freed: BTreeSet<String>,
    /// The runners that went on with another entry then: they are no longer those of the name's enrollments.
    pub(super) parted: BTreeSet<u64>,
    /// Runners that a person's command has made although there was one of the name.
    pub(super) forced: BTreeSet<u64>,
    /// Runners whose refused entry a person has dropped: a running daemon leaves their enrollment alone, as after an
    /// unregistration.
    pub(super) dropped: BTreeSet<u64>,
    /// The runner that the entry of a name is for.
    pub(super) homes: BTreeMap<String, u64>,
    /// When each token was last asked about.
    requests: BTreeMap<String, VecDeque<i64>>,
    resets: VecDeque<(i64, u64)>,
    pub(super) stimuli: VecDeque<i64>,
    /// Requests that change something and whose answer is none of GitLab's, since the last verification.
    pub(super) unproven: BTreeSet<(&'static str, String)>,
    /// Runners that were just made, and whose first token no file has held yet.
    in_registration: BTreeSet<u64>,
    /// Registrations that GitLab may have executed without an answer, until a person goes on. Without a state directory a
    /// running daemon has that in memory alone.
    pub(super) unanswered_registrations: BTreeSet<String>,
    /// Runners that were made by a registration whose answer was lost, until a person goes on.
    pub(super) lost_registrations: BTreeSet<u64>,
    /// Runners that were made by a registration which something else has answered as not executed: nothing has said that
    /// the enrollment has one, whatever a person then does with their tokens.
    pub(super) unannounced: BTreeSet<u64>,
    /// Resets by id, by runner.
    pub(super) recovered: BTreeSet<u64>,
    pub(super) is_stateless: bool,
    /// Runners that a person has deleted in GitLab.
    pub(super) deleted: BTreeSet<u64>,
    /// Runners that a person had unregistered here: whoever comes next finishes that.
    pub(super) let_go: BTreeSet<u64>,
    /// Tokens of such runners from before: they went with the record, whatever a backup of GitLab's brings back later. One
    /// that is accepted again has been given to the agent anew.
    pub(super) let_go_tokens: BTreeSet<String>,
    /// Runners whose former token a backup brought back before a new one was written.
    pub(super) overtaken: BTreeSet<u64>,
    /// When a person has last put a token into a second entry.
    pub(super) duplicated_at: i64,
    /// Whether a person has removed an id from an entry.
    pub(super) is_id_removed: bool,
    /// Whether no clock has said when a token expires.
    pub(super) is_without_time: bool,
    /// Awaits without any time passing.
    idle_awaits: (i64, u32),
    /// The same of readings of the clock: a loop need not await anything.
    clock_reads: (i64, u32),
    pub(super) last_disk_fault: i64,
    /// The latest `Date` that was ahead of the true time.
    pub(super) latest_wrong_date: i64,
    /// When GitLab was last restored from a backup.
    pub(super) restored_at: i64,
    /// When GitLab has last issued a token.
    last_answer: i64,
    pub(super) last_fault: i64,
    pub(super) violations: Vec<Violation>,
    pub(super) request_count: u64,
    pub(super) trace: Option<Vec<String>>,
    pub(super) log: Option<Vec<CallLog>>,
    /// The settings before the last change, and when that was.
    pub(super) old_config: Option<(i64, Config)>,
    /// Tells the daemon that a file has changed.
    pub(super) watcher: Option<UnboundedSender<Changed>>,
}

/// A handle to the world. Clones share it.
#[derive(Clone)]
pub(super) struct World {
    state: Rc<RefCell<State>>,
    hit: Rc<Notify>,
    reopened: Rc<Notify>,
}

/// A port of one process.
#[derive(Clone)]
pub(super) struct Port {
    pub(super) world: World,
    pub(super) process: u64,
}

impl World {
    pub(super) fn new(life: Option<Duration>, config: Config) -> Self {
        let state = State {
            began: tokio::time::Instant::now(),
            booted_at: START - 3_600_000,
            wall_offset: 0,
            gitlab: Gitlab::new(life.map(|life| life.as_millis() as i64)),
            files: Files::default(),
            config,
            processes: BTreeMap::new(),
            next_process: 1,
            armed: None,
            is_blocked: false,
            holdings: BTreeMap::new(),
            owners: BTreeMap::new(),
            put_tokens: BTreeSet::new(),
            named: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            expiries: BTreeMap::new(),
            noted: 0,
            ever_held: BTreeSet::new(),
            ever_kept: BTreeSet::new(),
            freed: BTreeSet::new(),
            parted: BTreeSet::new(),
            forced: BTreeSet::new(),
            dropped: BTreeSet::new(),
            homes: BTreeMap::new(),
            requests: BTreeMap::new(),
            resets: VecDeque::new(),
            stimuli: VecDeque::new(),
            unproven: BTreeSet::new(),
            in_registration: BTreeSet::new(),
            unanswered_registrations: BTreeSet::new(),
            lost_registrations: BTreeSet::new(),
            unannounced: BTreeSet::new(),
            recovered: BTreeSet::new(),
            is_stateless: false,
            deleted: BTreeSet::new(),
            let_go: BTreeSet::new(),
            let_go_tokens: BTreeSet::new(),
            overtaken: BTreeSet::new(),
            duplicated_at: 0,
            is_id_removed: false,
            is_without_time: false,
            idle_awaits: (0, 0),
            clock_reads: (0, 0),
            last_disk_fault: 0,
            latest_wrong_date: 0,
            restored_at: 0,
            last_answer: 0,
            last_fault: 0,
            violations: Vec::new(),
            request_count: 0,
            trace: None,
            log: None,
            old_config: None,
            watcher: None,
        };
        Self { state: Rc::new(RefCell::new(state)), hit: Rc::default(), reopened: Rc::default() }
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub(super) fn begin_process(&self, is_daemon: bool, intent: Intent) -> Port {
        let mut state = self.state();
        let process = state.next_process;
        state.next_process += 1;
        let began = state.now();
        state.processes.insert(process, Process { intent, is_daemon, began, known: KnownEntries::default() });
        Port { world: self.clone(), process }
    }

    /// A process ends; what it held in memory is gone.
    pub(super) fn end_process(&self, process: u64, is_killed: bool) {
        let mut state = self.state();
        if state.processes.remove(&process).is_some_and(|process| process.is_daemon) {
            state.unanswered_registrations.clear();
        }
        if is_killed {
            state.leave_registrations();
        }
        if state.last_disk_fault > 0 {
            state.leave_unregistrations();
        }
        let cause = if is_killed { Cause::Kill(process) } else { Cause::End(process) };
        state.check(cause);
    }

    /// Lets a port stop at the so-manieth await from now.
    pub(super) fn arm(&self, awaits: u32) {
        self.state().armed = Some(awaits);
    }

    /// Completes once a port has stopped.
    pub(super) async fn blocked(&self) {
        while !self.state.borrow().is_blocked {
            self.hit.notified().await;
        }
    }

    /// Lets it go on.
    pub(super) fn reopen(&self) {
        let mut state = self.state();
        (state.armed, state.is_blocked) = (None, false);
        drop(state);
        self.reopened.notify_waiters();
    }

    /// An await of a port.
    pub(super) async fn pass(&self) {
        if self.is_busy() || !self.state.borrow().violations.is_empty() {
            // It would go on for ever, or has shown enough.
            std::future::pending::<()>().await;
        }
        let is_hit = {
            let mut state = self.state();
            match state.armed.as_mut() {
                Some(left) if *left > 1 => {
                    *left -= 1;
                    false
                }
                Some(_) => {
                    (state.armed, state.is_blocked) = (None, true);
                    true
                }
                None => state.is_blocked,
            }
        };
        if is_hit {
            self.hit.notify_one();
            loop {
                let reopened = self.reopened.notified();
                if !self.state.borrow().is_blocked {
                    break;
                }
                reopened.await;
            }
        }
    }
}

impl World {
    /// Whether a loop goes round and round without any time passing.
    fn is_busy(&self) -> bool {
        let mut state = self.state();
        let now = state.now();
        if state.idle_awaits.0 != now {
            state.idle_awaits = (now, 0);
        }
        state.idle_awaits.1 += 1;
        if state.idle_awaits.1 == MAX_IDLE_AWAITS {
            state.violate(Kind::TooManyRequests, "a process goes round and round without waiting".to_owned());
        }
        state.idle_awaits.1 >= MAX_IDLE_AWAITS
    }
}

/// Awaits of all ports at one moment: far more than any step of any number of runners takes.
const MAX_IDLE_AWAITS: u32 = 3000;

/// Readings of the clock at one moment.
const MAX_CLOCK_READS: u32 = 100_000;

impl Clock for World {
    fn read(&self) -> Reading {
        let mut state = self.state.borrow_mut();
        let now = state.now();
        if state.clock_reads.0 != now {
            state.clock_reads = (now, 0);
        }
        state.clock_reads.1 += 1;
        assert!(state.clock_reads.1 < MAX_CLOCK_READS, "a process goes round and round without waiting");
        let since_boot = Duration::from_millis((now - state.booted_at).unsigned_abs());
        Reading { wall: Timestamp::from_millis(now + state.wall_offset), since_boot }
    }

    fn boot(&self) -> Boot {
        Boot(self.state.borrow().booted_at.unsigned_abs())
    }
}

impl State {
    /// The true time, in milliseconds.
    pub(super) fn now(&self) -> i64 {
        START + self.began.elapsed().as_millis() as i64
    }

    pub(super) fn reboot(&mut self) {
        self.booted_at = self.now() - 20_000;
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now();
        if let Some(trace) = &mut self.trace {
            trace.extend(agent_log::take());
            trace.push(format!("{:>9.3} {}", (now - START) as f64 / 1000.0, text()));
        }
    }

    pub(super) fn note_act(&mut self, act: &Act) {
        let now = self.now();
        self.note(|| format!("{act:?}"));
        self.stimuli.push_back(now);
    }

    /// Whether GitLab has answered every request since then, naming ids, and the disk has failed nothing.
    pub(super) fn is_undisturbed(&self, since: i64) -> bool {
        let Gitlab { lag, down_until, maintenance_until, migrating_until, is_old, .. } = self.gitlab;
        let ends = [self.last_fault, self.last_disk_fault, down_until, maintenance_until, migrating_until];
        !is_old && lag.is_none_or(|(_, until)| until < since) && ends.iter().all(|end| *end < since)
    }

    pub(super) fn violate(&mut self, kind: Kind, text: String) {
        self.note(|| format!("VIOLATION {kind:?}: {text}"));
        self.violations.push(Violation { kind, text });
    }

    /// A registration that was begun and has no answer may have been sent, for all that the next process can see.
    fn leave_registrations(&mut self) {
        let begun = self.files.journal.values().filter(|pending| pending.answer.is_none());
        let names = begun.filter_map(|pending| match &pending.intent.operation {
            JournalOperation::Register { description, .. } => Some(description.clone()),
            JournalOperation::Rotate { .. } | JournalOperation::Unregister { .. } => None,
        });
        self.unproven.extend(names.map(|name| ("registration", name)));
    }

    /// The journal of an unregistration that could not be cleared looks like that of one that was killed: it is finished
    /// once the runner is proven gone, as its person has asked for. What was seen of other runners in its entry goes with
    /// it, and so does what an odd answer has brought.
    fn leave_unregistrations(&mut self) {
        for pending in self.files.journal.values() {
            let JournalOperation::Unregister { id, .. } = &pending.intent.operation else { continue };
            self.let_go.extend(id.map(RunnerId::number));
            let held = self.files.held.get(&pending.key).into_iter().flat_map(|held| &held.candidates);
            let others = held.filter(|candidate| candidate.source != CandidateSource::Former);
            self.let_go.extend(others.filter_map(|candidate| self.owners.get(candidate.token.expose())));
        }
    }

    /// New settings can give a found runner to an enrollment, whose worker begins anew. Without a state directory it does not
    /// know what the former one has seen.
    pub(super) fn forget_unwritten(&mut self) {
        if self.is_stateless {
            self.unproven.retain(|(what, _)| *what != "reset");
        }
    }

    /// Whether a runner that a person had unregistered here is proven gone, and its entry and record go as asked for.
    fn is_finishing_a_commands_work(&self) -> bool {
        self.files.journal.values().any(|pending| {
            matches!(pending.intent.operation, JournalOperation::Unregister { .. })
                && pending.intent.asked_by == Some(AskedBy::Command)
                && pending.answer.is_some()
        })
    }

    /// Whether a backup was restored after the last question about a token, which was asked just now: no answer could say
    /// that the token is good again.
    pub(super) fn is_restored_since_asked(&self, token: &str) -> bool {
        let asked_at = self.requests.get(token).and_then(|requests| requests.back());
        asked_at.is_some_and(|asked_at| *asked_at <= self.restored_at && self.now() - asked_at < JUST_NOW)
    }

    /// The agent has deleted a runner, or its manager, as a person has asked for.
    pub(super) fn let_runner_go(&mut self, process: u64, id: u64) {
        let names = self.processes.get(&process).map(|process| process.intent.names.clone()).unwrap_or_default();
        // So has the runner that the entry or the record had before, if it was deleted: its tokens go with the record.
        let before = names.iter().filter_map(|name| self.homes.get(name)).copied().chain(self.kept_beside(id));
        let before: Vec<u64> = before.filter(|id| !self.gitlab.database.contains_key(id)).collect();
        before.into_iter().for_each(|id| self.let_one_go(id));
        self.let_one_go(id);
    }

    /// The runners whose tokens are kept beside the record of this one.
    fn kept_beside(&self, id: u64) -> BTreeSet<u64> {
        let owner_of = |token: &Token| self.owners.get(token.expose()).copied();
        let is_its = |record: &&Record| record.credential.as_ref().and_then(|it| owner_of(&it.token)) == Some(id);
        let held = self.files.records.values().filter(is_its).filter_map(|record| self.files.held.get(&record.key));
        held.flat_map(|held| &held.candidates).filter_map(|candidate| owner_of(&candidate.token)).collect()
    }

    /// Whether an entry or a record has this token as its own. As a candidate of another runner it is only asked about.
    pub(super) fn serves(&self, token: &str) -> bool {
        let is_it = |credential: &Credential| credential.token.expose() == token;
        self.files.entries.iter().any(|entry| literal(entry) == Some(token))
            || self.files.records.values().any(|record| record.credential.as_ref().is_some_and(is_it))
    }

    /// A person lets a runner go, and with it all tokens that it has had so far.
    pub(super) fn let_one_go(&mut self, id: u64) {
        self.let_go.insert(id);
        let tokens = self.owners.iter().filter(|(_, owner)| **owner == id).map(|(token, _)| token.clone());
        self.let_go_tokens.extend(tokens.collect::<Vec<_>>());
    }

    /// config.toml has changed, which a running daemon hears of.
    pub(super) fn config_changed(&self) {
        if let Some(watcher) = &self.watcher {
            // It may have ended.
            let _ended = watcher.send(Changed { config: true, settings: false });
        }
    }

    pub(super) fn disk_failed(&mut self) {
        self.last_disk_fault = self.now();
        self.last_fault = self.now();
    }

    /// All tokens that config.toml and the state hold.
    pub(super) fn held(&self) -> Vec<&str> {
        let mut held = self.kept();
        held.extend(self.files.entries.iter().filter_map(literal));
        held
    }

    /// All tokens that the state holds.
    fn kept(&self) -> Vec<&str> {
        let mut held = Vec::new();
        for record in self.files.records.values() {
            held.extend(record.credential.iter().map(|credential| credential.token.expose()));
        }
        for kept in self.files.held.values() {
            held.extend(kept.candidates.iter().map(|candidate| candidate.token.expose()));
        }
        for pending in self.files.journal.values() {
            let answer = pending.answer.as_ref().and_then(|answer| answer.token.as_ref());
            held.extend(answer.map(Token::expose));
        }
        held
    }

    /// Compares what GitLab accepts with what the agent holds, after a change.
    pub(super) fn check(&mut self, cause: Cause) {
        let now = self.now();
        // A command works on one runner: what it writes first after an answer is the token in it.
        let (cause, writer) = match cause {
            Cause::Write(process) => (Cause::Process(process), Some(process)),
            cause => (cause, None),
        };
        let writer = writer.filter(|writer| self.processes.get(writer).is_some_and(|process| !process.is_daemon));
        let kept: Vec<_> = self.kept().into_iter().filter(|token| !self.ever_kept.contains(*token)).collect();
        let kept: Vec<_> = kept.into_iter().map(str::to_owned).collect();
        self.ever_kept.extend(kept);
        let held = self.held();
        let is_held: Vec<bool> =
            self.gitlab.database.values().map(|runner| held.contains(&runner.token.as_str())).collect();
        let mut lost = Vec::new();
        for ((id, runner), is_held) in self.gitlab.database.iter().zip(is_held) {
            let before = self.holdings.get(id).copied().unwrap_or(Holding::Never);
            let after = if is_held {
                if cause == Cause::Restore && matches!(before, Holding::Flight { .. }) {
                    self.overtaken.insert(*id);
                }
                if before != Holding::Held || !self.ever_held.contains(&runner.token) {
                    self.ever_held.insert(runner.token.clone());
                }
                Holding::Held
            } else {
                match (before, cause) {
                    (Holding::Held, Cause::Restore)
                        if self.let_go.contains(id) || self.let_go_tokens.contains(&runner.token) =>
                    {
                        Holding::Excused(Excuse::Wanted)
                    }
                    // Without a state directory there is no place for it. GitLab does not accept one that has expired meanwhile.
                    (Holding::Held, Cause::Restore)
                        if self.ever_kept.contains(&runner.token)
                            && !self.is_stateless
                            && runner.expires_at.is_none_or(|at| at >= now) =>
                    {
                        lost.push((*id, "a backup was restored, and a token that it accepts was thrown away"));
                        Holding::Reported
                    }
                    (_, Cause::Outsider | Cause::Restore) if before != Holding::Never => {
                        Holding::Excused(Excuse::Outsider)
                    }
                    // It is this change that took it, or made the runner.
                    (Holding::Held, Cause::CutAnswer(_)) => Holding::Excused(Excuse::Cut),
                    // Of several that were made at one moment, the last one is that of this answer.
                    (Holding::Flight { process, since }, Cause::CutAnswer(cut))
                        if process == cut && since == now && self.gitlab.database.keys().next_back() == Some(id) =>
                    {
                        Holding::Excused(Excuse::Cut)
                    }
                    (Holding::Held, Cause::Process(process)) => {
                        let intent = self.processes.get(&process).map(|process| &process.intent);
                        if self.ever_held.contains(&runner.token) {
                            let is_dead = runner.expires_at.is_some_and(|at| at < now);
                            // Without a state directory, what a person has moved between entries is kept nowhere else.
                            let is_moved = self.is_stateless && self.duplicated_at > 0;
                            // Neither is one that is good again since the answer with the token that replaces it.
                            let is_overtaken = self.is_stateless && self.overtaken.contains(id);
                            // A person had put it into the entry of another runner and has taken it out again: what was
                            // seen of it goes with that runner, which a person's command unregisters.
                            let is_passed = self.duplicated_at > 0 && intent.is_some_and(|it| !it.names.is_empty());
                            // So does what was seen by a command whose journal could not be cleared: whoever comes next
                            // finishes that.
                            let is_passed = is_passed || self.duplicated_at > 0 && self.is_finishing_a_commands_work();
                            // A record of its own would have it.
                            let is_known = |record: &Record| record.confirmed_id.map(RunnerId::number) == Some(*id);
                            let is_passed = is_passed && !self.files.records.values().any(is_known);
                            // No clock says how old a token is that was replaced long ago.
                            let is_ageless = self.is_without_time
                                && self.duplicated_at > 0
                                && self.ever_kept.contains(&runner.token);
                            if is_dead
                                || is_ageless
                                || is_moved
                                || is_overtaken
                                || is_passed
                                || self.let_go.contains(id)
                                || intent.is_some_and(|intent| intent.runners.contains(id))
                            {
                                Holding::Excused(Excuse::Wanted)
                            } else {
                                lost.push((*id, "the only copy was written over"));
                                Holding::Reported
                            }
                        } else {
                            Holding::Flight { process, since: now }
                        }
                    }
                    (Holding::Flight { process, .. }, _)
                        if writer == Some(process) && !self.is_stateless && self.last_disk_fault < self.last_answer =>
                    {
                        lost.push((*id, "something else was written before the token of an answer"));
                        Holding::Reported
                    }
                    (Holding::Flight { process, .. }, Cause::Kill(killed)) if process == killed => {
                        Holding::Excused(Excuse::Killed)
                    }
                    // Without a state directory a command tries for a while, and then says that the token is lost.
                    (Holding::Flight { process, since }, Cause::End(ended))
                        if process == ended && self.is_stateless && self.last_fault >= since =>
                    {
                        Holding::Excused(Excuse::Killed)
                    }
                    (Holding::Flight { process, .. }, Cause::End(ended)) if process == ended => {
                        lost.push((*id, "the process has ended, and the token of its request is nowhere"));
                        Holding::Reported
                    }
                    (Holding::Flight { since, .. }, Cause::Time) if now - since.max(self.last_disk_fault) > 900_000 => {
                        lost.push((*id, "the token of an answer was thrown away"));
                        Holding::Reported
                    }
                    (Holding::Held, _) => {
                        lost.push((*id, "the token is gone"));
                        Holding::Reported
                    }
                    (before, _) => before,
                }
            };
            match after {
                Holding::Held => drop(self.in_registration.remove(id)),
                Holding::Excused(Excuse::Cut | Excuse::Killed) if self.in_registration.remove(id) => {
                    self.lost_registrations.insert(*id);
                }
                _ => {}
            }
            self.holdings.insert(*id, after);
        }
        for (id, how) in lost {
            self.violate(Kind::TokenLost, format!("runner {id}: {how}"));
        }
    }

    /// GitLab has issued a token for a runner that it has made, to a process.
    pub(super) fn made(&mut self, id: u64, process: u64) {
        let since = self.now();
        self.holdings.insert(id, Holding::Flight { process, since });
        self.in_registration.insert(id);
    }

    /// A person goes on after lost registrations: of one entry name, or of all. What they have left in GitLab is the
    /// person's to delete.
    pub(super) fn forget_lost_registrations(&mut self, name: Option<&str>) {
        if name.is_none() {
            // What a daemon without a state directory has in memory, a command beside it does not change.
            self.unanswered_registrations.clear();
        }
        let database = &self.gitlab.database;
        let is_forgotten = |id: &u64| {
            // One that a person has deleted in GitLab meanwhile may come back with a backup.
            let is_of_name = |runner: &GitlabRunner| runner.made_for.as_deref().map(entry_name) == name;
            name.is_none() || database.get(id).is_none_or(is_of_name)
        };
        let (forgotten, rest) = std::mem::take(&mut self.lost_registrations).into_iter().partition(is_forgotten);
        self.lost_registrations = rest;
        self.let_go.extend::<BTreeSet<u64>>(forgotten);
    }

    /// Notes the owner of every token, and its life.
    pub(super) fn note_owners(&mut self) {
        if std::mem::replace(&mut self.noted, self.gitlab.issued) == self.gitlab.issued {
            return;
        }
        self.last_answer = self.now();
        let tokens = self.gitlab.database.iter().map(|(id, runner)| (runner.token.clone(), *id));
        self.owners.extend(tokens.collect::<Vec<_>>());
        let life = self.gitlab.life.unwrap_or_default();
        for runner in self.gitlab.database.values() {
            if let Some(expires_at) = runner.expires_at {
                self.expiries.entry(runner.token.clone()).or_insert((expires_at, life));
            }
        }
    }

    /// Whether a token is in the last eighth of its life, by any of the clocks that the agent may go by.
    pub(super) fn is_pressing(&self, token: &str) -> bool {
        let latest = self.now() + self.wall_offset.max(self.gitlab.date_offset).max(0);
        let earliest = self.now() + self.wall_offset.min(self.gitlab.date_offset).min(0);
        // A person who puts another runner's token into an entry can leave the time there at which the former one was made.
        let entries = self.files.entries.iter().filter(|entry| literal(entry) == Some(token));
        let oldest = entries.filter_map(|entry| entry.obtained_at).map(Timestamp::as_millis).min();
        let is_in_it = |(expires_at, life): &(i64, i64)| {
            let life = oldest.map_or(*life, |oldest| (expires_at - oldest).max(*life));
            expires_at - latest <= life / 8 + 2000 && *expires_at > earliest
        };
        self.expiries.get(token).is_some_and(is_in_it)
    }

    /// Counts a request, and checks that there are not too many in an hour.
    pub(super) fn count(&mut self, call: &str, about: &str) {
        let now = self.now();
        self.request_count += 1;
        while self.stimuli.front().is_some_and(|at| now - at > 3_600_000) {
            self.stimuli.pop_front();
        }
        let requests = self.requests.entry(about.to_owned()).or_default();
        while requests.front().is_some_and(|at| now - at > 3_600_000) {
            requests.pop_front();
        }
        requests.push_back(now);
        let (count, mut limit) = (requests.len(), MAX_REQUESTS + MAX_REQUESTS_PER_STIMULUS * self.stimuli.len());
        if count > limit {
            // Each runner that knows a token may ask about it.
            limit *= self.files.records.keys().filter(|key| self.knows(key, about)).count().max(1);
        }
        if count > limit {
            self.requests.clear();
            self.violate(
                Kind::TooManyRequests,
                format!("{count} requests about {about} in an hour, more than {limit}; the last is {call}"),
            );
        }
    }

    pub(super) fn knows(&self, key: &RunnerKey, token: &str) -> bool {
        let current = self.files.records.get(key).and_then(|record| record.credential.as_ref());
        let held = self.files.held.get(key);
        current.is_some_and(|credential| credential.token.expose() == token)
            || held.is_some_and(|held| held.candidates.iter().any(|candidate| candidate.token.expose() == token))
    }

    /// Counts a reset of the daemon's.
    pub(super) fn count_reset(&mut self, id: u64) {
        let now = self.now();
        while self.resets.front().is_some_and(|(at, _)| now - at > 3_600_000) {
            self.resets.pop_front();
        }
        self.resets.push_back((now, id));
        let count = self.resets.iter().filter(|(_, other)| *other == id).count();
        if count > MAX_RESETS {
            self.resets.clear();
            self.violate(Kind::TooManyRequests, format!("runner {id} was reset {count} times in an hour"));
        }
    }
}

/// Requests with one token in an hour, without anything from outside: a backoff that ends at five minutes makes 20, and
/// each new beginning of it eight more. In the last hour of a token's life it is asked for again after an eighth of what
/// is left, at least two seconds: 50 times, each time twice.
const MAX_REQUESTS: usize = 110;

/// What one act from outside can add: a nudge, its confirmation, and the beginning of a backoff.
const MAX_REQUESTS_PER_STIMULUS: usize = 12;

/// How long a registration may take that follows a question about the former token, in milliseconds: it asks first whether
/// a GitLab answers, and may wait for another process.
const JUST_NOW: i64 = 120_000;

/// Resets of one runner by the daemon in an hour: one in ten minutes, and those after a restart.
const MAX_RESETS: usize = 8;

/// The name of the entry that a runner of this description is for.
pub(super) fn entry_name(description: &str) -> &str {
    if description == "other" { "build-1" } else { description }
}

/// The token that an entry writes out.
pub(super) fn literal(entry: &Entry) -> Option<&str> {
    match &entry.token {
        EntryToken::Literal(token) | EntryToken::Padded(token) => Some(token.expose()),
        EntryToken::Absent | EntryToken::Placeholder | EntryToken::Variable { .. } | EntryToken::Unusable(_) => None,
    }
}
