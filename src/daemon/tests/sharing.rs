//! The daemon of a machine that shares its runner over a store in memory.

mod server;
mod simulation;
mod telling;

use std::rc::Rc;

use super::*;
use crate::engine::StepFailure;
use crate::model::{RunnerReport, SharingReport};
use crate::ops::{Enrollment, Error};
use crate::secret::SealingKey;
use crate::sharing::memory::MemoryEngine;
use crate::sharing::{AnyEngine, Shares, Value};

#[tokio::test(start_paused = true)]
async fn store_that_never_answered_is_in_readiness_and_one_that_fails_later_is_not() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    let store = MemoryEngine::default();
    let name: crate::model::ShareName = "docker-fleet".parse().unwrap();
    let enrollment =
        Enrollment { share_as: Some(name.clone()), ..crate::ops::memory::enrollment(registration_token()) };
    let config = Config { enrollments: vec![enrollment], ..Config::default() };
    let parts = || {
        let parts = fixture.parts();
        parts.engine.ops.share_in(Some(Shares::new(AnyEngine::Memory(store.clone()), None)));
        parts
    };
    let stop_at = |notices: mpsc::UnboundedSender<Notice>, life| async move {
        sleep(life).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (notices, inbox) = mpsc::unbounded_channel();
    let (result, ()) = tokio::join!(run(config.clone(), parts(), inbox), stop_at(notices, secs(60)));
    result.unwrap();

    store.stop(true);
    let log = Captured::start();
    let (notices, inbox) = mpsc::unbounded_channel();
    let parts = parts();
    let registry = parts.registry.clone();
    let why = || registry.readiness().waiting_for.into_iter().map(|unready| unready.why).collect::<Vec<_>>().join("; ");
    let sharing = || -> SharingReport {
        let RunnerReport { sharing, .. } = registry.runners().remove(0).report;
        *sharing.unwrap()
    };
    let look = async {
        sleep(secs(60)).await;
        assert!(why().contains("the store of the shared runner cannot be used: memory cannot be reached"), "{}", why());
        assert_eq!((sharing().generation, sharing().contact_at, sharing().members), (Some(1), None, None));
        store.stop(false);
        sleep(secs(60)).await;
        assert_eq!((why().as_str(), sharing().problem, sharing().members), ("", None, Some(1)));
        let contact = sharing().contact_at.unwrap();
        store.stop(true);
        sleep(secs(600)).await;
        assert_eq!(why(), "", "the token is accepted, and not due");
        assert!(sharing().problem.is_some() && sharing().contact_seconds.unwrap() > 500, "{:?}", sharing());
        assert!(sharing().contact_at.unwrap() >= contact);
        store.stop(false);
        let value = store.value_of(&name);
        store.restore(&name, Some(Value::new(b"of another program".to_vec())));
        sleep(secs(60)).await;
        assert!(why().contains("does not hold a shared runner"), "a person has to act: {}", why());
        store.restore(&name, value);
        sleep(secs(60)).await;
        assert_eq!((why().as_str(), sharing().problem), ("", None));
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(config, parts, inbox), look);
    result.unwrap();
    let log = log.text();
    assert_eq!(log.matches("going on with the token of this machine").count(), 2, "once for each outage: {log}");
    assert_eq!(log.matches("does not hold a shared runner").count(), 1, "{log}");
    assert_eq!(fixture.server.calls().iter().filter(|call| **call == "reset").count(), 0);
}

#[tokio::test(start_paused = true)]
async fn refusal_by_the_store_is_an_error_once_a_later_one_confirms_it() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    let store = MemoryEngine::default();
    let share_as = Some("docker-fleet".parse().unwrap());
    let enrollment = Enrollment { share_as, ..crate::ops::memory::enrollment(registration_token()) };
    let config = Config { enrollments: vec![enrollment], ..Config::default() };
    let parts = fixture.parts();
    parts.engine.ops.share_in(Some(Shares::new(AnyEngine::Memory(store.clone()), None)));
    let registry = parts.registry.clone();
    let log = Captured::start();
    let errors = || log.text().lines().filter(|line| line.contains(" ERROR ")).count();
    let (notices, inbox) = mpsc::unbounded_channel();
    // An API server that has just started.
    store.deny(true);
    let look = async {
        sleep(secs(3)).await;
        assert!(log.text().contains("the right to read is missing"), "{}", log.text());
        store.deny(false);
        sleep(secs(60)).await;
        assert_eq!(errors(), 0, "{}", log.text());
        store.deny(true);
        sleep(secs(600)).await;
        assert_eq!(errors(), 1, "{}", log.text());
        assert!(registry.runners()[0].report.sharing.as_ref().unwrap().is_lasting);
        store.deny(false);
        sleep(secs(60)).await;
        assert_eq!(registry.runners()[0].report.sharing.as_ref().unwrap().problem, None);
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(config, parts, inbox), look);
    result.unwrap();
}

/// A machine that has its runner in a store.
async fn shared_machine() -> (DaemonFixture, MemoryEngine, Config) {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    let store = MemoryEngine::default();
    let share_as = Some("docker-fleet".parse().unwrap());
    let enrollment = Enrollment { share_as, ..crate::ops::memory::enrollment(registration_token()) };
    let config = Config { enrollments: vec![enrollment], ..Config::default() };
    let pass = once(config.clone(), parts_over(&fixture, &store, None)).await.unwrap();
    assert!(matches!(pass.runners[0].ending, Ending::Done { is_accepted: true }), "{pass:?}");
    (fixture, store, config)
}

