//! What the server says in its own words, and how much of it may be shown.

use std::cmp::Reverse;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::model::is_unprintable;
use crate::secret::Token;

/// The most of a server's words that is kept, in characters: a line or two in a log.
const MAX_WORDS_CHARS: usize = 300;

/// The forms in which GitLab says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `{"message":"403 Forbidden - reason"}`: a helper of the API refused.
    Message,
    /// `{"message":{"field":["text"]}}` or `{"message":{"error":"text"}}`: a model or the rate limiter.
    Fields,
    /// `{"error":"text"}`: a parameter, the router, or a service.
    Error,
    /// `{"error":"invalid_token","error_description":"…"}`: the access token, as OAuth has it.
    OAuth,
}

/// A genuine refusal: JSON of one of GitLab's own forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub(super) form: Form,
    /// The text, unbounded and not yet safe to show.
    pub(super) text: String,
}

impl ErrorBody {
    /// Reads a refusal; `None` for anything that GitLab's API does not send.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let object: Map<String, Value> = serde_json::from_slice(body).ok()?;
        match (object.get("message"), object.get("error")) {
            (Some(Value::String(text)), _) => Some(Self { form: Form::Message, text: text.clone() }),
            (Some(Value::Object(fields)), _) => Some(Self { form: Form::Fields, text: fields_text(fields) }),
            (None, Some(Value::String(error))) => Some(Self::error(error, &object)),
            _ => None,
        }
    }

    /// Whether the text holds a phrase, in any case.
    pub(super) fn mention(&self, phrase: &str) -> bool {
        self.text.to_ascii_lowercase().contains(phrase)
    }

    /// The text, fit to be shown.
    pub(super) fn shown(&self, secrets: &[&Token]) -> String {
        sanitized(&self.text, secrets)
    }

    fn error(error: &str, object: &Map<String, Value>) -> Self {
        let is_oauth = matches!(error, "invalid_token" | "insufficient_scope" | "insufficient_granular_scope");
        let description = object.get("error_description").and_then(Value::as_str);
        let form = if is_oauth || description.is_some() { Form::OAuth } else { Form::Error };
        let mut text = description.map_or_else(|| error.to_owned(), |description| format!("{error}: {description}"));
        if let Some(scope) = object.get("scope").and_then(Value::as_str) {
            text.push_str(&format!(" (one of: {scope})"));
        }
        Self { form, text }
    }
}

/// `{"tags_list":["a","b"]}` as `tags_list: a, b`.
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

/// One bounded line without control characters, without the secrets of the request, and without anything
/// else that looks like one of GitLab's tokens: a server may well quote another one than ours.
pub(super) fn sanitized(text: &str, secrets: &[&Token]) -> String {
    let mut secrets: Vec<&str> = secrets.iter().map(|secret| secret.expose()).collect();
    // The longest first, so that none is left in part behind one that it begins with.
    secrets.sort_by_key(|secret| Reverse(secret.len()));
    let text =
        secrets.into_iter().fold(text.to_owned(), |text, secret| masked(&text, |rest| begins_with(rest, secret)));
    let text = masked(&text, token_length);
    let plain: String = text.chars().map(|c| if is_unprintable(c) { ' ' } else { c }).collect();
    let line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_WORDS_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The text with `[token]` wherever `secret_length` finds a secret of that many bytes.
fn masked(text: &str, secret_length: impl Fn(&str) -> Option<usize>) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = secret_length(rest) {
            shown.push_str("[token]");
            rest = &rest[length..];
        } else {
            shown.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    shown
}

/// In any case of letters: a secret that became part of a host name is in lower case.
fn begins_with(text: &str, secret: &str) -> Option<usize> {
    let beginning = text.as_bytes().get(..secret.len())?;
    beginning.eq_ignore_ascii_case(secret.as_bytes()).then_some(secret.len())
}

/// How many bytes of one of GitLab's tokens a text begins with: `glrt-…`, `glpat-…`, `GR1348941…`.
fn token_length(text: &str) -> Option<usize> {
    let length_while = |text: &str, is_part: fn(&u8) -> bool| text.bytes().take_while(is_part).count();
    let prefix = if let Some(length) = begins_with(text, "GR1348941") {
        length
    } else {
        begins_with(text, "gl")?;
        let kind = length_while(text, u8::is_ascii_alphabetic);
        (KINDS.contains(&kind) && text[kind..].starts_with('-')).then_some(kind + 1)?
    };
    let secret = length_while(&text[prefix..], |byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
    (secret >= SHORTEST_SECRET).then_some(prefix + secret)
}

/// How long the kinds are that tokens name themselves by, from `glrt` to `glagent`, with some room.
const KINDS: RangeInclusive<usize> = 4..=9;

/// Fewer characters than any token of GitLab's has behind its prefix, and more than a word in a sentence.
const SHORTEST_SECRET: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_refusal_is_understood() {
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
            let words = ErrorBody::read(body.as_bytes()).unwrap();
            assert_eq!((words.form, words.text.as_str()), (form, text));
        }
    }

    #[test]
    fn what_gitlab_does_not_send_has_no_words() {
        for body in
            ["", "Retry later", "<html>", "{}", "[]", "\"403 Forbidden\"", "{\"message\":7}", "{\"detail\":\"x\"}"]
        {
            assert_eq!(ErrorBody::read(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn words_are_shown_short_plain_and_without_secrets() {
        let secret = Token::parse("glrt-secret").unwrap();
        let shown = sanitized("no\n\u{1b}[31m \u{202e}runner has glrt-secret, glrt-secret", &[&secret]);
        assert_eq!(shown, "no [31m runner has [token], [token]");
        let long = sanitized(&"ü".repeat(1000), &[]);
        assert_eq!(long.chars().count(), MAX_WORDS_CHARS + 1);
    }

    #[test]
    fn no_token_of_gitlab_is_shown_whoever_it_belongs_to() {
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
        for harmless in ["gl-runner-manager-of-somebody", "gluster-fs-manager", "glrt-short", "globally-unique"] {
            assert_eq!(sanitized(harmless, &[]), harmless.to_owned());
        }
    }

    #[test]
    fn a_secret_is_found_in_any_case_and_behind_a_shorter_one() {
        let (short, long) = (Token::parse("Secret").unwrap(), Token::parse("Secret-and-more").unwrap());
        assert_eq!(sanitized("secret-AND-more.example.com Secret", &[&short, &long]), "[token].example.com [token]");
    }

    #[test]
    fn a_secret_at_the_cut_is_not_shown_in_part() {
        let secret = Token::parse(&"s".repeat(40)).unwrap();
        let shown = sanitized(&format!("{} {}", "x".repeat(MAX_WORDS_CHARS - 10), secret.expose()), &[&secret]);
        assert!(!shown.contains("ss"), "{shown}");
    }
}
