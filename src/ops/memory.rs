//! A GitLab and a disk in memory, for tests of the operations and the daemon.
//!
//! Both answer at once, so a paused clock only advances while all tasks sleep.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{
    AccessToken, Deletion, Disk, Enrollment, EntryFate, Failure, Identity, Inquiry, RegistrationSource, Server,
    UnregisterRequest,
};
use crate::clock::{Clock, Reading};
use crate::files::Exposure;
use crate::gitlab::fleet::{Manager, NewRunner};
use crate::gitlab::{Answer, Disposition, Info, Reason, RegisterParameters, Registered, Reset, Shape, Verified};
use crate::lifecycle::Timing;
use crate::model::{
    Boot, Credential, Expiry, Held, RunnerId, RunnerKey, ServerUrl, Site, Stamp, SystemId, Timestamp, TlsFiles,
};
use crate::secret::{Digest, Fingerprint, Source, Token};
use crate::store::{
    self, AskedBy, Edit, Edited, Entry, EntrySelector, EntryText, EntryToken, Intent, JournalAnswer, JournalOperation,
    NewEntry, Pending, Record, RecordQuery, Records, Snapshot, Urgency,
};

/// The wall time at the start of every test, in milliseconds.
pub(crate) const START: i64 = 1_800_000_000_000;

/// A clock that follows tokio's clock, also if that is paused or advanced.
#[derive(Clone, Debug)]
pub(crate) struct TokioClock {
    began: tokio::time::Instant,
    /// Milliseconds by which the wall clock is ahead of the true time.
    pub(crate) offset_millis: Rc<RefCell<i64>>,
}

impl TokioClock {
    pub(crate) fn new() -> Self {
        Self { began: tokio::time::Instant::now(), offset_millis: Rc::default() }
    }

    /// The true time, as on the server.
    pub(crate) fn truth(&self) -> Timestamp {
        Timestamp::from_millis(START).plus(self.began.elapsed())
    }
}

impl Clock for TokioClock {
    fn boot(&self) -> Boot {
        Boot(1)
    }

    fn read(&self) -> Reading {
        let wall = Timestamp::from_millis(self.truth().as_millis() + *self.offset_millis.borrow());
        Reading { wall, since_boot: Duration::from_secs(3600) + self.began.elapsed() }
    }
}

/// A fault of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Fails without executing the request.
    Fail(Disposition),
    /// Executes the request and loses the answer.
    LoseAnswer,
    /// Answers a reset with the old token.
    SameToken,
    /// Executes a registration or reset, and answers in another shape than GitLab.
    OddAnswer,
    /// Does not execute a registration or reset, and answers it with a token of its own.
    InventedToken,
    /// Never answers a deletion.
    Hang,
    /// Panics in the middle of a request.
    Panic,
    /// Takes this long for an answer.
    AnswerAfter(Duration),
}

/// A received request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) at: Timestamp,
    pub(crate) call: &'static str,
    pub(crate) token: Fingerprint,
}

#[derive(Clone, Debug)]
pub(crate) struct ServedRunner {
    pub(crate) token: Token,
    pub(crate) expiry: Expiry,
    /// The time of the last contact by system id.
    pub(crate) managers: BTreeMap<String, Timestamp>,
}

/// A GitLab in memory.
#[derive(Clone)]
pub(crate) struct MemoryServer(Rc<RefCell<ServerState>>);

struct ServerState {
    clock: TokioClock,
    registration_token: Token,
    life: Option<Duration>,
    /// By how much the `Date` of its answers is ahead of its own time; negative if it is behind.
    date_off_millis: i64,
    /// Whether verifications are answered without an id, as before GitLab 15.9.
    names_no_ids: bool,
    runners: BTreeMap<u64, ServedRunner>,
    issued: u64,
    faults: BTreeMap<&'static str, VecDeque<Fault>>,
    standing_faults: BTreeMap<&'static str, Fault>,
    /// Tokens about which no verification is answered.
    unanswered: BTreeSet<Fingerprint>,
    /// What is odd about the answer to the present request.
    oddity: Option<Fault>,
    requests: Vec<Request>,
}

pub(crate) fn registration_token() -> Token {
    Token::parse("GR1348941registration").unwrap()
}

