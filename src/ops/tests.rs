//! The order of effects, and what remains if any of them fails.

use std::time::Duration;

use super::memory::{
    Fault, MemoryDisk, MemoryServer, START, TokioClock, asked, enrollment, identity, inquiry_at, registration_token,
    rotation_intent,
};
use super::*;
use crate::gitlab::Disposition;
use crate::lifecycle::{Outcome, Trouble};
use crate::model::{Credential, Expiry, Origin, Site, StateName, Timestamp, TlsFiles};
use crate::secret::{Source, Token};
use crate::store::{EntryToken, JournalAnswer, Pending};

const UNKNOWN: Disposition = Disposition::Unknown { retry_after: None };
const NOT_EXECUTED: Disposition = Disposition::NotExecuted { retry_after: None };

fn now() -> Timestamp {
    Timestamp::from_millis(START)
}

fn inquiry() -> Inquiry<'static> {
    inquiry_at(now())
}

struct OpsFixture {
    ops: Ops<MemoryServer, MemoryDisk>,
    server: MemoryServer,
    disk: MemoryDisk,
}

impl OpsFixture {
    fn new() -> Self {
        let server = MemoryServer::new(TokioClock::new(), Some(Duration::from_secs(86_400)));
        let disk = MemoryDisk::default();
        Self { ops: Ops::new(server.clone(), disk.clone(), identity()), server, disk }
    }

    async fn registered(&self) -> Runner {
        let mut runner = blank();
        self.ops.register(&enrollment(registration_token()), &mut runner, Caution::Send, now()).await.unwrap();
        self.disk.state().effects.clear();
        runner
    }

    /// Asserts that a durable place holds each token that the server accepts.
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
async fn register_journals_before_and_after_its_only_request() {
    let fixture = OpsFixture::new();
    let mut runner = blank();
    let done =
        fixture.ops.register(&enrollment(registration_token()), &mut runner, Caution::Send, now()).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Registered(_)) && done.unsaved.is_none());
    assert_eq!(
        fixture.disk.state().effects,
        ["probe", "record", "begin", "answered", "record", "edit", "record", "clear"]
    );
    assert_eq!(fixture.server.calls(), ["register"]);
    assert_eq!(fixture.disk.tokens(), [runner.record.credential.unwrap().token]);
}

#[tokio::test]
async fn a_creation_has_the_same_order_as_a_registration() {
    let fixture = OpsFixture::new();
    let mut runner = blank();
    let mut enrollment = enrollment(registration_token());
    let token = Token::parse("glpat-abc").unwrap();
    enrollment.source = RegistrationSource::Created(super::Creation {
        access_token: Source::Value { token, origin: "a test".to_owned() },
        owner: crate::gitlab::fleet::NewRunnerOwner::Group(7),
        token_expires_at: None,
        token_rotation_deadline: None,
    });
    fixture.ops.register(&enrollment, &mut runner, Caution::Send, now()).await.unwrap();
    assert_eq!(
        fixture.disk.state().effects,
        ["probe", "record", "begin", "answered", "record", "edit", "record", "clear"]
    );
    assert_eq!(fixture.server.calls(), ["create"]);
    assert_eq!(fixture.disk.tokens(), [runner.token().unwrap()]);
    fixture.ops.unregister(&mut runner, asked(EntryFate::KeepText), &inquiry()).await.unwrap();
    assert_eq!(fixture.server.calls(), ["create", "delete_runner"]);
}

#[tokio::test]
async fn registering_again_changes_nothing() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let again =
        fixture.ops.register(&enrollment(registration_token()), &mut runner, Caution::Send, now()).await.unwrap();
    assert!(matches!(again.outcome, Outcome::Adopted(_)));
    assert_eq!(fixture.server.calls(), ["register"]);
    assert!(fixture.disk.state().effects.is_empty());
}

#[tokio::test]
async fn a_wrong_registration_token_leaves_nothing_behind() {
    let fixture = OpsFixture::new();
    let mut runner = blank();
    runner.record.enrollment = None;
    let wrong = Token::parse("wrong").unwrap();
    let error = fixture.ops.register(&enrollment(wrong), &mut runner, Caution::Send, now()).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::MustAct(Trouble::RegistrationRefused));
    let state = fixture.disk.state();
    assert!(state.entries.is_empty() && state.records.is_empty() && state.journal.is_empty());
}

