//! The JSON bodies of requests and answers about one runner.
//!
//! Unknown fields are ignored and optional ones may be missing: GitLab adds fields every few releases.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::model::{Expiry, RunnerId, SystemId, Timestamp};
use crate::secret::Token;

use super::parameters::{Info, RegisterParameters};
use super::{Shape, Verified};

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
///
/// Only the token decides whether the answer can be read: an odd field beside it must not cost the only copy.
#[derive(Deserialize)]
struct CredentialAnswer {
    /// The runner's id, a string in very old releases; absent in the answer to a reset.
    #[serde(default)]
    id: Value,
    /// The token; the answer to a verification repeats the one that was sent.
    #[serde(default, deserialize_with = "secret")]
    token: Option<Zeroizing<String>>,
    /// RFC 3339 in UTC with milliseconds, or `null` for never; absent before 14.8.
    #[serde(default, deserialize_with = "present")]
    token_expires_at: Option<Value>,
}

/// The token alone, of an answer whose other fields cannot be read.
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default, deserialize_with = "secret")]
    token: Option<Zeroizing<String>>,
}

/// What is wrong with an answer that has a success status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flaw(pub(super) &'static str);

/// What an answer contains besides its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fields {
    /// An id, and an expiry: `POST /user/runners`.
    IdAndExpiry,
    /// An id, and since 14.8 an expiry: `POST /runners`.
    Id,
    /// An expiry: a reset.
    Expiry,
    /// Nothing else: the reset of a registration token.
    Token,
}

/// The content of an answer that contains a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewCredential {
    pub(super) id: Option<RunnerId>,
    pub(super) token: Token,
    pub(super) expiry: Expiry,
    pub(super) shape: Shape,
}

/// Reads an answer with a new token. A missing or unreadable field beside the token makes its shape odd.
pub(super) fn credential(body: &[u8], fields: Fields) -> Result<NewCredential, Flaw> {
    let answer = match CredentialAnswer::read(body) {
        Ok(answer) => answer,
        Err(flaw) => {
            let (token, shape) = (salvaged(body).ok_or(flaw)?, Shape::Odd("it is not whole JSON"));
            return Ok(NewCredential { id: None, token, expiry: Expiry::Unknown, shape });
        }
    };
    let token = answer.token()?;
    let (expiry, oddity_of_expiry) = match answer.expiry() {
        Ok(Expiry::Unknown) if matches!(fields, Fields::IdAndExpiry | Fields::Expiry) => {
            (Expiry::Unknown, Some("it has no token_expires_at"))
        }
        Ok(expiry) => (expiry, None),
        Err(Flaw(flaw)) => (Expiry::Unknown, Some(flaw)),
    };
    let (id, oddity_of_id) = match (fields, answer.id()) {
        (Fields::Expiry | Fields::Token, _) => (None, None),
        (Fields::IdAndExpiry | Fields::Id, Ok(id)) => (Some(id), None),
        (Fields::IdAndExpiry | Fields::Id, Err(Flaw(flaw))) => (None, Some(flaw)),
    };
    let shape = oddity_of_id.or(oddity_of_expiry).map_or(Shape::Documented, Shape::Odd);
    Ok(NewCredential { id, token, expiry, shape })
}

/// The first whole token in an object that is cut off or is not JSON: it may be the only copy.
fn salvaged(body: &[u8]) -> Option<Token> {
    let text = body.utf8_chunks().next()?.valid();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_start();
    let candidates = text.starts_with('{').then(|| text.split("\"token\"").skip(1)).into_iter().flatten();
    candidates.filter_map(token_value).next()
}

/// The token in what follows the key: a colon and a string without escapes, to its end.
fn token_value(rest: &str) -> Option<Token> {
    let value = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let (token, _) = value.split_once('"')?;
    Token::parse(token).ok()
}

/// Reads the answer to the verification of `sent`. An unreadable expiry is unknown: the id and the token that was sent
/// prove the acceptance.
pub(super) fn verified(body: &[u8], sent: &Token) -> Result<Verified, Flaw> {
    let answer = CredentialAnswer::read(body)?;
    if answer.token()? != *sent {
        return Err(Flaw("it is about another token"));
    }
    let expiry = answer.expiry().unwrap_or(Expiry::Unknown);
    Ok(Verified { id: Some(answer.id()?), expiry, legacy: false })
}