impl MemoryServer {
    pub(crate) fn new(clock: TokioClock, life: Option<Duration>) -> Self {
        Self(Rc::new(RefCell::new(ServerState {
            clock,
            registration_token: registration_token(),
            life,
            date_off_millis: 0,
            names_no_ids: false,
            runners: BTreeMap::new(),
            issued: 0,
            faults: BTreeMap::new(),
            standing_faults: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            oddity: None,
            requests: Vec::new(),
        })))
    }

    /// Creates a runner, as in the UI.
    pub(crate) fn add_runner(&self) -> (RunnerId, Credential) {
        let mut state = self.0.borrow_mut();
        let (id, reset) = state.create_runner();
        let obtained_at = Some(state.clock.truth());
        (id, Credential { token: reset.token, obtained_at, expiry: reset.expiry })
    }

    /// Puts the `Date` of all answers ahead of the server's own time, as a proxy does whose clock is wrong.
    pub(crate) fn put_date_ahead(&self, ahead: Duration) {
        self.put_date_off(i64::try_from(ahead.as_millis()).unwrap());
    }

    /// As [`MemoryServer::put_date_ahead`], or behind, in milliseconds.
    pub(crate) fn put_date_off(&self, millis: i64) {
        self.0.borrow_mut().date_off_millis = millis;
    }

    /// Leaves the id out of the answers to verifications.
    pub(crate) fn name_no_ids(&self) {
        self.0.borrow_mut().names_no_ids = true;
    }

    /// Records a contact of another machine that uses the runner's token.
    pub(crate) fn contact_from(&self, id: RunnerId, system_id: &str, at: Timestamp) {
        let mut state = self.0.borrow_mut();
        let runner = state.runners.get_mut(&id.number()).unwrap();
        runner.managers.insert(system_id.to_owned(), at);
    }

    /// Restores the runner from a backup: a former token is the current one again.
    pub(crate) fn restore(&self, id: RunnerId, credential: &Credential) {
        let mut state = self.0.borrow_mut();
        let runner = state.runners.get_mut(&id.number()).unwrap();
        (runner.token, runner.expiry) = (credential.token.clone(), credential.expiry);
    }

    pub(crate) fn remove_runner(&self, id: RunnerId) {
        self.0.borrow_mut().runners.remove(&id.number());
    }

    /// Injects a fault into the next request of a call.
    pub(crate) fn inject(&self, call: &'static str, fault: Fault) {
        self.0.borrow_mut().faults.entry(call).or_default().push_back(fault);
    }

    /// Injects a fault into every request of a call; `None` ends it.
    pub(crate) fn inject_always(&self, call: &'static str, fault: Option<Fault>) {
        let mut state = self.0.borrow_mut();
        match fault {
            Some(fault) => state.standing_faults.insert(call, fault),
            None => state.standing_faults.remove(call),
        };
    }

    /// Answers no verification of this token, as a firewall that blocks it.
    pub(crate) fn block(&self, token: &Token) {
        self.0.borrow_mut().unanswered.insert(token.fingerprint());
    }

    pub(crate) fn runners(&self) -> BTreeMap<u64, ServedRunner> {
        self.0.borrow().runners.clone()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.0.borrow().requests.clone()
    }

    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.requests().iter().map(|request| request.call).collect()
    }

    /// Waits until a call is answered.
    async fn until_answered(&self, call: &'static str) {
        let fault = self.0.borrow().standing_faults.get(call).copied();
        if let Some(Fault::AnswerAfter(delay)) = fault {
            tokio::time::sleep(delay).await;
        }
    }

    /// Handles a call: logs it, applies a fault or executes it, and answers with the server's date.
    fn call<T>(
        &self,
        call: &'static str,
        token: &Token,
        act: impl FnOnce(&mut ServerState) -> Result<T, Disposition>,
    ) -> Result<Answer<T>, Failure> {
        let mut state = self.0.borrow_mut();
        let now = state.clock.truth();
        state.requests.push(Request { at: now, call, token: token.fingerprint() });
        let once = state.faults.get_mut(call).and_then(VecDeque::pop_front);
        let fault = once.or_else(|| state.standing_faults.get(call).copied());
        match fault {
            Some(Fault::Fail(disposition)) => Err(failure(disposition, None)),
            Some(Fault::LoseAnswer) => {
                let _lost = act(&mut state);
                Err(failure(Disposition::Unknown { retry_after: None }, None))
            }
            Some(Fault::Panic) => panic!("injected"),
            _ => {
                state.oddity = fault.filter(|fault| matches!(fault, Fault::OddAnswer | Fault::InventedToken));
                let answer = act(&mut state);
                state.oddity = None;
                let date = Some(Timestamp::from_millis(now.as_millis() + state.date_off_millis));
                match answer {
                    Ok(value) => Ok(Answer { value, date, request_id: String::new() }),
                    Err(disposition) => Err(failure(disposition, date)),
                }
            }
        }
    }
}

