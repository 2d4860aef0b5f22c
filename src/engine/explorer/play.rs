//! Plays a list of acts against the daemon and the commands, and watches what is promised.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::ready;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet, LocalSet};
use tokio::time::sleep;

use super::act::{Act, Move, When};
use super::agent_log;
use super::chance::{jitter, seed_jitter};
use super::command::{self, Command};
use super::disk::{entry, url};
use super::people::{Mistakes, People};
use super::world::{Cause, Excuse, Holding, Intent, Kind, Port, State, Violation, World, entry_name, literal};
use crate::daemon::{self, Changed, Heartbeat, HookFeed, Notice, Parts, SettingsFeed, Watch};
use crate::engine::{Config, Engine, Policy, PolicySelector, RotateFound, Unregister};
use crate::gitlab::fleet::NewRunnerOwner;
use crate::gitlab::{Info, RegisterParameters};
use crate::lifecycle::RegisterAgain;
use crate::model::{
    Conclusion, Credential, Expiry, Held, RunnerId, RunnerKey, Site, StateName, Timestamp, TlsFiles, Trouble,
};
use crate::ops::{AccessUses, Creation, Enrollment, Identity, Ops, RegistrationSource, ServerAccess};
use crate::secret::{Digest, Source, Token};
use crate::status::{Counters, StatusRegistry};
use crate::store::{EntryProblem, EntryToken, NewEntry};

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    /// The life of tokens in seconds; zero for ever.
    pub(super) life: u64,
    /// How old the first tokens are, in seconds.
    pub(super) age: u64,
    /// Seeds the jitter of delays.
    pub(super) jitter: u64,
    /// Whether there is no state directory.
    pub(super) is_stateless: bool,
    /// How many mistakes of people come together.
    pub(super) mistakes: Mistakes,
}

impl Default for Setup {
    fn default() -> Self {
        Self { life: 86_400, age: 0, jitter: 0, is_stateless: false, mistakes: Mistakes::Together }
    }
}

/// What a run came to.
#[derive(Debug, Default)]
pub(super) struct Played {
    pub(super) violations: Vec<Violation>,
    /// Acts and requests.
    pub(super) steps: u64,
    /// The positions of mistakes that people do not make then; time passes instead.
    pub(super) omitted: Vec<usize>,
    pub(super) trace: Vec<String>,
    /// The names of the entries at the end.
    pub(super) entry_names: Vec<String>,
}

struct RunningDaemon {
    port: Port,
    notices: mpsc::UnboundedSender<Notice>,
    changes: mpsc::UnboundedSender<Changed>,
    uses: AccessUses,
    /// Those of its access token; they end with it.
    rotations: JoinSet<()>,
    task: JoinHandle<()>,
}

struct RunningCommand {
    port: Port,
    task: JoinHandle<()>,
    /// The name that it unregisters.
    unregisters: Option<String>,
}

pub(super) struct Player {
    pub(super) world: World,
    counters: Counters,
    daemon: Option<RunningDaemon>,
    commands: Vec<RunningCommand>,
    /// Enrollments that a command has unregistered, and that a running daemon leaves alone.
    left_alone: BTreeSet<String>,
    people: People,
}

thread_local! {
    static COUNTERS: Counters = Counters::new();
}

/// Plays acts in a world of their own, then lets everything come to rest, and checks what is served.
pub(super) fn play(setup: Setup, moves: &[Move], traced: bool) -> Played {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    seed_jitter(setup.jitter);
    let _log = traced.then(agent_log::collect);
    let moves = moves.to_vec();
    let local = LocalSet::new();
    let played = local.block_on(&runtime, async move {
        let mut player = Player::new(setup, traced);
        let (mut acts, mut omitted) = (0, Vec::new());
        for (position, next) in moves.iter().enumerate() {
            if !player.make(next).await {
                omitted.push(position);
            }
            acts += 1;
            if !player.world.state().violations.is_empty() {
                break;
            }
        }
        if player.world.state().violations.is_empty() {
            player.rest().await;
        }
        let played = {
            let mut state = player.world.state();
            Played {
                violations: std::mem::take(&mut state.violations),
                steps: acts + state.request_count,
                omitted,
                trace: state.trace.take().unwrap_or_default(),
                entry_names: state.files.entries.iter().filter_map(|entry| entry.name.clone()).collect(),
            }
        };
        player.kill_all().await;
        played
    });
    drop(local);
    played
}