fn parts_over(
    fixture: &DaemonFixture,
    store: &MemoryEngine,
    key: Option<&str>,
) -> Parts<MemoryServer, MemoryDisk, TokioClock> {
    let parts = fixture.parts();
    let key = key.map(|key| SealingKey::from_text(key).unwrap());
    parts.engine.ops.share_in(Some(Shares::new(AnyEngine::Memory(store.clone()), key)));
    parts
}

/// The error of a pass that the store has stopped, and what the log says.
async fn refused_pass(
    fixture: &DaemonFixture,
    store: &MemoryEngine,
    key: Option<&str>,
    config: &Config,
) -> (Error, String) {
    let log = Captured::start();
    let pass = once(config.clone(), parts_over(fixture, store, key)).await.unwrap();
    let passed = pass.runners.into_iter().next().unwrap();
    assert_eq!(passed.report.state, StateName::Active, "its token is accepted");
    match passed.ending {
        Ending::Failed(StepFailure::Operation(error)) => {
            assert_eq!(passed.report.error, Some(error.to_string()));
            (error, log.text())
        }
        ending => panic!("{ending:?}: {}", log.text()),
    }
}

#[tokio::test(start_paused = true)]
async fn pass_fails_for_a_value_in_the_store_that_is_none_of_this_machines() {
    let (fixture, store, config) = shared_machine().await;
    let name: crate::model::ShareName = "docker-fleet".parse().unwrap();
    let good = store.value_of(&name).unwrap();
    let text = String::from_utf8(good.expose().to_vec()).unwrap();
    let with = |key: &str, changed: i32| {
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value[key] = changed.into();
        value.to_string()
    };
    let another_server = text.replace("https://gitlab.example.com", "https://gitlab.example.org");
    let key = Some("a key of the tests with enough characters");
    for (value, key, expected) in [
        ("of another program".to_owned(), None, "does not hold a shared runner"),
        (with("schema", 99), None, "does not hold a shared runner"),
        (another_server, None, "the store has the runner"),
        (with("id", 4711), None, "the store has the runner 4711"),
        (text.clone(), key, "is not sealed"),
    ] {
        store.restore(&name, Some(Value::new(value.clone().into_bytes())));
        let (error, log) = refused_pass(&fixture, &store, key, &config).await;
        assert!(error.to_string().contains(expected), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("shared forget"), "{hint}");
        assert_eq!(log.matches(hint).count(), 1, "said once: {log}");
        assert!(store.value_of(&name).unwrap().expose() == value.as_bytes(), "it is not overwritten");
    }
    assert_eq!(fixture.server.calls().iter().filter(|call| **call == "reset").count(), 0);
}

#[tokio::test(start_paused = true)]
async fn machines_write_their_token_sealed_once_a_value_without_the_key_is_removed() {
    let (fixture, store, config) = shared_machine().await;
    let name = "docker-fleet".parse().unwrap();
    let key = Some("a key of the tests with enough characters");
    refused_pass(&fixture, &store, key, &config).await;
    // As `shared forget` does.
    store.restore(&name, None);
    let pass = once(config, parts_over(&fixture, &store, key)).await.unwrap();
    assert!(matches!(pass.runners[0].ending, Ending::Done { is_accepted: true }), "{pass:?}");
    let value = String::from_utf8(store.value_of(&name).unwrap().expose().to_vec()).unwrap();
    assert!(!value.contains(fixture.disk.tokens()[0].expose()), "{value}");
}

#[tokio::test(start_paused = true)]
async fn pass_fails_for_a_value_that_is_sealed_with_another_key() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    let (_, store, config) = shared_machine().await;
    let name = "docker-fleet".parse().unwrap();
    store.restore(&name, None);
    let key = "a key of the tests with enough characters";
    once(config.clone(), parts_over(&fixture, &store, Some(key))).await.unwrap();
    for other in [None, Some("another key of the tests with characters")] {
        let (error, log) = refused_pass(&fixture, &store, other, &config).await;
        assert!(error.to_string().contains("is sealed with the key"), "{error}");
        assert!(error.hint().unwrap().contains("shared forget"), "{error:?}");
        assert_eq!(log.matches(error.hint().unwrap()).count(), 1, "{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn pass_fails_for_a_right_that_is_missing_at_the_store_although_nothing_is_to_be_written() {
    for is_about_writes in [true, false] {
        let (fixture, store, config) = shared_machine().await;
        if is_about_writes {
            store.deny_writes()
        } else {
            store.deny(true)
        }
        let (error, log) = refused_pass(&fixture, &store, None, &config).await;
        assert!(error.to_string().contains("is missing"), "{error}");
        assert_eq!(log.matches(error.hint().unwrap()).count(), 1, "{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn pass_succeeds_while_the_store_of_an_accepted_token_cannot_be_reached() {
    let (fixture, store, config) = shared_machine().await;
    store.stop(true);
    let pass = once(config, parts_over(&fixture, &store, None)).await.unwrap();
    assert!(matches!(pass.runners[0].ending, Ending::Done { is_accepted: true }), "{pass:?}");
}
