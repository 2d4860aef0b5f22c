//! The text of one `[[runners]]` entry without its credential.

use std::fmt;

use toml_edit::{Document, Item};

use super::patch::{Patch, line_end, line_start, patched, syntax_error};
use crate::model::ServerUrl;

/// The keys of an entry that an [`EntryText`] does not contain.
pub(super) const CREDENTIAL_KEYS: [&str; 4] = ["id", "token", "token_obtained_at", "token_expires_at"];

/// The TOML text of one `[[runners]]` entry with its comments, without id, token and times.
///
/// Its `Debug` shows only its length: executor settings can contain secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryText(String);

/// Why a text, or a template with settings, makes no entry; never contains their values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// The template is not TOML.
    #[error("cannot understand the template at line {line}, column {column}: {message}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// What the parser expected.
        message: String,
    },
    /// The template has no entry, or several.
    #[error("the template has {0} [[runners]] entries, but exactly one is needed")]
    EntryCount(usize),
    /// A setting's key is invalid.
    #[error("`{0}` is not a key such as docker.image")]
    SettingKey(String),
    /// A setting's value is not a TOML value.
    #[error("the value of `{0}` is not a TOML value: text needs quotes, as in docker.image=\"alpine\"")]
    SettingValue(String),
    /// A setting has an option of its own.
    #[error("`{0}` cannot be set this way")]
    SettingReserved(String),
    /// A setting does not fit into the template.
    #[error("`{0}` does not fit the template, where a part of that key is not a table")]
    SettingConflict(String),
}

impl ComposeError {
    pub(super) fn syntax(text: &str, error: &toml_edit::TomlError) -> Self {
        let (line, column, message) = syntax_error(text, error);
        Self::Syntax { line, column, message }
    }
}

impl EntryText {
    /// Parses the text of one entry and removes its id, token and times.
    ///
    /// # Errors
    /// [`ComposeError`] if the text is not exactly one entry.
    pub fn parse(text: &str) -> Result<Self, ComposeError> {
        let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
        let text = text.trim_start_matches('\n').to_owned();
        let document = Document::parse(text.as_str()).map_err(|error| ComposeError::syntax(&text, &error))?;
        let is_alone = document.iter().all(|(key, _)| key == "runners");
        match document.get("runners").and_then(Item::as_array_of_tables) {
            Some(tables) if tables.len() == 1 && is_alone => {}
            Some(tables) => return Err(ComposeError::EntryCount(tables.len())),
            None => return Err(ComposeError::EntryCount(0)),
        }
        let text = without_credential(&text).ok_or(ComposeError::EntryCount(0))?;
        Ok(Self(text))
    }

    /// The text; its executor settings can contain secrets.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The entry's name.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        self.value("name")
    }

    /// The entry's instance.
    #[must_use]
    pub fn url(&self) -> Option<ServerUrl> {
        self.value("url")?.parse().ok()
    }

    fn value(&self, key: &str) -> Option<String> {
        let document = Document::parse(self.0.as_str()).ok()?;
        let table = document.get("runners")?.as_array_of_tables()?.get(0)?;
        table.get(key)?.as_str().map(str::to_owned)
    }
}

impl fmt::Debug for EntryText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EntryText({} bytes)", self.0.len())
    }
}

/// Removes the lines of the credential from the text of one entry.
fn without_credential(text: &str) -> Option<String> {
    let document = Document::parse(text).ok()?;
    let table = document.get("runners")?.as_array_of_tables()?.get(0)?;
    let mut cuts = Vec::new();
    for name in CREDENTIAL_KEYS {
        let Some((key, item)) = table.get_key_value(name) else { continue };
        let (key, value) = (key.span()?, item.as_value()?.span()?);
        cuts.push(Patch::removal(line_start(text, key.start)..line_end(text, value.end)));
    }
    Some(patched(text, cuts))
}