#[tokio::test]
async fn no_request_is_sent_if_the_disk_cannot_keep_the_token() {
    for effect in ["probe", "record", "begin"] {
        let fixture = OpsFixture::new();
        fixture.disk.fail(effect, 1);
        let error = fixture
            .ops
            .register(&enrollment(registration_token()), &mut blank(), Caution::Send, now())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Disk(_)), "{effect}");
        assert!(fixture.server.calls().is_empty(), "{effect}");
    }
    for effect in ["probe", "begin"] {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        fixture.disk.fail(effect, 1);
        assert!(matches!(fixture.ops.rotate(&mut runner, None, &inquiry()).await, Err(Error::Disk(_))), "{effect}");
        assert_eq!(fixture.server.calls(), ["register"], "{effect}");
    }
}

#[tokio::test]
async fn rotate_journals_before_and_after_its_only_request() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let old = runner.record.credential.clone().unwrap().token;
    let done = fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Rotated(_)) && done.unsaved.is_none());
    assert_eq!(fixture.disk.state().effects, ["probe", "begin", "answered", "edit", "record", "clear"]);
    assert_eq!(fixture.server.calls(), ["register", "reset"]);
    assert_ne!(fixture.disk.tokens(), std::slice::from_ref(&old));
    assert!(runner.record.former_tokens.contains(&old.fingerprint()));
    fixture.assert_nothing_lost("rotate");
}

#[tokio::test]
async fn no_failing_write_loses_a_token_and_a_replay_repairs_it() {
    for effects in [&["answered"][..], &["edit"], &["record"], &["clear"], &["answered", "edit"], &["edit", "record"]] {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        for effect in effects {
            fixture.disk.fail(effect, 1);
        }
        fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
        fixture.assert_nothing_lost(&format!("{effects:?} failed"));
        let replayed = fixture.ops.replay(now()).await.unwrap();
        assert!(replayed.unfinished.is_empty(), "{effects:?}: {replayed:?}");
        fixture.ops.save(&mut runner).await.unwrap();
        assert_eq!(fixture.disk.tokens(), [runner.record.credential.clone().unwrap().token], "{effects:?}");
        assert!(fixture.disk.state().journal.is_empty(), "{effects:?}");
    }
}

#[tokio::test]
async fn a_crash_after_the_answer_is_finished_by_a_replay() {
    let fixture = OpsFixture::new();
    let runner = fixture.registered().await;
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
            is_documented: true,
        }),
    };
    fixture.disk.state().journal.insert(runner.record.key.clone(), pending);
    let replayed = fixture.ops.replay(now()).await.unwrap();
    assert_eq!((replayed.finished, replayed.unfinished.len()), (1, 0));
    assert_eq!(fixture.disk.tokens(), [new]);
    assert!(fixture.disk.state().journal.is_empty());
    assert_eq!(fixture.server.calls(), ["register"]);
}

#[tokio::test]
async fn a_replay_reports_a_crash_before_the_answer() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let old = runner.record.credential.clone().unwrap().token;
    let intent = rotation_intent(&old, runner.record.id.unwrap());
    fixture.disk.begin(&runner.record.key, intent).await.unwrap();
    let replayed = fixture.ops.replay(now()).await.unwrap();
    assert_eq!(replayed.unfinished, [(runner.record.key.clone(), Unfinished::LostReset)]);
    assert!(!fixture.disk.state().journal.is_empty(), "kept until settled");
    fixture.ops.settle(&mut runner).await.unwrap();
    assert!(fixture.disk.state().journal.is_empty());
}

