//! What stays the same in an output or message between two runs.

/// Whether a line of code has the parts of a message, which `…` separates, in their order.
pub(crate) fn has_parts_in_order(line: &str, message: &str) -> bool {
    let parts = message.split('…').map(str::trim);
    parts.into_iter().try_fold(line, |rest, part| Some(rest.split_once(part)?.1)).is_some()
}

/// The text without what differs between runs: the widths of columns, and words with a digit in them. Several such words
/// in a row, such as a time, count as one.
pub(crate) fn shape(text: &str) -> Vec<String> {
    text.lines().map(|line| shape_of_line(&line.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

fn shape_of_line(line: &str) -> String {
    let mut shape = String::new();
    for part in line.split_inclusive(|character: char| !character.is_alphanumeric()) {
        let word = part.trim_end_matches(|character: char| !character.is_alphanumeric());
        if word.bytes().any(|byte| byte.is_ascii_digit()) {
            // The characters between two such words belong to them.
            let before = shape.trim_end_matches([' ', '-', ':', '.']).len();
            if shape[..before].ends_with('#') {
                shape.truncate(before - 1);
            }
            shape.push('#');
        } else {
            shape.push_str(word);
        }
        shape.push_str(&part[word.len()..]);
    }
    shape
}
