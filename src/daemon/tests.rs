//! The daemon against a GitLab and a disk in memory, on a paused clock.

use crate::clock::Clock;
use crate::engine::{Policy, PolicySelector, Shutdown, Unregister};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::*;
use crate::gitlab::Disposition;
use crate::lifecycle::Fraction;
use crate::model::{Credential, Expiry, Origin, RunnerId, Site, StateName, Step, TlsFiles, VerifyOutcome};
use crate::ops::memory::{Fault, MemoryDisk, MemoryServer, TokioClock, identity, registration_token, url};
use crate::ops::{Ops, RegistrationSource};
use crate::secret::{Source, Token};
use crate::store::EntryToken;

const UNKNOWN: Disposition = Disposition::Unknown { retry_after: None };
const NOT_EXECUTED: Disposition = Disposition::NotExecuted { retry_after: None };

struct Bench {
    clock: TokioClock,
    server: MemoryServer,
    disk: MemoryDisk,
}

impl Bench {
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
            },
            watch: None,
            heartbeat: Heartbeat::every(secs(3600)),
            registry: StatusRegistry::default(),
            counters: Counters::new(),
            reload: Box::new(|| None),
        }
    }

    /// Runs the daemon for a while, then sends a notice and waits for its end.
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

    /// A runner that is only found in config.toml.
    fn add_found(&self, name: &str) -> Credential {
        let (id, credential) = self.server.add_runner();
        self.disk.add_entry(name, Some(id), &credential);
        credential
    }

    /// A runner that was made in GitLab and is known to have been.
    async fn add_created(&self) -> RunnerId {
        self.add_found("created");
        self.run(Config::default(), secs(10), Notice::StopAndKeep).await;
        self.disk.state().records.values_mut().for_each(|record| record.origin = Origin::Given);
        self.disk.state().entries[0].id.unwrap()
    }
}

fn enrolled(token: Token) -> Config {
    Config { enrollments: vec![crate::ops::memory::enrollment(token)], ..Config::default() }
}

