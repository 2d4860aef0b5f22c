use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};

use super::*;
use crate::sharing::tests::http_server::{HttpServer, Reply, Request};
use crate::sharing::tests::variant;

const LOGIN: &str = "/v3/auth/authenticate";
const TXN: &str = "/v3/kv/txn";
const RANGE: &str = "/v3/kv/range";

fn name() -> ShareName {
    "docker-fleet".parse().unwrap()
}

fn value(text: &str) -> Value {
    Value::new(text.as_bytes().to_vec())
}

/// A member of etcd with one key.
#[derive(Default)]
struct Member {
    revision: u64,
    key: Option<(u64, String)>,
    /// The session that it accepts, if it has users.
    session: Option<u32>,
    logins: u32,
    /// Whether the next transaction is lost on its way.
    loses: bool,
}

impl Member {
    fn answer(&mut self, request: &Request) -> Option<Reply> {
        let question: Json = serde_json::from_str(&request.body).unwrap();
        if request.path == LOGIN {
            self.logins += 1;
            self.session = self.session.map(|_| self.logins);
            return Some(ok(&json!({"token": self.logins.to_string()})));
        }
        if self
            .session
            .map(|session| session.to_string())
            .filter(|it| request.authorization.as_ref() != Some(it))
            .is_some()
        {
            return Some(refusal_of(401, 16, "etcdserver: invalid auth token"));
        }
        match request.path.as_str() {
            TXN if self.loses => None,
            TXN => Some(ok(&json!({"succeeded": self.transact(&question)}))),
            RANGE => {
                let kvs = self
                    .key
                    .iter()
                    .map(|(revision, value)| json!({"mod_revision": revision.to_string(), "value": value}));
                Some(ok(&json!({"header": {"revision": self.revision.to_string()}, "kvs": kvs.collect::<Vec<_>>()})))
            }
            _ => Some(ok(&json!({}))),
        }
    }

    fn transact(&mut self, question: &Json) -> bool {
        let compare = &question["compare"][0];
        let (revision, value) = self.key.clone().unwrap_or_default();
        let holds = match compare["target"].as_str().unwrap() {
            "CREATE" => self.key.is_none(),
            "MOD" => compare["mod_revision"].as_str().unwrap().parse() == Ok(revision),
            _ => compare["value"] == value,
        };
        if holds {
            self.revision += 1;
            let put = &question["success"][0]["request_put"]["value"];
            self.key = Some((self.revision, put.as_str().unwrap().to_owned()));
        }
        holds
    }
}

fn ok(answer: &Json) -> Reply {
    (200, answer.to_string())
}

fn refusal_of(status: u16, code: u32, message: &str) -> Reply {
    (status, json!({"code": code, "error": message, "message": message}).to_string())
}

async fn member(member: Member) -> (HttpServer, Arc<Mutex<Member>>) {
    let member = Arc::new(Mutex::new(member));
    let served = Arc::clone(&member);
    (HttpServer::start(move |request| served.lock().unwrap().answer(request)).await, member)
}

fn etcd(servers: &[&HttpServer], user: Option<(&str, &str)>) -> Etcd {
    let endpoints = servers.iter().map(|server| server.url.parse().unwrap()).collect();
    let user = user.map(|(name, password)| (name.to_owned(), Password::parse(password).unwrap()));
    let etcd = Etcd::new(Config { endpoints, prefix: "/p/".to_owned(), tls: TlsFiles::default(), user }).unwrap();
    etcd.preferred.set(0);
    etcd
}

#[tokio::test]
async fn requests_that_come_together_wait_for_one_login() {
    let (server, member) = member(Member { session: Some(0), ..Member::default() }).await;
    let etcd = etcd(&[&server], Some(("agent", "secret")));
    let name = name();
    let (read, watch, probe) = tokio::join!(etcd.get(&name), etcd.watch(&name), etcd.probe(&name));
    assert!(read.is_ok() && watch.is_ok() && probe.is_ok(), "{read:?} {watch:?} {probe:?}");
    assert_eq!(server.requests(LOGIN).len(), 1);
    // The session ends while two requests use it.
    member.lock().unwrap().session = Some(7);
    let (first, second) = tokio::join!(etcd.get(&name), etcd.get(&name));
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert_eq!(server.requests(LOGIN).len(), 2);
    // What a request with the former session learns late says nothing of the present one.
    etcd.logins.forget(&Some(Zeroizing::new("1".to_owned())));
    assert!(etcd.get(&name).await.is_ok());
    assert_eq!(server.requests(LOGIN).len(), 2);
}

