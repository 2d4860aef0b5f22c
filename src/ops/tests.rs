//! The order of effects, and what is left when any of them fails.

use std::time::Duration;

use super::memory::{
    Fault, MemoryDisk, MemoryServer, START, TokioClock, enrollment, identity, registration_token, rotation_intent,
};
use super::*;
use crate::gitlab::Disposition;
use crate::lifecycle::{Outcome, Trouble};
use crate::model::{Expiry, Origin, Site, StateName, Timestamp, TlsFiles};
use crate::secret::{Source, Token};
use crate::store::{JournalAnswer, Pending};

const UNKNOWN: Disposition = Disposition::Unknown { retry_after: None };
const NOT_EXECUTED: Disposition = Disposition::NotExecuted { retry_after: None };

fn now() -> Timestamp {
    Timestamp::from_millis(START)
}

struct Bench {
    ops: Ops<MemoryServer, MemoryDisk>,
    server: MemoryServer,
    disk: MemoryDisk,
}

impl Bench {
    fn new() -> Self {
        let server = MemoryServer::new(TokioClock::new(), Some(Duration::from_secs(86_400)));
        let disk = MemoryDisk::default();
        Self { ops: Ops::new(server.clone(), disk.clone(), identity()), server, disk }
    }

    async fn registered(&self) -> Runner {
        let mut runner = blank();
        self.ops.register(&enrollment(registration_token()), &mut runner, now()).await.unwrap();
        self.disk.state().effects.clear();
        runner
    }

    /// Whether some durable place holds the token that the server accepts.
    fn assert_nothing_lost(&self, context: &str) {
        for (id, served) in self.server.runners() {
            let state = self.disk.state();
            let in_config = state.entries.iter().any(|entry| entry.token.token() == Some(&served.token));
            let in_records = state
                .records
                .values()
                .any(|record| record.credential.as_ref().is_some_and(|credential| credential.token == served.token));
            let in_journal = state.journal.values().any(|pending| {
                pending.answer.as_ref().is_some_and(|answer| answer.token.as_ref() == Some(&served.token))
            });
            assert!(in_config || in_records || in_journal, "{context}: the token of runner {id} is lost");
        }
    }
}

fn blank() -> Runner {
    let enrollment = enrollment(registration_token());
    let mut runner = Runner::blank(enrollment.key, Origin::Registered, enrollment.site);
    runner.record.enrollment = Some("build-1".to_owned());
    runner
}

#[tokio::test]
async fn register_writes_everything_down_before_and_after_the_one_request() {
    let bench = Bench::new();
    let mut runner = blank();
    let done = bench.ops.register(&enrollment(registration_token()), &mut runner, now()).await.unwrap();
    assert!(matches!(done.value, Registration::Registered { unsaved: None, .. }));
    assert_eq!(
        bench.disk.state().effects,
        ["probe", "record", "begin", "answered", "record", "edit", "record", "clear"]
    );
    assert_eq!(bench.server.calls(), ["register"]);
    assert_eq!(bench.disk.tokens(), [runner.record.credential.unwrap().token]);
}

#[tokio::test]
async fn a_creation_has_the_order_of_a_registration() {
    let bench = Bench::new();
    let mut runner = blank();
    let mut enrollment = enrollment(registration_token());
    let token = Token::parse("glpat-abc").unwrap();
    enrollment.source = RegistrationSource::Created(super::Creation {
        access_token: Source::Value { token, origin: "a test".to_owned() },
        owner: crate::gitlab::fleet::NewRunnerOwner::Group(7),
        token_expires_at: None,
        token_rotation_deadline: None,
    });
    bench.ops.register(&enrollment, &mut runner, now()).await.unwrap();
    assert_eq!(
        bench.disk.state().effects,
        ["probe", "record", "begin", "answered", "record", "edit", "record", "clear"]
    );
    assert_eq!(bench.server.calls(), ["create"]);
    assert_eq!(bench.disk.tokens(), [runner.token().unwrap()]);
    bench.ops.unregister(&mut runner, EntryFate::KeepText, now()).await.unwrap();
    assert_eq!(bench.server.calls(), ["create", "delete_runner"]);
}

#[tokio::test]
async fn registering_again_changes_nothing() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    let again = bench.ops.register(&enrollment(registration_token()), &mut runner, now()).await.unwrap();
    assert!(matches!(again.value, Registration::Already(_)));
    assert_eq!(bench.server.calls(), ["register"]);
    assert!(bench.disk.state().effects.is_empty());
}