fn failure(disposition: Disposition, date: Option<Timestamp>) -> Failure {
    Failure { date, ..Failure::of(disposition, "injected") }
}

impl ServerState {
    fn create_runner(&mut self) -> (RunnerId, Reset) {
        self.issued += 1;
        let id = self.runners.len() as u64 + self.issued * 100;
        let reset = self.issue_token();
        let runner = ServedRunner { token: reset.token.clone(), expiry: reset.expiry, managers: BTreeMap::new() };
        self.runners.insert(id, runner);
        (RunnerId::try_new(id).unwrap(), reset)
    }

    fn shape(&self) -> Shape {
        if self.oddity.is_some() { Shape::Odd("its expiry is unreadable") } else { Shape::Documented }
    }

    fn issue_token(&mut self) -> Reset {
        self.issued += 1;
        let expiry = self.life.map_or(Expiry::Never, |life| Expiry::At(self.clock.truth().plus(life)));
        let token = Token::parse(&format!("glrtr-token{:06}", self.issued)).unwrap();
        Reset { token, expiry, shape: self.shape() }
    }

    fn find(&mut self, token: &Token) -> Result<(u64, &mut ServedRunner), Disposition> {
        let now = self.clock.truth();
        self.runners
            .iter_mut()
            .find(|(_, runner)| runner.token == *token && runner.expiry.at().is_none_or(|at| at > now))
            .map(|(id, runner)| (*id, runner))
            .ok_or(Disposition::Refused)
    }
}

impl Server for MemoryServer {
    async fn register(
        &self,
        _site: &Site,
        token: &Token,
        _parameters: &RegisterParameters,
    ) -> Result<Answer<Registered>, Failure> {
        let answer = self.call("register", token, |state| {
            if state.registration_token != *token {
                return Err(Disposition::MustAct(Reason::RegistrationRefused));
            }
            if state.oddity == Some(Fault::InventedToken) {
                let token = Token::parse("glrt-of-a-gateway").unwrap();
                return Ok(Registered { id: None, token, expiry: Expiry::Unknown, shape: Shape::Odd("invented") });
            }
            let (id, Reset { token, expiry, .. }) = state.create_runner();
            Ok(Registered { id: Some(id), token, expiry, shape: state.shape() })
        });
        self.until_answered("register").await;
        answer
    }

    async fn create(
        &self,
        _url: &ServerUrl,
        access: &AccessToken,
        _new: &NewRunner,
    ) -> Result<Answer<Registered>, Failure> {
        self.call("create", &access.token, |state| {
            let (id, Reset { token, expiry, .. }) = state.create_runner();
            Ok(Registered { id: Some(id), token, expiry, shape: Shape::Documented })
        })
    }

    async fn register_v1(
        &self,
        _site: &Site,
        token: &Token,
        _parameters: &RegisterParameters,
    ) -> Result<Answer<Registered>, Failure> {
        self.call("register_v1", token, |state| {
            if state.registration_token != *token {
                return Err(Disposition::MustAct(Reason::RegistrationRefused));
            }
            let (id, Reset { token, .. }) = state.create_runner();
            Ok(Registered { id: Some(id), token, expiry: Expiry::Unknown, shape: Shape::Documented })
        })
    }

    async fn delete_v1(&self, _site: &Site, token: &Token) -> Result<Answer<()>, Failure> {
        self.call("delete_v1", token, |state| {
            let (id, _) = state.find(token)?;
            state.runners.remove(&id);
            Ok(())
        })
    }

    async fn verify(
        &self,
        _site: &Site,
        token: &Token,
        system_id: &SystemId,
        _info: Option<&Info>,
    ) -> Result<Answer<Verified>, Failure> {
        self.until_answered("verify").await;
        self.call("verify", token, |state| {
            let (now, is_named) = (state.clock.truth(), !state.names_no_ids);
            if state.unanswered.contains(&token.fingerprint()) {
                return Err(Disposition::NotExecuted { retry_after: None });
            }
            let (id, runner) = state.find(token)?;
            runner.managers.insert(system_id.to_string(), now);
            let id = RunnerId::try_new(id).ok().filter(|_| is_named);
            Ok(Verified { id, expiry: runner.expiry, legacy: false })
        })
    }

