//! The order of effects, and what remains if any of them fails.

mod lost_registration;
mod registration_site;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::memory::{
    Fault, MemoryDisk, MemoryServer, START, TokioClock, asked, enrollment, identity, inquiry_at, registration_token,
    rotation_intent,
};
use super::*;
use crate::gitlab::{Disposition, Reason};
use crate::lifecycle::{Outcome, Settling, Trouble};
use crate::model::{
    Belief, Candidate, CandidateSource, Credential, Expiry, Held, Origin, RunnerId, RunnerKey, Site, StateName,
    Timestamp, TlsFiles, Witness,
};
use crate::secret::{Source, Token};
use crate::store::{AskedBy, EntryToken, JournalAnswer, Pending, Record};

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

    /// Another machine's operations on the same runner.
    fn elsewhere(&self, runner: &Runner) -> (Ops<MemoryServer, MemoryDisk>, Runner) {
        let disk = MemoryDisk::default();
        disk.state().records.insert(runner.record.key.clone(), runner.record.clone());
        let elsewhere = Runner::recorded(runner.record.clone(), runner.site.clone());
        (Ops::new(self.server.clone(), disk, identity()), elsewhere)
    }

    async fn registered(&self) -> Runner {
        let mut runner = blank();
        self.ops.register(&enrollment(registration_token()), &mut runner, &inquiry()).await.unwrap();
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
            let in_held =
                state.held.values().any(|held| held.candidates.iter().any(|candidate| candidate.token == served.token));
            let in_journal = state.journal.values().any(|pending| {
                pending.answer.as_ref().is_some_and(|answer| answer.token.as_ref() == Some(&served.token))
            });
            assert!(in_config || in_records || in_held || in_journal, "{context}: the token of runner {id} is lost");
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
async fn register_probes_and_journals_before_and_after_its_only_request() {
    let fixture = OpsFixture::new();
    let mut runner = blank();
    let done = fixture.ops.register(&enrollment(registration_token()), &mut runner, &inquiry()).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Registered(_)) && done.unsaved.is_none());
    assert_eq!(
        fixture.disk.state().effects,
        ["probe", "record", "begin", "answered", "record", "edit", "record", "clear"]
    );
    assert_eq!(fixture.server.calls(), ["probe", "register"]);
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
        tls: TlsFiles::default(),
        owner: crate::gitlab::fleet::NewRunnerOwner::Group(7),
        token_expires_at: None,
        token_rotation_deadline: None,
    });
    fixture.ops.register(&enrollment, &mut runner, &inquiry()).await.unwrap();
    assert_eq!(
        fixture.disk.state().effects,
        ["probe", "record", "begin", "answered", "record", "edit", "record", "clear"]
    );
    assert_eq!(fixture.server.calls(), ["probe", "create"]);
    assert_eq!(fixture.disk.tokens(), [runner.token().unwrap()]);
    fixture.ops.unregister(&mut runner, asked(EntryFate::KeepText), &inquiry()).await.unwrap();
    assert_eq!(fixture.server.calls(), ["probe", "create", "delete_runner"]);
}

#[tokio::test]
async fn registering_again_changes_nothing() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let again = fixture.ops.register(&enrollment(registration_token()), &mut runner, &inquiry()).await.unwrap();
    assert!(matches!(again.outcome, Outcome::Adopted(_)));
    assert_eq!(fixture.server.calls(), ["probe", "register"]);
    assert!(fixture.disk.state().effects.is_empty());
}

#[tokio::test]
async fn a_wrong_registration_token_leaves_nothing_behind() {
    let fixture = OpsFixture::new();
    let mut runner = blank();
    runner.record.enrollment = None;
    let wrong = Token::parse("wrong").unwrap();
    let error = fixture.ops.register(&enrollment(wrong), &mut runner, &inquiry()).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Declined(Trouble::RegistrationRefused));
    let state = fixture.disk.state();
    assert!(state.entries.is_empty() && state.records.is_empty() && state.journal.is_empty());
}

#[tokio::test]
async fn no_token_is_spent_if_the_disk_cannot_keep_the_token() {
    for effect in ["probe", "record", "begin"] {
        let fixture = OpsFixture::new();
        fixture.disk.fail(effect, 1);
        let error =
            fixture.ops.register(&enrollment(registration_token()), &mut blank(), &inquiry()).await.unwrap_err();
        assert!(matches!(error, Error::Disk(_)), "{effect}");
        assert!(!fixture.server.calls().contains(&"register"), "{effect}");
    }
    for effect in ["probe", "begin"] {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        fixture.disk.fail(effect, 1);
        assert!(matches!(fixture.ops.rotate(&mut runner, None, &inquiry()).await, Err(Error::Disk(_))), "{effect}");
        assert_eq!(fixture.server.calls(), ["probe", "register"], "{effect}");
    }
}

#[tokio::test]
async fn rotate_journals_before_and_after_its_only_request() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let old = runner.record.credential.clone().unwrap().token;
    let done = fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Rotated(_)) && done.unsaved.is_none());
    assert_eq!(fixture.disk.state().effects, ["probe", "begin", "answered", "edit", "held", "record", "clear"]);
    assert_eq!(fixture.server.calls(), ["probe", "register", "reset"]);
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
    assert_eq!(fixture.server.calls(), ["probe", "register"]);
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
        (Fault::Fail(NOT_EXECUTED), Outcome::ResetDeferred { retry_after: None }, false),
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
        assert_eq!(fixture.server.calls(), ["probe", "register", "reset"], "{fault:?}");
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

#[tokio::test(start_paused = true)]
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
async fn an_old_copy_is_corrected_once_the_current_token_is_accepted() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let old_entries = fixture.disk.state().entries.clone();
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    let current = fixture.disk.tokens();
    fixture.disk.state().entries = old_entries.clone();
    assert_eq!(fixture.ops.reconcile(&mut runner).await.unwrap().entry_status, EntryStatus::Stale);
    assert_ne!(fixture.disk.tokens(), current, "no request has shown which of them is good");
    fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    assert_eq!(fixture.disk.tokens(), current);
}

/// Server time some seconds after the start.
fn later(secs: u64) -> Inquiry<'static> {
    inquiry_at(now().plus(Duration::from_secs(secs)))
}

/// The same, with the runner's token proven dead.
fn dead_later(secs: u64) -> Inquiry<'static> {
    Inquiry { is_dead: true, ..later(secs) }
}

#[tokio::test]
async fn a_server_that_was_restored_from_a_backup_is_followed_to_the_former_token() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let former = runner.record.credential.clone().unwrap();
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    fixture.server.restore(runner.record.id.unwrap(), &former);
    // A lagging replica accepts the former token too: it is not followed before ours is proven dead.
    fixture.ops.verify(&mut runner, &later(1)).await.unwrap_err();
    assert_ne!(fixture.disk.tokens(), std::slice::from_ref(&former.token));
    let done = fixture.ops.verify(&mut runner, &dead_later(61)).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Adopted(_)));
    assert_eq!(fixture.disk.tokens(), [former.token]);
    assert_eq!(fixture.server.calls().iter().filter(|call| **call == "reset").count(), 1);
}

#[tokio::test]
async fn a_record_with_a_former_token_that_another_process_has_adopted_is_not_written_over() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let former = runner.record.credential.clone().unwrap();
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    let mut command = Runner::recorded(runner.record.clone(), runner.site.clone());
    fixture.ops.load_held(&mut command).await;
    fixture.server.restore(runner.record.id.unwrap(), &former);
    // It cannot write the entry.
    fixture.disk.fail("edit", 1);
    fixture.ops.verify(&mut command, &dead_later(61)).await.unwrap_err();
    assert_eq!(fixture.disk.state().records[&runner.record.key].credential.as_ref().unwrap().token, former.token);
    fixture.ops.verify(&mut runner, &later(120)).await.unwrap();
    assert_eq!(fixture.disk.state().records[&runner.record.key].credential.as_ref().unwrap().token, former.token);
    assert_eq!(fixture.disk.tokens(), [former.token]);
}

#[tokio::test]
async fn a_good_former_token_that_a_person_puts_back_is_not_overwritten() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let former = runner.record.credential.clone().unwrap();
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    fixture.server.restore(runner.record.id.unwrap(), &former);
    fixture.disk.state().entries[0].token = EntryToken::Literal(former.token.clone());
    fixture.ops.reconcile(&mut runner).await.unwrap();
    fixture.ops.verify(&mut runner, &later(1)).await.unwrap_err();
    fixture.ops.verify(&mut runner, &later(61)).await.unwrap_err();
    assert_eq!(fixture.disk.tokens(), std::slice::from_ref(&former.token));
    fixture.ops.verify(&mut runner, &dead_later(62)).await.unwrap();
    assert_eq!(fixture.disk.tokens(), std::slice::from_ref(&former.token));
    assert_eq!(runner.record.credential.unwrap().token, former.token);
}

#[tokio::test]
async fn an_unknown_token_is_adopted_or_overwritten_after_two_refusals() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let ours = runner.record.credential.clone().unwrap();
    // Another process rotates, and writes the new token.
    let (other, mut elsewhere) = fixture.elsewhere(&runner);
    other.rotate(&mut elsewhere, None, &inquiry()).await.unwrap();
    let theirs = elsewhere.record.credential.clone().unwrap();
    fixture.disk.state().entries[0].token = EntryToken::Literal(theirs.token.clone());
    assert!(matches!(fixture.ops.verify(&mut runner, &inquiry()).await.unwrap().outcome, Outcome::Adopted(_)));
    assert_eq!(runner.record.credential.as_ref().unwrap().token, theirs.token);
    assert!(runner.record.former_digests.contains(&ours.token.digest()));
    // A token that the server refuses is overwritten by ours once that is proven, and kept in the state directory.
    let wrong = Token::parse("glrtr-wrong").unwrap();
    fixture.disk.state().entries[0].token = EntryToken::Literal(wrong.clone());
    for secs in [0, 1, 59] {
        let verified = fixture.ops.verify(&mut runner, &later(secs)).await.unwrap();
        assert!(verified.is_disputed && matches!(verified.outcome, Outcome::Accepted(_)), "{secs}");
        assert_eq!(fixture.disk.tokens(), std::slice::from_ref(&wrong), "after {secs} s");
    }
    assert!(!fixture.ops.verify(&mut runner, &later(60)).await.unwrap().is_disputed);
    assert_eq!(fixture.disk.tokens(), [theirs.token]);
    let state = fixture.disk.state();
    assert!(state.held[&runner.record.key].candidates.iter().any(|candidate| candidate.token == wrong));
}

