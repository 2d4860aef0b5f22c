//! What enrollments, records and entries have to do with each other.

use super::super::pace::RUNNERS_PER_TURN;
use super::*;
use crate::engine::{Policy, PolicySelector};
use crate::lifecycle::Outcome;
use crate::model::{
    Candidate, CandidateSource, Credential, Held, LastVerify, Origin, RunnerId, Site, StateName, TlsFiles,
    VerifyOutcome,
};
use crate::ops::RegistrationSource;
use crate::ops::memory::{
    MemoryDisk, MemoryServer, START, TokioClock, enrollment, identity, inquiry_at, registration_token, rotation_intent,
    url,
};
use crate::secret::{Source, Token};
use crate::store::{Entry, EntryProblem, EntryText, EntryToken, Pending};

/// A machine with files and a GitLab.
struct World {
    server: MemoryServer,
    disk: MemoryDisk,
    ops: Ops<MemoryServer, MemoryDisk>,
    config: Config,
}

impl World {
    /// One enrollment, `build-1`.
    fn new() -> Self {
        let server = MemoryServer::new(TokioClock::new(), None);
        let disk = MemoryDisk::default();
        let ops = Ops::new(server.clone(), disk.clone(), identity());
        let enrollments = vec![enrollment(registration_token())];
        Self { server, disk, ops, config: Config { enrollments, ..Config::default() } }
    }

    /// A runner on the server with an entry of this name.
    fn add_entry(&self, name: &str) -> (RunnerId, Credential) {
        let (id, credential) = self.server.add_runner();
        self.disk.add_entry(name, Some(id), &credential);
        (id, credential)
    }

    fn add_record(&self, key: &str, name: &str, id: RunnerId, credential: &Credential) -> Record {
        let mut record = blank(key);
        record.name = Some(name.to_owned());
        record.id = Some(id);
        record.credential = Some(credential.clone());
        self.save(&record);
        record
    }

    fn save(&self, record: &Record) {
        self.disk.state().records.insert(record.key.clone(), record.clone());
    }

    fn keys(&self) -> Vec<String> {
        self.disk.state().records.keys().map(ToString::to_string).collect()
    }

    /// The inventory as a daemon takes it at its start.
    async fn started(&self) -> Inventory {
        let (mut inventory, _) = take_inventory(&self.ops, &self.config, now()).await.unwrap();
        inventory.apply_changes(&self.ops, &BTreeSet::new()).await.unwrap();
        inventory
    }

    async fn relation(&self) -> Relation {
        let records = self.disk.state().records.values().cloned().collect::<Vec<_>>();
        let snapshot = self.ops.disk().read().await.unwrap();
        relate(&self.config.enrollments[0], &Enrolled::new(), &records, &snapshot).relation
    }

