//! README.md as data: its code blocks, its tables, its headings.

/// The shipped text.
pub(crate) const README: &str = include_str!("../../../README.md");

/// A fenced block, with the comment directly above it.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) language: &'static str,
    pub(crate) mark: Option<&'static str>,
    pub(crate) text: String,
}

/// All fenced blocks in their order.
pub(crate) fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_inside = false;
    let mut above = "";
    for (index, line) in README.lines().enumerate() {
        match (line.strip_prefix("```"), is_inside) {
            (Some(language), false) => {
                let mark = above.strip_prefix("<!-- ").and_then(|mark| mark.strip_suffix(" -->"));
                blocks.push(Block { line: index + 1, language, mark, text: String::new() });
                is_inside = true;
            }
            (Some(_), true) => is_inside = false,
            (None, true) => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, false) => {}
        }
        above = line;
    }
    blocks
}

/// The text of the one block with this mark.
pub(crate) fn marked(mark: &str) -> String {
    let mut found = blocks().into_iter().filter(|block| block.mark == Some(mark));
    let text = found.next().unwrap_or_else(|| panic!("no block is marked `{mark}`")).text;
    assert!(found.next().is_none(), "several blocks are marked `{mark}`");
    text
}

/// The headings, without their hashes.
pub(crate) fn headings() -> impl Iterator<Item = &'static str> {
    outside_of_blocks().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim())
}

/// The cells of the first table below a heading, by row, without the table's own heading.
pub(crate) fn table_below(heading: &str) -> Vec<Vec<&'static str>> {
    let is_heading = |line: &&str| line.starts_with('#') && line.trim_start_matches('#').trim() == heading;
    let below =
        outside_of_blocks().skip_while(|line| !is_heading(line)).skip(1).take_while(|line| !line.starts_with('#'));
    let rows = below.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = rows.skip(2).map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect();
    assert!(!rows.is_empty(), "no table below `{heading}`");
    rows
}

/// The content of a cell between its backticks.
pub(crate) fn code(cell: &'static str) -> &'static str {
    cell.trim_matches('`').trim()
}

fn outside_of_blocks() -> impl Iterator<Item = &'static str> {
    let mut is_inside = false;
    README.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_inside ^= is_fence;
        !is_inside && !is_fence
    })
}