#[tokio::test]
async fn a_wrong_registration_token_leaves_nothing_behind() {
    let bench = Bench::new();
    let mut runner = blank();
    runner.record.enrollment = None;
    let wrong = Token::parse("wrong").unwrap();
    let error = bench.ops.register(&enrollment(wrong), &mut runner, now()).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::MustAct(Trouble::RegistrationRefused));
    let state = bench.disk.state();
    assert!(state.entries.is_empty() && state.records.is_empty() && state.journal.is_empty());
}

#[tokio::test]
async fn a_disk_that_cannot_keep_a_token_costs_none() {
    for effect in ["probe", "record", "begin"] {
        let bench = Bench::new();
        bench.disk.fail(effect, 1);
        let error = bench.ops.register(&enrollment(registration_token()), &mut blank(), now()).await.unwrap_err();
        assert!(matches!(error, Error::Disk(_)), "{effect}");
        assert!(bench.server.calls().is_empty(), "{effect}");
    }
    for effect in ["probe", "begin"] {
        let bench = Bench::new();
        let mut runner = bench.registered().await;
        bench.disk.fail(effect, 1);
        assert!(matches!(bench.ops.rotate(&mut runner, None, now()).await, Err(Error::Disk(_))), "{effect}");
        assert_eq!(bench.server.calls(), ["register"], "{effect}");
    }
}

#[tokio::test]
async fn rotate_writes_everything_down_before_and_after_the_one_request() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    let old = runner.record.credential.clone().unwrap().token;
    let done = bench.ops.rotate(&mut runner, None, now()).await.unwrap();
    assert!(matches!(done.value, Rotation::Rotated { unsaved: None, .. }));
    assert_eq!(bench.disk.state().effects, ["probe", "begin", "answered", "edit", "record", "clear"]);
    assert_eq!(bench.server.calls(), ["register", "reset"]);
    assert_ne!(bench.disk.tokens(), std::slice::from_ref(&old));
    assert!(runner.record.former_tokens.contains(&old.fingerprint()));
    bench.assert_nothing_lost("rotate");
}

#[tokio::test]
async fn no_failing_effect_loses_a_new_token_and_a_replay_or_save_puts_it_right() {
    for effects in [&["answered"][..], &["edit"], &["record"], &["clear"], &["answered", "edit"], &["edit", "record"]] {
        let bench = Bench::new();
        let mut runner = bench.registered().await;
        for effect in effects {
            bench.disk.fail(effect, 1);
        }
        bench.ops.rotate(&mut runner, None, now()).await.unwrap();
        bench.assert_nothing_lost(&format!("{effects:?} failed"));
        let replayed = bench.ops.replay(now()).await.unwrap();
        assert!(replayed.unfinished.is_empty(), "{effects:?}: {replayed:?}");
        bench.ops.save(&mut runner).await.unwrap();
        assert_eq!(bench.disk.tokens(), [runner.record.credential.clone().unwrap().token], "{effects:?}");
        assert!(bench.disk.state().journal.is_empty(), "{effects:?}");
    }
}

#[tokio::test]
async fn a_crash_after_the_answer_is_finished_by_a_replay() {
    let bench = Bench::new();
    let runner = bench.registered().await;
    let old = runner.record.credential.clone().unwrap().token;
    let new = Token::parse("glrtr-new").unwrap();
    let pending = Pending {
        key: runner.record.key.clone(),
        intent: rotation_intent(&old, runner.record.id.unwrap()),
        answer: Some(JournalAnswer {
            id: None,
            token: Some(new.clone()),
            expiry: Expiry::Never,
            obtained_at: Some(now()),
        }),
    };
    bench.disk.state().journal.insert(runner.record.key.clone(), pending);
    let replayed = bench.ops.replay(now()).await.unwrap();
    assert_eq!((replayed.finished, replayed.unfinished.len()), (1, 0));
    assert_eq!(bench.disk.tokens(), [new]);
    assert!(bench.disk.state().journal.is_empty());
    assert_eq!(bench.server.calls(), ["register"]);
}

#[tokio::test]
async fn a_crash_before_the_answer_is_handed_on() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    let old = runner.record.credential.clone().unwrap().token;
    let intent = rotation_intent(&old, runner.record.id.unwrap());
    bench.disk.begin(&runner.record.key, intent).await.unwrap();
    let replayed = bench.ops.replay(now()).await.unwrap();
    assert_eq!(replayed.unfinished, [(runner.record.key.clone(), Unfinished::LostReset)]);
    assert!(!bench.disk.state().journal.is_empty(), "kept until it is settled");
    bench.ops.settle(&mut runner).await.unwrap();
    assert!(bench.disk.state().journal.is_empty());
}

