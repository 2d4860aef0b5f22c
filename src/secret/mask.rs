//! Hides tokens in texts.

use std::ops::RangeInclusive;

/// Replaces what looks like a GitLab token by `[token]`: a person may have given one in the wrong place.
#[must_use]
pub fn without_tokens(text: &str) -> String {
    masked(text, token_length)
}

/// Replaces each secret by `[token]`; `secret_length` returns the bytes of a secret at the start of a text.
#[must_use]
pub fn masked(text: &str, secret_length: impl Fn(&str) -> Option<usize>) -> String {
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

/// Returns the length of `secret` if the text begins with it. Ignores case: host names are in lower case.
fn begins_with(text: &str, secret: &str) -> Option<usize> {
    let beginning = text.as_bytes().get(..secret.len())?;
    beginning.eq_ignore_ascii_case(secret.as_bytes()).then_some(secret.len())
}

/// Returns the length in bytes of a GitLab token at the start of a text: `glrt-…`, `glpat-…`, `GR1348941…`.
#[must_use]
pub fn token_length(text: &str) -> Option<usize> {
    let length_while = |text: &str, is_part: fn(&u8) -> bool| text.bytes().take_while(is_part).count();
    let prefix = if let Some(length) = begins_with(text, "GR1348941") {
        length
    } else {
        begins_with(text, "gl")?;
        let kind = length_while(text, u8::is_ascii_alphabetic);
        (PREFIX_LENGTHS.contains(&kind) && text[kind..].starts_with('-')).then_some(kind + 1)?
    };
    let secret = length_while(&text[prefix..], |byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
    (secret >= MIN_SECRET_LENGTH).then_some(prefix + secret)
}

/// Lengths of token prefixes, from `glrt` to `glagent`, with a margin.
const PREFIX_LENGTHS: RangeInclusive<usize> = 4..=9;

/// Minimum length of a token after its prefix: below that of any GitLab token, above that of an ordinary word.
const MIN_SECRET_LENGTH: usize = 16;
