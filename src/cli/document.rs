//! The JSON document for scripts: `{"schema": 1, "runners": [...]}`.

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

use crate::model::Report;

/// A row under the name that says what it is, such as `runners`.
pub(super) struct ReportDocument<Row> {
    pub(super) name: &'static str,
    pub(super) row: Row,
}

impl<Row: Serialize> Serialize for ReportDocument<Row> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serializer.serialize_map(Some(2))?;
        document.serialize_entry("schema", &Report::SCHEMA)?;
        document.serialize_entry(self.name, std::slice::from_ref(&self.row))?;
        document.end()
    }
}

/// The start of a document whose rows are streamed, separated by commas.
pub(super) fn opening(name: &str) -> String {
    format!("{{\"schema\":{},\"{name}\":[\n", Report::SCHEMA)
}

/// The end of a streamed document, which says whether the rows are complete.
pub(super) fn closing(error: Option<String>) -> String {
    format!("\n],\"complete\":{},\"error\":{}}}\n", error.is_none(), error.map_or(Value::Null, Value::String))
}
