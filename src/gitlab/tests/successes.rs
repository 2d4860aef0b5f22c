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
    let registered =
        Registered { id: RunnerId::try_new(12345).unwrap(), token: token("glrt-new"), expiry: expires_at() };
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
    for (body, token_text, expiry) in [
        (r#"{"token":"glrtr-t3_x.01.0a","token_expires_at":null}"#, "glrtr-t3_x.01.0a", Expiry::Never),
        (r#"{"token":"glrt-runner-secret"}"#, RUNNER_TOKEN, Expiry::Unknown),
    ] {
        let server = ScriptedServer::start([Reply::json(201, body), Reply::json(201, body)]).await;
        let expected = Reset { token: token(token_text), expiry };
        let by_token = client().reset(&server.site(), &token(RUNNER_TOKEN), &system_id()).await.unwrap();
        assert_eq!(by_token.value, expected);
        let id = RunnerId::try_new(42).unwrap();
        let by_id = client().reset_by_id(&server.site(), id, &token(ACCESS_TOKEN)).await.unwrap();
        assert_eq!(by_id.value, expected);
    }
}

#[tokio::test]
async fn a_deletion_is_a_204() {
    for endpoint in [Endpoint::DeleteRunner, Endpoint::DeleteManager] {
        let server = ScriptedServer::start([Reply::new(204, &[DATE], "")]).await;
        assert!(call(&client(), &server.site(), endpoint).await.is_ok());
    }
}
