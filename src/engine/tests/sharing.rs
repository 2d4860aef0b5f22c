//! Machines that share one runner over a store in memory, each with a disk of its own.

mod healing;

use std::cell::RefCell;
use std::future::ready;

use super::*;
use crate::model::{Origin, ShareName, SystemId};
use crate::secret::SealingKey;
use crate::sharing::memory::MemoryEngine;
use crate::sharing::{AnyEngine, Shares};

const LIFE: Duration = Duration::from_secs(3600);

struct Machine {
    disk: MemoryDisk,
    driver: TestDriver,
}

/// A GitLab, a store, and the settings that all machines have.
struct Fleet {
    clock: TokioClock,
    server: MemoryServer,
    store: MemoryEngine,
    config: Config,
    /// Whether tokens are sealed in the store.
    is_sealed: bool,
    machines: Vec<Machine>,
}

fn name() -> ShareName {
    "docker-fleet".parse().unwrap()
}

impl Fleet {
    fn new() -> Self {
        let clock = TokioClock::new();
        let server = MemoryServer::new(clock.clone(), Some(LIFE));
        let enrollment = crate::ops::Enrollment { share_as: Some(name()), ..enrollment(registration_token()) };
        let config = Config { enrollments: vec![enrollment], ..Config::default() };
        Self { clock, server, store: MemoryEngine::default(), config, is_sealed: false, machines: Vec::new() }
    }

    async fn with(machines: usize) -> Self {
        let mut fleet = Self::new();
        for _ in 0..machines {
            fleet.add().await;
        }
        fleet
    }

    async fn add(&mut self) -> usize {
        let number = self.machines.len();
        self.machines.push(self.machine(number, MemoryDisk::default()).await);
        number
    }

    async fn machine(&self, number: usize, disk: MemoryDisk) -> Machine {
        self.machine_of(number, number, disk).await
    }

    /// A machine that has the system_id of this number.
    async fn machine_of(&self, id: usize, number: usize, disk: MemoryDisk) -> Machine {
        let system_id: SystemId = format!("s_{id:012}").parse().unwrap();
        let ops = Ops::new(
            self.server.clone(),
            disk.clone(),
            crate::ops::Identity { system_id, host: format!("host-{number}"), ..identity() },
        );
        ops.share_in(Some(self.shares()));
        let engine =
            Rc::new(Engine { ops, clock: self.clock.clone(), chance: || Fraction::ZERO, skews: RefCell::default() });
        let (inventory, _) = retake_inventory(&engine.ops, &self.config, &BTreeSet::new()).await.unwrap();
        let managed = inventory.runners.into_iter().next().unwrap();
        let driver = Driver::new(Rc::clone(&engine), managed, Rc::new(self.config.clone()), Asker::Daemon);
        Machine { disk, driver }
    }

    /// The process of a machine ends and starts again.
    async fn restart(&mut self, number: usize) {
        self.machines[number] = self.machine(number, self.machines[number].disk.clone()).await;
    }

    fn shares(&self) -> Shares<AnyEngine> {
        let key = SealingKey::from_text("a key of the tests with enough characters").unwrap();
        Shares::new(AnyEngine::Memory(self.store.clone()), self.is_sealed.then_some(key))
    }

    async fn stored(&self) -> crate::model::SharedRunner {
        self.shares().read(&name()).await.unwrap().unwrap().runner
    }

    /// One machine does all that is due; it hears of the store's changes.
    async fn run(&mut self, number: usize) -> Vec<Outcome> {
        let shares = self.shares();
        let driver = &mut self.machines[number].driver;
        let mut outcomes = Vec::new();
        for _ in 0..40 {
            // A store that does not answer reports nothing.
            let at = tokio::time::Instant::now();
            if let Ok(stored) = shares.read(&name()).await
                && driver.runner.take_report(stored.as_ref(), Some(at))
            {
                driver.enter(Outcome::Nudged);
            }
            let Some(plan) = driver.plan().filter(|plan| plan.at <= driver.now()) else { return outcomes };
            outcomes.extend(driver.step(plan, std::future::pending()).await.outcomes);
        }
        panic!("machine {number} does not come to rest: {outcomes:?}");
    }

