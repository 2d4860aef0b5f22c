//! What is sent to the server, and what errors and logs show of it.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::*;

fn info() -> Info {
    Info {
        name: "runner-agent".to_owned(),
        version: "0.1.0".to_owned(),
        revision: None,
        platform: "linux".to_owned(),
        architecture: "amd64".to_owned(),
    }
}

#[tokio::test]
async fn every_call_has_its_method_path_and_body() {
    for (endpoint, line, body) in [
        (Endpoint::Register, "POST /api/v4/runners", json!({ "token": REGISTRATION_TOKEN })),
        (Endpoint::Verify, "POST /api/v4/runners/verify", json!({ "token": RUNNER_TOKEN, "system_id": SYSTEM_ID })),
        (Endpoint::DeleteRunner, "DELETE /api/v4/runners", json!({ "token": RUNNER_TOKEN })),
        (
            Endpoint::DeleteManager,
            "DELETE /api/v4/runners/managers",
            json!({ "token": RUNNER_TOKEN, "system_id": SYSTEM_ID }),
        ),
        (
            Endpoint::Reset,
            "POST /api/v4/runners/reset_authentication_token",
            json!({ "token": RUNNER_TOKEN, "system_id": SYSTEM_ID }),
        ),
        (Endpoint::ResetById, "POST /api/v4/runners/42/reset_authentication_token", json!({})),
    ] {
        let server = ScriptedServer::start([Reply::html(500)]).await;
        call(&client(), &server.site(), endpoint).await.unwrap_err();
        let request = &server.requests()[0];
        assert_eq!((request.line.as_str(), request.json()), (line, body));
    }
}

#[tokio::test]
async fn headers_name_the_format_client_and_request_id() {
    for &endpoint in Endpoint::ALL {
        let server = ScriptedServer::start([Reply::html(500)]).await;
        let error = call(&client(), &server.site(), endpoint).await.unwrap_err();
        let request = &server.requests()[0];
        let has_body = !request.line.starts_with("GET ");
        assert_eq!(request.header("content-type"), has_body.then_some("application/json"));
        assert_eq!(request.header("accept"), Some("application/json"));
        let user_agent = request.header("user-agent").unwrap();
        assert!(
            user_agent.starts_with(concat!("runner-agent/", env!("CARGO_PKG_VERSION"), " (linux/")),
            "{user_agent}"
        );
        assert_eq!(request.header("x-request-id"), Some(error.request_id()));
        assert!(error.request_id().len() == 32 && error.request_id().bytes().all(|byte| byte.is_ascii_hexdigit()));
        let access_token = (endpoint.token_kind() == endpoint::TokenKind::Access).then_some(ACCESS_TOKEN);
        assert_eq!(request.header("private-token"), access_token);
        for absent in ["cookie", "referer", "runner-token", "authorization", "accept-encoding"] {
            assert_eq!(request.header(absent), None);
        }
        assert!(!request.head().contains(RUNNER_TOKEN) && !request.head().contains(REGISTRATION_TOKEN));
    }
}

#[tokio::test]
async fn a_registration_sends_every_parameter() {
    let server = ScriptedServer::start([Reply::html(500)]).await;
    let parameters = RegisterParameters {
        description: Some("Bau \"1\"".to_owned()),
        maintenance_note: Some("note".to_owned()),
        tag_list: vec!["linux".to_owned(), "docker".to_owned()],
        run_untagged: Some(false),
        locked: Some(true),
        paused: Some(false),
        access_level: Some(AccessLevel::RefProtected),
        maximum_timeout: Some(Duration::from_secs(3600)),
        info: Some(info()),
    };
    client().register(&server.site(), &token(REGISTRATION_TOKEN), &parameters).await.unwrap_err();
    let expected = json!({
        "token": REGISTRATION_TOKEN, "description": "Bau \"1\"", "maintenance_note": "note",
        "tag_list": "linux,docker", "run_untagged": false, "locked": true, "paused": false,
        "access_level": "ref_protected", "maximum_timeout": 3600,
        "info": { "name": "runner-agent", "version": "0.1.0", "platform": "linux", "architecture": "amd64" },
    });
    assert_eq!(server.requests()[0].json(), expected);
}

#[tokio::test]
async fn a_verification_can_send_the_runner_info() {
    let server = ScriptedServer::start([Reply::html(500)]).await;
    client().verify(&server.site(), &token(RUNNER_TOKEN), &system_id(), Some(&info())).await.unwrap_err();
    assert_eq!(server.requests()[0].json()["info"]["architecture"], "amd64");
}

#[tokio::test]
async fn relative_roots_and_trailing_slashes_are_handled() {
    for (root, line) in [
        ("", "POST /api/v4/runners/verify"),
        ("/", "POST /api/v4/runners/verify"),
        ("/ci", "POST /api/v4/runners/verify"),
        ("/gitlab", "POST /gitlab/api/v4/runners/verify"),
        ("/gitlab/", "POST /gitlab/api/v4/runners/verify"),
        ("/a/b/ci/", "POST /a/b/api/v4/runners/verify"),
    ] {
        let server = ScriptedServer::start([Reply::html(500)]).await;
        let site = site(&format!("http://{}{root}", server.authority));
        call(&client(), &site, Endpoint::Verify).await.unwrap_err();
        assert_eq!(server.requests()[0].line, line, "{root}");
        assert_eq!(server.requests()[0].header("host"), Some(server.authority.as_str()));
    }
}

#[tokio::test]
async fn the_servers_message_is_shown_without_the_token() {
    for (endpoint, secret) in [
        (Endpoint::Register, REGISTRATION_TOKEN),
        (Endpoint::Verify, RUNNER_TOKEN),
        (Endpoint::ResetById, ACCESS_TOKEN),
    ] {
        let body = json!({ "message": { "token": [format!("{secret} is\u{7} bad")] } }).to_string();
        let error = failure(endpoint, Reply::json(400, &body)).await;
        assert_eq!(error.server_message(), Some("token: [token] is bad"));
        assert!(error.to_string().contains("(400: token: [token] is bad; request "), "{error}");
        assert!(!format!("{error} {error:?}").contains(secret));
    }
}

#[tokio::test]
async fn an_html_page_is_reported_and_not_shown() {
    let error = failure(Endpoint::Verify, Reply::html(403)).await;
    assert!(error.to_string().contains("not a GitLab API answer, an HTML page (403; request "), "{error}");
    assert!(!format!("{error:?}").contains("page-secret"));
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn each_request_logs_one_line_without_a_token() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // With a single subscriber, tracing caches the decision of the first thread about each line for all threads, and
    // the threads of other tests have no subscriber.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let guard = tracing::subscriber::set_default(subscriber);
    for &endpoint in Endpoint::ALL {
        for reply in [Reply::html(500), Reply::json(403, r#"{"message":"403 Forbidden"}"#), Reply::Close(Vec::new())] {
            failure(endpoint, reply).await;
        }
    }
    let server = ScriptedServer::start([Reply::json(200, r#"{"id":42,"token":"glrt-runner-secret"}"#)]).await;
    call(&client(), &server.site(), Endpoint::Verify).await.unwrap();
    drop(guard);
    let log = log.text();
    let ours: Vec<_> = log.lines().filter(|line| line.contains("runner_agent")).collect();
    assert_eq!(ours.len(), 3 * Endpoint::ALL.len() + 1, "{log}");
    assert!(ours.iter().all(|line| line.contains("request_id=") && line.contains("endpoint=")), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
