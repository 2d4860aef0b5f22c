//! The commands, as `cli` drives them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::play::engine;
use super::world::{Port, World};
use crate::engine::{
    Asker, Budget, Caller, Drive, Driver, Engine, Enrolled, Inventory, ManagedRunner, Relation, StepFailure, relate,
    take_inventory, taken_keys,
};
use crate::lifecycle::{Goal, Outcome, State};
use crate::model::TlsFiles;
use crate::ops::{AccessToken, Disk as _, Enrollment, EntryFate, Error, Runner, Unfinished, is_own};
use crate::secret::Token;
use crate::store::{Entry, Snapshot};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Verify,
    VerifyDelete,
    Rotate,
    RotateById,
    Unregister,
    Register,
    RegisterForce,
}

type WorldDriver = Driver<Port, Port, World>;

/// A command that no signal interrupts.
struct Patient;

impl Caller for Patient {
    fn is_interrupted(&self) -> bool {
        false
    }

    async fn interrupted(&self) {
        std::future::pending().await
    }

    fn will_wait(&self, _: &str, _: Goal, _: &Drive, _: Duration) {}
}

/// Runs a command to its end.
pub(super) async fn run(port: Port, command: Command, name: Option<String>, enrollment: Option<Enrollment>) {
    let session = Session { engine: Rc::new(engine(&port)), port };
    let end = match (command, name, enrollment) {
        (Command::Register | Command::RegisterForce, _, Some(enrollment)) => {
            session.register(&enrollment, command == Command::RegisterForce).await
        }
        (_, Some(name), _) => session.on_entry(command, &name).await,
        _ => Ok("nothing".to_owned()),
    };
    let end = end.unwrap_or_else(|error| error.to_string());
    session.port.world.state().note(|| format!("  {command:?} ends: {end}"));
}

struct Session {
    engine: Rc<Engine<Port, Port, World>>,
    port: Port,
}

impl Session {
    async fn inventory(&self) -> Result<(Inventory, Arc<Snapshot>), Error> {
        let config = self.port.world.state().config.clone();
        take_inventory(&self.engine.ops, &config, self.engine.now()).await
    }

    fn driver(&self, managed: ManagedRunner, access_token: Option<AccessToken>, entry_fate: EntryFate) -> WorldDriver {
        let config = Rc::new(self.port.world.state().config.clone());
        Driver::new(Rc::clone(&self.engine), managed, config, Asker::Command { access_token, entry_fate })
    }

    /// Finds the runner of an entry by its name, as `selection` does, with its entries of this and of other names.
    async fn choose(&self, name: &str) -> Result<Option<(ManagedRunner, Vec<Entry>, Vec<Entry>)>, Error> {
        let (inventory, snapshot) = self.inventory().await?;
        let Some(managed) = chosen(inventory, &snapshot, name) else { return Ok(None) };
        let target = managed.runner.target();
        let own = snapshot.entries.iter().filter(|entry| is_own(&target, entry)).cloned();
        let (entries, others) = own.partition(|entry| is_named(entry, name));
        Ok(Some((ManagedRunner { enrollment: None, ..managed }, entries, others)))
    }

    async fn on_entry(&self, command: Command, name: &str) -> Result<String, Error> {
        let Some((managed, entries, others)) = self.choose(name).await? else {
            return Ok("no such runner".to_owned());
        };
        match command {
            Command::Verify | Command::VerifyDelete => self.verify(managed, command == Command::VerifyDelete).await,
            Command::Rotate => self.rotate(managed, false).await,
            Command::RotateById => self.rotate(managed, true).await,
            Command::Unregister if !others.is_empty() && !entries.is_empty() => {
                let mut runner = managed.runner;
                let config = self.port.world.state().config.clone();
                let enrollment = config.enrollments.iter().find(|enrollment| enrollment.key == runner.record.key);
                let enrolled_as = enrollment.map(|enrollment| enrollment.entry.name.as_str());
                let now = self.engine.now();
                self.engine.ops.remove_entries_of(&mut runner, &entries, &others, enrolled_as, now).await?;
                let owner = self.owner_of(&runner);
                self.port.world.state().freed.insert(name.to_owned());
                self.port.world.state().parted.extend(owner);
                Ok("its entry is removed".to_owned())
            }
            Command::Unregister => {
                let mut managed = managed;
                managed.runner.select(entries.into_iter().chain(others).map(|entry| entry.name).collect());
                self.unregister(managed).await
            }
            Command::Register | Command::RegisterForce => unreachable!("not about an entry"),
        }
    }