#[tokio::test]
async fn a_lost_reset_keeps_its_journal_and_a_refused_one_does_not() {
    for (fault, expected, kept) in [
        (Fault::ActAndLose, Outcome::Lost { retry_after: None }, true),
        (Fault::Fail(UNKNOWN), Outcome::Lost { retry_after: None }, true),
        (Fault::Fail(NOT_EXECUTED), Outcome::Deferred { retry_after: None }, false),
        (Fault::Fail(Disposition::Refused), Outcome::ResetRefused, false),
        (Fault::Fail(Disposition::RotationClosed), Outcome::RotationClosed, false),
        (Fault::Fail(Disposition::Unsupported), Outcome::RotationClosed, false),
    ] {
        let bench = Bench::new();
        let mut runner = bench.registered().await;
        bench.server.order("reset", fault);
        let error = bench.ops.rotate(&mut runner, None, now()).await.unwrap_err();
        assert_eq!(error.outcome(), expected, "{fault:?}");
        assert_eq!(!bench.disk.state().journal.is_empty(), kept, "{fault:?}");
        assert_eq!(bench.server.calls(), ["register", "reset"], "{fault:?}");
    }
}

#[tokio::test]
async fn an_unchanged_token_is_not_a_rotation() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    bench.server.order_always("reset", Some(Fault::SameToken));
    let done = bench.ops.rotate(&mut runner, None, now()).await.unwrap();
    assert_eq!(done.value.outcome(), Outcome::NotRotated);
    assert!(runner.record.former_tokens.is_empty() && bench.disk.state().journal.is_empty());
}

#[tokio::test]
async fn verify_learns_what_the_entry_did_not_say() {
    let bench = Bench::new();
    let (id, credential) = bench.server.add_runner();
    let expiry = credential.expiry;
    let bare = crate::model::Credential { expiry: Expiry::Unknown, obtained_at: None, ..credential };
    bench.disk.add_entry("found", None, &bare);
    let snapshot = bench.disk.read().await.unwrap();
    let mut runner = Runner::found(&snapshot.entries[0]).unwrap();
    let verified = bench.ops.verify(&mut runner, now()).await.unwrap();
    assert_eq!(verified.value, Verification::Accepted(runner.validity(now()).unwrap()));
    assert_eq!(runner.record.id, Some(id));
    assert_eq!(runner.record.credential.as_ref().unwrap().expiry, expiry);
    assert_eq!(bench.disk.state().records.len(), 1);
}

#[tokio::test]
async fn an_old_copy_is_put_right_without_a_request() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    let old_entries = bench.disk.state().entries.clone();
    bench.ops.rotate(&mut runner, None, now()).await.unwrap();
    let current = bench.disk.tokens();
    bench.disk.state().entries = old_entries;
    let requests = bench.server.calls().len();
    assert_eq!(bench.ops.reconcile(&mut runner).await.unwrap().entry_status, EntryStatus::Stale);
    assert_eq!(bench.disk.tokens(), current);
    assert_eq!(bench.server.calls().len(), requests);
}

#[tokio::test]
async fn an_unknown_token_is_verified_and_then_adopted_or_replaced() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    let ours = runner.record.credential.clone().unwrap();
    // Somebody else rotates, and writes the new token.
    let mut elsewhere = Runner::recorded(runner.record.clone(), runner.site.clone());
    let other_disk = MemoryDisk::default();
    let other = Ops::new(bench.server.clone(), other_disk, identity());
    other.rotate(&mut elsewhere, None, now()).await.unwrap();
    let theirs = elsewhere.record.credential.clone().unwrap();
    bench.disk.state().entries[0].token = crate::store::EntryToken::Literal(theirs.token.clone());
    assert!(matches!(bench.ops.verify(&mut runner, now()).await.unwrap().value, Verification::Adopted(_)));
    assert_eq!(runner.record.credential.as_ref().unwrap().token, theirs.token);
    assert!(runner.record.former_tokens.contains(&ours.token.fingerprint()));
    // A token that the server refuses is replaced by ours.
    let wrong = Token::parse("glrtr-wrong").unwrap();
    bench.disk.state().entries[0].token = crate::store::EntryToken::Literal(wrong);
    bench.ops.verify(&mut runner, now()).await.unwrap();
    assert_eq!(bench.disk.tokens(), [theirs.token]);
}