#[tokio::test]
async fn an_acceptance_of_an_unknown_token_clears_its_earlier_refusals() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    // An old server does not say whose token it is, so it is neither followed nor given away.
    fixture.server.name_no_ids();
    let (_, theirs) = fixture.server.add_runner();
    fixture.disk.state().entries[0].token = EntryToken::Literal(theirs.token.clone());
    for (secs, is_refused) in [(0, true), (30, false), (61, true)] {
        if is_refused {
            fixture.server.inject("verify", Fault::Fail(Disposition::Refused));
        }
        fixture.ops.verify(&mut runner, &later(secs)).await.unwrap();
        assert_eq!(fixture.disk.tokens(), std::slice::from_ref(&theirs.token), "after {secs} s");
    }
    fixture.server.inject("verify", Fault::Fail(Disposition::Refused));
    fixture.ops.verify(&mut runner, &later(121)).await.unwrap();
    assert_eq!(fixture.disk.tokens(), [runner.token().unwrap()], "two refusals in a row");
}

#[tokio::test]
async fn no_token_is_spent_while_config_toml_holds_an_unknown_one() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let unknown = Token::parse("glrtr-by-a-person").unwrap();
    fixture.disk.state().entries[0].token = EntryToken::Literal(unknown.clone());
    assert_eq!(fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap().outcome, Outcome::Contested);
    assert_eq!(fixture.server.calls(), ["probe", "register"]);
    assert_eq!(fixture.disk.tokens(), [unknown]);
}

#[tokio::test]
async fn a_token_near_its_end_is_rotated_beside_an_unknown_one_which_stays() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let unknown = Token::parse("glrtr-by-a-person").unwrap();
    fixture.disk.state().entries[0].token = EntryToken::Literal(unknown.clone());
    let pressing = Inquiry { is_pressing: true, ..inquiry() };
    let done = fixture.ops.rotate(&mut runner, None, &pressing).await.unwrap();
    assert!(matches!((done.outcome, done.unsaved), (Outcome::Rotated(_), Some(store::Error::UnknownToken { .. }))));
    assert_eq!(fixture.disk.tokens(), std::slice::from_ref(&unknown));
    fixture.assert_nothing_lost("beside an unknown token");
    // Without a state directory the new token would have no place.
    fixture.disk.state().is_stateless = true;
    assert_eq!(fixture.ops.rotate(&mut runner, None, &pressing).await.unwrap().outcome, Outcome::Contested);
}

#[tokio::test]
async fn a_token_is_reset_over_a_mount_point_that_stays_locked_only_near_its_end() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.disk.state().is_kept_locked = true;
    let error = fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap_err();
    assert!(matches!(error, Error::Disk(store::Error::FileLocked { .. })));
    assert_eq!(fixture.server.calls(), ["probe", "register"]);
    let pressing = Inquiry { is_pressing: true, ..inquiry() };
    let done = fixture.ops.rotate(&mut runner, None, &pressing).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Rotated(_)) && done.unsaved.is_none());
    assert_eq!(fixture.disk.tokens(), [runner.token().unwrap()]);
}

#[tokio::test]
async fn without_a_state_directory_a_token_is_added_beside_an_unknown_one() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.disk.state().is_stateless = true;
    fixture.disk.fail("edit", 1);
    assert!(fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap().unsaved.is_some());
    assert!(runner.is_unstored());
    let unknown = Token::parse("glrtr-by-a-person").unwrap();
    fixture.disk.state().entries[0].token = EntryToken::Literal(unknown.clone());
    fixture.ops.save(&mut runner).await.unwrap();
    assert_eq!(fixture.disk.tokens(), [unknown, runner.token().unwrap()]);
    assert!(!runner.is_unstored());
}

#[tokio::test]
async fn a_token_with_white_space_around_it_is_no_placeholder_and_is_written_without() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let unknown = Token::parse("glrtr-by-a-person").unwrap();
    fixture.disk.state().entries[0].token = EntryToken::Padded(unknown.clone());
    assert!(fixture.ops.verify(&mut runner, &inquiry()).await.unwrap().is_disputed);
    assert_eq!(fixture.disk.tokens(), [unknown]);
    let ours = runner.token().unwrap();
    fixture.disk.state().entries[0].token = EntryToken::Padded(ours.clone());
    fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    assert_eq!(fixture.disk.state().entries[0].token, EntryToken::Literal(ours));
}

#[tokio::test]
async fn a_declined_reset_by_an_access_token_leaves_an_earlier_lost_one_to_be_settled() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let access_token = AccessToken { token: Token::parse("glpat-access").unwrap(), tls: TlsFiles::default() };
    fixture.server.inject("reset", Fault::LoseAnswer);
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap_err();
    let journal = |fixture: &OpsFixture| fixture.disk.state().journal.get(&runner.record.key).cloned();
    let lost = journal(&fixture);
    assert!(lost.is_some());
    let mut runner = runner.clone();
    fixture.server.inject("reset_by_id", Fault::Fail(Disposition::MustAct(Reason::AccessToken)));
    fixture.ops.rotate(&mut runner, Some(&access_token), &inquiry()).await.unwrap_err();
    assert_eq!(journal(&fixture), lost);
    fixture.ops.rotate(&mut runner, Some(&access_token), &inquiry()).await.unwrap();
    assert_eq!(journal(&fixture), None);
}

#[tokio::test]
async fn a_record_that_was_removed_meanwhile_is_not_moved() {
    let fixture = OpsFixture::new();
    let runner = fixture.registered().await;
    let from = runner.record.key.clone();
    let record = Record { key: RunnerKey::enrollment("build-2").unwrap(), ..runner.record.clone() };
    let change = RecordMove { from: from.clone(), record, is_recorded: runner.is_recorded(), is_stored: true };
    fixture.disk.state().records.remove(&from);
    assert!(fixture.ops.move_record(&change).await.unwrap().is_none());
    assert!(fixture.disk.state().records.is_empty());
}

#[tokio::test]
async fn a_candidate_that_cannot_be_written_yet_does_not_replace_that_of_another_process() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let mut elsewhere = Runner::recorded(runner.record.clone(), runner.site.clone());
    let (one, two) = (Token::parse("glrtr-one").unwrap(), Token::parse("glrtr-two").unwrap());
    fixture.disk.fail("held", 1);
    fixture.disk.state().entries[0].token = EntryToken::Literal(one.clone());
    fixture.ops.verify(&mut runner, &inquiry()).await.unwrap_err();
    fixture.disk.state().entries[0].token = EntryToken::Literal(two.clone());
    fixture.ops.verify(&mut elsewhere, &inquiry()).await.unwrap();
    fixture.disk.state().entries[0].token = EntryToken::Literal(runner.token().unwrap());
    fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    let held = fixture.disk.state().held[&runner.record.key].clone();
    assert!([one, two].iter().all(|token| held.candidates.iter().any(|candidate| candidate.token == *token)));
}

#[tokio::test]
async fn a_new_token_that_only_another_process_could_note_is_kept_until_the_record_holds_it() {
    for (held_failures, nth) in [0, 2].into_iter().flat_map(|failures| (0..4).map(move |nth| (failures, nth))) {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        let mut elsewhere = Runner::recorded(runner.record.clone(), runner.site.clone());
        fixture.disk.fail("answered", 1);
        fixture.disk.fail("record", 5);
        fixture.disk.fail("held", held_failures);
        assert!(fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap().unsaved.is_some());
        // It finds the token in config.toml, and can only note it.
        fixture.ops.verify(&mut elsewhere, &inquiry()).await.unwrap_err();
        fixture.disk.state().entries.clear();
        fixture.assert_nothing_lost("the entry is removed");
        fixture.disk.fail("record", 0);
        fixture.disk.state().writes_left = Some(nth);
        let _cut = fixture.ops.save(&mut runner).await;
        fixture.assert_nothing_lost(&format!("{held_failures} failures before, after {nth} writes"));
    }
}

#[tokio::test]
async fn a_former_token_is_kept_with_the_id_of_its_runner() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let (former_id, former) = (runner.record.id, runner.token().unwrap());
    let enrollment = enrollment(registration_token());
    fixture.ops.register_again(&enrollment, &mut runner, &inquiry()).await.unwrap();
    assert_ne!(runner.record.id, former_id);
    let candidate = runner.held.candidates.iter().find(|candidate| candidate.token == former).unwrap();
    assert_eq!(candidate.id, former_id);
}

#[tokio::test]
async fn a_token_that_is_kept_beside_another_runners_record_alone_is_followed_once_the_own_one_is_dead() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let (other_id, credential) = fixture.server.add_runner();
    fixture.disk.add_entry("other", Some(other_id), &credential);
    let found = fixture.disk.state().entries[1].clone();
    let mut other = Runner::found(&found).unwrap();
    fixture.ops.verify(&mut other, &inquiry()).await.unwrap();
    // A person resets the token, puts the new one into the other runner's entry, and removes that.
    let new = Credential { token: Token::parse("glrtr-new").unwrap(), ..credential };
    fixture.server.restore(runner.record.id.unwrap(), &new);
    fixture.server.remove_runner(other_id);
    fixture.disk.state().entries[1].token = EntryToken::Literal(new.token.clone());
    fixture.ops.verify(&mut other, &inquiry()).await.unwrap_err();
    fixture.disk.state().entries.truncate(1);
    fixture.ops.verify(&mut runner, &inquiry()).await.unwrap_err();
    let verified = fixture.ops.verify(&mut runner, &dead_later(61)).await.unwrap();
    assert!(matches!(verified.outcome, Outcome::Adopted(_)));
    assert_eq!((runner.token().unwrap(), fixture.disk.tokens()), (new.token.clone(), vec![new.token]));
}

