//! The dispatcher over files of its own. No hook is run: what is queued is looked at on the disk.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::advance;

use super::dispatcher::Dispatcher;
use super::{HookMessage, RunnerSight, Sighting, Subject};
use crate::hooks::{Action, CommandAction, Hook, TIMEOUT, TokenInput};
use crate::lifecycle::hooks::{GONE_AFTER, SeenRunner};
use crate::model::{Expiry, HookEvent, HookKind, RunnerId, RunnerKey, Timestamp};
use crate::secret::Token;
use crate::status::Counters;
use crate::store::{Config, HookFiles, Store};

fn now() -> Timestamp {
    Timestamp::from_millis(1_000)
}

struct Home {
    directory: tempfile::TempDir,
    store: Store,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let store = Store::open(Config {
            config_path: path("config.toml"),
            state_root: Some(path("state")),
            machine_id_path: path("machine-id"),
            root_locks: None,
            variables: |_| None,
        });
        Self { store: store.unwrap(), directory }
    }

    fn files(&self) -> HookFiles {
        HookFiles::new(self.store.clone())
    }

    /// The directory of the hooks' files.
    fn hooks(&self) -> PathBuf {
        let states = std::fs::read_dir(self.directory.path().join("state")).unwrap();
        states.map(|state| state.unwrap().path().join("hooks")).find(|hooks| hooks.exists()).unwrap()
    }

    /// A dispatcher that has one hook, and knows which runners are there.
    async fn dispatcher(&self, there: &[&str]) -> Dispatcher {
        let (_sender, inbox) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher::new(self.files(), Counters::new(), inbox);
        dispatcher.receive(HookMessage::Hooks(Arc::from([hook()]))).await;
        let there: BTreeSet<_> = there.iter().map(|name| key(name)).collect();
        dispatcher.receive(HookMessage::There(there, now())).await;
        dispatcher
    }

    /// The events that wait for the hook.
    async fn queued(&self) -> Vec<HookEvent> {
        let records = self.files().read().await.unwrap().records;
        records.into_iter().flat_map(|record| record.queue).map(|delivery| delivery.event).collect()
    }

    async fn kinds(&self) -> Vec<HookKind> {
        self.queued().await.into_iter().map(|event| event.event).collect()
    }
}

fn hook() -> Hook {
    let action =
        Action::Command(CommandAction { program: "/bin/true".into(), arguments: Vec::new(), token: TokenInput::None });
    let (name, timeout, retries) = ("a".to_owned(), TIMEOUT, action.default_retries());
    Hook { name, on: HookKind::ALL.to_vec(), runners: Vec::new(), action, timeout, retries }
}

fn key(name: &str) -> RunnerKey {
    RunnerKey::enrollment(name).unwrap()
}

