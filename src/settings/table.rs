//! Reads the tables of agent.toml; every value has its line.
//!
//! serde stops at the first error, so the tables are read by hand: a key that is read is known, a value of the
//! wrong type is one error, and each key left over is reported as unknown.

use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Diagnostics, Place, Placed};
use super::similar::similar;
use crate::model::parse_span;
use crate::secret::without_tokens;

/// agent.toml: its path and its text.
pub(super) struct Document<'text> {
    file: PathBuf,
    text: &'text str,
}

/// One table, whose keys are read one by one.
pub(super) struct TableReader<'text> {
    document: &'text Document<'text>,
    /// The heading as the user writes it: `[verify]`.
    title: String,
    place: Place,
    unread: Vec<KeyValue<'text>>,
    known: Vec<&'static str>,
}

struct KeyValue<'text> {
    key: &'text str,
    place: Place,
    value: &'text DeValue<'text>,
}

impl<'text> Document<'text> {
    pub(super) fn new(file: &Path, text: &'text str) -> Self {
        Self { file: file.to_owned(), text }
    }

    /// Parses the text; `None` after a syntax error.
    pub(super) fn parse(&self, diagnostics: &mut Diagnostics) -> Option<Spanned<DeTable<'text>>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            diagnostics.add(&self.place(error.span().unwrap_or_default()), error.message());
        }
        errors.is_empty().then_some(table)
    }

    pub(super) fn root(&'text self, table: &'text Spanned<DeTable<'text>>) -> TableReader<'text> {
        self.table("the top level".to_owned(), Place::File(self.file.clone()), table.get_ref())
    }

    /// Resolves a path relative to the directory of agent.toml.
    fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.as_bytes().iter().take(span.start);
        Place::Line { file: self.file.clone(), line: before.filter(|byte| **byte == b'\n').count() + 1 }
    }

    fn table(&'text self, title: String, place: Place, table: &'text DeTable<'text>) -> TableReader<'text> {
        let pair = |(key, value): (&'text Spanned<_>, &'text Spanned<_>)| KeyValue {
            key: <std::borrow::Cow<'_, str> as AsRef<str>>::as_ref(key.get_ref()),
            place: self.place(key.span()),
            value: value.get_ref(),
        };
        TableReader { document: self, title, place, unread: table.iter().map(pair).collect(), known: Vec::new() }
    }
}

