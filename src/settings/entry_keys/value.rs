//! Values of flags and variables as TOML text.

use std::fmt::Display;
use std::str::FromStr;

use toml::{Table, Value};

use super::Kind;
use crate::settings::parse_boolean;

/// The value of a key as TOML text.
///
/// # Errors
/// A message that names the expected format, without the value, which can be a secret.
pub(super) fn toml(kind: Kind, values: &[String]) -> Result<String, String> {
    let last = values.last().map(String::as_str).unwrap_or_default();
    let value = match kind {
        Kind::Text | Kind::Secret | Kind::Duration | Kind::Any => Value::String(last.to_owned()),
        Kind::Switch => Value::Boolean(parse_boolean(last)?),
        Kind::Integer => Value::Integer(parsed(last, "an integer")?),
        Kind::Decimal => Value::Float(parsed(last, "a number")?),
        Kind::List | Kind::TextOrList => Value::Array(list(values)),
        Kind::Integers => Value::Array(values.iter().map(|value| integer(value)).collect::<Result<_, _>>()?),
        Kind::Services => Value::Array(list(values).into_iter().map(service).collect()),
        Kind::Map => Value::Table(table(values, |text| Ok(Value::String(text.to_owned())))?),
        Kind::Flags => Value::Table(table(values, |text| Ok(Value::Boolean(parse_boolean(text)?)))?),
        Kind::Numbers => Value::Table(table(values, integer)?),
        Kind::ListMap => Value::Table(lists(values)?),
        Kind::Json => structure(last).ok_or("is not JSON or a TOML value")?,
    };
    Ok(value.to_string())
}

fn integer(text: &str) -> Result<Value, String> {
    parsed(text, "an integer").map(Value::Integer)
}

fn parsed<T: FromStr<Err: Display>>(text: &str, expected: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("`{text}` is not {expected}"))
}

/// One string for each value, or those of a single list such as `["a", "b"]`. A comma does not split: it can be part of
/// a volume's options.
fn list(values: &[String]) -> Vec<Value> {
    if let [single] = values
        && let Some(Value::Array(items)) = structure(single)
        && items.iter().all(Value::is_str)
    {
        return items;
    }
    values.iter().cloned().map(Value::String).collect()
}

fn service(name: Value) -> Value {
    Value::Table(Table::from_iter([("name".to_owned(), name)]))
}

/// A table from `key:value` or `key=value` each, or from a single JSON object or TOML table.
fn table(values: &[String], convert: impl Fn(&str) -> Result<Value, String>) -> Result<Table, String> {
    if let [single] = values
        && let Some(Value::Table(table)) = structure(single)
    {
        return Ok(table);
    }
    values.iter().map(|text| pair(text).and_then(|(key, value)| Ok((key.to_owned(), convert(value)?)))).collect()
}

/// The same with a list for each key; a repeated key adds to it.
fn lists(values: &[String]) -> Result<Table, String> {
    if let [single] = values
        && let Some(Value::Table(table)) = structure(single)
    {
        return Ok(table);
    }
    let mut table = Table::new();
    for text in values {
        let (key, value) = pair(text)?;
        let list = table.entry(key).or_insert_with(|| Value::Array(Vec::new()));
        list.as_array_mut().into_iter().for_each(|list| list.push(Value::String(value.to_owned())));
    }
    Ok(table)
}

/// gitlab-runner splits at the first colon; a key such as `a=b` can contain the other sign.
fn pair(text: &str) -> Result<(&str, &str), String> {
    let pair = text.split_once(':').or_else(|| text.split_once('='));
    pair.filter(|(key, _)| !key.is_empty()).ok_or_else(|| "expected KEY:VALUE".to_owned())
}

/// A JSON or TOML list or table.
fn structure(text: &str) -> Option<Value> {
    let text = text.trim();
    if !text.starts_with(['[', '{']) {
        return None;
    }
    let json = serde_json::from_str::<serde_json::Value>(text).ok();
    json.and_then(|value| Value::try_from(value).ok()).or_else(|| Value::from_str(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: Kind, values: &[&str]) -> String {
        toml(kind, &values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn values_are_written_by_their_type() {
        for (kind, values, expected) in [
            (Kind::Text, &["ruby:3.3"][..], "\"ruby:3.3\""),
            (Kind::Text, &["a", "b"], "\"b\""),
            (Kind::Text, &["a \"b\""], "'a \"b\"'"),
            (Kind::Switch, &["true"], "true"),
            (Kind::Integer, &["-3"], "-3"),
            (Kind::Decimal, &["1.5"], "1.5"),
            (Kind::Decimal, &["2"], "2.0"),
            (Kind::Duration, &["5m"], "\"5m\""),
            (Kind::List, &["/cache", "/a:/b:ro,z"], "[\"/cache\", \"/a:/b:ro,z\"]"),
            (Kind::List, &["[\"/a\", \"/b\"]"], "[\"/a\", \"/b\"]"),
            (Kind::TextOrList, &["always"], "[\"always\"]"),
            (Kind::Integers, &["1", "2"], "[1, 2]"),
            (Kind::Services, &["mysql:8"], "[{ name = \"mysql:8\" }]"),
            (Kind::Map, &["net.core.somaxconn:1024"], "{ \"net.core.somaxconn\" = \"1024\" }"),
            (Kind::Map, &["a=b:NoSchedule"], "{ \"a=b\" = \"NoSchedule\" }"),
            (Kind::Map, &["a=b"], "{ a = \"b\" }"),
            (Kind::Map, &["{\"a\": \"b\"}"], "{ a = \"b\" }"),
            (Kind::Flags, &["FF_A:true", "FF_B=0"], "{ FF_A = true, FF_B = false }"),
            (Kind::Numbers, &["error:3"], "{ error = 3 }"),
            (Kind::ListMap, &["a:/dev/x", "a:/dev/y"], "{ a = [\"/dev/x\", \"/dev/y\"] }"),
            (
                Kind::Json,
                &["[{\"ip\":\"127.0.0.1\",\"hostnames\":[\"a\"]}]"],
                "[{ hostnames = [\"a\"], ip = \"127.0.0.1\" }]",
            ),
        ] {
            assert_eq!(written(kind, values), expected, "{kind:?} {values:?}");
        }
    }

    #[test]
    fn invalid_values_are_refused() {
        for (kind, value) in [
            (Kind::Switch, "yes"),
            (Kind::Integer, "many"),
            (Kind::Decimal, "x"),
            (Kind::Integers, "x"),
            (Kind::Map, "a"),
            (Kind::Flags, "FF_A:x"),
            (Kind::Numbers, "a:b"),
            (Kind::Json, "{"),
        ] {
            assert!(toml(kind, &[value.to_owned()]).is_err(), "{kind:?}");
        }
    }
}
