//! Edits config.toml and preserves every other byte.
//!
//! Splices the original text at the parser's spans and never reserializes it. The result is parsed again and its
//! values are compared with the expected ones: a mistake becomes [`Error::EditMismatch`], not a damaged file.

use std::ops::Range;

use toml_edit::{Document, TableLike};

use super::config_file::{ConfigFile, NEVER, ParseContext};
use super::edit::{Edit, Edited, EntrySelector};
use super::entry::{Entry, EntryToken};
use super::entry_text::EntryText;
use super::error::Error;
use super::patch::{Patch, line_end, line_number, line_start, patched};
use super::sections::runs_of_entry;
use super::tree::Tree;
use crate::model::{Credential, Expiry, RunnerId, ServerUrl};
use crate::secret::Digest;

/// Applies one change to the text.
///
/// # Errors
/// What [`ConfigFile::parse`] fails with, and the errors of this change alone.
pub(super) fn apply(text: &str, edit: &Edit, reading: ParseContext<'_>) -> Result<(String, Edited), Error> {
    match edit {
        Edit::Renew { target, id, credential, over } => renew(text, target, *id, credential, over, reading),
        Edit::Insert { text: entry_text, id, credential } => insert(text, entry_text, *id, credential, reading),
        Edit::Complete { name, url, id, credential } => complete(text, (name, url), *id, credential, reading),
        Edit::Remove { target } => remove(text, target, reading),
    }
}

fn renew(
    text: &str,
    target: &EntrySelector,
    id: Option<RunnerId>,
    credential: &Credential,
    over: &[Digest],
    reading: ParseContext<'_>,
) -> Result<(String, Edited), Error> {
    let file = ConfigFile::parse(text, reading)?;
    let entries = file.entries();
    let matching: Vec<&Entry> = entries.iter().filter(|entry| is_renewed(entry, target, credential)).collect();
    let Some(first) = matching.first() else {
        return Err(no_such_entry(target, reading));
    };
    let literal: Vec<&Entry> =
        matching.iter().copied().filter(|entry| !matches!(entry.token, EntryToken::Variable { .. })).collect();
    if let (EntryToken::Variable { name, .. }, true) = (&first.token, literal.is_empty()) {
        let (path, line) = (reading.path.to_owned(), first.line);
        return Err(Error::VariableToken { path, line, variable: name.clone() });
    }
    let line = literal.first().map_or(first.line, |entry| entry.line);
    let literal: Vec<&Entry> =
        literal.into_iter().filter(|entry| may_overwrite(&entry.token, target, credential, over)).collect();
    if literal.is_empty() {
        return Err(Error::UnknownToken { path: reading.path.to_owned(), line });
    }
    let edited = filled(&file, &literal, id, credential, reading)?;
    Ok((edited, Edited { entries: literal.len(), removed: Vec::new() }))
}

/// Whether a token in config.toml is not an unknown one, which may be the only copy.
fn may_overwrite(token: &EntryToken, target: &EntrySelector, credential: &Credential, over: &[Digest]) -> bool {
    if let EntryToken::Unusable(_) = token {
        return false;
    }
    token.token().is_none_or(|token| {
        let digest = token.digest();
        *token == credential.token || target.digests.contains(&digest) || over.contains(&digest)
    })
}

/// The text with id, token and times in these entries.
fn filled(
    file: &ConfigFile<'_>,
    entries: &[&Entry],
    id: Option<RunnerId>,
    credential: &Credential,
    reading: ParseContext<'_>,
) -> Result<String, Error> {
    let tables = file.tables();
    let mut expected = Tree::of_document(&file.document);
    let mut patches = Vec::new();
    for entry in entries {
        let Some(table) = tables.get(entry.position) else { continue };
        let values = credential_fields(*table, id, credential);
        if let Some(tree) = expected.runners().and_then(|runners| runners.get_mut(entry.position)) {
            values.iter().for_each(|value| tree.set(value.key, value.tree.clone()));
        }
        patches.extend(patches_for(file, entry.position, *table, values));
    }
    let edited = patched(file.text, patches);
    check(&edited, &expected, reading)?;
    Ok(edited)
}

