//! The daemon against a GitLab and a disk in memory, on a paused clock.

mod events;
mod sharing;

use std::cell::RefCell;
use std::future::ready;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::*;
use crate::clock::Clock;
use crate::engine::{Config, Policy, PolicySelector, RotateFound, RotatePolicy, Shutdown, Unregister};
use crate::gitlab::Disposition;
use crate::lifecycle::{Fraction, RegisterAgain};
use crate::log::Captured;
use crate::model::{Credential, Expiry, Origin, RunnerId, RunnerKey, Site, StateName, Step, TlsFiles, VerifyOutcome};
use crate::ops::memory::{
    Fault, MemoryDisk, MemoryServer, TokioClock, asked, identity, inquiry_at, registration_token, url,
};
use crate::ops::{AccessToken, Ops, RegistrationSource};
use crate::secret::{Source, Token};
use crate::status::Phase;
use crate::store::EntryToken;

const UNKNOWN: Disposition = Disposition::Unknown { retry_after: None };
const NOT_EXECUTED: Disposition = Disposition::NotExecuted { retry_after: None };

struct DaemonFixture {
    clock: TokioClock,
    server: MemoryServer,
    disk: MemoryDisk,
}

impl DaemonFixture {
    fn new(life: Option<Duration>) -> Self {
        let clock = TokioClock::new();
        Self { server: MemoryServer::new(clock.clone(), life), disk: MemoryDisk::default(), clock }
    }

    fn parts(&self) -> Parts<MemoryServer, MemoryDisk, TokioClock> {
        Parts {
            engine: Engine {
                ops: Ops::new(self.server.clone(), self.disk.clone(), identity()),
                clock: self.clock.clone(),
                chance: || Fraction::ZERO,
                skews: RefCell::default(),
            },
            watch: None,
            request_timeout: secs(30),
            heartbeat: Heartbeat::every(secs(3600)),
            registry: StatusRegistry::default(),
            counters: Counters::new(),
            feed: SettingsFeed::default(),
            hooks: HookFeed::default(),
            reload: Box::new(|| Box::pin(ready(Err("invalid".to_owned())))),
        }
    }

    /// Runs the daemon for a while, then sends a notice and waits until it has stopped.
    async fn run(&self, config: Config, life: Duration, ending: Notice) {
        let (notices, inbox) = mpsc::unbounded_channel();
        let daemon = run(config, self.parts(), inbox);
        let stop = async {
            sleep(life).await;
            notices.send(ending).unwrap();
        };
        let (result, ()) = tokio::join!(daemon, stop);
        result.unwrap();
    }

    /// Adds a runner that is only found in config.toml.
    fn add_found(&self, name: &str) -> Credential {
        let (id, credential) = self.server.add_runner();
        self.disk.add_entry(name, Some(id), &credential);
        credential
    }

    /// Adds a runner whose record says that it was created in GitLab.
    async fn add_created(&self) -> RunnerId {
        self.add_found("created");
        self.run(rotating_found(), secs(10), Notice::StopAndKeep).await;
        self.disk.state().records.values_mut().for_each(|record| record.origin = Origin::Given);
        self.disk.state().entries[0].id.unwrap()
    }
}

/// Entries that were only found are rotated like those of enrollments.
fn rotating_found() -> Config {
    Config { rotate_found: RotateFound::Always, ..Config::default() }
}

fn enrolled(token: Token) -> Config {
    Config { enrollments: vec![crate::ops::memory::enrollment(token)], ..rotating_found() }
}