    async fn verify(&self, managed: ManagedRunner, drops: bool) -> Result<String, Error> {
        let mut driver = self.driver(ManagedRunner { unfinished: None, ..managed }, None, EntryFate::Drop);
        let goal = if drops { Goal::Refused } else { Goal::Verified };
        let drive = driver.drive(goal, Budget::BY_RULES, &Patient).await;
        let is_dead = drive.outcome() == Some(Outcome::Refused) && matches!(driver.state(), State::Rejected(_));
        if drops
            && is_dead
            && let Some(dead) = driver.runner.digest()
        {
            let now = driver.now();
            // A backup may bring it back, with the token that is dropped now or one from before it, although the runner is
            // given again with another token since.
            let owner = self.owner_of(&driver.runner);
            owner.into_iter().for_each(|owner| self.port.world.state().let_one_go(owner));
            self.port.world.state().dropped.extend(owner);
            self.engine.ops.drop_entry(&mut driver.runner, dead, now).await?;
            return Ok("dropped".to_owned());
        }
        Ok(said(drive))
    }

    fn owner_of(&self, runner: &Runner) -> Option<u64> {
        let token = runner.record.credential.as_ref()?.token.expose().to_owned();
        self.port.world.state().owners.get(&token).copied()
    }

    async fn rotate(&self, managed: ManagedRunner, by_id: bool) -> Result<String, Error> {
        let access_token = by_id.then(|| AccessToken {
            token: Token::parse(&self.port.world.state().gitlab.access_token).unwrap(),
            tls: TlsFiles::default(),
        });
        if by_id && managed.runner.record.id.is_none() {
            return Ok("its id is missing".to_owned());
        }
        let goal = if by_id { Goal::RotatedById } else { Goal::Rotated };
        let mut driver = self.driver(managed, access_token, EntryFate::Keep);
        let drive = driver.drive(goal, Budget::BY_RULES, &Patient).await;
        if let (Some(Outcome::Rotated(_)), Some(StepFailure::Unsaved(_))) = (drive.outcome(), drive.failure()) {
            // As the command does: what is in memory alone is written, for as long as that takes.
            let budget = if driver.runner.is_unstored() { Budget::Unlimited } else { Budget::FOR_CONFIG };
            let saved = driver.drive(Goal::Saved, budget, &Patient).await;
            return Ok(format!("rotated; {}", said(saved)));
        }
        Ok(said(drive))
    }

    async fn unregister(&self, managed: ManagedRunner) -> Result<String, Error> {
        let unfinished = managed.unfinished.clone();
        let mut driver = self.driver(managed, None, EntryFate::Drop);
        if unfinished == Some(Unfinished::Unsaved) {
            self.engine.ops.settle(&mut driver.runner).await?;
        }
        Ok(said(driver.drive(Goal::Unregistered, Budget::BY_RULES, &Patient).await))
    }