#[tokio::test]
async fn two_entries_of_one_runner_are_renewed_together() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    let duplicate = bench.disk.state().entries[0].clone();
    bench.disk.state().entries.push(duplicate);
    bench.ops.rotate(&mut runner, None, now()).await.unwrap();
    let tokens = bench.disk.tokens();
    assert_eq!(tokens[0], tokens[1]);
    bench.assert_nothing_lost("duplicates");
}

#[tokio::test]
async fn unregister_deletes_on_the_server_and_keeps_the_text() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    let fate = EntryFate::at_shutdown(&runner.record);
    assert_eq!(fate, EntryFate::KeepText);
    let done = bench.ops.unregister(&mut runner, fate, now()).await.unwrap();
    assert_eq!(done.value.found, Unregistration::Deleted);
    assert!(bench.server.runners().is_empty());
    assert!(bench.disk.tokens().is_empty());
    let record = bench.disk.state().records.values().next().unwrap().clone();
    assert!(record.entry_text.is_some() && record.credential.is_none());
    // The kept text is used when the runner is enrolled again.
    bench.ops.register(&enrollment(registration_token()), &mut runner, now()).await.unwrap();
    assert_eq!(bench.disk.tokens().len(), 1);
}

#[tokio::test]
async fn of_a_given_runner_only_the_manager_goes() {
    let bench = Bench::new();
    let (_, credential) = bench.server.add_runner();
    let mut enrollment = enrollment(credential.token.clone());
    enrollment.source =
        RegistrationSource::Given(Source::Value { token: credential.token, origin: "a test".to_owned() });
    let mut runner = blank();
    bench.ops.register(&enrollment, &mut runner, now()).await.unwrap();
    assert_eq!(bench.server.calls(), ["verify"]);
    let fate = EntryFate::at_shutdown(&runner.record);
    bench.ops.unregister(&mut runner, fate, now()).await.unwrap();
    let (_, served) = bench.server.runners().into_iter().next().unwrap();
    assert!(served.managers.is_empty());
    assert_eq!(bench.disk.tokens().len(), 1);
}

#[tokio::test]
async fn already_gone_is_done_unless_the_token_has_expired() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    bench.server.remove_runner(runner.record.id.unwrap());
    let done = bench.ops.unregister(&mut runner, EntryFate::KeepText, now()).await.unwrap();
    assert_eq!(done.value.found, Unregistration::AlreadyGone);

    let bench = Bench::new();
    let mut runner = bench.registered().await;
    runner.record.credential.as_mut().unwrap().expiry = Expiry::At(now().minus(Duration::from_secs(60)));
    bench.disk.state().records.insert(runner.record.key.clone(), runner.record.clone());
    bench.server.order("delete_runner", Fault::Fail(Disposition::Refused));
    let done = bench.ops.unregister(&mut runner, EntryFate::KeepText, now()).await.unwrap();
    assert_eq!(done.value.found, Unregistration::MayRemain);
}

#[tokio::test]
async fn a_lost_unregistration_is_finished_by_the_next_start() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    bench.server.order("delete_runner", Fault::ActAndLose);
    let error = bench.ops.unregister(&mut runner, EntryFate::KeepText, now()).await.unwrap_err();
    assert!(matches!(error, Error::Changing(_)));
    let replayed = bench.ops.replay(now()).await.unwrap();
    assert_eq!(replayed.unfinished, [(runner.record.key.clone(), Unfinished::Unregistration)]);
    let done = bench.ops.unregister(&mut runner, EntryFate::KeepText, now()).await.unwrap();
    assert_eq!(done.value.found, Unregistration::AlreadyGone);
    assert!(bench.disk.tokens().is_empty());
}

#[tokio::test]
async fn an_unregistration_that_the_disk_holds_up_is_finished_by_a_later_start() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    bench.disk.fail("edit", 2);
    bench.ops.unregister(&mut runner, EntryFate::KeepText, now()).await.unwrap_err();
    let replayed = bench.ops.replay(now()).await.unwrap();
    assert_eq!(replayed.unfinished, [(runner.record.key.clone(), Unfinished::Unregistration)]);
    bench.ops.reconcile(&mut runner).await.unwrap();
    bench.disk.fail("record", 1);
    bench.ops.unregister(&mut runner, EntryFate::KeepText, now()).await.unwrap_err();
    assert_eq!(bench.ops.replay(now()).await.unwrap().finished, 1);
    assert!(bench.disk.tokens().is_empty());
    assert_eq!(bench.server.calls(), ["register", "delete_runner"]);
}

