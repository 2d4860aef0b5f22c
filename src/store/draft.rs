//! config.toml in its parts, of which an edit parses and replaces only those that it touches.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::config_file::{ConfigFile, ParseContext};
use super::edit::{Edit, Edited};
use super::entry::Entry;
use super::entry_text::EntryText;
use super::error::Error;
use super::files::Seen;
use super::layout::{self, Part};
use super::patch::line_breaks;
use super::snapshot::Snapshot;
use super::splice::{self, is_prepared, is_renewed};
use crate::model::{Credential, RunnerId};
use crate::secret::Digest;

/// A parsed config.toml.
pub(super) struct ParsedText {
    /// The file as this text was read from it; `None` if the text can differ without it.
    pub(super) seen: Option<Seen>,
    pub(super) text: String,
    /// `None` if the text has to be parsed as a whole.
    parts: Option<Vec<Part>>,
    pub(super) snapshot: Arc<Snapshot>,
}

impl ParsedText {
    /// Parses a text. Entries that `former` has with the same lines are not parsed again. `found` is that of the
    /// [`Snapshot`].
    ///
    /// # Errors
    /// As [`ConfigFile::parse`].
    pub(super) fn parse(
        text: String,
        found: u64,
        former: Option<&Self>,
        reading: ParseContext<'_>,
    ) -> Result<Self, Error> {
        if let Some((parts, entries)) = in_parts(&text, former, reading) {
            let snapshot = Snapshot::new(entries, true).with_found(found).with_exposure(reading.exposure);
            return Ok(Self { seen: None, text, parts: Some(parts), snapshot: Arc::new(snapshot) });
        }
        let file = ConfigFile::parse(&text, reading)?;
        let snapshot = Snapshot::new(file.entries(), file.inline_array().is_none());
        let snapshot = snapshot.with_found(found).with_exposure(reading.exposure);
        Ok(Self { seen: None, text, parts: None, snapshot: Arc::new(snapshot) })
    }

    /// Each entry by its lines.
    fn entries_by_lines(&self) -> HashMap<&str, &Entry> {
        let parts = self.parts.iter().flatten().filter(|part| part.is_entry);
        parts.zip(&self.snapshot.entries).map(|(part, entry)| (&self.text[part.span.clone()], entry)).collect()
    }
}

fn in_parts(text: &str, former: Option<&ParsedText>, reading: ParseContext<'_>) -> Option<(Vec<Part>, Vec<Entry>)> {
    let parts = layout::parts(text)?;
    let between: String = parts.iter().filter(|part| !part.is_entry).map(|part| &text[part.span.clone()]).collect();
    ConfigFile::parse(&between, reading).ok()?;
    let known = former.map(ParsedText::entries_by_lines).unwrap_or_default();
    let (mut entries, mut line) = (Vec::with_capacity(parts.len()), 1);
    for part in &parts {
        let lines = &text[part.span.clone()];
        if part.is_entry {
            let entry = known.get(lines).map(|entry| (*entry).clone()).or_else(|| entry_of(lines, reading))?;
            entries.push(Entry { position: entries.len(), line, ..sharing(entry, entries.last()) });
        }
        line += line_breaks(lines);
    }
    Some((parts, entries))
}

/// Entries of one server share its address, and those of one executor its name.
fn sharing(entry: Entry, last: Option<&Entry>) -> Entry {
    let Some(last) = last else { return entry };
    let url = if entry.url == last.url { last.url.clone() } else { entry.url };
    let executor = if entry.executor == last.executor { last.executor.clone() } else { entry.executor };
    Entry { url, executor, ..entry }
}

/// The one entry of a part, with its position and line in this part.
fn entry_of(lines: &str, reading: ParseContext<'_>) -> Option<Entry> {
    let mut entries = ConfigFile::parse(lines, reading).ok()?.entries();
    entries.pop().filter(|_| entries.is_empty())
}

/// A text while edits are applied to it.
pub(super) enum Draft<'p> {
    /// Each edit parses the whole text.
    Whole(String),
    /// An edit parses the parts that it touches.
    Parts(Parts<'p>),
}

