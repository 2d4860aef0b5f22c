//! agent.toml and config.toml without secrets, for a bug report.

use serde_json::{Map, Value as Json};
use toml::{Table, Value};

/// What takes the place of a text that may be a secret.
const HIDDEN: &str = "[hidden]";

/// The keys of config.toml whose texts are shown. Any other text may be a secret: a password of a cache, a variable for jobs,
/// the argument of a script.
const SHOWN_OF_CONFIG: [&str; 24] = [
    "access_level",
    "builds_dir",
    "cache_dir",
    "connection_max_age",
    "executor",
    "host",
    "image",
    "listen_address",
    "log_format",
    "log_level",
    "name",
    "namespace",
    "network_mode",
    "output_limit",
    "pull_policy",
    "session_timeout",
    "shell",
    "tls-ca-file",
    "tls-cert-file",
    "tls-key-file",
    "token_expires_at",
    "token_obtained_at",
    "url",
    "user",
];

/// The keys of agent.toml whose texts would be secrets. It names secrets by file, credential and variable.
const HIDDEN_OF_SETTINGS: [&str; 7] =
    ["access_token", "encryption_key", "password", "registration_token", "secret", "token", "webhook"];

/// agent.toml as JSON without the texts of keys that could hold a secret; null if it is not TOML.
#[must_use]
pub fn redacted_settings(text: &str) -> Json {
    redacted(text, |key| !HIDDEN_OF_SETTINGS.contains(&key))
}

/// config.toml as JSON with the texts of harmless keys alone; null if it is not TOML.
#[must_use]
pub fn redacted_config(text: &str) -> Json {
    redacted(text, |key| SHOWN_OF_CONFIG.contains(&key))
}

fn redacted(text: &str, is_shown: impl Fn(&str) -> bool) -> Json {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.parse::<Table>().map_or(Json::Null, |table| of_table(&table, &is_shown))
}

fn of_table(table: &Table, is_shown: &impl Fn(&str) -> bool) -> Json {
    let pairs = table.iter().map(|(key, value)| (key.clone(), of_value(key, value, is_shown)));
    Json::Object(pairs.collect::<Map<_, _>>())
}

fn of_value(key: &str, value: &Value, is_shown: &impl Fn(&str) -> bool) -> Json {
    match value {
        Value::String(text) if is_shown(key) => Json::String(without_user(text)),
        Value::String(text) if text.is_empty() => Json::String(String::new()),
        Value::String(_) => Json::String(HIDDEN.to_owned()),
        // A password of digits alone may be written without quotes.
        Value::Integer(_) | Value::Float(_) if is_secret_name(key) => Json::String(HIDDEN.to_owned()),
        Value::Integer(number) => Json::from(*number),
        Value::Float(number) => Json::from(*number),
        Value::Boolean(value) => Json::Bool(*value),
        Value::Datetime(time) => Json::String(time.to_string()),
        Value::Array(values) => Json::Array(values.iter().map(|value| of_value(key, value, is_shown)).collect()),
        Value::Table(table) => of_table(table, is_shown),
    }
}

fn is_secret_name(key: &str) -> bool {
    let key = key.to_lowercase();
    ["key", "pass", "secret", "token"].iter().any(|part| key.contains(part))
}

/// An address without user and password.
fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_texts_of_config_toml_are_shown() {
        let text = "\u{feff}concurrent = 4 # CANARY\n[[runners]]\nname = \"a\"\nurl = \"https://CANARY:CANARY@gitlab.example.com/x\"\n\
            token = \"CANARY\"\nid = 7\nenvironment = [\"A=CANARY\"]\n[runners.cache.s3]\nSecretKey = \"CANARY\"\n\
            AccessKey = 12345678\n[runners.docker]\nimage = \"alpine\"\nprivileged = true\n";
        let shown = redacted_config(text);
        let expected = serde_json::json!({ "concurrent": 4, "runners": [{
            "name": "a", "url": "https://gitlab.example.com/x", "token": "[hidden]", "id": 7, "environment": ["[hidden]"],
            "cache": { "s3": { "SecretKey": "[hidden]", "AccessKey": "[hidden]" } },
            "docker": { "image": "alpine", "privileged": true },
        }] });
        assert_eq!(shown, expected);
    }

    #[test]
    fn settings_are_shown_without_secrets_that_were_written_into_them() {
        let text = "[[enroll]]\ntoken = \"CANARY\"\nurl = \"https://me:CANARY@gitlab.example.com\"\n[[server]]\n\
            access_token = { file = \"/token\" }\n[sharing]\npassword = \"CANARY\"\n[verify]\ninterval = \"1h\"\n";
        let shown = redacted_settings(text);
        let expected = serde_json::json!({
            "enroll": [{ "token": "[hidden]", "url": "https://gitlab.example.com" }],
            "server": [{ "access_token": { "file": "/token" } }],
            "sharing": { "password": "[hidden]" },
            "verify": { "interval": "1h" },
        });
        assert_eq!(shown, expected);
        assert_eq!(redacted_settings("not TOML CANARY"), Json::Null);
    }
}