#[tokio::test]
async fn a_token_of_another_runner_that_is_known_here_outlives_the_unregistration_of_the_one_whose_entry_had_it() {
    for fate in [EntryFate::Drop, EntryFate::KeepText] {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        let (other_id, credential) = fixture.server.add_runner();
        fixture.disk.add_entry("other", Some(other_id), &credential);
        let found = fixture.disk.state().entries[1].clone();
        let mut other = Runner::found(&found).unwrap();
        fixture.ops.verify(&mut other, &inquiry()).await.unwrap();
        // A person resets its token, puts the new one into the wrong entry, and takes it out again.
        let new = Credential { token: Token::parse("glrtr-new").unwrap(), ..credential };
        fixture.server.restore(other_id, &new);
        let id = Some(other_id);
        let (source, noted_at, refused) = (CandidateSource::Found, now(), None);
        let Credential { token, obtained_at, expiry } = new.clone();
        let seen = Candidate { token, source, noted_at, obtained_at, expiry, id, origin: None, refused };
        let held = Held { candidates: vec![seen], evidence: None };
        fixture.disk.state().held.insert(runner.record.key.clone(), held);
        fixture.ops.unregister(&mut runner, asked(fate), &inquiry()).await.unwrap();
        fixture.assert_nothing_lost(&format!("{fate:?}"));
        fixture.ops.verify(&mut other, &inquiry()).await.unwrap();
        assert_eq!(other.token().unwrap(), new.token);
    }
}

#[tokio::test]
async fn a_token_of_another_runner_takes_the_entry_and_not_the_runner() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let ours = runner.record.clone();
    let (other, credential) = fixture.server.add_runner();
    fixture.disk.state().entries[0].token = EntryToken::Literal(credential.token.clone());
    fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    assert_eq!((runner.record.id, &runner.record.credential), (ours.id, &ours.credential));
    assert_eq!(runner.record.given_to, Some(other));
    assert_eq!(fixture.disk.tokens(), [credential.token]);
    assert_eq!(fixture.disk.state().entries[0].id, Some(other), "the entry is the other runner's");
    let fate = EntryFate::at_shutdown(&runner.record, Deletion::Runner);
    fixture.ops.unregister(&mut runner, asked(fate), &inquiry()).await.unwrap();
    assert_eq!(fixture.server.runners().keys().copied().collect::<Vec<_>>(), [other.number()]);
    assert_eq!(fixture.disk.tokens().len(), 1);
}

#[tokio::test]
async fn a_token_of_another_runner_that_has_a_record_is_kept_beside_it() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let own = runner.token().unwrap();
    let (other, present) = fixture.server.add_runner();
    let key = RunnerKey::found(&runner.record.url, Some(other), own.digest());
    let dead = Credential { token: Token::parse("glrt-dead").unwrap(), ..present.clone() };
    let record =
        Record { key: key.clone(), id: Some(other), credential: Some(dead), enrollment: None, ..runner.record.clone() };
    let record = Record { confirmed_id: None, ..record };
    fixture.disk.state().records.insert(key.clone(), record);
    fixture.disk.state().entries[0].token = EntryToken::Literal(present.token.clone());
    // Another operation may be giving that runner's entry to this one.
    fixture.disk.state().locked.insert(key.clone());
    let verified = fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    assert!(verified.is_disputed && fixture.disk.state().entries[0].id != Some(other), "it is asked about again");
    fixture.disk.state().locked.clear();
    let verified = fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    assert!(!verified.is_disputed && fixture.disk.state().entries[0].id == Some(other));
    let candidates = fixture.disk.state().held[&key].candidates.clone();
    assert_eq!(candidates.iter().map(|it| (&it.token, it.id)).collect::<Vec<_>>(), [(&present.token, Some(other))]);
}

#[tokio::test]
async fn nothing_is_registered_into_an_entry_with_a_token_that_may_be_good() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let unknown = Token::parse("glrtr-by-a-person").unwrap();
    fixture.disk.state().entries[0].token = EntryToken::Literal(unknown.clone());
    let enrollment = enrollment(registration_token());
    for secs in [0, 59] {
        let again = fixture.ops.register_again(&enrollment, &mut runner, &later(secs)).await;
        assert!(matches!(again, Err(Error::EntryDisputed(_))), "{secs}");
        assert_eq!(fixture.disk.tokens(), std::slice::from_ref(&unknown));
    }
    fixture.ops.register_again(&enrollment, &mut runner, &later(60)).await.unwrap();
    assert_eq!(fixture.server.calls().iter().filter(|call| **call == "register").count(), 2);
    assert_eq!(fixture.disk.tokens(), [runner.token().unwrap()]);
}

#[tokio::test]
async fn a_runner_that_is_served_under_another_key_is_not_registered_again() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let (other, mut elsewhere) = fixture.elsewhere(&runner);
    other.rotate(&mut elsewhere, None, &inquiry()).await.unwrap();
    let key = RunnerKey::found(&runner.record.url, None, elsewhere.digest().unwrap());
    let record = Record { key: key.clone(), enrollment: None, ..elsewhere.record.clone() };
    fixture.disk.state().records.insert(key, record);
    let enrollment = enrollment(registration_token());
    let done = fixture.ops.register_again(&enrollment, &mut runner, &dead_later(61)).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Adopted(_)));
    assert_eq!(fixture.server.calls(), ["probe", "register", "reset", "verify"]);
    assert_eq!(fixture.disk.tokens(), [elsewhere.token().unwrap()]);
}

#[tokio::test]
async fn each_entry_is_given_to_the_runner_whose_token_it_holds() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let own_id = runner.record.id;
    let others: Vec<_> = (0..2).map(|_| fixture.server.add_runner()).collect();
    fixture.disk.state().entries.clear();
    for (_, credential) in &others {
        fixture.disk.add_entry("build-1", own_id, credential);
    }
    fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    let entries = fixture.disk.state().entries.clone();
    let held: Vec<_> = entries.iter().map(|entry| (entry.id, entry.token.token().cloned())).collect();
    let expected: Vec<_> = others.iter().map(|(id, credential)| (Some(*id), Some(credential.token.clone()))).collect();
    assert_eq!(held, expected);
    for (id, credential) in others {
        let state = fixture.disk.state();
        let record = state.records.values().find(|record| record.id == Some(id)).unwrap();
        assert_eq!(record.credential.as_ref().map(|own| &own.token), Some(&credential.token));
    }
}

#[tokio::test]
async fn a_copy_of_an_entry_with_another_runners_token_is_that_runners_and_its_enrollment_stays_what_it_is() {
    for is_dead in [false, true] {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        let (own_id, own) = (runner.record.id, runner.token().unwrap());
        let (other, credential) = fixture.server.add_runner();
        fixture.disk.add_entry("build-1-copy", own_id, &credential);
        if is_dead {
            fixture.server.remove_runner(own_id.unwrap());
        }
        let verified = fixture.ops.verify(&mut runner, &dead_later(61)).await;
        assert_eq!(verified.is_err(), is_dead);
        assert_eq!((runner.record.id, runner.token().unwrap(), runner.record.given_to), (own_id, own, None));
        let ids: Vec<_> = fixture.disk.state().entries.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [own_id, Some(other)], "{is_dead}");
    }
}

#[tokio::test]
async fn an_entry_that_is_removed_beside_a_copy_frees_its_runner_from_the_enrollment() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let (enrolled, credential) = (runner.record.key.clone(), runner.record.credential.clone().unwrap());
    fixture.disk.add_entry("build-1-copy", runner.record.id, &credential);
    let entries = fixture.disk.state().entries.clone();
    fixture.ops.remove_entries_of(&mut runner, &entries[..1], &entries[1..], None, now()).await.unwrap();
    let state = fixture.disk.state();
    let left = &state.records[&enrolled];
    assert_eq!((left.credential.as_ref(), left.state), (None, Some(StateName::Retired)));
    assert!(left.former_digests.is_empty(), "the other entry is none of the enrollment's");
    let served = &state.records[&runner.record.key];
    assert_ne!(served.key, enrolled);
    assert_eq!((&served.enrollment, served.name.as_deref()), (&None, Some("build-1-copy")));
    assert_eq!(served.credential, Some(credential));
}

#[tokio::test]
async fn an_entry_goes_beside_a_copy_only_if_no_other_one_loses_its_token() {
    for is_copied in [false, true] {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        let (_, new) = fixture.server.add_runner();
        let copied = if is_copied { new.clone() } else { runner.record.credential.clone().unwrap() };
        fixture.disk.add_entry("build-1-copy", runner.record.id, &copied);
        fixture.disk.state().entries[0].token = EntryToken::Literal(new.token);
        let entries = fixture.disk.state().entries.clone();
        let removed = fixture.ops.remove_entries_of(&mut runner, &entries[..1], &entries[1..], None, now()).await;
        assert_eq!(removed.is_ok(), is_copied);
        let rest = if is_copied { &entries[1..] } else { &entries[..] };
        assert_eq!(fixture.disk.state().entries, rest);
    }
}

#[tokio::test]
async fn a_token_whose_runner_the_server_does_not_name_stays_in_its_entry() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let (_, credential) = fixture.server.add_runner();
    fixture.server.name_no_ids();
    fixture.disk.state().entries[0].token = EntryToken::Literal(credential.token.clone());
    let verified = fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    assert!(matches!(verified.outcome, Outcome::Accepted(_)));
    assert_eq!(fixture.disk.tokens(), [credential.token]);
}

#[tokio::test]
async fn an_entry_that_a_failed_unregistration_has_handed_over_is_known_as_given() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let (other, credential) = fixture.server.add_runner();
    fixture.disk.state().entries[0].token = EntryToken::Literal(credential.token);
    fixture.server.inject("delete_runner", Fault::Fail(NOT_EXECUTED));
    fixture.ops.unregister(&mut runner, asked(EntryFate::Drop), &inquiry()).await.unwrap_err();
    assert_eq!(fixture.disk.state().records[&runner.record.key].given_to, Some(other));
}