    async fn probe(&self, _site: &Site) -> Result<Answer<()>, Failure> {
        self.call("probe", &registration_token(), |_| Ok(()))
    }

    async fn delete_runner(&self, _site: &Site, token: &Token) -> Result<Answer<()>, Failure> {
        if self.0.borrow().standing_faults.get("delete_runner") == Some(&Fault::Hang) {
            std::future::pending::<()>().await;
        }
        self.call("delete_runner", token, |state| {
            let (id, _) = state.find(token)?;
            state.runners.remove(&id);
            Ok(())
        })
    }

    async fn delete_manager(&self, _site: &Site, token: &Token, system_id: &SystemId) -> Result<Answer<()>, Failure> {
        self.call("delete_manager", token, |state| {
            let (_, runner) = state.find(token)?;
            runner.managers.remove(system_id.as_str()).map(drop).ok_or(Disposition::Gone)
        })
    }

    async fn reset(&self, _site: &Site, token: &Token, _system_id: &SystemId) -> Result<Answer<Reset>, Failure> {
        let same = self.0.borrow().standing_faults.get("reset") == Some(&Fault::SameToken);
        let answer = self.call("reset", token, |state| {
            if state.oddity == Some(Fault::InventedToken) {
                let token = Token::parse("glrt-of-a-gateway").unwrap();
                return Ok(Reset { token, expiry: Expiry::Unknown, shape: Shape::Odd("invented") });
            }
            let (id, runner) = state.find(token)?;
            if same {
                return Ok(Reset { token: runner.token.clone(), expiry: runner.expiry, shape: Shape::Documented });
            }
            let reset = state.issue_token();
            if let Some(runner) = state.runners.get_mut(&id) {
                runner.token = reset.token.clone();
                runner.expiry = reset.expiry;
            }
            Ok(reset)
        });
        self.until_answered("reset").await;
        answer
    }

    async fn reset_by_id(
        &self,
        _url: &ServerUrl,
        id: RunnerId,
        access: &AccessToken,
    ) -> Result<Answer<Reset>, Failure> {
        self.call("reset_by_id", &access.token, |state| {
            if !state.runners.contains_key(&id.number()) {
                return Err(Disposition::Gone);
            }
            let reset = state.issue_token();
            if let Some(runner) = state.runners.get_mut(&id.number()) {
                runner.token = reset.token.clone();
                runner.expiry = reset.expiry;
            }
            Ok(reset)
        })
    }

    async fn description(
        &self,
        _url: &ServerUrl,
        id: RunnerId,
        access: &AccessToken,
    ) -> Result<Answer<Option<String>>, Failure> {
        self.call("description", &access.token, |state| {
            state.runners.get(&id.number()).map(|_| None).ok_or(Disposition::Gone)
        })
    }

    async fn managers(
        &self,
        _url: &ServerUrl,
        id: RunnerId,
        access: &AccessToken,
    ) -> Result<Answer<Vec<Manager>>, Failure> {
        self.until_answered("managers").await;
        self.call("managers", &access.token, |state| {
            let runner = state.runners.get(&id.number()).ok_or(Disposition::Gone)?;
            Ok(runner.managers.iter().map(|(system_id, contacted_at)| manager(system_id, *contacted_at)).collect())
        })
    }
}

fn manager(system_id: &str, contacted_at: Timestamp) -> Manager {
    let json = serde_json::json!({"id": 1, "system_id": system_id, "contacted_at": contacted_at.to_string()});
    serde_json::from_value(json).unwrap()
}

/// A disk in memory.
#[derive(Clone, Default)]
pub(crate) struct MemoryDisk(Rc<RefCell<DiskState>>);

/// The entries of config.toml as a process has last read or written them.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownEntries {
    entries: Vec<Entry>,
    found: u64,
}

impl KnownEntries {
    /// The process reads; returns how many versions it has found, as in a [`Snapshot`].
    pub(crate) fn read(&mut self, entries: &[Entry]) -> u64 {
        self.found += u64::from(self.entries != entries);
        self.written(entries);
        self.found
    }