#[tokio::test]
async fn a_lost_reset_keeps_its_journal_and_a_refused_one_does_not() {
    for (fault, expected, kept) in [
        (Fault::LoseAnswer, Outcome::Lost { retry_after: None }, true),
        (Fault::Fail(UNKNOWN), Outcome::Lost { retry_after: None }, true),
        (Fault::Fail(NOT_EXECUTED), Outcome::Deferred { retry_after: None }, false),
        (Fault::Fail(Disposition::Refused), Outcome::ResetRefused, false),
        (Fault::Fail(Disposition::RotationClosed), Outcome::RotationClosed, false),
        (Fault::Fail(Disposition::Unsupported), Outcome::RotationClosed, false),
    ] {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        fixture.server.inject("reset", fault);
        let error = fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap_err();
        assert_eq!(error.outcome(), expected, "{fault:?}");
        assert_eq!(!fixture.disk.state().journal.is_empty(), kept, "{fault:?}");
        assert_eq!(fixture.server.calls(), ["register", "reset"], "{fault:?}");
    }
}

#[tokio::test]
async fn an_unchanged_token_is_not_a_rotation() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.server.inject_always("reset", Some(Fault::SameToken));
    let done = fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    assert_eq!(done.outcome, Outcome::NotRotated);
    assert!(runner.record.former_tokens.is_empty() && fixture.disk.state().journal.is_empty());
}

#[tokio::test]
async fn verify_completes_the_record_from_the_answer() {
    let fixture = OpsFixture::new();
    let (id, credential) = fixture.server.add_runner();
    let expiry = credential.expiry;
    let bare = Credential { expiry: Expiry::Unknown, obtained_at: None, ..credential };
    fixture.disk.add_entry("found", None, &bare);
    let snapshot = fixture.disk.read().await.unwrap();
    let mut runner = Runner::found(&snapshot.entries[0]).unwrap();
    let verified = fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    assert_eq!(verified.outcome, Outcome::Accepted(runner.validity(now()).unwrap()));
    assert_eq!(runner.record.id, Some(id));
    assert_eq!(runner.record.credential.as_ref().unwrap().expiry, expiry);
    assert_eq!(fixture.disk.state().records.len(), 1);
}

#[tokio::test]
async fn an_old_copy_is_corrected_without_a_request() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let old_entries = fixture.disk.state().entries.clone();
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    let current = fixture.disk.tokens();
    fixture.disk.state().entries = old_entries;
    let requests = fixture.server.calls().len();
    assert_eq!(fixture.ops.reconcile(&mut runner).await.unwrap().entry_status, EntryStatus::Stale);
    assert_eq!(fixture.disk.tokens(), current);
    assert_eq!(fixture.server.calls().len(), requests);
}

#[tokio::test]
async fn an_unknown_token_is_verified_and_then_adopted_or_replaced() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let ours = runner.record.credential.clone().unwrap();
    // Another process rotates, and writes the new token.
    let mut elsewhere = Runner::recorded(runner.record.clone(), runner.site.clone());
    let other_disk = MemoryDisk::default();
    let other = Ops::new(fixture.server.clone(), other_disk, identity());
    other.rotate(&mut elsewhere, None, &inquiry()).await.unwrap();
    let theirs = elsewhere.record.credential.clone().unwrap();
    fixture.disk.state().entries[0].token = EntryToken::Literal(theirs.token.clone());
    assert!(matches!(fixture.ops.verify(&mut runner, &inquiry()).await.unwrap().outcome, Outcome::Adopted(_)));
    assert_eq!(runner.record.credential.as_ref().unwrap().token, theirs.token);
    assert!(runner.record.former_tokens.contains(&ours.token.fingerprint()));
    // A token that the server refuses is replaced by the previous one.
    let wrong = Token::parse("glrtr-wrong").unwrap();
    fixture.disk.state().entries[0].token = EntryToken::Literal(wrong);
    fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    assert_eq!(fixture.disk.tokens(), [theirs.token]);
}

#[tokio::test]
async fn two_entries_of_one_runner_are_renewed_together() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let duplicate = fixture.disk.state().entries[0].clone();
    fixture.disk.state().entries.push(duplicate);
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    let tokens = fixture.disk.tokens();
    assert_eq!(tokens[0], tokens[1]);
    fixture.assert_nothing_lost("duplicates");
}

