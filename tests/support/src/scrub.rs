/// Replaces times, fingerprints and request ids by fixed names.
pub(crate) fn scrub(text: &str) -> String {
    let mut scrubbed = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '_');
        let end = rest.find(|c: char| !is_plain(c)).unwrap_or(rest.len());
        let word = &rest[..end];
        if word.is_empty() {
            scrubbed.push(character);
            rest = &rest[character.len_utf8()..];
            continue;
        }
        scrubbed.push_str(scrub_word(word));
        rest = &rest[end..];
    }
    scrubbed
}

fn scrub_word(word: &str) -> &str {
    let is_hex = |word: &str| word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    if word.len() == 20 && word.ends_with('Z') && digits == 14 {
        "TIME"
    } else if word.len() == 32 && is_hex(word) {
        "REQUEST"
    } else if word.len() == 8 && is_hex(word) && digits > 0 {
        "FINGERP8"
    } else {
        word
    }
}
