//! Splits config.toml into parts without parsing its values: each `[[runners]]` entry, and what is between them.
//!
//! A header begins a line outside of any value, so the tokens show where each part begins. A part is then parsed by
//! itself, and what an edit does not touch is not parsed again.

use std::iter::Peekable;
use std::ops::Range;

use toml_parser::Source;
use toml_parser::lexer::{Lexer, Token, TokenKind};

use super::patch::line_start;

/// The array of the entries.
const RUNNERS: &str = "runners";

/// Consecutive lines of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// In bytes.
    pub(super) span: Range<usize>,
    /// Whether it is one entry with its sub-tables, from its header on. Comments above the header belong to the part
    /// before.
    pub(super) is_entry: bool,
}

/// What a header says about the entries.
enum Header {
    /// `[[runners]]`.
    Entry,
    /// `[runners.docker]` or `[[runners.docker.services]]`.
    SubTable,
    /// Any other table.
    Other,
}

/// The parts of a text, in order and without a gap; the first one has no header. `None` if an entry is not written as
/// one block of lines, as in an inline array or around another table, or if the text is no TOML.
pub(super) fn parts(text: &str) -> Option<Vec<Part>> {
    let mut scanner = Scanner { text, tokens: Source::new(text).lex().peekable() };
    let mut parts = vec![Part { span: 0..text.len(), is_entry: false }];
    let mut is_root = true;
    while let Some((start, header)) = scanner.next_header(is_root)? {
        is_root = false;
        let last = parts.last_mut()?;
        let is_entry = match header {
            Header::SubTable if last.is_entry => continue,
            Header::SubTable => return None,
            Header::Other if !last.is_entry => continue,
            Header::Other => false,
            Header::Entry => true,
        };
        let start = line_start(text, start).max(last.span.start);
        last.span.end = start;
        parts.push(Part { span: start..text.len(), is_entry });
    }
    Some(parts)
}

struct Scanner<'t> {
    text: &'t str,
    tokens: Peekable<Lexer<'t>>,
}

impl Scanner<'_> {
    /// The next header and where it starts; `Some(None)` at the end, `None` if the layout is not understood.
    #[expect(clippy::option_option, reason = "the end is no failure")]
    fn next_header(&mut self, is_root: bool) -> Option<Option<(usize, Header)>> {
        let (mut depth, mut begins_line) = (0_usize, true);
        while let Some(token) = self.tokens.next() {
            match token.kind() {
                TokenKind::Newline => begins_line = depth == 0,
                TokenKind::Whitespace => {}
                TokenKind::LeftSquareBracket if begins_line => {
                    return Some(Some((token.span().start(), self.header()?)));
                }
                kind => {
                    // `runners = […]` and `runners.x = …`.
                    if begins_line && is_root && self.key(token).is_none_or(|key| key == RUNNERS) {
                        return None;
                    }
                    begins_line = false;
                    match kind {
                        TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => depth += 1,
                        TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => depth = depth.checked_sub(1)?,
                        _ => {}
                    }
                }
            }
        }
        Some(None)
    }

    /// Reads a header to the end of its line.
    fn header(&mut self) -> Option<Header> {
        let is_array = self.tokens.next_if(|token| token.kind() == TokenKind::LeftSquareBracket).is_some();
        let key = self.significant()?;
        let is_of_runners = self.key(key)? == RUNNERS;
        let is_dotted = self.significant()?.kind() == TokenKind::Dot;
        while self.tokens.next_if(|token| !matches!(token.kind(), TokenKind::Newline | TokenKind::Eof)).is_some() {}
        match (is_of_runners, is_array, is_dotted) {
            (false, _, _) => Some(Header::Other),
            (true, _, true) => Some(Header::SubTable),
            (true, true, false) => Some(Header::Entry),
            (true, false, false) => None,
        }
    }

    fn significant(&mut self) -> Option<Token> {
        self.tokens.find(|token| token.kind() != TokenKind::Whitespace)
    }

    /// A key without its quotes; empty for what is no key, `None` if it has escapes.
    fn key(&self, token: Token) -> Option<&str> {
        let text = self.text.get(token.span().start()..token.span().end())?;
        match token.kind() {
            TokenKind::Atom => Some(text),
            TokenKind::LiteralString | TokenKind::BasicString if text.contains('\\') => None,
            TokenKind::LiteralString => Some(text.trim_matches('\'')),
            TokenKind::BasicString => Some(text.trim_matches('"')),
            _ => Some(""),
        }
    }
}