#[tokio::test]
async fn unregister_deletes_on_the_server_and_keeps_the_text() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let fate = EntryFate::at_shutdown(&runner.record, Deletion::Runner);
    assert_eq!(fate, EntryFate::KeepText);
    let done = fixture.ops.unregister(&mut runner, asked(fate), &inquiry()).await.unwrap();
    assert_eq!(done.found, Unregistration::Deleted);
    assert!(fixture.server.runners().is_empty());
    assert!(fixture.disk.tokens().is_empty());
    let record = fixture.disk.state().records.values().next().unwrap().clone();
    assert!(record.entry_text.is_some() && record.credential.is_none());
    // The next registration uses the kept text.
    fixture.ops.register(&enrollment(registration_token()), &mut runner, Caution::Send, now()).await.unwrap();
    assert_eq!(fixture.disk.tokens().len(), 1);
}

#[tokio::test]
async fn unregistering_a_given_runner_deletes_only_its_manager() {
    let fixture = OpsFixture::new();
    let (_, credential) = fixture.server.add_runner();
    let mut enrollment = enrollment(credential.token.clone());
    enrollment.source =
        RegistrationSource::Given(Source::Value { token: credential.token, origin: "a test".to_owned() });
    let mut runner = blank();
    fixture.ops.register(&enrollment, &mut runner, Caution::Send, now()).await.unwrap();
    assert_eq!(fixture.server.calls(), ["verify"]);
    let fate = EntryFate::at_shutdown(&runner.record, Deletion::Manager);
    let request = UnregisterRequest { deletion: Deletion::Manager, ..asked(fate) };
    fixture.ops.unregister(&mut runner, request, &inquiry()).await.unwrap();
    let (_, served) = fixture.server.runners().into_iter().next().unwrap();
    assert!(served.managers.is_empty());
    assert_eq!(fixture.disk.tokens().len(), 1);
}

#[tokio::test]
async fn a_missing_runner_may_remain_if_its_token_has_expired() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.server.remove_runner(runner.record.id.unwrap());
    let done = fixture.ops.unregister(&mut runner, asked(EntryFate::KeepText), &inquiry()).await.unwrap();
    assert_eq!(done.found, Unregistration::AlreadyGone);

    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    runner.record.credential.as_mut().unwrap().expiry = Expiry::At(now().minus(Duration::from_secs(60)));
    fixture.disk.state().records.insert(runner.record.key.clone(), runner.record.clone());
    fixture.server.inject("delete_runner", Fault::Fail(Disposition::Refused));
    let done = fixture.ops.unregister(&mut runner, asked(EntryFate::KeepText), &inquiry()).await.unwrap();
    assert_eq!(done.found, Unregistration::MayRemain);
}

#[tokio::test]
async fn a_lost_unregistration_is_finished_by_the_next_start() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.server.inject("delete_runner", Fault::LoseAnswer);
    let error = fixture.ops.unregister(&mut runner, asked(EntryFate::KeepText), &inquiry()).await.unwrap_err();
    assert!(matches!(error, Error::Changing(_)));
    let replayed = fixture.ops.replay(now()).await.unwrap();
    assert_eq!(replayed.unfinished, [(runner.record.key.clone(), Unfinished::Unregistration)]);
    let done = fixture.ops.unregister(&mut runner, asked(EntryFate::KeepText), &inquiry()).await.unwrap();
    assert_eq!(done.found, Unregistration::AlreadyGone);
    assert!(fixture.disk.tokens().is_empty());
}

#[tokio::test]
async fn a_start_finishes_an_unregistration_that_the_disk_failed() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.disk.fail("edit", 2);
    fixture.ops.unregister(&mut runner, asked(EntryFate::KeepText), &inquiry()).await.unwrap_err();
    let replayed = fixture.ops.replay(now()).await.unwrap();
    assert_eq!(replayed.unfinished, [(runner.record.key.clone(), Unfinished::Unregistration)]);
    fixture.ops.reconcile(&mut runner).await.unwrap();
    fixture.disk.fail("record", 1);
    fixture.ops.unregister(&mut runner, asked(EntryFate::KeepText), &inquiry()).await.unwrap_err();
    assert_eq!(fixture.ops.replay(now()).await.unwrap().finished, 1);
    assert!(fixture.disk.tokens().is_empty());
    assert_eq!(fixture.server.calls(), ["register", "delete_runner"]);
}