pub(super) fn identity() -> Identity {
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

pub(super) const ENROLLED: [&str; 5] = ["build-1", "build-2", "given-1", "build-1", "made-1"];

/// The enrollments of this world: two by registration token, one of a given token, one with another's name, and one whose
/// runner an access token creates.
pub(super) fn enrollment(index: u8, key: Option<&str>, given: &str, access: &str) -> Enrollment {
    let index = usize::from(index) % ENROLLED.len();
    let name = ENROLLED[index];
    // The last one has another's name, and a runner of its own.
    let own_key = if index == 3 { "other" } else { name };
    let description = if index == 3 { "other" } else { name };
    let source = |token: &str| Source::Value { token: Token::parse(token).unwrap(), origin: "a test".to_owned() };
    let source = match index {
        2 => RegistrationSource::Given(source(given)),
        4 => RegistrationSource::Created(Creation {
            access_token: source(access),
            tls: TlsFiles::default(),
            owner: NewRunnerOwner::Instance,
            token_expires_at: None,
            token_rotation_deadline: None,
        }),
        _ => RegistrationSource::Registration(source("GR1348941registration")),
    };
    Enrollment {
        key: RunnerKey::enrollment(key.unwrap_or(own_key)).unwrap(),
        site: Site { url: url(), tls: TlsFiles::default() },
        source,
        parameters: RegisterParameters { description: Some(description.to_owned()), ..RegisterParameters::default() },
        entry: NewEntry {
            template: None,
            name: name.to_owned(),
            url: url(),
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

pub(super) fn engine(port: &Port) -> Engine<Port, Port, World> {
    let ops = Ops::new(port.clone(), port.clone(), identity());
    Engine { ops, clock: port.world.clone(), chance: jitter, skews: RefCell::default() }
}

impl Player {
    pub(super) fn new(setup: Setup, traced: bool) -> Self {
        let life = (setup.life > 0).then(|| Duration::from_secs(setup.life));
        // A day is too long for a rest.
        let config =
            Config { verify_found: Duration::from_secs(7200), rotate_found: RotateFound::Always, ..Config::default() };
        let world = World::new(life, config);
        {
            let state = &mut *world.state();
            state.trace = traced.then(Vec::new);
            state.is_stateless = setup.is_stateless;
            let now = state.now();
            for (name, is_created) in [("found", false), ("created", true)] {
                let id = state.gitlab.add(now, None, is_created);
                let age = setup.age as i64 * 1000;
                let Some(runner) = state.gitlab.database.get_mut(&id) else { continue };
                runner.expires_at = runner.expires_at.map(|at| at - age);
                let credential = credential(&runner.token, Some(now - age), runner.expires_at);
                state.files.entries.push(entry(name, RunnerId::try_new(id).ok(), &credential));
                state.homes.insert(name.to_owned(), id);
            }
            // The runner of the given enrollment.
            let id = state.gitlab.add(now, None, true);
            state.homes.insert("given-1".to_owned(), id);
            state.gitlab.history.clear();
            state.note_owners();
            state.check(Cause::Outsider);
        }
        let counters = COUNTERS.with(Clone::clone);
        let people = People::new(&setup);
        Self { world, counters, daemon: None, commands: Vec::new(), left_alone: BTreeSet::new(), people }
    }

    /// Makes a move; returns whether people do so then.
    pub(super) async fn make(&mut self, Move(when, act): &Move) -> bool {
        match *when {
            When::After(secs) => self.wait(secs).await,
            When::Await(count) => {
                self.world.arm(count);
                tokio::select! {
                    biased;
                    () = self.world.blocked() => {}
                    () = sleep(Duration::from_secs(120)) => {}
                }
            }
        }
        let is_done = self.people.may_do(act, &self.world.state());
        let act = if is_done { act } else { &Act::Wait };
        self.world.state().note_act(act);
        self.act(act).await;
        self.world.reopen();
        // Everything that is ready runs before time goes on.
        sleep(Duration::from_millis(1)).await;
        self.reap().await;
        self.world.state().check(Cause::Time);
        is_done
    }

    /// Lets time pass until the next act.
    async fn wait(&mut self, secs: u64) {
        let since = self.world.state().now();
        let daemon_of = |player: &Self| player.daemon.as_ref().map(|daemon| daemon.port.process);
        let before = daemon_of(self);
        self.pass(secs).await;
        if before.is_some() && daemon_of(self) == before {
            self.people.have_waited(since, &self.world.state());
        }
    }

    /// Lets time pass; edits by the agent are noticed like those of people.
    pub(super) async fn pass(&mut self, secs: u64) {
        sleep(Duration::from_secs(secs)).await;
        self.reap().await;
        self.world.state().check(Cause::Time);
    }

    fn tell(&self, changed: Changed) {
        if let Some(daemon) = &self.daemon {
            // It may have ended.
            let _ended = daemon.changes.send(changed);
        }
    }

    fn notify(&self, notice: Notice) {
        if let Some(daemon) = &self.daemon {
            let _ended = daemon.notices.send(notice);
        }
    }

    /// Dismisses processes that have ended.
    async fn reap(&mut self) {
        if self.daemon.as_ref().is_some_and(|daemon| daemon.task.is_finished())
            && let Some(daemon) = self.daemon.take()
        {
            self.end(daemon.port.process, daemon.task).await;
        }
        let (ended, running): (Vec<_>, Vec<_>) =
            self.commands.drain(..).partition(|command| command.task.is_finished());
        self.commands = running;
        for command in ended {
            self.end(command.port.process, command.task).await;
        }
    }

    async fn end(&self, process: u64, task: JoinHandle<()>) {
        if let Err(error) = task.await
            && error.is_panic()
        {
            self.world.state().violate(Kind::Panic, error.to_string());
        }
        self.world.state().note(|| format!("process {process} has ended"));
        self.world.end_process(process, false);
    }

    async fn kill(&self, process: u64, task: JoinHandle<()>) {
        task.abort();
        let _killed = task.await;
        self.world.end_process(process, true);
    }

    async fn kill_daemon(&mut self) {
        self.reap().await;
        if let Some(daemon) = self.daemon.take() {
            self.kill(daemon.port.process, daemon.task).await;
        }
    }

    async fn kill_commands(&mut self) {
        self.reap().await;
        for command in std::mem::take(&mut self.commands) {
            self.kill(command.port.process, command.task).await;
        }
    }

    pub(super) async fn kill_all(&mut self) {
        self.kill_daemon().await;
        self.kill_commands().await;
    }

    fn start_daemon(&mut self) {
        if self.daemon.is_some() {
            return;
        }
        self.forget_left_alone();
        let port = self.world.begin_process(true, Intent::default());
        let (notices, inbox) = mpsc::unbounded_channel();
        let (changes, changed) = mpsc::unbounded_channel();
        let world = self.world.clone();
        let engine = engine(&port);
        let uses = engine.ops.access_uses().clone();
        let parts = Parts {
            hooks: HookFeed::default(),
            feed: SettingsFeed::default(),
            engine,
            watch: Some(Watch::of_test(changed)),
            heartbeat: Heartbeat::every(Duration::from_secs(100_000)),
            registry: StatusRegistry::default(),
            counters: self.counters.clone(),
            request_timeout: Duration::from_secs(60),
            reload: Box::new(move || Box::pin(ready(Ok(world.state().config.clone())))),
        };
        let config = self.world.state().config.clone();
        let task = tokio::task::spawn_local(async move {
            // A disk that cannot be read ends it; the service manager starts it again.
            let _ended = daemon::run(config, parts, inbox).await;
        });
        self.world.state().watcher = Some(changes.clone());
        self.daemon = Some(RunningDaemon { port, notices, changes, uses, rotations: JoinSet::new(), task });
    }

    fn start_command(&mut self, kind: Command, name: Option<String>, enrollment: Option<Enrollment>) {
        let (mut intent, mut superseded, mut forgotten) = (Intent::default(), Vec::new(), None);
        {
            let state = self.world.state();
            match kind {
                Command::Unregister => {
                    let home = name.as_ref().and_then(|name| state.homes.get(name));
                    intent.runners.extend(home);
                    // An entry that was given to another runner is that runner's, by its token and by its id.
                    for entry in state.files.entries.iter().filter(|entry| entry.name == name) {
                        intent.runners.extend(literal(entry).and_then(|token| state.owners.get(token)));
                        intent.runners.extend(entry.id.map(RunnerId::number));
                        // A runner that has taken another one over still has the entries of its former tokens.
                        let has_former = |record: &&crate::store::Record| {
                            let token = entry.token.token();
                            token.is_some_and(|token| record.former_digests.contains(&token.digest()))
                        };
                        let records = state.files.records.values().filter(has_former);
                        let tokens = records.filter_map(|record| record.credential.as_ref());
                        let owners: Vec<_> = tokens.filter_map(|it| state.owners.get(it.token.expose())).collect();
                        intent.managers.extend(owners.iter().copied());
                        // One that was made in place of the former one gets all of its entries.
                        let is_made =
                            |id: &&u64| state.gitlab.database.get(*id).is_some_and(|runner| runner.made_for.is_some());
                        intent.runners.extend(owners.into_iter().filter(is_made));
                    }
                    // What was found in an entry counts until its record has another token.
                    let named = state.files.records.values().filter(|record| record.name == name);
                    let tokens = named.filter_map(|record| record.credential.as_ref());
                    intent.managers.extend(tokens.filter_map(|it| state.owners.get(it.token.expose())));
                    intent.names.extend(name.clone());
                }
                Command::Register => {
                    intent.makes_anew.extend(state.freed.intersection(&ENROLLED.map(str::to_owned).into()).cloned())
                }
                Command::RegisterForce => {
                    forgotten = enrollment.as_ref().map(|it| it.entry.name.clone());
                    // The old runner stays in GitLab, and is the person's to delete.
                    let home = enrollment.as_ref().and_then(|it| state.homes.get(&it.entry.name)).copied();
                    superseded.extend(home);
                    // Another enrollment's runner can have its name.
                    let description = enrollment.as_ref().and_then(|it| it.parameters.description.clone());
                    let made = state.gitlab.database.iter();
                    let made = made.filter(|(_, runner)| runner.made_for.is_some() && runner.made_for == description);
                    superseded.extend(made.map(|(id, _)| *id));
                    intent.makes_anew.extend(enrollment.iter().map(|it| it.entry.name.clone()));
                    let home = enrollment.as_ref().and_then(|it| state.homes.get(&it.entry.name));
                    intent.runners.extend(home);
                }
                _ => {}
            }
        }
        self.world.state().let_go.extend(superseded);
        if let Some(name) = forgotten {
            self.world.state().forget_lost_registrations(Some(&name));
        }
        let unregisters = name.clone().filter(|_| kind == Command::Unregister);
        self.left_alone.extend(unregisters.clone());
        let port = self.world.begin_process(false, intent);
        let task = tokio::task::spawn_local(command::run(port.clone(), kind, name, enrollment));
        self.commands.push(RunningCommand { port, task, unregisters });
    }

    /// A daemon that starts or reloads registers again what was unregistered before, and leaves alone what is unregistered
    /// from then on.
    fn forget_left_alone(&mut self) {
        let running = self.commands.iter().filter(|command| !command.task.is_finished());
        self.left_alone = running.filter_map(|command| command.unregisters.clone()).collect();
        self.world.state().dropped.clear();
    }

    /// The name of an entry.
    fn name_at(&self, index: u8) -> Option<String> {
        let state = self.world.state();
        let count = state.files.entries.len();
        if count == 0 {
            return None;
        }
        state.files.entries[usize::from(index) % count].name.clone()
    }

    fn given_token(&self) -> String {
        let state = self.world.state();
        let id = state.homes.get("given-1").copied().unwrap_or_default();
        state.gitlab.database.get(&id).map_or_else(|| "glrt-gone".to_owned(), |runner| runner.token.clone())
    }

    fn access_token(&self) -> String {
        self.world.state().gitlab.access_token.clone()
    }

    /// As the keeper of the access token does: once no call of the daemon with it is under way.
    fn rotate_access_token(&mut self) {
        let world = self.world.clone();
        let Some(daemon) = &mut self.daemon else {
            rotate_access_token(&mut world.state());
            return;
        };
        let uses = daemon.uses.clone();
        daemon.rotations.spawn_local(async move {
            uses.rotated(&url(), || rotate_access_token(&mut world.state())).await;
        });
    }

    async fn act(&mut self, act: &Act) {
        if let Act::Enroll(_) | Act::Unenroll(_) | Act::UnregisterPolicy(_) | Act::Share(_) = act {
            let mut state = self.world.state();
            let old_config = (state.now(), state.config.clone());
            state.old_config = Some(old_config);
            state.forget_unwritten();
        }
        match act {
            Act::StartDaemon => self.start_daemon(),
            Act::KillDaemon => self.kill_daemon().await,
            Act::Reboot => {
                self.kill_all().await;
                self.world.state().reboot();
                self.start_daemon();
            }
            Act::Terminate => {
                self.reap().await;
                if let Some(daemon) = &self.daemon {
                    let intent = may_unregister(&self.world.state());
                    if let Some(process) = self.world.state().processes.get_mut(&daemon.port.process) {
                        process.intent = intent;
                    }
                }
                self.notify(Notice::Stop);
            }
            Act::Quit => self.notify(Notice::StopAndKeep),
            Act::Hangup => {
                self.forget_left_alone();
                if self.daemon.is_some() {
                    self.world.state().forget_lost_registrations(None);
                }
                self.notify(Notice::Reload);
            }
            Act::KillCommands => self.kill_commands().await,
            Act::Verify(index) => self.start_command(Command::Verify, self.name_at(*index), None),
            Act::VerifyDelete(index) => self.start_command(Command::VerifyDelete, self.name_at(*index), None),
            Act::Rotate(index) => self.start_command(Command::Rotate, self.name_at(*index), None),
            Act::RotateById(index) => self.start_command(Command::RotateById, self.name_at(*index), None),
            Act::Unregister(index) => self.start_command(Command::Unregister, self.name_at(*index), None),
            Act::Register(index) | Act::RegisterForce(index) => {
                let name = ENROLLED[usize::from(*index) % ENROLLED.len()];
                // As `settings` derives it from server and name.
                let key = format!("{name}.gitlab.example.com");
                let enrollment = enrollment(*index, Some(&key), &self.given_token(), &self.access_token());
                let kind = if matches!(act, Act::Register(_)) { Command::Register } else { Command::RegisterForce };
                self.start_command(kind, None, Some(enrollment));
            }
            Act::Enroll(index) => {
                let enrollment = enrollment(*index, None, &self.given_token(), &self.access_token());
                let state = &mut *self.world.state();
                state.config.enrollments.retain(|other| other.key != enrollment.key);
                state.config.enrollments.push(enrollment);
                self.tell(Changed { config: false, settings: true });
            }
            Act::Unenroll(index) => {
                let name = ENROLLED[usize::from(*index) % ENROLLED.len()];
                self.world.state().config.enrollments.retain(|other| other.entry.name != name);
                self.tell(Changed { config: false, settings: true });
            }
            Act::UnregisterPolicy(_) | Act::RegisterAgainPolicy(_) | Act::AccessToken(_) | Act::Share(_) => {
                set(&mut self.world.state(), act);
                self.tell(Changed { config: false, settings: true });
            }
            Act::RotateAccessToken => self.rotate_access_token(),
            _ => happen(&mut self.world.state(), act),
        }
    }

    /// Ends all faults, lets the daemon run, and checks what it serves.
    async fn rest(&mut self) {
        {
            let mut state = self.world.state();
            state.note(|| "rest".to_owned());
            let now = state.now();
            let gitlab = &mut state.gitlab;
            gitlab.faults.clear();
            (gitlab.lag, gitlab.down_until, gitlab.date_offset) = (None, 0, 0);
            (gitlab.maintenance_until, gitlab.migrating_until, gitlab.is_old) = (0, 0, false);
            state.files.failing.clear();
            state.stimuli.push_back(now);
        }
        // Commands end by themselves, and so does a daemon that was asked to.
        self.pass(900).await;
        self.start_daemon();
        let before = self.good_runners();
        // Longer than the longest wait of the rules, six hours.
        for _ in 0..15 {
            self.pass(1800).await;
            if !self.world.state().violations.is_empty() {
                return;
            }
        }
        let unserved = unserved(&self.world.state(), &before, &self.left_alone);
        for text in unserved {
            self.world.state().violate(Kind::NotServed, text);
        }
    }

    /// Runners whose token the agent holds, and which lives long enough to be renewed.
    fn good_runners(&self) -> BTreeSet<u64> {
        let state = self.world.state();
        let now = state.now();
        let is_good = |id: &u64| {
            let runner = &state.gitlab.database[id];
            // A token that has to be found again is found at the next verification.
            let is_written = state.files.entries.iter().any(|entry| literal(entry) == Some(runner.token.as_str()));
            let least = if is_written { 180_000 } else { 3 * 3_600_000 };
            state.holdings.get(id) == Some(&Holding::Held)
                && runner.expires_at.is_none_or(|at| at > now + least)
                && !runner.is_closed
        };
        state.gitlab.database.keys().filter(|id| is_good(id)).copied().collect()
    }
}

fn credential(token: &str, obtained_at: Option<i64>, expires_at: Option<i64>) -> Credential {
    Credential {
        token: Token::parse(token).unwrap(),
        obtained_at: obtained_at.map(Timestamp::from_millis),
        expiry: expires_at.map_or(Expiry::Never, |at| Expiry::At(Timestamp::from_millis(at))),
    }
}

/// What a stop by policy may unregister: by the settings, and by those that the daemon may still have.
fn may_unregister(state: &State) -> Intent {
    let mut intent = Intent::default();
    may_unregister_by(state, &state.config, &mut intent);
    if let Some((changed_at, config)) = &state.old_config
        && state.now() - changed_at < 3000
    {
        may_unregister_by(state, config, &mut intent);
    }
    intent
}

fn may_unregister_by(state: &State, config: &Config, intent: &mut Intent) {
    for (name, id) in &state.homes {
        let is_enrolled = config.enrollments.iter().any(|enrollment| enrollment.entry.name == *name);
        let is_wanted = match config.shutdown.unregister {
            Unregister::Never => false,
            Unregister::Enrolled => is_enrolled,
            Unregister::All => true,
        };
        if is_wanted {
            if is_shared(config, name) { &mut intent.managers } else { &mut intent.runners }.insert(*id);
        }
    }
    // An entry that was given to another runner is that runner's: at most its manager goes.
    for entry in &state.files.entries {
        let is_enrolled =
            config.enrollments.iter().any(|enrollment| entry.name.as_ref() == Some(&enrollment.entry.name));
        if config.shutdown.unregister == Unregister::All
            || config.shutdown.unregister == Unregister::Enrolled && is_enrolled
        {
            intent.managers.extend(literal(entry).and_then(|token| state.owners.get(token)));
            intent.managers.extend(entry.id.map(RunnerId::number));
        }
    }
    // An enrollment can have taken over a runner whose token a person has put into its entry, and into a copy of it. What
    // a person has changed just now may be unknown to the daemon, and a missing entry is missing for good after five
    // seconds. At most a manager goes.
    let is_news = state.now() - state.duplicated_at < 6000;
    for record in state.files.records.values().filter(|_| config.shutdown.unregister != Unregister::Never) {
        let mut enrolled = config.enrollments.iter().filter(|enrollment| record.key == enrollment.key);
        let is_enrolled = enrolled.any(|enrollment| !state.freed.contains(&enrollment.entry.name));
        let token = record.credential.as_ref().map(|credential| credential.token.expose());
        let mut tokens = state.files.entries.iter().filter_map(literal);
        if is_enrolled && (is_news || tokens.any(|other| token == Some(other))) {
            intent.managers.extend(token.and_then(|token| state.owners.get(token)));
        }
    }
    // Without a state directory, the token in an enrollment's entry is all that says which runner it has, also if a
    // person has put it there.
    for entry in state.files.entries.iter().filter(|_| state.is_stateless && state.duplicated_at > 0) {
        let is_enrolled =
            config.enrollments.iter().any(|enrollment| entry.name.as_ref() == Some(&enrollment.entry.name));
        if is_enrolled && config.shutdown.unregister != Unregister::Never {
            intent.runners.extend(literal(entry).and_then(|token| state.owners.get(token)));
        }
    }
    // A backup can bring back the runner that the agent had made for an entry before.
    for entry in &state.files.entries {
        let is_enrolled =
            config.enrollments.iter().any(|enrollment| entry.name.as_ref() == Some(&enrollment.entry.name));
        match config.shutdown.unregister {
            Unregister::Enrolled if is_enrolled => {}
            Unregister::Never | Unregister::Enrolled => continue,
            Unregister::All => {}
        }
        let owner = literal(entry).and_then(|token| state.owners.get(token)).filter(|id| {
            let made_for = state.gitlab.database.get(id).and_then(|runner| runner.made_for.as_deref());
            made_for.is_some() && made_for.map(entry_name) == entry.name.as_deref()
        });
        let is_shared = entry.name.as_ref().is_some_and(|name| is_shared(config, name));
        if is_shared { &mut intent.managers } else { &mut intent.runners }.extend(owner);
    }
    // Two enrollments can have one name.
    for enrollment in &config.enrollments {
        let is_shared = is_shared(config, &enrollment.entry.name);
        // Its registration may have been sent already, and is answered before the stop goes on.
        if config.shutdown.unregister != Unregister::Never && !is_shared {
            intent.homes.insert(enrollment.entry.name.clone());
        }
        let made = state.gitlab.database.iter();
        let made = made
            .filter(|(_, runner)| runner.made_for.is_some() && runner.made_for == enrollment.parameters.description);
        if config.shutdown.unregister != Unregister::Never {
            let wanted = if is_shared { &mut intent.managers } else { &mut intent.runners };
            wanted.extend(made.map(|(id, _)| *id));
        }
    }
}

fn is_shared(config: &Config, name: &str) -> bool {
    let of_name = |policy: &&Policy| policy.selector.name.as_deref() == Some(name);
    config.policies.iter().filter(of_name).any(|policy| policy.shared == Some(true))
}

/// GitLab replaces the access token, and so does its file. Returns the old one and the new one.
fn rotate_access_token(state: &mut State) -> (Digest, Token) {
    let old = Token::parse(&state.gitlab.access_token).unwrap();
    state.gitlab.access_rotations += 1;
    state.gitlab.access_token = format!("glpat-access-{}", state.gitlab.access_rotations);
    let new = Token::parse(&state.gitlab.access_token).unwrap();
    let source = Source::Value { token: new.clone(), origin: "a test".to_owned() };
    for enrollment in &mut state.config.enrollments {
        if let RegistrationSource::Created(creation) = &mut enrollment.source {
            creation.access_token = source.clone();
        }
    }
    for server in &mut state.config.servers {
        server.access_token = source.clone();
    }
    (old.digest(), new)
}

/// Changes of agent.toml.
fn set(state: &mut State, act: &Act) {
    match act {
        Act::UnregisterPolicy(policy) => {
            let policies = [Unregister::Never, Unregister::Enrolled, Unregister::All];
            state.config.shutdown.unregister = policies[usize::from(*policy) % 3];
        }
        Act::RegisterAgainPolicy(policy) => {
            let policies = [RegisterAgain::Never, RegisterAgain::Expired, RegisterAgain::Always];
            state.config.register_again = policies[usize::from(*policy) % 3];
        }
        Act::AccessToken(is_there) => {
            let token = Token::parse(&state.gitlab.access_token).unwrap();
            let access_token = Source::Value { token, origin: "a test".to_owned() };
            let access = ServerAccess {
                url: url(),
                access_token,
                tls: TlsFiles::default(),
                keeping: crate::lifecycle::AccessKeeping::default(),
            };
            state.config.servers = if *is_there { vec![access] } else { Vec::new() };
        }
        Act::Share(index) => {
            let count = state.files.entries.len();
            let Some(entry) = state.files.entries.get(usize::from(*index) % count.max(1)) else { return };
            let selector = PolicySelector { name: entry.name.clone(), ..PolicySelector::default() };
            let policy = Policy { selector, rotate: None, unregister: None, shared: Some(true) };
            state.config.policies.push(policy);
        }
        _ => unreachable!("not a setting"),
    }
}

/// Acts that no process has a part in.
fn happen(state: &mut State, act: &Act) {
    let now = state.now();
    let cause = if matches!(act, Act::Restore(_)) { Cause::Restore } else { Cause::Outsider };
    match act {
        Act::Fault(call, fault) => {
            if state.gitlab.faults.len() < 6 {
                state.gitlab.faults.push_back((*call, fault.clone()));
            }
        }
        Act::Down(secs) => {
            state.gitlab.down_until = now + *secs as i64 * 1000;
            state.gitlab.down_with = None;
        }
        Act::GatewayFor(secs, status, body) => {
            state.gitlab.down_until = now + *secs as i64 * 1000;
            state.gitlab.down_with = Some((*status, *body));
        }
        Act::Maintenance(secs) => state.gitlab.maintenance_until = now + *secs as i64 * 1000,
        Act::Migrate(secs) => state.gitlab.migrating_until = now + *secs as i64 * 1000,
        Act::Lag(secs) => {
            let span = *secs as i64 * 1000;
            // Where little life is left, two refusals are as close as the lag.
            let is_short = |at: i64| at > now && at - now < span * 16;
            // A date that lies makes the time between two refusals short too.
            let is_true = state.gitlab.date_offset.abs() < 100_000;
            if is_true && !state.gitlab.database.values().any(|runner| runner.expires_at.is_some_and(is_short)) {
                state.gitlab.lag = Some((span, now + span));
            }
        }
        Act::Restore(steps) => {
            for _ in 0..*steps {
                if let Some((_, database)) = state.gitlab.history.pop_back() {
                    state.gitlab.database = database;
                }
            }
            state.gitlab.lag = None;
            state.restored_at = now;
        }
        Act::DateAhead(secs) => {
            state.gitlab.date_offset = secs * 1000;
            // As for a lag that begins under such a date.
            if secs.abs() >= 100 {
                state.gitlab.lag = None;
            }
        }
        Act::Life(secs) => state.gitlab.life = (*secs > 0).then_some(*secs as i64 * 1000),
        Act::OldRelease(is_old) => state.gitlab.is_old = *is_old,
        Act::CloseRotation(index, is_closed) => {
            if let Some(id) = runner_at(state, *index)
                && let Some(runner) = state.gitlab.database.get_mut(&id)
            {
                runner.is_closed = *is_closed;
            }
        }
        Act::ResetInGitlab(index, is_written) => {
            if let Some(id) = runner_at(state, *index) {
                state.gitlab.reset(id, now);
                state.note_owners();
                if *is_written {
                    write_token(state, id);
                }
            }
        }
        Act::DeleteInGitlab(index) => {
            if let Some(id) = runner_at(state, *index) {
                state.gitlab.commit(now);
                state.gitlab.database.remove(&id);
                state.deleted.insert(id);
            }
        }
        Act::DiskFault(call, times) => {
            state.files.failing.insert(call, u32::from(*times));
        }
        Act::WallJump(secs) => state.wall_offset += secs * 1000,
        _ => edit(state, act),
    }
    // Nothing shows that a `Date` is wrong when this machine's clock is wrong too.
    let (date, wall) = (state.gitlab.date_offset, state.wall_offset);
    state.is_without_time |= date.abs() > 60_000 && wall != 0;
    state.check(cause);
}

fn runner_at(state: &State, index: u8) -> Option<u64> {
    let count = state.gitlab.database.len();
    state.gitlab.database.keys().nth(usize::from(index) % count.max(1)).copied()
}

/// A person writes a runner's present token into its entries.
fn write_token(state: &mut State, id: u64) {
    let Some(runner) = state.gitlab.database.get(&id) else { return };
    let token = Token::parse(&runner.token).unwrap();
    let expiry = runner.expires_at.map_or(Expiry::Never, |at| Expiry::At(Timestamp::from_millis(at)));
    let (homes, owners, put_tokens) = (&state.homes, &state.owners, &mut state.put_tokens);
    for entry in &mut state.files.entries {
        let is_home = entry.name.as_ref().and_then(|name| homes.get(name)) == Some(&id);
        let is_own = literal(entry).and_then(|token| owners.get(token)) == Some(&id);
        if is_home || is_own {
            put_tokens.insert(token.expose().to_owned());
            entry.token = EntryToken::Literal(token.clone());
            entry.obtained_at = None;
            entry.expiry = expiry;
            entry.problems.clear();
        }
    }
    state.config_changed();
}

/// A person edits config.toml.
fn edit(state: &mut State, act: &Act) {
    let count = state.files.entries.len();
    let at = |index: &u8| usize::from(*index) % count.max(1);
    state.config_changed();
    match act {
        Act::Backup => state.files.backup = state.files.entries.clone(),
        Act::RestoreConfig if !state.files.backup.is_empty() => state.files.entries = state.files.backup.clone(),
        Act::DeleteEntry(index) if count > 0 => {
            state.files.entries.remove(at(index));
        }
        Act::SwapToken(index, runner) if count > 0 => {
            state.duplicated_at = state.now();
            let Some(id) = runner_at(state, *runner) else { return };
            let token = Token::parse(&state.gitlab.database[&id].token).unwrap();
            state.files.entries[at(index)].token = EntryToken::Literal(token);
        }
        Act::DuplicateEntry(index) if (1..6).contains(&count) => {
            state.duplicated_at = state.now();
            let mut copy = state.files.entries[at(index)].clone();
            let home = copy.name.as_ref().and_then(|name| state.homes.get(name)).copied();
            copy.name = copy.name.map(|name| format!("{name}-copy"));
            state.homes.extend(copy.name.clone().zip(home));
            state.files.entries.push(copy);
        }
        Act::RemoveId(index) if count > 0 => {
            state.is_id_removed = true;
            state.files.entries[at(index)].id = None;
        }
        Act::BlankToken(index) if count > 0 => {
            let entry = &mut state.files.entries[at(index)];
            entry.token = EntryToken::Absent;
            entry.problems = vec![EntryProblem::NoToken];
        }
        _ => {}
    }
}

/// Whether a record with the runner's id holds its present token, or has it beside it.
fn has_token(state: &State, id: u64) -> bool {
    let token = state.gitlab.database.get(&id).map(|runner| runner.token.as_str());
    state.files.records.values().filter(|record| record.id.map(RunnerId::number) == Some(id)).any(|record| {
        let current = record.credential.iter().map(|credential| &credential.token);
        let held = state.files.held.get(&record.key).into_iter().flat_map(|held| &held.candidates);
        current.chain(held.map(|candidate| &candidate.token)).any(|held| token == Some(held.expose()))
    })
}

/// Runners that should be served after a rest, and are not.
fn unserved(state: &State, before: &BTreeSet<u64>, left_alone: &BTreeSet<String>) -> Vec<String> {
    let now = state.now();
    let mut unserved = Vec::new();
    let in_config: BTreeSet<&str> = state.files.entries.iter().filter_map(literal).collect();
    for (id, runner) in &state.gitlab.database {
        // One that a person has registered anew, or unregistered, is the person's to delete.
        if state.holdings.get(id) != Some(&Holding::Held) || state.let_go.contains(id) {
            continue;
        }
        // A token in two entries is one runner, and belongs to the one that was found with it.
        let is_of_another = |token: &str| {
            state.files.records.values().any(|record| {
                record.id.map(RunnerId::number) != Some(*id)
                    && record.credential.as_ref().is_some_and(|credential| credential.token.expose() == token)
            })
        };
        let has_entry = state.files.entries.iter().any(|entry| {
            entry.id.map(RunnerId::number) == Some(*id)
                && !literal(entry).is_some_and(is_of_another)
                && literal(entry).is_some_and(|token| state.owners.get(token).is_none_or(|owner| owner == id))
        });
        let is_expired = runner.expires_at.is_some_and(|at| at < now);
        // A person had put it into the entry of another runner, or into one without its id, and no answer has said whose it is.
        let is_misplaced = state.duplicated_at > 0 || state.is_id_removed;
        let is_unknown = is_misplaced && !state.named.contains(&runner.token) && !has_token(state, *id);
        if has_entry && !is_expired && !in_config.contains(runner.token.as_str()) && !is_unknown {
            unserved.push(format!("runner {id}: the state has its token, its entry has not"));
        }
        let is_shared = state.config.policies.iter().any(|policy| policy.shared == Some(true));
        // One that has got another runner's entry, too, is found again with the next start.
        let is_receiver = state.files.records.values().any(|record| record.given_to.map(RunnerId::number) == Some(*id));
        // A restored server can accept a former token that expires before the agent looks again. When a token expires, the
        // agent knows only if an answer has told it.
        let is_current = state.files.records.values().any(|record| {
            let current = record.credential.as_ref().filter(|credential| credential.expiry != Expiry::Unknown);
            current.is_some_and(|credential| credential.token.expose() == runner.token)
        });
        // A wrong `Date` has said that it had expired when it was refused, and nothing was urgent then.
        // So has a clock of this machine that is ahead.
        let latest_wrong =
            state.latest_wrong_date.max(if state.wall_offset > 60_000 { now + state.wall_offset } else { 0 });
        let is_misjudged = runner.expires_at.is_some_and(|at| at < latest_wrong)
            && state.files.records.values().any(|record| {
                record.id.map(RunnerId::number) == Some(*id) && record.state == Some(StateName::Rejected)
            });
        if has_entry
            && is_current
            && !is_misjudged
            && !is_receiver
            && !state.is_without_time
            && before.contains(id)
            && runner.expires_at.is_some_and(|at| at < now)
            && !is_shared
        {
            unserved.push(format!("runner {id}: its token has expired"));
        }
    }
    if !state.config.servers.is_empty() {
        for entry in &state.files.entries {
            let Some(id) = entry.id.map(RunnerId::number) else { continue };
            let is_lost = matches!(state.holdings.get(&id), Some(Holding::Excused(Excuse::Cut | Excuse::Killed)));
            let is_shared = state.config.policies.iter().any(|policy| policy.shared == Some(true));
            // Without a state directory, the id in an entry is a claim to a process that has seen refusals alone.
            let is_confirmed = |process: &u64| state.confirmed.contains(&(*process, id));
            let is_claim = state.is_stateless && !state.processes.keys().any(is_confirmed);
            // So it is once a person has put a token there of which no answer has said whose it is.
            let is_unnamed = |token: &String| state.owners.get(token) == Some(&id) && !state.named.contains(token);
            let is_claim = is_claim || state.put_tokens.iter().any(is_unnamed);
            let is_there = state.gitlab.database.contains_key(&id);
            if is_lost && !state.recovered.contains(&id) && is_there && !is_shared && !is_claim {
                unserved.push(format!("runner {id}: its lost token was not recovered"));
            }
        }
    }
    for enrollment in &state.config.enrollments {
        let name = &enrollment.entry.name;
        // A shared runner is not rotated, and is registered again once it has expired.
        if left_alone.contains(name)
            || state.homes.get(name).is_some_and(|id| state.dropped.contains(id))
            || is_shared(&state.config, name)
            || !matches!(enrollment.source, RegistrationSource::Registration(_))
        {
            continue;
        }
        // A person may have put its token into another entry, which goes on with it.
        let has_entry = |entry: &crate::store::Entry| {
            let runner = literal(entry).and_then(|token| state.gitlab.find(token, now));
            let made_for = runner.and_then(|id| state.gitlab.database[&id].made_for.as_ref());
            runner.is_some() && entry.name.as_ref() == Some(name)
                || made_for.is_some() && made_for == enrollment.parameters.description.as_ref()
        };
        // Without a state directory, an entry with a dead token is that of a runner that was only found.
        if state.is_stateless && state.files.entries.iter().any(|entry| entry.name.as_ref() == Some(name)) {
            continue;
        }
        if state.files.entries.iter().any(has_entry) {
            continue;
        }
        // A person has made its entry that of another runner, by token and id: whether it is alive or not, no second one of
        // the name is made, and nothing is written over it.
        let is_anothers = |entry: &crate::store::Entry| {
            let owner = literal(entry).and_then(|token| state.owners.get(token)).copied();
            let runner = owner.and_then(|id| state.gitlab.database.get(&id));
            let is_claimed = entry.id.is_none_or(|id| Some(id.number()) == owner);
            let is_other = runner.is_some_and(|it| it.made_for.as_ref() != enrollment.parameters.description.as_ref());
            entry.name.as_ref() == Some(name) && is_other && is_claimed
        };
        if state.duplicated_at > 0 && state.files.entries.iter().any(is_anothers) {
            continue;
        }
        // A person has given its entry to another runner, which has it still: a second one of the name would be wrong.
        let has_entry = |id: RunnerId| state.files.entries.iter().any(|entry| entry.id == Some(id));
        let is_given = state.files.records.values().any(|record| {
            record.given_to.is_some_and(has_entry)
                && (record.name.as_ref() == Some(name) || record.key == enrollment.key)
        });
        if is_given {
            continue;
        }
        let made = state.homes.get(name);
        // GitLab may have made a runner: a person has to look.
        let waits = |(key, held): (&RunnerKey, &Held)| {
            let is_named = state.files.records.get(key).is_some_and(|record| record.name.as_ref() == Some(name));
            let conclusion = held.evidence.as_ref().and_then(|evidence| evidence.conclusion);
            let is_lost = match conclusion {
                Some(Conclusion::Failed { trouble: Trouble::RegistrationLost, .. }) => true,
                // A person's command that was to go on could not write that, and has said so.
                Some(Conclusion::Rejected { rungs, .. }) => rungs.register_lost && state.last_disk_fault > 0,
                _ => false,
            };
            is_lost && (*key == enrollment.key || is_named)
        };
        let description = enrollment.parameters.description.as_deref().unwrap_or_default();
        let is_in_memory = state.is_stateless && state.unanswered_registrations.contains(description);
        if state.files.held.iter().any(waits) || is_in_memory {
            continue;
        }
        let may_be_made = matches!(
            (made.and_then(|id| state.holdings.get(id)), state.config.register_again),
            (None, _)
                | (_, RegisterAgain::Always)
                | (Some(Holding::Excused(Excuse::Cut | Excuse::Killed)), RegisterAgain::Expired)
        );
        // A person has put its token into another entry, too: what the record of that one loses in a reset looks like a
        // refusal here, until the token expires.
        let own = state.files.records.get(&enrollment.key).and_then(|record| record.credential.as_ref());
        let is_alive = own.is_some_and(|own| own.expiry.at().is_none_or(|at| at > Timestamp::from_millis(now)));
        let is_twin = state.duplicated_at > 0 && is_alive;
        // An access token shows that a runner was deleted in GitLab, and it stays deleted: also if a backup brings it back
        // with a token that has expired meanwhile.
        let is_gone = |id: &u64| {
            let runner = state.gitlab.database.get(id);
            let has_expired = |at: i64| state.deleted.contains(id) && at < now;
            runner.is_none_or(|runner| runner.expires_at.is_some_and(has_expired))
        };
        // The runner that it has in the state is not the one that the lost answer to a registration has made.
        let recorded = state.files.records.get(&enrollment.key).and_then(|record| record.id).map(RunnerId::number);
        let is_gone = made.is_some_and(is_gone) || recorded.as_ref().is_some_and(is_gone);
        // What was concluded so stays concluded without the access token, until a person asks again.
        let evidence = state.files.held.get(&enrollment.key).and_then(|held| held.evidence.as_ref());
        let is_concluded = evidence
            .and_then(|evidence| evidence.conclusion)
            .is_some_and(|conclusion| matches!(conclusion, Conclusion::Rejected { rungs, .. } if rungs.is_removed));
        let is_deleted = is_gone && (!state.config.servers.is_empty() || is_concluded);
        // No clock has said when its token expires.
        let is_untimed = state.is_without_time && made.is_some_and(|id| state.gitlab.database.contains_key(id));
        if may_be_made && !is_deleted && !is_twin && !is_untimed {
            unserved.push(format!("enrollment `{name}` has no runner"));
        }
    }
    unserved
}
