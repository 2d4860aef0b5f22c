//! Parameters of a request from any source, typed on access.

use serde_json::{Map, Value};

use crate::Answer;

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters(pub(crate) Map<String, Value>);

impl Parameters {
    /// Whether a parameter was sent, even as `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Refuses with 400 unless all of these were sent; the refusal names all missing ones.
    pub(crate) fn require(&self, names: &[&str]) -> Result<(), Answer> {
        let missing: Vec<String> =
            names.iter().filter(|name| !self.has(name)).map(|name| format!("{name} is missing")).collect();
        if missing.is_empty() { Ok(()) } else { Err(Answer::raw_error(400, missing.join(", "))) }
    }

    /// Refuses with 400 if more than one of these was sent.
    pub(crate) fn exclusive(&self, names: &[&str]) -> Result<(), Answer> {
        if names.iter().filter(|name| self.has(name)).count() > 1 {
            return Err(Answer::raw_error(400, format!("{} are mutually exclusive", names.join(", "))));
        }
        Ok(())
    }

    /// A text; `None` if it is absent or `null`.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Answer> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Array(_) | Value::Object(_)) => Err(invalid(name)),
            Some(other) => Ok(Some(other.to_string())),
        }
    }

    /// A boolean.
    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, Answer> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match text.to_ascii_lowercase().as_str() {
            "" => Ok(None),
            "true" | "t" | "1" | "yes" | "y" | "on" => Ok(Some(true)),
            "false" | "f" | "0" | "no" | "n" | "off" => Ok(Some(false)),
            _ => Err(invalid(name)),
        }
    }

    /// An integer.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, Answer> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => text.parse().map(Some).map_err(|_| invalid(name)),
            _ => Ok(None),
        }
    }

    /// One of several names.
    pub(crate) fn choice(&self, name: &str, choices: &[&str]) -> Result<Option<String>, Answer> {
        match self.text(name)? {
            Some(text) if !choices.contains(&text.as_str()) => {
                Err(Answer::raw_error(400, format!("{name} does not have a valid value")))
            }
            text => Ok(text),
        }
    }

    /// A list: an array, or a text with commas.
    pub(crate) fn list(&self, name: &str) -> Result<Option<Vec<String>>, Answer> {
        let Some(Value::Array(items)) = self.0.get(name) else {
            return Ok(self.text(name)?.map(|text| trimmed(text.split(','))));
        };
        let texts: Vec<String> =
            items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
        Ok(Some(trimmed(texts.iter().map(String::as_str))))
    }

    /// An object; `None` if it is absent or `null`.
    pub(crate) fn object(&self, name: &str) -> Result<Option<&Value>, Answer> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(object @ Value::Object(_)) => Ok(Some(object)),
            Some(_) => Err(invalid(name)),
        }
    }
}

fn trimmed<'a>(items: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for item in items.map(str::trim).filter(|item| !item.is_empty()) {
        if !kept.iter().any(|present| present == item) {
            kept.push(item.to_owned());
        }
    }
    kept
}

fn invalid(name: &str) -> Answer {
    Answer::raw_error(400, format!("{name} is invalid"))
}
