//! The disposition of answers on the wire, for every call. The tables of documented answers are beside `refusal`.

use super::*;
use Disposition::{MustAct, Refused};

const UNKNOWN: Disposition = Disposition::Unknown { retry_after: None };
const NOT_EXECUTED: Disposition = Disposition::NotExecuted { retry_after: None };

/// Sends every call and expects these dispositions, in the order of [`LIFECYCLE`]: register, verify, delete runner,
/// delete manager, reset, reset by id.
async fn expect(reply: Reply, expected: [Disposition; 6]) {
    let server = ScriptedServer::start(vec![reply.clone(); 6]).await;
    let client = client_for(&reply);
    for (endpoint, expected) in LIFECYCLE.into_iter().zip(expected) {
        let error = call(&client, &server.site(), endpoint).await.unwrap_err();
        assert_eq!(error.disposition(), expected, "{endpoint:?} {error}");
    }
    assert_eq!(server.requests().len(), 6);
}

fn message(status: u16, text: &str) -> Reply {
    Reply::json(status, &serde_json::json!({ "message": text }).to_string())
}

fn error(status: u16, text: &str) -> Reply {
    Reply::json(status, &serde_json::json!({ "error": text }).to_string())
}

#[tokio::test]
async fn forbidden_refuses_a_runner_token() {
    let refused =
        [MustAct(Reason::RegistrationRefused), Refused, Refused, Refused, Refused, MustAct(Reason::AccessTokenRights)];
    expect(message(403, "403 Forbidden"), refused).await;
}