const HOUR: i64 = 3_600_000;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[tokio::test(start_paused = true)]
async fn a_life_from_registration_to_unregistration() {
    let bench = Bench::new(Some(secs(1200)));
    bench.run(enrolled(registration_token()), secs(1100), Notice::Stop).await;
    assert_eq!(bench.server.calls(), ["register", "reset", "delete_runner"]);
    assert!(bench.server.runners().is_empty());
    assert!(bench.disk.tokens().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_the_runner() {
    let bench = Bench::new(Some(secs(86_400)));
    bench.run(enrolled(registration_token()), secs(60), Notice::StopAndKeep).await;
    bench.run(enrolled(registration_token()), secs(60), Notice::StopAndKeep).await;
    assert_eq!(bench.server.calls(), ["register", "verify"]);
    assert_eq!(bench.disk.tokens().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_state_directory_makes_no_second_runner() {
    let bench = Bench::new(Some(secs(86_400)));
    bench.run(enrolled(registration_token()), secs(60), Notice::StopAndKeep).await;
    bench.disk.state().records.clear();
    bench.run(enrolled(registration_token()), secs(60), Notice::StopAndKeep).await;
    assert_eq!(bench.server.calls(), ["register", "verify"]);
    assert_eq!(bench.server.runners().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_runner_neither_starves_a_healthy_one_nor_floods_the_server() {
    let life = secs(900);
    let bench = Bench::new(Some(life));
    let dead = Credential { token: Token::parse("glrtr-dead").unwrap(), obtained_at: None, expiry: Expiry::Unknown };
    bench.disk.add_entry("dead", None, &dead);
    bench.add_found("healthy");
    bench.run(Config::default(), life * 10, Notice::StopAndKeep).await;
    let requests = bench.server.requests();
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
async fn a_server_that_is_down_is_waited_for_and_caught_up_with() {
    let bench = Bench::new(Some(secs(86_400)));
    bench.add_found("found");
    bench.server.order_always("register", Some(Fault::Fail(NOT_EXECUTED)));
    bench.server.order_always("verify", Some(Fault::Fail(UNKNOWN)));
    let server = bench.server.clone();
    let recovery = async move {
        sleep(secs(60)).await;
        server.order_always("register", None);
        server.order_always("verify", None);
    };
    tokio::join!(bench.run(enrolled(registration_token()), secs(180), Notice::StopAndKeep), recovery);
    assert_eq!(bench.server.runners().len(), 2);
    assert_eq!(bench.disk.tokens().len(), 2);
    let last = bench.disk.state().records.values().map(|record| record.last_verify.clone()).collect::<Vec<_>>();
    assert!(last.iter().flatten().all(|verify| verify.outcome == VerifyOutcome::Accepted), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_reset_that_did_not_happen_is_settled_and_repeated() {
    let bench = Bench::new(Some(secs(3600)));
    bench.add_found("found");
    bench.server.order("reset", Fault::Fail(UNKNOWN));
    bench.run(Config::default(), secs(2800), Notice::StopAndKeep).await;
    let calls = bench.server.calls();
    assert_eq!(calls, ["verify", "reset", "verify", "verify", "reset"]);
    assert!(bench.disk.state().journal.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_reset_that_did_happen_is_noticed_and_no_second_one_is_sent() {
    let bench = Bench::new(Some(secs(3600)));
    bench.add_found("found");
    bench.server.order("reset", Fault::ActAndLose);
    bench.run(Config::default(), secs(6 * 3600), Notice::StopAndKeep).await;
    let resets = bench.server.calls().iter().filter(|call| **call == "reset").count();
    assert_eq!(resets, 1);
    let state = bench.disk.state().records.values().next().unwrap().state;
    assert_eq!(state, Some(StateName::Rejected));
}

#[tokio::test(start_paused = true)]
async fn a_config_that_cannot_be_written_is_tried_until_it_can() {
    let bench = Bench::new(Some(secs(3600)));
    bench.add_found("found");
    bench.disk.fail("edit", 5);
    bench.run(Config::default(), secs(3300), Notice::StopAndKeep).await;
    assert_eq!(bench.server.calls(), ["verify", "reset"]);
    let (_, served) = bench.server.runners().into_iter().next().unwrap();
    assert_eq!(bench.disk.tokens(), [served.token]);
    assert!(bench.disk.state().journal.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_an_hour_off_makes_no_rotation_late_and_no_storm() {
    for skew_millis in [-HOUR, HOUR] {
        let life = secs(7200);
        let bench = Bench::new(Some(life));
        *bench.clock.step.borrow_mut() = skew_millis;
        bench.add_found("found");
        bench.run(Config::default(), life * 3, Notice::StopAndKeep).await;
        let resets = bench.server.requests().iter().filter(|request| request.call == "reset").count();
        assert!((4..=5).contains(&resets), "{resets} rotations with a skew of {skew_millis}");
        assert_eq!(bench.disk.tokens().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn every_token_is_counted_from_its_own_issue() {
    let (enrolled, found) = (enrolled(registration_token()), Config::default());
    for (config, skew_millis) in
        [&enrolled, &found].into_iter().flat_map(|config| [0, -HOUR, HOUR].map(|skew| (config, skew)))
    {
        let life = secs(10 * 86_400);
        let bench = Bench::new(Some(life));
        *bench.clock.step.borrow_mut() = skew_millis;
        if config.enrollments.is_empty() {
            bench.add_found("found");
        }
        for _ in 0..2 {
            bench.run(config.clone(), life * 3, Notice::StopAndKeep).await;
        }
        let issues: Vec<_> = bench.server.requests().into_iter().filter(|request| request.call != "verify").collect();
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
async fn a_clock_that_jumps_is_answered_by_one_question() {
    let bench = Bench::new(None);
    bench.add_found("found");
    let clock = bench.clock.clone();
    let jump = async move {
        sleep(secs(3600)).await;
        *clock.step.borrow_mut() = 5 * HOUR;
    };
    tokio::join!(bench.run(Config::default(), secs(3 * 3600), Notice::StopAndKeep), jump);
    assert_eq!(bench.server.calls(), ["verify", "verify"]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_verifies_now_and_once() {
    let bench = Bench::new(None);
    bench.add_found("found");
    let (notices, inbox) = mpsc::unbounded_channel();
    let daemon = run(Config::default(), bench.parts(), inbox);
    let script = async {
        sleep(secs(10)).await;
        notices.send(Notice::Reload).unwrap();
        sleep(secs(10)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
    assert_eq!(bench.server.calls(), ["verify", "verify"]);
}

#[tokio::test(start_paused = true)]
async fn an_old_copy_of_config_toml_is_put_right_without_a_request() {
    let bench = Bench::new(Some(secs(3600)));
    let old = bench.add_found("found");
    let (notices, inbox) = mpsc::unbounded_channel();
    let daemon = run(Config::default(), bench.parts(), inbox);
    let script = async {
        sleep(secs(2700)).await;
        let current = bench.disk.tokens();
        assert_ne!(current, std::slice::from_ref(&old.token));
        bench.disk.state().entries[0].token = EntryToken::Literal(old.token.clone());
        notices.send(Notice::Reload).unwrap();
        sleep(secs(1)).await;
        assert_eq!(bench.disk.tokens(), current);
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
    assert_eq!(bench.server.calls(), ["verify", "reset", "verify"]);
}

#[tokio::test(start_paused = true)]
async fn an_enrolled_entry_that_was_removed_comes_back_and_any_other_does_not() {
    let bench = Bench::new(None);
    bench.add_found("found");
    let (notices, inbox) = mpsc::unbounded_channel();
    let daemon = run(enrolled(registration_token()), bench.parts(), inbox);
    let script = async {
        sleep(secs(10)).await;
        assert_eq!(bench.disk.tokens().len(), 2);
        bench.disk.state().entries.clear();
        notices.send(Notice::Reload).unwrap();
        sleep(secs(10)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
    let names: Vec<_> = bench.disk.state().entries.iter().map(|entry| entry.name.clone()).collect();
    assert_eq!(names, [Some("build-1".to_owned())]);
    assert_eq!(bench.server.calls().iter().filter(|call| **call == "register").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_shutdown_policy_decides_who_is_unregistered() {
    for (policy, left) in [(Unregister::Never, 2), (Unregister::Enrolled, 1), (Unregister::All, 0)] {
        let bench = Bench::new(None);
        bench.add_found("found");
        let mut config = enrolled(registration_token());
        config.shutdown.unregister = policy;
        bench.run(config, secs(10), Notice::Stop).await;
        assert_eq!(bench.server.runners().len(), left, "{policy:?}");
        assert_eq!(bench.disk.tokens().len(), left, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_verified_after_it_was_unregistered() {
    let bench = Bench::new(None);
    bench.run(enrolled(registration_token()), secs(10_000), Notice::Stop).await;
    assert_eq!(bench.server.calls().last(), Some(&"delete_runner"));
}

#[tokio::test(start_paused = true)]
async fn one_pass_registers_verifies_and_rotates_what_is_due() {
    let bench = Bench::new(Some(secs(3600)));
    let credential = bench.add_found("found");
    let overdue = Credential { obtained_at: credential.obtained_at.map(|at| at.minus(secs(36_000))), ..credential };
    bench.disk.state().entries[0].obtained_at = overdue.obtained_at;
    let reports = once(enrolled(registration_token()), bench.parts()).await.unwrap();
    assert_eq!(bench.server.calls().len(), 3);
    for call in ["register", "verify", "reset"] {
        assert!(bench.server.calls().contains(&call), "{call}");
    }
    assert!(reports.iter().all(|report| report.state == StateName::Active), "{reports:?}");
}

#[tokio::test(start_paused = true)]
async fn what_another_process_has_unregistered_stays_away_until_somebody_asks() {
    let bench = Bench::new(None);
    let (notices, inbox) = mpsc::unbounded_channel();
    let daemon = run(enrolled(registration_token()), bench.parts(), inbox);
    let script = async {
        sleep(secs(10)).await;
        let other = Ops::new(bench.server.clone(), bench.disk.clone(), identity());
        let record = bench.disk.state().records.values().next().unwrap().clone();
        let site = Site { url: url(), tls: TlsFiles::default() };
        let mut runner = crate::ops::Runner::recorded(record, site);
        other.unregister(&mut runner, crate::ops::EntryFate::Drop, bench.clock.truth()).await.unwrap();
        notices.send(Notice::Reload).unwrap();
        sleep(secs(10)).await;
        assert_eq!(bench.server.runners().len(), 1, "a reload brings it back");
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
}

/// An enrollment like the usual one, on another server.
fn enrolled_elsewhere() -> Config {
    let mut config = enrolled(registration_token());
    config.enrollments[0].site.url = "https://elsewhere.example.com".parse().unwrap();
    config.enrollments[0].entry.url = config.enrollments[0].site.url.clone();
    config
}

#[tokio::test(start_paused = true)]
async fn an_enrollment_that_moves_leaves_its_old_runner_alone() {
    let bench = Bench::new(None);
    bench.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    let (old_id, _) = bench.server.runners().into_iter().next().unwrap();
    bench.run(enrolled_elsewhere(), secs(10), Notice::Stop).await;
    assert!(bench.server.runners().contains_key(&old_id), "the old runner stays registered");
    assert_eq!(bench.server.calls().iter().filter(|call| **call == "register").count(), 2);
    let urls: Vec<_> = bench.disk.state().entries.iter().map(|entry| entry.url.clone().unwrap()).collect();
    assert_eq!(urls, [url()], "the old entry stays, the new one went with its runner");
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_is_no_longer_enrolled_is_not_unregistered() {
    let bench = Bench::new(None);
    bench.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    bench.run(Config::default(), secs(10), Notice::Stop).await;
    assert_eq!(bench.server.runners().len(), 1);
    assert_eq!(bench.disk.tokens().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_enrollment_that_vanishes_before_it_was_registered_ends_quietly() {
    let bench = Bench::new(None);
    let (notices, inbox) = mpsc::unbounded_channel();
    let mut parts = bench.parts();
    parts.reload = Box::new(|| Some(Config::default()));
    let daemon = run(enrolled(Token::parse("wrong").unwrap()), parts, inbox);
    let script = async {
        sleep(secs(10)).await;
        notices.send(Notice::Reload).unwrap();
        sleep(secs(3600)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
    assert_eq!(bench.server.calls(), ["register"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_registration_is_not_asked_again_and_again() {
    let bench = Bench::new(None);
    bench.server.order_always("register", Some(Fault::Fail(Disposition::Unsupported)));
    bench.run(enrolled(registration_token()), secs(3600), Notice::StopAndKeep).await;
    assert_eq!(bench.server.calls(), ["register"]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_a_day_ahead_at_the_first_start_makes_no_rotation_late() {
    let life = secs(7200);
    let bench = Bench::new(Some(life));
    *bench.clock.step.borrow_mut() = 86_400_000;
    let credential = bench.add_found("found");
    // Nobody wrote down when the token was issued.
    bench.disk.state().entries[0].obtained_at = None;
    bench.run(Config::default(), life, Notice::StopAndKeep).await;
    let first = bench.server.requests().into_iter().find(|request| request.call == "reset").unwrap();
    assert!(first.at < credential.expiry.at().unwrap());
    assert_eq!(bench.server.calls().iter().filter(|call| **call == "reset").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_policy_by_number_holds_from_when_the_number_is_known() {
    let bench = Bench::new(Some(secs(3600)));
    let (id, credential) = bench.server.add_runner();
    bench.disk.add_entry("found", None, &credential);
    let selector = PolicySelector { id: Some(id), ..PolicySelector::default() };
    let policy = Policy { selector, rotate: None, unregister: None, shared: Some(true) };
    let config = Config { policies: vec![policy], ..Config::default() };
    bench.run(config, secs(3500), Notice::StopAndKeep).await;
    assert_eq!(bench.server.calls(), ["verify"]);
}

#[tokio::test(start_paused = true)]
async fn an_enrolled_entry_that_is_missing_at_the_start_comes_back() {
    let bench = Bench::new(None);
    bench.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    bench.disk.state().entries.clear();
    bench.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    assert_eq!(bench.disk.tokens().len(), 1);
    assert_eq!(bench.server.runners().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_accepted_but_never_renewed_is_left_in_peace() {
    let bench = Bench::new(Some(secs(86_400)));
    bench.add_found("found");
    bench.server.order_always("reset", Some(Fault::Fail(Disposition::Refused)));
    bench.run(Config::default(), secs(86_000), Notice::StopAndKeep).await;
    let calls = bench.server.calls().len();
    assert!(calls < 60, "{calls} requests");
}

#[tokio::test(start_paused = true)]
async fn a_lost_unregistration_is_finished_however_long_the_server_is_down() {
    let bench = Bench::new(None);
    bench.server.order("delete_runner", Fault::ActAndLose);
    bench.run(enrolled(registration_token()), secs(10), Notice::Stop).await;
    assert!(bench.server.runners().is_empty());
    bench.server.order_always("delete_runner", Some(Fault::Fail(NOT_EXECUTED)));
    let server = bench.server.clone();
    let recovery = async move {
        sleep(secs(300)).await;
        server.order_always("delete_runner", None);
    };
    tokio::join!(bench.run(enrolled(registration_token()), secs(1200), Notice::StopAndKeep), recovery);
    assert_eq!(bench.server.runners().len(), 1, "registered anew");
    assert_eq!(bench.disk.tokens().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hung_worker_does_not_keep_the_others_from_being_unregistered() {
    let bench = Bench::new(None);
    bench.add_found("found");
    let mut config = enrolled(registration_token());
    config.shutdown.unregister = Unregister::All;
    bench.server.order_always("delete_runner", Some(Fault::Fail(UNKNOWN)));
    bench.run(config, secs(10), Notice::Stop).await;
    let deletions = bench.server.calls().iter().filter(|call| **call == "delete_runner").count();
    assert_eq!(deletions, 2);
}

fn with_access_token(mut config: Config) -> Config {
    let token = Token::parse("glpat-access").unwrap();
    let access_token = Source::Value { token, origin: "a test".to_owned() };
    config.servers.push(crate::ops::ServerAccess { url: url(), access_token });
    config
}

#[tokio::test(start_paused = true)]
async fn a_lost_token_comes_back_within_two_minutes_with_an_access_token() {
    let bench = Bench::new(Some(secs(3600)));
    bench.add_found("found");
    bench.server.order("reset", Fault::ActAndLose);
    bench.run(with_access_token(Config::default()), secs(2400 + 180), Notice::StopAndKeep).await;
    let requests = bench.server.requests();
    let lost = requests.iter().find(|request| request.call == "reset").unwrap().at;
    let recovered = requests.iter().find(|request| request.call == "reset_by_id").unwrap().at;
    assert!(recovered.since(lost) <= secs(120));
    let (_, served) = bench.server.runners().into_iter().next().unwrap();
    assert_eq!(bench.disk.tokens(), [served.token]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_comes_back_with_a_registration_token() {
    let bench = Bench::new(Some(secs(3600)));
    bench.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    tokio::time::advance(secs(7200)).await;
    bench.run(enrolled(registration_token()), secs(120), Notice::StopAndKeep).await;
    assert_eq!(bench.disk.tokens().len(), 1, "into the same entry");
    let token = bench.disk.tokens().remove(0);
    assert!(bench.server.runners().values().any(|served| served.token == token));
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_somebody_removed_stays_removed() {
    let bench = Bench::new(Some(secs(86_400)));
    bench.add_found("found");
    let id = bench.disk.state().entries[0].id.unwrap();
    bench.server.remove_runner(id);
    bench.run(with_access_token(Config::default()), secs(3600), Notice::StopAndKeep).await;
    assert_eq!(bench.server.calls(), ["verify", "verify", "reset_by_id"]);
    assert!(bench.server.runners().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reset_by_number_is_not_fought_over() {
    let bench = Bench::new(Some(secs(86_400)));
    bench.add_found("found");
    let id = bench.disk.state().entries[0].id.unwrap();
    let (server, clock) = (bench.server.clone(), bench.clock.clone());
    // Another machine resets the same runner whenever ours has done so.
    let rival = async move {
        let access = Token::parse("glpat-rival").unwrap();
        let site = Site { url: url(), tls: TlsFiles::default() };
        for _ in 0..20 {
            crate::ops::Server::reset_by_id(&server, &site, id, &access).await.unwrap();
            sleep(secs(7200)).await;
        }
        clock
    };
    let mut config = with_access_token(Config::default());
    config.verify_found = secs(600);
    let ours = bench.run(config, secs(20 * 3600), Notice::StopAndKeep);
    tokio::join!(ours, rival);
    let mine = bench.server.requests();
    let access = Token::parse("glpat-access").unwrap().fingerprint();
    assert_eq!(mine.iter().filter(|request| request.call == "reset_by_id" && request.token == access).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_came_with_a_copied_disk_counts_as_shared() {
    let bench = Bench::new(Some(secs(3600)));
    bench.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    bench.disk.state().records.values_mut().for_each(|record| record.is_copy = true);
    bench.run(enrolled(registration_token()), secs(3500), Notice::Stop).await;
    assert!(!bench.server.calls().contains(&"reset"), "it is not rotated");
    assert_eq!(bench.server.calls().last(), Some(&"delete_manager"), "only this machine's part in it ends");
    assert_eq!(bench.disk.tokens().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_another_machine_uses_is_not_rotated_until_that_machine_is_gone() {
    let life = secs(30 * 86_400);
    let bench = Bench::new(Some(life));
    let id = bench.add_created().await;
    let other = async {
        sleep(life * 61 / 100).await;
        bench.server.contact_from(id, "s_another00001", bench.clock.truth());
    };
    let ours = bench.run(with_access_token(Config::default()), life * 67 / 100, Notice::StopAndKeep);
    tokio::join!(ours, other);
    let calls = bench.server.calls();
    let asked = calls.iter().filter(|call| **call == "managers").count();
    assert!(!calls.contains(&"reset") && (1..=12).contains(&asked), "{asked} questions");
    bench.run(with_access_token(Config::default()), life * 10 / 100, Notice::StopAndKeep).await;
    assert_eq!(bench.server.calls().iter().filter(|call| **call == "reset").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_that_another_machine_uses_is_not_reset_by_its_number() {
    let bench = Bench::new(Some(secs(3600)));
    let id = bench.add_created().await;
    let mut config = with_access_token(Config::default());
    (config.rotate, config.verify_found) = (None, secs(600));
    let other = async {
        sleep(secs(3700)).await;
        bench.server.contact_from(id, "s_another00001", bench.clock.truth());
    };
    tokio::join!(bench.run(config, secs(7200), Notice::StopAndKeep), other);
    let calls = bench.server.calls();
    assert!(calls.contains(&"managers") && !calls.contains(&"reset_by_id"), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_tell_who_uses_a_token_does_not_stop_its_rotation() {
    let bench = Bench::new(Some(secs(3600)));
    bench.add_created().await;
    bench.server.order_always("managers", Some(Fault::Fail(NOT_EXECUTED)));
    bench.run(with_access_token(Config::default()), secs(3000), Notice::StopAndKeep).await;
    assert!(bench.server.calls().contains(&"reset"));
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_another_process_left_unanswered_is_settled_by_the_daemon() {
    let bench = Bench::new(Some(secs(86_400)));
    bench.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    // A one-shot is killed while its reset is outstanding, and the server has acted.
    let other = Ops::new(bench.server.clone(), bench.disk.clone(), identity());
    let record = bench.disk.state().records.values().next().unwrap().clone();
    let mut runner = crate::ops::Runner::recorded(record, Site { url: url(), tls: TlsFiles::default() });
    let (notices, inbox) = mpsc::unbounded_channel();
    let daemon = run(enrolled(registration_token()), bench.parts(), inbox);
    let script = async {
        sleep(secs(10)).await;
        bench.server.order("reset", Fault::ActAndLose);
        other.rotate(&mut runner, None, bench.clock.truth()).await.unwrap_err();
        notices.send(Notice::Reload).unwrap();
        sleep(secs(180)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
    let calls = bench.server.calls();
    assert_eq!(calls.iter().filter(|call| **call == "register").count(), 2, "{calls:?}");
    assert!(bench.disk.state().journal.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_loop_gives_a_sign_of_life_while_nothing_happens_and_while_it_stops() {
    let bench = Bench::new(Some(secs(86_400)));
    bench.server.order_always("delete_runner", Some(Fault::Hang));
    let parts = bench.parts();
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
async fn readiness_follows_the_servers_last_word_and_nothing_else() {
    let bench = Bench::new(Some(secs(86_400)));
    bench.add_found("found");
    bench.server.order_always("verify", Some(Fault::Fail(UNKNOWN)));
    let parts = bench.parts();
    let registry = parts.registry.clone();
    let (notices, inbox) = mpsc::unbounded_channel();
    let why = || registry.readiness().waiting_for.into_iter().map(|unready| unready.why).collect::<Vec<_>>().join("; ");
    assert_eq!(why(), "the daemon is starting");
    let look = async {
        sleep(secs(30)).await;
        assert!(why().contains("has not said yet"), "{}", why());
        bench.server.order_always("verify", None);
        sleep(secs(600)).await;
        assert_eq!(why(), "");
        bench.server.order_always("verify", Some(Fault::Fail(UNKNOWN)));
        notices.send(Notice::Reload).unwrap();
        sleep(secs(30)).await;
        assert_eq!(why(), "", "no answer takes nothing back");
        bench.server.order_always("verify", Some(Fault::Fail(Disposition::Refused)));
        notices.send(Notice::Reload).unwrap();
        sleep(secs(1200)).await;
        assert!(why().contains("the server refuses the token"), "{}", why());
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(Config::default(), parts, inbox), look);
    result.unwrap();
    assert!(why().starts_with("the daemon is stopping"), "{}", why());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_config_toml_does_not_hold_is_not_ready() {
    let bench = Bench::new(Some(secs(3600)));
    bench.add_found("found");
    bench.disk.fail("edit", u32::MAX);
    let parts = bench.parts();
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
    let (result, ()) = tokio::join!(run(Config::default(), parts, inbox), look);
    result.unwrap();
    let reading = crate::clock::Clock::read(&bench.clock);
    let metrics = crate::status::metrics(&counters, &registry, reading).unwrap();
    assert!(metrics.contains("runner_agent_rotations_total{outcome=\"done\"} 1\n"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn each_ending_of_a_rotation_is_counted_as_what_it_was() {
    for (fault, outcome) in [
        (Fault::Fail(UNKNOWN), "lost"),
        (Fault::Fail(NOT_EXECUTED), "failed"),
        (Fault::Fail(Disposition::RotationClosed), "refused"),
        (Fault::SameToken, "unchanged"),
    ] {
        let bench = Bench::new(Some(secs(3600)));
        bench.add_found("found");
        bench.server.order_always("reset", Some(fault));
        let parts = bench.parts();
        let (registry, counters) = (parts.registry.clone(), parts.counters.clone());
        let (notices, inbox) = mpsc::unbounded_channel();
        let stop = async {
            sleep(secs(2600)).await;
            notices.send(Notice::StopAndKeep).unwrap();
        };
        let (result, ()) = tokio::join!(run(Config::default(), parts, inbox), stop);
        result.unwrap();
        let metrics = crate::status::metrics(&counters, &registry, crate::clock::Clock::read(&bench.clock)).unwrap();
        let counted: Vec<_> = metrics
            .lines()
            .filter(|line| line.starts_with("runner_agent_rotations_total{") && !line.ends_with(" 0"))
            .collect();
        assert!(counted.len() == 1 && counted[0].contains(&format!("\"{outcome}\"")), "{counted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_fails_is_told_for_as_long_as_it_does() {
    let bench = Bench::new(Some(secs(3600)));
    bench.server.order_always("reset", Some(Fault::Fail(NOT_EXECUTED)));
    let parts = bench.parts();
    let (registry, clock) = (parts.registry.clone(), bench.clock.clone());
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
        bench.server.order_always("reset", None);
        sleep(secs(400)).await;
        assert!(registry.readiness().ready, "{:?}", registry.readiness());
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_could_not_be_made_again_is_not_unregistered() {
    let bench = Bench::new(None);
    bench.run(enrolled(registration_token()), secs(10), Notice::StopAndKeep).await;
    let mut config = enrolled(registration_token());
    config.enrollments[0].source = RegistrationSource::Registration(Source::File("/nowhere/token".into()));
    bench.run(config.clone(), secs(10), Notice::Stop).await;
    assert_eq!((bench.server.runners().len(), bench.disk.tokens().len()), (1, 1));
    config.shutdown.unregister = Unregister::All;
    bench.run(config, secs(10), Notice::Stop).await;
    assert!(bench.server.runners().is_empty(), "who asks for all gets it");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_stuck_silences_neither_the_pulse_nor_a_stop() {
    let bench = Bench::new(Some(secs(86_400)));
    let parts = Parts { heartbeat: Heartbeat::new(), ..bench.parts() };
    let (heartbeat, registry) = (parts.heartbeat.clone(), parts.registry.clone());
    let (notices, inbox) = mpsc::unbounded_channel();
    let daemon = run(enrolled(registration_token()), parts, inbox);
    let script = async {
        sleep(secs(100)).await;
        assert!(registry.readiness().ready);
        bench.disk.state().is_stuck = true;
        notices.send(Notice::Reload).unwrap();
        sleep(secs(300)).await;
        assert!(heartbeat.is_alive() && !registry.readiness().ready);
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(tokio::time::timeout(secs(500), daemon), script);
    result.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_recovery_that_fails_is_told_after_a_rotation_that_failed() {
    let bench = Bench::new(Some(secs(3600)));
    bench.add_found("found");
    bench.server.order_always("reset", Some(Fault::Fail(NOT_EXECUTED)));
    let parts = bench.parts();
    let registry = parts.registry.clone();
    let (notices, inbox) = mpsc::unbounded_channel();
    let mut config = with_access_token(Config::default());
    config.verify_found = secs(600);
    config.servers[0].access_token = Source::File("/nowhere/access".into());
    let daemon = run(config, parts, inbox);
    let script = async {
        sleep(secs(3700)).await;
        bench.server.order_always("reset", None);
        sleep(secs(1700)).await;
        let readiness = registry.readiness();
        assert!(readiness.waiting_for[0].why.contains("/nowhere/access"), "{readiness:?}");
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, script);
    result.unwrap();
}
