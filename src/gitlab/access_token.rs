//! What an access token is told about itself, and its replacement.

use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::client::{Call, json, success};
use super::error::CallFailure;
use super::error_body::sanitized;
use super::fleet::segment;
use super::transport::Incoming;
use super::wire::{self, Fields, Flaw, NewCredential};
use super::{Answer, Client, Endpoint, Error, RotatedAccessToken, Shape};
use crate::model::{AccessTokenFacts, AccessTokenOwner, Site, Timestamp};
use crate::secret::Token;

/// Maximum number of scopes that are kept of an answer; GitLab has about thirty.
const MAX_SCOPES: usize = 64;

/// Maximum length of a displayed name, in characters: that of GitLab's names.
const MAX_NAME_CHARS: usize = 255;

/// The body of a rotation. Source: docs/api/personal_access_tokens, "Rotate a personal access token".
#[derive(Serialize)]
struct RotateRequest {
    /// The day at whose 00:00 UTC the new token ends, `2026-01-31`. Without it GitLab gives a week.
    expires_at: String,
}

impl Client {
    /// Asks what an access token is: `GET /personal_access_tokens/self`, since 15.5. Any access token may ask, and asking
    /// is no reuse of a rotated one.
    ///
    /// # Errors
    /// [`Error`]; [`Unsupported`](super::ErrorKind::Unsupported) before 15.5. From 15.1 to 15.4 some tokens are
    /// [refused](super::ErrorKind::AccessTokenRefused) although they work.
    pub async fn access_token_facts(
        &self,
        site: &Site,
        access_token: &Token,
    ) -> Result<Answer<AccessTokenFacts>, Error> {
        let path = "personal_access_tokens/self";
        let call = Call::new(Endpoint::ShowAccessToken, site, path, Zeroizing::default(), Some(access_token));
        self.call(call, facts).await
    }

    /// Replaces an access token: `POST …/self/rotate` of its owner. The old token is revoked at once, and only this answer
    /// contains the new one. Sent a second time with the old token, GitLab revokes the new one too.
    ///
    /// Of `expires_at` the day in UTC is sent.
    ///
    /// # Errors
    /// [`Error`]. An answer without a valid token has an unknown effect: the old token is revoked.
    pub async fn rotate_access_token(
        &self,
        site: &Site,
        access_token: &Token,
        owner: &AccessTokenOwner,
        expires_at: Timestamp,
    ) -> Result<Answer<RotatedAccessToken>, Error> {
        let (endpoint, path) = match owner {
            AccessTokenOwner::Personal => {
                (Endpoint::RotateAccessToken, "personal_access_tokens/self/rotate".to_owned())
            }
            AccessTokenOwner::Group(group) => {
                (Endpoint::RotateGroupAccessToken, format!("groups/{}/access_tokens/self/rotate", segment(group)))
            }
            AccessTokenOwner::Project(project) => {
                (Endpoint::RotateProjectAccessToken, format!("projects/{}/access_tokens/self/rotate", segment(project)))
            }
        };
        let body = json(&RotateRequest { expires_at: expires_at.date() });
        let call = Call::new(endpoint, site, &path, body, Some(access_token));
        self.call(call, |incoming| rotated(incoming, access_token)).await
    }
}

/// Reads what an access token is.
pub(super) fn facts(incoming: &Incoming) -> Result<AccessTokenFacts, CallFailure> {
    success(incoming, facts_in)
}

/// Reads the answer to a rotation of `sent`. Any answer with a valid token is one: the old token is revoked.
pub(super) fn rotated(incoming: &Incoming, sent: &Token) -> Result<RotatedAccessToken, CallFailure> {
    let NewCredential { token, shape, .. } =
        wire::credential(&incoming.body, Fields::Token).map_err(|flaw| super::client::unreadable(incoming, flaw))?;
    let facts = facts_in(&incoming.body);
    let oddity = if incoming.cut.is_some() {
        Some("it is cut off")
    } else if incoming.status != 200 {
        Some("its status is not 200")
    } else if !incoming.is_json() {
        Some("its content type is not application/json")
    } else if token == *sent {
        Some("it repeats the token that was sent")
    } else {
        match (shape, &facts) {
            (Shape::Odd(oddity), _) => Some(oddity),
            (Shape::Documented, Err(Flaw(flaw))) => Some(*flaw),
            (Shape::Documented, Ok(_)) => None,
        }
    };
    Ok(RotatedAccessToken { token, facts: facts.ok(), oddity })
}

