//! agent.toml as tables whose every value knows its line.
//!
//! Read by hand rather than through serde, which stops at the first mistake: here a key that is taken is
//! known, a value of the wrong kind is one mistake, and what nobody took is unknown.

use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Mistakes, Place, Placed};
use crate::model::parse_span;

/// The text of agent.toml and where it lies.
pub(super) struct Document<'text> {
    file: PathBuf,
    text: &'text str,
}

/// One table, of which keys are taken one by one.
pub(super) struct Table<'text> {
    document: &'text Document<'text>,
    /// As it is written: `[verify]`.
    title: String,
    place: Place,
    left: Vec<Pair<'text>>,
    known: Vec<&'static str>,
}

struct Pair<'text> {
    key: &'text str,
    place: Place,
    value: &'text DeValue<'text>,
}

impl<'text> Document<'text> {
    pub(super) fn new(file: &Path, text: &'text str) -> Self {
        Self { file: file.to_owned(), text }
    }

    /// Understands the text; every mistake of syntax is added.
    pub(super) fn parse(&self, diagnostics: &mut Mistakes) -> Option<Spanned<DeTable<'text>>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            diagnostics.add(&self.place(error.span().unwrap_or_default()), error.message());
        }
        errors.is_empty().then_some(table)
    }

    pub(super) fn root(&'text self, table: &'text Spanned<DeTable<'text>>) -> Table<'text> {
        self.table("the top level".to_owned(), Place::File(self.file.clone()), table.get_ref())
    }

    /// A path as it is written here: relative to the directory of agent.toml.
    fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.as_bytes().iter().take(span.start);
        Place::Line { file: self.file.clone(), line: before.filter(|byte| **byte == b'\n').count() + 1 }
    }

    fn table(&'text self, title: String, place: Place, table: &'text DeTable<'text>) -> Table<'text> {
        let pair = |(key, value): (&'text Spanned<_>, &'text Spanned<_>)| Pair {
            key: <std::borrow::Cow<'_, str> as AsRef<str>>::as_ref(key.get_ref()),
            place: self.place(key.span()),
            value: value.get_ref(),
        };
        Table { document: self, title, place, left: table.iter().map(pair).collect(), known: Vec::new() }
    }
}

impl<'text> Table<'text> {
    /// Where the table begins.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Where a key that was not taken yet is.
    pub(super) fn place_of(&self, key: &str) -> Option<Place> {
        self.left.iter().find(|pair| pair.key == key).map(|pair| pair.place.clone())
    }

    /// Takes a text.
    pub(super) fn text(&mut self, key: &'static str, diagnostics: &mut Mistakes) -> Option<Placed<String>> {
        self.value(key, "a text in quotes", diagnostics, |value| value.as_str().map(str::to_owned))
    }

    /// Takes a path, relative to the directory of agent.toml.
    pub(super) fn path(&mut self, key: &'static str, diagnostics: &mut Mistakes) -> Option<Placed<PathBuf>> {
        let text = self.text(key, diagnostics)?;
        if text.value.is_empty() {
            diagnostics.add(&text.place, format!("`{key}` is empty"));
            return None;
        }
        Some(text.map(|path| self.document.resolve(&path)))
    }