    /// Another enrollment at the same server.
    fn enroll(&mut self, key: &str, name: &str) {
        let mut another = enrollment(registration_token());
        another.key = RunnerKey::enrollment(key).unwrap();
        another.entry.name = name.to_owned();
        self.config.enrollments.push(another);
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(START)
}

fn key(text: &str) -> RunnerKey {
    RunnerKey::try_from(text.to_owned()).unwrap()
}

fn blank(name: &str) -> Record {
    Runner::blank(key(name), Origin::Registered, Site { url: url(), tls: TlsFiles::default() }).record
}

fn served(inventory: &Inventory) -> Vec<(&str, bool)> {
    inventory.runners.iter().map(|it| (it.runner.record.key.as_str(), it.enrollment.is_some())).collect()
}

#[tokio::test]
async fn an_enrollment_takes_over_the_record_of_its_name_whatever_made_it() {
    for made_by in ["7@gitlab.example.com", "register-0123456789ab", "a-former-key"] {
        let world = World::new();
        let (id, credential) = world.add_entry("build-1");
        world.add_record(made_by, "build-1", id, &credential);
        let inventory = world.started().await;
        assert_eq!(served(&inventory), [("build-1", true)], "{made_by}");
        assert_eq!(inventory.runners[0].runner.record.credential, Some(credential));
        assert_eq!(world.keys(), ["build-1"], "the record has moved");
        assert_eq!(world.disk.state().records[&key("build-1")].enrollment.as_deref(), Some("build-1"));
        // The next start finds its own record and says nothing.
        let again = world.started().await;
        assert!(served(&again) == [("build-1", true)] && again.warnings.is_empty());
    }
}

#[tokio::test]
async fn an_enrollment_takes_over_an_entry_or_a_record_alone() {
    let world = World::new();
    let (_, credential) = world.add_entry("build-1");
    assert!(matches!(world.relation().await, Relation::Found(_)));
    assert_eq!(served(&world.started().await), [("build-1", true)]);
    assert_eq!(world.disk.state().records[&key("build-1")].credential, Some(credential), "commands find this key");

    let world = World::new();
    let (id, credential) = world.server.add_runner();
    world.add_record("7@gitlab.example.com", "build-1", id, &credential);
    assert!(matches!(world.relation().await, Relation::Recorded(_)));
    assert_eq!(served(&world.started().await), [("build-1", true)]);
    assert_eq!(world.keys(), ["build-1"]);
}

#[tokio::test]
async fn an_enrollment_whose_runner_was_unregistered_takes_over_a_new_entry() {
    let world = World::new();
    let mut retired = blank("build-1");
    retired.enrollment = Some("build-1".to_owned());
    retired.state = Some(StateName::Retired);
    world.save(&retired);
    let (_, credential) = world.add_entry("build-1");
    let inventory = world.started().await;
    assert_eq!(served(&inventory), [("build-1", true)]);
    assert_eq!(world.disk.state().records[&key("build-1")].credential, Some(credential));
}

#[tokio::test]
async fn a_restored_entry_of_a_deleted_runner_is_registered_anew() {
    let world = World::new();
    let (_, credential) = world.add_entry("build-1");
    let mut retired = blank("build-1");
    retired.state = Some(StateName::Retired);
    retired.add_former_token(credential.token.digest());
    world.save(&retired);
    assert!(matches!(world.relation().await, Relation::Nothing(Some(_))));
    // A given runner is still there.
    retired.origin = Origin::Given;
    world.save(&retired);
    assert!(matches!(world.relation().await, Relation::Found(_)));
}

#[tokio::test]
async fn an_enrollment_keeps_the_record_of_its_name_whose_entry_holds_the_token_of_another_name() {
    for has_id in [true, false] {
        let world = World::new();
        let (id, credential) = world.server.add_runner();
        let (other, swapped) = world.add_entry("other");
        world.disk.add_entry("build-1", Some(id).filter(|_| has_id), &swapped);
        world.add_record("by-command", "build-1", id, &credential);
        world.add_record("by-other", "other", other, &swapped);
        let Relation::Recorded(record) = world.relation().await else { panic!("{has_id}") };
        assert_eq!(record.key, key("by-command"), "{has_id}");
    }
}

#[tokio::test]
async fn the_record_of_an_enrollment_that_has_come_back_says_so() {
    let world = World::new();
    let (id, credential) = world.add_entry("build-1");
    world.add_record("build-1", "build-1", id, &credential);
    assert_eq!(served(&world.started().await), [("build-1", true)]);
    assert_eq!(world.disk.state().records[&key("build-1")].enrollment.as_deref(), Some("build-1"));
}

#[tokio::test]
async fn an_enrollment_that_takes_over_one_of_two_records_of_a_runner_knows_the_token_of_the_other() {
    for is_started in [true, false] {
        let world = World::new();
        let (id, credential) = world.server.add_runner();
        let newer = Credential { token: Token::parse("glrt-newer").unwrap(), ..credential.clone() };
        for (key, credential) in [("by-command", &credential), ("by-entry", &newer)] {
            let record = world.add_record(key, "build-1", id, credential);
            world.save(&Record { confirmed_id: Some(id), ..record });
        }
        let inventory = if is_started {
            world.started().await
        } else {
            retake_inventory(&world.ops, &world.config, &BTreeSet::new()).await.unwrap().0
        };
        assert_eq!(served(&inventory), [("build-1", true)]);
        let runner = &inventory.runners[0].runner;
        assert_eq!(runner.record.credential, Some(credential));
        assert_eq!(runner.held.candidates.iter().map(|it| &it.token).collect::<Vec<_>>(), [&newer.token]);
        assert_eq!(inventory.warnings, [""; 0]);
    }
}

#[tokio::test]
async fn an_enrollment_keeps_the_record_of_its_name_whose_entry_was_given_to_another_runner() {
    let world = World::new();
    let (id, credential) = world.server.add_runner();
    let (other, given) = world.add_entry("build-1");
    let record = world.add_record("by-command", "build-1", id, &credential);
    world.save(&Record { given_to: Some(other), ..record });
    world.add_record("given", "build-1", other, &given);
    let Relation::Recorded(record) = world.relation().await else { panic!() };
    assert_eq!(record.key, key("by-command"));
}

#[tokio::test]
async fn of_two_records_of_a_runner_without_an_entry_one_is_served() {
    // A record of an enrollment is served without an entry, and so is one whose entry was given to another runner.
    for first in ["build-1", "a-found"] {
        let world = World::new();
        let (id, credential) = world.server.add_runner();
        let newer = Credential { token: Token::parse("glrt-newer").unwrap(), ..credential.clone() };
        let other = RunnerId::try_new(id.number() + 1).unwrap();
        for (key, credential) in [(first, &credential), ("found", &newer)] {
            let record = world.add_record(key, "found", id, credential);
            world.save(&Record { confirmed_id: Some(id), given_to: Some(other), ..record });
        }
        let inventory = world.started().await;
        let is_it = |managed: &&ManagedRunner| managed.runner.record.id == Some(id);
        let of_it: Vec<_> = inventory.runners.iter().filter(is_it).map(|managed| &managed.runner).collect();
        assert_eq!(of_it.iter().map(|runner| &runner.record.key).collect::<Vec<_>>(), [&key(first)]);
        assert_eq!(of_it[0].held.candidates.iter().map(|it| &it.token).collect::<Vec<_>>(), [&newer.token]);
    }
}

#[tokio::test]
async fn a_given_token_in_the_entry_of_another_enrollment_does_not_take_its_record() {
    for is_first in [true, false] {
        let mut world = World::new();
        let (id, credential) = world.server.add_runner();
        let (_, given) = world.server.add_runner();
        world.disk.add_entry("build-1", Some(id), &given);
        world.add_record("by-command", "build-1", id, &credential);
        world.enroll("given", "given");
        let source = Source::Value { token: given.token.clone(), origin: "a test".to_owned() };
        world.config.enrollments[1].source = RegistrationSource::Given(source);
        if !is_first {
            world.config.enrollments.reverse();
        }
        let inventory = world.started().await;
        assert_eq!(served(&inventory), [("build-1", true)]);
        assert_eq!(world.disk.state().records[&key("build-1")].credential, Some(credential));
        let text = "`given` is in the entry of enrollment `build-1`";
        assert!(inventory.warnings.iter().any(|warning| warning.contains(text)), "{:?}", inventory.warnings);
    }
}

#[tokio::test]
async fn a_given_token_in_the_entry_of_a_found_runner_does_not_take_its_record() {
    for is_its_former in [false, true] {
        let mut world = World::new();
        let (id, credential) = world.server.add_runner();
        let (_, given) = world.server.add_runner();
        world.disk.add_entry("found", Some(id), &given);
        let mut record = world.add_record("by-daemon", "found", id, &credential);
        if is_its_former {
            record.former_digests = vec![given.token.digest()];
            world.save(&record);
        }
        let source = Source::Value { token: given.token.clone(), origin: "a test".to_owned() };
        world.config.enrollments[0].source = RegistrationSource::Given(source);
        let inventory = world.started().await;
        let key = if is_its_former { "build-1" } else { "by-daemon" };
        assert_eq!(served(&inventory), [(key, is_its_former)]);
        assert_eq!(inventory.is_awaited, !is_its_former);
        let text = "`build-1` is in the entry of runner `found`";
        assert_eq!(inventory.warnings.iter().any(|warning| warning.contains(text)), !is_its_former);
    }
}

#[tokio::test]
async fn an_enrollment_never_takes_the_runner_of_another_one() {
    for is_first in [true, false] {
        let mut world = World::new();
        let (id, credential) = world.add_entry("build-1");
        world.add_record("build-1", "build-1", id, &credential);
        // The first one got another name after its registration, so that both could mean its entry.
        world.config.enrollments[0].entry.name = "renamed".to_owned();
        world.enroll("second", "build-1");
        if !is_first {
            world.config.enrollments.reverse();
        }
        let inventory = world.started().await;
        let runners: Vec<_> =
            inventory.runners.iter().map(|it| (it.runner.record.key.as_str(), it.runner.record.id)).collect();
        let expected = [("build-1", Some(id)), ("second", None)];
        assert!(expected.iter().all(|runner| runners.contains(runner)) && runners.len() == 2, "{runners:?}");
    }
}

#[tokio::test]
async fn two_enrollments_of_one_name_have_one_runner() {
    let mut world = World::new();
    world.enroll("second", "build-1");
    world.add_entry("build-1");
    let inventory = world.started().await;
    assert_eq!(served(&inventory), [("build-1", true)]);
    assert!(inventory.warnings[0].contains("enrollment `second` is not registered"), "{:?}", inventory.warnings);
}

#[tokio::test]
async fn a_runner_in_the_store_that_is_declared_shared_by_its_id_is_an_error_of_settings_and_stays_managed() {
    let mut world = World::new();
    let (id, credential) = world.add_entry("build-1");
    world.add_record("build-1", "build-1", id, &credential);
    let selector = PolicySelector { id: Some(id), ..PolicySelector::default() };
    world.config.policies = vec![Policy { selector, rotate: None, unregister: None, shared: Some(true) }];
    assert_eq!(world.started().await.errors, [""; 0], "without `share_as`");
    world.config.enrollments[0].share_as = Some("docker-fleet".parse().unwrap());
    let inventory = world.started().await;
    let errors = &inventory.errors;
    assert!(errors.len() == 1 && errors[0].contains("`shared = true`"), "{errors:?}");
    assert_eq!(served(&inventory), [("build-1", true)]);
    world.config.policies[0].selector.id = Some(4711.try_into().unwrap());
    assert_eq!(world.started().await.errors, [""; 0], "another runner's id");
}

#[tokio::test]
async fn a_given_token_that_an_entry_holds_is_that_runner_under_any_name() {
    let mut world = World::new();
    let (_, credential) = world.add_entry("another");
    let source = Source::Value { token: credential.token.clone(), origin: "a test".to_owned() };
    world.config.enrollments[0].source = RegistrationSource::Given(source.clone());
    assert_eq!(served(&world.started().await), [("build-1", true)]);
    // A second enrollment with this token would be a second worker for one runner.
    world.enroll("second", "second");
    world.config.enrollments[1].source = RegistrationSource::Given(source);
    let inventory = world.started().await;
    assert_eq!(served(&inventory), [("build-1", true)]);
    assert!(inventory.errors[0].contains("`second` has the same token as enrollment `build-1`"));
}

#[tokio::test]
async fn of_two_enrollments_with_one_given_token_one_is_served_before_there_is_a_record_and_after() {
    let mut world = World::new();
    let (_, credential) = world.server.add_runner();
    let given = |origin: &str| {
        let source = Source::Value { token: credential.token.clone(), origin: origin.to_owned() };
        RegistrationSource::Given(source)
    };
    world.enroll("second", "second");
    world.config.enrollments[0].source = given("a file");
    world.config.enrollments[1].source = given("another file");
    let says = |inventory: &Inventory, text: &str| inventory.errors.len() == 1 && inventory.errors[0].contains(text);
    let inventory = world.started().await;
    assert_eq!(served(&inventory), [("build-1", true)]);
    assert!(says(&inventory, "`second` has the same token as enrollment `build-1`"), "{:?}", inventory.errors);
    // The one that has a runner keeps it, in any order and after a rotation.
    let id = world.server.runners().into_keys().next().unwrap();
    let new = Credential { token: Token::parse("glrt-new").unwrap(), ..credential.clone() };
    for with_record in [&["second"][..], &["build-1", "second"]] {
        world.disk.state().records.clear();
        for name in with_record {
            world.add_record(name, name, RunnerId::try_from(id).unwrap(), &new);
        }
        let inventory = world.started().await;
        assert_eq!(served(&inventory), [(with_record[0], true)], "{with_record:?}");
        assert!(says(&inventory, "has the same token as enrollment"), "{:?}", inventory.errors);
    }
    // At another server it is another runner, or a twin.
    world.disk.state().records.clear();
    world.config.enrollments[1].site.url = "https://other.example.com".parse().unwrap();
    assert_eq!(served(&world.started().await), [("build-1", true), ("second", true)]);
}

#[tokio::test]
async fn nothing_is_registered_beside_an_entry_that_cannot_be_used() {
    let world = World::new();
    let (_, credential) = world.add_entry("build-1");
    set_token(&world, EntryToken::Variable { name: "UNSET".to_owned(), token: None });
    world.disk.state().entries[0].problems.push(EntryProblem::Variable("UNSET".to_owned()));
    let inventory = world.started().await;
    assert!(inventory.runners.is_empty() && inventory.warnings[0].contains("variable `UNSET`"), "{inventory:?}");
    // Once the variable is set, it is taken over, and its token is not written.
    set_token(&world, EntryToken::Variable { name: "UNSET".to_owned(), token: Some(credential.token) });
    world.disk.state().entries[0].problems.clear();
    assert_eq!(served(&world.started().await), [("build-1", true)]);
    assert!(world.keys().is_empty());
}

#[tokio::test]
async fn an_entry_without_a_token_is_completed() {
    for token in [EntryToken::Absent, EntryToken::Placeholder] {
        let world = World::new();
        world.add_entry("build-1");
        set_token(&world, token);
        world.disk.state().entries[0].id = None;
        world.disk.state().entries[0].problems.push(EntryProblem::NoToken);
        world.disk.state().entries[0].executor = Some("docker".into());
        let inventory = world.started().await;
        assert_eq!(served(&inventory), [("build-1", true)]);
        let mut runner = inventory.runners[0].runner.clone();
        world.ops.register(&world.config.enrollments[0], &mut runner, &inquiry_at(now())).await.unwrap();
        let entries = world.disk.state().entries.clone();
        assert_eq!((entries.len(), entries[0].executor.as_deref()), (1, Some("docker")));
        assert_eq!(entries[0].token.token(), runner.record.credential.as_ref().map(|credential| &credential.token));
    }
}

fn set_token(world: &World, token: EntryToken) {
    world.disk.state().entries[0].token = token;
}

#[tokio::test]
async fn of_several_runners_of_one_name_the_first_is_taken_over() {
    let world = World::new();
    let (first, _) = world.add_entry("build-1");
    world.add_entry("build-1");
    let inventory = world.started().await;
    assert_eq!(inventory.runners.len(), 2);
    assert_eq!((inventory.runners[0].enrollment.is_some(), inventory.runners[0].runner.record.id), (true, Some(first)));
    // Two entries of one runner are no second one.
    let world = World::new();
    let (id, credential) = world.add_entry("build-1");
    world.disk.add_entry("build-1", Some(id), &credential);
    assert_eq!(served(&world.started().await), [("build-1", true)]);
}

#[tokio::test]
async fn a_command_works_on_the_runner_under_its_present_key() {
    let world = World::new();
    let (id, credential) = world.add_entry("build-1");
    world.add_record("register-0123456789ab", "build-1", id, &credential);
    let (inventory, _) = take_inventory(&world.ops, &world.config, now()).await.unwrap();
    assert_eq!(inventory.runners[0].runner.record.key.as_str(), "register-0123456789ab");
    assert_eq!(world.keys(), ["register-0123456789ab"]);
}

#[tokio::test]
async fn a_record_moves_only_after_its_worker_has_ended() {
    let world = World::new();
    let (id, credential) = world.add_entry("build-1");
    world.add_record("7@gitlab.example.com", "build-1", id, &credential);
    // So does the worker of the enrollment, which has no runner yet; meanwhile no other worker begins.
    for workers in [&["7@gitlab.example.com"][..], &["build-1"], &["7@gitlab.example.com", "build-1"]] {
        let workers: BTreeSet<_> = workers.iter().map(|worker| key(worker)).collect();
        let (inventory, _) = retake_inventory(&world.ops, &world.config, &workers).await.unwrap();
        assert_eq!(inventory.handovers.into_iter().collect::<BTreeSet<_>>(), workers);
        assert!(inventory.runners.is_empty());
        assert_eq!(world.keys(), ["7@gitlab.example.com"]);
    }
    let (inventory, _) = retake_inventory(&world.ops, &world.config, &BTreeSet::new()).await.unwrap();
    assert_eq!((served(&inventory), world.keys()), (vec![("build-1", true)], vec!["build-1".to_owned()]));
}

#[tokio::test]
async fn a_move_takes_candidates_and_journal_along_and_survives_a_crash_at_any_write() {
    for writes in 0..12 {
        let world = World::new();
        let (id, credential) = world.add_entry("build-1");
        let former = key("7@gitlab.example.com");
        world.add_record(former.as_str(), "build-1", id, &credential);
        let intent = rotation_intent(&credential.token, id);
        world.disk.state().journal.insert(former.clone(), Pending { key: former.clone(), intent, answer: None });
        let candidate = crate::model::Candidate {
            token: Token::parse("glrt-candidate").unwrap(),
            source: crate::model::CandidateSource::Found,
            noted_at: now(),
            obtained_at: None,
            expiry: crate::model::Expiry::Unknown,
            id: None,
            origin: None,
            refused: None,
        };
        let held = crate::model::Held { candidates: vec![candidate], evidence: None };
        world.disk.state().held.insert(former, held.clone());
        let (mut inventory, _) = take_inventory(&world.ops, &world.config, now()).await.unwrap();
        world.disk.state().writes_left = Some(writes);
        let crashed = inventory.apply_changes(&world.ops, &BTreeSet::new()).await.is_err();
        world.disk.state().writes_left = None;
        let inventory = world.started().await;
        assert_eq!(served(&inventory), [("build-1", true)], "{writes} writes");
        assert_eq!(inventory.runners[0].unfinished, Some(Unfinished::LostReset), "{writes} writes");
        let state = world.disk.state();
        assert_eq!(state.held.values().collect::<Vec<_>>(), [&held], "{writes} writes");
        assert_eq!(
            state.records.keys().chain(state.journal.keys()).chain(state.held.keys()).collect::<BTreeSet<_>>(),
            BTreeSet::from([&key("build-1")])
        );
        assert!(crashed || writes >= 6, "{writes} writes");
    }
}

#[tokio::test]
async fn an_enrollment_at_another_server_leaves_its_runner_behind() {
    let mut world = World::new();
    let (id, credential) = world.add_entry("build-1");
    let mut record = world.add_record("build-1", "build-1", id, &credential);
    record.enrollment = Some("build-1".to_owned());
    world.save(&record);
    world.config.enrollments[0].site.url = "https://other.example.com".parse().unwrap();
    let inventory = world.started().await;
    let found = RunnerKey::found(&url(), Some(id), credential.token.digest());
    assert_eq!(served(&inventory), [("build-1", true), (found.as_str(), false)]);
    assert_eq!(world.keys(), [found.to_string()]);
    // Without a token there is nothing to keep.
    let mut world = World::new();
    world.save(&blank("build-1"));
    world.config.enrollments[0].site.url = "https://other.example.com".parse().unwrap();
    assert_eq!(served(&world.started().await), [("build-1", true)]);
    assert!(world.keys().is_empty());
}

#[tokio::test]
async fn a_registration_finds_what_another_process_has_registered_meanwhile() {
    let world = World::new();
    let inventory = world.started().await;
    let mut runner = inventory.runners[0].runner.clone();
    let mut once = runner.clone();
    once.record.enrollment = None;
    let (id, credential) = world.add_entry("build-1");
    for has_record in [false, true] {
        if has_record {
            world.disk.state().entries.clear();
            let mut record = world.add_record("register-0123456789ab", "build-1", id, &credential);
            record.entry_text = EntryText::compose(&world.config.enrollments[0].entry).ok();
            world.save(&record);
        }
        let enrollment = &world.config.enrollments[0];
        let done = world.ops.register(enrollment, &mut runner, &inquiry_at(now())).await.unwrap();
        assert_eq!(done.outcome, Outcome::RegisteredElsewhere);
        let done = world.ops.register(enrollment, &mut once, &inquiry_at(now())).await.unwrap();
        assert_eq!(done.outcome, Outcome::Released);
        assert!(world.server.calls().is_empty());
    }
    // A runner of another enrollment is none of its business.
    world.disk.state().records.clear();
    world.disk.add_entry("build-1", Some(id), &credential);
    let mut others = world.add_record("second", "build-1", id, &credential);
    others.enrollment = Some("second".to_owned());
    world.save(&others);
    world.ops.register(&world.config.enrollments[0], &mut runner, &inquiry_at(now())).await.unwrap();
    assert_eq!(world.server.calls(), ["probe", "register"]);
}

/// An entry at another address of the server.
fn alias(name: &str, id: RunnerId, credential: &Credential) -> Entry {
    let disk = MemoryDisk::default();
    disk.add_entry(name, Some(id), credential);
    let entry = disk.state().entries[0].clone();
    Entry { url: "http://gitlab".parse().ok(), position: 1, line: 11, ..entry }
}

#[tokio::test]
async fn the_later_entry_with_a_token_is_marked_as_a_twin() {
    let world = World::new();
    let (id, credential) = world.add_entry("a");
    let another = alias("b", id, &credential);
    world.disk.state().entries.push(another);
    let twins = |inventory: &Inventory| inventory.runners.iter().map(|it| it.twin_of.clone()).collect::<Vec<_>>();
    let config = Config::default();
    let snapshot = world.ops.disk().read().await.unwrap();
    let first = key(&format!("{id}@gitlab.example.com"));
    assert_eq!(twins(&inventory(&config, Vec::new(), &snapshot).await), [None, Some(first.clone())]);
    // One rotation later the other entry still has the token from before.
    let mut record = world.add_record(first.as_str(), "a", id, &credential);
    record.credential = Some(Credential { token: Token::parse("glrt-new").unwrap(), ..credential.clone() });
    record.add_former_token(credential.token.digest());
    record.last_reset_at = Some(now());
    assert_eq!(twins(&inventory(&config, vec![record.clone()], &snapshot).await), [None, Some(first)]);
    // Its server goes on accepting that token: it is a runner of its own.
    let mut second = Runner::found(&snapshot.entries[1]).unwrap().record;
    let at = now().plus(std::time::Duration::from_secs(3600));
    second.last_verify = Some(LastVerify { at, outcome: VerifyOutcome::Accepted });
    assert_eq!(twins(&inventory(&config, vec![record, second], &snapshot).await), [None, None]);
}

#[tokio::test]
async fn of_two_records_of_one_entry_the_one_with_its_token_is_served() {
    let world = World::new();
    let (id, credential) = world.add_entry("a");
    let dead = Credential { token: Token::parse("glrt-dead").unwrap(), ..credential.clone() };
    world.add_record("a-dead-copy", "a", id, &dead);
    world.add_record("b-good", "a", id, &credential);
    let records = world.disk.state().records.values().cloned().collect();
    let snapshot = world.ops.disk().read().await.unwrap();
    assert_eq!(served(&inventory(&Config::default(), records, &snapshot).await), [("b-good", false)]);
}

#[tokio::test]
async fn an_entry_does_not_get_the_record_of_another_runner_whose_key_its_id_claims() {
    for is_enrolled in [false, true] {
        let world = World::new();
        let (claimed, mine) = world.add_entry(if is_enrolled { "build-1" } else { "a" });
        let (other, credential) = world.server.add_runner();
        let claim = format!("{claimed}@gitlab.example.com");
        world.add_record(&claim, "b", other, &credential);
        let records: Vec<_> = world.disk.state().records.values().cloned().collect();
        let snapshot = world.ops.disk().read().await.unwrap();
        let config = if is_enrolled { world.config.clone() } else { Config::default() };
        let runner = inventory(&config, records, &snapshot).await.runners.remove(0).runner;
        assert!(runner.record.key != key(&claim) && runner.record.credential == Some(mine.clone()), "{is_enrolled}");
        if is_enrolled {
            let tokens: Vec<_> =
                world.started().await.runners.into_iter().map(|it| it.runner.record.credential).collect();
            assert!(tokens.contains(&Some(mine)), "the enrollment takes over its entry and no other runner");
            assert_eq!(world.disk.state().records[&key(&claim)].id, Some(other));
        }
    }
}

#[tokio::test]
async fn the_token_of_the_other_record_of_a_runner_is_a_candidate() {
    // The server may have named no token of the entry's own record yet: its id is a claim then.
    for is_named in [true, false] {
        let world = World::new();
        let (id, credential) = world.add_entry("a");
        let dead = Credential { token: Token::parse("glrt-dead").unwrap(), ..credential.clone() };
        let unnamed = Credential { token: Token::parse("glrt-unnamed").unwrap(), ..credential.clone() };
        world.disk.state().entries[0].token = EntryToken::Literal(dead.token.clone());
        for (key, credential, named) in
            [("a-old", &dead, Some(id).filter(|_| is_named)), ("b-new", &credential, Some(id)), ("c", &unnamed, None)]
        {
            let mut record = world.add_record(key, "a", id, credential);
            record.confirmed_id = named;
            world.save(&record);
        }
        let mut inventory = world.started().await;
        let is_old = |managed: &&mut ManagedRunner| managed.runner.record.key == key("a-old");
        let runner = &mut inventory.runners.iter_mut().find(is_old).unwrap().runner;
        let candidates: Vec<_> = runner.held.candidates.iter().map(|candidate| candidate.token.clone()).collect();
        assert!(candidates == std::slice::from_ref(&credential.token), "the one whose id the server has named");
        let outcome = world.ops.verify(runner, &inquiry_at(now())).await.unwrap().outcome;
        assert!(matches!(outcome, Outcome::Adopted(_)), "{outcome:?}");
        assert_eq!(world.disk.tokens(), [credential.token]);
    }
}

#[tokio::test]
async fn a_token_that_an_entry_had_for_a_while_without_an_id_is_a_candidate_of_the_runner_of_its_name() {
    for (name, is_accepted, is_one) in [("a", false, true), ("a", true, false), ("another", false, false)] {
        let world = World::new();
        let (id, credential) = world.add_entry("a");
        let dead = Credential { token: Token::parse("glrt-dead").unwrap(), ..credential.clone() };
        world.disk.state().entries[0].token = EntryToken::Literal(dead.token.clone());
        let record = world.add_record("a", "a", id, &dead);
        world.save(&Record { confirmed_id: Some(id), ..record });
        let record = world.add_record("for-a-while", name, id, &credential);
        let outcome = if is_accepted { VerifyOutcome::Accepted } else { VerifyOutcome::Refused };
        world.save(&Record { id: None, last_verify: Some(LastVerify { at: now(), outcome }), ..record });
        let mut inventory = world.started().await;
        let is_it = |managed: &&mut ManagedRunner| managed.runner.record.key == key("a");
        let runner = &mut inventory.runners.iter_mut().find(is_it).unwrap().runner;
        let candidates: Vec<_> = runner.held.candidates.iter().map(|candidate| &candidate.token).collect();
        assert_eq!(candidates.contains(&&credential.token), is_one, "{name} {is_accepted}");
    }
}

#[tokio::test]
async fn what_is_kept_beside_the_other_record_of_a_runner_is_a_candidate_too() {
    let world = World::new();
    let (id, credential) = world.add_entry("a");
    let dead = Credential { token: Token::parse("glrt-dead").unwrap(), ..credential.clone() };
    world.disk.state().entries[0].token = EntryToken::Literal(dead.token.clone());
    for key in ["a-one", "b-two"] {
        let record = world.add_record(key, "a", id, &dead);
        world.save(&Record { confirmed_id: Some(id), ..record });
    }
    let former = Candidate {
        token: credential.token.clone(),
        source: CandidateSource::Former,
        noted_at: now(),
        obtained_at: credential.obtained_at,
        expiry: credential.expiry,
        id: Some(id),
        origin: None,
        refused: None,
    };
    let held = Held { candidates: vec![former.clone()], evidence: None };
    world.disk.state().held.insert(key("b-two"), held);
    let inventory = world.started().await;
    assert_eq!(served(&inventory), [("build-1", true), ("a-one", false)]);
    assert_eq!(inventory.runners[1].runner.held.candidates, [former]);
}

#[tokio::test]
async fn a_runner_whose_former_token_is_in_the_entry_of_another_one_is_served_too() {
    // The order of their keys does not decide.
    for (first, second) in [("a", "b"), ("b", "a")] {
        let world = World::new();
        let (mine, credential) = world.add_entry("mine");
        let (other, _) = world.add_entry("other");
        let former = Credential { token: Token::parse("glrt-former").unwrap(), ..credential.clone() };
        let present = Credential { token: Token::parse("glrt-present").unwrap(), ..credential.clone() };
        for entry in &mut world.disk.state().entries {
            entry.token = EntryToken::Literal(former.token.clone());
        }
        world.add_record(first, "mine", mine, &credential);
        let mut record = world.add_record(second, "other", other, &present);
        record.add_former_token(former.token.digest());
        world.save(&record);
        let records: Vec<_> = world.disk.state().records.values().cloned().collect();
        let snapshot = world.ops.disk().read().await.unwrap();
        let inventory = inventory(&Config::default(), records, &snapshot).await;
        assert_eq!(served(&inventory), [(first, false), (second, false)]);
    }
}

#[tokio::test]
async fn a_record_whose_files_are_damaged_does_not_move_and_stops_no_other_runner() {
    for is_record in [false, true] {
        let world = World::new();
        let (id, credential) = world.add_entry("build-1");
        let (_, other) = world.add_entry("other");
        let damaged = key("7@gitlab.example.com");
        world.add_record(damaged.as_str(), "build-1", id, &credential);
        let intent = rotation_intent(&credential.token, id);
        world.disk.state().journal.insert(damaged.clone(), Pending { key: damaged.clone(), intent, answer: None });
        let damage = |world: &World, is_damaged: bool| {
            let mut state = world.disk.state();
            let keys = if is_record { &mut state.damaged_records } else { &mut state.damaged_held };
            keys.clear();
            keys.extend(is_damaged.then(|| damaged.clone()));
        };
        damage(&world, true);
        let (mut inventory, _) = take_inventory_despite(&world, is_record, &damage).await;
        inventory.apply_changes(&world.ops, &BTreeSet::new()).await.unwrap();
        let tokens: Vec<_> = inventory.runners.iter().filter_map(|it| it.runner.record.credential.as_ref()).collect();
        assert_eq!(tokens, [&other], "{is_record}");
        assert!(world.disk.state().records.contains_key(&damaged), "{is_record}");
        assert!(world.disk.state().journal.contains_key(&damaged), "{is_record}");
        // Once it is corrected, the runner is served again.
        damage(&world, false);
        let inventory = world.started().await;
        assert_eq!(served(&inventory)[0], ("build-1", true), "{is_record}");
        assert_eq!(inventory.runners[0].unfinished, Some(Unfinished::LostReset), "{is_record}");
    }
}

/// A record is damaged after the inventory has read it.
async fn take_inventory_despite(
    world: &World,
    is_record: bool,
    damage: &dyn Fn(&World, bool),
) -> (Inventory, Arc<Snapshot>) {
    damage(world, !is_record);
    let taken = take_inventory(&world.ops, &world.config, now()).await.unwrap();
    damage(world, true);
    taken
}

#[tokio::test]
async fn a_record_moves_as_it_is_under_its_lock_and_not_as_the_inventory_has_read_it() {
    let world = World::new();
    let (id, credential) = world.add_entry("build-1");
    world.add_record("7@gitlab.example.com", "build-1", id, &credential);
    let (mut inventory, _) = take_inventory(&world.ops, &world.config, now()).await.unwrap();
    // Meanwhile a command rotates the runner.
    let mut command = inventory.runners[0].runner.clone();
    world.ops.rotate(&mut command, None, &inquiry_at(now())).await.unwrap();
    inventory.apply_changes(&world.ops, &BTreeSet::new()).await.unwrap();
    assert_eq!(world.keys(), ["build-1"]);
    let moved = world.disk.state().records[&key("build-1")].clone();
    assert_eq!(moved.credential, command.record.credential);
    assert_eq!(inventory.runners[0].runner.record.credential, command.record.credential);
    assert!(moved.former_digests.contains(&credential.token.digest()));
    // Or it unregisters it: the record does not come back.
    let world = World::new();
    let (id, credential) = world.add_entry("build-1");
    world.add_record("7@gitlab.example.com", "build-1", id, &credential);
    let (mut inventory, _) = take_inventory(&world.ops, &world.config, now()).await.unwrap();
    world.disk.state().records.clear();
    inventory.apply_changes(&world.ops, &BTreeSet::new()).await.unwrap();
    assert!(world.keys().is_empty() && inventory.runners.is_empty());
}

#[tokio::test]
async fn an_inventory_of_many_gives_other_tasks_their_turns() {
    let disk = MemoryDisk::default();
    let many = 40 * RUNNERS_PER_TURN;
    let (id, credential) = World::new().add_entry("a");
    disk.add_entry("a", Some(id), &credential);
    let first = disk.state().entries[0].clone();
    let entry = |number: usize| {
        let token = Token::parse(&format!("glrt-{number}")).unwrap();
        Entry { id: None, name: Some(format!("runner-{number}")), token: EntryToken::Literal(token), ..first.clone() }
    };
    let snapshot = Snapshot::new((0..many).map(entry).collect(), true);
    let records: Vec<_> =
        snapshot.entries.iter().step_by(2).map(|entry| Runner::found(entry).unwrap().record).collect();
    let turns = std::cell::Cell::new(0);
    let config = Config::default();
    let others = async {
        loop {
            turns.set(turns.get() + 1);
            tokio::task::yield_now().await;
        }
    };
    let listed = tokio::select! {
        biased;
        listed = inventory(&config, records, &snapshot) => listed,
        () = others => unreachable!(),
    };
    assert_eq!(listed.runners.len(), many);
    assert!(turns.get() >= many / RUNNERS_PER_TURN, "{} turns", turns.get());
}

#[tokio::test]
async fn each_runner_that_was_only_found_is_counted() {
    let mut world = World::new();
    world.config.enrollments.clear();
    assert_eq!(world.started().await.found(&world.config), None);
    for (count, name) in [(1, "a"), (2, "b"), (3, "c")] {
        world.add_entry(name);
        let found = world.started().await.found(&world.config);
        assert_eq!(found, Some((count, RotateFound::LastResort)));
    }
}
