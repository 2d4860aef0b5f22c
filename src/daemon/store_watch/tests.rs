//! The watches of shared runners over a store in memory.

#[cfg(feature = "etcd")]
mod secrets;

use tokio::task::LocalSet;

use super::*;
use crate::model::{Expiry, Lineage, Origin, SharedToken};
use crate::secret::Token;
use crate::sharing::memory::MemoryEngine;

fn name() -> ShareName {
    "docker-fleet".parse().unwrap()
}

/// A runner whose token never expires: its store is read twice a minute only.
fn runner(generation: u64) -> SharedRunner {
    let token = Token::parse(&format!("glrt-{generation:020}")).unwrap();
    let mut lineage = Lineage::first(token.digest());
    for _ in 1..generation {
        lineage = lineage.with_next(token.digest());
    }
    let credential = Credential { token, obtained_at: None, expiry: Expiry::Never };
    let mut runner = SharedRunner::new("https://gitlab.example.com".parse().unwrap(), Origin::Given);
    runner.token = Some(SharedToken { credential, lineage });
    runner
}

async fn generation_of(inbox: &mut mpsc::UnboundedReceiver<StoreChange>) -> Option<u64> {
    let (_, report) = inbox.recv().await.unwrap();
    Some(report.seen.ok()??.runner.token.as_ref()?.lineage.generation())
}

#[tokio::test(start_paused = true)]
async fn change_that_comes_when_the_watch_has_ended_is_reported_soon() {
    let store = MemoryEngine::default();
    let shares = || Shares::new(AnyEngine::Memory(store.clone()), None);
    let swap = async |number| {
        let expected = shares().read(&name()).await.unwrap();
        shares().swap(&name(), expected.as_ref(), runner(number)).await.unwrap();
    };
    swap(1).await;
    let (changes, mut inbox) = mpsc::unbounded_channel();
    let tasks = LocalSet::new();
    tasks.spawn_local(watch(Rc::new(shares()), name(), changes));
    tasks
        .run_until(async {
            assert_eq!(generation_of(&mut inbox).await, Some(1));
            for number in 2..5 {
                // An API server ends each watch after some minutes, and a member of etcd once it has lost its leader.
                sleep(Duration::from_secs(60)).await;
                store.end_watches(&name());
                tokio::task::yield_now().await;
                swap(number).await;
                let reported = async { while generation_of(&mut inbox).await != Some(number) {} };
                assert!(timeout(Duration::from_secs(2), reported).await.is_ok(), "generation {number}");
            }
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn store_that_fails_is_asked_ever_less() {
    let store = MemoryEngine::default();
    store.stop(true);
    let (changes, _inbox) = mpsc::unbounded_channel();
    let tasks = LocalSet::new();
    tasks.spawn_local(watch(Rc::new(Shares::new(AnyEngine::Memory(store.clone()), None)), name(), changes));
    tasks.run_until(sleep(Duration::from_secs(3600))).await;
    assert!((100..300).contains(&store.failures()), "{}", store.failures());
}
