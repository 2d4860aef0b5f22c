//! The body of an error answer, and how to display it safely.

use std::cmp::Reverse;

use serde_json::{Map, Value};

use crate::model::is_unprintable;
use crate::secret::{Token, masked, token_length};

/// Maximum length of a displayed message, in characters: a line or two in a log.
const MAX_MESSAGE_CHARS: usize = 300;

/// The JSON shapes of GitLab's error bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `{"message":"403 Forbidden - reason"}`, from the API itself.
    Message,
    /// `{"message":{"field":["text"]}}` or `{"message":{"error":"text"}}`, from a model or the rate limiter.
    Fields,
    /// `{"error":"text"}`, from parameter validation, the router, or a service.
    Error,
    /// `{"error":"invalid_token","error_description":"…"}`, the OAuth shape, about the access token.
    OAuth,
}

/// A genuine error body: JSON in one of GitLab's shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub(super) form: Form,
    /// The names of the fields, if it has fields.
    pub(super) fields: Vec<String>,
    /// The text, of any length and not safe to display.
    pub(super) text: String,
}

impl ErrorBody {
    /// Reads an error body; `None` for anything that GitLab's API does not send.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let object: Map<String, Value> = serde_json::from_slice(body).ok()?;
        match (object.get("message"), object.get("error")) {
            (Some(Value::String(text)), _) => Some(Self::new(Form::Message, text.clone())),
            (Some(Value::Object(fields)), _) => {
                Some(Self { fields: fields.keys().cloned().collect(), ..Self::new(Form::Fields, fields_text(fields)) })
            }
            (None, Some(Value::String(error))) => Some(Self::error(error, &object)),
            _ => None,
        }
    }

    /// Whether the text contains a phrase in lower case, ignoring the text's case.
    pub(super) fn mentions(&self, phrase: &str) -> bool {
        self.text.to_ascii_lowercase().contains(phrase)
    }

    /// Returns the text, safe to display.
    pub(super) fn sanitized(&self, secrets: &[&Token]) -> String {
        sanitized(&self.text, secrets)
    }

    fn new(form: Form, text: String) -> Self {
        Self { form, fields: Vec::new(), text }
    }

    fn error(error: &str, object: &Map<String, Value>) -> Self {
        let is_oauth = matches!(error, "invalid_token" | "insufficient_scope" | "insufficient_granular_scope");
        let description = object.get("error_description").and_then(Value::as_str);
        let form = if is_oauth || description.is_some() { Form::OAuth } else { Form::Error };
        let mut text = description.map_or_else(|| error.to_owned(), |description| format!("{error}: {description}"));
        if let Some(scope) = object.get("scope").and_then(Value::as_str) {
            text.push_str(&format!(" (one of: {scope})"));
        }
        Self::new(form, text)
    }
}

/// Formats `{"tags_list":["a","b"]}` as `tags_list: a, b`.
fn fields_text(fields: &Map<String, Value>) -> String {
    let field_text = |(name, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
        };
        if name == "error" { text } else { format!("{name}: {text}") }
    };
    fields.iter().map(field_text).collect::<Vec<_>>().join("; ")
}

