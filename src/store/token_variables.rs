//! The variables that config.toml names.

use std::collections::BTreeSet;
use std::path::Path;

use super::EntryToken;
use super::config_file::ParseContext;
use super::draft::ParsedText;

/// The names in `token = "$NAME"` and `"${NAME}"` of the entries of a config.toml; none if the text is invalid.
#[must_use]
pub fn token_variables(config: String) -> BTreeSet<String> {
    // A dollar sign can be written as an escape, too.
    if !["$", "\\u", "\\U", "\\x"].iter().any(|sign| config.contains(sign)) {
        return BTreeSet::new();
    }
    let reading = ParseContext { path: Path::new("config.toml"), variables: |_| None, exposure: None };
    let Ok(parsed) = ParsedText::parse(config, 0, None, reading) else { return BTreeSet::new() };
    let names = parsed.snapshot.entries.iter().filter_map(|entry| match &entry.token {
        EntryToken::Variable { name, .. } => Some(name.clone()),
        EntryToken::Absent
        | EntryToken::Placeholder
        | EntryToken::Padded(_)
        | EntryToken::Literal(_)
        | EntryToken::Unusable(_) => None,
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(config: &str) -> Vec<String> {
        token_variables(config.to_owned()).into_iter().collect()
    }

    #[test]
    fn tokens_name_their_variables() {
        let first = "[[runners]]\ntoken = \"$FIRST\"\n[[runners]]\ntoken = \"${SECOND}\"\n[[runners]]\nid = 1\n";
        assert_eq!(names(first), ["FIRST", "SECOND"]);
        assert_eq!(names("runners = [{ token = '$INLINE' }]"), ["INLINE"]);
        assert_eq!(names("[[runners]]\ntoken = \"\\u0024ESCAPED\"\n"), ["ESCAPED"]);
    }

    #[test]
    fn another_key_and_an_invalid_text_name_none() {
        assert_eq!(names("[[runners]]\nname = \"$NAME\"\ntoken = \"glrt-a\"\n"), [""; 0]);
        assert_eq!(names("[[runners]\ntoken = \"$TOKEN\"\n"), [""; 0]);
    }
}