#[tokio::test]
async fn an_unregistration_concerns_no_other_runner_that_its_record_has_gone_over_to() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    runner.select(vec![runner.record.name.clone()]);
    // A new token of the same runner is no reason to ask the person again.
    let mut rotated = runner.clone();
    fixture.ops.rotate(&mut rotated, None, &inquiry()).await.unwrap();
    // Another process follows a token that a person has put into the entry.
    let (other, credential) = fixture.server.add_runner();
    let own = fixture.disk.state().records[&runner.record.key].clone();
    let last_reset_at = runner.record.last_reset_at;
    let followed = Record { credential: Some(credential), last_reset_at, ..own.clone() };
    // A server before 15.9 names no runner.
    for (id, confirmed_id) in [(Some(other), Some(other)), (own.id, None)] {
        fixture.disk.state().records.insert(own.key.clone(), Record { id, confirmed_id, ..followed.clone() });
        let error = fixture.ops.unregister(&mut runner, asked(EntryFate::Drop), &inquiry()).await.unwrap_err();
        assert!(matches!(error, Error::Replaced(_)), "{error}");
        assert_eq!(fixture.server.runners().len(), 2);
    }
    fixture.disk.state().records.insert(own.key.clone(), own);
    fixture.ops.unregister(&mut runner, asked(EntryFate::Drop), &inquiry()).await.unwrap();
    assert_eq!(fixture.server.runners().len(), 1);
}

#[tokio::test]
async fn an_unanswered_candidate_is_no_refused_one() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let former = runner.record.credential.clone().unwrap();
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    fixture.server.restore(runner.record.id.unwrap(), &former);
    fixture.server.inject("verify", Fault::Fail(Disposition::Refused));
    fixture.server.inject("verify", Fault::Fail(NOT_EXECUTED));
    let patient = Inquiry { is_patient: true, ..dead_later(61) };
    let error = fixture.ops.verify(&mut runner, &patient).await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Deferred { .. }), "{error}");
    // Neither is the runner gone.
    fixture.server.inject("verify", Fault::Fail(NOT_EXECUTED));
    let request = UnregisterRequest { is_sent: true, ..asked(EntryFate::Drop) };
    fixture.ops.unregister(&mut runner, request, &patient).await.unwrap_err();
    assert_eq!(fixture.disk.tokens().len(), 1);
    // It is not waited for for ever.
    fixture.server.inject("verify", Fault::Fail(Disposition::Refused));
    fixture.server.inject("verify", Fault::Fail(NOT_EXECUTED));
    let error = fixture.ops.verify(&mut runner, &dead_later(700)).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Refused);
    let done = fixture.ops.verify(&mut runner, &dead_later(701)).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Adopted(_)));
    assert_eq!(fixture.disk.tokens(), [former.token]);
}

#[tokio::test(start_paused = true)]
async fn refusal_of_a_candidate_counts_from_its_answer() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let former = runner.digest().unwrap();
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    fixture.server.remove_runner(runner.record.id.unwrap());
    let asking = dead_later(61);
    tokio::time::advance(Duration::from_secs(30)).await;
    fixture.ops.verify(&mut runner, &asking).await.unwrap_err();
    let candidate = runner.held.candidates.iter().find(|candidate| candidate.token.digest() == former).unwrap();
    assert_eq!(candidate.refused.unwrap().first, asking.now.plus(Duration::from_secs(30)));
}

#[tokio::test]
async fn without_a_state_directory_an_entry_is_put_back_for_its_own_rotation_only() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.disk.state().is_stateless = true;
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    let unknown = Token::parse("glrtr-by-a-person").unwrap();
    fixture.disk.state().entries[0].token = EntryToken::Literal(unknown.clone());
    assert!(fixture.ops.verify(&mut runner, &later(3600)).await.unwrap().is_disputed);
    assert_eq!(fixture.disk.tokens(), [unknown]);
}

#[tokio::test]
async fn a_token_of_another_runner_is_taken_over_if_ours_is_dead_and_never_deletes_that_runner() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let (other, credential) = fixture.server.add_runner();
    fixture.server.remove_runner(runner.record.id.unwrap());
    fixture.disk.state().entries[0].token = EntryToken::Literal(credential.token.clone());
    fixture.ops.verify(&mut runner, &later(0)).await.unwrap_err();
    assert!(matches!(fixture.ops.verify(&mut runner, &dead_later(61)).await.unwrap().outcome, Outcome::Adopted(_)));
    assert_eq!((runner.record.id, runner.record.origin), (Some(other), Origin::Given));
    let fate = EntryFate::at_shutdown(&runner.record, Deletion::Manager);
    let request = UnregisterRequest { deletion: Deletion::Manager, ..asked(fate) };
    fixture.ops.unregister(&mut runner, request, &inquiry()).await.unwrap();
    assert!(fixture.server.runners().contains_key(&other.number()));
    assert_eq!(fixture.disk.tokens(), [credential.token]);
}

#[tokio::test]
async fn a_former_token_brings_back_the_runner_that_it_belonged_to_with_its_origin() {
    for is_odd in [false, true] {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        let (other, credential) = fixture.server.add_runner();
        fixture.server.remove_runner(runner.record.id.unwrap());
        fixture.disk.state().entries[0].token = EntryToken::Literal(credential.token.clone());
        fixture.ops.verify(&mut runner, &later(0)).await.unwrap_err();
        fixture.ops.verify(&mut runner, &dead_later(61)).await.unwrap();
        if is_odd {
            fixture.server.inject("register", Fault::OddAnswer);
            fixture.server.inject("verify", Fault::Fail(Disposition::Refused));
        }
        let enrollment = enrollment(registration_token());
        let registered = fixture.ops.register_again(&enrollment, &mut runner, &later(70)).await;
        assert_eq!(registered.is_err(), is_odd);
        if is_odd {
            assert_eq!((runner.record.id, runner.record.origin), (Some(other), Origin::Given));
            fixture.ops.verify(&mut runner, &later(140)).await.unwrap();
        }
        assert_eq!(runner.record.origin, Origin::Registered, "{is_odd}");
        fixture.server.remove_runner(runner.record.id.unwrap());
        fixture.ops.verify(&mut runner, &dead_later(200)).await.unwrap();
        assert_eq!((runner.record.id, runner.record.origin), (Some(other), Origin::Given), "{is_odd}");
    }
}

#[tokio::test]
async fn a_runner_that_goes_on_with_the_token_of_another_record_is_its_twin() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let (other, credential) = fixture.server.add_runner();
    let mut record = blank().record;
    record.key = RunnerKey::enrollment("other").unwrap();
    (record.id, record.confirmed_id, record.credential) = (Some(other), Some(other), Some(credential.clone()));
    fixture.disk.state().records.insert(record.key.clone(), record.clone());
    fixture.server.remove_runner(runner.record.id.unwrap());
    fixture.disk.state().entries[0].token = EntryToken::Literal(credential.token.clone());
    fixture.ops.verify(&mut runner, &later(0)).await.unwrap_err();
    fixture.ops.verify(&mut runner, &dead_later(61)).await.unwrap();
    assert_eq!(runner.record.credential.as_ref().map(|it| &it.token), Some(&credential.token));
    assert_eq!(runner.twin_of, Some(record.key));
}

#[tokio::test]
async fn the_token_of_a_runners_other_record_is_followed_once_the_own_one_is_dead() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    // Another process has made a record of its own for it, and replaces the token while that has no entry.
    let mut record = Record { key: RunnerKey::enrollment("other").unwrap(), enrollment: None, ..runner.record.clone() };
    let new = Credential { token: Token::parse("glrtr-new").unwrap(), ..record.credential.clone().unwrap() };
    record.credential = Some(new.clone());
    record.add_former_token(runner.digest().unwrap());
    fixture.disk.state().records.insert(record.key.clone(), record.clone());
    fixture.server.restore(runner.record.id.unwrap(), &new);
    fixture.ops.verify(&mut runner, &later(0)).await.unwrap_err();
    let verified = fixture.ops.verify(&mut runner, &dead_later(61)).await.unwrap();
    assert!(matches!(verified.outcome, Outcome::Adopted(_)));
    assert_eq!((runner.token().unwrap(), fixture.disk.tokens()), (new.token.clone(), vec![new.token]));
    assert_eq!(runner.twin_of, Some(record.key), "the two do not reset it in turn");
}

#[tokio::test]
async fn a_reset_waits_for_the_lost_answer_of_another_record() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let mut other = runner.clone();
    other.record.key = RunnerKey::enrollment("other").unwrap();
    fixture.disk.state().records.insert(other.record.key.clone(), other.record.clone());
    fixture.server.inject("reset", Fault::Fail(UNKNOWN));
    fixture.ops.rotate(&mut other, None, &inquiry()).await.unwrap_err();
    let waiting = fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap_err();
    assert!(matches!(waiting, Error::Disk(store::Error::Unsettled { key }) if key == other.record.key));
    assert_eq!(fixture.server.calls(), ["probe", "register", "reset"]);
    let pressing = Inquiry { is_pressing: true, ..inquiry() };
    let waiting = fixture.ops.rotate(&mut runner, None, &pressing).await.unwrap_err();
    assert!(matches!(waiting, Error::Disk(store::Error::Unsettled { .. })), "its worker asks within seconds");
    // That worker may be gone for good.
    fixture.disk.state().journal.get_mut(&other.record.key).unwrap().intent.at = now().minus(Duration::from_secs(60));
    assert!(matches!(fixture.ops.rotate(&mut runner, None, &pressing).await.unwrap().outcome, Outcome::Rotated(_)));
}

#[tokio::test]
async fn a_token_in_an_odd_answer_is_kept_and_counts_once_it_is_accepted() {
    for is_lagging in [false, true] {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        fixture.server.inject("reset", Fault::OddAnswer);
        if is_lagging {
            fixture.server.inject("verify", Fault::Fail(Disposition::Refused));
        }
        let rotated = fixture.ops.rotate(&mut runner, None, &inquiry()).await;
        assert_eq!(rotated.is_err(), is_lagging);
        if is_lagging {
            assert!(matches!(rotated, Err(Error::Unproven { .. })));
            fixture.assert_nothing_lost("in an odd answer");
            let replayed = fixture.ops.replay(now()).await.unwrap();
            assert_eq!(replayed.unfinished, [(runner.record.key.clone(), Unfinished::LostReset)]);
            let done = fixture.ops.verify(&mut runner, &later(60)).await.unwrap();
            assert!(matches!(done.outcome, Outcome::Adopted(_)));
        }
        let (_, served) = fixture.server.runners().into_iter().next().unwrap();
        assert_eq!(fixture.disk.tokens(), [served.token]);
    }
}

