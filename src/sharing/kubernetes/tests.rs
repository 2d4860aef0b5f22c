use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::log::Captured;
use crate::sharing::tests::http_server::{HttpServer, Reply, Request};
use crate::sharing::tests::variant;

fn name() -> ShareName {
    "docker-fleet".parse().unwrap()
}

fn value(text: &str) -> Value {
    Value::new(text.as_bytes().to_vec())
}

fn secret(present: Option<&str>, version: &str) -> Reply {
    let data = present.map(|text| json!({FIELD: BASE64.encode(text)}));
    let metadata = json!({"name": "runner-agent-docker-fleet", "uid": "u", "resourceVersion": version});
    (200, json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}).to_string())
}

fn status(code: u16, message: &str) -> Reply {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "R", "code": code});
    (code, status.to_string())
}

async fn connect(server: &HttpServer) -> (Kubernetes, TempDir) {
    connect_to(&server.url).await
}

async fn connect_to(url: &str) -> (Kubernetes, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "n"}}],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    (Kubernetes::new(Config { kubeconfig: Some(path), namespace: None }).await.unwrap(), directory)
}

async fn answering(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> HttpServer {
    HttpServer::start(move |request| Some(answer(request))).await
}

const PAGE: &str = "<html>a proxy</html>";

#[tokio::test]
async fn each_answer_is_what_it_says_of_the_request() {
    let page = |code: u16| (code, PAGE.to_owned());
    // What a read gets, and what a write gets; the latter is "Unknown" if it may be executed.
    let table = [
        (status(400, "the request is bad"), "Rejected", "Rejected"),
        (status(401, "Unauthorized"), "Unauthenticated", "Unauthenticated"),
        (status(403, "secrets is forbidden"), "Denied", "Denied"),
        (status(403, "admission webhook \"w\" denied the request"), "Rejected", "Rejected"),
        (status(404, "secrets \"runner-agent-docker-fleet\" not found"), "Missing", "Missing"),
        (status(405, "method not allowed"), "Rejected", "Rejected"),
        (status(409, "the object has been modified"), "Answer", "Answer"),
        (status(410, "too old resource version"), "Answer", "Answer"),
        (status(413, "Request entity too large"), "Rejected", "Rejected"),
        (status(415, "no such media type"), "Rejected", "Rejected"),
        (status(422, "field is immutable when `immutable` is set"), "Rejected", "Rejected"),
        (status(429, "too many requests"), "Unreachable", "Unreachable"),
        (status(500, "etcdserver: request timed out"), "Unreachable", "Unknown"),
        (status(503, "apiserver is shutting down"), "Unreachable", "Unknown"),
        (status(504, "Timeout: request did not complete"), "Unreachable", "Unknown"),
        ((429, "Too many requests, please try again later.".to_owned()), "Unreachable", "Unreachable"),
        (page(400), "Unreachable", "Unknown"),
        (page(401), "Unreachable", "Unknown"),
        (page(403), "Unreachable", "Unknown"),
        (page(404), "Unreachable", "Unknown"),
        (page(413), "Rejected", "Rejected"),
        (page(422), "Unreachable", "Unknown"),
        (page(502), "Unreachable", "Unknown"),
        (page(200), "Unreachable", "Unknown"),
    ];
    for ((code, body), read, written) in table {
        let reply = (code, body.clone());
        let refused = answering(move |_| reply.clone()).await;
        let reply = (code, body.clone());
        let changed = answering(move |request| match request.method.as_str() {
            "GET" => secret(Some("a"), "1"),
            _ => reply.clone(),
        });
        let (changed, name) = (changed.await, name());
        let (kubernetes, _directory) = connect(&refused).await;
        let error = kubernetes.get(&name).await.unwrap_err();
        assert_eq!(variant(&error), read, "{code} {body}: {error}");
        assert!(!error.to_string().contains("html"), "{error}");
        assert_eq!(variant(&kubernetes.watch(&name).await.unwrap_err()), read, "{code} {body}");
        let (kubernetes, _directory) = connect(&changed).await;
        let error = kubernetes.swap(&name, Some(&value("a")), None).await.unwrap_err();
        assert_eq!(variant(&error), written, "{code} {body}: {error}");
        let error = kubernetes.probe(&name).await.unwrap_err();
        assert_eq!(variant(&error), if written == "Unknown" { "Unreachable" } else { written }, "{code} {body}");
    }
}

#[tokio::test]
async fn failed_test_is_a_lost_swap_only_if_the_value_is_another_one() {
    // What the Secret has before and after the patch, with its versions, and what the swap from `a`, or from none, gets.
    for (expected, before, after, outcome) in [
        (Some("a"), (Some("a"), "1"), (Some("b"), "2"), "lost"),
        (Some("a"), (Some("a"), "1"), (Some("a"), "1"), "Rejected"),
        (None, (None, "1"), (Some("b"), "2"), "lost"),
        (None, (None, "1"), (None, "1"), "Rejected"),
        // A label was changed meanwhile.
        (None, (None, "1"), (None, "2"), "Answer"),
    ] {
        let is_patched = std::sync::atomic::AtomicBool::new(false);
        let server = answering(move |request| {
            let order = std::sync::atomic::Ordering::SeqCst;
            if request.method == "PATCH" {
                is_patched.store(true, order);
                return status(422, "the server rejected our request due to an error in our request");
            }
            let (text, version) = if is_patched.load(order) { after } else { before };
            secret(text, version)
        });
        let server = server.await;
        let (kubernetes, _directory) = connect(&server).await;
        let swapped = kubernetes.swap(&name(), expected.map(value).as_ref(), Some(&value("c"))).await;
        let seen = match &swapped {
            Ok(false) => "lost",
            Ok(true) => "done",
            Err(error) => variant(error),
        };
        assert_eq!(seen, outcome, "{expected:?} {before:?} {after:?}: {swapped:?}");
    }
}

#[tokio::test]
async fn failures_are_not_logged_by_the_library_and_show_nothing_of_the_secret() {
    let log = Captured::start();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let (unreachable, _directory) = connect_to(&closed).await;
    assert!(unreachable.get(&name()).await.is_err());
    // A token in a field of another type: serde names what it has found.
    let damaged = (200, r#"{"metadata": {}, "data": "glrt-secret"}"#.to_owned());
    for reply in [status(403, "forbidden"), status(500, "failed"), (502, PAGE.to_owned()), damaged] {
        let server = answering(move |_| reply.clone()).await;
        let (kubernetes, _directory) = connect(&server).await;
        let error = kubernetes.get(&name()).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("glrt-secret"), "{error}");
    }
    assert_eq!(log.text(), "");
}

#[tokio::test]
async fn silent_connections_cost_one_time_limit_together() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let silent = std::sync::Arc::new(AtomicUsize::new(0));
    let up_to = std::sync::Arc::clone(&silent);
    let server = HttpServer::start(move |request| {
        let is_silent = request.connection <= up_to.load(Ordering::Relaxed);
        (!is_silent).then(|| secret(Some("a"), "1"))
    })
    .await;
    let (kubernetes, _directory) = connect(&server).await;
    let name = name();
    let (first, second, third) = tokio::join!(kubernetes.get(&name), kubernetes.get(&name), kubernetes.get(&name));
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    let opened = server
        .requests("/api/v1/namespaces/n/secrets/runner-agent-docker-fleet")
        .iter()
        .map(|request| request.connection)
        .max()
        .unwrap();
    assert!(opened > 1, "the requests went over several connections");
    silent.store(opened, Ordering::Relaxed);
    assert!(matches!(kubernetes.get(&name).await, Err(Error::Unreachable { .. })));
    assert!(kubernetes.get(&name).await.is_ok());
}
