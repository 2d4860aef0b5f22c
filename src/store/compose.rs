//! Composes the text of a new `[[runners]]` entry.

use std::fmt;
use std::path::Path;

use toml_edit::{ArrayOfTables, Decor, DocumentMut, InlineTable, Item, Key, Table, TableLike, Value};

use super::entry_text::{CREDENTIAL_KEYS, ComposeError, EntryText};
use crate::model::{ServerUrl, TlsFiles};

/// gitlab-runner's indentation per level.
const INDENT: &str = "  ";

/// The settings of a new entry.
#[derive(Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// The text of a template file with exactly one `[[runners]]`; its name, url, id and token are ignored.
    pub template: Option<String>,
    /// The local name.
    pub name: String,
    /// The instance.
    pub url: ServerUrl,
    /// The executor's name.
    pub executor: Option<String>,
    /// The shell's name.
    pub shell: Option<String>,
    /// Maximum number of concurrent jobs.
    pub limit: Option<u32>,
    /// Maximum number of concurrent job requests.
    pub request_concurrency: Option<u32>,
    /// Maximum job log size, in KiB.
    pub output_limit: Option<u32>,
    /// How to trust the server.
    pub tls: TlsFiles,
    /// Any other keys, dotted (`docker.image`), with their values as TOML text (`"alpine"`).
    pub settings: Vec<(String, String)>,
}

impl EntryText {
    /// Composes the text of a new entry.
    ///
    /// # Errors
    /// [`ComposeError`] for an invalid template or setting.
    pub fn compose(entry: &NewEntry) -> Result<Self, ComposeError> {
        let mut table = match &entry.template {
            Some(template) => template_table(template)?,
            None => Table::new(),
        };
        for key in CREDENTIAL_KEYS {
            table.remove(key);
        }
        for (key, value) in fields(entry) {
            put(&mut table, key, value, INDENT);
        }
        for (key, value) in &entry.settings {
            set(&mut table, key, value)?;
        }
        // gitlab-runner's order for its keys; all others keep their position.
        table.sort_values_by(|one, _, other, _| rank(one).cmp(&rank(other)));
        let mut tables = ArrayOfTables::new();
        tables.push(table);
        let mut document = DocumentMut::new();
        document.insert("runners", Item::ArrayOfTables(tables));
        Self::parse(&document.to_string())
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
    let mut document = parsed.map_err(|error| ComposeError::syntax(template, &error))?;
    let item = document.remove("runners").unwrap_or_default();
    let tables = item.into_array_of_tables().map_err(|_| ComposeError::EntryCount(0))?;
    let count = tables.len();
    let mut tables = tables.into_iter();
    match (tables.next(), tables.next()) {
        (Some(table), None) => Ok(table),
        (Some(_) | None, _) => Err(ComposeError::EntryCount(count)),
    }
}

/// The first keys of an entry, in gitlab-runner's order.
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

/// Sets one key of a table; keeps the comment after a replaced value.
fn put(table: &mut dyn TableLike, key: &str, mut value: Value, indent: &str) {
    if let Some(old) = table.get_mut(key).and_then(Item::as_value_mut) {
        *value.decor_mut() = old.decor().clone();
        *old = value;
        return;
    }
    let key_with_indent = Key::new(key).with_leaf_decor(Decor::new(indent, " "));
    table.remove(key);
    table.entry_format(&key_with_indent).or_insert(Item::Value(value.decorated(" ", "")));
}

/// Sets one dotted key to a TOML value.
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
    for (depth, key) in parents.iter().enumerate() {
        let conflict = || ComposeError::SettingConflict(dotted.to_owned());
        let new = || if is_inline { inline_table() } else { sub_table(&INDENT.repeat(depth + 1)) };
        let item = parent.entry(key.get()).or_insert_with(new);
        is_inline = item.is_inline_table();
        parent = item.as_table_like_mut().ok_or_else(conflict)?;
    }
    if parent.get(last.get()).is_some_and(|item| !item.is_value()) {
        return Err(ComposeError::SettingConflict(dotted.to_owned()));
    }
    let indent = if is_inline { " ".to_owned() } else { INDENT.repeat(path.len()) };
    put(parent, last.get(), value, &indent);
    Ok(())
}

fn inline_table() -> Item {
    Item::Value(Value::InlineTable(InlineTable::new()))
}

fn sub_table(indent: &str) -> Item {
    let mut table = Table::new();
    table.decor_mut().set_prefix(indent);
    Item::Table(table)
}