#[tokio::test]
async fn no_failing_write_loses_a_candidate_that_becomes_the_current_token() {
    for nth in 0..8 {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        let former = runner.record.credential.clone().unwrap();
        fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
        fixture.server.restore(runner.record.id.unwrap(), &former);
        fixture.disk.state().writes_left = Some(nth);
        let _cut = fixture.ops.verify(&mut runner, &dead_later(61)).await;
        fixture.assert_nothing_lost(&format!("after {nth} writes"));
    }
}

#[tokio::test]
async fn a_date_that_contradicts_a_token_removes_no_candidate() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let former = runner.record.credential.clone().unwrap();
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    let later = now().plus(Duration::from_secs(40 * 86_400));
    runner.outlive_candidates(later, later);
    assert!(runner.held.candidates.iter().any(|candidate| candidate.token == former.token));
}

#[tokio::test]
async fn a_date_that_was_not_believed_before_a_restart_is_not_believed_after_it() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    runner.record.belief = Some(Belief { witness: Witness::Local, ahead_millis: -86_400_000 });
    let (restarted, runner) = fixture.elsewhere(&runner);
    assert!(restarted.distrusts(&runner));
    assert_eq!(restarted.trusted(&runner, Some(now())), None);
}

#[tokio::test]
async fn neither_a_date_nor_this_machines_clock_alone_ends_a_candidate() {
    let day = Duration::from_secs(86_400);
    let (early, late) = (now().plus(day), now().plus(day * 400));
    // A clock from before the time at which the candidate was noted tells nothing.
    let unset = Timestamp::from_millis(0);
    let bounded = Expiry::At(late.plus(day));
    for (expiry, accepted_at, local, is_kept) in [
        (Expiry::Never, late, early, true),
        (Expiry::Never, early, late, true),
        (Expiry::Never, early, unset, true),
        (Expiry::Never, late, late, false),
        (Expiry::Never, late, unset, true),
        (bounded, late, unset, false),
    ] {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
        runner.record.credential.as_mut().unwrap().expiry = expiry;
        runner.outlive_candidates(accepted_at, local);
        assert_eq!(!runner.held.candidates.is_empty(), is_kept, "{expiry:?} {accepted_at} {local}");
    }
}

#[tokio::test]
async fn tokens_of_another_runner_beside_a_second_record_are_not_asked_about() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let own = runner.record.id;
    let mut second = runner.record.clone();
    second.key = RunnerKey::enrollment("second").unwrap();
    let of = |text: &str, id: Option<RunnerId>| Candidate {
        token: Token::parse(text).unwrap(),
        source: CandidateSource::Former,
        noted_at: now(),
        obtained_at: None,
        expiry: Expiry::Never,
        id,
        origin: None,
        refused: None,
    };
    let candidates = vec![
        of("glrt-of-this-runner", own),
        of("glrt-of-the-former", RunnerId::try_new(4711).ok()),
        of("glrt-of-unknown-one", None),
    ];
    let held = Held { candidates, ..Held::default() };
    fixture.disk.state().held.insert(second.key.clone(), held);
    fixture.ops.note_record(&mut runner, second).await;
    let noted: Vec<_> = runner.held.candidates.iter().map(|candidate| candidate.token.expose().to_owned()).collect();
    assert_eq!(noted, ["glrt-of-this-runner", "glrt-of-unknown-one"]);
}

#[tokio::test]
async fn a_token_that_a_gateway_invents_replaces_nothing() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let ours = fixture.disk.tokens();
    fixture.server.inject("reset", Fault::InventedToken);
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap_err();
    let verified = fixture.ops.verify(&mut runner, &later(60)).await.unwrap();
    assert!(matches!(verified.outcome, Outcome::Accepted(_)));
    assert_eq!(fixture.disk.tokens(), ours);
}

#[tokio::test]
async fn a_registration_with_an_odd_answer_is_kept_and_not_repeated() {
    let fixture = OpsFixture::new();
    let mut runner = blank();
    fixture.server.inject("register", Fault::OddAnswer);
    fixture.server.inject("verify", Fault::Fail(Disposition::Refused));
    let error = fixture.ops.register(&enrollment(registration_token()), &mut runner, &inquiry()).await.unwrap_err();
    assert!(matches!(error, Error::Unproven { .. }));
    fixture.assert_nothing_lost("in an odd answer");
    let done = fixture.ops.verify(&mut runner, &later(60)).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Adopted(_)));
    let (_, served) = fixture.server.runners().into_iter().next().unwrap();
    assert_eq!(fixture.disk.tokens(), [served.token]);
    assert_eq!(fixture.server.calls(), ["probe", "register", "verify", "verify"]);
}

#[tokio::test(start_paused = true)]
async fn the_refusal_of_a_token_in_an_odd_answer_tells_the_servers_time() {
    let fixture = OpsFixture::new();
    let mut runner = blank();
    fixture.server.inject("register", Fault::InventedToken);
    let enrollment = enrollment(registration_token());
    let unproven = fixture.ops.register(&enrollment, &mut runner, &inquiry()).await.unwrap_err();
    let verified = fixture.ops.verify(&mut runner, &later(2)).await.unwrap();
    let awaiting = fixture.ops.register(&enrollment, &mut runner, &later(4)).await.unwrap_err();
    assert!(matches!(awaiting, Error::AwaitsToken { .. }), "{awaiting}");
    assert_eq!([unproven.date(), verified.date, awaiting.date()], [Some(now()); 3]);
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.server.inject("reset", Fault::InventedToken);
    let rotated = fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap_err();
    assert_eq!(rotated.date(), Some(now()));
}

#[tokio::test]
async fn a_recovery_by_id_is_remembered_by_a_replay() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let access_token = AccessToken { token: Token::parse("glpat-access").unwrap(), tls: TlsFiles::default() };
    fixture.disk.fail("edit", 1);
    fixture.disk.fail("record", 1);
    fixture.ops.rotate(&mut runner, Some(&access_token), &inquiry()).await.unwrap();
    assert_eq!(fixture.ops.replay(now()).await.unwrap().finished, 1);
    let record = fixture.disk.state().records[&runner.record.key].clone();
    assert_eq!(record.recovered, record.credential.map(|credential| credential.token.fingerprint()));
}

#[tokio::test]
async fn a_late_verification_does_not_bring_back_the_record_of_an_unregistered_runner() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    runner.record.enrollment = None;
    fixture.disk.state().records.get_mut(&runner.record.key).unwrap().enrollment = None;
    let mut late = runner.clone();
    fixture.ops.unregister(&mut runner, asked(EntryFate::Drop), &inquiry()).await.unwrap();
    let error = fixture.ops.verify(&mut late, &inquiry()).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Released);
    assert!(fixture.disk.state().records.is_empty());
}

#[tokio::test]
async fn an_entry_is_dropped_only_with_the_token_that_was_refused() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let dead = runner.digest().unwrap();
    let newer = Token::parse("glrtr-newer").unwrap();
    fixture.disk.state().entries[0].token = EntryToken::Literal(newer.clone());
    assert!(matches!(fixture.ops.drop_entry(&mut runner, dead, now()).await, Err(Error::Replaced(_))));
    fixture.ops.rotate(&mut runner, None, &later(1)).await.unwrap();
    assert!(matches!(fixture.ops.drop_entry(&mut runner, dead, now()).await, Err(Error::Replaced(_))));
    assert_eq!(fixture.disk.tokens(), [newer]);
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
    fixture.ops.register(&enrollment(registration_token()), &mut runner, &inquiry()).await.unwrap();
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
    fixture.ops.register(&enrollment, &mut runner, &inquiry()).await.unwrap();
    assert_eq!(fixture.server.calls(), ["verify"]);
    let fate = EntryFate::at_shutdown(&runner.record, Deletion::Manager);
    let request = UnregisterRequest { deletion: Deletion::Manager, ..asked(fate) };
    fixture.ops.unregister(&mut runner, request, &inquiry()).await.unwrap();
    let (_, served) = fixture.server.runners().into_iter().next().unwrap();
    assert!(served.managers.is_empty());
    assert_eq!(fixture.disk.tokens().len(), 1);
}

#[tokio::test]
async fn one_answer_does_not_prove_that_a_server_has_no_managers() {
    let fixture = OpsFixture::new();
    let (_, credential) = fixture.server.add_runner();
    let mut enrollment = enrollment(credential.token.clone());
    enrollment.source =
        RegistrationSource::Given(Source::Value { token: credential.token, origin: "a test".to_owned() });
    let mut runner = blank();
    fixture.ops.register(&enrollment, &mut runner, &inquiry()).await.unwrap();
    let request = UnregisterRequest { deletion: Deletion::Manager, ..asked(EntryFate::Drop) };
    for is_sent in [false, true] {
        fixture.server.inject("delete_manager", Fault::Fail(Disposition::Unsupported));
        let request = UnregisterRequest { is_sent, ..request };
        let done = fixture.ops.unregister(&mut runner, request, &inquiry()).await;
        if is_sent {
            assert_eq!(done.unwrap().found, Unregistration::AlreadyGone);
        } else {
            assert_eq!(done.unwrap_err().outcome(), Outcome::NotUnregistered(Settling::AskThenRepeat));
        }
        assert_eq!(fixture.disk.tokens().is_empty(), is_sent);
        assert_eq!(fixture.disk.state().journal.is_empty(), is_sent, "it asks first");
    }
}