#[tokio::test]
async fn an_interrupted_unregistration_spares_a_newer_token() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.disk.fail("edit", 1);
    fixture.ops.unregister(&mut runner, asked(EntryFate::KeepText), &inquiry()).await.unwrap_err();
    let (id, credential) = fixture.server.add_runner();
    fixture.disk.state().entries.clear();
    fixture.disk.add_entry("build-1", Some(id), &credential);
    runner.record.id = Some(id);
    fixture.disk.save_record(runner.record.clone()).await.unwrap();
    fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    assert_eq!(fixture.ops.replay(now()).await.unwrap().finished, 1);
    assert_eq!(fixture.disk.tokens(), [credential.token]);
    assert!(fixture.disk.state().journal.is_empty());
}

#[tokio::test]
async fn registering_again_reuses_the_entry() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let old = runner.record.clone();
    let done =
        fixture.ops.register_again(&enrollment(registration_token()), &mut runner, Caution::Send, now()).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Registered(_)) && done.unsaved.is_none());
    assert_ne!(runner.record.id, old.id);
    let state = fixture.disk.state();
    assert_eq!(state.effects, ["probe", "record", "begin", "answered", "record", "edit", "edit", "record", "clear"]);
    assert_eq!(state.entries.len(), 1);
    assert_eq!(state.entries[0].id, runner.record.id);
    assert_eq!(state.entries[0].token.token(), runner.record.credential.as_ref().map(|credential| &credential.token));
}

#[tokio::test]
async fn a_replay_of_registering_again_reuses_the_entry() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.disk.fail("edit", 1);
    let done =
        fixture.ops.register_again(&enrollment(registration_token()), &mut runner, Caution::Send, now()).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Registered(_)) && done.unsaved.is_some());
    // The record as it was before the answer: only the journal has the new runner.
    let mut before = runner.record.clone();
    before.id = fixture.disk.state().entries[0].id;
    before.credential = fixture.disk.state().entries[0].token.token().map(|token| Credential {
        token: token.clone(),
        obtained_at: None,
        expiry: Expiry::Unknown,
    });
    before.former_tokens.clear();
    before.former_digests.clear();
    before.seed = None;
    fixture.disk.state().records.insert(before.key.clone(), before);
    assert_eq!(fixture.ops.replay(now()).await.unwrap().finished, 1);
    let state = fixture.disk.state();
    assert_eq!(state.entries.len(), 1);
    assert_eq!(state.entries[0].id, runner.record.id);
    assert_eq!(state.records[&runner.record.key].seed, Some(registration_token().fingerprint()));
}

#[tokio::test]
async fn a_refused_registration_changes_neither_entry_nor_record() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let mut record = runner.record.clone();
    record.enrollment = None;
    fixture.disk.state().records.insert(record.key.clone(), record.clone());
    let (entries, wrong) = (fixture.disk.state().entries.clone(), Token::parse("wrong").unwrap());
    fixture.ops.register_again(&enrollment(wrong), &mut runner, Caution::Send, now()).await.unwrap_err();
    let state = fixture.disk.state();
    assert_eq!(state.entries, entries);
    assert_eq!(state.records[&record.key], record);
}

#[tokio::test]
async fn a_dropped_entry_of_an_enrollment_leaves_a_retired_record() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let dead = runner.digest().unwrap();
    fixture.ops.drop_entry(&mut runner, dead, now()).await.unwrap();
    let state = fixture.disk.state();
    assert!(state.entries.is_empty());
    let record = &state.records[&runner.record.key];
    assert!(record.credential.is_none() && record.entry_text.is_some());
    assert_eq!(record.state, Some(StateName::Retired));
    assert!(state.effects.contains(&"keep_dropped"));
}

#[tokio::test]
async fn one_refusal_does_not_overwrite_an_unknown_token() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    // Another process has rotated: ours is dead, and a lagging replica refuses theirs.
    let (elsewhere, disk) = (MemoryDisk::default(), fixture.disk.clone());
    let other = Ops::new(fixture.server.clone(), elsewhere, identity());
    let mut theirs = Runner::recorded(runner.record.clone(), runner.site.clone());
    other.rotate(&mut theirs, None, &inquiry()).await.unwrap();
    let token = theirs.record.credential.unwrap().token;
    disk.state().entries[0].token = EntryToken::Literal(token.clone());
    fixture.server.inject("verify", Fault::Fail(Disposition::Refused));
    assert_eq!(fixture.ops.verify(&mut runner, &inquiry()).await.unwrap_err().outcome(), Outcome::Refused);
    assert_eq!(fixture.disk.tokens(), std::slice::from_ref(&token));
    assert!(matches!(fixture.ops.verify(&mut runner, &inquiry()).await.unwrap().outcome, Outcome::Adopted(_)));
    assert_eq!(runner.record.credential.unwrap().token, token);
}