/// Fills the first incomplete entry of a name and instance.
fn complete(
    text: &str,
    (name, url): (&str, &ServerUrl),
    id: Option<RunnerId>,
    credential: &Credential,
    reading: ParseContext<'_>,
) -> Result<(String, Edited), Error> {
    let target = by_token(url.clone(), id, credential, Some(name.to_owned()));
    let file = ConfigFile::parse(text, reading)?;
    let entries = file.entries();
    // Makes the edit idempotent.
    let is_done = |entry: &Entry| target.matches(entry) && entry.token.token() == Some(&credential.token);
    if entries.iter().any(is_done) {
        return renew(text, &target, id, credential, &[], reading);
    }
    let Some(prepared) = entries.iter().find(|entry| is_prepared(entry, name, url)) else {
        return Err(no_such_entry(&target, reading));
    };
    let edited = filled(&file, &[prepared], id, credential, reading)?;
    Ok((edited, Edited { entries: 1, removed: Vec::new() }))
}

pub(super) fn is_prepared(entry: &Entry, name: &str, url: &ServerUrl) -> bool {
    entry.is_incomplete() && entry.url.as_ref() == Some(url) && entry.name.as_deref() == Some(name)
}

pub(super) fn by_token(
    url: ServerUrl,
    id: Option<RunnerId>,
    credential: &Credential,
    name: Option<String>,
) -> EntrySelector {
    EntrySelector { url, id, digests: vec![credential.token.digest()], name }
}

/// Whether to renew an entry. An entry with the new token counts: this makes the edit idempotent.
pub(super) fn is_renewed(entry: &Entry, target: &EntrySelector, credential: &Credential) -> bool {
    let is_done = target.covers(entry) && entry.token == EntryToken::Literal(credential.token.clone());
    is_done || target.matches(entry)
}

fn insert(
    text: &str,
    entry_text: &EntryText,
    id: Option<RunnerId>,
    credential: &Credential,
    reading: ParseContext<'_>,
) -> Result<(String, Edited), Error> {
    let file = ConfigFile::parse(text, reading)?;
    if let Some(url) = entry_text.url() {
        let entries = file.entries();
        let target = by_token(url.clone(), id, credential, None);
        if entries.iter().any(|entry| is_renewed(entry, &target, credential)) {
            return renew(text, &target, id, credential, &[], reading);
        }
        if let Some(name) = entry_text.name()
            && entries.iter().any(|entry| is_prepared(entry, &name, &url))
        {
            return complete(text, (&name, &url), id, credential, reading);
        }
    }
    if let Some(span) = file.inline_array() {
        let line = line_number(text, span.start);
        return Err(Error::InlineRunners { path: reading.path.to_owned(), line });
    }
    let newline = newline_of(text);
    let block = block(entry_text, newline, id, credential, reading)?;
    let mut expected = Tree::of_document(&file.document);
    let mismatch = || Error::EditMismatch { path: reading.path.to_owned() };
    let mut block_tree = Tree::of_document(&ConfigFile::parse(&block, reading)?.document);
    let new = block_tree.runners().and_then(Vec::pop).ok_or_else(mismatch)?;
    expected.runners().ok_or_else(mismatch)?.push(new);

    let edited = format!("{text}{}{block}", separator(text, newline));
    check(&edited, &expected, reading)?;
    Ok((edited, Edited { entries: 1, removed: Vec::new() }))
}

/// The text of a new entry with its credential.
pub(super) fn block(
    entry_text: &EntryText,
    newline: &str,
    id: Option<RunnerId>,
    credential: &Credential,
    reading: ParseContext<'_>,
) -> Result<String, Error> {
    let bare = entry_text.expose().replace('\n', newline);
    let file = ConfigFile::parse(&bare, reading)?;
    let tables = file.tables();
    let table = *tables.first().ok_or_else(|| Error::EditMismatch { path: reading.path.to_owned() })?;
    let mut expected = Tree::of_document(&file.document);
    let values = credential_fields(table, id, credential);
    if let Some(tree) = expected.runners().and_then(|runners| runners.first_mut()) {
        values.iter().for_each(|value| tree.set(value.key, value.tree.clone()));
    }
    let block = patched(&bare, patches_for(&file, 0, table, values));
    check(&block, &expected, reading)?;
    Ok(block)
}

fn remove(text: &str, target: &EntrySelector, reading: ParseContext<'_>) -> Result<(String, Edited), Error> {
    let file = ConfigFile::parse(text, reading)?;
    let positions: Vec<usize> =
        file.entries().iter().filter(|entry| target.may_remove(entry)).map(|entry| entry.position).collect();
    if positions.is_empty() {
        return Err(no_such_entry(target, reading));
    }
    let mismatch = || Error::EditMismatch { path: reading.path.to_owned() };
    let mut expected = Tree::of_document(&file.document);
    let mut edited = text.to_owned();
    let mut removed = Vec::new();
    for position in positions.iter().rev() {
        expected.runners().ok_or_else(mismatch)?.remove(*position);
        let (rest, entry_text) = take_out(&edited, *position, reading)?;
        removed.insert(0, entry_text);
        edited = rest;
    }
    check(&edited, &expected, reading)?;
    Ok((edited, Edited { entries: positions.len(), removed }))
}