#[tokio::test]
async fn a_refused_deletion_proves_that_a_runner_is_gone_only_if_its_token_is_dead() {
    for (is_expired, expected) in [(false, Unregistration::AlreadyGone), (true, Unregistration::MayRemain)] {
        for fault in [Disposition::Refused, Disposition::Gone] {
            let fixture = OpsFixture::new();
            let mut runner = fixture.registered().await;
            if is_expired {
                runner.record.credential.as_mut().unwrap().expiry = Expiry::At(now().minus(Duration::from_secs(60)));
                fixture.disk.state().records.insert(runner.record.key.clone(), runner.record.clone());
            }
            fixture.server.inject("delete_runner", Fault::Fail(fault));
            let fate = asked(EntryFate::KeepText);
            let error = fixture.ops.unregister(&mut runner, fate, &inquiry()).await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::NotUnregistered(Settling::Ask), "{fault:?}");
            assert_eq!(fixture.disk.tokens().len(), 1, "entry and record stay");
            fixture.server.inject("delete_runner", Fault::Fail(Disposition::Refused));
            let done = fixture.ops.unregister(&mut runner, fate, &dead_later(60)).await.unwrap();
            assert_eq!(done.found, expected);
        }
    }
}

#[tokio::test]
async fn a_lost_unregistration_of_a_command_leaves_nothing_that_acts_later() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.server.inject("delete_runner", Fault::Fail(UNKNOWN));
    let error = fixture.ops.unregister(&mut runner, asked(EntryFate::Drop), &inquiry()).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotUnregistered(Settling::Ask));
    assert!(!fixture.disk.state().journal.is_empty(), "it is still asking");
    fixture.ops.call_off_unregistration(&mut runner).await.unwrap();
    assert_eq!(fixture.ops.replay(now()).await.unwrap().unfinished, []);
    assert_eq!((fixture.disk.tokens().len(), fixture.server.runners().len()), (1, 1));
}

#[tokio::test]
async fn a_lost_unregistration_of_a_stop_is_settled_by_asking() {
    for is_executed in [false, true] {
        let fixture = OpsFixture::new();
        let mut runner = fixture.registered().await;
        fixture.server.inject("delete_runner", if is_executed { Fault::LoseAnswer } else { Fault::Fail(UNKNOWN) });
        let request = UnregisterRequest { asked_by: AskedBy::Daemon, ..asked(EntryFate::KeepText) };
        fixture.ops.unregister(&mut runner, request, &inquiry()).await.unwrap_err();
        let replayed = fixture.ops.replay(now()).await.unwrap();
        assert_eq!(replayed.unfinished, [(runner.record.key.clone(), Unfinished::Unregistration)]);
        assert_eq!(fixture.ops.verify(&mut runner, &later(60)).await.is_err(), is_executed);
        if is_executed {
            assert!(fixture.ops.conclude_unregistration(&mut runner, &later(60)).await.unwrap().is_some());
        } else {
            fixture.ops.clear_unregistration(&mut runner).await.unwrap();
        }
        assert_eq!(fixture.disk.tokens().len(), usize::from(!is_executed));
        assert!(fixture.disk.state().journal.is_empty());
        let deletions = fixture.server.calls().iter().filter(|call| **call == "delete_runner").count();
        assert_eq!(deletions, 1, "it is not repeated by itself");
    }
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
    assert_eq!(fixture.server.calls(), ["probe", "register", "delete_runner"]);
}

#[tokio::test]
async fn a_replay_removes_the_entry_of_a_given_runner_as_it_was_asked_for() {
    for (fate, left) in [(EntryFate::Drop, 0), (EntryFate::Keep, 1)] {
        let fixture = OpsFixture::new();
        let (_, credential) = fixture.server.add_runner();
        let mut enrollment = enrollment(credential.token.clone());
        enrollment.source =
            RegistrationSource::Given(Source::Value { token: credential.token, origin: "a test".to_owned() });
        let mut runner = blank();
        runner.record.enrollment = None;
        fixture.ops.register(&enrollment, &mut runner, &inquiry()).await.unwrap();
        // The server deletes the manager, and then the entry cannot be removed.
        fixture.disk.fail("edit", 1);
        fixture.disk.fail("keep_dropped", 1);
        let request = UnregisterRequest { deletion: Deletion::Manager, ..asked(fate) };
        let done = fixture.ops.unregister(&mut runner, request, &inquiry()).await;
        assert_eq!(done.is_err(), fate == EntryFate::Drop);
        fixture.disk.fail("edit", 0);
        fixture.ops.replay(now()).await.unwrap();
        assert_eq!(fixture.disk.tokens().len(), left, "{fate:?}");
        assert!(fixture.disk.state().journal.is_empty());
        // Nothing was asked that would bring the manager back.
        assert_eq!(fixture.server.calls(), ["verify", "delete_manager"]);
    }
}

#[tokio::test]
async fn a_given_token_makes_a_registered_runner_a_given_one() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let (id, credential) = fixture.server.add_runner();
    let mut enrollment = enrollment(credential.token.clone());
    enrollment.source =
        RegistrationSource::Given(Source::Value { token: credential.token, origin: "a test".to_owned() });
    fixture.ops.adopt_given_token(&[], &enrollment, &mut runner, &inquiry()).await.unwrap().unwrap();
    assert_eq!((runner.record.id, runner.record.origin), (Some(id), Origin::Given), "never deleted as a whole");
}

/// When the tokens in config.toml were issued, and when they expire.
fn entry_times(fixture: &OpsFixture) -> Vec<(Option<Timestamp>, Expiry)> {
    fixture.disk.state().entries.iter().map(|entry| (entry.obtained_at, entry.expiry)).collect()
}

#[tokio::test]
async fn an_adopted_given_token_brings_its_own_times_into_the_entry() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let expired = Expiry::At(now().minus(Duration::from_secs(60)));
    fixture.disk.state().entries[0].expiry = expired;
    fixture.disk.state().entries[0].obtained_at = Some(now().minus(Duration::from_secs(86_400)));
    let (_, credential) = fixture.server.add_runner();
    let mut enrollment = enrollment(credential.token.clone());
    enrollment.source =
        RegistrationSource::Given(Source::Value { token: credential.token.clone(), origin: "a test".to_owned() });
    fixture.ops.adopt_given_token(&[], &enrollment, &mut runner, &inquiry()).await.unwrap().unwrap();
    assert_eq!(entry_times(&fixture), [(Some(now()), credential.expiry)]);
}

#[tokio::test]
async fn a_verification_corrects_times_that_an_entry_has_from_another_token() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let own = entry_times(&fixture);
    for (stale, is_corrected) in [
        (Expiry::Never, true),
        (Expiry::At(now().minus(Duration::from_secs(60))), true),
        // As gitlab-runner writes none for a GitLab that names none.
        (Expiry::Unknown, false),
    ] {
        fixture.disk.state().entries[0].expiry = stale;
        fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
        assert_eq!(entry_times(&fixture) == own, is_corrected, "{stale:?}");
    }
}

#[tokio::test]
async fn a_token_that_a_person_wrote_into_an_entry_gets_its_own_times_there() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let (other, mut elsewhere) = fixture.elsewhere(&runner);
    other.rotate(&mut elsewhere, None, &inquiry()).await.unwrap();
    let credential = elsewhere.record.credential.unwrap();
    {
        let mut state = fixture.disk.state();
        state.entries[0].token = EntryToken::Literal(credential.token.clone());
        state.entries[0].expiry = Expiry::At(now().minus(Duration::from_secs(60)));
    }
    fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    assert_eq!(entry_times(&fixture)[0].1, credential.expiry);
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
    runner.record.confirmed_id = Some(id);
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
    let done = fixture.ops.register_again(&enrollment(registration_token()), &mut runner, &inquiry()).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Registered(_)) && done.unsaved.is_none());
    assert_ne!(runner.record.id, old.id);
    let state = fixture.disk.state();
    assert_eq!(
        state.effects,
        ["probe", "record", "begin", "answered", "held", "record", "edit", "edit", "record", "clear"]
    );
    assert_eq!(state.entries.len(), 1);
    assert_eq!(state.entries[0].id, runner.record.id);
    assert_eq!(state.entries[0].token.token(), runner.record.credential.as_ref().map(|credential| &credential.token));
}

#[tokio::test]
async fn a_replay_of_registering_again_reuses_the_entry() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.disk.fail("edit", 1);
    let done = fixture.ops.register_again(&enrollment(registration_token()), &mut runner, &inquiry()).await.unwrap();
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
    fixture.ops.register_again(&enrollment(wrong), &mut runner, &inquiry()).await.unwrap_err();
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
    let disk = fixture.disk.clone();
    let (other, mut theirs) = fixture.elsewhere(&runner);
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
async fn nothing_is_written_beside_an_unknown_token_that_is_not_proven_dead() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let mut other = fixture.disk.state().entries[0].clone();
    (other.position, other.token) = (1, EntryToken::Literal(Token::parse("glrtr-unknown").unwrap()));
    // Another record of the runner has written its own times.
    fixture.disk.state().entries[0].obtained_at = None;
    fixture.disk.state().entries.push(other);
    let verified = fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    assert!(verified.is_disputed);
    assert!(!fixture.disk.state().effects.contains(&"edit"), "{:?}", fixture.disk.state().effects);
}

#[tokio::test]
async fn a_runner_keeps_the_tokens_of_its_other_record_once_the_server_has_named_it() {
    let fixture = OpsFixture::new();
    let registered = fixture.registered().await;
    let former = registered.record.credential.clone().unwrap().token;
    // Its entry has lost its id and got a new token, and is served as another runner.
    let mut rotated = registered.clone();
    fixture.ops.rotate(&mut rotated, None, &inquiry()).await.unwrap();
    fixture.disk.state().records.insert(registered.record.key.clone(), registered.record.clone());
    fixture.disk.state().held.clear();
    fixture.disk.state().entries[0].id = None;
    let entry = fixture.disk.state().entries[0].clone();
    let mut found = Runner::found(&entry).unwrap();
    fixture.ops.verify(&mut found, &later(60)).await.unwrap();
    assert!(found.held.candidates.iter().any(|candidate| candidate.token == former));
}

#[tokio::test]
async fn unregister_adopts_an_unknown_token_first() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let (other, mut theirs) = fixture.elsewhere(&runner);
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
    assert_eq!(fixture.server.calls(), ["probe", "register", "reset"]);
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
    assert_eq!(fixture.server.calls(), ["probe", "register", "reset"]);
}