/// The parts of a text, and which of them has an entry with some id or token.
pub(super) struct Parts<'p> {
    places: Vec<Place<'p>>,
    by_id: HashMap<RunnerId, Vec<usize>>,
    by_token: HashMap<Digest, Vec<usize>>,
    /// Those without a token.
    incomplete: BTreeSet<usize>,
}

/// A place for a part; an empty one is left where a part was removed.
#[derive(Default)]
struct Place<'p> {
    text: Cow<'p, str>,
    entry: Option<Cow<'p, Entry>>,
}

impl<'p> Draft<'p> {
    pub(super) fn new(parsed: &'p ParsedText) -> Self {
        match &parsed.parts {
            Some(parts) => Self::Parts(Parts::new(parsed, parts)),
            None => Self::Whole(parsed.text.clone()),
        }
    }

    /// As [`Draft::new`], with these entries and their neighbours alone: enough to see what would be removed.
    pub(super) fn around(parsed: &'p ParsedText, positions: &[usize]) -> Self {
        let Some(parts) = &parsed.parts else { return Self::new(parsed) };
        let entries = parts.iter().enumerate().filter(|(_, part)| part.is_entry).map(|(at, _)| at);
        let places: Vec<usize> = entries.collect();
        let own = positions.iter().filter_map(|position| places.get(*position));
        let near: BTreeSet<usize> = own.flat_map(|at| at.saturating_sub(1)..=at + 1).collect();
        let mut draft = Parts::with_room(near.len());
        for at in near {
            let Some(part) = parts.get(at) else { continue };
            let entry = places.binary_search(&at).ok().and_then(|position| parsed.snapshot.entries.get(position));
            draft.add(&parsed.text[part.span.clone()], entry.map(Cow::Borrowed));
        }
        Self::Parts(draft)
    }

    /// Applies one change; changes nothing if it fails.
    ///
    /// # Errors
    /// As [`splice::apply`].
    pub(super) fn apply(&mut self, edit: &Edit, reading: ParseContext<'_>) -> Result<Edited, Error> {
        match self {
            Self::Whole(text) => {
                let (edited_text, edited) = splice::apply(text, edit, reading)?;
                *text = edited_text;
                Ok(edited)
            }
            Self::Parts(parts) => parts.apply(edit, reading),
        }
    }

    /// Whether the text with all changes has the entries that the changes should give.
    pub(super) fn is_the_same(&self, snapshot: &Snapshot) -> bool {
        match self {
            // Each edit has compared the whole text.
            Self::Whole(_) => true,
            Self::Parts(parts) => {
                let entries: Vec<_> = parts.places.iter().filter_map(|place| place.entry.as_ref()).collect();
                entries.len() == snapshot.entries.len()
                    && entries.iter().zip(&snapshot.entries).all(|(entry, found)| entry.says_the_same(found))
            }
        }
    }

    /// The text with all changes.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Whole(text) => text.clone(),
            Self::Parts(parts) => parts.places.iter().map(|place| &*place.text).collect(),
        }
    }
}

impl<'p> Parts<'p> {
    fn with_room(count: usize) -> Self {
        Self {
            places: Vec::with_capacity(count),
            by_id: HashMap::with_capacity(count),
            by_token: HashMap::with_capacity(count),
            incomplete: BTreeSet::new(),
        }
    }

    fn new(parsed: &'p ParsedText, parts: &[Part]) -> Self {
        let mut all = Self::with_room(parts.len());
        let mut entries = parsed.snapshot.entries.iter();
        for part in parts {
            let entry = if part.is_entry { entries.next() } else { None };
            all.add(&parsed.text[part.span.clone()], entry.map(Cow::Borrowed));
        }
        all
    }

    fn add(&mut self, text: impl Into<Cow<'p, str>>, entry: Option<Cow<'p, Entry>>) {
        self.places.push(Place::default());
        self.put(self.places.len() - 1, text, entry);
    }

