//! TOML as plain values, to compare two texts independent of formatting.

use std::collections::BTreeMap;

use toml_edit::{Document, Item, TableLike, Value};

/// A TOML value without formatting.
#[derive(Clone, PartialEq)]
pub(super) enum Tree {
    Text(String),
    Integer(i64),
    /// As bits: a NaN equals itself.
    Float(u64),
    Boolean(bool),
    /// In canonical form.
    Time(String),
    List(Vec<Tree>),
    Table(BTreeMap<String, Tree>),
}

impl Tree {
    pub(super) fn of_document(document: &Document<&str>) -> Self {
        Self::of_table(document.as_table())
    }

    pub(super) fn of_table(table: &dyn TableLike) -> Self {
        let pairs = table.iter().map(|(key, item)| (key.to_owned(), Self::of_item(item)));
        Self::Table(pairs.collect())
    }

    pub(super) fn of_item(item: &Item) -> Self {
        match item {
            Item::None => Self::List(Vec::new()),
            Item::Value(value) => Self::of_value(value),
            Item::Table(table) => Self::of_table(table),
            Item::ArrayOfTables(tables) => Self::List(tables.iter().map(|table| Self::of_table(table)).collect()),
        }
    }

    /// The `[[runners]]` of a whole document.
    pub(super) fn runners(&mut self) -> Option<&mut Vec<Tree>> {
        let Self::Table(root) = self else { return None };
        match root.entry("runners".to_owned()).or_insert_with(|| Self::List(Vec::new())) {
            Self::List(runners) => Some(runners),
            Self::Text(_) | Self::Integer(_) | Self::Float(_) | Self::Boolean(_) | Self::Time(_) | Self::Table(_) => {
                None
            }
        }
    }

    /// Puts a value into a table.
    pub(super) fn set(&mut self, key: &str, value: Tree) {
        if let Self::Table(table) = self {
            table.insert(key.to_owned(), value);
        }
    }

    fn of_value(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text.value().clone()),
            Value::Integer(number) => Self::Integer(*number.value()),
            Value::Float(number) => Self::Float(number.value().to_bits()),
            Value::Boolean(flag) => Self::Boolean(*flag.value()),
            Value::Datetime(time) => Self::Time(time.value().to_string()),
            Value::Array(array) => Self::List(array.iter().map(Self::of_value).collect()),
            Value::InlineTable(table) => Self::of_table(table),
        }
    }
}