/// Whether a path begins with a word that only a shell expands: `~`, `~/…`, `$HOME/…`, `${HOME}/…`. A path that begins so
/// can be written as `./~`.
fn is_of_shell(path: &str) -> bool {
    let is_variable =
        |rest: &str| rest.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_' || first == '{');
    path == "~" || path.starts_with("~/") || path.strip_prefix('$').is_some_and(is_variable)
}

impl<'text> TableReader<'text> {
    /// The place where the table begins.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The place of a key that was not read yet.
    pub(super) fn place_of(&self, key: &str) -> Option<Place> {
        self.unread.iter().find(|pair| pair.key == key).map(|pair| pair.place.clone())
    }

    /// Reads a string.
    pub(super) fn text(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<String>> {
        self.value(key, "a string in quotes", diagnostics, text_of)
    }

    /// Reads a path, relative to the directory of agent.toml.
    pub(super) fn path(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<PathBuf>> {
        let text = self.text(key, diagnostics)?;
        if text.value.is_empty() {
            diagnostics.add(&text.place, format!("`{key}` is empty"));
            return None;
        }
        if is_of_shell(&text.value) {
            let message = format!("`{key}`: only a shell expands the beginning of `{}`", without_tokens(&text.value));
            let remedy =
                "write the whole path, such as `/home/NAME/token`, or one relative to the directory of agent.toml";
            diagnostics.add_with_remedy(&text.place, message, Some(remedy.to_owned()));
            return None;
        }
        Some(text.map(|path| self.document.resolve(&path)))
    }

    /// Reads a boolean.
    pub(super) fn boolean(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<bool>> {
        self.value(key, "true or false", diagnostics, DeValue::as_bool)
    }

    /// Reads a non-negative integer.
    pub(super) fn number<N: FromStr>(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<N>> {
        self.value(key, "a non-negative integer", diagnostics, number_of)
    }

    /// Reads a number or a path of GitLab, such as `7` or `"group/subgroup"`.
    pub(super) fn id_or_path(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<String>> {
        let expected = "a number or a path such as \"group/subgroup\"";
        let text = self.value(key, expected, diagnostics, |value| match number_of::<u64>(value) {
            Some(number) => Some(number.to_string()),
            None => text_of(value),
        })?;
        let is_path = text.value.split('/').all(is_path_part);
        if !is_path {
            diagnostics.add(&text.place, format!("`{key}` must be {expected}, without a slash at its ends"));
        }
        is_path.then_some(text)
    }

    /// Reads a string and parses it.
    pub(super) fn parsed<T>(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<T>>
    where
        T: FromStr<Err: Display>,
    {
        let text = self.text(key, diagnostics)?;
        let invalid = |error: &T::Err| diagnostics.add(&text.place, format!("`{key}`: {error}"));
        Some(Placed::new(text.value.parse().inspect_err(invalid).ok()?, text.place))
    }

    /// Reads one of a few names.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        key: &'static str,
        names: &[(&str, T)],
        diagnostics: &mut Diagnostics,
    ) -> Option<Placed<T>> {
        let text = self.text(key, diagnostics)?;
        let found = names.iter().find(|(name, _)| *name == text.value);
        if found.is_none() {
            let names: Vec<_> = names.iter().map(|(name, _)| *name).collect();
            diagnostics.add(&text.place, format!("`{key}` must be one of {}, not `{}`", names.join(", "), text.value));
        }
        found.map(|(_, value)| Placed::new(*value, text.place))
    }

    /// Reads a duration of zero or more.
    pub(super) fn span(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<Duration>> {
        let text = self.value(key, "a duration in quotes, such as \"90s\"", diagnostics, text_of)?;
        span_of(key, text, diagnostics)
    }

    /// Reads a duration of more than zero.
    pub(super) fn nonzero_span(
        &mut self,
        key: &'static str,
        diagnostics: &mut Diagnostics,
    ) -> Option<Placed<Duration>> {
        let span = self.span(key, diagnostics)?;
        if span.value.is_zero() {
            diagnostics.add(&span.place, format!("`{key}` must be more than zero"));
            return None;
        }
        Some(span)
    }

    /// Reads a number of seconds or a duration.
    pub(super) fn seconds(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<Duration>> {
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

    /// Reads a list of strings, or one comma-separated string.
    pub(super) fn list(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<Vec<String>>> {
        self.value(key, "a list of strings", diagnostics, |value| match value {
            DeValue::String(text) => Some(split_list(text)),
            DeValue::Array(items) => items.iter().map(|item| text_of(item.get_ref())).collect(),
            _ => None,
        })
    }

    /// Reads a list of strings, which may contain commas.
    pub(super) fn array_of_texts(
        &mut self,
        key: &'static str,
        diagnostics: &mut Diagnostics,
    ) -> Option<Placed<Vec<String>>> {
        self.value(key, "a list of strings", diagnostics, |value| {
            value.as_array()?.iter().map(|item| text_of(item.get_ref())).collect()
        })
    }

    /// Reads a table; `expected` describes it in the error for any other value.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        expected: &str,
        diagnostics: &mut Diagnostics,
    ) -> Option<TableReader<'text>> {
        let table = self.value(key, expected, diagnostics, DeValue::as_table)?;
        let title = if self.place.is_whole_file() { format!("[{key}]") } else { format!("`{key}`") };
        Some(self.document.table(title, table.place, table.value))
    }

    /// Reads a list of tables.
    pub(super) fn tables(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Vec<TableReader<'text>> {
        let expected = format!("a list of tables, each written as [[{key}]]");
        let tables = self.value(key, &expected, diagnostics, |value| {
            let items = value.as_array()?.iter();
            items.map(|item| Some((item.span(), item.get_ref().as_table()?))).collect::<Option<Vec<_>>>()
        });
        let tables = tables.map(|tables| tables.value).unwrap_or_default();
        let table = |(span, table)| self.document.table(format!("[[{key}]]"), self.document.place(span), table);
        tables.into_iter().map(table).collect()
    }

    /// Reports each key that was not read.
    pub(super) fn finish(self, diagnostics: &mut Diagnostics) {
        for pair in &self.unread {
            let message = format!("unknown key `{}` in {}", pair.key, self.title);
            // A long list would hide the one that is meant.
            let remedy = match similar(pair.key, self.known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known are: {}", self.known.join(", ")),
            };
            diagnostics.add_with_remedy(&pair.place, message, Some(remedy));
        }
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        diagnostics: &mut Diagnostics,
        convert: impl FnOnce(&'text DeValue<'text>) -> Option<T>,
    ) -> Option<Placed<T>> {
        self.known.push(key);
        let index = self.unread.iter().position(|pair| pair.key == key)?;
        let pair = self.unread.swap_remove(index);
        let value = convert(pair.value);
        if value.is_none() {
            diagnostics.add(&pair.place, format!("`{key}` must be {expected}, not {}", description(pair.value)));
        }
        Some(Placed::new(value?, pair.place))
    }
}

/// Splits a comma-separated list, as gitlab-runner's flags and variables contain it.
pub fn split_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// Whether a text can be one part of the path of a group or project.
fn is_path_part(part: &str) -> bool {
    !part.is_empty() && part.chars().all(|char| !char.is_whitespace() && !char.is_control() && !"?#%\\".contains(char))
}

fn text_of(value: &DeValue<'_>) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn number_of<N: FromStr>(value: &DeValue<'_>) -> Option<N> {
    value.as_integer().filter(|number| number.radix() == 10)?.as_str().parse().ok()
}

fn span_of(key: &str, text: Placed<String>, diagnostics: &mut Diagnostics) -> Option<Placed<Duration>> {
    let span = parse_span(&text.value).inspect_err(|error| diagnostics.add(&text.place, format!("`{key}`: {error}")));
    Some(Placed::new(span.ok()?, text.place))
}

/// Describes a value for messages; never the value itself, which could be a misplaced secret.
fn description(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "this number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "this list",
        DeValue::Table(_) => "a table",
    }
}
