//! Which characters are safe to print on a terminal or in a log.

/// Whether a character is unsafe to print: control characters, and invisible ones that reorder, hide or break text.
#[must_use]
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{00ad}'
                | '\u{034f}'
                | '\u{061c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Escapes in JSON what [is not safe to print](is_unprintable), but for line breaks. It can be in texts alone.
#[must_use]
pub fn printable_json(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '\n' && is_unprintable(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                printable.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            printable.push(character);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_nothing_that_a_terminal_acts_on() {
        let name = "a\u{9b}31m\u{202e}b\u{7f}\u{e0001}c";
        let json = serde_json::to_string(&serde_json::json!({ "name": name })).unwrap() + "\n";
        let printable = printable_json(&json);
        assert_eq!(printable, "{\"name\":\"a\\u009b31m\\u202eb\\u007f\\udb40\\udc01c\"}\n");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printable).unwrap()["name"], name);
    }

    #[test]
    fn invisible_characters_are_unprintable_and_scripts_are_not() {
        let tricks = "\0\n\r\t\u{7f}\u{9b}\u{ad}\u{61c}\u{200b}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2060}\u{2066}\u{2069}\u{feff}\u{e0041}";
        assert!(tricks.chars().all(is_unprintable));
        assert!(!"a b-ü测試 עברית العربية हिन्दी 🦀\u{fe0f}…".chars().any(is_unprintable));
    }
}
