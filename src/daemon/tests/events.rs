//! The events that the daemon remembers.

use super::*;
use crate::model::{Event, EventKind};

/// Runs the daemon for a while, and returns its events.
async fn events(fixture: &DaemonFixture, config: Config, life: Duration, ending: Notice) -> Vec<Event> {
    let (notices, inbox) = mpsc::unbounded_channel();
    let parts = fixture.parts();
    let registry = parts.registry.clone();
    let daemon = run(config, parts, inbox);
    let stop = async {
        sleep(life).await;
        notices.send(ending).unwrap();
    };
    let (result, ()) = tokio::join!(daemon, stop);
    result.unwrap();
    registry.events_after(0)
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).collect()
}

#[tokio::test(start_paused = true)]
async fn a_life_is_remembered_step_by_step() {
    let fixture = DaemonFixture::new(Some(secs(1200)));
    let events = events(&fixture, enrolled(registration_token()), secs(1100), Notice::Stop).await;
    assert_eq!(kinds(&events), [EventKind::Registered, EventKind::Rotated, EventKind::Unregistered]);
    assert!(events.iter().all(|event| event.runner.is_some()), "{events:?}");
    assert!(events[0].text.starts_with("registered as runner ") && events[1].text.contains("expires at"), "{events:?}");
    assert!(events.is_sorted_by_key(|event| event.at));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_once_with_its_remedy() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    let dead = Credential { token: Token::parse("glrtr-dead").unwrap(), obtained_at: None, expiry: Expiry::Unknown };
    fixture.disk.add_entry("dead", None, &dead);
    let events = events(&fixture, rotating_found(), secs(7200), Notice::StopAndKeep).await;
    let refusals: Vec<_> = events.iter().filter(|event| event.kind == EventKind::Rejected).collect();
    assert!(refusals.len() == 1 && refusals[0].text.contains("the server refuses the token: "), "{events:?}");
    assert!(!format!("{events:?}").contains(dead.token.expose()));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_remembered_at_its_begin_and_its_end() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    fixture.server.inject_always("register", Some(Fault::Fail(NOT_EXECUTED)));
    let server = fixture.server.clone();
    let recovery = async move {
        sleep(secs(600)).await;
        server.inject_always("register", None);
    };
    let run = events(&fixture, enrolled(registration_token()), secs(3000), Notice::StopAndKeep);
    let (events, ()) = tokio::join!(run, recovery);
    assert_eq!(kinds(&events), [EventKind::Failing, EventKind::WorksAgain, EventKind::Registered], "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn settings_that_are_rejected_twice_for_one_reason_are_one_event() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    let (notices, inbox) = mpsc::unbounded_channel();
    let parts = fixture.parts();
    let registry = parts.registry.clone();
    let reloads = async {
        for _ in 0..2 {
            sleep(secs(60)).await;
            notices.send(Notice::Reload).unwrap();
        }
        sleep(secs(60)).await;
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(rotating_found(), parts, inbox), reloads);
    result.unwrap();
    let events = registry.events_after(0);
    assert_eq!(kinds(&events), [EventKind::SettingsRejected]);
    assert_eq!((events[0].runner.as_deref(), events[0].text.as_str()), (None, "invalid"));
}