/// Removes one entry and returns the rest and the entry.
fn take_out(text: &str, position: usize, reading: ParseContext<'_>) -> Result<(String, EntryText), Error> {
    let file = ConfigFile::parse(text, reading)?;
    let mismatch = |_| Error::EditMismatch { path: reading.path.to_owned() };
    if let Some(array) = file.inline_array() {
        let tables = file.tables();
        let kept = tables.get(position).map_or_else(String::new, |table| rewritten(text, *table));
        let kept = EntryText::parse(&kept).map_err(mismatch)?;
        let cut = inline_cut(&array, &file.table_spans(), position);
        return Ok((patched(text, vec![Patch::removal(cut)]), kept));
    }
    let runs = runs_of_entry(&file, position);
    let mut kept: String = runs.iter().map(|run| &text[run.span.start..run.text_end]).collect();
    if !kept.ends_with('\n') {
        kept.push('\n');
    }
    let kept = EntryText::parse(&kept).map_err(mismatch)?;
    let cuts = runs.into_iter().map(|run| Patch::removal(with_separator(text, run.span))).collect();
    Ok((patched(text, cuts), kept))
}

/// Includes the blank line above the last entry of the file: inserting and removing an entry restores the file.
fn with_separator(text: &str, span: Range<usize>) -> Range<usize> {
    let above = &text[..span.start];
    let Some(lines) = above.strip_suffix('\n').filter(|_| span.end == text.len()) else { return span };
    let start = line_start(lines, lines.len());
    let is_separator = start > 0 && lines[start..].trim().is_empty();
    if is_separator { start..span.end } else { span }
}

/// Rewrites an inline table as a `[[runners]]` table; values keep their formatting.
fn rewritten(text: &str, table: &dyn TableLike) -> String {
    let mut lines = "[[runners]]\n".to_owned();
    for (key, value) in table.get_values() {
        let key: Vec<&str> = key.iter().filter_map(|part| text.get(part.span()?)).collect();
        let value = value.span().and_then(|span| text.get(span)).unwrap_or_default();
        lines.push_str(&format!("  {} = {value}\n", key.join(".")));
    }
    lines
}

/// The span of one array element and its comma.
fn inline_cut(array: &Range<usize>, elements: &[Range<usize>], position: usize) -> Range<usize> {
    let before = position.checked_sub(1).and_then(|before| elements.get(before));
    match (elements.get(position), elements.get(position + 1), before) {
        (Some(this), Some(next), _) => this.start..next.start,
        (Some(this), None, Some(before)) => before.end..this.end,
        (Some(_) | None, None, None) => array.start + 1..array.end - 1,
        (None, _, _) => array.end..array.end,
    }
}

/// A key that a renewal sets.
struct CredentialField {
    key: &'static str,
    literal: String,
    tree: Tree,
}

impl CredentialField {
    fn time(key: &'static str, literal: &str) -> Self {
        Self { key, literal: literal.to_owned(), tree: Tree::Time(literal.to_owned()) }
    }
}

/// The keys whose values differ from the entry's.
fn credential_fields(table: &dyn TableLike, id: Option<RunnerId>, credential: &Credential) -> Vec<CredentialField> {
    let mut wanted = Vec::new();
    if let Some(number) = id.and_then(|id| i64::try_from(id.number()).ok()) {
        wanted.push(CredentialField { key: "id", literal: number.to_string(), tree: Tree::Integer(number) });
    }
    let token = credential.token.expose();
    wanted.push(CredentialField { key: "token", literal: format!("\"{token}\""), tree: Tree::Text(token.to_owned()) });
    let expires_at = match credential.expiry {
        Expiry::At(expires_at) => Some(expires_at.whole_seconds().to_string()),
        Expiry::Never => Some(NEVER.to_owned()),
        Expiry::Unknown => table.contains_key("token_expires_at").then(|| NEVER.to_owned()),
    };
    if let (Some(obtained_at), Some(expires_at)) = (credential.obtained_at, expires_at) {
        wanted.push(CredentialField::time("token_obtained_at", &obtained_at.whole_seconds().to_string()));
        wanted.push(CredentialField::time("token_expires_at", &expires_at));
    }
    wanted.retain(|value| table.get(value.key).map(Tree::of_item).as_ref() != Some(&value.tree));
    wanted
}