    /// Fills a place. What is noted about its former entry stays: every entry that is found is looked at.
    fn put(&mut self, at: usize, text: impl Into<Cow<'p, str>>, entry: Option<Cow<'p, Entry>>) {
        if let Some(entry) = &entry {
            if let Some(id) = entry.id {
                self.by_id.entry(id).or_default().push(at);
            }
            match entry.token.token() {
                Some(token) => self.by_token.entry(token.digest()).or_default().push(at),
                None => drop(self.incomplete.insert(at)),
            }
        }
        self.places[at] = Place { text: text.into(), entry };
    }

    fn apply(&mut self, edit: &Edit, reading: ParseContext<'_>) -> Result<Edited, Error> {
        let touched = self.touched(edit);
        match edit {
            Edit::Insert { text, id, credential } if touched.is_empty() => self.append(text, *id, credential, reading),
            Edit::Insert { .. } | Edit::Renew { .. } | Edit::Complete { .. } => self.fill(&touched, edit, reading),
            Edit::Remove { .. } => self.remove(&touched, edit, reading),
        }
    }

    /// The places whose entry an edit reads or changes, in the order of the text.
    fn touched(&self, edit: &Edit) -> Vec<usize> {
        match edit {
            Edit::Renew { target, credential, .. } => {
                self.places_of(target.id, target.digests.iter().copied().chain([credential.token.digest()]), |entry| {
                    is_renewed(entry, target, credential)
                })
            }
            Edit::Remove { target } => {
                self.places_of(target.id, target.digests.iter().copied(), |entry| target.may_remove(entry))
            }
            Edit::Insert { text, id, credential } => {
                let Some(url) = text.url() else { return Vec::new() };
                let (target, name) = (splice::by_token(url.clone(), *id, credential, None), text.name());
                self.places_of(*id, [credential.token.digest()], |entry| {
                    let is_prepared = name.as_ref().is_some_and(|name| is_prepared(entry, name, &url));
                    is_prepared || is_renewed(entry, &target, credential)
                })
            }
            Edit::Complete { name, url, id, credential } => {
                let target = splice::by_token(url.clone(), *id, credential, Some(name.clone()));
                self.places_of(*id, [credential.token.digest()], |entry| {
                    is_prepared(entry, name, url) || is_renewed(entry, &target, credential)
                })
            }
        }
    }

    fn places_of(
        &self,
        id: Option<RunnerId>,
        digests: impl IntoIterator<Item = Digest>,
        is_it: impl Fn(&Entry) -> bool,
    ) -> Vec<usize> {
        let by_id = id.and_then(|id| self.by_id.get(&id)).into_iter().flatten();
        let by_token = digests.into_iter().filter_map(|digest| self.by_token.get(&digest)).flatten();
        let candidates: BTreeSet<usize> = by_id.chain(by_token).chain(&self.incomplete).copied().collect();
        let is_it = |at: &usize| self.places[*at].entry.as_ref().is_some_and(|entry| is_it(entry));
        candidates.into_iter().filter(is_it).collect()
    }

    /// An edit that keeps these entries and nothing but them.
    fn fill(&mut self, touched: &[usize], edit: &Edit, reading: ParseContext<'_>) -> Result<Edited, Error> {
        let text = self.text_of(touched);
        let (text, edited) = splice::apply(&text, edit, reading).map_err(|error| self.in_file(error, touched))?;
        self.refill(touched, &text, reading)?;
        Ok(edited)
    }

    /// Removes entries. How much goes with one of them depends on its neighbours.
    fn remove(&mut self, touched: &[usize], edit: &Edit, reading: ParseContext<'_>) -> Result<Edited, Error> {
        let windows = self.windows(touched);
        if windows.is_empty() {
            return splice::apply("", edit, reading).map(|(_, edited)| edited);
        }
        let mut changes = Vec::new();
        for window in windows {
            let (text, edited) = splice::apply(&self.text_of(&window), edit, reading)?;
            changes.push((window, text, edited));
        }
        let mut all = Edited::default();
        for (window, text, edited) in changes {
            self.refill(&window, &text, reading)?;
            all.entries += edited.entries;
            all.removed.extend(edited.removed);
        }
        Ok(all)
    }