    /// The process has read before it wrote these.
    pub(crate) fn written(&mut self, entries: &[Entry]) {
        entries.clone_into(&mut self.entries);
    }
}

/// The entries of config.toml, which version of them it is, and how another user could have written them.
type Content = (Vec<Entry>, u64, Option<Exposure>);

#[derive(Default)]
pub(crate) struct DiskState {
    pub(crate) entries: Vec<Entry>,
    /// They as the agent knows them.
    pub(crate) known: KnownEntries,
    /// How another user could have written config.toml.
    pub(crate) exposure: Option<Exposure>,
    pub(crate) records: BTreeMap<RunnerKey, Record>,
    pub(crate) held: BTreeMap<RunnerKey, Held>,
    pub(crate) journal: BTreeMap<RunnerKey, Pending>,
    /// Whether there is no state directory: records, journals and candidates are neither read nor kept.
    pub(crate) is_stateless: bool,
    /// Whether config.toml is a mount point that another process keeps locked.
    pub(crate) is_kept_locked: bool,
    /// The runners that another process has locked.
    pub(crate) locked: BTreeSet<RunnerKey>,
    /// The runners whose candidates cannot be read.
    pub(crate) damaged_held: BTreeSet<RunnerKey>,
    /// The runners whose records cannot be read.
    pub(crate) damaged_records: BTreeSet<RunnerKey>,
    /// The version of config.toml that was read last, and what it was made of.
    pub(crate) current: Option<(Content, Arc<Snapshot>)>,
    /// All versions that were read.
    pub(crate) versions: Vec<Weak<Snapshot>>,
    /// How often each record was read.
    pub(crate) record_reads: BTreeMap<RunnerKey, usize>,
    /// All writes, in order.
    pub(crate) effects: Vec<&'static str>,
    /// What hangs, as on an unreachable network disk: `read` or `record`.
    pub(crate) stuck_at: Option<&'static str>,
    /// The number of writes before all others fail; `None` for no limit.
    pub(crate) writes_left: Option<u32>,
    /// The remaining failures of each write.
    pub(crate) failing: BTreeMap<&'static str, u32>,
}

impl MemoryDisk {
    pub(crate) fn state(&self) -> std::cell::RefMut<'_, DiskState> {
        self.0.borrow_mut()
    }

    /// Makes a write, or the reading of what is kept beside a record (`read held`), fail a number of times.
    pub(crate) fn fail(&self, effect: &'static str, times: u32) {
        self.state().failing.insert(effect, times);
    }

    pub(crate) fn add_entry(&self, name: &str, id: Option<RunnerId>, credential: &Credential) {
        let mut state = self.state();
        let position = state.entries.len();
        state.entries.push(entry(name, id, credential, position));
    }

    /// The tokens in config.toml, in order.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.state().entries.iter().filter_map(|entry| entry.token.token().cloned()).collect()
    }

    fn effect(&self, effect: &'static str) -> Result<std::cell::RefMut<'_, DiskState>, store::Error> {
        let mut state = self.state();
        state.effects.push(effect);
        match &mut state.writes_left {
            Some(0) => return Err(store::Error::Stopped),
            Some(left) => *left -= 1,
            None => {}
        }
        if let Some(times) = state.failing.get_mut(effect).filter(|times| **times > 0) {
            *times -= 1;
            return Err(store::Error::Stopped);
        }
        Ok(state)
    }
}

pub(crate) fn url() -> ServerUrl {
    "https://gitlab.example.com".parse().unwrap()
}

fn entry(name: &str, id: Option<RunnerId>, credential: &Credential, position: usize) -> Entry {
    Entry {
        position,
        line: position * 10 + 1,
        name: Some(name.to_owned()),
        url: Some(url()),
        id,
        token: EntryToken::Literal(credential.token.clone()),
        obtained_at: credential.obtained_at,
        expiry: credential.expiry,
        executor: None,
        tls: TlsFiles::default(),
        rotation_disabled: false,
        problems: Vec::new(),
    }
}

fn selector(url: ServerUrl, id: Option<RunnerId>, token: &Token) -> EntrySelector {
    EntrySelector { url, id, digests: vec![token.digest()], name: None }
}

fn text_of(entry: &Entry) -> EntryText {
    let name = entry.name.clone().unwrap_or_default();
    EntryText::parse(&format!("[[runners]]\nname = \"{name}\"\nurl = \"{}\"\n", url())).unwrap()
}