/// Replaces existing values and adds missing keys after the token.
fn patches_for(
    file: &ConfigFile<'_>,
    position: usize,
    table: &dyn TableLike,
    values: Vec<CredentialField>,
) -> Vec<Patch> {
    let mut patches = Vec::new();
    let mut missing = Vec::new();
    for value in values {
        match table.get(value.key).map(|item| item.as_value().and_then(|value| value.span())) {
            Some(Some(span)) => patches.push(Patch { span, text: value.literal }),
            // A table in place of a value is not edited; `check` rejects it.
            Some(None) => {}
            None => missing.push(format!("{} = {}", value.key, value.literal)),
        }
    }
    if missing.is_empty() {
        return patches;
    }
    let anchor = ["token", "id", "url", "name"].into_iter().find_map(|name| {
        let (key, item) = table.get_key_value(name)?;
        Some((key.span()?.start, item.as_value()?.span()?.end))
    });
    patches.push(if file.inline_array().is_some() {
        missing_in_inline_table(anchor, &missing)
    } else {
        let header = file.table_spans().get(position).cloned().unwrap_or_default();
        missing_lines(file.text, anchor, header.end, &missing)
    });
    patches
}

fn missing_in_inline_table(anchor: Option<(usize, usize)>, missing: &[String]) -> Patch {
    let at = anchor.map_or(0, |(_, value_end)| value_end);
    Patch { span: at..at, text: missing.iter().map(|pair| format!(", {pair}")).collect() }
}

/// New lines below the anchor's, indented like it, in the same newline style.
fn missing_lines(text: &str, anchor: Option<(usize, usize)>, header_end: usize, missing: &[String]) -> Patch {
    let indent = anchor.map_or("  ", |(key, _)| {
        let before = &text[line_start(text, key)..key];
        if before.trim_start_matches('\u{feff}').trim().is_empty() { before.trim_start_matches('\u{feff}') } else { "" }
    });
    let at = line_end(text, anchor.map_or(header_end, |(_, value_end)| value_end));
    let newline = if text[..at].ends_with("\r\n") { "\r\n" } else { "\n" };
    if text[..at].ends_with('\n') {
        let lines = missing.iter().map(|pair| format!("{indent}{pair}{newline}")).collect();
        return Patch { span: at..at, text: lines };
    }
    let newline = newline_of(text);
    Patch { span: at..at, text: missing.iter().map(|pair| format!("{newline}{indent}{pair}")).collect() }
}

/// The file's line ending, taken from its first line.
pub(super) fn newline_of(text: &str) -> &'static str {
    match text.find('\n') {
        Some(newline) if text[..newline].ends_with('\r') => "\r\n",
        Some(_) | None => "\n",
    }
}

/// The text before a new table: a blank line, unless there is one.
pub(super) fn separator(text: &str, newline: &str) -> String {
    let body = text.trim_start_matches('\u{feff}');
    if body.is_empty() {
        return String::new();
    }
    let Some(lines) = body.strip_suffix('\n') else { return newline.repeat(2) };
    let last = &lines[line_start(lines, lines.len())..];
    if last.trim().is_empty() { String::new() } else { newline.to_owned() }
}

/// Compares the edited text with the expected values.
fn check(edited: &str, expected: &Tree, reading: ParseContext<'_>) -> Result<(), Error> {
    let mismatch = || Error::EditMismatch { path: reading.path.to_owned() };
    let document = Document::parse(edited).map_err(|_| mismatch())?;
    let (mut found, mut expected) = (Tree::of_document(&document), expected.clone());
    // A missing `runners` equals an empty one.
    found.runners();
    expected.runners();
    if found == expected { Ok(()) } else { Err(mismatch()) }
}

fn no_such_entry(target: &EntrySelector, reading: ParseContext<'_>) -> Error {
    let runner = match (target.id, target.digests.last()) {
        (Some(id), _) => format!("runner {id} of {}", target.url),
        (None, Some(digest)) => format!("the token {} of {}", digest.fingerprint(), target.url),
        (None, None) => format!("a runner without id or token of {}", target.url),
    };
    Error::NoSuchEntry { path: reading.path.to_owned(), runner }
}
