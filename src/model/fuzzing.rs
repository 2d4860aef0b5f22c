//! Checks for any text that is parsed as a token, an address, a time, a duration or an id.
//!
//! Compiled for fuzzing, and for tests, which run the corpus.

#![allow(clippy::unwrap_used, reason = "a failed check stops the run")]

use std::time::Duration;

use super::{Expiry, MAX_URL_BYTES, RunnerId, RunnerKey, ServerUrl, SystemId, Timestamp, format_span, parse_span};
use crate::secret::{Digest, Fingerprint, MAX_TOKEN_BYTES, Token};

/// Parses a text as each kind of value.
pub fn values(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    token(text);
    if let Ok(url) = text.parse() {
        address(&url);
    }
    for time in [text.parse(), Timestamp::from_http_date(text)].into_iter().flatten() {
        moment(time);
    }
    if let Ok(span) = parse_span(text) {
        assert!(parse_span(&format_span(span)).is_ok_and(|shown| shown <= span), "{span:?}");
        moment(Timestamp::EARLIEST.plus(span));
    }
    if let Ok(id) = text.parse::<RunnerId>() {
        assert!(i64::try_from(id.number()).is_ok_and(|number| number > 0));
    }
    if let Ok(id) = text.parse::<SystemId>() {
        assert_eq!(id.as_str(), text);
    }
    if let Ok(key) = RunnerKey::try_from(text.to_owned()) {
        assert!(is_plain(key.as_str()), "{key}");
        assert_eq!(RunnerKey::enrollment(text).is_ok(), !text.contains('@'));
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string(), text);
    }
}

fn token(text: &str) {
    let Ok(token) = Token::parse(text) else { return };
    assert_eq!(token.expose(), text);
    assert!(text.len() <= MAX_TOKEN_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!text.contains(['"', '\'', '\\', '`']));
    assert_eq!(format!("{token:?}"), format!("Token({})", token.fingerprint()));
}

/// An address is read back from the state directory as it was, and makes a plain file name.
fn address(url: &ServerUrl) {
    let text = url.to_string();
    assert_eq!(text.parse().as_ref(), Ok(url), "{text}");
    assert!(text.len() <= MAX_URL_BYTES && !text.ends_with('/'), "{text}");
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['?', '#']), "{text}");
    assert!(text.starts_with(if url.is_https() { "https://" } else { "http://" }));
    assert!(!url.authority().contains('@'));
    assert!(!url.host().is_empty() && url.authority().contains(url.host()));
    for id in [None, RunnerId::try_new(7).ok()] {
        let key = RunnerKey::found(url, id, Digest::of(b"token"));
        assert!(is_plain(key.as_str()), "{key}");
        assert_eq!(RunnerKey::try_from(key.to_string()).as_ref(), Ok(&key));
    }
}

fn moment(time: Timestamp) {
    assert_eq!(time.to_string().parse(), Ok(time));
    assert_eq!(time.whole_seconds().to_string().len(), "2026-01-31T12:00:00Z".len());
    for span in [Duration::ZERO, Duration::from_secs(3600), Duration::MAX] {
        assert!(time.plus(span) >= time && time.minus(span) <= time);
        moment_is_written(time.plus(span));
        moment_is_written(time.minus(span));
    }
    assert_eq!(Expiry::At(time).at(), Some(time));
}

fn moment_is_written(time: Timestamp) {
    assert_eq!(time.to_string().parse(), Ok(time));
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() < 240 && !name.starts_with('.') && !name.contains(['/', '\0', '\n', ' '])
}

/// Runs a check on every file of a corpus.
#[cfg(test)]
#[allow(clippy::print_stdout, reason = "shown only if the check fails")]
pub(crate) fn feed(target: &str, check: impl Fn(&[u8])) {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let files: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    for path in files {
        println!("{}", path.display());
        check(&std::fs::read(&path).unwrap());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_passes_every_check() {
        super::feed("values", super::values);
    }
}