/// Whether this is the body with which a server before 15.9 accepts a token.
pub(super) fn is_plain_acceptance(body: &[u8]) -> bool {
    matches!(body.trim_ascii(), b"200" | b"\"200\"")
}

impl CredentialAnswer {
    fn read(body: &[u8]) -> Result<Self, Flaw> {
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        // An array would be read as a struct too.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(NOT_AN_OBJECT);
        }
        serde_json::from_slice(body).or_else(|_| {
            let TokenAnswer { token } = serde_json::from_slice(body).map_err(|_| NOT_AN_OBJECT)?;
            Ok(Self { id: Value::Null, token, token_expires_at: Some(Value::Bool(false)) })
        })
    }

    fn id(&self) -> Result<RunnerId, Flaw> {
        let number = match &self.id {
            Value::Null => return Err(Flaw("it has no runner id")),
            Value::Number(number) => number.as_u64(),
            Value::String(digits) => digits.parse().ok(),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        number.and_then(|number| RunnerId::try_new(number).ok()).ok_or(Flaw("its runner id is invalid"))
    }

    fn token(&self) -> Result<Token, Flaw> {
        let Some(token) = &self.token else { return Err(Flaw("it has no token")) };
        Token::parse(token).map_err(|_| Flaw("its token is invalid"))
    }

    fn expiry(&self) -> Result<Expiry, Flaw> {
        match &self.token_expires_at {
            None => Ok(Expiry::Unknown),
            Some(Value::Null) => Ok(Expiry::Never),
            Some(Value::String(text)) if is_far_future(text) => Ok(Expiry::Never),
            Some(Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(at) if at.as_millis() > NO_TIME_MS => Ok(Expiry::At(at)),
                Ok(_) | Err(_) => Err(UNREADABLE_EXPIRY),
            },
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Err(UNREADABLE_EXPIRY),
        }
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const NOT_AN_OBJECT: Flaw = Flaw("it is not the JSON object that GitLab sends");

const UNREADABLE_EXPIRY: Flaw = Flaw("its token_expires_at is unreadable");

/// The epoch in milliseconds. Databases and languages write "no time" as a time up to here: `0001-01-01`, `1970-01-01`.
const NO_TIME_MS: i64 = 0;

/// Whether a time is in the year 9999 or later, which stands for "never" in some databases.
pub(super) fn is_far_future(text: &str) -> bool {
    let year = text.trim_start_matches('+').split('-').next().unwrap_or_default();
    year.bytes().all(|byte| byte.is_ascii_digit()) && year.parse::<u64>().is_ok_and(|year| year >= 9999)
}

/// Reads a string into memory that is zeroed on drop.
fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Zeroizing::new))
}