#[tokio::test]
async fn unregister_adopts_an_unknown_token_first() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let other = Ops::new(fixture.server.clone(), MemoryDisk::default(), identity());
    let mut theirs = Runner::recorded(runner.record.clone(), runner.site.clone());
    other.rotate(&mut theirs, None, &inquiry()).await.unwrap();
    let token = theirs.record.credential.unwrap().token;
    fixture.disk.state().entries[0].token = EntryToken::Literal(token);
    let done = fixture.ops.unregister(&mut runner, asked(EntryFate::KeepText), &inquiry()).await.unwrap();
    assert_eq!(done.found, Unregistration::Deleted);
    assert!(fixture.server.runners().is_empty());
}

#[tokio::test]
async fn no_second_reset_is_sent_before_a_lost_answer_is_settled() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.server.inject("reset", Fault::LoseAnswer);
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap_err();
    let mut another = Runner::recorded(runner.record.clone(), runner.site.clone());
    assert!(matches!(fixture.ops.rotate(&mut another, None, &inquiry()).await, Err(Error::Disk(_))));
    assert!(matches!(
        fixture.ops.unregister(&mut another, asked(EntryFate::Drop), &inquiry()).await,
        Err(Error::Disk(_))
    ));
    assert_eq!(fixture.server.calls(), ["register", "reset"]);
    fixture.ops.settle(&mut runner).await.unwrap();
    assert!(matches!(fixture.ops.rotate(&mut another, None, &inquiry()).await, Err(Error::Changing(_))));
}

#[tokio::test]
async fn the_text_of_an_entry_is_kept_before_its_removal() {
    for fate in [EntryFate::KeepText, EntryFate::Drop] {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        fixture.disk.fail("edit", 1);
        fixture.ops.unregister(&mut runner, asked(fate), &inquiry()).await.unwrap_err();
        let state = fixture.disk.state();
        let in_record = state.records[&runner.record.key].entry_text.is_some();
        assert!(in_record || state.effects.contains(&"keep_dropped"), "{fate:?}");
    }
}

#[tokio::test]
async fn a_token_rotated_by_another_process_is_adopted() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let mut another = Runner::recorded(runner.record.clone(), runner.site.clone());
    fixture.ops.rotate(&mut another, None, &inquiry()).await.unwrap();
    assert!(matches!(fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap().outcome, Outcome::Adopted(_)));
    assert_eq!(fixture.server.calls(), ["register", "reset"]);
}

#[tokio::test]
async fn a_token_is_never_sent_to_another_server() {
    let fixture = OpsFixture::new();
    let runner = fixture.registered().await;
    let site = Site { url: "https://elsewhere.example.com".parse().unwrap(), tls: TlsFiles::default() };
    let mut moved = Runner::blank(runner.record.key.clone(), Origin::Registered, site);
    assert!(matches!(fixture.ops.verify(&mut moved, &inquiry()).await, Err(Error::OtherServer { .. })));
    assert_eq!(fixture.server.calls(), ["register"]);
}

#[tokio::test]
async fn a_token_from_a_variable_is_never_written() {
    let fixture = OpsFixture::new();
    let (_, credential) = fixture.server.add_runner();
    fixture.disk.add_entry("variable", None, &credential);
    fixture.disk.state().entries[0].token =
        EntryToken::Variable { name: "RUNNER_TOKEN".to_owned(), token: Some(credential.token) };
    let snapshot = fixture.disk.read().await.unwrap();
    let mut runner = Runner::found(&snapshot.entries[0]).unwrap();
    fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    assert!(fixture.disk.state().records.is_empty());
    assert!(matches!(fixture.ops.rotate(&mut runner, None, &inquiry()).await, Err(Error::VariableToken { .. })));
    assert_eq!(fixture.server.calls(), ["verify"]);
}
