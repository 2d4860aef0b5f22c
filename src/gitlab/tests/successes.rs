//! How genuine answers are read.

use super::*;
use crate::model::{Expiry, Timestamp};

const DATE: (&str, &str) = ("date", "Sun, 11 Jan 2026 14:39:24 GMT");
const JSON: (&str, &str) = ("content-type", "application/json");

fn expires_at() -> Expiry {
    Expiry::At("2026-02-11T14:39:24Z".parse().unwrap())
}

#[tokio::test]
async fn a_registration_returns_a_runner_and_the_server_time() {
    let body = r#"{"id":12345,"token":"glrt-new","token_expires_at":"2026-02-11T14:39:24.000Z"}"#;
    let server = ScriptedServer::start([Reply::new(201, &[DATE, JSON], body)]).await;
    let parameters = RegisterParameters::default();
    let answer = client().register(&server.site(), &token(REGISTRATION_TOKEN), &parameters).await.unwrap();
    let registered = Registered {
        id: RunnerId::try_new(12345).ok(),
        token: token("glrt-new"),
        expiry: expires_at(),
        shape: Shape::Documented,
    };
    assert_eq!(answer.value, registered);
    assert_eq!(answer.date, Some(Timestamp::from_http_date(DATE.1).unwrap()));
    assert_eq!(Some(answer.request_id.as_str()), server.requests()[0].header("x-request-id"));
}

#[tokio::test]
async fn a_verification_returns_id_and_expiry() {
    let body = r#"{"id":42,"token":"glrt-runner-secret","token_expires_at":"2026-02-11T14:39:24.000Z"}"#;
    let server = ScriptedServer::start([Reply::json(200, body)]).await;
    let answer = client().verify(&server.site(), &token(RUNNER_TOKEN), &system_id(), None).await.unwrap();
    assert_eq!(answer.value, Verified { id: RunnerId::try_new(42).ok(), expiry: expires_at(), legacy: false });
    assert_eq!(answer.date, None);
}

#[tokio::test]
async fn a_plain_200_of_an_old_server_verifies() {
    let plain = [("content-type", "text/plain")];
    for reply in [Reply::new(200, &plain, "200"), Reply::json(200, "\"200\""), Reply::json(200, "200")] {
        let server = ScriptedServer::start([reply]).await;
        let answer = client().verify(&server.site(), &token(RUNNER_TOKEN), &system_id(), None).await.unwrap();
        assert_eq!(answer.value, Verified { id: None, expiry: Expiry::Unknown, legacy: true });
    }
}