fn seen(key: &RunnerKey, name: &str, id: u64, token: Option<&str>) -> HookMessage {
    let token = token.map(|token| Token::parse(token).unwrap());
    let id = RunnerId::try_new(id).ok();
    let seen = SeenRunner { token: token.as_ref().map(Token::digest), id, ..SeenRunner::default() };
    let sight = RunnerSight {
        label: name.to_owned(),
        url: "https://gitlab.example.com".parse().unwrap(),
        expiry: Expiry::default(),
        token,
        is_own: true,
        seen,
    };
    HookMessage::Seen(Box::new(Sighting { key: key.clone(), subject: Subject::Runner(Box::new(sight)), now: now() }))
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_was_away_for_long_is_unregistered_and_one_that_comes_back_is_not() {
    let home = Home::new();
    let mut dispatcher = home.dispatcher(&["a", "b"]).await;
    for name in ["a", "b"] {
        dispatcher.receive(seen(&key(name), name, 1, Some(name))).await;
        dispatcher.receive(HookMessage::Dismissed(key(name), now())).await;
    }
    dispatcher.receive(seen(&key("b"), "b", 1, Some("b"))).await;
    dispatcher.look_at_the_time().await;
    assert_eq!(home.kinds().await, []);
    advance(GONE_AFTER).await;
    dispatcher.look_at_the_time().await;
    let queued = home.queued().await;
    let [event] = &queued[..] else { panic!("{queued:?}") };
    assert_eq!((event.event, event.runner.as_deref()), (HookKind::Unregistered, Some("a")));
    assert!(event.url.is_some() && event.runner_id.is_some(), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_vanished_while_no_agent_ran_is_unregistered() {
    let home = Home::new();
    let mut dispatcher = home.dispatcher(&["a"]).await;
    dispatcher.receive(seen(&key("a"), "a", 1, Some("a"))).await;
    let mut dispatcher = home.dispatcher(&[]).await;
    advance(GONE_AFTER).await;
    dispatcher.look_at_the_time().await;
    assert_eq!(home.kinds().await, [HookKind::Unregistered]);
}

#[tokio::test(start_paused = true)]
async fn a_runner_whose_record_moves_is_neither_registered_nor_unregistered() {
    let home = Home::new();
    let mut dispatcher = home.dispatcher(&["a"]).await;
    dispatcher.receive(seen(&key("a"), "a", 1, Some("glrt-a"))).await;
    dispatcher.receive(HookMessage::Dismissed(key("a"), now())).await;
    dispatcher.receive(seen(&key("b"), "another-name", 1, Some("glrt-a"))).await;
    assert_eq!(home.kinds().await, [], "it has the same token");
    dispatcher.receive(HookMessage::Dismissed(key("b"), now())).await;
    dispatcher.receive(seen(&key("c"), "another-name", 1, Some("glrt-b"))).await;
    assert_eq!(home.kinds().await, [HookKind::Rotated], "it has the same name and id");
    advance(GONE_AFTER).await;
    dispatcher.look_at_the_time().await;
    assert_eq!(home.kinds().await, [HookKind::Rotated]);
    assert_eq!(home.files().read().await.unwrap().records.len(), 1, "one file for one runner");
}

#[tokio::test(start_paused = true)]
async fn another_runner_under_the_name_of_one_that_is_gone_is_registered() {
    let home = Home::new();
    let mut dispatcher = home.dispatcher(&["a"]).await;
    dispatcher.receive(seen(&key("a"), "a", 1, Some("glrt-a"))).await;
    dispatcher.receive(HookMessage::Dismissed(key("a"), now())).await;
    dispatcher.receive(seen(&key("b"), "a", 2, Some("glrt-b"))).await;
    assert_eq!(home.kinds().await, [HookKind::Registered]);
    advance(GONE_AFTER).await;
    dispatcher.look_at_the_time().await;
    assert_eq!(home.kinds().await, [HookKind::Unregistered, HookKind::Registered]);
}

#[tokio::test(start_paused = true)]
async fn the_same_event_of_another_time_or_machine_has_another_id() {
    let mut ids = BTreeSet::new();
    for home in [Home::new(), Home::new()] {
        let mut dispatcher = home.dispatcher(&["a"]).await;
        for _ in 0..2 {
            for token in [None, Some("glrt-a")] {
                dispatcher.receive(seen(&key("a"), "a", 1, token)).await;
            }
        }
        ids.extend(home.queued().await.into_iter().map(|event| event.event_id));
        assert_eq!(home.kinds().await.len(), 3);
        // A directory that was removed.
        home.files().remove_all().await.unwrap();
        let mut dispatcher = home.dispatcher(&["a"]).await;
        for token in [None, Some("glrt-a")] {
            dispatcher.receive(seen(&key("a"), "a", 1, token)).await;
        }
        ids.extend(home.queued().await.into_iter().map(|event| event.event_id));
    }
    assert_eq!(ids.len(), 2 * (3 + 1), "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_over_files_that_cannot_be_read() {
    let home = Home::new();
    let mut dispatcher = home.dispatcher(&["a"]).await;
    dispatcher.receive(seen(&key("a"), "a", 1, None)).await;
    dispatcher.receive(seen(&key("a"), "a", 1, Some("glrt-a"))).await;
    let obstacle = home.hooks().join("obstacle.json");
    std::fs::create_dir(&obstacle).unwrap();
    let mut dispatcher = home.dispatcher(&["a"]).await;
    dispatcher.receive(seen(&key("a"), "a", 1, Some("glrt-b"))).await;
    std::fs::remove_dir(&obstacle).unwrap();
    assert_eq!(home.kinds().await, [HookKind::Registered], "the event waits on the disk");
    advance(std::time::Duration::from_secs(60)).await;
    dispatcher.look_at_the_time().await;
    assert_eq!(
        home.kinds().await,
        [HookKind::Registered, HookKind::Rotated],
        "and what was seen meanwhile comes after it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_leftover_that_cannot_be_removed_and_a_damaged_file_lose_no_other_event() {
    let home = Home::new();
    let mut dispatcher = home.dispatcher(&["a", "b"]).await;
    for name in ["a", "b"] {
        dispatcher.receive(seen(&key(name), name, 1, None)).await;
        dispatcher.receive(seen(&key(name), name, 1, Some(name))).await;
    }
    std::fs::create_dir(home.hooks().join("x.token")).unwrap();
    std::fs::write(home.hooks().join("b.json"), "{\"schema\":1,").unwrap();
    let mut dispatcher = home.dispatcher(&["a", "b"]).await;
    dispatcher.receive(seen(&key("b"), "b", 1, Some("b"))).await;
    assert_eq!(home.kinds().await, [HookKind::Registered]);
    assert!(home.hooks().join("b.json.damaged").exists());
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_was_changed_gets_no_event_that_it_is_not_for() {
    let home = Home::new();
    let mut dispatcher = home.dispatcher(&["a", "b"]).await;
    for name in ["a", "b"] {
        dispatcher.receive(seen(&key(name), name, 1, None)).await;
        dispatcher.receive(seen(&key(name), name, 1, Some(name))).await;
    }
    let only_a = Hook { runners: vec!["a".to_owned()], ..hook() };
    dispatcher.receive(HookMessage::Hooks(Arc::from([only_a]))).await;
    let names: Vec<_> = home.queued().await.into_iter().map(|event| event.runner).collect();
    assert_eq!(names, [Some("a".to_owned())]);
    dispatcher.receive(HookMessage::Hooks(Arc::from([]))).await;
    assert_eq!(home.kinds().await, []);
}
