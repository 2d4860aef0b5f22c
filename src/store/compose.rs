//! The text of one `[[runners]]` entry without its credential.

use std::fmt;

use crate::model::{ServerUrl, TlsFiles};

/// The TOML text of one `[[runners]]` entry, comments and all, without its number, token and times.
///
/// Its `Debug` shows nothing of it: executor settings can hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryText(String);

/// What a new entry is made of.
#[derive(Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// The text of a template file with exactly one `[[runners]]`; its name, url, id and token do not count.
    pub template: Option<String>,
    /// The local name.
    pub name: String,
    /// The instance.
    pub url: ServerUrl,
    /// The executor's name.
    pub executor: Option<String>,
    /// The shell's name.
    pub shell: Option<String>,
    /// Jobs at the same time.
    pub limit: Option<u32>,
    /// Requests for jobs at the same time.
    pub request_concurrency: Option<u32>,
    /// Longest job log, in KiB.
    pub output_limit: Option<u32>,
    /// How to trust the server.
    pub tls: TlsFiles,
    /// Any other keys, dotted (`docker.image`), with their values as TOML text (`"alpine"`).
    pub settings: Vec<(String, String)>,
}

/// Why no entry can be made of a template and settings; never contains their values.
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
    /// A setting's key cannot be one.
    #[error("`{0}` is not a key such as docker.image")]
    SettingKey(String),
    /// A setting's value is not a TOML value.
    #[error("the value of `{0}` is not a TOML value: text needs quotes, as in docker.image=\"alpine\"")]
    SettingValue(String),
    /// A setting is one of the keys that have a place of their own.
    #[error("`{0}` cannot be set this way")]
    SettingReserved(String),
    /// A setting does not fit into the template.
    #[error("`{0}` does not fit the template, where a part of that key is something else than a table")]
    SettingConflict(String),
}

impl EntryText {
    /// Makes the text of a new entry.
    ///
    /// # Errors
    /// [`ComposeError`] for a template or a setting that cannot be used.
    pub fn compose(entry: &NewEntry) -> Result<Self, ComposeError> {
        let _ = entry;
        todo!()
    }

    /// Takes back a text that was kept.
    ///
    /// # Errors
    /// [`ComposeError`] for what is not the text of one entry.
    pub fn parse(text: &str) -> Result<Self, ComposeError> {
        let _ = text;
        todo!()
    }

    /// The text, which may hold secrets of the executor's.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The entry's name.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        todo!()
    }

    /// The entry's instance.
    #[must_use]
    pub fn url(&self) -> Option<ServerUrl> {
        todo!()
    }
}

impl fmt::Debug for EntryText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EntryText({} bytes)", self.0.len())
    }
}

impl fmt::Debug for NewEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NewEntry").field("name", &self.name).field("url", &self.url).finish_non_exhaustive()
    }
}
