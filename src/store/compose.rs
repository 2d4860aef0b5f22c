//! The text of one `[[runners]]` entry without its credential.

use std::fmt;
use std::path::Path;

use toml_edit::{ArrayOfTables, Decor, Document, DocumentMut, InlineTable, Item, Key, Table, TableLike, Value};

use super::config_file::syntax;
use super::splice::{CREDENTIAL_KEYS, without_credential};
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
        let mut table = match &entry.template {
            Some(template) => template_table(template)?,
            None => Table::new(),
        };
        for key in CREDENTIAL_KEYS {
            table.remove(key);
        }
        for (key, value) in fields(entry) {
            put(&mut table, key, value);
        }
        for (key, value) in &entry.settings {
            set(&mut table, key, value)?;
        }
        // The official order, with all that is not registration's own left where it was.
        table.sort_values_by(|one, _, other, _| rank(one).cmp(&rank(other)));
        let mut tables = ArrayOfTables::new();
        tables.push(table);
        let mut document = DocumentMut::new();
        document.insert("runners", Item::ArrayOfTables(tables));
        Self::parse(&document.to_string())
    }

    /// Takes back a text that was kept, without its number, token and times.
    ///
    /// # Errors
    /// [`ComposeError`] for what is not the text of one entry.
    pub fn parse(text: &str) -> Result<Self, ComposeError> {
        let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
        let document = Document::parse(text.as_str()).map_err(|error| syntax_error(&text, &error))?;
        let is_alone = document.iter().all(|(key, _)| key == "runners");
        match document.get("runners").and_then(Item::as_array_of_tables) {
            Some(tables) if tables.len() == 1 && is_alone => {}
            Some(tables) => return Err(ComposeError::EntryCount(tables.len())),
            None => return Err(ComposeError::EntryCount(0)),
        }
        let text = without_credential(&text).ok_or(ComposeError::EntryCount(0))?;
        Ok(Self(text))
    }

    /// The text, which may hold secrets of the executor's.
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

impl fmt::Debug for NewEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NewEntry").field("name", &self.name).field("url", &self.url).finish_non_exhaustive()
    }
}

/// The one entry of a template, as a table.
fn template_table(template: &str) -> Result<Table, ComposeError> {
    let parsed: Result<DocumentMut, _> = template.parse();
    let mut document = parsed.map_err(|error| syntax_error(template, &error))?;
    let item = document.remove("runners").unwrap_or_default();
    let tables = item.into_array_of_tables().map_err(|_| ComposeError::EntryCount(0))?;
    let count = tables.len();
    let mut tables = tables.into_iter();
    match (tables.next(), tables.next()) {
        (Some(table), None) => Ok(table),
        (Some(_) | None, _) => Err(ComposeError::EntryCount(count)),
    }
}

fn syntax_error(text: &str, error: &toml_edit::TomlError) -> ComposeError {
    let (line, column, message) = syntax(text, error);
    ComposeError::Syntax { line, column, message }
}

/// The keys of registration's own, in the official order.
const ORDER: [&str; 3] = ["name", "url", "executor"];

fn rank(key: &Key) -> usize {
    ORDER.iter().position(|name| *name == key.get()).unwrap_or(ORDER.len())
}

fn fields(entry: &NewEntry) -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::from(text);
    let path = |path: &Path| Value::from(path.to_string_lossy().into_owned());
    let number = |number: u32| Value::from(i64::from(number));
    let optional = [
        ("executor", entry.executor.as_deref().map(text)),
        ("shell", entry.shell.as_deref().map(text)),
        ("limit", entry.limit.map(number)),
        ("request_concurrency", entry.request_concurrency.map(number)),
        ("output_limit", entry.output_limit.map(number)),
        ("tls-ca-file", entry.tls.ca_file.as_deref().map(path)),
        ("tls-cert-file", entry.tls.cert_file.as_deref().map(path)),
        ("tls-key-file", entry.tls.key_file.as_deref().map(path)),
    ];
    let mut fields = vec![("name", text(&entry.name)), ("url", text(entry.url.as_str()))];
    fields.extend(optional.into_iter().filter_map(|(key, value)| Some((key, value?))));
    fields
}

/// Sets one key of a table; the comment behind a value that is replaced stays.
fn put(table: &mut dyn TableLike, key: &str, mut value: Value) {
    if let Some(old) = table.get_mut(key).and_then(Item::as_value_mut) {
        *value.decor_mut() = old.decor().clone();
        *old = value;
        return;
    }
    let key_with_indent = Key::new(key).with_leaf_decor(Decor::new("  ", " "));
    table.remove(key);
    table.entry_format(&key_with_indent).or_insert(Item::Value(value.decorated(" ", "")));
}

/// Sets one dotted key to a value given as text.
fn set(table: &mut Table, dotted: &str, value: &str) -> Result<(), ComposeError> {
    let key_error = || ComposeError::SettingKey(dotted.to_owned());
    let path = Key::parse(dotted).map_err(|_| key_error())?;
    let (last, parents) = path.split_last().ok_or_else(key_error)?;
    let is_reserved = |key: &Key| CREDENTIAL_KEYS.contains(&key.get()) || matches!(key.get(), "name" | "url");
    if path.first().is_some_and(is_reserved) {
        return Err(ComposeError::SettingReserved(dotted.to_owned()));
    }
    let value: Value = value.trim().parse().map_err(|_| ComposeError::SettingValue(dotted.to_owned()))?;
    let mut parent: &mut dyn TableLike = table;
    let mut is_inline = false;
    for key in parents {
        let conflict = || ComposeError::SettingConflict(dotted.to_owned());
        let item = parent.entry(key.get()).or_insert_with(|| if is_inline { inline_table() } else { sub_table() });
        is_inline = item.is_inline_table();
        parent = item.as_table_like_mut().ok_or_else(conflict)?;
    }
    if parent.get(last.get()).is_some_and(|item| !item.is_value()) {
        return Err(ComposeError::SettingConflict(dotted.to_owned()));
    }
    put(parent, last.get(), value);
    Ok(())
}

fn inline_table() -> Item {
    Item::Value(Value::InlineTable(InlineTable::new()))
}

fn sub_table() -> Item {
    let mut table = Table::new();
    table.decor_mut().set_prefix("  ");
    Item::Table(table)
}