#[tokio::test]
async fn an_interrupted_unregistration_does_not_end_a_token_that_came_later() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    bench.disk.fail("edit", 1);
    bench.ops.unregister(&mut runner, EntryFate::KeepText, now()).await.unwrap_err();
    let (id, credential) = bench.server.add_runner();
    bench.disk.state().entries.clear();
    bench.disk.add_entry("build-1", Some(id), &credential);
    runner.record.id = Some(id);
    bench.disk.save_record(runner.record.clone()).await.unwrap();
    bench.ops.verify(&mut runner, now()).await.unwrap();
    assert_eq!(bench.ops.replay(now()).await.unwrap().finished, 1);
    assert_eq!(bench.disk.tokens(), [credential.token]);
    assert!(bench.disk.state().journal.is_empty());
}

#[tokio::test]
async fn registering_again_puts_the_new_runner_into_the_same_entry() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    let old = runner.record.clone();
    let done = bench.ops.register_again(&enrollment(registration_token()), &mut runner, now()).await.unwrap();
    assert!(matches!(done.value, Registration::Registered { unsaved: None, .. }));
    assert_ne!(runner.record.id, old.id);
    let state = bench.disk.state();
    assert_eq!(state.effects, ["probe", "record", "begin", "answered", "record", "edit", "edit", "record", "clear"]);
    assert_eq!(state.entries.len(), 1);
    assert_eq!(state.entries[0].id, runner.record.id);
    assert_eq!(state.entries[0].token.token(), runner.record.credential.as_ref().map(|credential| &credential.token));
}

#[tokio::test]
async fn a_crash_while_registering_again_is_finished_in_the_same_entry() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    bench.disk.fail("edit", 1);
    let done = bench.ops.register_again(&enrollment(registration_token()), &mut runner, now()).await.unwrap();
    assert!(matches!(done.value, Registration::Registered { unsaved: Some(_), .. }));
    // The record as it was before the answer: only the journal knows the new runner.
    let mut before = runner.record.clone();
    before.id = bench.disk.state().entries[0].id;
    before.credential = bench.disk.state().entries[0].token.token().map(|token| crate::model::Credential {
        token: token.clone(),
        obtained_at: None,
        expiry: Expiry::Unknown,
    });
    before.former_tokens.clear();
    before.seed = None;
    bench.disk.state().records.insert(before.key.clone(), before);
    assert_eq!(bench.ops.replay(now()).await.unwrap().finished, 1);
    let state = bench.disk.state();
    assert_eq!(state.entries.len(), 1);
    assert_eq!(state.entries[0].id, runner.record.id);
    assert_eq!(state.records[&runner.record.key].seed, Some(registration_token().fingerprint()));
}

#[tokio::test]
async fn a_refused_registration_keeps_what_was_there_before() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    let mut record = runner.record.clone();
    record.enrollment = None;
    bench.disk.state().records.insert(record.key.clone(), record.clone());
    let (entries, wrong) = (bench.disk.state().entries.clone(), Token::parse("wrong").unwrap());
    bench.ops.register_again(&enrollment(wrong), &mut runner, now()).await.unwrap_err();
    let state = bench.disk.state();
    assert_eq!(state.entries, entries);
    assert_eq!(state.records[&record.key], record);
}

#[tokio::test]
async fn a_dropped_entry_of_an_enrollment_leaves_a_retired_record() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    bench.ops.drop_entry(&mut runner, now()).await.unwrap();
    let state = bench.disk.state();
    assert!(state.entries.is_empty());
    let record = &state.records[&runner.record.key];
    assert!(record.credential.is_none() && record.entry_text.is_some());
    assert_eq!(record.state, Some(StateName::Retired));
    assert!(state.effects.contains(&"keep_dropped"));
}

#[tokio::test]
async fn a_foreign_token_that_is_refused_once_is_not_overwritten_by_a_dead_one() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    // Somebody else has rotated: ours is dead, and theirs is refused by a replica that lags behind.
    let (elsewhere, disk) = (MemoryDisk::default(), bench.disk.clone());
    let other = Ops::new(bench.server.clone(), elsewhere, identity());
    let mut theirs = Runner::recorded(runner.record.clone(), runner.site.clone());
    other.rotate(&mut theirs, None, now()).await.unwrap();
    let token = theirs.record.credential.unwrap().token;
    disk.state().entries[0].token = crate::store::EntryToken::Literal(token.clone());
    bench.server.order("verify", Fault::Fail(Disposition::Refused));
    assert_eq!(bench.ops.verify(&mut runner, now()).await.unwrap_err().outcome(), Outcome::Refused);
    assert_eq!(bench.disk.tokens(), std::slice::from_ref(&token));
    assert!(matches!(bench.ops.verify(&mut runner, now()).await.unwrap().value, Verification::Adopted(_)));
    assert_eq!(runner.record.credential.unwrap().token, token);
}

