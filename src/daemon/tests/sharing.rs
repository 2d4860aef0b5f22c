//! The daemon of a machine that shares its runner over a store in memory.

mod server;
mod simulation;
mod telling;

use std::rc::Rc;

use super::*;
use crate::model::{RunnerReport, SharingReport};
use crate::ops::Enrollment;
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