    /// Takes `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, diagnostics: &mut Mistakes) -> Option<Placed<bool>> {
        self.value(key, "true or false", diagnostics, DeValue::as_bool)
    }

    /// Takes a whole number.
    pub(super) fn number<N: FromStr>(&mut self, key: &'static str, diagnostics: &mut Mistakes) -> Option<Placed<N>> {
        self.value(key, "a whole number that is not negative", diagnostics, number_of)
    }

    /// Takes a text that stands for something.
    pub(super) fn parsed<T>(&mut self, key: &'static str, diagnostics: &mut Mistakes) -> Option<Placed<T>>
    where
        T: FromStr<Err: Display>,
    {
        let text = self.text(key, diagnostics)?;
        match text.value.parse() {
            Ok(value) => Some(Placed::new(value, text.place)),
            Err(error) => {
                diagnostics.add(&text.place, format!("`{key}`: {error}"));
                None
            }
        }
    }

    /// Takes one of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
        diagnostics: &mut Mistakes,
    ) -> Option<Placed<T>> {
        let text = self.text(key, diagnostics)?;
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            diagnostics.add(&text.place, format!("`{key}` must be one of {}, not `{}`", words.join(", "), text.value));
        }
        found.map(|(_, value)| Placed::new(*value, text.place))
    }

    /// Takes a duration of zero or more.
    pub(super) fn span(&mut self, key: &'static str, diagnostics: &mut Mistakes) -> Option<Placed<Duration>> {
        let text = self.value(key, "a duration in quotes, such as \"90s\"", diagnostics, text_of)?;
        span_of(key, text, diagnostics)
    }

    /// Takes a duration of more than zero.
    pub(super) fn nonzero_span(&mut self, key: &'static str, diagnostics: &mut Mistakes) -> Option<Placed<Duration>> {
        let span = self.span(key, diagnostics)?;
        if span.value.is_zero() {
            diagnostics.add(&span.place, format!("`{key}` must be more than zero"));
            return None;
        }
        Some(span)
    }

    /// Takes a number of seconds or a duration.
    pub(super) fn seconds(&mut self, key: &'static str, diagnostics: &mut Mistakes) -> Option<Placed<Duration>> {
        let expected = "a number of seconds or a duration in quotes";
        let either = self.value(key, expected, diagnostics, |value| match number_of(value) {
            Some(secs) => Some(Ok(Duration::from_secs(secs))),
            None => Some(Err(text_of(value)?)),
        })?;
        match either.value {
            Ok(span) => Some(Placed::new(span, either.place)),
            Err(text) => span_of(key, Placed::new(text, either.place), diagnostics),
        }
    }

    /// Takes a list of texts, or one text with commas in it.
    pub(super) fn list(&mut self, key: &'static str, diagnostics: &mut Mistakes) -> Option<Placed<Vec<String>>> {
        self.value(key, "a list of texts in quotes", diagnostics, |value| match value {
            DeValue::String(text) => Some(split_list(text)),
            DeValue::Array(items) => items.iter().map(|item| text_of(item.get_ref())).collect(),
            _ => None,
        })
    }

    /// Takes a table, and says in the caller's words what is wrong with anything else.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        expected: &str,
        diagnostics: &mut Mistakes,
    ) -> Option<Table<'text>> {
        let table = self.value(key, expected, diagnostics, DeValue::as_table)?;
        let title = if self.place.is_whole_file() { format!("[{key}]") } else { format!("`{key}`") };
        Some(self.document.table(title, table.place, table.value))
    }

    /// Takes a list of tables.
    pub(super) fn tables(&mut self, key: &'static str, diagnostics: &mut Mistakes) -> Vec<Table<'text>> {
        let expected = format!("a list of tables, each written as [[{key}]]");
        let tables = self.value(key, &expected, diagnostics, |value| {
            let items = value.as_array()?.iter();
            items.map(|item| Some((item.span(), item.get_ref().as_table()?))).collect::<Option<Vec<_>>>()
        });
        let tables = tables.map(|tables| tables.value).unwrap_or_default();
        let table = |(span, table)| self.document.table(format!("[[{key}]]"), self.document.place(span), table);
        tables.into_iter().map(table).collect()
    }

    /// Adds a mistake for each key that nobody took.
    pub(super) fn finish(self, diagnostics: &mut Mistakes) {
        for pair in &self.left {
            let known = self.known.join(", ");
            diagnostics.add(&pair.place, format!("unknown key `{}` in {}, known are: {known}", pair.key, self.title));
        }
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        diagnostics: &mut Mistakes,
        convert: impl FnOnce(&'text DeValue<'text>) -> Option<T>,
    ) -> Option<Placed<T>> {
        self.known.push(key);
        let index = self.left.iter().position(|pair| pair.key == key)?;
        let pair = self.left.swap_remove(index);
        let value = convert(pair.value);
        if value.is_none() {
            diagnostics.add(&pair.place, format!("`{key}` must be {expected}, not {}", article(pair.value)));
        }
        Some(Placed::new(value?, pair.place))
    }
}

/// Takes a comma-separated list apart, as the official flags and variables have it.
pub(super) fn split_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn text_of(value: &DeValue<'_>) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn number_of<N: FromStr>(value: &DeValue<'_>) -> Option<N> {
    value.as_integer().filter(|number| number.radix() == 10)?.as_str().parse().ok()
}

fn span_of(key: &str, text: Placed<String>, diagnostics: &mut Mistakes) -> Option<Placed<Duration>> {
    match parse_span(&text.value) {
        Ok(span) => Some(Placed::new(span, text.place)),
        Err(error) => {
            diagnostics.add(&text.place, format!("`{key}`: {error}"));
            None
        }
    }
}

/// What a value is, for messages: never the value, which could be a misplaced secret.
fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "such a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "such a list",
        DeValue::Table(_) => "a table",
    }
}
