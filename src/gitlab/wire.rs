//! The JSON bodies of requests and answers about one runner.
//!
//! Unknown fields are ignored and optional ones may be missing: GitLab adds fields every few releases.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use crate::model::{Expiry, RunnerId, SystemId, Timestamp};
use crate::secret::Token;

use super::lenient::NumberOrDigits;
use super::parameters::{Info, RegisterParameters};
use super::{Registered, Reset, Verified};

/// The body of `POST /runners`. Source: docs/api/runners, "Create a runner with a registration token".
#[derive(Serialize)]
pub(super) struct RegisterRequest<'a> {
    /// The registration token.
    token: &'a str,
    /// At most 1024 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    /// At most 1024 characters; ignored before 14.8.
    #[serde(skip_serializing_if = "Option::is_none")]
    maintenance_note: Option<&'a str>,
    /// At most 50 tags, separated by commas as gitlab-runner sends them: every version splits that.
    #[serde(skip_serializing_if = "Option::is_none")]
    tag_list: Option<String>,
    /// `false` needs a tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_untagged: Option<bool>,
    /// Whether the runner is locked to its project.
    #[serde(skip_serializing_if = "Option::is_none")]
    locked: Option<bool>,
    /// Since 14.8; must not be combined with its inverse `active`.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    /// `not_protected` or `ref_protected`.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_level: Option<&'static str>,
    /// Whole seconds, at least 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_timeout: Option<u64>,
    /// The program and machine of the runner; registration stores only the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a Info>,
}

impl<'a> RegisterRequest<'a> {
    pub(super) fn new(token: &'a Token, parameters: &'a RegisterParameters) -> Self {
        let tags = &parameters.tag_list;
        Self {
            token: token.expose(),
            description: parameters.description.as_deref(),
            maintenance_note: parameters.maintenance_note.as_deref(),
            tag_list: (!tags.is_empty()).then(|| tags.join(",")),
            run_untagged: parameters.run_untagged,
            locked: parameters.locked,
            paused: parameters.paused,
            access_level: parameters.access_level.map(super::AccessLevel::as_str),
            maximum_timeout: parameters.maximum_timeout.as_ref().map(Duration::as_secs),
            info: parameters.info.as_ref(),
        }
    }

    /// The body of `POST /ci/api/v1/runners/register`, which has fewer parameters. Source: the documentation of
    /// the API of 2016, and GitLab's code of 8.x.
    pub(super) fn new_v1(token: &'a Token, parameters: &'a RegisterParameters) -> Self {
        Self {
            maintenance_note: None,
            paused: None,
            access_level: None,
            maximum_timeout: None,
            ..Self::new(token, parameters)
        }
    }
}

/// The body of a call that is authenticated by a runner's token. Source: docs/api/runners.
#[derive(Serialize)]
pub(super) struct TokenRequest<'a> {
    /// The runner's authentication token.
    token: &'a str,
    /// This machine's id; without it the server uses a manager named `<legacy>`. Absent if the call is about the
    /// whole runner.
    #[serde(skip_serializing_if = "Option::is_none")]
    system_id: Option<&'a str>,
    /// The program and machine of the runner, stored with the manager. Only verify reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a Info>,
}

impl<'a> TokenRequest<'a> {
    pub(super) fn new(token: &'a Token, system_id: Option<&'a SystemId>, info: Option<&'a Info>) -> Self {
        Self { token: token.expose(), system_id: system_id.map(SystemId::as_str), info }
    }
}

/// The body of a call without parameters: an empty object, since a read-only GitLab redirects requests that are
/// not JSON.
#[derive(Serialize)]
pub(super) struct EmptyRequest {}

/// The answer to registration, verification and reset. Source: GitLab's entities of a runner's registration details
/// and of a reset token.
#[derive(Deserialize)]
struct CredentialAnswer {
    /// The runner's id, a string in very old releases; absent in the answer to a reset.
    id: Option<NumberOrDigits>,
    /// The token; the answer to a verification repeats the one that was sent.
    #[serde(default, deserialize_with = "secret")]
    token: Option<Zeroizing<String>>,
    /// RFC 3339 in UTC with milliseconds, or `null` for never; absent before 14.8.
    #[serde(default, deserialize_with = "present")]
    token_expires_at: Option<Option<String>>,
}

/// What is wrong with an answer that has a success status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flaw(pub(super) &'static str);

/// Reads the answer to `POST /runners`.
pub(super) fn registered(body: &[u8]) -> Result<Registered, Flaw> {
    let answer = CredentialAnswer::read(body)?;
    Ok(Registered { id: answer.id()?, token: answer.token()?, expiry: answer.expiry()? })
}

/// Reads the answer to a reset.
pub(super) fn reset(body: &[u8]) -> Result<Reset, Flaw> {
    let answer = CredentialAnswer::read(body)?;
    Ok(Reset { token: answer.token()?, expiry: answer.expiry()? })
}

/// Reads the answer to the verification of `sent`.
pub(super) fn verified(body: &[u8], sent: &Token) -> Result<Verified, Flaw> {
    let answer = CredentialAnswer::read(body)?;
    if answer.token()? != *sent {
        return Err(Flaw("about another token"));
    }
    Ok(Verified { id: Some(answer.id()?), expiry: answer.expiry()?, legacy: false })
}

/// Whether this is the body with which a server before 15.9 accepts a token.
pub(super) fn is_plain_acceptance(body: &[u8]) -> bool {
    matches!(body.trim_ascii(), b"200" | b"\"200\"")
}

