//! Checks for any config.toml, template, record and journal.
//!
//! Compiled for fuzzing, and for tests, which run the corpus.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed check stops the run")]

use std::ops::Range;
use std::path::Path;

use toml_edit::Document;

use super::config_file::{ConfigFile, ParseContext};
use super::draft::{Draft, ParsedText};
use super::entry_text::CREDENTIAL_KEYS;
use super::splice;
use super::{Edit, Edited, EntrySelector, EntryText, Error, NewEntry, held, journal, record};
use super::{Entry, EntryToken};
use crate::model::{Credential, Expiry, RunnerId, RunnerKey, ServerUrl, TlsFiles};
use crate::secret::{Token, sha256_hex};

/// Renews, removes and inserts entries in a config.toml.
pub fn splice(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(file) = ConfigFile::parse(text, reading()) else { return };
    for entry in file.entries() {
        let Some(url) = entry.url.clone() else { continue };
        let digests: Vec<_> = entry.token.token().map(Token::digest).into_iter().collect();
        let target = EntrySelector { digests, ..by_id(url, entry.id) };
        if target.matches(&entry) {
            renewing(text, &file, &target);
            removing(text, &file, &target);
        }
        completing(text, &file, &entry);
    }
    inserting(text, &file);
}

/// Applies edits one after the other, to the whole text and to its parts, which must give the same.
pub(super) fn applied_together(
    text: &str,
    edits: &[Edit],
    reading: ParseContext<'_>,
) -> Vec<Result<(String, Edited), Error>> {
    let Ok(parsed) = ParsedText::parse(text.to_owned(), 1, None, reading) else {
        return edits.iter().map(|edit| splice::apply(text, edit, reading)).collect();
    };
    let found = ConfigFile::parse(text, reading).map(|file| file.entries());
    assert_eq!(found.ok().as_ref(), Some(&parsed.snapshot.entries));
    if let [remove @ Edit::Remove { target }, ..] = edits {
        let near = Draft::around(&parsed, &parsed.snapshot.positions_of(target)).apply(remove, reading);
        let whole = splice::apply(text, remove, reading).map(|(_, edited)| edited);
        assert_eq!(near.ok(), whole.ok(), "the neighbours alone show what is removed");
    }
    let (mut draft, mut whole, mut results) = (Draft::new(&parsed), text.to_owned(), Vec::new());
    for edit in edits {
        let expected = splice::apply(&whole, edit, reading);
        let result = draft.apply(edit, reading);
        if let Ok((edited, _)) = &expected {
            whole.clone_from(edited);
        }
        let shown = |result: Result<&Edited, &Error>| result.map_err(ToString::to_string).cloned();
        assert_eq!(shown(result.as_ref()), shown(expected.as_ref().map(|(_, edited)| edited)));
        assert!(draft.text() == whole, "the parts of the text differ from the whole");
        results.push(expected);
    }
    let again = ParsedText::parse(whole, 1, Some(&parsed), reading).expect("is as before");
    assert!(draft.is_the_same(&again.snapshot));
    let anew = ParsedText::parse(again.text.clone(), 1, None, reading).expect("is as before");
    assert_eq!(again.snapshot.entries, anew.snapshot.entries);
    results
}

/// As [`splice::apply`]; checks that an edit of the parts gives the same.
pub(super) fn applied(text: &str, edit: &Edit, reading: ParseContext<'_>) -> Result<(String, Edited), Error> {
    applied_together(text, std::slice::from_ref(edit), reading).pop().expect("each edit has a result")
}

fn by_id(url: ServerUrl, id: Option<RunnerId>) -> EntrySelector {
    EntrySelector { url, id, digests: Vec::new(), name: None }
}