/// Makes a text safe to display: one line of limited length without control characters, the secrets of the request
/// and anything else that looks like a GitLab token, since a server may quote other tokens too.
pub(super) fn sanitized(text: &str, secrets: &[&Token]) -> String {
    let mut secrets: Vec<&str> = secrets.iter().map(|secret| secret.expose()).collect();
    // Longest first: a secret may begin with a shorter one.
    secrets.sort_by_key(|secret| Reverse(secret.len()));
    let text = secrets.into_iter().fold(text.to_owned(), |text, secret| masked(&text, |rest| revealed(rest, secret)));
    let text = masked(&text, token_length);
    let plain: String = text.chars().map(|c| if is_unprintable(c) { ' ' } else { c }).collect();
    let line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Returns the length in bytes of what shows a secret at the start of a text: the whole secret, or a part of it that is
/// long enough to be of use, such as all of it behind its prefix. Characters may be percent-encoded.
fn revealed(text: &str, secret: &str) -> Option<usize> {
    let secret = secret.as_bytes();
    let least = secret.len().min(MIN_REVEALED_LENGTH);
    let starts = (0..=secret.len() - least).rev();
    let runs = starts.map(|start| common_prefix(text.as_bytes(), &secret[start..]));
    let (length, _) = runs.filter(|(_, count)| *count >= least).max()?;
    Some(length)
}

/// How many bytes of the text, and how many of the secret, are the same from their starts. Ignores case.
fn common_prefix(text: &[u8], secret: &[u8]) -> (usize, usize) {
    let mut length = 0;
    for (count, expected) in secret.iter().enumerate() {
        match next_byte(&text[length..]) {
            Some((byte, width)) if byte.eq_ignore_ascii_case(expected) => length += width,
            _ => return (length, count),
        }
    }
    (length, secret.len())
}

/// The first byte of a text, and how many bytes it takes there: three if it is percent-encoded.
fn next_byte(text: &[u8]) -> Option<(u8, usize)> {
    let first = *text.first()?;
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    match (first, digit(1), digit(2)) {
        (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok().map(|byte| (byte, 3)),
        _ => Some((first, 1)),
    }
}

/// The number of characters in a row of a secret that are hidden even without the others: too few to guess the rest from,
/// and more than an ordinary word shares with it.
const MIN_REVEALED_LENGTH: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_error_body_is_read() {
        for (body, form, text) in [
            (r#"{"message":"403 Forbidden"}"#, Form::Message, "403 Forbidden"),
            (
                r#"{"message":{"tags_list":["can not be empty","x"],"locked":["y"]}}"#,
                Form::Fields,
                "locked: y; tags_list: can not be empty, x",
            ),
            (
                r#"{"error":"token is missing, system_id is missing"}"#,
                Form::Error,
                "token is missing, system_id is missing",
            ),
            (r#"{"error":"Token rotation deadline has passed"}"#, Form::Error, "Token rotation deadline has passed"),
            (
                r#"{"error":"invalid_token","error_description":"Token was revoked."}"#,
                Form::OAuth,
                "invalid_token: Token was revoked.",
            ),
            (r#"{"error":"insufficient_granular_scope"}"#, Form::OAuth, "insufficient_granular_scope"),
            (r#"{"message":{"error":"too many times"}}"#, Form::Fields, "too many times"),
            (
                r#"{"message":"400 (Bad request) \"token\" not given"}"#,
                Form::Message,
                "400 (Bad request) \"token\" not given",
            ),
        ] {
            let read = ErrorBody::read(body.as_bytes()).unwrap();
            assert_eq!((read.form, read.text.as_str()), (form, text));
        }
    }

    #[test]
    fn other_bodies_are_not_read() {
        for body in
            ["", "Retry later", "<html>", "{}", "[]", "\"403 Forbidden\"", "{\"message\":7}", "{\"detail\":\"x\"}"]
        {
            assert_eq!(ErrorBody::read(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn messages_are_shown_short_plain_and_without_secrets() {
        let secret = Token::parse("glrt-secret").unwrap();
        let shown = sanitized("no\n\u{1b}[31m \u{202e}runner has glrt-secret, glrt-secret", &[&secret]);
        assert_eq!(shown, "no [31m runner has [token], [token]");
        let long = sanitized(&"ü".repeat(1000), &[]);
        assert_eq!(long.chars().count(), MAX_MESSAGE_CHARS + 1);
    }

    #[test]
    fn tokens_of_other_runners_are_hidden_too() {
        for token in [
            "glpat-xxxxxxxxxxxxxxxxxxxx",
            "acme-glrt-t1_Abcdefghijklmnopqrst",
            "glrt-t1_bTpwCw.01.0z1abcdef",
            "GR1348941abcdefghijklmnopqrst",
            "gr1348941abcdefghijklmnopqrst.example.com",
            "glagent-abcdefghijklmnopqrstuvwxyz",
        ] {
            let shown = sanitized(&format!("who is ({token})?"), &[]);
            assert!(shown.ends_with("[token])?") && !shown.contains("bcdef"), "{shown}");
        }
        for harmless in ["gl-runner-manager-of-example", "gluster-fs-manager", "glrt-short", "globally-unique"] {
            assert_eq!(sanitized(harmless, &[]), harmless.to_owned());
        }
    }

    #[test]
    fn secrets_are_hidden_in_any_case_longest_first() {
        let (short, long) = (Token::parse("Secret").unwrap(), Token::parse("Secret-and-more").unwrap());
        assert_eq!(sanitized("secret-AND-more.example.com Secret", &[&short, &long]), "[token].example.com [token]");
    }

    #[test]
    fn a_secret_is_hidden_without_its_prefix_percent_encoded_and_in_parts() {
        let secret = Token::parse("glrt-742c2f0c8e9f982e8964").unwrap();
        for shown in [
            "742c2f0c8e9f982e8964",
            "742C2F0C8E9F982E8964",
            "glrt%2D742c2f0c8e9f982e8964",
            "glrt%2d742c2f0c8e9f982e8964",
            "%67lrt-742c2f0c8e9f982e896%34",
            "glrt-742c2f0",
            "742c2f0c8e9f",
            "982e8964",
            "2f0c8e9f982e",
            "lrt-742c2f0c8e9f982e896",
        ] {
            let text = sanitized(&format!("token ({shown}) is bad, 100% sure"), &[&secret]);
            let is_hidden = text == "token ([token]) is bad, 100% sure";
            assert_eq!(is_hidden, shown.len() >= MIN_REVEALED_LENGTH, "{text}");
        }
        let twice = sanitized("742c2f0c8e9f982e8964,742c2f0c8e9f982e8964", &[&secret]);
        assert_eq!(twice, "[token],[token]");
    }

    #[test]
    fn a_secret_at_the_length_limit_is_hidden() {
        let secret = Token::parse(&"s".repeat(40)).unwrap();
        let shown = sanitized(&format!("{} {}", "x".repeat(MAX_MESSAGE_CHARS - 10), secret.expose()), &[&secret]);
        assert!(!shown.contains("ss"), "{shown}");
    }
}
