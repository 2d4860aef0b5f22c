//! What every engine has to keep.

use std::time::Duration;

use runner_agent::model::{
    Credential, Expiry, Lineage, Member, Origin, ShareName, SharedRunner, SharedToken, Timestamp,
};
use runner_agent::secret::{SealingKey, Token};
use runner_agent::sharing::{Engine, Error, MAX_VALUE_BYTES, Shares, Swapped, Value, Watch as _};

/// Long enough for any machine that is not stopped.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn name() -> ShareName {
    "docker-fleet".parse().unwrap()
}

pub(crate) fn value(text: &str) -> Value {
    Value::new(text.as_bytes().to_vec())
}

/// Lets connections of several machines compete for one value.
pub(crate) async fn check<E: Engine>(engines: &[E]) {
    let [first, second, ..] = engines else { panic!("two machines are needed") };
    let name = name();
    assert_eq!(first.get(&name).await.unwrap(), None);
    first.probe(&name).await.unwrap();
    assert_eq!(first.get(&name).await.unwrap(), None, "a probe changes nothing");

    // Of many machines that write the first value one wins.
    let written = first_writes(engines, &name).await;
    assert_eq!(second.get(&name).await.unwrap().as_ref(), Some(&written));
    first.probe(&name).await.unwrap();
    assert_eq!(second.get(&name).await.unwrap().as_ref(), Some(&written), "a probe changes nothing");

    // By value: a store that was restored has counted its revisions on, and holds a value of before.
    let (old, new) = (value("old"), value("new"));
    assert!(!first.swap(&name, Some(&old), Some(&new)).await.unwrap());
    assert!(!first.swap(&name, None, Some(&new)).await.unwrap());
    assert!(first.swap(&name, Some(&written), Some(&old)).await.unwrap());
    assert!(second.swap(&name, Some(&old), Some(&new)).await.unwrap());
    assert!(second.swap(&name, Some(&new), Some(&old)).await.unwrap());
    assert!(!first.swap(&name, Some(&new), Some(&written)).await.unwrap());

    watched(first, second, &name).await;

    largest(first, second, &name).await;

    runner_is_shared(first, second, &name).await;
}

async fn first_writes<E: Engine>(engines: &[E], name: &ShareName) -> Value {
    let mut won = None;
    let mut attempts: Vec<_> = engines
        .iter()
        .enumerate()
        .map(|(number, engine)| {
            Box::pin(async move {
                let own = value(&format!("machine {number}"));
                engine.swap(name, None, Some(&own)).await.unwrap().then_some(own)
            })
        })
        .collect();
    // All of them are under way before the first one has an answer.
    let mut left = attempts.len();
    std::future::poll_fn(|context| {
        attempts.retain_mut(|attempt| match attempt.as_mut().poll(context) {
            std::task::Poll::Ready(own) => {
                assert!(own.is_none() || won.is_none(), "two machines have won");
                won = own.or(won.take());
                left -= 1;
                false
            }
            std::task::Poll::Pending => true,
        });
        if left == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    won.expect("one machine wins")
}

/// The value is `old`, and gone at the end.
async fn watched<E: Engine>(first: &E, second: &E, name: &ShareName) {
    let (old, new) = (value("old"), value("new"));
    let mut watch = first.watch(name).await.unwrap();
    assert!(second.swap(name, Some(&old), Some(&new)).await.unwrap());
    let seen = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the change is reported");
    assert_eq!(seen.unwrap(), Some(new.clone()));
    assert!(second.swap(name, Some(&new), None).await.unwrap());
    let seen = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the removal is reported");
    assert_eq!(seen.unwrap(), None);
    assert_eq!(first.get(name).await.unwrap(), None);
}

/// There is no value, before and after.
async fn largest<E: Engine>(first: &E, second: &E, name: &ShareName) {
    let [large, next] = [b'x', b'y'].map(|byte| Value::new(vec![byte; MAX_VALUE_BYTES]));
    assert!(first.swap(name, None, Some(&large)).await.unwrap());
    assert_eq!(second.get(name).await.unwrap().as_ref(), Some(&large));
    let mut watch = second.watch(name).await.unwrap();
    assert!(!second.swap(name, Some(&value("old")), Some(&next)).await.unwrap());
    // Both values are in the request.
    assert!(first.swap(name, Some(&large), Some(&next)).await.unwrap());
    let seen = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the change is reported");
    assert_eq!(seen.unwrap(), Some(next.clone()));
    assert!(second.swap(name, Some(&next), None).await.unwrap());
}

async fn runner_is_shared<E: Engine>(first: &E, second: &E, name: &ShareName) {
    let key = SealingKey::from_text(&"k".repeat(44)).unwrap();
    let (sealing, blind) = (Shares::new(By(first), Some(key)), Shares::new(By(second), None));
    let stored = match sealing.swap(name, None, runner()).await.unwrap() {
        Swapped::Done(stored) => *stored,
        Swapped::Lost => panic!("there was no value"),
    };
    assert_eq!(sealing.read(name).await.unwrap().unwrap().runner, runner());
    assert!(matches!(blind.read(name).await, Err(Error::Sealed { .. })));
    let text = second.get(name).await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(text.expose()).contains("glrt-secret"));
    assert!(sealing.remove(name, &stored).await.unwrap());
}

fn runner() -> SharedRunner {
    let (token, at) = (Token::parse("glrt-secret").unwrap(), Timestamp::from_millis(1_800_000_000_000));
    let lineage = Lineage::first(token.digest());
    let machine = "s_0123456789ab".parse().unwrap();
    SharedRunner {
        id: Some(7.try_into().unwrap()),
        token: Some(SharedToken {
            credential: Credential { token, obtained_at: Some(at), expiry: Expiry::Never },
            lineage,
        }),
        members: vec![Member { machine, host: "build-1".to_owned(), joined_at: at }],
        ..SharedRunner::new("https://gitlab.example.com".parse().unwrap(), Origin::Registered)
    }
}

/// An engine that is used by reference.
struct By<'e, E>(&'e E);

impl<E: Engine> Engine for By<'_, E> {
    type Watch = E::Watch;

    fn object(&self, name: &ShareName) -> String {
        self.0.object(name)
    }

    async fn get(&self, name: &ShareName) -> Result<Option<Value>, Error> {
        self.0.get(name).await
    }

    async fn swap(&self, name: &ShareName, expected: Option<&Value>, value: Option<&Value>) -> Result<bool, Error> {
        self.0.swap(name, expected, value).await
    }

    async fn probe(&self, name: &ShareName) -> Result<(), Error> {
        self.0.probe(name).await
    }

    async fn watch(&self, name: &ShareName) -> Result<E::Watch, Error> {
        self.0.watch(name).await
    }
}