fn renew(
    state: &mut DiskState,
    target: &EntrySelector,
    id: Option<RunnerId>,
    credential: &Credential,
    over: &[Digest],
) -> usize {
    let may_overwrite = |entry: &Entry| {
        entry.token.token().is_none_or(|token| {
            let digest = token.digest();
            *token == credential.token || target.digests.contains(&digest) || over.contains(&digest)
        })
    };
    let mut renewed = 0;
    let own = state.entries.iter_mut().filter(|entry| target.matches(entry) && may_overwrite(entry));
    for entry in own {
        entry.token = EntryToken::Literal(credential.token.clone());
        set_times(entry, credential);
        entry.id = id.or(entry.id);
        renewed += 1;
    }
    renewed
}

/// As the file gets them: a credential of unknown issue leaves the entry's times.
fn set_times(entry: &mut Entry, credential: &Credential) {
    if credential.obtained_at.is_some() {
        (entry.obtained_at, entry.expiry) = (credential.obtained_at, credential.expiry);
    }
}

/// Completes the prepared entry of this name and instance; returns whether there is one.
fn complete(state: &mut DiskState, name: &str, url: &ServerUrl, id: Option<RunnerId>, credential: &Credential) -> bool {
    let is_prepared = |entry: &&mut Entry| {
        entry.is_incomplete() && entry.url.as_ref() == Some(url) && entry.name.as_deref() == Some(name)
    };
    let Some(prepared) = state.entries.iter_mut().find(is_prepared) else { return false };
    prepared.problems.retain(|problem| !problem.is_fatal());
    prepared.token = EntryToken::Literal(credential.token.clone());
    set_times(prepared, credential);
    prepared.id = id.or(prepared.id);
    true
}

impl MemoryDisk {
    /// Never returns if this hangs.
    async fn pass(&self, effect: &'static str) {
        if self.state().stuck_at == Some(effect) {
            std::future::pending::<()>().await;
        }
    }
}

impl Disk for MemoryDisk {
    type RunnerLock = ();

    fn has_state(&self) -> bool {
        !self.state().is_stateless
    }

