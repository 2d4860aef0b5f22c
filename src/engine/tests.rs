//! Drivers against a GitLab and a disk in memory, on a paused clock.

mod sharing;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::gitlab::Disposition;
use crate::lifecycle::{Goal, Outcome, State, Step};
use crate::model::{Credential, RunnerId, StateName, Timestamp, TlsFiles};
use crate::ops::memory::{
    Fault, MemoryDisk, MemoryServer, START, TokioClock, enrollment, identity, registration_token, url,
};
use crate::ops::{Disk as _, EntryFate, Runner, ServerAccess, Unfinished, Unregistration};
use crate::secret::{Source, Token};
use crate::store::{AskedBy, Entry, EntryToken, Intent, JournalOperation, StoredFate};

type TestDriver = Driver<MemoryServer, MemoryDisk, TokioClock>;

const DAY: Duration = Duration::from_secs(86_400);

/// One runner that is found in config.toml, with everything around it.
struct World {
    clock: TokioClock,
    server: MemoryServer,
    disk: MemoryDisk,
    config: Config,
    id: RunnerId,
}

impl World {
    fn new() -> Self {
        let clock = TokioClock::new();
        let server = MemoryServer::new(clock.clone(), Some(DAY));
        let disk = MemoryDisk::default();
        let (id, credential) = server.add_runner();
        disk.add_entry("a", Some(id), &credential);
        Self { clock, server, disk, config: Config::default(), id }
    }

    async fn driver(&self, asker: Asker, unfinished: Option<Unfinished>) -> TestDriver {
        let ops = Ops::new(self.server.clone(), self.disk.clone(), identity());
        let engine = Engine { ops, clock: self.clock.clone(), chance: || Fraction::ZERO, skews: RefCell::default() };
        let (inventory, _) = retake_inventory(&engine.ops, &self.config, &BTreeSet::new()).await.unwrap();
        let managed = ManagedRunner { unfinished, ..inventory.runners.into_iter().next().unwrap() };
        Driver::new(Rc::new(engine), managed, Rc::new(self.config.clone()), asker)
    }

    async fn command(&self) -> TestDriver {
        self.driver(Asker::Command { access_token: None, entry_fate: EntryFate::Drop }, None).await
    }

    fn holds_the_servers_token(&self) -> bool {
        self.disk.tokens() == [self.server.runners()[&self.id.number()].token.clone()]
    }
}

/// A command that may be interrupted, and that counts its waits.
#[derive(Default)]
struct TestCaller {
    is_interrupted: bool,
    waits: RefCell<u32>,
}

impl Caller for TestCaller {
    fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    async fn interrupted(&self) {
        if !self.is_interrupted {
            std::future::pending().await
        }
    }

    fn will_wait(&self, _runner: &str, _goal: Goal, _drive: &Drive, _left: Duration) {
        *self.waits.borrow_mut() += 1;
    }
}