#[tokio::test]
async fn a_foreign_token_is_taken_over_before_its_runner_is_unregistered() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    let other = Ops::new(bench.server.clone(), MemoryDisk::default(), identity());
    let mut theirs = Runner::recorded(runner.record.clone(), runner.site.clone());
    other.rotate(&mut theirs, None, now()).await.unwrap();
    let token = theirs.record.credential.unwrap().token;
    bench.disk.state().entries[0].token = crate::store::EntryToken::Literal(token);
    let done = bench.ops.unregister(&mut runner, EntryFate::KeepText, now()).await.unwrap();
    assert_eq!(done.value.found, Unregistration::Deleted);
    assert!(bench.server.runners().is_empty());
}

#[tokio::test]
async fn no_second_reset_is_sent_before_a_lost_answer_is_settled() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    bench.server.order("reset", Fault::ActAndLose);
    bench.ops.rotate(&mut runner, None, now()).await.unwrap_err();
    let mut another = Runner::recorded(runner.record.clone(), runner.site.clone());
    assert!(matches!(bench.ops.rotate(&mut another, None, now()).await, Err(Error::Disk(_))));
    assert!(matches!(bench.ops.unregister(&mut another, EntryFate::Drop, now()).await, Err(Error::Disk(_))));
    assert_eq!(bench.server.calls(), ["register", "reset"]);
    bench.ops.settle(&mut runner).await.unwrap();
    assert!(matches!(bench.ops.rotate(&mut another, None, now()).await, Err(Error::Changing(_))));
}

#[tokio::test]
async fn the_text_of_an_entry_is_kept_before_it_is_taken_out() {
    for fate in [EntryFate::KeepText, EntryFate::Drop] {
        let bench = Bench::new();
        let mut runner = bench.registered().await;
        bench.disk.fail("edit", 1);
        bench.ops.unregister(&mut runner, fate, now()).await.unwrap_err();
        let state = bench.disk.state();
        let in_record = state.records[&runner.record.key].entry_text.is_some();
        assert!(in_record || state.effects.contains(&"keep_dropped"), "{fate:?}");
    }
}

#[tokio::test]
async fn what_another_process_rotated_a_moment_ago_is_not_rotated_again() {
    let bench = Bench::new();
    let mut runner = bench.registered().await;
    let mut another = Runner::recorded(runner.record.clone(), runner.site.clone());
    bench.ops.rotate(&mut another, None, now()).await.unwrap();
    assert!(matches!(bench.ops.rotate(&mut runner, None, now()).await.unwrap().value, Rotation::Adopted(_)));
    assert_eq!(bench.server.calls(), ["register", "reset"]);
}

#[tokio::test]
async fn a_token_never_goes_to_another_server_than_its_own() {
    let bench = Bench::new();
    let runner = bench.registered().await;
    let site = Site { url: "https://elsewhere.example.com".parse().unwrap(), tls: TlsFiles::default() };
    let mut moved = Runner::blank(runner.record.key.clone(), Origin::Registered, site);
    assert!(matches!(bench.ops.verify(&mut moved, now()).await, Err(Error::OtherServer { .. })));
    assert_eq!(bench.server.calls(), ["register"]);
}

#[tokio::test]
async fn a_token_that_is_a_variable_is_never_written_down() {
    let bench = Bench::new();
    let (_, credential) = bench.server.add_runner();
    bench.disk.add_entry("variable", None, &credential);
    bench.disk.state().entries[0].token =
        crate::store::EntryToken::Variable { name: "RUNNER_TOKEN".to_owned(), token: Some(credential.token) };
    let snapshot = bench.disk.read().await.unwrap();
    let mut runner = Runner::found(&snapshot.entries[0]).unwrap();
    bench.ops.verify(&mut runner, now()).await.unwrap();
    assert!(bench.disk.state().records.is_empty());
    assert!(matches!(bench.ops.rotate(&mut runner, None, now()).await, Err(Error::VariableToken { .. })));
    assert_eq!(bench.server.calls(), ["verify"]);
}