#[tokio::test]
async fn message_names_the_act_the_object_the_address_and_the_user_and_not_the_password() {
    let refused = || refusal_of(400, 3, "etcdserver: authentication failed, invalid user ID or password");
    let server = HttpServer::start(move |_| Some(refused())).await;
    let (etcd, name) = (etcd(&[&server], Some(("agent", "a-wrong-password"))), name());
    let address = etcd.config.endpoints[0].to_string();
    let error = etcd.get(&name).await.unwrap_err();
    let expected = format!(
        "etcd does not accept the credentials of the user `agent` at {address} to read the etcd key `/p/docker-fleet`: etcdserver: authentication failed, invalid user ID or password"
    );
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().unwrap().contains("`username` and `password`"));
    drop(server);
    let failure = || Failure::NotExecuted(format!("{address}: refused"));
    for (kind, act) in [(Kind::Read, "read"), (Kind::Write, "write")] {
        let error = etcd.error(&name, kind, failure());
        let expected = format!(
            "etcd cannot be reached: no answer to {act} the etcd key `/p/docker-fleet` as the user `agent`: {address}: refused"
        );
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().unwrap().contains("`endpoints`") && !error.to_string().contains("a-wrong-password"));
    }
}

#[tokio::test]
async fn failed_login_speaks_for_all_that_have_waited_for_it() {
    let refused = || refusal_of(400, 3, "etcdserver: authentication failed, invalid user ID or password");
    let server = HttpServer::start(move |_| Some(refused())).await;
    let (etcd, name) = (etcd(&[&server], Some(("agent", "wrong"))), name());
    let (first, second) = tokio::join!(etcd.get(&name), etcd.get(&name));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(matches!(error, Error::Unauthenticated { .. }), "{error:?}");
    }
    assert_eq!(server.requests(LOGIN).len(), 1);
    assert!(etcd.get(&name).await.is_err());
    assert_eq!(server.requests(LOGIN).len(), 1);
    // A later request tries again: the password may be right by then.
    if let Some((_, at)) = etcd.logins.last.borrow_mut().as_mut() {
        *at -= REFUSED_LOGIN;
    }
    assert!(etcd.get(&name).await.is_err());
    assert_eq!(server.requests(LOGIN).len(), 2);
}

#[tokio::test]
async fn cancelled_login_leaves_the_turn_to_the_next() {
    let (server, _member) = member(Member { session: Some(0), ..Member::default() }).await;
    let (etcd, name) = (etcd(&[&server], Some(("agent", "secret"))), name());
    let mut given_up = Box::pin(etcd.get(&name));
    assert!(futures_util::FutureExt::now_or_never(&mut given_up).is_none());
    drop(given_up);
    assert!(etcd.get(&name).await.is_ok());
}

#[tokio::test]
async fn paused_member_gets_no_login() {
    let paused = HttpServer::start(|_| None).await;
    let (running, _member) = member(Member { session: Some(0), ..Member::default() }).await;
    let etcd = etcd(&[&paused, &running], Some(("agent", "secret")));
    assert!(etcd.get(&name()).await.is_ok());
    assert_eq!((paused.requests(LOGIN).len(), running.requests(LOGIN).len()), (0, 1));
}

#[tokio::test]
async fn swap_that_a_paused_member_holds_up_is_sent_to_another_one() {
    let paused = HttpServer::start(|_| None).await;
    let (running, _member) = member(Member::default()).await;
    let (etcd, name) = (etcd(&[&paused, &running], None), name());
    let (first, second) = (value("first"), value("second"));
    assert!(etcd.swap(&name, None, Some(&first)).await.unwrap());
    etcd.preferred.set(0);
    assert!(etcd.swap(&name, Some(&first), Some(&second)).await.unwrap());
    assert_eq!((paused.requests(TXN).len(), running.requests(TXN).len()), (1, 2));
    assert_eq!(etcd.get(&name).await.unwrap(), Some(second));
}

#[tokio::test]
async fn user_and_password_reach_etcd_as_they_are() {
    let (user, password) = ("o'brien \"$HOME\" ü\\", "pa$$ \"word\" 'é' \\ ✓ `id`");
    let (server, _member) = member(Member { session: Some(0), ..Member::default() }).await;
    etcd(&[&server], Some((user, password))).get(&name()).await.unwrap();
    let sent: Json = serde_json::from_str(&server.requests(LOGIN)[0].body).unwrap();
    assert_eq!(sent, json!({"name": user, "password": password}));
}

#[tokio::test]
async fn create_that_comes_after_another_one_was_removed_fails() {
    let (server, member) = member(Member::default()).await;
    let (etcd, name) = (etcd(&[&server], None), name());
    for round in 0..2 {
        // Its caller gives up, and it is still on its way.
        member.lock().unwrap().loses = true;
        let (late, given_up) = (value("late"), Duration::from_millis(1));
        let sent = async {
            while server.requests(TXN).len() == round * 3 {
                tokio::time::sleep(given_up).await;
            }
        };
        tokio::select! {
            swapped = etcd.swap(&name, None, Some(&late)) => panic!("{swapped:?}"),
            () = sent => {}
        }
        member.lock().unwrap().loses = false;
        let late = server.requests(TXN).pop().unwrap();
        let other = value("another machine's");
        assert!(etcd.swap(&name, None, Some(&other)).await.unwrap());
        assert!(etcd.swap(&name, Some(&other), None).await.unwrap());
        assert_eq!(etcd.get(&name).await.unwrap(), None);
        let question = serde_json::from_str(&late.body).unwrap();
        assert!(!member.lock().unwrap().transact(&question), "round {round}");
    }
}

