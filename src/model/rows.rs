//! A JSON document whose rows are written in parts.

use std::fmt::Display;

use serde::Serialize;

/// Writes an object of one field and a list of rows in parts. Together they are what [`serde_json::to_string_pretty`]
/// makes of the whole, and a line feed.
#[derive(Debug, Default)]
pub struct PrettyRows {
    has_rows: bool,
}

impl PrettyRows {
    /// The part before the first row: a field with a number or a truth value, and the name of the list.
    #[must_use]
    pub fn opening(field: &str, value: impl Display, rows: &str) -> String {
        format!("{{\n  \"{field}\": {value},\n  \"{rows}\": [")
    }

    /// The same with a value between the two.
    ///
    /// # Errors
    /// If the value is no JSON.
    pub fn opening_with(
        field: &str,
        value: impl Display,
        (name, between): (&str, &impl Serialize),
        rows: &str,
    ) -> serde_json::Result<String> {
        let between = serde_json::to_string_pretty(between)?.replace('\n', "\n  ");
        Ok(format!("{{\n  \"{field}\": {value},\n  \"{name}\": {between},\n  \"{rows}\": ["))
    }

    /// Adds a row to the text.
    ///
    /// # Errors
    /// If the row is no JSON.
    pub fn add(&mut self, row: &impl Serialize, text: &mut String) -> serde_json::Result<()> {
        let row = serde_json::to_string_pretty(row)?;
        text.push_str(if self.has_rows { ",\n    " } else { "\n    " });
        self.has_rows = true;
        // A line feed within a string is escaped.
        for (number, line) in row.split('\n').enumerate() {
            if number > 0 {
                text.push_str("\n    ");
            }
            text.push_str(line);
        }
        Ok(())
    }

    /// The part after the last row.
    #[must_use]
    pub fn closing(&self) -> &'static str {
        if self.has_rows { "\n  ]\n}\n" } else { "]\n}\n" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DaemonReport, Report, RunnerReport};

    #[test]
    fn a_value_before_the_rows_is_what_serde_makes_of_it() {
        let daemon = DaemonReport { settings_error: Some("two\nlines".to_owned()), ..DaemonReport::default() };
        let rows = PrettyRows::default();
        let text = PrettyRows::opening_with("schema", Report::SCHEMA, ("daemon", &daemon), "runners").unwrap();
        let whole = Report { daemon: Some(daemon), ..Report::new(Vec::new()) };
        assert_eq!(text + rows.closing(), serde_json::to_string_pretty(&whole).unwrap() + "\n");
    }

    #[test]
    fn the_parts_are_what_serde_makes_of_the_whole() {
        let named = |name: &str| RunnerReport { name: Some(name.to_owned()), ..RunnerReport::default() };
        for runners in [vec![], vec![named("a")], vec![named("two\nlines \"quoted\""), named(""), named("c")]] {
            let mut rows = PrettyRows::default();
            let mut text = PrettyRows::opening("schema", Report::SCHEMA, "runners");
            runners.iter().for_each(|runner| rows.add(runner, &mut text).unwrap());
            text.push_str(rows.closing());
            assert_eq!(text, serde_json::to_string_pretty(&Report::new(runners)).unwrap() + "\n");
        }
    }
}