/// Distinguishes a field that is `null` from a missing one.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expiry_of(field: &str) -> (Expiry, Shape) {
        let read = credential(format!(r#"{{"token":"new"{field}}}"#).as_bytes(), Fields::Expiry).unwrap();
        (read.expiry, read.shape)
    }

    #[test]
    fn null_is_never_and_missing_is_unknown() {
        let at = "2026-01-11T14:39:24Z".parse().unwrap();
        assert_eq!(expiry_of(""), (Expiry::Unknown, Shape::Odd("it has no token_expires_at")));
        assert_eq!(expiry_of(r#","token_expires_at":null"#), (Expiry::Never, Shape::Documented));
        for text in ["2026-01-11T14:39:24.000Z", "2026-01-11T16:39:24+02:00"] {
            let read = expiry_of(&format!(r#","token_expires_at":"{text}""#));
            assert_eq!(read, (Expiry::At(at), Shape::Documented), "{text}");
        }
    }

    #[test]
    fn the_year_9999_and_later_is_never() {
        for text in
            ["9999-12-31T23:59:59Z", "9999-01-01T00:00:00.000Z", "10000-01-01T00:00:00Z", "+12345-01-01T00:00:00Z"]
        {
            let read = expiry_of(&format!(r#","token_expires_at":"{text}""#));
            assert_eq!(read, (Expiry::Never, Shape::Documented), "{text}");
        }
    }

    #[test]
    fn an_unreadable_expiry_is_unknown_and_odd() {
        for value in [
            r#""""#,
            r#""soon""#,
            r#""0001-01-01T00:00:00Z""#,
            r#""1970-01-01T00:00:00.000Z""#,
            r#""2026-13-01T00:00:00Z""#,
            r#""-9999-01-01T00:00:00Z""#,
            r#""2027-01-11 14:39:24 UTC""#,
            "1768142364",
            "-1.5e300",
            "false",
            r#"["2026-01-11T14:39:24Z"]"#,
            r#"{"at":"2026-01-11T14:39:24Z"}"#,
        ] {
            let read = expiry_of(&format!(r#","token_expires_at":{value}"#));
            assert_eq!(read, (Expiry::Unknown, Shape::Odd("its token_expires_at is unreadable")), "{value}");
        }
    }

    #[test]
    fn an_id_is_a_number_or_a_string_of_digits() {
        for (id, number) in [("42", 42), ("\"42\"", 42), ("9223372036854775807", i64::MAX as u64)] {
            let body = format!(r#"{{"id":{id},"token":"new","novel":[]}}"#);
            let read = credential(body.as_bytes(), Fields::Id).unwrap();
            assert_eq!((read.id, read.shape), (RunnerId::try_new(number).ok(), Shape::Documented));
        }
    }

    #[test]
    fn an_odd_id_does_not_cost_the_token() {
        for id in ["0", "-1", "1.5", "9223372036854775808", "18446744073709551616", "\"x\"", "null", "[]", "true"] {
            let body = format!(r#"{{"id":{id},"token":"new","token_expires_at":null}}"#);
            let read = credential(body.as_bytes(), Fields::IdAndExpiry).unwrap();
            assert_eq!((read.id, read.token.expose()), (None, "new"), "{id}");
            assert!(matches!(read.shape, Shape::Odd(_)), "{id}");
        }
    }

    #[test]
    fn unreadable_fields_do_not_cost_the_token() {
        let deep = format!(r#"{{"token":"new","id":{}1{}}}"#, "[".repeat(500), "]".repeat(500));
        let twice = r#"{"id":1,"id":1,"token":"new","token_expires_at":null}"#;
        let marked = "\u{feff}{\"id\":\"\",\"token\":\"new\"}";
        for body in [&deep, twice, marked] {
            let read = credential(body.as_bytes(), Fields::IdAndExpiry).unwrap();
            assert_eq!((read.token.expose(), read.expiry), ("new", Expiry::Unknown), "{body}");
            assert!(matches!(read.shape, Shape::Odd(_)), "{body}");
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
            r#"[1,"new",null]"#,
            r#"{"id":1,"token":"ne"#,
            r#"{"id":1,"token":"n\u0065w""#,
            "<script>{\"token\":\"new\"}</script>",
            "200",
            "",
        ] {
            for fields in [Fields::IdAndExpiry, Fields::Id, Fields::Expiry, Fields::Token] {
                assert!(credential(body.as_bytes(), fields).is_err(), "{body}");
            }
        }
    }

    #[test]
    fn a_whole_token_is_read_from_an_answer_that_is_cut_off_or_no_json() {
        for body in [
            r#"{"id":1,"token":"new""#,
            r#"{"id":1,"token" : "new","token_expires_at":"2026-"#,
            r#"{"id":1,"token":"new","token_expires_at":null} <!-- proxy -->"#,
            r#"{"id":NaN,"token":"new"}"#,
            r#"{"token":"new","token":"other"}"#,
            "{\"token\":\"new\",\"id\":\"\u{1}\"}",
        ] {
            for fields in [Fields::IdAndExpiry, Fields::Id, Fields::Expiry] {
                let read = credential(body.as_bytes(), fields).unwrap();
                let known = (read.token.expose(), read.id, read.expiry, read.shape);
                assert_eq!(known, ("new", None, Expiry::Unknown, Shape::Odd("it is not whole JSON")), "{body}");
            }
        }
        let invalid = b"{\"token\":\"new\",\"x\":\"\xff\"}";
        assert_eq!(credential(invalid, Fields::Expiry).unwrap().token.expose(), "new");
    }

    #[test]
    fn an_answer_about_another_token_is_rejected() {
        let sent = Token::parse("mine").unwrap();
        let flaw = verified(br#"{"id":1,"token":"theirs","token_expires_at":null}"#, &sent);
        assert_eq!(flaw, Err(Flaw("it is about another token")));
        let flaw = verified(br#"{"token":"mine","token_expires_at":null}"#, &sent);
        assert_eq!(flaw, Err(Flaw("it has no runner id")));
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
