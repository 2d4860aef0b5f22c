#[cfg(any(feature = "etcd", feature = "kubernetes"))]
pub(super) mod http_server;

use super::memory::MemoryEngine;
use super::{AnyEngine, Engine as _, EngineSettings, Error, Settings, Shares, Swapped, Value, Watch as _, open};
use crate::model::{
    Credential, Expiry, Lineage, Member, Origin, Sender, ShareName, SharedChange, SharedPending, SharedRunner,
    SharedToken, Timestamp, TlsFiles,
};
use crate::secret::{SealingKey, Source, Token};

/// The name of an error's variant; also checks whether it passes by itself.
#[cfg(any(feature = "etcd", feature = "kubernetes"))]
pub(super) fn variant(error: &Error) -> &'static str {
    let (variant, is_passing) = match error {
        Error::Unreachable { .. } => ("Unreachable", true),
        Error::Unknown { .. } => ("Unknown", true),
        Error::Answer { .. } => ("Answer", true),
        Error::Unauthenticated { .. } => ("Unauthenticated", false),
        Error::Denied { .. } => ("Denied", false),
        Error::Missing { .. } => ("Missing", false),
        Error::Rejected { .. } => ("Rejected", false),
        other => panic!("{other:?}"),
    };
    assert_eq!(error.is_passing(), is_passing, "{error}");
    variant
}

fn name() -> ShareName {
    "docker-fleet".parse().unwrap()
}

fn key(text: &str) -> Option<SealingKey> {
    Some(SealingKey::from_text(&text.repeat(32)).unwrap())
}

fn token(text: &str) -> SharedToken {
    let token = Token::parse(text).unwrap();
    let lineage = Lineage::first(Token::parse("glrt-first").unwrap().digest()).with_next(token.digest());
    let at = Timestamp::from_millis(1_800_000_000_000);
    SharedToken { credential: Credential { token, obtained_at: Some(at), expiry: Expiry::At(at) }, lineage }
}

fn sender() -> Sender {
    Sender { machine: "s_0123456789ab".parse().unwrap(), boot: u64::MAX }
}

fn runner() -> SharedRunner {
    let at = Timestamp::from_millis(1_800_000_000_000);
    let pending = SharedPending {
        change: SharedChange::Reset,
        sender: sender(),
        token: Some(token("glrt-a").lineage.token()),
        number: 1,
    };
    SharedRunner {
        id: Some(7.try_into().unwrap()),
        token: Some(token("glrt-secret")),
        pending: Some(pending),
        members: vec![Member { machine: sender().machine, host: "build-1".to_owned(), joined_at: at }],
        recoveries: vec![at],
        leaving: Some(sender()),
        ..SharedRunner::new("https://gitlab.example.com".parse().unwrap(), Origin::Registered)
    }
}

async fn written(engine: &MemoryEngine, key: Option<SealingKey>, runner: SharedRunner) -> super::Stored {
    match Shares::new(engine.clone(), key).swap(&name(), None, runner).await.unwrap() {
        Swapped::Done(stored) => *stored,
        Swapped::Lost => panic!("lost"),
    }
}

async fn text(engine: &MemoryEngine) -> String {
    String::from_utf8(engine.get(&name()).await.unwrap().unwrap().expose().to_vec()).unwrap()
}

#[tokio::test]
async fn runner_comes_back_as_it_was_written() {
    for key in [None, key("k")] {
        for expiry in [Expiry::Unknown, Expiry::Never, token("glrt-a").credential.expiry] {
            let (engine, mut runner) = (MemoryEngine::default(), runner());
            runner.token.as_mut().unwrap().credential.expiry = expiry;
            written(&engine, key.clone(), runner.clone()).await;
            let read = Shares::new(engine, key.clone()).read(&name()).await.unwrap().unwrap();
            assert_eq!(read.runner, runner);
        }
    }
    let engine = MemoryEngine::default();
    let empty = SharedRunner::new("https://gitlab.example.com".parse().unwrap(), Origin::Given);
    written(&engine, None, empty.clone()).await;
    assert_eq!(Shares::new(engine, None).read(&name()).await.unwrap().unwrap().runner, empty);
}

#[tokio::test]
async fn of_two_machines_that_write_one_wins() {
    let engine = MemoryEngine::default();
    let first = written(&engine, None, runner()).await;
    let shares = Shares::new(engine, None);
    assert!(matches!(shares.swap(&name(), None, runner()).await.unwrap(), Swapped::Lost));
    // The same runner, written again: the swap of another machine that has read the first one is lost all the same.
    assert!(matches!(shares.swap(&name(), Some(&first), runner()).await.unwrap(), Swapped::Done(_)));
    assert!(matches!(shares.swap(&name(), Some(&first), runner()).await.unwrap(), Swapped::Lost));
}