    /// The failures of one machine's steps in this time.
    async fn failures(&mut self, number: usize, span: Duration) -> Vec<String> {
        let (end, mut failures) = (tokio::time::Instant::now() + span, Vec::new());
        while tokio::time::Instant::now() < end {
            let driver = &mut self.machines[number].driver;
            match driver.plan().filter(|plan| plan.at <= driver.now()) {
                Some(plan) => {
                    let report = driver.step(plan, std::future::pending()).await;
                    failures.extend(report.failure.map(|failure| failure.to_string()));
                }
                None => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
        failures
    }

    /// All machines but those that are away do what is due, until this time has passed.
    async fn pass(&mut self, span: Duration, away: &[usize]) {
        let end = tokio::time::Instant::now() + span;
        while tokio::time::Instant::now() < end {
            for number in (0..self.machines.len()).filter(|number| !away.contains(number)) {
                self.run(number).await;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    fn current(&self) -> Token {
        let runners = self.server.runners();
        assert_eq!(runners.len(), 1, "one runner on the server: {runners:?}");
        runners.values().next().unwrap().token.clone()
    }

    fn assert_all_hold_the_servers_token(&self) {
        let current = self.current();
        for (number, machine) in self.machines.iter().enumerate() {
            assert_eq!(machine.disk.tokens(), std::slice::from_ref(&current), "machine {number}");
        }
    }

    fn count(&self, call: &str) -> usize {
        self.server.calls().iter().filter(|known| **known == call).count()
    }
}

#[tokio::test(start_paused = true)]
async fn one_machine_registers_the_shared_runner_and_the_others_take_it() {
    let mut fleet = Fleet::with(5).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    fleet.assert_all_hold_the_servers_token();
    assert_eq!(fleet.count("register"), 1);
    let stored = fleet.stored().await;
    assert_eq!(stored.members.len(), 5);
    assert_eq!(stored.token.unwrap().lineage.generation(), 1);
    assert!(stored.pending.is_none());
    assert_eq!(fleet.server.runners().values().next().unwrap().managers.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn store_is_told_of_a_registration_by_one_write() {
    let mut fleet = Fleet::with(1).await;
    // Its announcement and one more come through: between two, another machine would register the runner again.
    fleet.store.lose_requests_after(2, 100);
    let driver = &mut fleet.machines[0].driver;
    let plan = driver.plan().unwrap();
    let report = driver.step(plan, std::future::pending()).await;
    assert!(matches!(report.outcomes[0], Outcome::Registered(_)), "{report:?}");
    let stored = fleet.stored().await;
    assert_eq!(stored.token.unwrap().credential.token, fleet.current());
    assert!(stored.pending.is_none());
}

#[tokio::test(start_paused = true)]
async fn one_machine_rotates_the_shared_token_and_the_others_follow() {
    let mut fleet = Fleet::with(4).await;
    fleet.pass(LIFE * 4, &[]).await;
    fleet.assert_all_hold_the_servers_token();
    let resets = fleet.count("reset");
    assert!((4..=7).contains(&resets), "{resets} resets in four lives");
    let stored = fleet.stored().await;
    assert_eq!(stored.token.unwrap().lineage.generation(), resets as u64 + 1);
    assert!(stored.pending.is_none());
}

#[tokio::test(start_paused = true)]
async fn store_is_told_later_of_a_token_that_it_could_not_be_told_of() {
    let mut fleet = Fleet::with(2).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    tokio::time::sleep(LIFE * 7 / 10).await;
    let before = fleet.current();
    // The announcement comes through, and then nothing.
    let mut plan = None;
    while plan.is_none() {
        let driver = &mut fleet.machines[0].driver;
        plan = driver.plan().filter(|plan| plan.step == Step::Rotate && plan.at <= driver.now());
        if plan.is_none() {
            let next = driver.plan().unwrap();
            driver.step(next, std::future::pending()).await;
        }
    }
    fleet.store.lose_requests_after(1, 100);
    let report = fleet.machines[0].driver.step(plan.unwrap(), ready(())).await;
    assert!(matches!(report.outcomes[0], Outcome::Rotated(_)), "{report:?}");
    assert_ne!(fleet.current(), before);
    assert_eq!(fleet.stored().await.token.unwrap().credential.token, before);
    fleet.store.lose_requests(0);
    fleet.pass(Duration::from_secs(120), &[]).await;
    fleet.assert_all_hold_the_servers_token();
    assert_eq!(fleet.count("reset"), 1);
}

#[tokio::test(start_paused = true)]
async fn machine_that_was_away_for_generations_takes_the_present_token() {
    for lives in [1, 10] {
        let mut fleet = Fleet::with(3).await;
        fleet.pass(Duration::from_secs(60), &[]).await;
        fleet.pass(LIFE * lives, &[2]).await;
        let resets = fleet.count("reset");
        fleet.restart(2).await;
        fleet.pass(Duration::from_secs(30), &[]).await;
        fleet.assert_all_hold_the_servers_token();
        assert_eq!(fleet.count("reset"), resets);
    }
}

#[tokio::test(start_paused = true)]
async fn runner_that_was_registered_beside_that_of_another_machine_is_deleted() {
    let mut fleet = Fleet::with(2).await;
    fleet.server.inject_always("register", Some(Fault::AnswerAfter(Duration::from_secs(200))));
    let mut slow = fleet.machines.remove(0);
    let plan = slow.driver.plan().unwrap();
    let registering = slow.driver.step(plan, std::future::pending());
    let others = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        fleet.run(0).await;
        fleet.server.inject_always("register", None);
        tokio::time::sleep(Duration::from_secs(100)).await;
        fleet.run(0).await;
    };
    let (report, ()) = tokio::join!(registering, others);
    assert_eq!(report.outcomes, [Outcome::Reenrolled(None)], "{report:?}");
    fleet.machines.push(slow);
    fleet.pass(Duration::from_secs(60), &[]).await;
    fleet.assert_all_hold_the_servers_token();
    assert_eq!(fleet.stored().await.members.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn store_that_was_restored_gets_the_present_token_back() {
    let mut fleet = Fleet::with(3).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let yesterday = fleet.store.value_of(&name());
    fleet.pass(LIFE, &[]).await;
    let resets = fleet.count("reset");
    fleet.store.restore(&name(), yesterday);
    fleet.pass(Duration::from_secs(600), &[]).await;
    fleet.assert_all_hold_the_servers_token();
    assert_eq!(fleet.stored().await.token.unwrap().credential.token, fleet.current());
    assert_eq!(fleet.count("reset"), resets, "nothing is reset to find out");
}

#[tokio::test(start_paused = true)]
async fn without_the_store_the_token_is_used_and_not_rotated() {
    let mut fleet = Fleet::with(2).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let token = fleet.current();
    fleet.store.stop(true);
    for _ in 0..45 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        for Machine { driver, .. } in &mut fleet.machines {
            while let Some(plan) = driver.plan().filter(|plan| plan.at <= driver.now()) {
                driver.step(plan, std::future::pending()).await;
            }
        }
    }
    for machine in &fleet.machines {
        let sharing = machine.driver.report().sharing.unwrap();
        assert!(sharing.problem.is_some() && !sharing.is_lasting && !sharing.untold, "{sharing:?}");
        assert_eq!((sharing.generation, sharing.members, sharing.changing), (Some(1), Some(2), None));
        assert!(sharing.contact_seconds.unwrap() >= 45 * 60 - 10, "{:?}", sharing.contact_seconds);
    }
    assert_eq!((fleet.count("reset"), fleet.current()), (0, token));
    fleet.store.stop(false);
    fleet.pass(Duration::from_secs(300), &[]).await;
    assert_eq!(fleet.count("reset"), 1);
    fleet.assert_all_hold_the_servers_token();
}

#[tokio::test(start_paused = true)]
async fn value_of_another_runner_is_neither_used_nor_overwritten() {
    let mut fleet = Fleet::with(2).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let before = fleet.current();
    let shares = fleet.shares();
    let stored = shares.read(&name()).await.unwrap().unwrap();
    let (id, credential) = fleet.server.add_runner();
    let token = crate::model::SharedToken {
        lineage: stored.runner.token.clone().unwrap().lineage.with_next(credential.token.digest()),
        credential,
    };
    let foreign = crate::model::SharedRunner { id: Some(id), token: Some(token), ..stored.runner.clone() };
    shares.swap(&name(), Some(&stored), foreign.clone()).await.unwrap();
    fleet.pass(LIFE, &[]).await;
    assert_eq!(fleet.stored().await, foreign);
    assert_eq!(fleet.count("reset"), 0);
    for machine in &fleet.machines {
        assert_eq!(machine.disk.tokens(), std::slice::from_ref(&before));
    }
}

#[tokio::test(start_paused = true)]
async fn machine_that_stops_deletes_its_manager_and_leaves() {
    let mut fleet = Fleet::with(2).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let driver = &mut fleet.machines[1].driver;
    let plan = crate::lifecycle::Plan { step: Step::Unregister, ..driver.plan().unwrap() };
    let report = driver.step(plan, std::future::pending()).await;
    assert_eq!(report.unregistration, Some(Unregistration::Deleted), "{report:?}");
    let machines: Vec<_> = fleet.stored().await.members.into_iter().map(|member| member.host).collect();
    assert_eq!(machines, ["host-0"]);
    fleet.current();
}

#[tokio::test(start_paused = true)]
async fn last_machine_deletes_the_runner_for_all_if_the_settings_say_so() {
    let mut fleet = Fleet::new();
    fleet.config.shutdown.unregister_shared = UnregisterShared::Last;
    fleet.add().await;
    fleet.add().await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    for (number, left) in [(0, 1), (1, 0)] {
        let driver = &mut fleet.machines[number].driver;
        let plan = crate::lifecycle::Plan { step: Step::Unregister, ..driver.plan().unwrap() };
        let report = driver.step(plan, std::future::pending()).await;
        assert_eq!(report.outcomes, [Outcome::Unregistered], "{report:?}");
        assert_eq!(fleet.server.runners().len(), left);
    }
    assert_eq!(fleet.store.value_of(&name()), None);
}

#[tokio::test(start_paused = true)]
async fn fleet_that_has_stopped_completely_makes_its_runner_again_in_any_order() {
    for order in [[0, 1], [1, 0]] {
        let mut fleet = Fleet::new();
        fleet.config.shutdown.unregister_shared = UnregisterShared::Last;
        fleet.add().await;
        fleet.add().await;
        // A rotation leaves a former token beside the present one.
        fleet.pass(LIFE, &[]).await;
        let before = fleet.current();
        for number in [0, 1] {
            let driver = &mut fleet.machines[number].driver;
            let plan = crate::lifecycle::Plan { step: Step::Unregister, ..driver.plan().unwrap() };
            driver.step(plan, std::future::pending()).await;
        }
        assert!(fleet.server.runners().is_empty());
        let [first, second] = order;
        fleet.restart(first).await;
        fleet.pass(Duration::from_secs(300), &[second]).await;
        fleet.restart(second).await;
        fleet.pass(Duration::from_secs(300), &[]).await;
        assert_ne!(fleet.current(), before);
        fleet.assert_all_hold_the_servers_token();
        assert_eq!(fleet.stored().await.members.len(), 2, "{order:?}");
        assert_eq!(fleet.count("register"), 2, "{order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn value_that_was_lost_comes_back_with_its_origin() {
    let mut fleet = Fleet::with(2).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    assert_eq!(fleet.stored().await.origin, Origin::Registered);
    fleet.store.restore(&name(), None);
    // The machine that has taken the runner from the store.
    fleet.pass(Duration::from_secs(60), &[0]).await;
    let stored = fleet.stored().await;
    assert_eq!((stored.origin, stored.token.is_some()), (Origin::Registered, true));
}

#[tokio::test(start_paused = true)]
async fn without_a_reason_in_the_store_nothing_is_reset_and_managers_are_named_that_are_no_members() {
    let mut fleet = Fleet::new().with_recovery();
    fleet.add().await;
    fleet.add().await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let id = fleet.server.runners().keys().next().copied().unwrap();
    let id = RunnerId::try_new(id).unwrap();
    let now = fleet.machines[0].driver.now();
    fleet.server.contact_from(id, "s_0000000other", now);
    fleet.lose_token();
    fleet.restart(0).await;
    let failures = fleet.failures(0, Duration::from_secs(900)).await;
    let named = "GitLab lists a manager that is no member here and may have reset it: s_0000000other";
    assert!(failures.iter().any(|text| text.contains(named)), "{failures:#?}");
    assert!(failures.iter().all(|text| !text.contains("another machine is at work")), "{failures:#?}");
    assert_eq!(fleet.count("reset_by_id"), 0);
}

#[tokio::test(start_paused = true)]
async fn last_machine_does_not_delete_the_runner_under_a_copy_of_itself() {
    let mut fleet = Fleet::new();
    fleet.config.shutdown.unregister_shared = UnregisterShared::Last;
    fleet.add().await;
    let copy = fleet.machine_of(0, 1, MemoryDisk::default()).await;
    fleet.machines.push(copy);
    fleet.pass(Duration::from_secs(60), &[]).await;
    assert_eq!(fleet.stored().await.members.len(), 1);
    let shares = fleet.shares();
    let (machine, copy) = fleet.machines.split_at_mut(1);
    let (driver, copy) = (&mut machine[0].driver, &mut copy[0].driver);
    let plan = crate::lifecycle::Plan { step: Step::Unregister, ..driver.plan().unwrap() };
    let hearing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (at, stored) = (tokio::time::Instant::now(), shares.read(&name()).await.unwrap());
        assert!(copy.runner.take_report(stored.as_ref(), Some(at)));
        copy.enter(Outcome::Nudged);
        let plan = copy.plan().unwrap();
        copy.step(plan, std::future::pending()).await
    };
    let (_, heard) = tokio::join!(driver.step(plan, std::future::pending()), hearing);
    assert!(heard.failure.is_none(), "{heard:?}");
    assert_eq!(fleet.server.runners().len(), 1);
    assert_eq!(fleet.stored().await.leaving, None);
    fleet.current();
}

#[tokio::test(start_paused = true)]
async fn machine_that_has_watched_a_rotation_reads_the_store_no_more() {
    let mut fleet = Fleet::with(2).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let before = fleet.current();
    fleet.pass(LIFE * 4 / 5, &[1]).await;
    assert_ne!(fleet.current(), before);
    let (at, stored) = (tokio::time::Instant::now(), fleet.shares().read(&name()).await.unwrap());
    let reads = fleet.store.reads();
    let driver = &mut fleet.machines[1].driver;
    assert!(driver.runner.take_report(stored.as_ref(), Some(at)));
    driver.enter(Outcome::Nudged);
    let plan = driver.plan().unwrap();
    let report = driver.step(plan, std::future::pending()).await;
    assert!(matches!(report.outcomes[..], [Outcome::Adopted(_)]), "{report:?}");
    assert_eq!(fleet.store.reads(), reads);
    assert_eq!(fleet.machines[1].disk.tokens(), [fleet.current()]);
}

#[tokio::test(start_paused = true)]
async fn report_that_is_older_than_what_a_step_has_read_is_no_news() {
    let mut fleet = Fleet::with(2).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let (at, stored) = (tokio::time::Instant::now(), fleet.shares().read(&name()).await.unwrap());
    let before = fleet.current();
    fleet.pass(LIFE * 4 / 5, &[1]).await;
    assert_ne!(fleet.current(), before);
    let runner = &mut fleet.machines[0].driver.runner;
    assert!(!runner.take_report(stored.as_ref(), Some(at)));
    let report = runner.sharing(None, Timestamp::from_millis(0)).unwrap();
    assert_eq!(report.generation, Some(2));
}

#[tokio::test(start_paused = true)]
async fn machine_that_joins_while_the_last_one_leaves_rotates_the_token_first() {
    let mut fleet = Fleet::new();
    fleet.config.shutdown.unregister_shared = UnregisterShared::Last;
    fleet.add().await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let before = fleet.current();
    // It says that it leaves, and is paused before its deletion.
    fleet.server.inject("delete_runner", Fault::Fail(Disposition::Unknown { retry_after: None }));
    let driver = &mut fleet.machines[0].driver;
    let plan = crate::lifecycle::Plan { step: Step::Unregister, ..driver.plan().unwrap() };
    driver.step(plan, std::future::pending()).await;
    assert!(fleet.stored().await.leaving.is_some());
    let joined = fleet.add().await;
    fleet.run(joined).await;
    assert_eq!(fleet.machines[joined].disk.tokens(), [], "it waits for the deletion");
    fleet.pass(Duration::from_secs(180), &[0]).await;
    assert_ne!(fleet.current(), before);
    assert_eq!(fleet.machines[joined].disk.tokens(), [fleet.current()]);
    assert_eq!(fleet.stored().await.leaving, None);
}

#[tokio::test(start_paused = true)]
async fn one_refusal_does_not_take_the_token_of_a_runner_that_was_left_out_of_the_store() {
    let mut fleet = Fleet::new();
    fleet.config.shutdown.unregister_shared = UnregisterShared::Last;
    fleet.add().await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let before = fleet.current();
    // Its host dies before the deletion.
    fleet.server.inject("delete_runner", Fault::Fail(Disposition::Unknown { retry_after: None }));
    let driver = &mut fleet.machines[0].driver;
    let plan = crate::lifecycle::Plan { step: Step::Unregister, ..driver.plan().unwrap() };
    driver.step(plan, std::future::pending()).await;
    let joined = fleet.add().await;
    fleet.pass(Duration::from_secs(80), &[0]).await;
    // A replica that lags.
    fleet.server.inject("verify", Fault::Fail(Disposition::Refused));
    fleet.pass(Duration::from_secs(600), &[0]).await;
    assert_eq!(fleet.server.runners().len(), 1, "no second runner was made");
    assert_ne!(fleet.current(), before);
    assert_eq!(fleet.machines[joined].disk.tokens(), [fleet.current()]);
}

#[tokio::test(start_paused = true)]
async fn late_report_of_a_watch_does_not_bring_a_former_token_back() {
    let mut fleet = Fleet::with(2).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let late = fleet.shares().read(&name()).await.unwrap();
    let before = fleet.current();
    fleet.pass(LIFE * 4 / 5, &[1]).await;
    assert_ne!(fleet.current(), before);
    let runner = &mut fleet.machines[0].driver.runner;
    assert!(!runner.take_report(late.as_ref(), None));
    assert!(runner.take_report(late.as_ref(), Some(tokio::time::Instant::now())), "a read says that it was restored");
}

#[tokio::test(start_paused = true)]
async fn machine_that_joins_after_all_others_are_gone_recovers_the_dead_token_of_a_sealed_value() {
    for is_sealed in [true, false] {
        let mut fleet = Fleet { is_sealed, ..Fleet::new().with_recovery() };
        fleet.add().await;
        fleet.pass(Duration::from_secs(60), &[]).await;
        tokio::time::sleep(LIFE * 2).await;
        let joined = fleet.add().await;
        fleet.pass(Duration::from_secs(900), &[0]).await;
        // Without a key any writer of the store could name the runner whose token is reset.
        assert_eq!((fleet.count("register"), fleet.count("reset_by_id")), (1, usize::from(is_sealed)));
        if is_sealed {
            assert_eq!(fleet.machines[joined].disk.tokens(), [fleet.current()]);
            assert_eq!(fleet.stored().await.token.unwrap().credential.token, fleet.current());
        }
    }
}

impl Fleet {
    /// The access token that recoveries need.
    fn with_recovery(mut self) -> Self {
        let access_token = Source::Value { token: Token::parse("glpat-access").unwrap(), origin: "a test".to_owned() };
        self.config.servers = vec![ServerAccess {
            url: url(),
            access_token,
            tls: TlsFiles::default(),
            keeping: crate::lifecycle::AccessKeeping::default(),
        }];
        let engine = crate::sharing::EngineSettings::Kubernetes { kubeconfig: None, namespace: None };
        self.config.sharing = Some(crate::sharing::Settings { engine, encryption_key: None, recover: true });
        self
    }
}