    /// Runs of places with the filled one before and the one after them.
    fn windows(&self, touched: &[usize]) -> Vec<Vec<usize>> {
        let is_filled = |at: &usize| !self.places[*at].text.is_empty();
        let mut windows: Vec<Vec<usize>> = Vec::new();
        for at in touched {
            let before = (0..*at).rev().find(is_filled);
            match windows.last_mut() {
                // The window before has reached it already, or its neighbour.
                Some(window) if window.last() == Some(at) => {}
                Some(window) if before.is_some() && window.last() == before.as_ref() => window.push(*at),
                _ => windows.push(before.into_iter().chain([*at]).collect()),
            }
            let after = (at + 1..self.places.len()).find(is_filled);
            windows.last_mut().into_iter().for_each(|window| window.extend(after));
        }
        windows
    }

    fn append(
        &mut self,
        text: &EntryText,
        id: Option<RunnerId>,
        credential: &Credential,
        reading: ParseContext<'_>,
    ) -> Result<Edited, Error> {
        let is_filled = |place: &Place<'_>| !place.text.is_empty();
        let first = self.places.iter().find(|place| is_filled(place)).map(|place| &*place.text).unwrap_or_default();
        let newline = splice::newline_of(first);
        let block = splice::block(text, newline, id, credential, reading)?;
        let mismatch = || Error::EditMismatch { path: reading.path.to_owned() };
        let parts = layout::parts(&block).ok_or_else(mismatch)?;
        let [above, lines] = parts.as_slice() else { return Err(mismatch()) };
        let entry = entry_of(&block[lines.span.clone()], reading).ok_or_else(mismatch)?;
        // What is above a header belongs to the part before.
        let last = self.places.iter().rposition(is_filled).unwrap_or_default();
        let last = self.places.get_mut(last).ok_or_else(mismatch)?;
        let above = [&splice::separator(&last.text, newline), &block[above.span.clone()]].concat();
        last.text.to_mut().push_str(&above);
        self.add(block[lines.span.clone()].to_owned(), Some(Cow::Owned(entry)));
        Ok(Edited { entries: 1, removed: Vec::new() })
    }

    /// Puts the parts of an edited text into the places that it comes from; those that are left over stay empty.
    fn refill(&mut self, places: &[usize], text: &str, reading: ParseContext<'_>) -> Result<(), Error> {
        let mismatch = || Error::EditMismatch { path: reading.path.to_owned() };
        let parts = layout::parts(text).ok_or_else(mismatch)?;
        let mut filled = Vec::new();
        for part in parts.iter().filter(|part| !part.span.is_empty()) {
            let lines = &text[part.span.clone()];
            let entry = if part.is_entry { Some(entry_of(lines, reading).ok_or_else(mismatch)?) } else { None };
            filled.push((lines.to_owned(), entry));
        }
        if filled.len() > places.len() {
            return Err(mismatch());
        }
        let rest = std::iter::repeat_with(|| (String::new(), None));
        for (at, (text, entry)) in places.iter().zip(filled.into_iter().chain(rest)) {
            self.put(*at, text, entry.map(Cow::Owned));
        }
        Ok(())
    }

    fn text_of(&self, places: &[usize]) -> String {
        places.iter().map(|at| &*self.places[*at].text).collect()
    }

    /// An error about a line of these places, with its line in the file.
    fn in_file(&self, error: Error, places: &[usize]) -> Error {
        let breaks = |at: &usize| line_breaks(&self.places[*at].text);
        error.with_line(|line| {
            let mut before = 0;
            for at in places {
                let count = breaks(at);
                if line <= before + count {
                    let above: usize = (0..*at).map(|at| breaks(&at)).sum();
                    return above + line - before;
                }
                before += count;
            }
            line
        })
    }
}