#[tokio::test]
async fn a_token_is_never_sent_to_another_server() {
    let fixture = OpsFixture::new();
    let runner = fixture.registered().await;
    let site = Site { url: "https://elsewhere.example.com".parse().unwrap(), tls: TlsFiles::default() };
    let mut moved = Runner::blank(runner.record.key.clone(), Origin::Registered, site);
    assert!(matches!(fixture.ops.verify(&mut moved, &inquiry()).await, Err(Error::OtherServer { .. })));
    assert_eq!(fixture.server.calls(), ["probe", "register"]);
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

/// A runner of config.toml on a machine without a state directory.
async fn stateless() -> (OpsFixture, Runner) {
    let fixture = OpsFixture::new();
    fixture.disk.state().is_stateless = true;
    let (id, credential) = fixture.server.add_runner();
    fixture.disk.add_entry("found", Some(id), &credential);
    let snapshot = fixture.disk.read().await.unwrap();
    let runner = Runner::found(&snapshot.entries[0]).unwrap();
    (fixture, runner)
}

/// How many tokens would be lost with the process, while a rotation waits.
async fn exposed_in(fixture: &OpsFixture, runner: &mut Runner) -> usize {
    let inquiry = inquiry();
    let mut rotation = std::pin::pin!(fixture.ops.rotate(runner, None, &inquiry));
    assert!(tokio::time::timeout(Duration::from_secs(10), &mut rotation).await.is_err(), "it waits");
    fixture.ops.sole_copies().exposed()
}

#[tokio::test(start_paused = true)]
async fn a_token_counts_as_exposed_from_its_request_until_it_is_on_the_disk() {
    for (is_stateless, stuck_at, expected) in
        [(false, "begin", 0), (false, "answered", 1), (false, "edit", 0), (true, "edit", 1)]
    {
        let (fixture, mut runner) = stateless().await;
        fixture.disk.state().is_stateless = is_stateless;
        fixture.disk.state().stuck_at = Some(stuck_at);
        assert_eq!(exposed_in(&fixture, &mut runner).await, expected, "{stuck_at} {is_stateless}");
        // Without a state directory the runner goes on holding it.
        assert_eq!(fixture.ops.sole_copies().exposed(), usize::from(is_stateless));
    }
    let (fixture, mut runner) = stateless().await;
    fixture.disk.state().is_stateless = false;
    fixture.server.inject_always("reset", Some(Fault::AnswerAfter(Duration::from_secs(20))));
    assert_eq!(exposed_in(&fixture, &mut runner).await, 1, "the answer is on its way");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_written_stays_exposed_until_it_is() {
    let (fixture, mut runner) = stateless().await;
    fixture.disk.fail("edit", 1);
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    assert_eq!(fixture.ops.sole_copies().exposed(), 1);
    fixture.ops.save(&mut runner).await.unwrap();
    assert_eq!(fixture.ops.sole_copies().exposed(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_state_directory_an_entry_that_vanishes_during_a_reset_comes_back_with_the_new_token() {
    for failing in [0, 1, 3] {
        let (fixture, mut runner) = stateless().await;
        fixture.server.inject_always("reset", Some(Fault::AnswerAfter(Duration::from_secs(5))));
        let vanishing = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            fixture.disk.state().entries.clear();
            fixture.disk.fail("edit", failing);
        };
        let inquiry = inquiry();
        let (rotated, ()) = tokio::join!(fixture.ops.rotate(&mut runner, None, &inquiry), vanishing);
        let rotated = rotated.unwrap();
        assert!(matches!(rotated.outcome, Outcome::Rotated(_)));
        assert_eq!(rotated.unsaved.is_some(), failing > 0, "a token that is nowhere is no success");
        let mut tries = 0;
        while fixture.disk.tokens().is_empty() && tries < 10 {
            let saved = fixture.ops.save(&mut runner).await;
            assert_eq!(saved.is_ok(), !fixture.disk.tokens().is_empty());
            tries += 1;
        }
        let (_, served) = fixture.server.runners().into_iter().next().unwrap();
        assert_eq!(fixture.disk.tokens(), [served.token], "after {failing} failures");
    }
}

#[tokio::test]
async fn without_a_state_directory_no_token_is_spent_for_an_entry_that_is_gone() {
    let (fixture, mut runner) = stateless().await;
    fixture.disk.state().entries.clear();
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap_err();
    assert!(fixture.server.calls().is_empty(), "{:?}", fixture.server.calls());
}

#[tokio::test(start_paused = true)]
async fn request_that_takes_long_keeps_no_version_of_config_toml() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let (other, credential) = fixture.server.add_runner();
    for call in ["verify", "reset"] {
        fixture.server.inject_always(call, Some(Fault::AnswerAfter(Duration::from_secs(10))));
        let inquiry = inquiry();
        let work = async {
            match call {
                "verify" => fixture.ops.verify(&mut runner, &inquiry).await,
                _ => fixture.ops.rotate(&mut runner, None, &inquiry).await,
            }
        };
        tokio::pin!(work);
        assert!(tokio::time::timeout(Duration::from_secs(5), &mut work).await.is_err(), "{call} is answered later");
        fixture.disk.add_entry(call, Some(other), &credential);
        let newest = fixture.ops.disk().read().await.unwrap();
        let kept = fixture.disk.state().versions.iter().filter_map(std::sync::Weak::upgrade).collect::<Vec<_>>();
        assert!(kept.iter().all(|version| std::sync::Arc::ptr_eq(version, &newest)), "{call}: {}", kept.len());
        work.await.unwrap();
        fixture.server.inject_always(call, None);
    }
}

#[tokio::test(start_paused = true)]
async fn twins_take_their_locks_in_turn() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    runner.twin_of = Some(RunnerKey::enrollment("twin").unwrap());
    let mut held = Vec::new();
    for _ in 0..super::places::turns_for(crate::gitlab::IN_FLIGHT_PER_HOST) {
        held.push(fixture.ops.lock_twin(&runner).await.unwrap());
    }
    let next = fixture.ops.lock_twin(&runner);
    assert!(tokio::time::timeout(Duration::from_secs(60), next).await.is_err(), "no further lock is open");
    // They wait for no place among each other.
    fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
    held.pop();
    assert!(fixture.ops.lock_twin(&runner).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn rotation_after_a_verification_of_another_process_replaces_the_token() {
    let fixture = OpsFixture::new();
    let mut found = fixture.registered().await;
    found.record.credential.as_mut().unwrap().expiry = Expiry::Unknown;
    let rotated = fixture.ops.rotate(&mut found, None, &inquiry()).await.unwrap();
    assert!(matches!(rotated.outcome, Outcome::Rotated(_)), "{:?}", rotated.outcome);
}

#[tokio::test(start_paused = true)]
async fn verification_that_waits_for_the_disk_leaves_the_server_to_others() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let mut others = Vec::new();
    for _ in 1..crate::gitlab::IN_FLIGHT_PER_HOST {
        others.push(fixture.ops.place(&runner.site).await);
    }
    fixture.disk.state().stuck_at = Some("record");
    let mut next = runner.clone();
    let inquiry = inquiry();
    let both =
        async { tokio::join!(fixture.ops.verify(&mut runner, &inquiry), fixture.ops.verify(&mut next, &inquiry)) };
    assert!(tokio::time::timeout(Duration::from_secs(60), both).await.is_err(), "the disk is stuck");
    assert_eq!(fixture.server.calls().iter().filter(|call| **call == "verify").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn server_that_answers_others_is_not_kept_waiting_for_the_disk() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let mut others = Vec::new();
    for _ in 0..crate::gitlab::IN_FLIGHT_PER_HOST {
        others.push(fixture.ops.place(&runner.site).await);
    }
    let inquiry = inquiry();
    let mut verification = std::pin::pin!(fixture.ops.verify(&mut runner, &inquiry));
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut verification).await.is_err(), "there is no place");
    fixture.disk.state().stuck_at = Some("read");
    others.pop();
    let waited = tokio::time::timeout(Duration::from_millis(1), &mut verification).await;
    assert!(waited.is_ok_and(|verified| verified.is_ok()), "it was read before it got a place");
}

#[tokio::test(start_paused = true)]
async fn runner_that_waits_long_for_a_place_is_read_again() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let mut others = Vec::new();
    for _ in 0..crate::gitlab::IN_FLIGHT_PER_HOST {
        others.push(fixture.ops.place(&runner.site).await);
    }
    let (inquiry, key) = (inquiry(), runner.record.key.clone());
    let mut verification = std::pin::pin!(fixture.ops.verify(&mut runner, &inquiry));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut verification).await.is_err(), "there is no place");
    fixture.disk.state().records.remove(&key);
    others.pop();
    assert!(matches!(verification.await, Err(Error::UnregisteredElsewhere(_))));
}

#[tokio::test(start_paused = true)]
async fn candidates_that_were_left_on_the_disk_are_neither_forgotten_nor_written_over() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    let known = runner.held.candidates.clone();
    assert!(!known.is_empty(), "the former token is kept");
    runner.rest();
    assert!(runner.held.candidates.is_empty());
    let mut writing = runner.clone();
    fixture.ops.recall_candidates(&mut runner).await;
    assert_eq!(runner.held.candidates, known);

    // Without a look at the disk before.
    let found = Candidate { token: Token::parse("glrt-found").unwrap(), ..known[0].clone() };
    writing.note_candidate(found.clone());
    fixture.ops.save_held(&mut writing).await.unwrap();
    let stored = fixture.disk.state().held[&runner.record.key].candidates.clone();
    assert_eq!(stored, [&known[..], std::slice::from_ref(&found)].concat(), "the newest is the last");

    // Noted before the look at the disk.
    let noted = Candidate { token: Token::parse("glrt-noted").unwrap(), ..found.clone() };
    writing.rest();
    writing.note_candidate(noted.clone());
    fixture.ops.recall_candidates(&mut writing).await;
    assert_eq!(writing.held.candidates, [stored, vec![noted]].concat());

    // What is not written yet stays in memory.
    writing.note_candidate(Candidate { token: Token::parse("glrt-new").unwrap(), ..found });
    writing.rest();
    assert!(!writing.held.candidates.is_empty());
}