#[tokio::test]
async fn an_answer_about_another_token_is_unexpected() {
    let error = failure(Endpoint::Verify, Reply::json(200, r#"{"id":42,"token":"glrt-other"}"#)).await;
    assert_eq!(error.kind(), ErrorKind::UnexpectedAnswer);
    assert_eq!(error.disposition(), Disposition::Unknown { retry_after: None });
    assert!(!format!("{error} {error:?}").contains("glrt-other"));
}

#[tokio::test]
async fn a_reset_returns_the_token_even_if_it_is_the_same() {
    let no_expiry = Shape::Odd("it has no token_expires_at");
    for (body, token_text, expiry, shape) in [
        (
            r#"{"token":"glrtr-t3_x.01.0a","token_expires_at":null}"#,
            "glrtr-t3_x.01.0a",
            Expiry::Never,
            Shape::Documented,
        ),
        (r#"{"token":"glrt-runner-secret"}"#, RUNNER_TOKEN, Expiry::Unknown, no_expiry),
    ] {
        let server = ScriptedServer::start([Reply::json(201, body), Reply::json(201, body)]).await;
        let expected = Reset { token: token(token_text), expiry, shape };
        let by_token = client().reset(&server.site(), &token(RUNNER_TOKEN), &system_id()).await.unwrap();
        assert_eq!(by_token.value, expected);
        let id = RunnerId::try_new(42).unwrap();
        let by_id = client().reset_by_id(&server.site(), id, &token(ACCESS_TOKEN)).await.unwrap();
        assert_eq!(by_id.value, expected);
    }
}

/// Answers with a token that are not quite GitLab's: status, content type, and the fields beside the token.
const ODD_ANSWERS: [(u16, &str, &str); 12] = [
    (201, "application/json", r#""token_expires_at":"0001-01-01T00:00:00Z""#),
    (201, "application/json", r#""token_expires_at":"""#),
    (201, "application/json", r#""token_expires_at":1799678364"#),
    (201, "application/json", r#""token_expires_at":"2027-01-11 14:39:24 UTC""#),
    (201, "application/json", r#""token_expires_at":{"at":[null]}"#),
    (201, "text/json", r#""token_expires_at":null"#),
    (201, "application/vnd.api+json", r#""token_expires_at":null"#),
    (201, "text/plain", r#""token_expires_at":null"#),
    (201, "", r#""token_expires_at":null"#),
    (200, "application/json", r#""token_expires_at":null"#),
    (202, "text/html", r#""novel":[{}]"#),
    (299, "application/json", r#""token_expires_at":null,"novel":"x""#),
];

#[tokio::test]
async fn a_token_in_an_odd_answer_is_never_thrown_away() {
    for (status, content_type, fields) in ODD_ANSWERS {
        for (id, has_id) in [(r#""id":42,"#, true), (r#""id":{},"#, false), ("", false)] {
            let body = format!(r#"{{{id}"token":"glrt-new",{fields}}}"#);
            let reply = Reply::new(status, &[("content-type", content_type)], &body);
            let server = ScriptedServer::start(vec![reply; 5]).await;
            let (client, site) = (client(), server.site());
            let parameters = RegisterParameters::default();
            for registered in [
                client.register(&site, &token(REGISTRATION_TOKEN), &parameters).await.unwrap().value,
                client.register_v1(&site, &token(REGISTRATION_TOKEN), &parameters).await.unwrap().value,
                client.fleet(site.clone(), token(ACCESS_TOKEN)).create(&new_runner()).await.unwrap().value,
            ] {
                assert_eq!((registered.token.expose(), registered.id.is_some()), ("glrt-new", has_id), "{body}");
                assert!(matches!(registered.shape, Shape::Odd(_)), "{status} {content_type} {body}");
                assert!(!matches!(registered.expiry, Expiry::At(_)), "{body}");
            }
            for reset in [
                client.reset(&site, &token(RUNNER_TOKEN), &system_id()).await.unwrap().value,
                client.reset_by_id(&site, super::id(), &token(ACCESS_TOKEN)).await.unwrap().value,
            ] {
                assert_eq!(reset.token.expose(), "glrt-new");
                assert!(matches!(reset.shape, Shape::Odd(_)), "{status} {content_type} {body}");
            }
        }
    }
}

#[tokio::test]
async fn a_registration_of_an_old_release_has_no_expiry() {
    let body = r#"{"id":"42","token":"x"}"#;
    let server = ScriptedServer::start(vec![Reply::json(201, body); 2]).await;
    let parameters = RegisterParameters::default();
    let registered = client().register(&server.site(), &token(REGISTRATION_TOKEN), &parameters).await.unwrap().value;
    let expected = Registered {
        id: RunnerId::try_new(42).ok(),
        token: token("x"),
        expiry: Expiry::Unknown,
        shape: Shape::Documented,
    };
    assert_eq!(registered, expected);
    // The call to create runners is younger than the expiry.
    let created = client().fleet(server.site(), token(ACCESS_TOKEN)).create(&new_runner()).await.unwrap().value;
    assert_eq!(created, Registered { shape: Shape::Odd("it has no token_expires_at"), ..expected });
}

#[tokio::test]
async fn a_verification_survives_an_odd_expiry_and_content_type() {
    for (content_type, expiry) in
        [("application/json", r#""0001-01-01T00:00:00Z""#), ("text/json", "\"\""), ("text/plain", "7")]
    {
        let body = format!(r#"{{"id":42,"token":"glrt-runner-secret","token_expires_at":{expiry}}}"#);
        let reply = Reply::new(200, &[("content-type", content_type)], &body);
        let server = ScriptedServer::start([reply]).await;
        let answer = client().verify(&server.site(), &token(RUNNER_TOKEN), &system_id(), None).await.unwrap();
        assert_eq!(answer.value, Verified { id: RunnerId::try_new(42).ok(), expiry: Expiry::Unknown, legacy: false });
    }
}

#[tokio::test]
async fn a_probe_is_gitlabs_refusal_of_no_token() {
    for body in [r#"{"error":"token is missing"}"#, r#"{"message":"400 (Bad request) \"token\" not given"}"#] {
        let server = ScriptedServer::start([Reply::json(400, body)]).await;
        client().probe(&server.site()).await.unwrap();
        let request = &server.requests()[0];
        assert_eq!((request.line.as_str(), request.body.as_str()), ("POST /api/v4/runners/verify", "{}"));
    }
    for reply in [
        Reply::json(400, r#"{"error":"Bad Request"}"#),
        Reply::json(400, r#"{"message":"token is missing"}"#),
        Reply::json(403, r#"{"error":"token is missing"}"#),
        Reply::json(200, r#"{"id":42,"token":"glrt-x","token_expires_at":null}"#),
        Reply::json(429, r#"{"message":"Executing database migrations. Please retry later."}"#),
        Reply::new(400, &[("content-type", "text/plain")], r#"{"error":"token is missing"}"#),
        Reply::html(200),
        Reply::html(400),
        Reply::html(502),
    ] {
        failure(Endpoint::Probe, reply).await;
    }
}

#[tokio::test]
async fn a_deletion_is_a_204() {
    for endpoint in [Endpoint::DeleteRunner, Endpoint::DeleteManager] {
        let server = ScriptedServer::start([Reply::new(204, &[DATE], "")]).await;
        assert!(call(&client(), &server.site(), endpoint).await.is_ok());
    }
}