/// Reads the object of an access token. Only its id and its expiry are required: a wrong expiry would be believed.
fn facts_in(body: &[u8]) -> Result<AccessTokenFacts, Flaw> {
    let fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| Flaw("it is not the JSON object that GitLab sends"))?;
    let id = match fields.get("id") {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(digits)) => digits.parse().ok(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => None,
    };
    let id = id.ok_or(Flaw("it has no id of an access token"))?;
    let revoked = flag(&fields, "revoked").unwrap_or(false);
    Ok(AccessTokenFacts {
        id,
        name: bounded(fields.get("name").and_then(Value::as_str).unwrap_or_default()),
        scopes: scopes(fields.get("scopes")),
        active: flag(&fields, "active").unwrap_or(!revoked),
        revoked,
        created_at: time(&fields, "created_at"),
        last_used_at: time(&fields, "last_used_at"),
        expires_at: expiry(fields.get("expires_at"))?,
    })
}

fn flag(fields: &Map<String, Value>, name: &str) -> Option<bool> {
    fields.get(name).and_then(Value::as_bool)
}

fn time(fields: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    fields.get(name).and_then(Value::as_str)?.parse().ok()
}

fn scopes(value: Option<&Value>) -> Vec<String> {
    let scopes = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    scopes.map(bounded).filter(|scope| !scope.is_empty()).take(MAX_SCOPES).collect()
}

/// A day, or in case a release sends one, a time; `null` is never.
fn expiry(value: Option<&Value>) -> Result<Option<Timestamp>, Flaw> {
    match value {
        Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if wire::is_far_future(text) => Ok(None),
        Some(Value::String(text)) => {
            let read = Timestamp::from_date(text).or_else(|_| text.parse());
            read.map(Some).map_err(|_| Flaw("its expires_at is unreadable"))
        }
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(Flaw("its expires_at is unreadable"))
        }
        None => Err(Flaw("it has no expires_at")),
    }
}

/// A text from the server, safe to display.
fn bounded(text: &str) -> String {
    sanitized(text, &[]).chars().take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"id":42,"name":"fleet","revoked":false,"created_at":"2026-01-01T08:00:00.000Z","description":null,
        "scopes":["create_runner","self_rotate"],"user_id":7,"last_used_at":null,"active":true,"expires_at":"2026-04-01"}"#;

    #[test]
    fn an_access_token_ends_at_midnight_of_its_day() {
        let facts = facts_in(WHOLE.as_bytes()).unwrap();
        assert_eq!((facts.id, facts.name.as_str(), facts.active), (42, "fleet", true));
        assert_eq!(facts.scopes, ["create_runner", "self_rotate"]);
        assert_eq!(facts.expires_at.unwrap().to_string(), "2026-04-01T00:00:00Z");
        assert_eq!(
            (facts.created_at.unwrap().to_string().as_str(), facts.last_used_at),
            ("2026-01-01T08:00:00Z", None)
        );
    }

    #[test]
    fn only_an_id_and_a_readable_expiry_are_required() {
        for (body, expires_at) in [
            (r#"{"id":"42","expires_at":null}"#, None),
            (r#"{"id":42,"expires_at":"9999-12-31","scopes":7,"name":[],"active":"yes","created_at":"soon"}"#, None),
            (r#"{"id":42,"expires_at":"2026-04-01T10:00:00Z","scopes":[1,"api"]}"#, Some("2026-04-01T10:00:00Z")),
        ] {
            let facts = facts_in(body.as_bytes()).unwrap();
            assert_eq!(facts.expires_at.map(|at| at.to_string()).as_deref(), expires_at, "{body}");
            assert!(facts.active && facts.created_at.is_none(), "{body}");
        }
        for body in [
            r#"{"id":42}"#,
            r#"{"id":42,"expires_at":"soon"}"#,
            r#"{"id":42,"expires_at":""}"#,
            r#"{"id":42,"expires_at":1799678364}"#,
            r#"{"id":null,"expires_at":null}"#,
            r#"{"expires_at":null}"#,
            r#"[42]"#,
            "",
        ] {
            assert!(facts_in(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_name_is_one_short_line_without_tokens() {
        let name = format!("a\\nb glpat-xxxxxxxxxxxxxxxxxxxx {}", "x".repeat(1000));
        let facts = facts_in(format!(r#"{{"id":1,"expires_at":null,"name":"{name}"}}"#).as_bytes()).unwrap();
        assert!(facts.name.chars().count() <= MAX_NAME_CHARS, "{}", facts.name);
        assert!(!facts.name.contains("xxxxglpat") && facts.name.contains("[token]"), "{}", facts.name);
    }
}
