//! What an entry of config.toml has otherwise than it was asked for.

use toml::{Table, Value};

use crate::store::{EntryText, NewEntry};

/// The dotted keys that were asked for and that an entry does not have, or has with another value; in the order of their
/// names. Keys that only the entry has are the user's.
#[must_use]
pub fn differing_keys(asked: &NewEntry, present: &EntryText) -> Vec<String> {
    let asked = EntryText::compose(asked).ok().and_then(|text| entry_table(text.expose()));
    let (Some(asked), Some(present)) = (asked, entry_table(present.expose())) else { return Vec::new() };
    let mut differing = Vec::new();
    // The entry was found by its server and name.
    let asked = asked.into_iter().filter(|(key, _)| !matches!(key.as_str(), "name" | "url")).collect();
    compare(&asked, &present, "", &mut differing);
    differing
}

fn compare(asked: &Table, present: &Table, parent: &str, differing: &mut Vec<String>) {
    for (key, value) in asked {
        let path = format!("{parent}{key}");
        match (value, present.get(key)) {
            (Value::Table(asked), Some(Value::Table(present))) => {
                compare(asked, present, &format!("{path}."), differing);
            }
            (asked, Some(present)) if asked == present => {}
            _ => differing.push(path),
        }
    }
}

fn entry_table(text: &str) -> Option<Table> {
    let mut document: Table = text.parse().ok()?;
    match document.get_mut("runners")?.as_array_mut()?.drain(..).next()? {
        Value::Table(table) => Some(table),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_were_asked_for_are_compared_by_value() {
        let present = "[[runners]]\n  name = 'old'\n  url = 'https://gitlab.example.com'\n  limit = 2\n  mine = 1
  executor = \"docker\"\n  [runners.docker]\n    image = 'alpine'\n    volumes = ['/cache']\n";
        let asked = NewEntry {
            template: None,
            name: "a".to_owned(),
            url: "https://gitlab.example.com".parse().unwrap(),
            executor: Some("docker".to_owned()),
            shell: None,
            limit: Some(3),
            request_concurrency: Some(1),
            output_limit: None,
            tls: crate::model::TlsFiles::default(),
            settings: vec![
                ("docker.image".to_owned(), "\"ruby\"".to_owned()),
                ("docker.volumes".to_owned(), "[\"/cache\"]".to_owned()),
            ],
        };
        let differing = differing_keys(&asked, &EntryText::parse(present).unwrap());
        assert_eq!(differing, ["docker.image", "limit", "request_concurrency"]);
    }
}