fn renewing(text: &str, file: &ConfigFile<'_>, target: &EntrySelector) {
    let id = RunnerId::try_new(4_611_686_018_427_387_904).unwrap();
    let credential = credential();
    let before = file.entries();
    let over = before.iter().filter_map(|entry| Some(entry.token.token()?.digest())).collect();
    let edit = Edit::Renew { target: target.clone(), id: Some(id), credential: credential.clone(), over };
    let is_renewed = |entry: &Entry| {
        let is_ours = target.matches(entry)
            || (entry.url.as_ref() == Some(&target.url) && entry.token.token() == Some(&credential.token));
        is_ours && !matches!(entry.token, EntryToken::Variable { .. } | EntryToken::Unusable(_))
    };
    let (edited, done) = match applied(text, &edit, reading()) {
        Ok(edited) => edited,
        // A text that is no token may be the only copy of one with a mistake in it.
        Err(Error::VariableToken { .. } | Error::UnknownToken { .. }) => {
            return assert!(!before.iter().any(is_renewed));
        }
        Err(error) => {
            let is_excused = before.iter().filter(|entry| is_renewed(entry)).any(|entry| has_table(file, entry));
            return assert!(is_excused, "cannot renew: {error}");
        }
    };
    let renewed: Vec<usize> = before.iter().filter(|entry| is_renewed(entry)).map(|entry| entry.position).collect();
    assert_eq!(done.entries, renewed.len());
    let edited_file = ConfigFile::parse(&edited, reading()).unwrap();
    let after = edited_file.entries();
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        if renewed.contains(&before.position) {
            assert_eq!(after.id, Some(id));
            assert_eq!(after.token, EntryToken::Literal(credential.token.clone()));
            assert_eq!((after.obtained_at, after.expiry), (credential.obtained_at, credential.expiry));
        } else {
            assert_eq!(&Entry { line: after.line, ..before.clone() }, after);
        }
    }
    let (old, new) = (file, &edited_file);
    assert_eq!(foreign(old, old, &renewed), foreign(new, old, &renewed), "another byte has changed");
    // Once done, it changes nothing.
    let target = by_id(target.url.clone(), Some(id));
    let (again, _) =
        applied(&edited, &Edit::Renew { target, id: Some(id), credential, over: Vec::new() }, reading()).unwrap();
    assert_eq!(again, edited);
}

/// Only the entry without a token is filled, and no other byte changes.
fn completing(text: &str, file: &ConfigFile<'_>, entry: &Entry) {
    let (Some(url), Some(name), true) = (entry.url.clone(), entry.name.clone(), entry.is_incomplete()) else { return };
    assert!(entry.access().is_err());
    let before = file.entries();
    let same = |other: &&Entry| other.url.as_ref() == Some(&url) && other.name.as_ref() == Some(&name);
    let ours = credential();
    if before
        .iter()
        .filter(same)
        .any(|other| other.id == RunnerId::try_new(7).ok() || other.token.token() == Some(&ours.token))
    {
        return;
    }
    let first = before.iter().filter(same).find(|other| other.is_incomplete()).unwrap().position;
    let edit = Edit::Complete {
        name: name.clone(),
        url: url.clone(),
        id: RunnerId::try_new(7).ok(),
        credential: ours.clone(),
    };
    let (edited, done) = match applied(text, &edit, reading()) {
        Ok(edited) => edited,
        Err(error) => return assert!(has_table(file, &before[first]), "cannot complete: {error}"),
    };
    assert_eq!(done.entries, 1);
    let edited_file = ConfigFile::parse(&edited, reading()).unwrap();
    for (before, after) in before.iter().zip(&edited_file.entries()) {
        if before.position == first {
            assert_eq!((after.token.token(), after.id), (Some(&ours.token), RunnerId::try_new(7).ok()));
            assert_eq!((after.obtained_at, after.expiry), (ours.obtained_at, ours.expiry));
        } else {
            assert_eq!(&Entry { line: after.line, ..before.clone() }, after);
        }
    }
    assert_eq!(foreign(file, file, &[first]), foreign(&edited_file, file, &[first]), "another byte has changed");
    assert_eq!(applied(&edited, &edit, reading()).unwrap().0, edited);
}

fn removing(text: &str, file: &ConfigFile<'_>, target: &EntrySelector) {
    let before = file.entries();
    let own = before.iter().filter(|entry| target.matches(entry));
    let digests = own.filter_map(|entry| Some(entry.token.token()?.digest())).collect();
    let target = &EntrySelector { digests, ..target.clone() };
    let (edited, done) = match applied(text, &Edit::Remove { target: target.clone() }, reading()) {
        Ok(edited) => edited,
        Err(error) => {
            let is_excused = before.iter().filter(|entry| target.may_remove(entry)).any(|entry| has_table(file, entry));
            return assert!(is_excused, "cannot remove: {error}");
        }
    };
    let kept: Vec<&Entry> = before.iter().filter(|entry| !target.may_remove(entry)).collect();
    assert_eq!(done.entries, before.len() - kept.len());
    assert_eq!(done.removed.len(), done.entries);
    assert!(is_subsequence(edited.as_bytes(), text.as_bytes()), "removing writes nothing");
    let after = ConfigFile::parse(&edited, reading()).unwrap();
    assert_eq!(kept.len(), after.entries().len());
    for (kept, after) in kept.into_iter().zip(after.entries()) {
        assert_eq!(Entry { line: after.line, position: after.position, ..kept.clone() }, after);
    }
    for removed in &done.removed {
        assert_eq!(EntryText::parse(removed.expose()).as_ref(), Ok(removed));
        let document = Document::parse(removed.expose()).unwrap();
        let table = document["runners"].as_array_of_tables().unwrap().get(0).unwrap();
        assert!(CREDENTIAL_KEYS.iter().all(|key| !table.contains_key(key)), "a credential is kept");
    }
}