#[tokio::test]
async fn a_forbidden_without_gitlabs_body_refuses_nothing() {
    for reply in [
        Reply::html(403),
        message(403, "Forbidden"),
        message(403, "403 ForbiddenByPolicy"),
        error(403, "Blocked by policy"),
        Reply::json(403, r#"{"detail":"403 Forbidden"}"#),
        Reply::json(403, r#"{"message":"403 Forbid"#),
        Reply::json(403, r#"["403 Forbidden"]"#),
        Reply::json(403, ""),
        Reply::new(403, &[("content-type", "text/plain")], r#"{"message":"403 Forbidden"}"#),
        Reply::new(403, &[], r#"{"message":"403 Forbidden"}"#),
    ] {
        expect(reply, [NOT_EXECUTED; 6]).await;
    }
}

#[tokio::test]
async fn a_read_only_instance_refuses_nothing() {
    expect(message(403, "You cannot perform write operations on a read-only instance"), [NOT_EXECUTED; 6]).await;
}

#[tokio::test]
async fn a_locked_runner_executes_nothing() {
    expect(message(409, "409 Conflict: Resource lock"), [NOT_EXECUTED; 6]).await;
    expect(message(409, "409 Conflict"), [NOT_EXECUTED; 6]).await;
    expect(message(412, "412 Precondition Failed"), [NOT_EXECUTED; 6]).await;
}

#[tokio::test]
async fn a_throttle_in_any_shape_executes_nothing() {
    let after = |seconds| [Disposition::NotExecuted { retry_after: Some(Duration::from_secs(seconds)) }; 6];
    let json = ("content-type", "application/json");
    let date = ("date", "Sun, 11 Jan 2026 14:39:24 GMT");
    let migrations = r#"{"message":"Executing database migrations. Please retry later."}"#;
    expect(Reply::new(429, &[json, ("retry-after", "60")], migrations), after(60)).await;
    let plain = Reply::new(429, &[("content-type", "text/plain"), ("retry-after", "7")], "Retry later\n");
    expect(plain, after(7)).await;
    let until = ("retry-after", "Sun, 11 Jan 2026 14:40:24 GMT");
    expect(Reply::new(429, &[date, until], ""), after(60)).await;
    let reset = ("ratelimit-resettime", "Sun, 11 Jan 2026 14:39:54 GMT");
    expect(Reply::new(429, &[date, reset, ("retry-after", "7")], ""), after(30)).await;
    expect(Reply::html(429), [NOT_EXECUTED; 6]).await;
    expect(
        Reply::json(429, r#"{"message":{"error":"This endpoint has been requested too many times."}}"#),
        [NOT_EXECUTED; 6],
    )
    .await;
}

#[tokio::test]
async fn only_maintenance_is_a_503_that_executed_nothing() {
    let after = Some(Duration::from_secs(900));
    let headers = [("content-type", "application/json"), ("retry-after", "900")];
    let maintenance = Reply::new(503, &headers, r#"{"message":"GitLab is undergoing maintenance"}"#);
    expect(maintenance, [Disposition::NotExecuted { retry_after: after }; 6]).await;
    let gateway = Reply::new(503, &headers, r#"{"message":"Service Unavailable"}"#);
    expect(gateway, [Disposition::Unknown { retry_after: after }; 6]).await;
    let page = Reply::new(503, &[("content-type", "text/html"), ("retry-after", "900")], "<html>");
    expect(page, [Disposition::Unknown { retry_after: after }; 6]).await;
}

#[tokio::test]
async fn after_a_server_error_the_effect_is_unknown() {
    for status in [408, 500, 502, 503, 504, 520] {
        expect(Reply::html(status), [UNKNOWN; 6]).await;
    }
    expect(message(500, "500 Internal ScriptedServer Error"), [UNKNOWN; 6]).await;
    expect(Reply::html(511), [UNKNOWN; 6]).await;
}

#[tokio::test]
async fn a_redirect_is_reported_and_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let reply = Reply::new(status, &[("location", "https://sso.example.com/sign_in?x=glrt-page-secret")], "<html>");
        expect(reply.clone(), [NOT_EXECUTED; 6]).await;
        let error = failure(Endpoint::Reset, reply).await;
        assert!(error.to_string().contains("to sso.example.com ("), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn after_an_invalid_success_the_effect_is_unknown() {
    for reply in [
        Reply::html(200),
        Reply::html(201),
        Reply::json(200, "{}"),
        Reply::json(201, r#"{"id":42,"token":""}"#),
        Reply::json(201, r#"{"id":42,"token":"glrt-new"#),
        Reply::json(202, ""),
        Reply::new(200, &[], r#"[42,"glrt-runner-secret"]"#),
        Reply::new(201, &[], "glrt-runner-secret"),
    ] {
        expect(reply, [UNKNOWN; 6]).await;
    }
}

#[tokio::test]
async fn after_a_lost_answer_the_effect_is_unknown() {
    let json = "HTTP/1.1 403 X\r\ncontent-type: application/json\r\ncontent-length: 27\r\n\r\n";
    for reply in [
        Reply::Close(Vec::new()),
        Reply::Close(b"HTTP/1.1 2".to_vec()),
        Reply::Close(format!("{json}{{\"message\"").into_bytes()),
        Reply::Close(b"what?\r\n\r\n".to_vec()),
        Reply::Silence,
        Reply::Drip(format!("{json}{{\"message\":\"403 Forbidden\"}}").into_bytes()),
    ] {
        expect(reply, [UNKNOWN; 6]).await;
    }
}

#[tokio::test]
async fn a_huge_answer_is_not_read_to_its_end() {
    let head = "HTTP/1.1 200 X\r\ncontent-type: application/json\r\n";
    let announced = Reply::Keep(format!("{head}content-length: 1048577\r\n\r\n").into_bytes());
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let chunked = Reply::Keep(format!("{head}transfer-encoding: chunked\r\n\r\n{}", chunk.repeat(17)).into_bytes());
    for reply in [announced, chunked] {
        let error = failure(Endpoint::Verify, reply.clone()).await;
        assert_eq!((error.kind(), error.status()), (ErrorKind::TooLarge, Some(200)));
        expect(reply, [UNKNOWN; 6]).await;
    }
    let headers = Reply::Keep(format!("HTTP/1.1 200 X\r\nx: {}\r\n\r\n", "x".repeat(2_000_000)).into_bytes());
    expect(headers, [UNKNOWN; 6]).await;
}

#[tokio::test]
async fn a_broken_connection_does_not_hide_a_throttle() {
    let cut = Reply::Close(b"HTTP/1.1 429 X\r\nretry-after: 5\r\ncontent-length: 100\r\n\r\nRetry".to_vec());
    expect(cut, [Disposition::NotExecuted { retry_after: Some(Duration::from_secs(5)) }; 6]).await;
}

#[tokio::test]
async fn exit_codes_follow_the_class() {
    for (reply, class) in [
        (message(403, "403 Forbidden"), ErrorClass::RefusedByServer),
        (error(400, "token is missing"), ErrorClass::RefusedByServer),
        (message(404, "no Route matched with those values"), ErrorClass::Unreachable),
        (error(405, "405 Not Allowed"), ErrorClass::RefusedByServer),
        (Reply::html(200), ErrorClass::Unreachable),
        (Reply::html(429), ErrorClass::Unreachable),
        (Reply::Close(Vec::new()), ErrorClass::Unreachable),
    ] {
        assert_eq!(failure(Endpoint::Reset, reply).await.class(), class);
    }
}