fn interrupted() -> TestCaller {
    TestCaller { is_interrupted: true, ..TestCaller::default() }
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_got_lost_is_settled_and_not_sent_again() {
    let world = World::new();
    world.server.inject("reset", Fault::Fail(Disposition::Unknown { retry_after: None }));
    let mut driver = world.command().await;
    let drive = driver.drive(Goal::Rotated, Budget::BY_RULES, &TestCaller::default()).await;
    assert_eq!(world.server.calls(), ["reset", "verify", "verify"]);
    assert!(matches!((drive.outcome(), driver.state()), (Some(Outcome::Accepted(_)), State::Active(_))));
    assert!(world.disk.state().journal.is_empty(), "the lost reset is settled");
    let again = driver.drive(Goal::Rotated, Budget::BY_RULES, &TestCaller::default()).await;
    assert!(matches!(again.outcome(), Some(Outcome::Rotated(_))) && world.holds_the_servers_token());
}

#[tokio::test(start_paused = true)]
async fn a_twin_takes_over_the_new_token_instead_of_another_reset() {
    for is_stateless in [false, true] {
        let world = World::new();
        world.disk.state().is_stateless = is_stateless;
        let first = world.disk.state().entries[0].clone();
        let second = Entry { name: Some("b".to_owned()), url: "http://gitlab".parse().ok(), position: 1, ..first };
        world.disk.state().entries.push(second);
        let ops = Ops::new(world.server.clone(), world.disk.clone(), identity());
        let engine =
            Rc::new(Engine { ops, clock: world.clock.clone(), chance: || Fraction::ZERO, skews: RefCell::default() });
        let (inventory, _) = retake_inventory(&engine.ops, &world.config, &BTreeSet::new()).await.unwrap();
        let mut outcomes = Vec::new();
        for managed in inventory.runners {
            let asker = Asker::Command { access_token: None, entry_fate: EntryFate::Keep };
            let mut driver = Driver::new(Rc::clone(&engine), managed, Rc::new(world.config.clone()), asker);
            outcomes.extend(driver.drive(Goal::Rotated, Budget::BY_RULES, &TestCaller::default()).await.outcome());
        }
        assert!(matches!(outcomes[..], [Outcome::Rotated(_), Outcome::Adopted(_)]), "{outcomes:?}");
        assert_eq!(world.server.calls(), ["reset", "verify", "verify"], "the old token, and then the new one");
        let token = world.server.runners()[&world.id.number()].token.clone();
        assert_eq!(world.disk.tokens(), [token.clone(), token]);
    }
}

/// Two entries with one token at two addresses, the first of which is rotated; returns the driver of the second one and
/// the token that both had.
async fn with_rotated_twin(world: &World) -> (TestDriver, Credential) {
    let first = world.disk.state().entries[0].clone();
    let served = world.server.runners()[&world.id.number()].clone();
    let credential = Credential { token: served.token, obtained_at: None, expiry: served.expiry };
    let second = Entry { name: Some("b".to_owned()), url: "http://gitlab".parse().ok(), position: 1, ..first };
    world.disk.state().entries.push(second);
    let ops = Ops::new(world.server.clone(), world.disk.clone(), identity());
    let engine =
        Rc::new(Engine { ops, clock: world.clock.clone(), chance: || Fraction::ZERO, skews: RefCell::default() });
    let (inventory, _) = retake_inventory(&engine.ops, &world.config, &BTreeSet::new()).await.unwrap();
    let config = Rc::new(world.config.clone());
    let mut drivers = inventory.runners.into_iter().map(|managed| {
        let asker = Asker::Command { access_token: None, entry_fate: EntryFate::Keep };
        Driver::new(Rc::clone(&engine), managed, Rc::clone(&config), asker)
    });
    let (mut first, second) = (drivers.next().unwrap(), drivers.next().unwrap());
    let rotated = first.drive(Goal::Rotated, Budget::BY_RULES, &TestCaller::default()).await;
    assert!(matches!(rotated.outcome(), Some(Outcome::Rotated(_))));
    (second, credential)
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lags_neither_ends_a_twin_nor_has_its_dead_token_reset() {
    let world = World::new();
    let (mut twin, former) = with_rotated_twin(&world).await;
    let present = world.server.runners()[&world.id.number()].clone();
    world.server.restore(world.id, &former);
    for goal in [Goal::Verified, Goal::Rotated] {
        let drive = twin.drive(goal, Budget::BY_RULES, &TestCaller::default()).await;
        assert!(twin.runner.twin_of.is_some(), "{goal:?}");
        if goal == Goal::Rotated {
            assert_eq!(drive.taken, [(Step::Rotate, Outcome::Doubtful)]);
            let error = drive.into_failure().unwrap();
            assert!(error.to_string().contains("has got a new one just now"), "{error}");
        }
        let next = twin.plan().unwrap();
        assert!(next.step == Step::Verify && next.at.since(twin.now()) <= Duration::from_secs(60), "{next:?}");
    }
    assert_eq!(world.server.calls(), ["reset", "verify", "verify"]);
    // The replica has caught up.
    let present = Credential { token: present.token, obtained_at: None, expiry: present.expiry };
    world.server.restore(world.id, &present);
    let drive = twin.drive(Goal::Rotated, Budget::BY_RULES, &TestCaller::default()).await;
    assert!(matches!(drive.outcome(), Some(Outcome::Adopted(_))), "{drive:?}");
    assert_eq!(world.server.calls().iter().filter(|call| **call == "reset").count(), 1);
    assert_eq!(world.disk.tokens(), [present.token.clone(), present.token]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_accepted_long_after_its_twin_got_a_new_one_is_rotated() {
    let world = World::new();
    let (mut own, former) = with_rotated_twin(&world).await;
    world.server.restore(world.id, &former);
    tokio::time::sleep(Duration::from_secs(601)).await;
    let drive = own.drive(Goal::Rotated, Budget::BY_RULES, &TestCaller::default()).await;
    assert!(matches!(drive.outcome(), Some(Outcome::Rotated(_))), "{drive:?}");
    assert!(own.runner.twin_of.is_none());
    assert_eq!(world.server.calls(), ["reset", "verify", "reset"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reset_of_a_former_process_is_settled_first() {
    let world = World::new();
    let asker = Asker::Command { access_token: None, entry_fate: EntryFate::Drop };
    let mut driver = world.driver(asker, Some(Unfinished::LostReset)).await;
    driver.drive(Goal::Rotated, Budget::BY_RULES, &TestCaller::default()).await;
    assert_eq!(world.server.calls(), ["verify", "verify", "reset"]);
    assert!(world.holds_the_servers_token());
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_reset_by_id_with_the_access_token_of_the_settings() {
    let mut world = World::new();
    let access_token = Token::parse("glpat-access").unwrap();
    let source = Source::Value { token: access_token, origin: "a test".to_owned() };
    for (servers, expected) in [
        (Vec::new(), vec!["verify", "reset"]),
        (
            vec![ServerAccess {
                url: url(),
                access_token: source,
                tls: TlsFiles::default(),
                keeping: crate::lifecycle::AccessKeeping::default(),
            }],
            vec!["verify", "reset", "reset", "reset_by_id"],
        ),
    ] {
        if world.config.servers.is_empty() && servers.is_empty() {
            // The server confirms the id, which config.toml only claims.
            world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
        }
        world.config.servers = servers;
        world.server.inject("reset", Fault::Fail(Disposition::Refused));
        world.command().await.drive(Goal::Rotated, Budget::BY_RULES, &TestCaller::default()).await;
        assert_eq!(world.server.calls(), expected);
    }
    assert!(world.holds_the_servers_token());
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_ends_a_wait_and_no_step() {
    let world = World::new();
    let mut driver = world.command().await;
    let rotated = driver.drive(Goal::Rotated, Budget::BY_RULES, &interrupted()).await;
    assert!(matches!(rotated.outcome(), Some(Outcome::Rotated(_))) && !rotated.is_interrupted);
    world.server.inject_always("verify", Some(Fault::Fail(Disposition::Refused)));
    let refused = driver.drive(Goal::Refused, Budget::BY_RULES, &interrupted()).await;
    assert!(refused.is_interrupted);
    assert_eq!(refused.taken, [(Step::Verify, Outcome::Refused)]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_confirmed_by_a_second_one_after_a_wait() {
    let world = World::new();
    world.server.inject_always("verify", Some(Fault::Fail(Disposition::Refused)));
    let (mut driver, caller) = (world.command().await, TestCaller::default());
    let drive = driver.drive(Goal::Refused, Budget::BY_RULES, &caller).await;
    assert_eq!(drive.taken, [(Step::Verify, Outcome::Refused); 3], "the last one with the candidates");
    assert_eq!(*caller.waits.borrow(), 2);
    let requests = world.server.requests();
    assert!(requests[1].at.since(requests[0].at) >= driver.rules.timing.confirm_after);
}

#[tokio::test(start_paused = true)]
async fn a_budget_bounds_the_waits_for_config_toml() {
    let world = World::new();
    world.disk.fail("edit", 1000);
    let mut driver = world.command().await;
    let rotated = driver.drive(Goal::Rotated, Budget::BY_RULES, &TestCaller::default()).await;
    assert!(matches!(rotated.failure(), Some(StepFailure::Unsaved(_))));
    let saved = driver.drive(Goal::Saved, Budget::FOR_CONFIG, &TestCaller::default()).await;
    assert!(saved.taken.len() > 1 && saved.outcome() == Some(Outcome::Unsaved), "{:?}", saved.taken);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_nowhere_else_is_saved_without_regard_to_an_interrupt() {
    let world = World::new();
    world.disk.fail("edit", 20);
    let mut driver = world.command().await;
    driver.drive(Goal::Rotated, Budget::BY_RULES, &interrupted()).await;
    let saved = driver.drive(Goal::Saved, Budget::Unlimited, &interrupted()).await;
    assert_eq!(saved.outcome(), Some(Outcome::Saved));
    assert!(world.holds_the_servers_token());
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_leaves_the_recorded_state_alone() {
    let world = World::new();
    let recorded = |world: &World| world.disk.state().records.values().next().and_then(|record| record.state);
    world.server.inject("verify", Fault::Fail(Disposition::NotExecuted { retry_after: None }));
    world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
    assert_eq!(recorded(&world), None);
    world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
    assert_eq!(recorded(&world), Some(StateName::Active));
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_unregistration_is_settled_by_asking_and_not_repeated() {
    for is_gone in [false, true] {
        let world = World::new();
        world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
        let token = world.server.runners()[&world.id.number()].token.clone();
        if is_gone {
            world.server.remove_runner(world.id);
        }
        let key = world.disk.state().records.keys().next().unwrap().clone();
        world.disk.begin(&key, unregistration_intent(&token, world.id)).await.unwrap();
        let mut driver = world.driver(Asker::Daemon, Some(Unfinished::Unregistration)).await;
        while world.server.calls().len() < 6 {
            let plan = driver.plan().unwrap();
            tokio::time::sleep(plan.at.since(driver.now())).await;
            driver.step(plan, std::future::pending()).await;
            if driver.plan().is_none() {
                break;
            }
        }
        assert!(world.server.calls().iter().all(|call| *call == "verify" || *call == "reset"));
        assert_eq!(matches!(driver.state(), State::Retired { .. }), is_gone);
        assert_eq!(world.disk.tokens().is_empty(), is_gone);
        assert!(world.disk.state().journal.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_unregistration_that_is_killed_while_it_asks_is_settled_by_the_next_start() {
    let (unknown, refused) = (Disposition::Unknown { retry_after: None }, Disposition::Refused);
    for (fault, is_executed) in
        [(Fault::LoseAnswer, true), (Fault::Fail(unknown), false), (Fault::Fail(refused), false)]
    {
        // Killed before its first question, and after it.
        for questions in [0, 1] {
            let world = World::new();
            world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
            world.server.inject("delete_runner", fault);
            let (mut driver, mut taken) = (world.command().await, Vec::new());
            for _ in 0..=questions {
                let plan = driver.plan_towards(Goal::Unregistered, &taken).unwrap();
                let report = driver.step(plan, std::future::pending()).await;
                taken.extend(report.outcomes.first().map(|outcome| (report.step, *outcome)));
            }
            drop(driver);
            let ops = Ops::new(world.server.clone(), world.disk.clone(), identity());
            let unfinished = ops.replay(Timestamp::from_millis(START)).await.unwrap().unfinished;
            assert!(matches!(unfinished[..], [(_, Unfinished::Unregistration)]), "{fault:?}: {unfinished:?}");
            let mut daemon = world.driver(Asker::Daemon, Some(Unfinished::Unregistration)).await;
            for _ in 0..6 {
                let Some(plan) = daemon.plan() else { break };
                tokio::time::sleep(plan.at.since(daemon.now())).await;
                daemon.step(plan, std::future::pending()).await;
            }
            assert_eq!(world.disk.tokens().is_empty(), is_executed, "{fault:?}");
            assert!(world.disk.state().journal.is_empty(), "{fault:?}");
            let deletions = world.server.calls().iter().filter(|call| **call == "delete_runner").count();
            assert_eq!(deletions, 1, "{fault:?}: it is not sent again");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unregistration_that_asking_has_shown_is_finished_by_the_next_start_without_asking() {
    for (effect, left) in [("edit", 1), ("forget", 0)] {
        let world = World::new();
        world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
        world.server.inject("delete_runner", Fault::LoseAnswer);
        // As if it was killed in the middle of its last step.
        world.disk.fail(effect, 1);
        let mut driver = world.command().await;
        driver.drive(Goal::Unregistered, Budget::BY_RULES, &TestCaller::default()).await;
        assert_eq!((world.disk.tokens().len(), world.disk.state().records.len()), (left, 1), "{effect}");
        let before = world.server.calls().len();
        let ops = Ops::new(world.server.clone(), world.disk.clone(), identity());
        let replayed = ops.replay(Timestamp::from_millis(START)).await.unwrap();
        assert_eq!((replayed.finished, world.disk.tokens().len()), (1, 0), "{effect}");
        assert!(world.disk.state().records.is_empty() && world.disk.state().journal.is_empty());
        assert_eq!(world.server.calls().len(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unregistration_that_ends_undone_leaves_no_intent() {
    let unanswered = Fault::Fail(Disposition::NotExecuted { retry_after: None });
    for verify in [None, Some(unanswered)] {
        let world = World::new();
        world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
        world.server.inject("delete_runner", Fault::Fail(Disposition::Unknown { retry_after: None }));
        world.server.inject_always("verify", verify);
        let mut driver = world.command().await;
        let drive = driver.drive(Goal::Unregistered, Budget::BY_RULES, &TestCaller::default()).await;
        assert!(drive.unregistration().is_none());
        assert!(world.disk.state().journal.is_empty(), "{verify:?}");
        assert_eq!((world.disk.tokens().len(), world.server.runners().len()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_deletes_a_runner_through_a_copied_record_only_if_it_is_declared_not_shared() {
    for (shared, deletion) in [(None, "delete_manager"), (Some(true), "delete_manager"), (Some(false), "delete_runner")]
    {
        let mut world = World::new();
        world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
        world.disk.state().records.values_mut().for_each(|record| record.is_copy = true);
        let selector = PolicySelector { name: Some("a".to_owned()), ..PolicySelector::default() };
        world.config.policies = vec![Policy { selector, rotate: None, unregister: None, shared }];
        world.command().await.drive(Goal::Unregistered, Budget::BY_RULES, &TestCaller::default()).await;
        assert_eq!(world.server.calls().last(), Some(&deletion), "{shared:?}");
    }
}

/// The journal of a command that was killed.
fn unregistration_intent(token: &Token, id: RunnerId) -> Intent {
    let (fingerprint, fate) = (token.fingerprint(), Some(StoredFate::Drop));
    let operation = JournalOperation::Unregister { url: url(), id: Some(id), fingerprint, manager_only: false, fate };
    let at = Timestamp::from_millis(START);
    Intent { operation, at, system_id: None, asked_by: Some(AskedBy::Command), token: Some(token.digest()) }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_by_the_next_command() {
    let world = World::new();
    world.server.inject_always("verify", Some(Fault::Fail(Disposition::Refused)));
    world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut second = world.command().await;
    second.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
    assert!(matches!(second.state(), State::Rejected(_)));
    assert_eq!(world.server.calls(), ["verify", "verify"]);
}

#[tokio::test(start_paused = true)]
async fn the_command_that_proves_a_token_dead_asks_about_the_former_ones() {
    let world = World::new();
    let former = world.server.runners()[&world.id.number()].clone();
    let former = Credential { token: former.token, obtained_at: None, expiry: former.expiry };
    world.command().await.drive(Goal::Rotated, Budget::BY_RULES, &TestCaller::default()).await;
    // GitLab was restored from a backup.
    world.server.restore(world.id, &former);
    let first = world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
    assert_eq!(first.outcome(), Some(Outcome::Refused));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let second = world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
    assert!(matches!(second.outcome(), Some(Outcome::Adopted(_))), "{second:?}");
    assert_eq!(world.disk.tokens(), [former.token]);
    assert_eq!(world.server.calls(), ["reset", "verify", "verify", "verify"]);
}

#[tokio::test(start_paused = true)]
async fn a_twins_token_that_is_not_answered_is_not_refused() {
    let world = World::new();
    let (mut twin, _) = with_rotated_twin(&world).await;
    let present = world.server.runners()[&world.id.number()].clone();
    world.server.block(&present.token);
    let drive = twin.drive(Goal::Refused, Budget::BY_RULES, &TestCaller::default()).await;
    let error = drive.into_failure().unwrap();
    assert!(error.to_string().contains("has not answered about another token"), "{error}");
    assert!(!matches!(twin.state(), State::Rejected(rejected) if rejected.is_settled()));
}

#[tokio::test(start_paused = true)]
async fn an_id_that_only_config_toml_claims_is_not_reset_with_an_access_token() {
    let mut world = World::new();
    let access_token = Token::parse("glpat-access").unwrap();
    let source = Source::Value { token: access_token, origin: "a test".to_owned() };
    world.config.servers = vec![ServerAccess {
        url: url(),
        access_token: source,
        tls: TlsFiles::default(),
        keeping: crate::lifecycle::AccessKeeping::default(),
    }];
    let (victim, _) = world.server.add_runner();
    world.disk.state().entries[0].id = Some(victim);
    world.disk.state().entries[0].token = EntryToken::Literal(Token::parse("made-up").unwrap());
    let mut driver = world.driver(Asker::Daemon, None).await;
    for _ in 0..12 {
        let plan = driver.plan().unwrap();
        tokio::time::sleep(plan.at.since(driver.now())).await;
        driver.step(plan, std::future::pending()).await;
    }
    assert!(world.server.calls().iter().all(|call| *call == "verify"), "{:?}", world.server.calls());
}

/// Lets a driver of the daemon do what is due until a time.
async fn run_until(driver: &mut TestDriver, end: Timestamp) {
    while let Some(plan) = driver.plan().filter(|plan| plan.at < end) {
        tokio::time::sleep(plan.at.since(driver.now())).await;
        driver.step(plan, std::future::pending()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_token_that_is_never_judged_does_not_let_ours_expire() {
    let world = World::new();
    let mut driver = world.driver(Asker::Daemon, None).await;
    run_until(&mut driver, Timestamp::from_millis(START).plus(Duration::from_secs(60))).await;
    let unknown = Token::parse("glrtr-behind-a-firewall").unwrap();
    world.server.block(&unknown);
    world.disk.state().entries[0].token = EntryToken::Literal(unknown.clone());
    let end = Timestamp::from_millis(START).plus(DAY);
    run_until(&mut driver, end).await;
    assert_eq!(world.server.calls().iter().filter(|call| **call == "reset").count(), 1);
    let served = world.server.runners()[&world.id.number()].clone();
    assert!(served.expiry.at().unwrap() > end);
    let records = world.disk.state().records.clone();
    assert!(records.values().any(|record| record.credential.as_ref().is_some_and(|own| own.token == served.token)));
    assert_eq!(world.disk.tokens(), [unknown]);
}

#[tokio::test(start_paused = true)]
async fn an_accepted_token_of_an_unnamed_runner_causes_no_stream_of_requests() {
    for is_stateless in [false, true] {
        let world = World::new();
        let mut driver = world.driver(Asker::Daemon, None).await;
        run_until(&mut driver, Timestamp::from_millis(START).plus(Duration::from_secs(60))).await;
        world.server.name_no_ids();
        world.disk.state().is_stateless = is_stateless;
        let (_, other) = world.server.add_runner();
        world.disk.state().entries[0].token = EntryToken::Literal(other.token.clone());
        run_until(&mut driver, Timestamp::from_millis(START).plus(DAY)).await;
        let requests = world.server.calls().len();
        assert!(requests < 400, "{requests} requests in a day");
        assert!(world.disk.tokens().contains(&other.token));
        let served = world.server.runners()[&world.id.number()].clone();
        let is_rotated = served.expiry.at().unwrap() > Timestamp::from_millis(START).plus(DAY);
        assert_eq!(is_rotated, !is_stateless, "without a state directory there is no place for a new token");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_registration_into_an_entry_forgets_nothing_about_its_token() {
    let world = World::new();
    world.server.inject_always("verify", Some(Fault::Fail(Disposition::Refused)));
    let mut driver = world.driver(Asker::Daemon, None).await;
    run_until(&mut driver, Timestamp::from_millis(START).plus(Duration::from_secs(600))).await;
    let evidence = |world: &World| world.disk.state().held.values().next().and_then(|held| held.evidence.clone());
    let before = evidence(&world);
    assert!(before.as_ref().is_some_and(|evidence| evidence.conclusion.is_some()));
    let mut command = world.command().await;
    command.enrollment = Some(Box::new(enrollment(Token::parse("wrong").unwrap())));
    command.enter(Outcome::Reenrolled(None));
    command.drive(Goal::RegisteredAgain, Budget::Within(Duration::ZERO), &TestCaller::default()).await;
    assert_eq!(evidence(&world), before);
}

#[tokio::test(start_paused = true)]
async fn a_failed_unregistration_only_defers() {
    let world = World::new();
    let mut driver = world.command().await;
    world.server.inject_always("delete_manager", Some(Fault::Fail(Disposition::Refused)));
    world.server.inject_always("delete_runner", Some(Fault::Fail(Disposition::Unknown { retry_after: None })));
    let drive = driver.drive(Goal::Unregistered, Budget::BY_RULES, &TestCaller::default()).await;
    assert!(drive.unregistration().is_none());
    assert!(!matches!(driver.state(), State::Uncertain(_)), "no reset was sent");
}

#[tokio::test(start_paused = true)]
async fn a_refused_deletion_of_a_manager_leaves_the_entry_and_reports_no_success() {
    let world = World::new();
    world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
    world.disk.state().records.values_mut().for_each(|record| record.origin = crate::model::Origin::Given);
    world.server.inject_always("delete_manager", Some(Fault::Fail(Disposition::Refused)));
    let mut driver = world.command().await;
    let drive = driver.drive(Goal::Unregistered, Budget::BY_RULES, &TestCaller::default()).await;
    assert!(world.server.calls().contains(&"delete_manager"), "{:?}", world.server.calls());
    assert!(drive.unregistration().is_none(), "{:?}", world.server.calls());
    assert!(world.holds_the_servers_token() && world.disk.state().journal.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_step_that_finds_its_runner_unregistered_by_another_process_ends_it() {
    let mut world = World::new();
    let mut wanted = enrollment(registration_token());
    wanted.entry.name = "a".to_owned();
    world.config.enrollments.push(wanted);
    let mut daemon = world.driver(Asker::Daemon, None).await;
    take_steps(&mut daemon, 1).await;
    let mut command = world.command().await;
    command.drive(Goal::Unregistered, Budget::BY_RULES, &TestCaller::default()).await;
    take_steps(&mut daemon, 1).await;
    assert!(matches!(daemon.state(), State::Retired { .. }), "{:?}", daemon.state());
    assert!(world.server.runners().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_rotation_without_a_place_for_its_token_is_not_sent_and_says_so() {
    let world = World::new();
    world.disk.state().is_stateless = true;
    let mut driver = world.command().await;
    world.disk.state().entries.clear();
    let drive = driver.drive(Goal::Rotated, Budget::BY_RULES, &TestCaller::default()).await;
    assert_eq!(drive.outcome(), Some(Outcome::NoEntry));
    assert!(matches!(drive.failure(), Some(StepFailure::Operation(crate::ops::Error::NoEntry(_)))));
    assert!(world.server.calls().is_empty());
}

/// A registration of the command line's.
fn registering(world: &World) -> TestDriver {
    let enrollment = enrollment(registration_token());
    let runner = Runner::blank(enrollment.key.clone(), enrollment.source.origin(), enrollment.site.clone());
    let managed = ManagedRunner { runner, enrollment: Some(Box::new(enrollment)), unfinished: None, twin_of: None };
    let asker = Asker::Command { access_token: None, entry_fate: EntryFate::Drop };
    let ops = Ops::new(world.server.clone(), world.disk.clone(), identity());
    let engine = Engine { ops, clock: world.clock.clone(), chance: || Fraction::ZERO, skews: RefCell::default() };
    Driver::new(Rc::new(engine), managed, Rc::new(world.config.clone()), asker)
}

#[tokio::test(start_paused = true)]
async fn a_registration_waits_for_the_server_to_the_end_of_its_budget() {
    let world = World::new();
    world.server.inject_always("register", Some(Fault::Fail(Disposition::NotExecuted { retry_after: None })));
    let budget = Duration::from_secs(30);
    let drive = registering(&world).drive(Goal::Registered, Budget::Within(budget), &TestCaller::default()).await;
    let requests = world.server.requests();
    let probes = requests.iter().filter(|request| request.call == "probe").count();
    assert!(drive.taken.len() > 3, "{:?}", drive.taken);
    assert_eq!(drive.taken.len() + probes, requests.len());
    assert_eq!(requests[requests.len() - 1].at.since(requests[0].at), budget, "the last try is at the end");
    let no_budget = Budget::Within(Duration::ZERO);
    let once = registering(&world).drive(Goal::Registered, no_budget, &TestCaller::default()).await;
    assert_eq!(once.taken.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_registration_is_not_begun() {
    let world = World::new();
    let drive = registering(&world).drive(Goal::Registered, Budget::BY_RULES, &interrupted()).await;
    assert!(drive.is_interrupted && world.server.calls().is_empty());
}

/// An access token for the server in the settings, and one verification, by which the server confirms the id.
async fn with_access_token(world: &mut World) {
    let access_token = Source::Value { token: Token::parse("glpat-access").unwrap(), origin: "a test".to_owned() };
    world.config.servers = vec![ServerAccess {
        url: url(),
        access_token,
        tls: TlsFiles::default(),
        keeping: crate::lifecycle::AccessKeeping::default(),
    }];
    world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
}

/// Takes the next steps of a daemon.
async fn take_steps(driver: &mut TestDriver, count: usize) {
    for _ in 0..count {
        let plan = driver.plan().unwrap();
        tokio::time::sleep(plan.at.since(driver.now())).await;
        driver.step(plan, std::future::pending()).await;
    }
}

/// Takes steps until this call was made so often.
async fn take_steps_to(driver: &mut TestDriver, world: &World, call: &str, count: usize) {
    for _ in 0..40 {
        if world.server.calls().iter().filter(|made| **made == call).count() == count {
            return;
        }
        take_steps(driver, 1).await;
    }
    panic!("{:?}", world.server.calls());
}

#[tokio::test(start_paused = true)]
async fn a_lost_reset_by_id_is_not_repeated_before_a_verification_was_answered() {
    for has_restarted in [false, true] {
        let mut world = World::new();
        with_access_token(&mut world).await;
        // A rotation elsewhere has replaced the token.
        world.server.restore(world.id, &world.server.add_runner().1);
        let mut driver = world.driver(Asker::Daemon, None).await;
        world.server.inject("reset_by_id", Fault::LoseAnswer);
        take_steps_to(&mut driver, &world, "reset_by_id", 1).await;
        assert!(!world.disk.state().journal.is_empty(), "a crash is told of it");
        if has_restarted {
            driver = world.driver(Asker::Daemon, Some(Unfinished::LostReset)).await;
        }
        let unanswered = Fault::Fail(Disposition::Unknown { retry_after: None });
        world.server.inject_always("verify", Some(unanswered));
        let before = world.server.calls().len();
        take_steps(&mut driver, 8).await;
        assert_eq!(world.server.calls()[before..], ["verify"; 8], "{has_restarted}");
        world.server.inject_always("verify", None);
        take_steps_to(&mut driver, &world, "reset_by_id", 2).await;
        assert!(world.holds_the_servers_token(), "{has_restarted}");
        take_steps(&mut driver, 1).await;
        assert!(matches!(driver.state(), State::Active(_)) && world.disk.state().journal.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reset_by_id_is_settled_once_the_token_is_accepted_after_all() {
    let mut world = World::new();
    with_access_token(&mut world).await;
    let ours = world.server.runners()[&world.id.number()].clone();
    world.server.inject_always("verify", Some(Fault::Fail(Disposition::Refused)));
    world.server.inject("reset_by_id", Fault::Fail(Disposition::Unknown { retry_after: None }));
    let mut driver = world.driver(Asker::Daemon, None).await;
    take_steps_to(&mut driver, &world, "reset_by_id", 1).await;
    assert!(!world.disk.state().journal.is_empty());
    world.server.inject_always("verify", None);
    take_steps(&mut driver, 1).await;
    assert!(matches!(driver.state(), State::Active(_)) && world.disk.state().journal.is_empty());
    assert_eq!(world.disk.tokens(), [ours.token]);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_about_one_token_does_not_count_for_the_next() {
    let world = World::new();
    let mut driver = world.driver(Asker::Daemon, None).await;
    world.server.inject("verify", Fault::Fail(Disposition::Refused));
    take_steps(&mut driver, 1).await;
    let refused = |driver: &TestDriver| driver.state().evidence().asked.map(|finding| finding.count);
    assert_eq!(refused(&driver), Some(1));
    let evidence = driver.runner.held.evidence.clone();
    // Another process replaces the token, and a lagging replica refuses the new one once.
    let other = Ops::new(world.server.clone(), world.disk.clone(), identity());
    let mut runner = Runner::recorded(driver.runner.record.clone(), driver.runner.site.clone());
    other.rotate(&mut runner, None, &crate::ops::memory::inquiry_at(world.clock.truth())).await.unwrap();
    world.server.inject("verify", Fault::Fail(Disposition::Refused));
    take_steps(&mut driver, 1).await;
    assert!(matches!(driver.state(), State::Active(_)), "{:?}", driver.state());
    assert_eq!(refused(&driver), Some(1));
    // Nor does a process that starts now count what was written about the former one.
    world.disk.state().held.values_mut().for_each(|held| held.evidence.clone_from(&evidence));
    let restarted = world.driver(Asker::Daemon, None).await;
    assert_eq!(refused(&restarted), None);
    assert!(world.holds_the_servers_token());
}

#[tokio::test(start_paused = true)]
async fn a_server_without_the_call_for_managers_has_to_say_so_twice() {
    for is_always in [false, true] {
        let world = World::new();
        world.command().await.drive(Goal::Verified, Budget::BY_RULES, &TestCaller::default()).await;
        world.disk.state().records.values_mut().for_each(|record| record.origin = crate::model::Origin::Given);
        let unsupported = Fault::Fail(Disposition::Unsupported);
        if is_always {
            world.server.inject_always("delete_manager", Some(unsupported));
        } else {
            world.server.inject("delete_manager", unsupported);
        }
        let mut driver = world.command().await;
        let drive = driver.drive(Goal::Unregistered, Budget::BY_RULES, &TestCaller::default()).await;
        assert_eq!(world.server.calls(), ["verify", "delete_manager", "verify", "delete_manager"]);
        let found = drive.unregistration().map(|(found, _)| found);
        let expected = if is_always { Unregistration::AlreadyGone } else { Unregistration::Deleted };
        assert_eq!(found, Some(expected));
        assert!(world.disk.tokens().is_empty());
    }
}

/// A runner whose token is dead, in a daemon with an access token; the calls of its next steps.
async fn calls_for_a_dead_token(world: &World) -> Vec<&'static str> {
    world.disk.state().entries[0].token = EntryToken::Literal(Token::parse("made-up").unwrap());
    for record in world.disk.state().records.values_mut() {
        record.credential.as_mut().unwrap().token = Token::parse("made-up").unwrap();
    }
    let before = world.server.calls().len();
    let mut driver = world.driver(Asker::Daemon, None).await;
    take_steps(&mut driver, 8).await;
    world.server.calls()[before..].to_vec()
}

#[tokio::test(start_paused = true)]
async fn only_an_id_that_the_server_has_named_is_reset_with_an_access_token() {
    let seed = Token::parse("GR-seed").unwrap();
    for (is_confirmed, has_seed, is_of_0_1, is_reset) in [
        (true, false, false, true),
        (true, true, false, true),
        // A registration by version 0.1 is known by its seed, whose whole digest that version did not write.
        (false, true, true, true),
        // A token that was given for an entry says nothing about the id that the entry claims.
        (false, true, false, false),
        (false, false, false, false),
    ] {
        let mut world = World::new();
        with_access_token(&mut world).await;
        for record in world.disk.state().records.values_mut() {
            record.confirmed_id = record.id.filter(|_| is_confirmed);
            record.seed = has_seed.then(|| seed.fingerprint());
            record.seed_digest = (has_seed && !is_of_0_1).then(|| seed.digest());
        }
        let calls = calls_for_a_dead_token(&world).await;
        let case = format!("{is_confirmed} {has_seed} {is_of_0_1}: {calls:?}");
        assert_eq!(calls.contains(&"reset_by_id"), is_reset, "{case}");
    }
    // The id of another runner in the record is none that was confirmed.
    let mut world = World::new();
    with_access_token(&mut world).await;
    let (victim, credential) = world.server.add_runner();
    world.disk.state().records.values_mut().for_each(|record| record.id = Some(victim));
    let calls = calls_for_a_dead_token(&world).await;
    assert!(!calls.contains(&"reset_by_id"), "{calls:?}");
    assert_eq!(world.server.runners()[&victim.number()].token, credential.token);
}

#[tokio::test(start_paused = true)]
async fn a_report_identifies_the_token_by_its_fingerprint() {
    let world = World::new();
    let driver = world.command().await;
    let report = record_report(&driver.runner, Timestamp::from_millis(START));
    let token = world.server.runners()[&world.id.number()].token.clone();
    assert_eq!(report.token_fingerprint, Some(token.fingerprint()));
}