#[tokio::test]
async fn each_answer_is_what_it_says_of_the_request() {
    let page = || (502, "<html>a proxy</html>".to_owned());
    // What a read gets, and what a write gets; the latter is "Unknown" if it may be executed.
    let table = [
        (refusal_of(400, 3, "etcdserver: request is too large"), "Rejected", "Rejected"),
        (refusal_of(400, 3, "etcdserver: user name is empty"), "Unauthenticated", "Unauthenticated"),
        (refusal_of(400, 3, "etcdserver: revision of auth store is old"), "Unauthenticated", "Unauthenticated"),
        (refusal_of(404, 5, "Not Found"), "Unreachable", "Unreachable"),
        (refusal_of(403, 7, "etcdserver: permission denied"), "Denied", "Denied"),
        (refusal_of(429, 8, "etcdserver: mvcc: database space exceeded"), "Rejected", "Rejected"),
        (refusal_of(429, 8, "grpc: received message larger than max (3 vs. 2)"), "Rejected", "Rejected"),
        (refusal_of(429, 8, "etcdserver: too many requests"), "Unreachable", "Unknown"),
        (refusal_of(400, 9, "etcdserver: not that"), "Rejected", "Rejected"),
        (refusal_of(409, 10, "aborted"), "Unreachable", "Unknown"),
        (refusal_of(400, 11, "etcdserver: mvcc: required revision has been compacted"), "Unreachable", "Unknown"),
        (refusal_of(501, 12, "Method Not Allowed"), "Unreachable", "Unreachable"),
        (refusal_of(500, 13, "internal"), "Unreachable", "Unknown"),
        (refusal_of(503, 14, "etcdserver: no leader"), "Unreachable", "Unknown"),
        (refusal_of(401, 16, "etcdserver: invalid auth token"), "Unauthenticated", "Unauthenticated"),
        (refusal_of(500, 2, "unknown"), "Unreachable", "Unknown"),
        (refusal_of(504, 4, "context deadline exceeded"), "Unreachable", "Unknown"),
        ((200, "<html>a portal</html>".to_owned()), "Answer", "Unknown"),
        ((200, "{\"kvs\": [".to_owned()), "Answer", "Unknown"),
        ((302, String::new()), "Unreachable", "Unknown"),
        ((401, page().1), "Unreachable", "Unknown"),
        ((403, page().1), "Unreachable", "Unknown"),
        ((404, "404 page not found".to_owned()), "Unreachable", "Unreachable"),
        ((405, page().1), "Unreachable", "Unreachable"),
        ((413, page().1), "Rejected", "Rejected"),
        ((429, page().1), "Unreachable", "Unknown"),
        ((500, page().1), "Unreachable", "Unknown"),
        (page(), "Unreachable", "Unknown"),
        ((503, page().1), "Unreachable", "Unknown"),
        ((504, page().1), "Unreachable", "Unknown"),
    ];
    for ((status, body), read, written) in table {
        let reply = (status, body.clone());
        let server = HttpServer::start(move |_| Some(reply.clone())).await;
        let (etcd, name) = (etcd(&[&server], None), name());
        let error = etcd.get(&name).await.unwrap_err();
        assert_eq!(variant(&error), read, "{status} {body}: {error}");
        let error = etcd.swap(&name, Some(&value("a")), None).await.unwrap_err();
        assert_eq!(variant(&error), written, "{status} {body}: {error}");
        let error = etcd.probe(&name).await.unwrap_err();
        assert_eq!(variant(&error), if written == "Unknown" { "Unreachable" } else { written }, "{status} {body}");
        assert!(!error.to_string().contains("html"), "{error}");
    }
}

#[tokio::test]
async fn watch_that_ends_in_any_way_is_begun_anew() {
    for (message, is_ended) in [
        (r#"{"result":{"created":true}}"#, true),
        (r#"{"error":{"grpc_code":14,"message":"no leader"}}"#, true),
        (r#"{"result":{"canceled":true,"compact_revision":"7"}}"#, true),
        (r#"{"result":{"events":[{"kv":{"mod_revision":"2","value":"YQ=="#, true),
        ("<html>", true),
        (r#"{"result":{"events":[{"kv":{"mod_revision":"2","value":"YQ=="}}]}}"#, false),
        (r#"{"result":{"events":[{"kv":{"mod_revision":"2"}}]}}"#, false),
        (r#"{"result":{"events":[{"type":"DELETE","kv":{"mod_revision":"2"}}]}}"#, false),
    ] {
        let server = HttpServer::start(move |request| {
            let range = ok(&json!({"header": {"revision": "1"}}));
            Some(if request.path == RANGE { range } else { (200, message.to_owned()) })
        });
        let server = server.await;
        let mut watch = etcd(&[&server], None).watch(&name()).await.unwrap();
        match watch.next().await {
            Ok(seen) => {
                assert!(!is_ended && seen == message.contains("YQ==").then(|| value("a")), "{message}: {seen:?}")
            }
            Err(error) => assert!(is_ended && variant(&error) == "Unreachable", "{message}: {error}"),
        }
    }
}