fn inserting(text: &str, file: &ConfigFile<'_>) {
    let url: ServerUrl = "https://inserted.example.com".parse().unwrap();
    if file.entries().iter().any(|entry| entry.url.as_ref() == Some(&url)) {
        return;
    }
    let entry =
        EntryText::parse(&format!("# new\n[[runners]]\n  url = \"{url}\"\n  [runners.a]\n    b = 1\n")).unwrap();
    let id = RunnerId::try_new(7);
    let insert = Edit::Insert { text: entry.clone(), id: id.ok(), credential: credential() };
    let (inserted, done) = match applied(text, &insert, reading()) {
        Ok(inserted) => inserted,
        Err(Error::InlineRunners { .. }) => return assert!(file.inline_array().is_some()),
        Err(error) => panic!("cannot insert: {error}"),
    };
    assert_eq!(done.entries, 1);
    assert!(inserted.starts_with(text));
    let entries = ConfigFile::parse(&inserted, reading()).unwrap().entries();
    let new = entries.last().unwrap();
    assert_eq!((new.id, new.token.token()), (id.ok(), Some(&credential().token)));
    let target = EntrySelector { digests: vec![credential().token.digest()], ..by_id(url, id.ok()) };
    let (removed, done) = applied(&inserted, &Edit::Remove { target }, reading()).unwrap();
    assert_eq!(done.removed, [entry]);
    assert_eq!(removed.trim_end(), text.trim_end());
}

/// The text without the values of the agent's keys, and without those keys that `old` did not have.
fn foreign(file: &ConfigFile<'_>, old: &ConfigFile<'_>, renewed: &[usize]) -> String {
    let mut cuts: Vec<Range<usize>> = Vec::new();
    for (position, (table, old)) in file.tables().into_iter().zip(old.tables()).enumerate() {
        for name in CREDENTIAL_KEYS.iter().filter(|_| renewed.contains(&position)) {
            let Some((key, item)) = table.get_key_value(name) else { continue };
            let (key, value) = (key.span().unwrap(), item.span().unwrap());
            let above = &file.text[..key.start];
            let start = match (old.contains_key(name), file.inline_array().is_some()) {
                (true, _) => value.start,
                (false, true) => above.len() - ", ".len(),
                (false, false) => {
                    let above = above.trim_end_matches([' ', '\t']);
                    let above = above.strip_suffix('\n').expect("a line of its own");
                    above.strip_suffix('\r').unwrap_or(above).len()
                }
            };
            cuts.push(start..value.end);
        }
    }
    cuts.sort_by_key(|cut| cut.start);
    let mut text = String::new();
    let mut done = 0;
    for cut in cuts {
        text.push_str(&file.text[done..cut.start]);
        done = cut.end;
    }
    text + &file.text[done..]
}

/// Whether one of the agent's keys is a table, which is refused.
fn has_table(file: &ConfigFile<'_>, entry: &Entry) -> bool {
    let tables = file.tables();
    CREDENTIAL_KEYS.iter().any(|key| {
        let item = tables[entry.position].get(key);
        item.is_some_and(|item| item.as_value().is_none_or(|value| value.span().is_none()))
    })
}

fn is_subsequence(part: &[u8], whole: &[u8]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|byte| whole.any(|other| other == byte))
}

/// Composes an entry of a setting, which is the first line, and of a template, which is the rest.
pub fn compose(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (setting, template) = text.split_once('\n').unwrap_or((text, ""));
    let settings: Vec<_> =
        setting.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
    let new = NewEntry {
        template: (!template.is_empty()).then(|| template.to_owned()),
        name: "a \"name\"\n\u{1b}[2J".to_owned(),
        url: "https://gitlab.example.com".parse().unwrap(),
        executor: Some("docker".to_owned()),
        shell: None,
        limit: Some(1),
        request_concurrency: None,
        output_limit: None,
        tls: TlsFiles::default(),
        settings,
    };
    let Ok(entry) = EntryText::compose(&new) else { return };
    assert_eq!(entry.name().as_ref(), Some(&new.name));
    assert_eq!(entry.url().as_ref(), Some(&new.url));
    assert_eq!(EntryText::parse(entry.expose()).as_ref(), Ok(&entry));
    let document = Document::parse(entry.expose()).unwrap();
    assert_eq!(document["runners"].as_array_of_tables().unwrap().len(), 1);
    let insert = Edit::Insert { text: entry.clone(), id: RunnerId::try_new(7).ok(), credential: credential() };
    let (text, _) = applied("concurrent = 1\n", &insert, reading()).expect("can be inserted");
    let entries = ConfigFile::parse(&text, reading()).unwrap().entries();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].token.token(), Some(&credential().token));
}