    /// As `cli::register` decides, without its messages.
    async fn register(&self, enrollment: &Enrollment, force: bool) -> Result<String, Error> {
        let seed = enrollment.source.secret().read()?;
        let (inventory, snapshot) = self.inventory().await?;
        let records = self.engine.ops.disk().records().await?.records;
        let mut runner = match relate(enrollment, &Enrolled::new(), &records, &snapshot).relation {
            Relation::Own(record) | Relation::Recorded(record) => Runner::recorded(record, enrollment.site.clone()),
            Relation::Found(entry) => Runner::found_beside(&entry, |key| taken_keys(&records).contains(key))?,
            Relation::Unusable { .. } => return Ok("its entry is unusable".to_owned()),
            Relation::Taken { .. } | Relation::Nothing(_) => {
                let mut blank =
                    Runner::blank(enrollment.key.clone(), enrollment.source.origin(), enrollment.site.clone());
                blank.record.name = Some(enrollment.entry.name.clone());
                return self.make(blank, enrollment, Goal::Registered, force).await;
            }
        };
        let of_inventory = inventory.runners.into_iter().find(|managed| managed.runner.record.key == runner.record.key);
        let managed = match of_inventory {
            Some(managed) => ManagedRunner { enrollment: None, ..managed },
            None => {
                runner.look_up(&snapshot);
                self.engine.ops.load_held(&mut runner).await;
                ManagedRunner { runner, enrollment: None, unfinished: None, twin_of: None }
            }
        };
        if force {
            return self.make(managed.runner, enrollment, Goal::RegisteredAgain, true).await;
        }
        let target = managed.runner.target();
        let has_entry = snapshot.entries.iter().any(|entry| is_own(&target, entry));
        if managed.runner.record.seed == Some(seed.fingerprint()) && has_entry {
            return Ok("unchanged".to_owned());
        }
        let mut driver = self.driver(ManagedRunner { unfinished: None, ..managed }, None, EntryFate::Keep);
        let drive = driver.drive(Goal::Verified, Budget::BY_RULES, &Patient).await;
        if !has_entry && matches!(drive.outcome(), Some(Outcome::Accepted(_) | Outcome::Adopted(_))) {
            self.engine.ops.restore(&mut driver.runner, enrollment).await?;
        }
        Ok(said(drive))
    }

    async fn make(
        &self,
        mut runner: Runner,
        enrollment: &Enrollment,
        goal: Goal,
        force: bool,
    ) -> Result<String, Error> {
        runner.record.name = Some(enrollment.entry.name.clone());
        let managed =
            ManagedRunner { runner, enrollment: Some(Box::new(enrollment.clone())), unfinished: None, twin_of: None };
        let is_again = goal == Goal::RegisteredAgain;
        let fate = if is_again { EntryFate::Keep } else { EntryFate::Drop };
        let mut driver = self.driver(managed, None, fate);
        if force {
            driver.forget_lost_registration(None).await?;
        }
        if is_again {
            driver.enter(Outcome::Reenrolled(None));
        }
        let drive = driver.drive(goal, Budget::Within(Duration::ZERO), &Patient).await;
        if let Some(StepFailure::Unsaved(_)) = drive.failure() {
            let saved = driver.drive(Goal::Saved, Budget::FOR_CONFIG, &Patient).await;
            return Ok(format!("registered; {}", said(saved)));
        }
        Ok(said(drive))
    }
}

fn said(drive: Drive) -> String {
    let outcome = drive.outcome();
    match drive.into_failure() {
        Some(failure) => format!("{outcome:?}: {failure}"),
        None => format!("{outcome:?}"),
    }
}

fn is_named(entry: &Entry, name: &str) -> bool {
    entry.name.as_deref() == Some(name)
}

/// As `selection` does: an entry belongs to one runner, and a name that several runners have selects none.
fn chosen(inventory: Inventory, snapshot: &Snapshot, name: &str) -> Option<ManagedRunner> {
    let mut runners = inventory.runners;
    runners.retain(|managed| managed.runner.record.credential.is_some());
    let targets: Vec<_> = runners.iter().map(|managed| managed.runner.target()).collect();
    let owner = |entry: &Entry| targets.iter().position(|target| is_own(target, entry));
    let owners: Vec<_> = snapshot.entries.iter().map(|entry| (owner(entry), is_named(entry, name))).collect();
    let matches = |(number, managed): &(usize, &ManagedRunner)| {
        let mut own = owners.iter().filter(|(owner, _)| owner == &Some(*number)).peekable();
        match own.peek() {
            Some(_) => own.any(|(_, is_named)| *is_named),
            None => managed.runner.record.name.as_deref() == Some(name),
        }
    };
    let found: Vec<_> = runners.iter().enumerate().filter(matches).map(|(number, _)| number).collect();
    match found[..] {
        [only] => Some(runners.swap_remove(only)),
        _ => None,
    }
}
