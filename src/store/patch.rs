//! Replaces spans of a text and finds its lines. Offsets are in bytes.

use std::ops::Range;

/// A replacement of one span of a text.
pub(super) struct Patch {
    pub(super) span: Range<usize>,
    pub(super) text: String,
}

impl Patch {
    pub(super) fn removal(span: Range<usize>) -> Self {
        Self { span, text: String::new() }
    }
}

/// Applies patches whose spans do not overlap.
pub(super) fn patched(text: &str, mut patches: Vec<Patch>) -> String {
    patches.sort_by_key(|patch| (patch.span.start, patch.span.end));
    let mut result = String::with_capacity(text.len() + 256);
    let mut done = 0;
    for patch in patches {
        result.push_str(text.get(done..patch.span.start).unwrap_or_default());
        result.push_str(&patch.text);
        done = patch.span.end;
    }
    result.push_str(text.get(done..).unwrap_or_default());
    result
}

/// The start of the line that contains `offset`.
pub(super) fn line_start(text: &str, offset: usize) -> usize {
    text[..offset].rfind('\n').map_or(0, |newline| newline + 1)
}

/// The offset after the next line break, or the end of the text.
pub(super) fn line_end(text: &str, offset: usize) -> usize {
    text[offset..].find('\n').map_or(text.len(), |newline| offset + newline + 1)
}

/// The line that contains `offset`, counted from 1.
pub(super) fn line_number(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// How many line breaks a text has.
pub(super) fn line_breaks(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// The position and message of a TOML error: line and column, counted from 1. The message does not quote the text.
pub(super) fn syntax_error(text: &str, error: &toml_edit::TomlError) -> (usize, usize, String) {
    let offset = error.span().map_or(text.len(), |span| span.start).min(text.len());
    let column = text[line_start(text, offset)..offset].chars().count() + 1;
    (line_number(text, offset), column, error.message().to_owned())
}