impl CredentialAnswer {
    fn read(body: &[u8]) -> Result<Self, Flaw> {
        serde_json::from_slice(body).map_err(|_| Flaw("not the JSON object that GitLab sends"))
    }

    fn id(&self) -> Result<RunnerId, Flaw> {
        let Some(id) = &self.id else { return Err(Flaw("no runner id")) };
        id.value().and_then(|number| RunnerId::try_new(number).ok()).ok_or(Flaw("an invalid runner id"))
    }

    fn token(&self) -> Result<Token, Flaw> {
        let Some(token) = &self.token else { return Err(Flaw("no token")) };
        Token::parse(token).map_err(|_| Flaw("an invalid token"))
    }

    fn expiry(&self) -> Result<Expiry, Flaw> {
        match &self.token_expires_at {
            None => Ok(Expiry::Unknown),
            Some(None) => Ok(Expiry::Never),
            Some(Some(text)) if is_far_future(text) => Ok(Expiry::Never),
            Some(Some(text)) => {
                let at = text.parse::<Timestamp>();
                at.map(Expiry::At).map_err(|_| Flaw("an invalid token_expires_at"))
            }
        }
    }
}

/// Whether a time is in the year 9999 or later, which stands for "never" in some databases.
fn is_far_future(text: &str) -> bool {
    let year = text.trim_start_matches('+').split('-').next().unwrap_or_default();
    year.bytes().all(|byte| byte.is_ascii_digit()) && year.parse::<u64>().is_ok_and(|year| year >= 9999)
}

/// Reads a string into memory that is zeroed on drop.
fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Zeroizing::new))
}

/// Distinguishes a field that is `null` from a missing one.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expiry_of(field: &str) -> Result<Expiry, Flaw> {
        reset(format!(r#"{{"token":"new"{field}}}"#).as_bytes()).map(|reset| reset.expiry)
    }

    #[test]
    fn null_is_never_and_missing_is_unknown() {
        let at = "2026-01-11T14:39:24Z".parse().unwrap();
        assert_eq!(expiry_of(""), Ok(Expiry::Unknown));
        assert_eq!(expiry_of(r#","token_expires_at":null"#), Ok(Expiry::Never));
        assert_eq!(expiry_of(r#","token_expires_at":"2026-01-11T14:39:24.000Z""#), Ok(Expiry::At(at)));
        assert_eq!(expiry_of(r#","token_expires_at":"2026-01-11T16:39:24+02:00""#), Ok(Expiry::At(at)));
    }

    #[test]
    fn the_year_9999_and_later_is_never() {
        for text in
            ["9999-12-31T23:59:59Z", "9999-01-01T00:00:00.000Z", "10000-01-01T00:00:00Z", "+12345-01-01T00:00:00Z"]
        {
            assert_eq!(expiry_of(&format!(r#","token_expires_at":"{text}""#)), Ok(Expiry::Never), "{text}");
        }
        for text in ["", "soon", "0001-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "-9999-01-01T00:00:00Z"] {
            assert!(expiry_of(&format!(r#","token_expires_at":"{text}""#)).is_err(), "{text}");
        }
        assert!(expiry_of(r#","token_expires_at":1768142364"#).is_err());
    }

    #[test]
    fn an_id_is_a_number_or_a_string_of_digits() {
        for (id, number) in [("42", 42), ("\"42\"", 42), ("9223372036854775807", i64::MAX as u64)] {
            let answer = registered(format!(r#"{{"id":{id},"token":"new","novel":[]}}"#).as_bytes()).unwrap();
            assert_eq!(answer.id.number(), number);
        }
        for id in ["0", "-1", "1.5", "9223372036854775808", "18446744073709551616", "\"x\"", "null", "[]", "true"] {
            assert!(registered(format!(r#"{{"id":{id},"token":"new"}}"#).as_bytes()).is_err(), "{id}");
        }
    }

    #[test]
    fn an_answer_without_a_valid_token_is_rejected() {
        for body in [
            r#"{"id":1}"#,
            r#"{"id":1,"token":null}"#,
            r#"{"id":1,"token":""}"#,
            r#"{"id":1,"token":7}"#,
            r#"{"id":1,"token":"a\nb"}"#,
            r#"{"id":1,"token":"a\"]\nb"}"#,
            r#"[{"id":1,"token":"new"}]"#,
            r#"{"id":1,"token":"new""#,
            "200",
            "",
        ] {
            assert!(registered(body.as_bytes()).is_err(), "{body}");
            assert!(reset(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn an_answer_about_another_token_is_rejected() {
        let sent = Token::parse("mine").unwrap();
        let flaw = verified(br#"{"id":1,"token":"theirs","token_expires_at":null}"#, &sent);
        assert_eq!(flaw, Err(Flaw("about another token")));
        let verified = verified(br#"{"id":1,"token":"mine","token_expires_at":null}"#, &sent).unwrap();
        assert_eq!((verified.expiry, verified.legacy), (Expiry::Never, false));
    }

    #[test]
    fn the_plain_acceptance_is_exactly_200() {
        for body in ["200", "\"200\"", "200\n"] {
            assert!(is_plain_acceptance(body.as_bytes()), "{body}");
        }
        for body in ["", "2000", "'200'", "<html>200</html>", "{\"status\":200}", "\"200"] {
            assert!(!is_plain_acceptance(body.as_bytes()), "{body}");
        }
    }
}