    async fn lock_runner(&self, key: &RunnerKey, wait: Duration) -> Result<(), store::Error> {
        let until = tokio::time::Instant::now() + wait;
        while self.state().locked.contains(key) {
            if tokio::time::Instant::now() >= until {
                return Err(store::Error::RunnerLocked { key: key.clone(), holder: None });
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    }

    async fn read(&self) -> Result<Arc<Snapshot>, store::Error> {
        self.pass("read").await;
        let mut state = self.state();
        if let Some(times) = state.failing.get_mut("read by a panic").filter(|times| **times > 0) {
            *times -= 1;
            panic!("injected");
        }
        if let Some(times) = state.failing.get_mut("read").filter(|times| **times > 0) {
            *times -= 1;
            return Err(store::Error::Stopped);
        }
        let DiskState { entries, known, exposure, current, versions, .. } = &mut *state;
        let found = known.read(entries);
        let is_new = current.as_ref().is_none_or(|(read, _)| read != &(entries.clone(), found, *exposure));
        if is_new {
            let snapshot = Arc::new(Snapshot::new(entries.clone(), true).with_found(found).with_exposure(*exposure));
            versions.push(Arc::downgrade(&snapshot));
            *current = Some(((entries.clone(), found, *exposure), snapshot));
        }
        let (_, snapshot) = current.as_ref().expect("it was read");
        Ok(Arc::clone(snapshot))
    }

    async fn edit(&self, edit: Edit) -> Result<Edited, store::Error> {
        self.pass("edit").await;
        let mut state = self.effect("edit")?;
        let DiskState { entries, known, .. } = &mut *state;
        known.read(entries);
        let edited = edited(&mut state, edit);
        let DiskState { entries, known, .. } = &mut *state;
        known.written(entries);
        edited
    }

    async fn texts(&self, target: EntrySelector) -> Result<Vec<EntryText>, store::Error> {
        let state = self.state();
        let own = state.entries.iter().filter(|entry| target.may_remove(entry));
        Ok(own.map(text_of).collect())
    }

    async fn probe(&self, urgency: Urgency) -> Result<(), store::Error> {
        if self.state().is_kept_locked && urgency == Urgency::CanWait {
            return Err(store::Error::FileLocked { path: "config.toml".into(), holder: None });
        }
        self.effect("probe").map(drop)
    }

    async fn record(&self, key: &RunnerKey) -> Result<Option<Record>, store::Error> {
        let mut state = self.state();
        *state.record_reads.entry(key.clone()).or_default() += 1;
        match state.damaged_records.get(key) {
            Some(key) => Err(store::Error::Record { path: PathBuf::from(key.as_str()), reason: "a test".to_owned() }),
            None => Ok(state.records.get(key).cloned()),
        }
    }

    async fn records(&self) -> Result<Records, store::Error> {
        Ok(Records { records: self.state().records.values().cloned().collect(), damaged: Vec::new() })
    }

    async fn records_with(&self, _: RecordQuery) -> Result<Vec<Record>, store::Error> {
        Ok(self.records().await?.records)
    }

    async fn save_record(&self, record: Record) -> Result<(), store::Error> {
        self.pass("record").await;
        let mut state = self.effect("record")?;
        if !state.is_stateless {
            state.records.insert(record.key.clone(), record);
        }
        Ok(())
    }

    async fn remove_record(&self, key: &RunnerKey) -> Result<(), store::Error> {
        self.effect("forget")?.records.remove(key);
        Ok(())
    }

    async fn held(&self, key: &RunnerKey) -> Result<Held, store::Error> {
        let mut state = self.state();
        if let Some(times) = state.failing.get_mut("read held").filter(|times| **times > 0) {
            *times -= 1;
            return Err(store::Error::Stopped);
        }
        match state.damaged_held.get(key) {
            Some(key) => Err(store::Error::Held { path: PathBuf::from(key.as_str()), reason: "a test".to_owned() }),
            None => Ok(state.held.get(key).cloned().unwrap_or_default()),
        }
    }

    async fn save_held(&self, key: &RunnerKey, held: Held) -> Result<(), store::Error> {
        let mut state = self.effect("held")?;
        if held.is_empty() || state.is_stateless {
            state.held.remove(key);
        } else {
            state.held.insert(key.clone(), held);
        }
        Ok(())
    }

    async fn begin(&self, key: &RunnerKey, intent: Intent) -> Result<(), store::Error> {
        self.pass("begin").await;
        let mut state = self.effect("begin")?;
        let answer = state.journal.get(key).and_then(|pending| pending.answer.as_ref());
        if answer.is_some_and(|answer| answer.token.is_some()) {
            return Err(store::Error::Unsettled { key: key.clone() });
        }
        if !state.is_stateless {
            state.journal.insert(key.clone(), Pending { key: key.clone(), intent, answer: None });
        }
        Ok(())
    }

    async fn answered(&self, key: &RunnerKey, answer: JournalAnswer) -> Result<(), store::Error> {
        self.pass("answered").await;
        let mut state = self.effect("answered")?;
        let is_stateless = state.is_stateless;
        match state.journal.get_mut(key) {
            Some(pending) => pending.answer = Some(answer),
            None if is_stateless => {}
            None => return Err(store::Error::NotBegun { key: key.clone() }),
        }
        Ok(())
    }

    async fn take_back_to(&self, key: &RunnerKey, intent: Intent) -> Result<(), store::Error> {
        let mut state = self.effect("take_back_to")?;
        if !state.is_stateless {
            state.journal.insert(key.clone(), Pending { key: key.clone(), intent, answer: None });
        }
        Ok(())
    }

    async fn clear(&self, key: &RunnerKey) -> Result<(), store::Error> {
        self.effect("clear")?.journal.remove(key);
        Ok(())
    }

    async fn pending(&self) -> Result<Vec<Pending>, store::Error> {
        Ok(self.state().journal.values().cloned().collect())
    }

    async fn pending_of(&self, key: &RunnerKey) -> Result<Option<Pending>, store::Error> {
        Ok(self.state().journal.get(key).cloned())
    }

    async fn lost_resets_of(&self, token: Digest) -> Result<Vec<RunnerKey>, store::Error> {
        let is_lost = |pending: &&Pending| pending.is_lost_reset_of(token);
        Ok(self.state().journal.values().filter(is_lost).map(|pending| pending.key.clone()).collect())
    }

    async fn keep_dropped(
        &self,
        _label: &str,
        _text: &EntryText,
        _at: Timestamp,
    ) -> Result<Option<PathBuf>, store::Error> {
        self.effect("keep_dropped").map(|_| None)
    }
}

/// An enrollment by registration token.
pub(crate) fn enrollment(token: Token) -> Enrollment {
    let url = url();
    Enrollment {
        key: RunnerKey::enrollment("build-1").unwrap(),
        site: Site { url: url.clone(), tls: TlsFiles::default() },
        source: RegistrationSource::Registration(Source::Value { token, origin: "a test".to_owned() }),
        parameters: RegisterParameters { description: Some("build-1".to_owned()), ..RegisterParameters::default() },
        entry: NewEntry {
            template: None,
            name: "build-1".to_owned(),
            url,
            executor: None,
            shell: None,
            limit: None,
            request_concurrency: None,
            output_limit: None,
            tls: TlsFiles::default(),
            settings: Vec::new(),
        },
        share_as: None,
    }
}

pub(crate) fn identity() -> Identity {
    Identity {
        system_id: "s_0123456789ab".parse().unwrap(),
        host: "host".to_owned(),
        machine: None,
        info: Info {
            name: "runner-agent".to_owned(),
            version: "0".to_owned(),
            revision: None,
            platform: "linux".to_owned(),
            architecture: "amd64".to_owned(),
        },
    }
}

/// The intent of an interrupted rotation.
pub(crate) fn rotation_intent(old: &Token, id: RunnerId) -> Intent {
    let operation = JournalOperation::Rotate { url: url(), id: Some(id), old: old.fingerprint(), by_id: false };
    Intent { operation, at: Timestamp::from_millis(START), system_id: None, asked_by: None, token: Some(old.digest()) }
}

/// An inquiry at this server time, with the default delays.
pub(crate) fn inquiry_at(at: Timestamp) -> Inquiry<'static> {
    static TIMING: std::sync::OnceLock<Timing> = std::sync::OnceLock::new();
    let since_boot_ms = u64::try_from(at.as_millis() - START).unwrap_or_default();
    let now = Stamp { at, boot: Boot(1), since_boot_ms };
    Inquiry {
        now,
        local: at,
        timing: TIMING.get_or_init(Timing::default),
        is_dead: false,
        begun: tokio::time::Instant::now(),
        asked: None,
        is_patient: false,
        is_pressing: false,
    }
}

/// The request of a command to unregister a runner.
pub(crate) fn asked(fate: EntryFate) -> UnregisterRequest {
    UnregisterRequest { deletion: Deletion::Runner, fate, asked_by: AskedBy::Command, is_sent: false }
}

fn edited(state: &mut DiskState, edit: Edit) -> Result<Edited, store::Error> {
    let missing = || store::Error::NoSuchEntry { path: PathBuf::new(), runner: String::new() };
    match edit {
        Edit::Renew { target, id, credential, over } => {
            let has_match = state.entries.iter().any(|entry| target.matches(entry));
            match renew(state, &target, id, &credential, &over) {
                0 if has_match => Err(store::Error::UnknownToken { path: PathBuf::new(), line: 1 }),
                0 => Err(missing()),
                entries => Ok(Edited { entries, removed: Vec::new() }),
            }
        }
        Edit::Insert { text, id, credential } => {
            let url = text.url().unwrap_or_else(url);
            let target = selector(url.clone(), id, &credential.token);
            let name = text.name().unwrap_or_default();
            if renew(state, &target, id, &credential, &[]) == 0 && !complete(state, &name, &url, id, &credential) {
                let position = state.entries.len();
                state.entries.push(Entry { url: Some(url), ..entry(&name, id, &credential, position) });
            }
            Ok(Edited { entries: 1, removed: Vec::new() })
        }
        Edit::Complete { name, url, id, credential } => {
            let target = selector(url.clone(), id, &credential.token);
            if renew(state, &target, id, &credential, &[]) == 0 && !complete(state, &name, &url, id, &credential) {
                return Err(missing());
            }
            Ok(Edited { entries: 1, removed: Vec::new() })
        }
        Edit::Remove { target } => {
            let before = state.entries.len();
            let mut removed = Vec::new();
            state.entries.retain(|entry| {
                let goes = target.may_remove(entry);
                if goes {
                    removed.push(text_of(entry));
                }
                !goes
            });
            let entries = before - state.entries.len();
            if entries == 0 { Err(missing()) } else { Ok(Edited { entries, removed }) }
        }
    }
}
