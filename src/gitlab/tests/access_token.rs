//! The calls of an access token about itself.

use serde_json::json;

use super::*;
use Disposition::{Gone, MustAct, Unsupported};

const NEW: &str = r#"{"id":43,"name":"fleet","revoked":false,"scopes":["api"],"active":true,"expires_at":"2026-04-01","token":"glpat-new"}"#;
const ROTATIONS: [Endpoint; 3] =
    [Endpoint::RotateAccessToken, Endpoint::RotateGroupAccessToken, Endpoint::RotateProjectAccessToken];

async fn rotate(site: &Site) -> Result<RotatedAccessToken, Error> {
    let day = Timestamp::from_date("2026-04-01").unwrap();
    let rotated = client().rotate_access_token(site, &token(ACCESS_TOKEN), &AccessTokenOwner::Personal, day).await;
    rotated.map(|answer| answer.value)
}

#[tokio::test]
async fn each_owner_has_its_call() {
    for (endpoint, line, body) in [
        (Endpoint::ShowAccessToken, "GET /api/v4/personal_access_tokens/self", ""),
        (Endpoint::RotateAccessToken, "POST /api/v4/personal_access_tokens/self/rotate", "2026-04-01"),
        (Endpoint::RotateGroupAccessToken, "POST /api/v4/groups/a%2Fb/access_tokens/self/rotate", "2026-04-01"),
        (Endpoint::RotateProjectAccessToken, "POST /api/v4/projects/a%2Fb/access_tokens/self/rotate", "2026-04-01"),
    ] {
        let server = ScriptedServer::start([Reply::html(500)]).await;
        call(&client(), &server.site(), endpoint).await.unwrap_err();
        let request = &server.requests()[0];
        assert_eq!((request.line.as_str(), request.header("private-token")), (line, Some(ACCESS_TOKEN)));
        let expected = if body.is_empty() { String::new() } else { json!({ "expires_at": body }).to_string() };
        assert_eq!(request.body, expected);
    }
}

#[tokio::test]
async fn a_rotation_brings_the_new_token_and_its_expiry() {
    let server = ScriptedServer::start([Reply::json(200, NEW)]).await;
    let rotated = rotate(&server.site()).await.unwrap();
    assert_eq!((rotated.token.expose(), rotated.oddity), ("glpat-new", None));
    assert_eq!(rotated.facts.unwrap().expires_at.unwrap().date(), "2026-04-01");
}

#[tokio::test]
async fn a_new_access_token_in_an_odd_answer_is_never_thrown_away() {
    let plain = ("content-type", "text/plain");
    let Reply::Keep(whole) = Reply::json(200, NEW) else { unreachable!() };
    let cut = Reply::Close(whole[..whole.len() - 1].to_vec());
    for reply in [
        Reply::json(201, NEW),
        Reply::new(200, &[plain], NEW),
        Reply::json(200, r#"{"token":"glpat-new"}"#),
        Reply::json(200, r#"{"id":43,"expires_at":"soon","token":"glpat-new"}"#),
        Reply::json(200, r#"{"token":"glpat-new","id":"#),
        cut,
    ] {
        let server = ScriptedServer::start([reply.clone()]).await;
        let rotated = rotate(&server.site()).await.unwrap();
        assert_eq!(rotated.token.expose(), "glpat-new", "{reply:?}");
        assert!(rotated.oddity.is_some(), "{reply:?}");
    }
    let same = NEW.replace("glpat-new", ACCESS_TOKEN);
    let server = ScriptedServer::start([Reply::json(200, &same)]).await;
    assert_eq!(rotate(&server.site()).await.unwrap().oddity, Some("it repeats the token that was sent"));
}

#[tokio::test]
async fn an_answer_without_a_whole_token_has_an_unknown_effect() {
    for reply in [Reply::json(200, r#"{"id":43,"expires_at":null}"#), Reply::json(200, "{"), Reply::html(200)] {
        let server = ScriptedServer::start([reply]).await;
        let error = rotate(&server.site()).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Unknown { retry_after: None }, "{error}");
    }
}

#[tokio::test]
async fn refusals_of_these_calls_have_their_meanings() {
    let unauthorized = r#"{"message":"401 Unauthorized"}"#;
    let revoked =
        r#"{"error":"invalid_token","error_description":"Token was revoked. You have to re-authorize from the user."}"#;
    let scope = r#"{"error":"insufficient_scope","error_description":"x","scope":"api self_rotate"}"#;
    let limit = r#"{"message":"400 Bad request - Expires at must be before 2026-12-28"}"#;
    let all: Vec<_> = ROTATIONS.into_iter().chain([Endpoint::ShowAccessToken]).collect();
    for (calls, status, body, expected) in [
        (&all[..], 401, unauthorized, MustAct(Reason::AccessToken)),
        (&all[..], 401, revoked, MustAct(Reason::AccessToken)),
        (&all[..], 404, r#"{"error":"404 Not Found"}"#, Unsupported),
        (&all[..], 405, r#"{"error":"405 Not Allowed"}"#, Unsupported),
        (&ROTATIONS[..], 403, scope, MustAct(Reason::AccessTokenRights)),
        (&ROTATIONS[..], 405, r#"{"message":"405 Method Not Allowed"}"#, Unsupported),
        (&ROTATIONS[..], 400, limit, MustAct(Reason::Parameters)),
        (&ROTATIONS[..], 400, r#"{"error":"expires_at is invalid"}"#, MustAct(Reason::Parameters)),
        (&[Endpoint::ShowAccessToken, Endpoint::RotateAccessToken], 404, r#"{"message":"404 Not found"}"#, Unsupported),
        (&ROTATIONS[1..2], 404, r#"{"message":"404 Group Not Found"}"#, Gone),
        (&ROTATIONS[2..], 404, r#"{"message":"404 Project Not Found"}"#, Gone),
    ] {
        for &endpoint in calls {
            let error = failure(endpoint, Reply::json(status, body)).await;
            assert_eq!(error.disposition(), expected, "{endpoint} {error}");
        }
    }
}

#[tokio::test]
async fn a_life_beyond_the_limit_names_the_limit_and_the_remedy() {
    let limit = r#"{"message":"400 Bad request - Expires at must be before 2026-12-28"}"#;
    let error = failure(Endpoint::RotateAccessToken, Reply::json(400, limit)).await;
    assert!(error.to_string().contains("Expires at must be before 2026-12-28"), "{error}");
    assert!(error.hint().unwrap().contains("`life`"));
}