#[tokio::test]
async fn write_whose_answer_was_lost_is_looked_up() {
    let engine = MemoryEngine::default();
    let shares = Shares::new(engine.clone(), None);
    engine.lose_answers(1);
    let Swapped::Done(first) = shares.swap(&name(), None, runner()).await.unwrap() else { panic!("it was executed") };
    engine.lose_requests(1);
    let unknown = shares.swap(&name(), Some(&first), runner()).await;
    assert!(matches!(unknown, Err(Error::Unknown { .. })), "it can still be executed");
    written_over(&engine, &first).await;
    engine.lose_requests(1);
    assert!(matches!(shares.swap(&name(), Some(&first), runner()).await.unwrap(), Swapped::Lost));
}

async fn written_over(engine: &MemoryEngine, expected: &super::Stored) {
    let other = Shares::new(engine.clone(), None);
    assert!(matches!(other.swap(&name(), Some(expected), runner()).await.unwrap(), Swapped::Done(_)));
}

#[tokio::test]
async fn sealed_token_is_in_no_value() {
    let engine = MemoryEngine::default();
    written(&engine, key("k"), runner()).await;
    assert!(!text(&engine).await.contains("glrt-secret"));
    let read = |key| {
        let shares = Shares::new(engine.clone(), key);
        async move { shares.read(&name()).await.map(|read| read.is_some()) }
    };
    assert!(matches!(read(None).await, Err(Error::Sealed { .. })));
    assert!(matches!(read(key("other")).await, Err(Error::Sealed { .. })));
    assert!(read(key("k")).await.unwrap());
}

#[tokio::test]
async fn machine_with_a_key_believes_no_token_that_is_not_sealed() {
    let engine = MemoryEngine::default();
    written(&engine, None, runner()).await;
    let read = Shares::new(engine, key("k")).read(&name()).await;
    assert!(matches!(read, Err(Error::Unsealed { .. })), "{read:?}");
}

