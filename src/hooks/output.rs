//! The output of a program: its beginning, in one line, without tokens.

use std::borrow::Cow;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::model::is_unprintable;
use crate::secret::{MAX_TOKEN_BYTES, Token, masked, token_length};

/// How much of each of stdout and stderr is shown, in bytes.
const MAX_SHOWN_BYTES: usize = 1024;

/// How much of each is kept. A token that begins within what is shown is kept whole, also if a line break follows each of
/// its characters.
const MAX_KEPT_BYTES: usize = MAX_SHOWN_BYTES + 2 * MAX_TOKEN_BYTES;

/// Stands for output that cannot be shown.
const HIDDEN: &str = "[its output has the token in parts, and is hidden]";

/// The output of a program.
#[derive(Debug, Default)]
pub(super) struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Output {
    /// Reads both streams to their ends, and keeps their beginnings.
    pub(super) async fn collect(
        &mut self,
        stdout: Option<impl AsyncRead + Unpin>,
        stderr: Option<impl AsyncRead + Unpin>,
    ) {
        tokio::join!(collect(stdout, &mut self.stdout), collect(stderr, &mut self.stderr));
    }

    /// The output for the end of a message: empty, or one line after a colon.
    pub(super) fn shown(&self, secret: Option<&Token>) -> String {
        let streams = [&self.stdout, &self.stderr].map(|stream| String::from_utf8_lossy(stream));
        if is_in_parts(&streams, secret) {
            return format!(": {HIDDEN}");
        }
        let shown = streams.map(|stream| beginning(&stream, secret)).join(" ");
        let shown: String = shown.chars().map(|char| if is_unprintable(char) { ' ' } else { char }).collect();
        let words: Vec<_> = shown.split_whitespace().collect();
        if words.is_empty() { String::new() } else { format!(": {}", words.join(" ")) }
    }
}

async fn collect(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 4096];
    // One that cannot be read has ended.
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = MAX_KEPT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}

/// The length of a token at the start of a text.
fn secret_length(text: &str, secret: Option<&Token>) -> Option<usize> {
    let known = secret.map(Token::expose).filter(|secret| text.starts_with(secret));
    known.map(str::len).max(token_length(text))
}

/// The beginning of a stream, without tokens. Cut within a word, it ends before that word.
fn beginning(text: &str, secret: Option<&Token>) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while text.len() - rest.len() < MAX_SHOWN_BYTES
        && let Some(first) = rest.chars().next()
    {
        let length = secret_length(rest, secret);
        match length {
            Some(_) => shown.push_str("[token]"),
            None => shown.push(first),
        }
        rest = &rest[length.unwrap_or(first.len_utf8())..];
    }
    let is_cut = rest.starts_with(|next: char| !next.is_whitespace());
    match shown.rfind(char::is_whitespace) {
        Some(end) if is_cut => shown.truncate(end),
        Some(_) | None => {}
    }
    shown
}

/// Whether the streams have one of the tokens with white space, control characters or colours in it.
fn is_in_parts(streams: &[Cow<'_, str>], secret: Option<&Token>) -> bool {
    let rest = streams.iter().map(|stream| without_colours(&masked(stream, |rest| secret_length(rest, secret))));
    let rest = rest.collect::<String>();
    let joined: String = rest.chars().filter(|char| !char.is_whitespace() && !is_unprintable(*char)).collect();
    secret.is_some_and(|secret| joined.contains(secret.expose()))
}

/// Removes the control sequences of a terminal.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.extend(part.trim_start_matches(|char| matches!(char, '0'..='?')).chars().skip(1));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "secret-of-a-runner-1";

    fn shown(stdout: &str, stderr: &str) -> String {
        let token = Token::parse(SECRET).unwrap();
        let kept = |text: &str| text.as_bytes()[..text.len().min(MAX_KEPT_BYTES)].to_vec();
        Output { stdout: kept(stdout), stderr: kept(stderr) }.shown(Some(&token))
    }

    #[test]
    fn a_token_is_hidden_wherever_the_output_is_cut() {
        for before in MAX_SHOWN_BYTES - 30..MAX_SHOWN_BYTES + 5 {
            let shown = shown(&format!("{} {SECRET} and more {}", "x".repeat(before), "y".repeat(5000)), SECRET);
            let shown = shown.replace("[token]", "").replace('x', "");
            assert!(!shown.contains("sec") && shown.len() < 20, "{before}: {shown}");
        }
    }

    #[test]
    fn a_cut_word_is_left_out_unless_it_is_the_only_one() {
        let long = shown(&"word ".repeat(1000), "");
        assert!(long.len() <= MAX_SHOWN_BYTES + 2 && long.ends_with(" word"), "{long}");
        assert_eq!(shown(&"x".repeat(5000), ""), format!(": {}", "x".repeat(MAX_SHOWN_BYTES)));
        assert_eq!(shown("out\n", "err\n"), ": out err");
        assert_eq!(shown("", " \n"), "");
    }

    #[test]
    fn output_with_the_token_in_parts_is_hidden() {
        let one_by_one: String = SECRET.chars().flat_map(|char| [char, '\n']).collect();
        let coloured = format!("\u{1b}[1;31m{}\u{1b}[0m{}", &SECRET[..9], &SECRET[9..]);
        for parts in [
            format!("{}\n{}", &SECRET[..12], &SECRET[12..]),
            format!("{SECRET} {} \r {}", &SECRET[..3], &SECRET[3..]),
            format!("{} {one_by_one}", "x ".repeat(MAX_SHOWN_BYTES / 2 - 5)),
            coloured,
        ] {
            assert_eq!(shown(&parts, ""), format!(": {HIDDEN}"), "{parts}");
        }
        assert_eq!(shown(&SECRET[..9], &SECRET[9..]), format!(": {HIDDEN}"), "half of it on each stream");
        assert_eq!(shown(&format!("{SECRET}\n{SECRET}"), SECRET), ": [token] [token] [token]");
    }
}