/// Reads a record; what is understood is written again and understood the same.
pub fn record(input: &[u8]) {
    let key = RunnerKey::enrollment("build-1").unwrap();
    match record::parse(input, &key) {
        Ok(found) => {
            assert_eq!(found.key, key);
            let written = record::content_of(&found).unwrap();
            assert_eq!(record::parse(&written, &key), Ok(found));
        }
        Err(reason) => assert!(reason.len() < 100 && !reason.contains(char::is_control), "{reason}"),
    }
}

/// Reads what is held for a runner; what is understood is written again and understood the same.
pub fn held(input: &[u8]) {
    let key = RunnerKey::enrollment("build-1").unwrap();
    match held::parse(input, &key) {
        Ok(found) => {
            let written = held::content_of(&key, found.clone()).unwrap();
            assert_eq!(held::parse(&written, &key), Ok(found));
        }
        Err(reason) => assert!(reason.len() < 100 && !reason.contains(char::is_control), "{reason}"),
    }
}

/// Where the answer's slot begins, and where the file ends.
const ANSWER_AT: usize = 3072;
const FILE_BYTES: usize = 4096;

/// Reads a journal: as it is, and made of an intent and an answer with right checksums, of which then one
/// byte changes.
///
/// The input is a place of two bytes, what to change there, and then intent and answer around a NUL.
pub fn journal(input: &[u8]) {
    read_journal(input);
    let [low, high, change, json @ ..] = input else { return };
    let mut halves = json.splitn(2, |byte| *byte == 0);
    let (intent, answer) = (halves.next().unwrap_or_default(), halves.next());
    let Some(mut content) = slot(intent, ANSWER_AT) else { return };
    match answer.map(|answer| slot(answer, FILE_BYTES - ANSWER_AT)) {
        None => content.resize(FILE_BYTES, b' '),
        Some(Some(answer)) => content.extend(answer),
        Some(None) => return,
    }
    let whole = read_journal(&content);
    let place = usize::from(u16::from_le_bytes([*low, *high])) % FILE_BYTES;
    content[place] ^= change;
    let changed = read_journal(&content);
    // What says something else than before was not believed.
    if changed != whole {
        assert!(changed.is_none_or(|(_, answer)| answer.is_none()));
    }
    // A file that was cut short lacks its answer, or all.
    content[place] ^= change;
    read_journal(&content[..place]);
}

fn slot(json: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut slot = [sha256_hex(json).as_bytes(), b"\n", json, b"\n"].concat();
    (slot.len() <= size).then(|| {
        slot.resize(size, b' ');
        slot
    })
}

fn read_journal(content: &[u8]) -> Option<(journal::Intent, Option<journal::JournalAnswer>)> {
    let journal::JournalContent::Whole(intent, answer) = journal::JournalContent::of(content) else { return None };
    assert!(has_right_sum(content), "an intent with a wrong checksum");
    if let Some(answer) = &answer {
        assert!(has_right_sum(&content[ANSWER_AT..]), "an answer with a wrong checksum");
        if let Some(token) = &answer.token {
            assert!(!token.expose().contains(['\n', '"', '\0']));
        }
    }
    Some((intent, answer))
}

fn has_right_sum(slot: &[u8]) -> bool {
    let lines: Vec<&[u8]> = slot.splitn(3, |byte| *byte == b'\n').collect();
    lines.len() == 3 && lines[0] == sha256_hex(lines[1]).as_bytes()
}

fn credential() -> Credential {
    Credential {
        token: Token::parse("glrt-renewed").unwrap(),
        obtained_at: "2026-02-01T00:00:00Z".parse().ok(),
        expiry: Expiry::At("2026-03-01T00:00:00Z".parse().unwrap()),
    }
}

fn reading() -> ParseContext<'static> {
    let variables = |name: &str| (name == "RUNNER_TOKEN").then(|| "glrt-from-variable".to_owned());
    ParseContext { path: Path::new("config.toml"), variables, exposure: None }
}

#[cfg(test)]
mod tests {
    use crate::model::fuzzing::feed;

    #[test]
    fn the_corpus_passes_every_check() {
        feed("splice", super::splice);
        feed("compose", super::compose);
        feed("record", super::record);
        feed("held", super::held);
        feed("journal", super::journal);
    }
}