#[tokio::test]
async fn sealed_token_is_bound_to_its_runner_generation_and_times() {
    for (from, to) in [
        ("gitlab.example.com", "gitlab.example.org"),
        ("\"id\":7", "\"id\":8"),
        ("[[1,", "[[1,\"0000000000000000000000000000000000000000000000000000000000000000\"],[1,"),
        ("],[2,", "],[3,"),
        (r#""obtained_at":"2027-01-15T08:00:00Z""#, r#""obtained_at":"2027-01-15T08:00:00.001Z""#),
        (r#""obtained_at":"2027-01-15T08:00:00Z""#, r#""obtained_at":null"#),
        (r#""expires_at":"2027-01-15T08:00:00Z""#, r#""expires_at":"2027-01-15T08:00:00.001Z""#),
        (r#""expires_at":"2027-01-15T08:00:00Z""#, r#""expires_at":null"#),
        (r#","expires_at":"2027-01-15T08:00:00Z""#, ""),
    ] {
        let engine = MemoryEngine::default();
        let stored = written(&engine, key("k"), runner()).await;
        let text = text(&engine).await;
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");
        engine.swap(&name(), Some(&stored.value()), Some(&Value::new(changed.into_bytes()))).await.unwrap();
        let read = Shares::new(engine, key("k")).read(&name()).await;
        // More links that it grew from do not change what it is bound to.
        assert_eq!(read.is_ok(), from == "[[1,", "{from}: {read:?}");
    }
}

#[tokio::test]
async fn value_of_others_is_reported_and_stays() {
    let stored = {
        let engine = MemoryEngine::default();
        written(&engine, None, runner()).await;
        text(&engine).await
    };
    let damaged = [
        String::new(),
        "glrt-secret".to_owned(),
        "{}".to_owned(),
        stored.replace("\"schema\":1", "\"schema\":2"),
        stored.replace("docker-fleet", "other-fleet"),
        stored.replace("glrt-secret", "glrt-other"),
        stored.replace("glrt-secret", "glrt secret"),
        stored.replace("s_0123456789ab", "glrt-secret"),
        stored.replace("],[2,", "],[0,"),
        stored[..stored.len() - 1].to_owned(),
    ];
    for value in damaged {
        let engine = MemoryEngine::default();
        engine.swap(&name(), None, Some(&Value::new(value.clone().into_bytes()))).await.unwrap();
        let error = Shares::new(engine.clone(), None).read(&name()).await.unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }), "{value}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        assert!(matches!(Shares::new(engine.clone(), None).swap(&name(), None, runner()).await, Ok(Swapped::Lost)));
        let shares = Shares::new(engine.clone(), None);
        let found = shares.find(&name()).await.unwrap().unwrap();
        assert!(found.runner.is_err() && found.bytes() == value.len());
        assert!(shares.remove_found(&name(), &found).await.unwrap());
        assert!(Shares::new(engine, None).read(&name()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn runner_that_would_not_fit_is_not_written() {
    let mut runner = runner();
    let member = runner.members.remove(0);
    runner.members = vec![Member { host: "h".repeat(1024), ..member }; 1024];
    let engine = MemoryEngine::default();
    let swapped = Shares::new(engine.clone(), None).swap(&name(), None, runner).await;
    assert!(matches!(swapped, Err(Error::TooLarge { .. })));
    assert_eq!(engine.get(&name()).await.unwrap(), None);
}

#[tokio::test]
async fn change_of_another_machine_is_seen() {
    let engine = MemoryEngine::default();
    let shares = Shares::new(engine.clone(), None);
    let mut watch = shares.watch(&name()).await.unwrap();
    let stored = written(&engine, None, runner()).await;
    let seen = shares.next(&name(), &mut watch).await.unwrap().unwrap();
    assert_eq!(seen.runner, stored.runner);
    assert!(shares.remove(&name(), &seen).await.unwrap());
    assert!(shares.next(&name(), &mut watch).await.unwrap().is_none());
}

#[test]
fn name_of_a_shared_runner_names_an_object_everywhere() {
    for right in ["a", "docker-fleet", "0", &"a".repeat(40)] {
        assert_eq!(right.parse::<ShareName>().unwrap().as_str(), right);
    }
    for wrong in ["", "-a", "a-", "A", "a/b", "a.b", "a_b", "ä", &"a".repeat(41)] {
        assert!(wrong.parse::<ShareName>().is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn any_engine_does_what_its_engine_does() {
    let memory = MemoryEngine::default();
    let any = AnyEngine::Memory(memory.clone());
    let value = Value::new(b"a".to_vec());
    let mut watch = any.watch(&name()).await.unwrap();
    any.probe(&name()).await.unwrap();
    assert!(any.swap(&name(), None, Some(&value)).await.unwrap());
    assert!(!any.swap(&name(), None, Some(&value)).await.unwrap());
    assert_eq!(any.get(&name()).await.unwrap(), memory.get(&name()).await.unwrap());
    assert_eq!(watch.next().await.unwrap(), Some(value));
    assert_eq!(any.object(&name()), memory.object(&name()));
}

fn etcd(password: Option<Source>, encryption_key: Option<Source>) -> Settings {
    let engine = EngineSettings::Etcd {
        endpoints: vec!["http://127.0.0.1:1".parse().unwrap()],
        prefix: "/runner-agent/".to_owned(),
        tls: TlsFiles::default(),
        user: password.map(|password| ("agent".to_owned(), password)),
    };
    Settings { engine, encryption_key, recover: false }
}

#[cfg(not(feature = "etcd"))]
#[tokio::test]
async fn build_without_an_engine_says_where_it_is() {
    let error = open(&etcd(None, None)).await.unwrap_err();
    assert_eq!(error.to_string(), "this build of runner-agent cannot use etcd");
    assert!(error.hint().unwrap().contains("deb, rpm, the tarball"));
    assert!(!error.is_passing());
}

#[cfg(not(feature = "kubernetes"))]
#[tokio::test]
async fn build_without_kubernetes_says_so() {
    let engine = EngineSettings::Kubernetes { kubeconfig: None, namespace: None };
    let error = open(&Settings { engine, encryption_key: None, recover: false }).await.unwrap_err();
    assert_eq!(error.to_string(), "this build of runner-agent cannot use Kubernetes");
}

#[cfg(feature = "etcd")]
#[tokio::test]
async fn store_is_opened_without_being_asked_and_its_secrets_have_to_be_good() {
    let secret = |text: &str| Some(Source::Value { token: Token::parse(text).unwrap(), origin: "a test".to_owned() });
    let shares = open(&etcd(secret("a-password"), secret(&"k".repeat(32)))).await.unwrap();
    assert_eq!(shares.object(&name()), "the etcd key `/runner-agent/docker-fleet`");
    let absent = Some(Source::File("/nonexistent/password".into()));
    let error = open(&etcd(absent, None)).await.unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
    let error = error.to_string();
    assert!(error.starts_with("etcd cannot be used: `password` of [sharing]: cannot read"), "{error}");
    let error = open(&etcd(None, secret("tooshortakey"))).await.unwrap_err().to_string();
    assert!(error.starts_with("etcd cannot be used: `encryption_key` of [sharing]: an encryption key has"), "{error}");
    assert!(!error.contains("tooshortakey"));
}
