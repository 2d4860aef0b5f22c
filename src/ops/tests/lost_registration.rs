//! A registration whose answer was lost holds up every other one of its name, until a person goes on.

use tokio::time::Instant;

use super::*;
use crate::model::{Conclusion, Evidence};
use crate::store::{Intent, JournalOperation};

/// The runner of a one-shot command that registers `build-1`.
fn of_command() -> Runner {
    let mut runner = blank();
    runner.record.key = RunnerKey::enrollment("register-0123456789ab").unwrap();
    (runner.record.enrollment, runner.record.name) = (None, Some("build-1".to_owned()));
    runner
}

impl OpsFixture {
    async fn register(&self, runner: &mut Runner) -> Result<Completed, Error> {
        self.ops.register(&enrollment(registration_token()), runner, &inquiry()).await
    }

    async fn register_again(&self, runner: &mut Runner) -> Result<Completed, Error> {
        self.ops.register_again(&enrollment(registration_token()), runner, &inquiry()).await
    }

    /// What a process leaves that is killed while its request is outstanding.
    async fn leave_journal(&self, runner: &Runner) {
        let mut record = runner.record.clone();
        record.name = Some("build-1".to_owned());
        self.disk.save_record(record).await.unwrap();
        let operation = JournalOperation::Register {
            url: runner.record.url.clone(),
            description: "build-1".to_owned(),
            seed: registration_token().fingerprint(),
            common: Some(RunnerKey::registration(&runner.record.url, "build-1")),
        };
        let intent = Intent { operation, at: now(), system_id: None, asked_by: None, token: None };
        self.disk.begin(&runner.record.key, intent).await.unwrap();
    }
}

fn assert_held_up(result: Result<Completed, Error>, context: &str) {
    let error = result.expect_err(context);
    assert!(matches!(&error, Error::RegistrationLost { at, .. } if *at == now()), "{context}: {error}");
    assert_eq!(error.outcome(), Outcome::Lost { retry_after: None });
}

#[tokio::test]
async fn a_killed_registration_is_not_repeated_under_any_key() {
    let pairs = [
        (of_command(), of_command(), "two commands"),
        (of_command(), blank(), "a command, then an enrollment"),
        (blank(), of_command(), "an enrollment, then a command"),
        (blank(), blank(), "an enrollment twice"),
    ];
    for (killed, mut next, context) in pairs {
        for is_replayed in [true, false] {
            let fixture = OpsFixture::new();
            fixture.leave_journal(&killed).await;
            if is_replayed {
                fixture.ops.replay(now()).await.unwrap();
                assert!(fixture.disk.state().journal.is_empty(), "{context}");
            }
            // As often as it is repeated.
            for _ in 0..3 {
                assert_held_up(fixture.register(&mut next).await, context);
            }
            assert!(fixture.server.calls().is_empty(), "{context}");
        }
    }
}

#[tokio::test]
async fn a_command_whose_answer_was_lost_is_not_repeated_either() {
    let fixture = OpsFixture::new();
    fixture.server.inject("register", Fault::LoseAnswer);
    fixture.register(&mut of_command()).await.unwrap_err();
    assert_held_up(fixture.register(&mut of_command()).await, "the command");
    assert_held_up(fixture.register(&mut blank()).await, "an enrollment");
    assert_eq!(fixture.server.calls(), ["probe", "register"]);
}

#[tokio::test]
async fn without_a_state_directory_a_command_does_not_know_of_an_earlier_lost_registration() {
    let fixture = OpsFixture::new();
    fixture.disk.state().is_stateless = true;
    fixture.server.inject("register", Fault::LoseAnswer);
    fixture.register(&mut of_command()).await.unwrap_err();
    fixture.register(&mut of_command()).await.unwrap();
    assert_eq!(fixture.server.calls(), ["probe", "register"].repeat(2));
}

#[tokio::test]
async fn a_registration_that_was_surely_not_executed_is_repeated() {
    for disposition in [NOT_EXECUTED, Disposition::MustAct(Reason::RegistrationRefused)] {
        let fixture = OpsFixture::new();
        fixture.server.inject("register", Fault::Fail(disposition));
        fixture.register(&mut of_command()).await.unwrap_err();
        fixture.register(&mut of_command()).await.unwrap();
        assert_eq!(fixture.server.calls(), ["probe", "register"].repeat(2));
    }
}