#[tokio::test(start_paused = true)]
async fn runner_at_rest_still_knows_its_entry_by_a_token_that_its_record_no_longer_lists() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    let first = runner.record.credential.clone().unwrap().token;
    for _ in 0..20 {
        fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    }
    assert!(!runner.record.former_digests.contains(&first.digest()));
    let before = runner.target();
    assert!(before.digests.contains(&first.digest()));
    runner.rest();
    assert!(runner.held.candidates.is_empty());
    let sorted = |mut target: store::EntrySelector| {
        target.digests.sort();
        target.digests.dedup();
        target.digests
    };
    assert_eq!(sorted(runner.target()), sorted(before));
}

#[tokio::test(start_paused = true)]
async fn further_tokens_that_cannot_be_read_are_not_written_over() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap();
    let key = runner.record.key.clone();
    let known = runner.held.candidates.clone();
    let mut restarted = Runner::recorded(runner.record.clone(), runner.site.clone());
    fixture.disk.fail("read held", 2);
    fixture.ops.load_held(&mut restarted).await;
    let found = Candidate { token: Token::parse("glrt-found").unwrap(), ..known[0].clone() };
    restarted.note_candidate(found.clone());
    fixture.ops.save_held(&mut restarted).await.unwrap_err();
    assert_eq!(fixture.disk.state().held[&key].candidates, known);
    fixture.ops.save_held(&mut restarted).await.unwrap();
    assert_eq!(fixture.disk.state().held[&key].candidates, [known, vec![found]].concat());
}

/// An enrollment with a given token.
fn given(name: &str, token: &Token) -> Enrollment {
    Enrollment {
        key: RunnerKey::enrollment(name).unwrap(),
        source: RegistrationSource::Given(Source::Value { token: token.clone(), origin: "a test".to_owned() }),
        ..enrollment(registration_token())
    }
}

impl OpsFixture {
    /// The runners of two enrollments with given tokens.
    async fn enrolled_with(&self, tokens: [&Token; 2]) -> Vec<Runner> {
        let mut runners = Vec::new();
        for (name, token) in ["first", "second"].into_iter().zip(tokens) {
            let enrollment = given(name, token);
            let mut runner = Runner::blank(enrollment.key.clone(), enrollment.source.origin(), enrollment.site.clone());
            runner.record.enrollment = Some(name.to_owned());
            self.ops.register(&enrollment, &mut runner, &inquiry()).await.unwrap();
            runners.push(runner);
        }
        runners
    }
}

#[tokio::test(start_paused = true)]
async fn given_tokens_that_are_swapped_between_two_enrollments_are_both_adopted() {
    for order in [[0, 1], [1, 0]] {
        let fixture = OpsFixture::new();
        let tokens = [(); 2].map(|()| fixture.server.add_runner().1.token);
        let mut runners = fixture.enrolled_with([&tokens[0], &tokens[1]]).await;
        let swapped = [given("first", &tokens[1]), given("second", &tokens[0])];
        for at in order {
            let (enrollment, runner) = (&swapped[at], &mut runners[at]);
            let adopted = fixture.ops.adopt_given_token(&swapped, enrollment, runner, &inquiry()).await.unwrap();
            assert!(adopted.is_some(), "{order:?}: enrollment {at}");
        }
        assert_eq!([runners[0].token().unwrap(), runners[1].token().unwrap()], [tokens[1].clone(), tokens[0].clone()]);
        fixture.assert_nothing_lost("swapped");
    }
}

#[tokio::test(start_paused = true)]
async fn one_token_that_is_given_to_two_enrollments_at_once_is_adopted_by_one() {
    let fixture = OpsFixture::new();
    let tokens = [(); 2].map(|()| fixture.server.add_runner().1.token);
    let mut runners = fixture.enrolled_with([&tokens[0], &tokens[1]]).await;
    let (_, new) = fixture.server.add_runner();
    let [mut first, mut second] = [runners.remove(0), runners.remove(0)];
    // The file of the second one is replaced before that of the first one.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("first");
    std::fs::write(&path, tokens[0].expose()).unwrap();
    let source = RegistrationSource::Given(Source::File(path.clone()));
    let both = [Enrollment { source, ..given("first", &new.token) }, given("second", &new.token)];
    fixture.server.inject_always("verify", Some(Fault::AnswerAfter(Duration::from_secs(2))));
    let inquiry = inquiry();
    let replace_first = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        std::fs::write(&path, new.token.expose()).unwrap();
        fixture.ops.adopt_given_token(&both, &both[0], &mut first, &inquiry).await
    };
    let (first, second) =
        tokio::join!(replace_first, fixture.ops.adopt_given_token(&both, &both[1], &mut second, &inquiry));
    assert!(first.unwrap().is_some() && second.unwrap().is_none());
    let state = fixture.disk.state();
    let has_new = |record: &&Record| record.credential.as_ref().is_some_and(|own| own.token == new.token);
    assert_eq!(state.records.values().filter(has_new).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_given_token_that_another_enrollment_has_is_not_adopted() {
    let fixture = OpsFixture::new();
    let (_, credential) = fixture.server.add_runner();
    let (_, other) = fixture.server.add_runner();
    let mut runners = fixture.enrolled_with([&credential.token, &other.token]).await;
    let mut second = runners.remove(1);
    let replaced = given("second", &credential.token);
    let adopted = fixture.ops.adopt_given_token(&[], &replaced, &mut second, &inquiry()).await.unwrap();
    assert!(adopted.is_none() && second.token().unwrap() == other.token);
    // The first one has another token by now, which was made of the given one.
    fixture.ops.rotate(&mut runners[0], None, &inquiry()).await.unwrap();
    assert!(fixture.ops.adopt_given_token(&[], &replaced, &mut second, &inquiry()).await.unwrap().is_none());
    let (_, free) = fixture.server.add_runner();
    let replaced = given("second", &free.token);
    assert!(fixture.ops.adopt_given_token(&[], &replaced, &mut second, &inquiry()).await.unwrap().is_some());
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn count(&self, part: &str) -> usize {
        self.text().matches(part).count()
    }

    /// Takes what this thread logs, until the guard is dropped.
    fn take(&self, level: tracing::Level) -> Taken {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(false);
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        // With a single subscriber, the first thread to reach a log line decides for all threads whether it is enabled.
        let second = tracing::Dispatch::new(tracing_subscriber::registry());
        Taken { _guard: tracing::subscriber::set_default(subscriber), _second: second }
    }
}

/// What this thread logs is taken.
struct Taken {
    _guard: tracing::subscriber::DefaultGuard,
    _second: tracing::Dispatch,
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_dispute_is_logged_once_for_each_token() {
    let log = Log::default();
    let _taken = log.take(tracing::Level::INFO);
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.server.name_no_ids();
    let [one, other] = [fixture.server.add_runner().1.token, fixture.server.add_runner().1.token];
    // The first one comes back: it is known already.
    for (token, lines) in [(&one, 1), (&other, 2), (&one, 2)] {
        fixture.disk.state().entries[0].token = EntryToken::Literal(token.clone());
        for _ in 0..3 {
            fixture.ops.verify(&mut runner, &inquiry()).await.unwrap();
            assert_eq!(log.count("config.toml holds another token that the server accepts"), lines);
        }
    }
    assert_eq!(log.count(&one.fingerprint().to_string()), 1);
}

#[tokio::test]
async fn a_runner_of_the_same_name_with_an_entry_of_its_own_is_never_taken_for_the_dead_one() {
    let fixture = OpsFixture::new();
    // A server before 15.9.
    fixture.server.name_no_ids();
    let mut runner = fixture.registered().await;
    let (_, credential) = fixture.server.add_runner();
    fixture.disk.add_entry("build-1", None, &credential);
    let mut other = blank();
    other.record.key = RunnerKey::found(&runner.record.url, None, credential.token.digest());
    (other.record.enrollment, other.record.name) = (None, Some("build-1".to_owned()));
    other.record.credential = Some(credential.clone());
    fixture.disk.save_record(other.record).await.unwrap();
    let dead = runner.token().unwrap();
    let (id, _) = fixture.server.runners().into_iter().find(|(_, served)| served.token == dead).unwrap();
    fixture.server.remove_runner(RunnerId::try_new(id).unwrap());
    (runner.record.id, runner.record.confirmed_id) = (None, None);
    fixture.disk.save_record(runner.record.clone()).await.unwrap();
    let inquiry = Inquiry { is_dead: true, ..inquiry() };
    let enrollment = enrollment(registration_token());
    let done = fixture.ops.register_again(&enrollment, &mut runner, &inquiry).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Registered(_)), "{:?}", done.outcome);
    assert_ne!(runner.token().unwrap(), credential.token);
    assert!(fixture.disk.tokens().contains(&credential.token));
    assert_eq!(fixture.server.calls(), ["probe", "register", "probe", "register"]);
}

#[tokio::test]
async fn a_token_without_a_place_is_never_reported_as_saved() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.disk.state().is_stateless = true;
    fixture.disk.state().records.clear();
    fixture.server.inject("reset", Fault::OddAnswer);
    fixture.server.inject_always("verify", Some(Fault::Fail(NOT_EXECUTED)));
    fixture.ops.rotate(&mut runner, None, &inquiry()).await.unwrap_err();
    let served = fixture.server.runners().into_values().next().unwrap();
    let error = fixture.ops.save_received(&mut runner, &inquiry()).await.unwrap_err();
    assert!(matches!(&error, Error::Unstored { token, .. } if *token == served.token.fingerprint()), "{error}");
    assert!(error.to_string().contains(&served.token.fingerprint().to_string()) && runner.is_unstored());
    fixture.server.inject_always("verify", None);
    let adopted = fixture.ops.save_received(&mut runner, &inquiry()).await.unwrap().unwrap();
    assert!(matches!(adopted.outcome, Outcome::Adopted(_)) && !runner.is_unstored());
    assert_eq!(fixture.disk.tokens(), [served.token]);
}