const HOUR: i64 = 3_600_000;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[tokio::test(start_paused = true)]
async fn a_life_from_registration_to_unregistration() {
    let fixture = DaemonFixture::new(Some(secs(1200)));
    fixture.run(enrolled(registration_token()), secs(1100), Notice::Stop).await;
    assert_eq!(fixture.server.calls(), ["probe", "register", "reset", "delete_runner"]);
    assert!(fixture.server.runners().is_empty());
    assert!(fixture.disk.tokens().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_the_runner() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    fixture.run(enrolled(registration_token()), secs(60), Notice::StopAndKeep).await;
    fixture.run(enrolled(registration_token()), secs(60), Notice::StopAndKeep).await;
    assert_eq!(fixture.server.calls(), ["probe", "register", "verify"]);
    assert_eq!(fixture.disk.tokens().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_state_directory_makes_no_second_runner() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    fixture.run(enrolled(registration_token()), secs(60), Notice::StopAndKeep).await;
    fixture.disk.state().records.clear();
    fixture.run(enrolled(registration_token()), secs(60), Notice::StopAndKeep).await;
    assert_eq!(fixture.server.calls(), ["probe", "register", "verify"]);
    assert_eq!(fixture.server.runners().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_runner_does_not_affect_a_healthy_one() {
    let life = secs(900);
    let fixture = DaemonFixture::new(Some(life));
    let dead = Credential { token: Token::parse("glrtr-dead").unwrap(), obtained_at: None, expiry: Expiry::Unknown };
    fixture.disk.add_entry("dead", None, &dead);
    fixture.add_found("healthy");
    fixture.run(rotating_found(), life * 10, Notice::StopAndKeep).await;
    let requests = fixture.server.requests();
    let resets: Vec<_> = requests.iter().filter(|request| request.call == "reset").map(|request| request.at).collect();
    assert!(resets.len() >= 10, "{} rotations in ten lives", resets.len());
    for pair in resets.windows(2) {
        assert!(pair[1].since(pair[0]) <= life.mul_f64(0.75), "late: {pair:?}");
    }
    let of_dead: Vec<_> = requests.iter().filter(|request| request.token == dead.token.fingerprint()).collect();
    let first = of_dead[0].at;
    assert!(of_dead.iter().filter(|request| request.at.since(first) < secs(600)).count() < 12);
    assert!(of_dead.len() < 12);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_is_caught_up_with() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    fixture.add_found("found");
    fixture.server.inject_always("register", Some(Fault::Fail(NOT_EXECUTED)));
    fixture.server.inject_always("verify", Some(Fault::Fail(UNKNOWN)));
    let server = fixture.server.clone();
    let recovery = async move {
        sleep(secs(60)).await;
        server.inject_always("register", None);
        server.inject_always("verify", None);
    };
    tokio::join!(fixture.run(enrolled(registration_token()), secs(180), Notice::StopAndKeep), recovery);
    assert_eq!(fixture.server.runners().len(), 2);
    assert_eq!(fixture.disk.tokens().len(), 2);
    let last = fixture.disk.state().records.values().map(|record| record.last_verify.clone()).collect::<Vec<_>>();
    assert!(last.iter().flatten().all(|verify| verify.outcome == VerifyOutcome::Accepted), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_reset_that_was_not_executed_is_repeated() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.add_found("found");
    fixture.server.inject("reset", Fault::Fail(UNKNOWN));
    fixture.run(rotating_found(), secs(2800), Notice::StopAndKeep).await;
    let calls = fixture.server.calls();
    assert_eq!(calls, ["verify", "reset", "verify", "verify", "reset"]);
    assert!(fixture.disk.state().journal.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_reset_that_was_executed_is_not_repeated() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.add_found("found");
    fixture.server.inject("reset", Fault::LoseAnswer);
    fixture.run(rotating_found(), secs(6 * 3600), Notice::StopAndKeep).await;
    let resets = fixture.server.calls().iter().filter(|call| **call == "reset").count();
    assert_eq!(resets, 1);
    let state = fixture.disk.state().records.values().next().unwrap().state;
    assert_eq!(state, Some(StateName::Rejected));
}

#[tokio::test(start_paused = true)]
async fn writing_config_toml_is_retried_until_it_succeeds() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.add_found("found");
    fixture.disk.fail("edit", 5);
    fixture.run(rotating_found(), secs(3300), Notice::StopAndKeep).await;
    assert_eq!(fixture.server.calls(), ["verify", "reset"]);
    let (_, served) = fixture.server.runners().into_iter().next().unwrap();
    assert_eq!(fixture.disk.tokens(), [served.token]);
    assert!(fixture.disk.state().journal.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_an_hour_off_delays_no_rotation() {
    for skew_millis in [-HOUR, HOUR] {
        let life = secs(7200);
        let fixture = DaemonFixture::new(Some(life));
        *fixture.clock.offset_millis.borrow_mut() = skew_millis;
        fixture.add_found("found");
        fixture.run(rotating_found(), life * 3, Notice::StopAndKeep).await;
        let resets = fixture.server.requests().iter().filter(|request| request.call == "reset").count();
        assert!((4..=5).contains(&resets), "{resets} rotations with a skew of {skew_millis}");
        assert_eq!(fixture.disk.tokens().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_life_of_a_token_starts_at_its_own_issue() {
    let (enrolled, found) = (enrolled(registration_token()), rotating_found());
    for (config, skew_millis) in
        [&enrolled, &found].into_iter().flat_map(|config| [0, -HOUR, HOUR].map(|skew| (config, skew)))
    {
        let life = secs(10 * 86_400);
        let fixture = DaemonFixture::new(Some(life));
        *fixture.clock.offset_millis.borrow_mut() = skew_millis;
        if config.enrollments.is_empty() {
            fixture.add_found("found");
        }
        for _ in 0..2 {
            fixture.run(config.clone(), life * 3, Notice::StopAndKeep).await;
        }
        let issues: Vec<_> = fixture
            .server
            .requests()
            .into_iter()
            .filter(|request| !matches!(request.call, "verify" | "probe"))
            .collect();
        assert!(issues.len() > 8, "{} tokens in six lives", issues.len());
        for pair in issues.windows(2) {
            let share = pair[1].at.since(pair[0].at).div_duration_f64(life);
            assert!(
                (0.61..0.67).contains(&share),
                "replaced after {share} of its life, with a skew of {skew_millis} ms"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_jump_causes_one_verification() {
    let fixture = DaemonFixture::new(None);
    fixture.add_found("found");
    let clock = fixture.clock.clone();
    let jump = async move {
        sleep(secs(3600)).await;
        *clock.offset_millis.borrow_mut() = 5 * HOUR;
    };
    tokio::join!(fixture.run(rotating_found(), secs(3 * 3600), Notice::StopAndKeep), jump);
    assert_eq!(fixture.server.calls(), ["verify", "verify"]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_verifies_once_and_now() {
    let fixture = DaemonFixture::new(None);
    fixture.add_found("found");
    let (notices, inbox) = mpsc::unbounded_channel();
    let daemon = run(rotating_found(), fixture.parts(), inbox);
    let script = async {
        sleep(secs(10)).await;
        notices.send(Notice::Reload).unwrap();
        sleep(secs(10)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
    assert_eq!(fixture.server.calls(), ["verify", "verify"]);
}

#[tokio::test(start_paused = true)]
async fn an_old_copy_of_config_toml_is_corrected_without_a_reset() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    let old = fixture.add_found("found");
    let (notices, inbox) = mpsc::unbounded_channel();
    let daemon = run(rotating_found(), fixture.parts(), inbox);
    let script = async {
        sleep(secs(2700)).await;
        let current = fixture.disk.tokens();
        assert_ne!(current, std::slice::from_ref(&old.token));
        fixture.disk.state().entries[0].token = EntryToken::Literal(old.token.clone());
        notices.send(Notice::Reload).unwrap();
        sleep(secs(1)).await;
        assert_eq!(fixture.disk.tokens(), current);
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
    assert_eq!(fixture.server.calls(), ["verify", "reset", "verify"]);
}

#[tokio::test(start_paused = true)]
async fn only_the_removed_entry_of_an_enrollment_is_restored() {
    let fixture = DaemonFixture::new(None);
    fixture.add_found("found");
    let (notices, inbox) = mpsc::unbounded_channel();
    let daemon = run(enrolled(registration_token()), fixture.parts(), inbox);
    let script = async {
        sleep(secs(10)).await;
        assert_eq!(fixture.disk.tokens().len(), 2);
        fixture.disk.state().entries.clear();
        notices.send(Notice::Reload).unwrap();
        sleep(secs(10)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
    let names: Vec<_> = fixture.disk.state().entries.iter().map(|entry| entry.name.clone()).collect();
    assert_eq!(names, [Some("build-1".to_owned())]);
    assert_eq!(fixture.server.calls().iter().filter(|call| **call == "register").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removed_entry_whose_token_is_dead_is_not_restored() {
    let fixture = DaemonFixture::new(None);
    let (notices, inbox) = mpsc::unbounded_channel();
    let script = async {
        sleep(secs(10)).await;
        fixture.server.inject_always("verify", Some(crate::ops::memory::Fault::Fail(Disposition::Refused)));
        notices.send(Notice::Reload).unwrap();
        sleep(secs(1200)).await;
        assert!(count_of(&fixture, "verify") >= 2);
        fixture.disk.state().entries.clear();
        notices.send(Notice::Reload).unwrap();
        sleep(secs(60)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(enrolled(registration_token()), fixture.parts(), inbox), script);
    result.unwrap();
    assert!(fixture.disk.tokens().is_empty());
    assert_eq!(count_of(&fixture, "register"), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_state_directory_only_the_running_process_knows_of_a_lost_registration() {
    let fixture = DaemonFixture::new(None);
    fixture.disk.state().is_stateless = true;
    fixture.server.inject("register", crate::ops::memory::Fault::LoseAnswer);
    fixture.run(enrolled(registration_token()), secs(86_400), Notice::StopAndKeep).await;
    assert_eq!(count_of(&fixture, "register"), 1, "the process waits for a reload");
    assert!(fixture.disk.tokens().is_empty());
    fixture.run(enrolled(registration_token()), secs(60), Notice::StopAndKeep).await;
    assert_eq!(count_of(&fixture, "register"), 2, "the next one registers");
    assert_eq!(fixture.disk.tokens().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_not_restored_whose_token_another_record_has_replaced() {
    let fixture = DaemonFixture::new(None);
    let (notices, inbox) = mpsc::unbounded_channel();
    let script = async {
        sleep(secs(10)).await;
        {
            let state = &mut *fixture.disk.state();
            let mut other = state.records.values().next().unwrap().clone();
            let old = other.credential.as_ref().unwrap().token.digest();
            other.key = RunnerKey::enrollment("other").unwrap();
            other.enrollment = None;
            other.former_digests.push(old);
            let new = Token::parse("glrt-new").unwrap();
            other.credential.as_mut().unwrap().token = new.clone();
            (state.entries[0].id, state.entries[0].token) = (None, EntryToken::Literal(new));
            (other.id, other.confirmed_id) = (None, None);
            for record in state.records.values_mut() {
                (record.id, record.confirmed_id) = (None, None);
            }
            state.records.insert(other.key.clone(), other);
        }
        notices.send(Notice::Reload).unwrap();
        sleep(secs(10)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(enrolled(registration_token()), fixture.parts(), inbox), script);
    result.unwrap();
    assert_eq!(fixture.disk.state().entries.len(), 1);
    // The server is asked instead, beside what the reload asks.
    assert!(count_of(&fixture, "verify") >= 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_state_directory_an_enrollment_goes_on_with_the_runner_that_a_person_has_registered_anew() {
    let fixture = DaemonFixture::new(None);
    fixture.disk.state().is_stateless = true;
    let (notices, inbox) = mpsc::unbounded_channel();
    let config = Config { register_again: RegisterAgain::Always, ..enrolled(registration_token()) };
    let script = async {
        sleep(secs(10)).await;
        let former = fixture.disk.state().entries[0].id.unwrap();
        let (id, Credential { token, .. }) = fixture.server.add_runner();
        {
            let entry = &mut fixture.disk.state().entries[0];
            (entry.id, entry.token) = (Some(id), EntryToken::Literal(token.clone()));
        }
        fixture.server.remove_runner(former);
        for _ in 0..4 {
            notices.send(Notice::Reload).unwrap();
            sleep(secs(600)).await;
        }
        notices.send(Notice::StopAndKeep).unwrap();
        token.fingerprint()
    };
    let (result, token) = tokio::join!(run(config, fixture.parts(), inbox), script);
    result.unwrap();
    assert_eq!(count_of(&fixture, "register"), 1);
    assert!(fixture.server.requests().iter().any(|request| request.call == "verify" && request.token == token));
}

#[tokio::test(start_paused = true)]
async fn a_removed_entry_counts_once_the_file_has_been_still_for_five_seconds() {
    let fixture = DaemonFixture::new(None);
    let (notices, inbox) = mpsc::unbounded_channel();
    let (changes, watched) = mpsc::unbounded_channel();
    let parts = Parts { watch: Some(Watch::of_test(watched)), ..fixture.parts() };
    let changed = || changes.send(Changed { config: true, settings: false }).unwrap();
    let script = async {
        sleep(secs(60)).await;
        let entries = std::mem::take(&mut fixture.disk.state().entries);
        // An editor goes on writing.
        for _ in 0..3 {
            changed();
            sleep(secs(4)).await;
            assert!(fixture.disk.tokens().is_empty());
        }
        changed();
        sleep(secs(8)).await;
        let restored = fixture.disk.state().entries.clone();
        assert_eq!(restored.iter().map(|entry| &entry.name).collect::<Vec<_>>(), [&entries[0].name]);
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(enrolled(registration_token()), parts, inbox), script);
    result.unwrap();
    assert_eq!(count_of(&fixture, "register"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removed_entry_counts_also_if_the_file_cannot_be_read_once_it_is_still() {
    // By the comparison alone, and by the inventory after it.
    for failures in [1, 2] {
        let fixture = DaemonFixture::new(None);
        let (notices, inbox) = mpsc::unbounded_channel();
        let (changes, watched) = mpsc::unbounded_channel();
        let parts = Parts { watch: Some(Watch::of_test(watched)), ..fixture.parts() };
        let script = async {
            sleep(secs(10)).await;
            fixture.disk.state().entries.clear();
            changes.send(Changed { config: true, settings: false }).unwrap();
            sleep(secs(2)).await;
            fixture.disk.fail("read", failures);
            sleep(secs(10)).await;
            assert!(fixture.disk.tokens().is_empty());
            sleep(secs(60)).await;
            assert_eq!(fixture.disk.tokens().len(), 1, "{failures}");
            notices.send(Notice::StopAndKeep).unwrap();
        };
        let (result, ()) = tokio::join!(run(enrolled(registration_token()), parts, inbox), script);
        result.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn no_entry_is_restored_beside_one_of_its_name_with_another_token_and_without_an_id() {
    let fixture = DaemonFixture::new(None);
    let (notices, inbox) = mpsc::unbounded_channel();
    let (changes, watched) = mpsc::unbounded_channel();
    let parts = Parts { watch: Some(Watch::of_test(watched)), ..fixture.parts() };
    let script = async {
        sleep(secs(60)).await;
        // The server does not say whose the other token is.
        fixture.server.inject_always("verify", Some(Fault::Fail(UNKNOWN)));
        let replaced = |token: &str| {
            let mut state = fixture.disk.state();
            state.entries[0].id = None;
            state.entries[0].token = EntryToken::Literal(Token::parse(token).unwrap());
        };
        replaced("glrt-of-a-person");
        changes.send(Changed { config: true, settings: false }).unwrap();
        sleep(secs(3600)).await;
        assert_eq!(fixture.disk.tokens(), [Token::parse("glrt-of-a-person").unwrap()]);
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(enrolled(registration_token()), parts, inbox), script);
    result.unwrap();
    assert_eq!(count_of(&fixture, "register"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_shutdown_policy_selects_the_unregistered_runners() {
    for (policy, left) in [(Unregister::Never, 2), (Unregister::Enrolled, 1), (Unregister::All, 0)] {
        let fixture = DaemonFixture::new(None);
        fixture.add_found("found");
        let mut config = enrolled(registration_token());
        config.shutdown.unregister = policy;
        fixture.run(config, secs(10), Notice::Stop).await;
        assert_eq!(fixture.server.runners().len(), left, "{policy:?}");
        assert_eq!(fixture.disk.tokens().len(), left, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unregistered_runner_is_not_verified() {
    let fixture = DaemonFixture::new(None);
    fixture.run(enrolled(registration_token()), secs(10_000), Notice::Stop).await;
    assert_eq!(fixture.server.calls().last(), Some(&"delete_runner"));
}

#[tokio::test(start_paused = true)]
async fn one_pass_registers_verifies_and_rotates_what_is_due() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    let credential = fixture.add_found("found");
    let overdue = Credential { obtained_at: credential.obtained_at.map(|at| at.minus(secs(36_000))), ..credential };
    fixture.disk.state().entries[0].obtained_at = overdue.obtained_at;
    let pass = once(enrolled(registration_token()), fixture.parts()).await.unwrap();
    assert_eq!(fixture.server.calls().len(), 4);
    for call in ["probe", "register", "verify", "reset"] {
        assert!(fixture.server.calls().contains(&call), "{call}");
    }
    assert!(pass.runners.iter().all(|passed| passed.report.state == StateName::Active), "{pass:?}");
}

#[tokio::test(start_paused = true)]
async fn a_runner_unregistered_elsewhere_returns_on_reload() {
    let fixture = DaemonFixture::new(None);
    let (notices, inbox) = mpsc::unbounded_channel();
    let daemon = run(enrolled(registration_token()), fixture.parts(), inbox);
    let script = async {
        sleep(secs(10)).await;
        let other = Ops::new(fixture.server.clone(), fixture.disk.clone(), identity());
        let record = fixture.disk.state().records.values().next().unwrap().clone();
        let site = Site { url: url(), tls: TlsFiles::default() };
        let mut runner = crate::ops::Runner::recorded(record, site);
        other
            .unregister(&mut runner, asked(crate::ops::EntryFate::Drop), &inquiry_at(fixture.clock.truth()))
            .await
            .unwrap();
        notices.send(Notice::Reload).unwrap();
        sleep(secs(10)).await;
        assert_eq!(fixture.server.runners().len(), 1, "a reload brings it back");
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
}

/// The same enrollment on another server.
fn enrolled_elsewhere() -> Config {
    let mut config = enrolled(registration_token());
    config.enrollments[0].site.url = "https://elsewhere.example.com".parse().unwrap();
    config.enrollments[0].entry.url = config.enrollments[0].site.url.clone();
    config
}

#[tokio::test(start_paused = true)]
async fn an_enrollment_that_moves_leaves_its_old_runner_alone() {
    let fixture = DaemonFixture::new(None);
    fixture.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    let (old_id, _) = fixture.server.runners().into_iter().next().unwrap();
    fixture.run(enrolled_elsewhere(), secs(10), Notice::Stop).await;
    assert!(fixture.server.runners().contains_key(&old_id), "the old runner stays registered");
    assert_eq!(fixture.server.calls().iter().filter(|call| **call == "register").count(), 2);
    let urls: Vec<_> = fixture.disk.state().entries.iter().map(|entry| entry.url.clone().unwrap()).collect();
    assert_eq!(urls, [url()], "the old entry stays, the new one went with its runner");
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_is_no_longer_enrolled_is_not_unregistered() {
    let fixture = DaemonFixture::new(None);
    fixture.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    fixture.run(rotating_found(), secs(10), Notice::Stop).await;
    assert_eq!(fixture.server.runners().len(), 1);
    assert_eq!(fixture.disk.tokens().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removed_enrollment_without_a_runner_is_forgotten() {
    let fixture = DaemonFixture::new(None);
    let (notices, inbox) = mpsc::unbounded_channel();
    let mut parts = fixture.parts();
    parts.reload = Box::new(|| Box::pin(ready(Ok(rotating_found()))));
    let daemon = run(enrolled(Token::parse("wrong").unwrap()), parts, inbox);
    let script = async {
        sleep(secs(10)).await;
        notices.send(Notice::Reload).unwrap();
        sleep(secs(3600)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
    assert_eq!(fixture.server.calls(), ["probe", "register"]);
}

#[tokio::test(start_paused = true)]
async fn the_daemon_is_ready_again_only_after_the_last_reload() {
    let fixture = DaemonFixture::new(None);
    let (notices, inbox) = mpsc::unbounded_channel();
    let mut parts = fixture.parts();
    let mut phases = parts.registry.phases();
    let (second, answer) = (notices.clone(), std::cell::RefCell::new(None));
    let (release, held) = tokio::sync::oneshot::channel::<()>();
    answer.replace(Some(held));
    let mut reads = 0;
    parts.reload = Box::new(move || {
        reads += 1;
        if reads == 1 {
            let second = second.clone();
            return Box::pin(async move {
                // Comes while the first reload takes its inventory.
                second.send(Notice::Reload).unwrap();
                Err("invalid".to_owned())
            });
        }
        let held = answer.take().unwrap();
        Box::pin(async move {
            held.await.unwrap();
            Err("invalid".to_owned())
        })
    });
    let daemon = run(rotating_found(), parts, inbox);
    let script = async {
        let mut entered = || std::iter::from_fn(|| phases.try_recv().ok()).collect::<Vec<_>>();
        sleep(secs(10)).await;
        assert_eq!(entered(), [Phase::Serving]);
        notices.send(Notice::Reload).unwrap();
        sleep(secs(10)).await;
        assert_eq!(entered(), [Phase::Reloading, Phase::Reloading]);
        release.send(()).unwrap();
        sleep(secs(10)).await;
        assert_eq!(entered(), [Phase::Serving]);
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reload_whose_inventory_panics_ends_and_is_made_up_for() {
    let fixture = DaemonFixture::new(None);
    let parts = fixture.parts();
    let mut phases = parts.registry.phases();
    let (notices, inbox) = mpsc::unbounded_channel();
    let script = async {
        let mut entered = || std::iter::from_fn(|| phases.try_recv().ok()).collect::<Vec<_>>();
        // Until config.toml counts as still.
        sleep(secs(10)).await;
        assert_eq!(entered(), [Phase::Serving]);
        fixture.add_found("new");
        fixture.disk.fail("read by a panic", 1);
        notices.send(Notice::Reload).unwrap();
        sleep(secs(10)).await;
        assert_eq!(entered(), [Phase::Reloading, Phase::Serving]);
        assert!(fixture.server.calls().is_empty());
        sleep(secs(60)).await;
        assert_eq!(fixture.server.calls(), ["verify"]);
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(rotating_found(), parts, inbox), script);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_is_asked_for_again_while_its_settings_are_read_ends_once_they_are_read_again() {
    let fixture = DaemonFixture::new(None);
    let mut parts = fixture.parts();
    let mut phases = parts.registry.phases();
    let (notices, inbox) = mpsc::unbounded_channel();
    parts.reload = Box::new(|| {
        Box::pin(async {
            sleep(secs(60)).await;
            Err("invalid".to_owned())
        })
    });
    let script = async {
        let mut entered = || std::iter::from_fn(|| phases.try_recv().ok()).collect::<Vec<_>>();
        sleep(secs(10)).await;
        assert_eq!(entered(), [Phase::Serving]);
        notices.send(Notice::Reload).unwrap();
        sleep(secs(30)).await;
        notices.send(Notice::Reload).unwrap();
        sleep(secs(60)).await;
        assert_eq!(entered(), [Phase::Reloading, Phase::Reloading]);
        sleep(secs(60)).await;
        assert_eq!(entered(), [Phase::Serving]);
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(rotating_found(), parts, inbox), script);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_without_registration_is_asked_three_times_and_then_left_alone() {
    let fixture = DaemonFixture::new(None);
    fixture.server.inject_always("register", Some(Fault::Fail(Disposition::Unsupported)));
    fixture.run(enrolled(registration_token()), secs(3600), Notice::StopAndKeep).await;
    assert_eq!(fixture.server.calls(), ["probe", "register"].repeat(3));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_a_day_ahead_delays_no_rotation() {
    let life = secs(7200);
    let fixture = DaemonFixture::new(Some(life));
    *fixture.clock.offset_millis.borrow_mut() = 86_400_000;
    let credential = fixture.add_found("found");
    // The time of issue is unknown.
    fixture.disk.state().entries[0].obtained_at = None;
    fixture.run(rotating_found(), life, Notice::StopAndKeep).await;
    let first = fixture.server.requests().into_iter().find(|request| request.call == "reset").unwrap();
    assert!(first.at < credential.expiry.at().unwrap());
    assert_eq!(fixture.server.calls().iter().filter(|call| **call == "reset").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_policy_by_id_applies_once_the_id_is_known() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    let (id, credential) = fixture.server.add_runner();
    fixture.disk.add_entry("found", None, &credential);
    let selector = PolicySelector { id: Some(id), ..PolicySelector::default() };
    let policy = Policy { selector, rotate: None, unregister: None, shared: Some(true) };
    let config = Config { policies: vec![policy], ..rotating_found() };
    fixture.run(config, secs(3500), Notice::StopAndKeep).await;
    assert_eq!(fixture.server.calls(), ["verify"]);
}

fn with_found(rotate_found: RotateFound) -> Config {
    Config { rotate_found, ..Config::default() }
}

/// How many resets were sent.
fn resets(fixture: &DaemonFixture) -> usize {
    fixture.server.calls().iter().filter(|call| **call == "reset").count()
}

#[tokio::test(start_paused = true)]
async fn found_entry_is_rotated_by_the_rule_for_found_entries() {
    let life = secs(86_400);
    for (rule, before, after) in
        [(RotateFound::Never, 0, 0), (RotateFound::LastResort, 0, 1), (RotateFound::Always, 1, 1)]
    {
        let fixture = DaemonFixture::new(Some(life));
        fixture.add_found("found");
        fixture.run(with_found(rule), life * 89 / 100, Notice::StopAndKeep).await;
        assert_eq!(resets(&fixture), before, "{rule}");
        fixture.run(with_found(rule), life * 4 / 100, Notice::StopAndKeep).await;
        assert_eq!(resets(&fixture), after, "{rule}");
    }
}

#[tokio::test(start_paused = true)]
async fn entry_that_was_rotated_before_is_rotated_at_its_share_of_the_life() {
    let life = secs(86_400);
    let fixture = DaemonFixture::new(Some(life));
    fixture.add_found("found");
    fixture.run(rotating_found(), life * 70 / 100, Notice::StopAndKeep).await;
    fixture.run(with_found(RotateFound::Never), life * 80 / 100, Notice::StopAndKeep).await;
    assert_eq!(resets(&fixture), 2);
}

#[tokio::test(start_paused = true)]
async fn runner_whose_enrollment_is_gone_is_rotated_like_before() {
    let life = secs(86_400);
    let fixture = DaemonFixture::new(Some(life));
    fixture.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    fixture.run(with_found(RotateFound::Never), life * 70 / 100, Notice::StopAndKeep).await;
    assert_eq!(resets(&fixture), 1);
}

#[tokio::test(start_paused = true)]
async fn runner_table_with_a_rotate_setting_decides_about_a_found_entry() {
    let life = secs(86_400);
    for (rotate, expected) in [(RotatePolicy::Auto, 1), (RotatePolicy::Always, 1), (RotatePolicy::Off, 0)] {
        let fixture = DaemonFixture::new(Some(life));
        fixture.add_found("found");
        let selector = PolicySelector { name: Some("found".to_owned()), ..PolicySelector::default() };
        let policy = Policy { selector, rotate: Some(rotate), unregister: None, shared: None };
        let config = Config { policies: vec![policy], ..with_found(RotateFound::Never) };
        fixture.run(config, life * 70 / 100, Notice::StopAndKeep).await;
        assert_eq!(resets(&fixture), expected, "{rotate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_line_says_what_is_done_with_found_entries_and_another_one_after_a_change() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    (1..=3).for_each(|number| drop(fixture.add_found(&format!("found-{number}"))));
    let (notices, inbox) = mpsc::unbounded_channel();
    let mut parts = fixture.parts();
    parts.reload = Box::new(|| Box::pin(ready(Ok(with_found(RotateFound::Never)))));
    let log = Captured::start();
    let told = |log: &Captured| log.text().matches("were not made by this agent").count();
    let script = async {
        sleep(secs(10)).await;
        assert!(log.text().contains("at 90 % of their life"), "{}", log.text());
        assert!(log.text().contains("runners=3"), "{}", log.text());
        assert_eq!(told(&log), 1);
        for _ in 0..2 {
            notices.send(Notice::Reload).unwrap();
            sleep(secs(10)).await;
            assert_eq!(told(&log), 2);
        }
        assert!(log.text().contains("are not rotated"), "{}", log.text());
        // The workers follow it as well.
        sleep(secs(86_000)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(Config::default(), parts, inbox), script);
    result.unwrap();
    assert_eq!(resets(&fixture), 0);
}

#[tokio::test(start_paused = true)]
async fn stop_says_in_one_line_what_it_unregisters_before_it_does() {
    let fixture = DaemonFixture::new(None);
    (1..=7).for_each(|number| drop(fixture.add_found(&format!("found-{number}"))));
    let shutdown = Shutdown { unregister: Unregister::All, ..Config::default().shutdown };
    let config = Config { shutdown, ..Config::default() };
    let log = Captured::start();
    fixture.run(config.clone(), secs(10), Notice::StopAndKeep).await;
    assert!(!log.text().contains("unregistering"), "{}", log.text());
    fixture.run(config, secs(10), Notice::Stop).await;
    let text = log.text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("unregistering these runners")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].contains("runners=7") && lines[0].contains("and 2 more"), "{text}");
    assert!(lines[0].contains("`[shutdown] unregister = \"never\"`") && lines[0].contains("QUIT"), "{text}");
    let (said, done) = (text.find("unregistering these runners").unwrap(), text.find(" unregistered").unwrap());
    assert!(said < done, "{text}");
}

#[tokio::test(start_paused = true)]
async fn stop_says_nothing_about_runners_that_it_keeps() {
    let fixture = DaemonFixture::new(None);
    fixture.add_found("found");
    let log = Captured::start();
    fixture.run(Config::default(), secs(10), Notice::Stop).await;
    assert!(log.text().contains("stopping") && !log.text().contains("unregistering"), "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn a_start_restores_the_missing_entry_of_an_enrollment() {
    let fixture = DaemonFixture::new(None);
    fixture.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    fixture.disk.state().entries.clear();
    fixture.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    assert_eq!(fixture.disk.tokens().len(), 1);
    assert_eq!(fixture.server.runners().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_never_renewed_causes_few_requests() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    fixture.add_found("found");
    fixture.server.inject_always("reset", Some(Fault::Fail(Disposition::Refused)));
    fixture.run(rotating_found(), secs(86_000), Notice::StopAndKeep).await;
    let calls = fixture.server.calls().len();
    assert!(calls < 60, "{calls} requests");
}

#[tokio::test(start_paused = true)]
async fn a_lost_unregistration_is_finished_after_a_long_outage() {
    let fixture = DaemonFixture::new(None);
    fixture.server.inject("delete_runner", Fault::LoseAnswer);
    fixture.run(enrolled(registration_token()), secs(10), Notice::Stop).await;
    assert!(fixture.server.runners().is_empty());
    fixture.server.inject_always("delete_runner", Some(Fault::Fail(NOT_EXECUTED)));
    let server = fixture.server.clone();
    let recovery = async move {
        sleep(secs(300)).await;
        server.inject_always("delete_runner", None);
    };
    tokio::join!(fixture.run(enrolled(registration_token()), secs(1200), Notice::StopAndKeep), recovery);
    assert_eq!(fixture.server.runners().len(), 1, "registered again");
    assert_eq!(fixture.disk.tokens().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hung_worker_does_not_block_other_unregistrations() {
    let fixture = DaemonFixture::new(None);
    fixture.add_found("found");
    let mut config = enrolled(registration_token());
    config.shutdown.unregister = Unregister::All;
    fixture.server.inject_always("delete_runner", Some(Fault::Fail(UNKNOWN)));
    fixture.run(config, secs(10), Notice::Stop).await;
    let deletions = fixture.server.calls().iter().filter(|call| **call == "delete_runner").count();
    assert_eq!(deletions, 2);
}

fn with_access_token(mut config: Config) -> Config {
    let token = Token::parse("glpat-access").unwrap();
    let access_token = Source::Value { token, origin: "a test".to_owned() };
    config.servers.push(crate::ops::ServerAccess {
        url: url(),
        access_token,
        tls: TlsFiles::default(),
        keeping: crate::lifecycle::AccessKeeping::default(),
    });
    config
}

#[tokio::test(start_paused = true)]
async fn an_access_token_recovers_a_lost_token_once_the_old_one_is_refused_twice() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.add_found("found");
    fixture.server.inject("reset", Fault::LoseAnswer);
    fixture.run(with_access_token(rotating_found()), secs(2400 + 180), Notice::StopAndKeep).await;
    let requests = fixture.server.requests();
    let lost = requests.iter().find(|request| request.call == "reset").unwrap().at;
    let recovered = requests.iter().find(|request| request.call == "reset_by_id").unwrap().at;
    assert!(recovered.since(lost) <= secs(130));
    let (_, served) = fixture.server.runners().into_iter().next().unwrap();
    assert_eq!(fixture.disk.tokens(), [served.token]);
}

#[tokio::test(start_paused = true)]
async fn a_registration_token_recovers_an_expired_token() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    tokio::time::advance(secs(7200)).await;
    fixture.run(enrolled(registration_token()), secs(120), Notice::StopAndKeep).await;
    assert_eq!(fixture.disk.tokens().len(), 1, "into the same entry");
    let token = fixture.disk.tokens().remove(0);
    assert!(fixture.server.runners().values().any(|served| served.token == token));
}

#[tokio::test(start_paused = true)]
async fn a_runner_deleted_on_the_server_is_not_recovered() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    fixture.add_found("found");
    let id = fixture.disk.state().entries[0].id.unwrap();
    fixture.run(with_access_token(rotating_found()), secs(10), Notice::StopAndKeep).await;
    fixture.server.remove_runner(id);
    fixture.run(with_access_token(rotating_found()), secs(3600), Notice::StopAndKeep).await;
    let calls = fixture.server.calls();
    assert_eq!(calls.iter().filter(|call| **call == "reset_by_id").count(), 2, "{calls:?}");
    assert!(calls.len() < 12, "{calls:?}");
    assert!(fixture.server.runners().is_empty());
}

#[tokio::test(start_paused = true)]
async fn two_machines_do_not_keep_resetting_a_token_by_id() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    fixture.add_found("found");
    let id = fixture.disk.state().entries[0].id.unwrap();
    let (server, clock) = (fixture.server.clone(), fixture.clock.clone());
    // Another machine resets the same runner every two hours.
    let rival = async move {
        let access = AccessToken { token: Token::parse("glpat-rival").unwrap(), tls: TlsFiles::default() };
        for _ in 0..20 {
            crate::ops::Server::reset_by_id(&server, &url(), id, &access).await.unwrap();
            sleep(secs(7200)).await;
        }
        clock
    };
    let mut config = with_access_token(rotating_found());
    config.verify_found = secs(600);
    let ours = fixture.run(config, secs(20 * 3600), Notice::StopAndKeep);
    tokio::join!(ours, rival);
    let mine = fixture.server.requests();
    let access = Token::parse("glpat-access").unwrap().fingerprint();
    assert_eq!(mine.iter().filter(|request| request.call == "reset_by_id" && request.token == access).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_runner_on_a_copied_disk_counts_as_shared() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    fixture.disk.state().records.values_mut().for_each(|record| record.is_copy = true);
    fixture.run(enrolled(registration_token()), secs(3500), Notice::Stop).await;
    assert!(!fixture.server.calls().contains(&"reset"), "not rotated");
    assert_eq!(fixture.server.calls().last(), Some(&"delete_manager"), "only this machine's manager is deleted");
    assert_eq!(fixture.disk.tokens().len(), 1);
}

/// A policy that says whether other machines use the runner of the enrollment.
fn sharing(shared: bool) -> Policy {
    let selector = PolicySelector { name: Some("build-1".to_owned()), ..PolicySelector::default() };
    Policy { selector, rotate: None, unregister: None, shared: Some(shared) }
}

#[tokio::test(start_paused = true)]
async fn a_runner_on_a_copied_disk_that_is_declared_not_shared_is_rotated_and_deleted() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    fixture.disk.state().records.values_mut().for_each(|record| record.is_copy = true);
    let config = Config { policies: vec![sharing(false)], ..enrolled(registration_token()) };
    fixture.run(config, secs(3500), Notice::Stop).await;
    assert_eq!(count_of(&fixture, "reset"), 1);
    assert_eq!(fixture.server.calls().last(), Some(&"delete_runner"));
    assert!(fixture.server.runners().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_runner_on_a_copied_disk_is_rotated_if_the_settings_say_always() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    fixture.disk.state().records.values_mut().for_each(|record| record.is_copy = true);
    let always = Policy { rotate: Some(RotatePolicy::Always), shared: None, ..sharing(true) };
    let config = Config { policies: vec![always], ..enrolled(registration_token()) };
    fixture.run(config, secs(3500), Notice::StopAndKeep).await;
    assert_eq!(count_of(&fixture, "reset"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_never_deletes_a_runner_that_is_declared_shared() {
    let shared = |unregister| {
        let mut config = enrolled(registration_token());
        config.policies = vec![sharing(true)];
        config.shutdown.unregister = unregister;
        config
    };
    for policy in [Unregister::Never, Unregister::Enrolled, Unregister::All] {
        let fixture = DaemonFixture::new(None);
        fixture.run(shared(policy), secs(10), Notice::Stop).await;
        let deletions: Vec<_> = fixture.server.calls().into_iter().filter(|call| call.starts_with("delete")).collect();
        assert_eq!(deletions.contains(&"delete_manager"), policy != Unregister::Never, "{policy:?}");
        assert!(!deletions.contains(&"delete_runner"), "{policy:?}");
        assert_eq!((fixture.server.runners().len(), fixture.disk.tokens().len()), (1, 1), "{policy:?}");
        // The next start serves it again.
        fixture.run(shared(policy), secs(10), Notice::StopAndKeep).await;
        assert_eq!(fixture.server.calls().iter().filter(|call| **call == "register").count(), 1, "{policy:?}");
    }
    // Without its registration token it could not be registered again, which a manager does not need.
    let fixture = DaemonFixture::new(None);
    fixture.run(shared(Unregister::Enrolled), secs(10), Notice::StopAndKeep).await;
    let mut config = shared(Unregister::Enrolled);
    config.enrollments[0].source = RegistrationSource::Registration(Source::File("/nowhere/token".into()));
    fixture.run(config, secs(10), Notice::Stop).await;
    assert_eq!(fixture.server.calls().last(), Some(&"delete_manager"));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_rotated_while_another_machine_uses_it() {
    let life = secs(30 * 86_400);
    let fixture = DaemonFixture::new(Some(life));
    let id = fixture.add_created().await;
    let other = async {
        sleep(life * 61 / 100).await;
        fixture.server.contact_from(id, "s_another00001", fixture.clock.truth());
    };
    let ours = fixture.run(with_access_token(rotating_found()), life * 67 / 100, Notice::StopAndKeep);
    tokio::join!(ours, other);
    let calls = fixture.server.calls();
    let asked = calls.iter().filter(|call| **call == "managers").count();
    assert!(!calls.contains(&"reset") && (1..=12).contains(&asked), "{asked} requests");
    fixture.run(with_access_token(rotating_found()), life * 10 / 100, Notice::StopAndKeep).await;
    assert_eq!(fixture.server.calls().iter().filter(|call| **call == "reset").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_reset_by_id_if_another_machine_uses_it() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    let id = fixture.add_created().await;
    let mut config = with_access_token(rotating_found());
    (config.rotate, config.verify_found) = (None, secs(600));
    let other = async {
        sleep(secs(3700)).await;
        fixture.server.contact_from(id, "s_another00001", fixture.clock.truth());
    };
    tokio::join!(fixture.run(config, secs(7200), Notice::StopAndKeep), other);
    let calls = fixture.server.calls();
    assert!(calls.contains(&"managers") && !calls.contains(&"reset_by_id"), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_number_of_users_does_not_block_a_rotation() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.add_created().await;
    fixture.server.inject_always("managers", Some(Fault::Fail(NOT_EXECUTED)));
    fixture.run(with_access_token(rotating_found()), secs(3000), Notice::StopAndKeep).await;
    assert!(fixture.server.calls().contains(&"reset"));
}

#[tokio::test(start_paused = true)]
async fn the_daemon_settles_a_reset_of_another_process() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    fixture.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    // A command is killed while its reset is outstanding; the server has executed it.
    let other = Ops::new(fixture.server.clone(), fixture.disk.clone(), identity());
    let record = fixture.disk.state().records.values().next().unwrap().clone();
    let mut runner = crate::ops::Runner::recorded(record, Site { url: url(), tls: TlsFiles::default() });
    let (notices, inbox) = mpsc::unbounded_channel();
    let daemon = run(enrolled(registration_token()), fixture.parts(), inbox);
    let script = async {
        sleep(secs(10)).await;
        fixture.server.inject("reset", Fault::LoseAnswer);
        other.rotate(&mut runner, None, &inquiry_at(fixture.clock.truth())).await.unwrap_err();
        notices.send(Notice::Reload).unwrap();
        sleep(secs(180)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
    let calls = fixture.server.calls();
    assert_eq!(calls.iter().filter(|call| **call == "register").count(), 2, "{calls:?}");
    assert!(fixture.disk.state().journal.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_heartbeat_continues_while_idle_and_while_stopping() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    fixture.server.inject_always("delete_runner", Some(Fault::Hang));
    let parts = fixture.parts();
    let heartbeat = Heartbeat::new();
    let parts = Parts { heartbeat: heartbeat.clone(), ..parts };
    let (notices, inbox) = mpsc::unbounded_channel();
    let grace = secs(600);
    let config = enrolled(registration_token());
    let config = Config { shutdown: Shutdown { grace, ..config.shutdown.clone() }, ..config };
    let watch = async {
        sleep(secs(3600)).await;
        assert!(heartbeat.age() <= HEARTBEAT_INTERVAL, "idle: {:?}", heartbeat.age());
        notices.send(Notice::Stop).unwrap();
        sleep(grace / 2).await;
        assert!(heartbeat.age() <= HEARTBEAT_INTERVAL, "stopping: {:?}", heartbeat.age());
    };
    let (result, ()) = tokio::join!(run(config, parts, inbox), watch);
    assert_eq!(result.unwrap(), ShutdownOutcome::Unfinished);
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_the_last_answer_of_the_server() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    fixture.add_found("found");
    fixture.server.inject_always("verify", Some(Fault::Fail(UNKNOWN)));
    let mut parts = fixture.parts();
    parts.reload = Box::new(|| Box::pin(ready(Ok(rotating_found()))));
    let registry = parts.registry.clone();
    let (notices, inbox) = mpsc::unbounded_channel();
    let why = || registry.readiness().waiting_for.into_iter().map(|unready| unready.why).collect::<Vec<_>>().join("; ");
    assert_eq!(why(), "the daemon is starting");
    let look = async {
        sleep(secs(30)).await;
        assert!(why().contains("not verified yet"), "{}", why());
        fixture.server.inject_always("verify", None);
        sleep(secs(600)).await;
        assert_eq!(why(), "");
        fixture.server.inject_always("verify", Some(Fault::Fail(UNKNOWN)));
        notices.send(Notice::Reload).unwrap();
        sleep(secs(30)).await;
        assert_eq!(why(), "", "a missing answer changes nothing");
        fixture.server.inject_always("verify", Some(Fault::Fail(Disposition::Refused)));
        notices.send(Notice::Reload).unwrap();
        sleep(secs(1200)).await;
        assert!(why().contains("the server refuses the token"), "{}", why());
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(rotating_found(), parts, inbox), look);
    result.unwrap();
    assert!(why().starts_with("the daemon is stopping"), "{}", why());
}

#[tokio::test(start_paused = true)]
async fn a_runner_with_an_unsaved_token_is_not_ready() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.add_found("found");
    fixture.disk.fail("edit", u32::MAX);
    let parts = fixture.parts();
    let (registry, counters) = (parts.registry.clone(), parts.counters.clone());
    let (notices, inbox) = mpsc::unbounded_channel();
    let look = async {
        sleep(secs(600)).await;
        assert!(registry.readiness().ready);
        sleep(secs(2400)).await;
        let status = registry.runners().remove(0);
        assert!(status.not_ready_because.is_some_and(|why| why.contains("config.toml does not hold the token")));
        assert!(status.last_rotation_at.is_some() && status.report.next.is_some_and(|next| next.step == Step::Save));
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(rotating_found(), parts, inbox), look);
    result.unwrap();
    let reading = crate::clock::Clock::read(&fixture.clock);
    let metrics = crate::status::metrics(&counters, &registry, reading).unwrap();
    assert!(metrics.contains("runner_agent_rotations_total{outcome=\"done\"} 1\n"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn each_outcome_of_a_rotation_has_its_own_counter() {
    for (fault, outcome) in [
        (Fault::Fail(UNKNOWN), "lost"),
        (Fault::Fail(NOT_EXECUTED), "failed"),
        (Fault::Fail(Disposition::RotationClosed), "refused"),
        (Fault::SameToken, "unchanged"),
    ] {
        let fixture = DaemonFixture::new(Some(secs(3600)));
        fixture.add_found("found");
        fixture.server.inject_always("reset", Some(fault));
        let parts = fixture.parts();
        let (registry, counters) = (parts.registry.clone(), parts.counters.clone());
        let (notices, inbox) = mpsc::unbounded_channel();
        let stop = async {
            sleep(secs(2600)).await;
            notices.send(Notice::StopAndKeep).unwrap();
        };
        let (result, ()) = tokio::join!(run(rotating_found(), parts, inbox), stop);
        result.unwrap();
        let metrics = crate::status::metrics(&counters, &registry, crate::clock::Clock::read(&fixture.clock)).unwrap();
        let counted: Vec<_> = metrics
            .lines()
            .filter(|line| line.starts_with("runner_agent_rotations_total{") && !line.ends_with(" 0"))
            .collect();
        assert!(counted.len() == 1 && counted[0].contains(&format!("\"{outcome}\"")), "{counted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_rotation_is_reported_while_it_lasts() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.server.inject_always("reset", Some(Fault::Fail(NOT_EXECUTED)));
    let parts = fixture.parts();
    let (registry, clock) = (parts.registry.clone(), fixture.clock.clone());
    let (notices, inbox) = mpsc::unbounded_channel();
    let mut config = enrolled(registration_token());
    config.verify_enrolled = secs(60);
    let daemon = run(config, parts, inbox);
    let script = async {
        sleep(secs(1800)).await;
        assert!(registry.readiness().ready);
        sleep(secs(1200)).await;
        let sentence = registry.summary(clock.read());
        assert!(sentence.starts_with("0 of 1 runners ready; build-1: its token is due"), "{sentence}");
        assert!(!sentence.contains("next rotation"), "{sentence}");
        fixture.server.inject_always("reset", None);
        sleep(secs(400)).await;
        assert!(registry.readiness().ready, "{:?}", registry.readiness());
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_cannot_be_recreated_stays_registered() {
    let fixture = DaemonFixture::new(None);
    fixture.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    let mut config = enrolled(registration_token());
    config.enrollments[0].source = RegistrationSource::Registration(Source::File("/nowhere/token".into()));
    fixture.run(config.clone(), secs(10), Notice::Stop).await;
    assert_eq!((fixture.server.runners().len(), fixture.disk.tokens().len()), (1, 1));
    config.shutdown.unregister = Unregister::All;
    fixture.run(config, secs(10), Notice::Stop).await;
    assert!(fixture.server.runners().is_empty(), "`all` includes it");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_disk_blocks_neither_heartbeat_nor_shutdown() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    let parts = Parts { heartbeat: Heartbeat::new(), ..fixture.parts() };
    let (heartbeat, registry) = (parts.heartbeat.clone(), parts.registry.clone());
    let (notices, inbox) = mpsc::unbounded_channel();
    let daemon = run(enrolled(registration_token()), parts, inbox);
    let script = async {
        sleep(secs(100)).await;
        assert!(registry.readiness().ready);
        fixture.disk.state().stuck_at = Some("read");
        notices.send(Notice::Reload).unwrap();
        sleep(secs(300)).await;
        assert!(heartbeat.is_alive() && !registry.readiness().ready);
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(tokio::time::timeout(secs(500), daemon), script);
    result.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failing_recovery_is_reported_after_a_failed_rotation() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.add_found("found");
    fixture.server.inject_always("reset", Some(Fault::Fail(NOT_EXECUTED)));
    let parts = fixture.parts();
    let registry = parts.registry.clone();
    let (notices, inbox) = mpsc::unbounded_channel();
    let mut config = with_access_token(rotating_found());
    config.verify_found = secs(600);
    config.servers[0].access_token = Source::File("/nowhere/access".into());
    let daemon = run(config, parts, inbox);
    let script = async {
        sleep(secs(3700)).await;
        fixture.server.inject_always("reset", None);
        sleep(secs(1700)).await;
        let readiness = registry.readiness();
        assert!(readiness.waiting_for[0].why.contains("/nowhere/access"), "{readiness:?}");
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
}

/// Sends stop notices at these seconds while a request of the daemon is answered only after a while; returns how the
/// daemon ended, and after how many seconds.
async fn stopped_during(fixture: &DaemonFixture, config: Config, stops: &[(u64, Notice)]) -> (ShutdownOutcome, u64) {
    let (notices, inbox) = mpsc::unbounded_channel();
    let began = tokio::time::Instant::now();
    let script = async {
        for (at, notice) in stops {
            tokio::time::sleep_until(began + secs(*at)).await;
            // It may have ended already.
            let _ended = notices.send(*notice);
        }
        std::future::pending().await
    };
    tokio::select! {
        outcome = run(config, fixture.parts(), inbox) => (outcome.unwrap(), began.elapsed().as_secs()),
        never = script => never,
    }
}

/// The second at which a daemon with these settings sends its first request of a kind.
async fn time_of(call: &str, config: &Config, fixture: &DaemonFixture) -> u64 {
    let began = fixture.clock.truth();
    fixture.run(config.clone(), secs(3500), Notice::StopAndKeep).await;
    let first = fixture.server.requests().into_iter().find(|request| request.call == call && request.at >= began);
    first.unwrap().at.since(began).as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_cut_a_registration_or_a_reset() {
    let mut config = enrolled(registration_token());
    config.shutdown.unregister = Unregister::Never;
    for call in ["register", "reset"] {
        let sent_at = time_of(call, &config, &DaemonFixture::new(Some(secs(3600)))).await;
        for notice in [Notice::Stop, Notice::StopAndKeep, Notice::StopForReboot] {
            let fixture = DaemonFixture::new(Some(secs(3600)));
            // Longer than the grace time of eight seconds.
            fixture.server.inject_always(call, Some(Fault::AnswerAfter(secs(20))));
            let (outcome, ended_at) = stopped_during(&fixture, config.clone(), &[(sent_at + 2, notice)]).await;
            assert_eq!(outcome, ShutdownOutcome::Done, "{call} {notice:?}");
            assert!((sent_at + 20..sent_at + 22).contains(&ended_at), "{call} {notice:?}: {ended_at} s");
            let (_, served) = fixture.server.runners().pop_first().unwrap();
            assert_eq!(fixture.disk.tokens(), [served.token], "{call} {notice:?}");
            assert!(fixture.disk.state().journal.is_empty(), "{call} {notice:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_third_signal_ends_the_wait_for_a_new_token() {
    let stop = Notice::StopAndKeep;
    for (stops, ends_at) in [(&[(2, stop), (3, stop)][..], 20), (&[(2, stop), (3, stop), (4, stop)], 4)] {
        let fixture = DaemonFixture::new(Some(secs(3600)));
        fixture.server.inject_always("register", Some(Fault::AnswerAfter(secs(20))));
        let (outcome, ended_after) = stopped_during(&fixture, enrolled(registration_token()), stops).await;
        assert_eq!((outcome, ended_after), (ShutdownOutcome::Unfinished, ends_at), "{stops:?}");
        assert_eq!(fixture.disk.tokens().len(), usize::from(ends_at == 20));
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_does_not_wait_for_a_verification() {
    let fixture = DaemonFixture::new(None);
    fixture.add_found("found");
    fixture.server.inject_always("verify", Some(Fault::AnswerAfter(secs(20))));
    let mut config = rotating_found();
    config.shutdown.grace = secs(3600);
    let stops = [(2, Notice::Stop), (3, Notice::Stop)];
    assert_eq!(stopped_during(&fixture, config, &stops).await, (ShutdownOutcome::Unfinished, 3));
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_new_token_ends_with_the_time_of_a_request() {
    let fixture = DaemonFixture::new(None);
    fixture.server.inject_always("register", Some(Fault::AnswerAfter(secs(10_000))));
    let grace = rotating_found().shutdown.grace;
    let stops = [(2, Notice::StopAndKeep)];
    let (outcome, ended_after) = stopped_during(&fixture, enrolled(registration_token()), &stops).await;
    assert_eq!((outcome, ended_after), (ShutdownOutcome::Unfinished, 2 + (grace + secs(30)).as_secs()));
}

#[tokio::test(start_paused = true)]
async fn a_stop_writes_a_token_that_is_in_memory_alone() {
    let fixture = DaemonFixture::new(Some(secs(900)));
    fixture.add_found("build-1");
    fixture.disk.state().is_stateless = true;
    let config = rotating_found();
    let (notices, inbox) = mpsc::unbounded_channel();
    let scenario = async {
        while !fixture.server.calls().contains(&"reset") {
            fixture.disk.fail("edit", 1000);
            sleep(secs(1)).await;
        }
        notices.send(Notice::Stop).unwrap();
        sleep(secs(1)).await;
        fixture.disk.fail("edit", 0);
    };
    let (stopped, ()) = tokio::join!(run(config, fixture.parts(), inbox), scenario);
    stopped.unwrap();
    let served = fixture.server.runners().into_values().next().unwrap();
    assert_eq!(fixture.disk.tokens(), [served.token]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_writes_a_token_of_an_odd_answer_that_is_in_memory_alone() {
    let fixture = DaemonFixture::new(Some(secs(900)));
    fixture.add_found("build-1");
    fixture.server.inject("reset", crate::ops::memory::Fault::OddAnswer);
    let (notices, inbox) = mpsc::unbounded_channel();
    let scenario = async {
        sleep(secs(60)).await;
        // The token in the answer is not verified before the stop either.
        fixture.server.inject_always("verify", Some(crate::ops::memory::Fault::Fail(NOT_EXECUTED)));
        while !fixture.server.calls().contains(&"reset") {
            ["answered", "held"].into_iter().for_each(|effect| fixture.disk.fail(effect, 1000));
            sleep(secs(1)).await;
        }
        notices.send(Notice::Stop).unwrap();
        sleep(secs(5)).await;
        ["answered", "held"].into_iter().for_each(|effect| fixture.disk.fail(effect, 0));
    };
    let (stopped, ()) = tokio::join!(run(rotating_found(), fixture.parts(), inbox), scenario);
    stopped.unwrap();
    let served = fixture.server.runners().into_values().next().unwrap();
    let held: Vec<_> = fixture.disk.state().held.values().flat_map(|held| held.candidates.clone()).collect();
    assert!(held.iter().any(|candidate| candidate.token == served.token), "{held:?}");
    assert!(!fixture.disk.state().journal.is_empty(), "the reset is not settled");
}

#[tokio::test(start_paused = true)]
async fn a_stop_without_a_state_directory_asks_about_the_token_of_an_odd_answer_once_more() {
    for is_answered in [true, false] {
        let fixture = DaemonFixture::new(Some(secs(900)));
        fixture.add_found("build-1");
        fixture.disk.state().is_stateless = true;
        fixture.server.inject("reset", crate::ops::memory::Fault::OddAnswer);
        let (notices, inbox) = mpsc::unbounded_channel();
        let scenario = async {
            sleep(secs(60)).await;
            fixture.server.inject_always("verify", Some(crate::ops::memory::Fault::Fail(NOT_EXECUTED)));
            while !fixture.server.calls().contains(&"reset") {
                sleep(secs(1)).await;
            }
            if is_answered {
                fixture.server.inject_always("verify", None);
            }
            notices.send(Notice::Stop).unwrap();
            count_of(&fixture, "verify")
        };
        let log = Captured::start();
        let (stopped, before) = tokio::join!(run(rotating_found(), fixture.parts(), inbox), scenario);
        stopped.unwrap();
        assert_eq!(count_of(&fixture, "verify"), before + 1, "answered: {is_answered}");
        let served = fixture.server.runners().into_values().next().unwrap();
        // The end is logged with the fingerprint, by which the token can be told if it turns up.
        let fingerprint = served.token.fingerprint().to_string();
        let is_logged = |line: &str| line.contains("ending nevertheless") && line.contains(&fingerprint);
        assert_eq!(log.text().lines().any(is_logged), !is_answered, "{}", log.text());
        assert_eq!(fixture.disk.tokens() == [served.token], is_answered);
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_the_other_runner_has_left_is_its_enrollments_again() {
    for is_removed in [false, true] {
        let fixture = DaemonFixture::new(Some(secs(86_400)));
        let config = enrolled(registration_token());
        fixture.run(config.clone(), secs(60), Notice::StopAndKeep).await;
        let ours = fixture.disk.tokens().remove(0);
        let (other, theirs) = fixture.server.add_runner();
        fixture.disk.state().entries[0].token = EntryToken::Literal(theirs.token.clone());
        fixture.run(config.clone(), secs(60), Notice::StopAndKeep).await;
        assert_eq!(fixture.disk.tokens(), std::slice::from_ref(&theirs.token));
        assert_eq!(fixture.disk.state().entries[0].id, Some(other));
        if is_removed {
            fixture.disk.state().entries.clear();
        } else {
            fixture.disk.state().entries[0].token = EntryToken::Placeholder;
        }
        fixture.run(config, secs(60), Notice::StopAndKeep).await;
        assert_eq!(fixture.disk.tokens(), [ours], "{is_removed}");
        assert_eq!(fixture.disk.state().entries.len(), 1);
        assert!(fixture.disk.state().records.values().all(|record| record.given_to.is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn no_reset_begins_once_a_stop_is_asked_for() {
    let config = with_access_token(rotating_found());
    let trial = DaemonFixture::new(Some(secs(3600)));
    trial.add_created().await;
    let asked_at = time_of("managers", &config, &trial).await;
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.add_created().await;
    // The reset is due, and other users of the token are asked for before it is sent. The stop ends that question.
    fixture.server.inject_always("managers", Some(Fault::AnswerAfter(secs(5))));
    let (outcome, ended_at) = stopped_during(&fixture, config, &[(asked_at + 2, Notice::StopAndKeep)]).await;
    assert_eq!(outcome, ShutdownOutcome::Done);
    assert!((asked_at + 2..asked_at + 5).contains(&ended_at), "{ended_at}");
    let calls = fixture.server.calls();
    assert!(!calls.contains(&"reset"), "{calls:?}");
    assert!(fixture.disk.state().journal.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_one_worker_does_not_end_the_others() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    fixture.add_found("one");
    fixture.add_found("two");
    let parts = fixture.parts();
    let registry = parts.registry.clone();
    let (notices, inbox) = mpsc::unbounded_channel();
    let look = async {
        sleep(secs(10)).await;
        assert!(registry.readiness().ready);
        // A fault in the rotation of one of them, whichever comes first.
        fixture.server.inject("reset", Fault::Panic);
        let mut was_reported = false;
        for _ in 0..300 {
            sleep(secs(10)).await;
            was_reported |= registry.readiness().waiting_for.iter().any(|reason| reason.why.contains("internal error"));
        }
        assert!(was_reported, "{:?} {:?}", fixture.server.requests(), registry.runners());
        assert!(registry.readiness().ready, "{:?}", registry.readiness());
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(rotating_found(), parts, inbox), look);
    assert_eq!(result.unwrap(), ShutdownOutcome::Done);
    let served: Vec<_> = fixture.server.runners().into_values().map(|runner| runner.token).collect();
    let mut held = fixture.disk.tokens();
    held.sort_by_key(|token| served.iter().position(|other| other == token));
    assert_eq!(held, served, "both tokens were replaced");
    assert_eq!(fixture.server.calls().iter().filter(|call| **call == "reset").count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_always_panics_is_not_a_stream_of_requests() {
    let fixture = DaemonFixture::new(None);
    fixture.add_found("found");
    fixture.server.inject_always("verify", Some(Fault::Panic));
    let parts = fixture.parts();
    let registry = parts.registry.clone();
    let (notices, inbox) = mpsc::unbounded_channel();
    let look = async {
        sleep(secs(30)).await;
        let why = registry.readiness().waiting_for.remove(0).why;
        assert!(why.contains("internal error"), "{why}");
        sleep(secs(3600)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(rotating_found(), parts, inbox), look);
    result.unwrap();
    let count = fixture.server.calls().len();
    assert!((50..=62).contains(&count), "{count} requests in an hour");
}

#[tokio::test(start_paused = true)]
async fn a_pass_reports_the_runner_whose_worker_panicked() {
    let fixture = DaemonFixture::new(None);
    fixture.add_found("one");
    fixture.add_found("two");
    fixture.server.inject("verify", Fault::Panic);
    let pass = once(rotating_found(), fixture.parts()).await.unwrap();
    let endings: Vec<_> = pass.runners.iter().map(|passed| &passed.ending).collect();
    let is_isolated =
        matches!(endings[..], [Ending::Panicked, Ending::Done { .. }] | [Ending::Done { .. }, Ending::Panicked]);
    assert!(is_isolated, "{pass:?}");
}

fn count_of(fixture: &DaemonFixture, call: &str) -> usize {
    fixture.server.calls().iter().filter(|made| **made == call).count()
}

#[tokio::test(start_paused = true)]
async fn a_date_ahead_by_more_than_a_tokens_life_causes_no_stream_of_rotations() {
    let life = secs(86_400);
    for config in [rotating_found(), enrolled(registration_token())] {
        let fixture = DaemonFixture::new(Some(life));
        fixture.server.put_date_ahead(secs(90_000));
        if config.enrollments.is_empty() {
            fixture.add_found("found");
        }
        fixture.run(config, life * 3, Notice::StopAndKeep).await;
        let resets: Vec<_> = fixture.server.requests().into_iter().filter(|request| request.call == "reset").collect();
        assert!((4..=7).contains(&resets.len()), "{} rotations in three lives", resets.len());
        let (_, served) = fixture.server.runners().into_iter().next().unwrap();
        assert_eq!(fixture.disk.tokens(), [served.token]);
        assert!(served.expiry.at().unwrap() > fixture.clock.truth(), "never late");
        // A correct time counts again with the next token.
        fixture.server.put_date_ahead(Duration::ZERO);
        let before = resets.len();
        fixture.run(rotating_found(), life * 2, Notice::StopAndKeep).await;
        assert!((2..=4).contains(&(count_of(&fixture, "reset") - before)), "{}", count_of(&fixture, "reset"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_date_ahead_only_at_a_registration_does_not_delay_the_first_rotation() {
    let life = secs(86_400);
    for ahead in [3600, 43_200, 90_000, 10 * 86_400] {
        let fixture = DaemonFixture::new(Some(life));
        fixture.server.put_date_ahead(secs(ahead));
        let enrollment = crate::ops::memory::enrollment(registration_token());
        let mut runner = crate::ops::Runner::blank(enrollment.key.clone(), Origin::Registered, enrollment.site.clone());
        let command = Ops::new(fixture.server.clone(), fixture.disk.clone(), identity());
        let inquiry = inquiry_at(fixture.clock.truth());
        command.register(&enrollment, &mut runner, &inquiry).await.unwrap();
        let (_, issued) = fixture.server.runners().into_iter().next().unwrap();
        fixture.server.put_date_ahead(Duration::ZERO);
        fixture.run(rotating_found(), life, Notice::StopAndKeep).await;
        let reset = fixture.server.requests().into_iter().find(|request| request.call == "reset");
        assert!(reset.is_some_and(|reset| reset.at < issued.expiry.at().unwrap()), "{ahead} s ahead");
        assert_eq!(count_of(&fixture, "reset"), 1, "{ahead} s ahead");
    }
}

/// Offsets of a clock, in thousandths of a token's life.
const OFFSETS: [i64; 25] = [
    -100_000, -10_000, -9_700, -3_000, -2_000, -1_500, -1_010, -1_000, -990, -700, -500, -300, -130, -120, 130, 300,
    500, 700, 900, 960, 990, 998, 1_000, 1_500, 10_000,
];

/// Clocks of which one is wrong, in milliseconds ahead of the server's: the `Date` and this machine's.
fn wrong_clocks(life: Duration) -> impl Iterator<Item = (i64, i64)> {
    let life = i64::try_from(life.as_millis()).unwrap();
    let off = OFFSETS.map(|share| life / 1000 * share);
    off.into_iter().flat_map(|off| [(off, 0), (0, off)])
}

/// Lets a daemon run under these clocks; returns how often it has rotated.
async fn run_off(fixture: &DaemonFixture, config: Config, duration: Duration, (date, local): (i64, i64)) -> usize {
    fixture.server.put_date_off(date);
    *fixture.clock.offset_millis.borrow_mut() = local;
    let before = count_of(fixture, "reset");
    fixture.run(config, duration, Notice::StopAndKeep).await;
    let (_, served) = fixture.server.runners().into_iter().next().unwrap();
    assert_eq!(fixture.disk.tokens(), [served.token], "Date {date}, local {local}");
    assert!(served.expiry.at().unwrap() > fixture.clock.truth(), "Date {date}, local {local}: late");
    count_of(fixture, "reset") - before
}

#[tokio::test(start_paused = true)]
async fn no_token_expires_while_one_of_two_clocks_is_right() {
    for life in [secs(7200), secs(86_400)] {
        for clocks in wrong_clocks(life) {
            for config in [rotating_found(), enrolled(registration_token())] {
                let fixture = DaemonFixture::new(Some(life));
                if config.enrollments.is_empty() {
                    fixture.add_found("found");
                }
                let resets = run_off(&fixture, config, life * 10, clocks).await;
                let ahead = clocks.0.max(clocks.1).max(0);
                let left = life.as_millis() as f64 - ahead as f64;
                // Going by a clock that is ahead, but not so far that a fresh token shows it.
                let is_believed = left >= 6_300_000.0;
                let most = if is_believed { 2.0 * life.as_millis() as f64 / left } else { 2.0 };
                assert!((10.0..=10.0 * most).contains(&(resets as f64)), "{clocks:?}: {resets} rotations in ten lives");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn clocks_that_agreed_once_show_later_which_one_is_wrong() {
    let life = secs(7200);
    for clocks in wrong_clocks(life) {
        let fixture = DaemonFixture::new(Some(life));
        run_off(&fixture, enrolled(registration_token()), life / 10, (0, 0)).await;
        let resets = run_off(&fixture, enrolled(registration_token()), life * 10, clocks).await;
        assert!((10..=20).contains(&resets), "{clocks:?}: {resets} rotations in ten lives");
        let resets = run_off(&fixture, enrolled(registration_token()), life * 5, (0, 0)).await;
        assert!((5..=10).contains(&resets), "{clocks:?}, then right: {resets} rotations in five lives");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_under_a_clock_that_was_always_wrong_delays_no_rotation() {
    for life in [secs(7200), secs(86_400)] {
        for clocks in wrong_clocks(life) {
            let fixture = DaemonFixture::new(Some(life));
            run_off(&fixture, enrolled(registration_token()), life, clocks).await;
            run_off(&fixture, enrolled(registration_token()), life * 3, clocks).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn restarts_under_a_wrong_clock_are_no_rotations() {
    let life = secs(86_400);
    for clocks in wrong_clocks(life) {
        let fixture = DaemonFixture::new(Some(life));
        run_off(&fixture, enrolled(registration_token()), life / 10, (0, 0)).await;
        let mut resets = 0;
        for _ in 0..30 {
            resets += run_off(&fixture, enrolled(registration_token()), life / 10, clocks).await;
        }
        assert!((3..=7).contains(&resets), "{clocks:?}: {resets} rotations in three lives");
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_could_not_be_cleared_is_settled_and_the_reset_not_repeated_before() {
    for disposition in [NOT_EXECUTED, Disposition::Refused] {
        let fixture = DaemonFixture::new(Some(secs(3600)));
        fixture.add_found("found");
        fixture.server.inject("reset", Fault::Fail(disposition));
        fixture.disk.fail("clear", 1);
        fixture.run(rotating_found(), secs(3300), Notice::StopAndKeep).await;
        let calls = fixture.server.calls();
        let first = calls.iter().position(|call| *call == "reset").unwrap();
        let second = calls.iter().rposition(|call| *call == "reset").unwrap();
        assert!(second - first > 2, "two verifications settle it: {calls:?}");
        assert!(calls[first + 1..second].iter().all(|call| *call == "verify"), "{calls:?}");
        let (_, served) = fixture.server.runners().into_iter().next().unwrap();
        assert_eq!(fixture.disk.tokens(), [served.token]);
        assert!(fixture.disk.state().journal.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_enrollment_gets_the_runner_whose_worker_has_found_its_given_token() {
    let fixture = DaemonFixture::new(None);
    fixture.add_found("found");
    fixture.run(rotating_found(), secs(60), Notice::StopAndKeep).await;
    // A person has reset its token in GitLab.
    let (other, new) = fixture.server.add_runner();
    fixture.server.remove_runner(other);
    let id = fixture.disk.state().entries[0].id.unwrap();
    fixture.server.restore(id, &new);
    fixture.disk.state().entries[0].token = EntryToken::Literal(new.token.clone());
    let mut config = enrolled(registration_token());
    let source = Source::Value { token: new.token, origin: "a test".to_owned() };
    config.enrollments[0].source = RegistrationSource::Given(source);
    // The answer changes no file, and comes after the last inventory that follows from the start.
    fixture.server.inject_always("verify", Some(Fault::AnswerAfter(secs(10))));
    fixture.run(config, secs(120), Notice::StopAndKeep).await;
    let records = fixture.disk.state().records.clone();
    let of_runners: Vec<_> = records.values().map(|record| (record.key.as_str(), record.origin)).collect();
    assert_eq!(of_runners, [("build-1", Origin::Given)]);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_was_given_to_another_runner_is_left_to_that_one_which_is_never_deleted() {
    for policy in [Unregister::Never, Unregister::Enrolled, Unregister::All] {
        let fixture = DaemonFixture::new(None);
        let mut config = enrolled(registration_token());
        config.shutdown.unregister = policy;
        fixture.run(config.clone(), secs(10), Notice::StopAndKeep).await;
        let ours = fixture.disk.state().records.values().next().unwrap().clone();
        let (other, theirs) = fixture.server.add_runner();
        let (notices, inbox) = mpsc::unbounded_channel();
        let daemon = run(config.clone(), fixture.parts(), inbox);
        let script = async {
            sleep(secs(10)).await;
            fixture.disk.state().entries[0].token = EntryToken::Literal(theirs.token.clone());
            notices.send(Notice::Reload).unwrap();
            sleep(secs(120)).await;
            notices.send(Notice::StopAndKeep).unwrap();
        };
        let (result, ()) = tokio::join!(daemon, script);
        result.unwrap();
        let assert_given = |context: &str| {
            let state = fixture.disk.state();
            let entries: Vec<_> = state.entries.iter().map(|entry| (entry.id, entry.token.token().cloned())).collect();
            assert_eq!(entries, [(Some(other), Some(theirs.token.clone()))], "{policy:?}, {context}");
        };
        assert_given("while serving");
        let record = fixture.disk.state().records[&ours.key].clone();
        assert_eq!((record.given_to, record.id, &record.credential), (Some(other), ours.id, &ours.credential));
        assert_eq!(fixture.server.runners().len(), 2, "{policy:?}");
        // The same after the next start, and a stop deletes the other one for no machine but this one.
        fixture.run(config, secs(120), Notice::Stop).await;
        assert_given("after a stop");
        assert!(fixture.server.runners().contains_key(&other.number()), "{policy:?}");
        assert_eq!(count_of(&fixture, "register"), 1, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_answer_that_a_person_would_have_to_act_on_parks_nothing() {
    use crate::gitlab::Reason;
    let life = secs(7200);
    let (parameters, orphaned) = (Disposition::MustAct(Reason::Parameters), Disposition::MustAct(Reason::Orphaned));
    for (call, disposition) in [
        ("verify", parameters),
        ("verify", Disposition::Gone),
        ("verify", Disposition::Unsupported),
        ("verify", orphaned),
        ("reset", parameters),
        ("reset", Disposition::Gone),
        ("reset", Disposition::RotationClosed),
        ("reset", Disposition::Unsupported),
        ("register", Disposition::Unsupported),
        ("register", Disposition::Gone),
        ("register", parameters),
    ] {
        let fixture = DaemonFixture::new(Some(life));
        let config = if call == "register" { enrolled(registration_token()) } else { rotating_found() };
        if call != "register" {
            fixture.add_found("found");
        }
        fixture.server.inject(call, Fault::Fail(disposition));
        fixture.run(config.clone(), secs(900), Notice::StopAndKeep).await;
        assert_eq!(fixture.disk.tokens().len(), 1, "{call} {disposition:?}: {:?}", fixture.server.calls());
        // Whatever it was about, the token is replaced before it expires.
        fixture.run(config, life - secs(900), Notice::StopAndKeep).await;
        let (_, served) = fixture.server.runners().into_iter().next().unwrap();
        assert!(served.expiry.at().unwrap() > fixture.clock.truth(), "{call} {disposition:?}");
        assert_eq!(fixture.disk.tokens(), [served.token], "{call} {disposition:?}");
        let state = fixture.disk.state().records.values().next().unwrap().state;
        assert_eq!(state, Some(StateName::Active), "{call} {disposition:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn that_an_answer_was_lost_is_remembered_after_a_restart_and_the_runner_registered_anew() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    let config = enrolled(registration_token());
    fixture.run(config.clone(), secs(10), Notice::StopAndKeep).await;
    fixture.server.inject("reset", Fault::LoseAnswer);
    // GitLab registers nothing until after the restart.
    fixture.server.inject_always("register", Some(Fault::Fail(NOT_EXECUTED)));
    fixture.run(config.clone(), secs(58_000), Notice::StopAndKeep).await;
    assert_eq!(fixture.disk.state().records.values().next().unwrap().state, Some(StateName::Rejected));
    assert!(fixture.disk.state().journal.is_empty(), "nothing but the evidence says it");
    fixture.server.inject_always("register", None);
    fixture.run(config, secs(900), Notice::StopAndKeep).await;
    let tokens = fixture.disk.tokens();
    assert_eq!(tokens.len(), 1);
    assert!(fixture.server.runners().values().any(|served| served.token == tokens[0]), "{:?}", fixture.server.calls());
}

/// Adds an entry for the token of the first entry, under another address of its server.
fn add_alias(fixture: &DaemonFixture) {
    let first = fixture.disk.state().entries[0].clone();
    let url = "http://gitlab".parse().ok();
    let second = crate::store::Entry { name: Some("alias".to_owned()), url, position: 1, line: 11, ..first };
    fixture.disk.state().entries.push(second);
}

/// When the first reset was sent, as a share of this life.
fn first_reset(fixture: &DaemonFixture, life: Duration) -> Option<f64> {
    let requests = fixture.server.requests();
    let reset = requests.iter().find(|request| request.call == "reset")?;
    Some(reset.at.since(crate::model::Timestamp::from_millis(crate::ops::memory::START)).div_duration_f64(life))
}

#[tokio::test(start_paused = true)]
async fn a_runner_whose_twin_was_removed_is_rotated_by_its_own_schedule() {
    let life = secs(86_400);
    let fixture = DaemonFixture::new(Some(life));
    fixture.add_found("first");
    add_alias(&fixture);
    let (notices, inbox) = mpsc::unbounded_channel();
    let script = async {
        sleep(secs(60)).await;
        let alias = fixture.disk.state().entries.remove(1);
        fixture.disk.state().entries = vec![crate::store::Entry { position: 0, line: 1, ..alias }];
        notices.send(Notice::Reload).unwrap();
        sleep(life).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(rotating_found(), fixture.parts(), inbox), script);
    result.unwrap();
    let share = first_reset(&fixture, life).unwrap();
    assert!((0.6..0.75).contains(&share), "{share}");
}

#[tokio::test(start_paused = true)]
async fn a_twin_is_rotated_once_its_token_is_pressing_if_the_first_one_is_not() {
    let life = secs(86_400);
    let fixture = DaemonFixture::new(Some(life));
    fixture.add_found("first");
    add_alias(&fixture);
    let selector = PolicySelector { name: Some("first".to_owned()), ..PolicySelector::default() };
    let off = Policy { selector, rotate: Some(RotatePolicy::Off), unregister: None, shared: None };
    let config = Config { policies: vec![off], ..rotating_found() };
    let (notices, inbox) = mpsc::unbounded_channel();
    let (changes, watched) = mpsc::unbounded_channel();
    let parts = Parts { watch: Some(Watch::of_test(watched)), ..fixture.parts() };
    let script = async {
        // The reset writes config.toml.
        for _ in 0..life.as_secs() / 10 {
            if count_of(&fixture, "reset") == 0 {
                sleep(secs(10)).await;
            }
        }
        changes.send(Changed { config: true, settings: false }).unwrap();
        sleep(life / 2).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(config, parts, inbox), script);
    result.unwrap();
    let share = first_reset(&fixture, life).unwrap();
    assert!((0.87..0.9).contains(&share), "{share}");
    let served = fixture.server.runners().into_values().next().unwrap();
    assert_eq!(fixture.disk.tokens(), [served.token.clone(), served.token], "the first one has followed");
    assert_eq!(count_of(&fixture, "reset"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_registration_is_not_repeated_under_another_key_of_its_enrollment() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    fixture.server.inject("register", Fault::LoseAnswer);
    fixture.run(enrolled(registration_token()), secs(60), Notice::StopAndKeep).await;
    let mut renamed = enrolled(registration_token());
    renamed.enrollments[0].key = RunnerKey::enrollment("renamed").unwrap();
    for _ in 0..2 {
        fixture.run(renamed.clone(), secs(60), Notice::StopAndKeep).await;
        assert_eq!(count_of(&fixture, "register"), 1);
    }
    // Nor under the former one.
    fixture.run(enrolled(registration_token()), secs(60), Notice::StopAndKeep).await;
    assert_eq!(count_of(&fixture, "register"), 1);
}

/// A command of a person's goes on after the lost registration of the fixture's enrollment.
async fn go_on(fixture: &DaemonFixture, config: &Config) {
    let ops = Ops::new(fixture.server.clone(), fixture.disk.clone(), identity());
    let record = fixture.disk.state().records.values().next().unwrap().clone();
    let mut runner = crate::ops::Runner::recorded(record, config.enrollments[0].site.clone());
    runner.record.enrollment = None;
    ops.forget_lost_registrations(&config.enrollments[0], &mut runner, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_daemon_goes_on_after_a_lost_registration_if_a_command_has() {
    // The answer is lost at the first registration, or at that of a recovery; the daemon runs meanwhile, or not.
    for (is_recovery, is_running) in [(false, true), (true, true), (false, false), (true, false)] {
        let context = format!("{is_recovery}, {is_running}");
        let fixture = DaemonFixture::new(Some(secs(86_400)));
        let config = Config { register_again: RegisterAgain::Always, ..enrolled(registration_token()) };
        if is_recovery {
            fixture.run(config.clone(), secs(60), Notice::StopAndKeep).await;
            let id = fixture.disk.state().entries[0].id.unwrap();
            fixture.server.remove_runner(id);
        }
        let before = count_of(&fixture, "register");
        fixture.server.inject("register", Fault::LoseAnswer);
        if !is_running {
            fixture.run(config.clone(), secs(6 * 3600), Notice::StopAndKeep).await;
            go_on(&fixture, &config).await;
        }
        let (notices, inbox) = mpsc::unbounded_channel();
        let script = async {
            if is_running {
                sleep(secs(6 * 3600)).await;
                assert_eq!(count_of(&fixture, "register"), before + 1, "it waits for a person: {context}");
                go_on(&fixture, &config).await;
            }
            sleep(secs(6 * 3600)).await;
            notices.send(Notice::StopAndKeep).unwrap();
        };
        let (result, ()) = tokio::join!(run(config.clone(), fixture.parts(), inbox), script);
        result.unwrap();
        assert_eq!(count_of(&fixture, "register"), before + 2, "{context}");
        let tokens = fixture.disk.tokens();
        assert!(fixture.server.runners().values().any(|served| tokens == [served.token.clone()]), "{context}");
    }
}

#[tokio::test(start_paused = true)]
async fn settings_that_changed_while_config_toml_could_not_be_read_are_followed_once_it_can_be() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    let (notices, inbox) = mpsc::unbounded_channel();
    let (changes, watched) = mpsc::unbounded_channel();
    let parts = Parts {
        watch: Some(Watch::of_test(watched)),
        reload: Box::new(|| Box::pin(ready(Ok(enrolled(registration_token()))))),
        ..fixture.parts()
    };
    let script = async {
        sleep(secs(60)).await;
        // No runner is served yet, and no other change follows.
        fixture.disk.fail("read", 3);
        changes.send(Changed { config: false, settings: true }).unwrap();
        sleep(secs(600)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(rotating_found(), parts, inbox), script);
    result.unwrap();
    assert_eq!(fixture.server.calls(), ["probe", "register"]);
}

/// Runs the daemon with a token file that is there at first, and the script with a function that writes or removes it.
async fn run_with_token_file(
    fixture: &DaemonFixture,
    token: &str,
    config: impl FnOnce(Source) -> Config,
    script: impl AsyncFnOnce(Box<dyn Fn(Option<&str>)>),
) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, token).unwrap();
    let (notices, inbox) = mpsc::unbounded_channel();
    let (changes, watched) = mpsc::unbounded_channel();
    let config = config(Source::File(file.clone()));
    let (read, parts) = (config.clone(), fixture.parts());
    let reload: Reload = Box::new(move || Box::pin(ready(Ok(read.clone()))));
    let parts = Parts { watch: Some(Watch::of_test(watched)), reload, ..parts };
    let write = move |token: Option<&str>| {
        match token {
            Some(token) => std::fs::write(&file, token).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        changes.send(Changed { config: false, settings: true }).unwrap();
    };
    let script = async {
        script(Box::new(write)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(config, parts, inbox), script);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_file_that_could_not_be_read_for_a_time_is_not_replaced() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    fixture.add_found("found");
    let id = fixture.disk.state().entries[0].id.unwrap();
    let config = |access_token| Config {
        servers: vec![crate::ops::ServerAccess {
            url: url(),
            access_token,
            tls: TlsFiles::default(),
            keeping: crate::lifecycle::AccessKeeping::default(),
        }],
        ..rotating_found()
    };
    run_with_token_file(&fixture, "glpat-access", config, async |write| {
        sleep(secs(10)).await;
        fixture.server.remove_runner(id);
        // It is refused, and cannot be reset by id.
        sleep(secs(86_400)).await;
        let asked = fixture.server.calls().len();
        for content in [None, Some("glpat-access"), None, Some("glpat-access")] {
            write(content);
            sleep(secs(1)).await;
        }
        assert_eq!(fixture.server.calls().len(), asked);
        write(Some("glpat-another"));
        sleep(secs(1)).await;
        assert!(fixture.server.calls().len() > asked);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_waits_for_its_token_file_is_woken_once_that_can_be_read_again() {
    let fixture = DaemonFixture::new(None);
    fixture.server.inject_always("register", Some(Fault::Fail(NOT_EXECUTED)));
    let config = |source| {
        let mut config = enrolled(registration_token());
        config.enrollments[0].source = RegistrationSource::Registration(source);
        config
    };
    run_with_token_file(&fixture, registration_token().expose(), config, async |write| {
        sleep(secs(10)).await;
        write(None);
        sleep(secs(3600)).await;
        fixture.server.inject_always("register", None);
        write(Some(registration_token().expose()));
        sleep(secs(1)).await;
        assert_eq!(fixture.server.runners().len(), 1);
    })
    .await;
}

/// The daemon with three found runners while `change` is made to config.toml; returns the runners whose record was read
/// because of it, by their place in the file.
async fn woken_by(change: impl Fn(&DaemonFixture)) -> Vec<usize> {
    let fixture = DaemonFixture::new(None);
    for name in ["a", "b", "c"] {
        fixture.add_found(name);
    }
    let (changes, watched) = mpsc::unbounded_channel();
    let parts = Parts { watch: Some(Watch::of_test(watched)), ..fixture.parts() };
    let (notices, inbox) = mpsc::unbounded_channel();
    let keys: Vec<_> = fixture.disk.state().entries.iter().map(|entry| entry.id.unwrap()).collect();
    let course = async {
        sleep(secs(30)).await;
        fixture.disk.state().record_reads.clear();
        change(&fixture);
        changes.send(Changed { config: true, settings: false }).unwrap();
        sleep(secs(30)).await;
        let reads = fixture.disk.state().record_reads.clone();
        notices.send(Notice::StopAndKeep).unwrap();
        reads
    };
    let (ended, reads) = tokio::join!(run(rotating_found(), parts, inbox), course);
    ended.unwrap();
    let records = fixture.disk.state().records.clone();
    let is_read =
        |id: &RunnerId| records.values().any(|record| record.id == Some(*id) && reads.contains_key(&record.key));
    keys.iter().enumerate().filter(|(_, id)| is_read(id)).map(|(place, _)| place).collect()
}

#[tokio::test(start_paused = true)]
async fn a_changed_entry_wakes_its_own_runner_and_no_other() {
    let renewed = woken_by(|fixture| {
        let id = fixture.disk.state().entries[1].id.unwrap();
        let token = Token::parse("glrtr-by-hand").unwrap();
        fixture.server.restore(id, &Credential { token: token.clone(), obtained_at: None, expiry: Expiry::Never });
        fixture.disk.state().entries[1].token = EntryToken::Literal(token);
    });
    assert_eq!(renewed.await, [1]);
    assert_eq!(woken_by(|fixture| fixture.disk.state().entries[2].name = Some("other".to_owned())).await, [2]);
    assert_eq!(woken_by(|fixture| drop(fixture.disk.state().entries.remove(0))).await, [0]);
    // A comment is none of the entries' business, nor is what another process has written as it was.
    assert_eq!(woken_by(|_| {}).await, Vec::<usize>::new());
    // Which of two entries comes first can matter to each.
    assert_eq!(woken_by(|fixture| fixture.disk.state().entries.swap(0, 2)).await, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_goes_before_the_verifications_that_wait() {
    let fixture = DaemonFixture::new(Some(secs(7200)));
    let due = fixture.add_found("due");
    fixture.run(rotating_found(), secs(10), Notice::StopAndKeep).await;
    sleep(secs(6000)).await;
    for number in 0..300 {
        fixture.add_found(&format!("runner-{number}"));
    }
    let before = fixture.server.requests().len();
    fixture.run(rotating_found(), secs(60), Notice::StopAndKeep).await;
    let requests = fixture.server.requests().split_off(before);
    let first = requests.iter().position(|request| request.call == "reset").unwrap();
    assert_eq!(requests[first].token, due.token.fingerprint());
    assert!(first < 200, "{first} verifications went before it");
}