#[tokio::test]
async fn a_registration_at_a_starting_gitlab_is_not_sent_and_not_noted_as_lost() {
    for runner in [of_command(), blank()] {
        for disposition in [UNKNOWN, NOT_EXECUTED] {
            let fixture = OpsFixture::new();
            fixture.server.inject("probe", Fault::Fail(disposition));
            let error = fixture.register(&mut runner.clone()).await.unwrap_err();
            assert!(matches!(error, Error::Probing(_)), "{error}");
            assert_eq!(error.outcome(), Outcome::Deferred { retry_after: None });
            {
                let state = fixture.disk.state();
                assert!(state.held.is_empty() && state.journal.is_empty() && state.records.is_empty());
            }
            fixture.register(&mut runner.clone()).await.unwrap();
            assert_eq!(fixture.server.calls(), ["probe", "probe", "register"]);
        }
    }
}

#[tokio::test]
async fn a_person_goes_on_after_a_lost_registration_wherever_it_was_noted() {
    for (killed, mut next) in
        [(of_command(), of_command()), (of_command(), blank()), (blank(), of_command()), (blank(), blank())]
    {
        let fixture = OpsFixture::new();
        fixture.leave_journal(&killed).await;
        fixture.ops.replay(now()).await.unwrap();
        let enrollment = enrollment(registration_token());
        fixture.ops.forget_lost_registrations(&enrollment, &mut next, None).await.unwrap();
        assert!(fixture.disk.state().held.values().all(|held| held.evidence.is_none()));
        // A request that is surely not executed does not bring it back.
        fixture.server.inject("register", Fault::Fail(NOT_EXECUTED));
        fixture.register(&mut next).await.unwrap_err();
        let done = fixture.register(&mut next).await.unwrap();
        assert!(matches!(done.outcome, Outcome::Registered(_)));
        assert_eq!(fixture.disk.tokens().len(), 1);
        let blank = fixture.disk.state().records.values().filter(|record| record.credential.is_none()).count();
        assert_eq!(blank, usize::from(killed.record.enrollment.is_some() && next.record.enrollment.is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_goes_on_only_after_what_was_lost_before_they_asked() {
    let fixture = OpsFixture::new();
    let mut first = fixture.registered().await;
    let asked_at = Instant::now();
    fixture.server.inject("register", Fault::LoseAnswer);
    fixture.register_again(&mut first).await.unwrap_err();
    // Another enrollment of the name hears of the same request only now.
    let (enrollment, mut second) = (enrollment(registration_token()), blank());
    second.record.key = RunnerKey::enrollment("second").unwrap();
    fixture.ops.forget_lost_registrations(&enrollment, &mut second, Some(asked_at)).await.unwrap();
    assert_held_up(fixture.register_again(&mut first).await, "what was lost since");
    tokio::time::advance(Duration::from_secs(1)).await;
    fixture.ops.forget_lost_registrations(&enrollment, &mut second, Some(Instant::now())).await.unwrap();
    fixture.register_again(&mut first).await.unwrap();
}

#[tokio::test]
async fn a_forced_registration_that_was_killed_holds_up_that_of_a_recovery() {
    let fixture = OpsFixture::new();
    let mut runner = fixture.registered().await;
    fixture.leave_journal(&runner).await;
    assert_held_up(fixture.register_again(&mut runner).await, "beside a running daemon");
    fixture.ops.replay(now()).await.unwrap();
    assert_held_up(fixture.register_again(&mut runner).await, "after a restart");
    let enrollment = enrollment(registration_token());
    fixture.ops.forget_lost_registrations(&enrollment, &mut runner, None).await.unwrap();
    fixture.register_again(&mut runner).await.unwrap();
    assert_eq!(fixture.server.calls(), ["probe", "register"].repeat(2));
}

#[tokio::test]
async fn a_journal_without_its_record_is_a_lost_registration_too() {
    let fixture = OpsFixture::new();
    fixture.leave_journal(&of_command()).await;
    fixture.disk.state().records.clear();
    fixture.ops.replay(now()).await.unwrap();
    assert_held_up(fixture.register(&mut of_command()).await, "the command");
    assert_held_up(fixture.register(&mut blank()).await, "an enrollment");
    assert!(fixture.server.calls().is_empty());
}

#[tokio::test]
async fn a_journaled_answer_of_a_killed_command_is_taken_and_nothing_is_registered() {
    let fixture = OpsFixture::new();
    let command = of_command();
    fixture.leave_journal(&command).await;
    let (id, Credential { token, obtained_at, expiry }) = fixture.server.add_runner();
    let token = Some(token);
    let answer = JournalAnswer { id: Some(id), token, expiry, obtained_at, is_documented: true };
    fixture.disk.answered(&command.record.key, answer).await.unwrap();
    fixture.register(&mut blank()).await.unwrap();
    assert!(fixture.server.calls().is_empty());
    fixture.assert_nothing_lost("a journaled answer");
    assert!(fixture.disk.state().journal.is_empty());
}

#[tokio::test]
async fn a_lost_registration_is_noted_before_its_journal_ends() {
    for effect in ["held", "record"] {
        let fixture = OpsFixture::new();
        fixture.leave_journal(&of_command()).await;
        fixture.disk.fail(effect, 1);
        fixture.ops.replay(now()).await.unwrap();
        assert!(!fixture.disk.state().journal.is_empty(), "{effect}");
        assert_held_up(fixture.register(&mut of_command()).await, effect);
    }
}

#[tokio::test]
async fn a_lost_registration_of_one_enrollment_leaves_another_one_of_its_name_alone() {
    let fixture = OpsFixture::new();
    fixture.leave_journal(&blank()).await;
    fixture.ops.replay(now()).await.unwrap();
    let mut other = blank();
    other.record.key = RunnerKey::enrollment("other").unwrap();
    other.record.enrollment = Some("other".to_owned());
    fixture.register(&mut other).await.unwrap();
    let conclusion = fixture.disk.state().held.get(&blank().record.key).and_then(|held| held.evidence.clone());
    assert!(matches!(
        conclusion.as_deref(),
        Some(Evidence { conclusion: Some(Conclusion::Failed { trouble: Trouble::RegistrationLost, .. }), .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_another_process_has_begun_is_waited_for_before_a_registration() {
    for is_finished in [true, false] {
        let fixture = OpsFixture::new();
        let command = of_command();
        fixture.leave_journal(&command).await;
        // The other process has not noted the loss yet.
        fixture.disk.state().locked.insert(command.record.key.clone());
        let finish = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            if is_finished {
                fixture.disk.state().locked.clear();
                fixture.ops.replay(now()).await.unwrap();
            }
        };
        let mut next = blank();
        let (result, ()) = tokio::join!(fixture.register(&mut next), finish);
        if is_finished {
            assert_held_up(result, "after the replay");
        } else {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Disk(store::Error::RunnerLocked { .. })), "{error}");
            assert!(matches!(error.outcome(), Outcome::Deferred { .. }));
        }
        assert!(fixture.server.calls().is_empty(), "finished: {is_finished}");
    }
}

#[tokio::test]
async fn a_journal_without_its_record_is_known_by_the_name_of_its_entry() {
    for is_replayed in [true, false] {
        let fixture = OpsFixture::new();
        fixture.leave_journal(&of_command()).await;
        {
            let mut state = fixture.disk.state();
            state.records.clear();
            for pending in state.journal.values_mut() {
                if let JournalOperation::Register { description, .. } = &mut pending.intent.operation {
                    "big builder".clone_into(description);
                }
            }
        }
        if is_replayed {
            fixture.ops.replay(now()).await.unwrap();
        }
        assert_held_up(fixture.register(&mut of_command()).await, "the command");
        assert_held_up(fixture.register(&mut blank()).await, "an enrollment");
        assert!(fixture.server.calls().is_empty());
        // The description is not taken for a name.
        let mut other = of_command();
        other.record.name = Some("big builder".to_owned());
        let mut enrollment = enrollment(registration_token());
        "big builder".clone_into(&mut enrollment.entry.name);
        fixture.ops.register(&enrollment, &mut other, &inquiry()).await.unwrap();
    }
}
