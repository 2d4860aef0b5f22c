//! Maps lines of config.toml to entries: headers, sub-tables and the comments above them.

use std::ops::Range;

use toml_edit::{Item, RawString, Table};

use super::config_file::ConfigFile;
use super::patch::line_start;

/// Consecutive lines of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryLines {
    /// Removed with the entry, including the blank lines below.
    pub(super) span: Range<usize>,
    /// The end of its last line, before those blank lines.
    pub(super) text_end: usize,
}

/// One table header.
struct Section {
    header: usize,
    /// White space and comments between the last line of the section before and this header.
    gap: Range<usize>,
    owner: Option<usize>,
}

/// The runs of lines that make up the `[[runners]]` entry at `position`.
///
/// A comment belongs to the header below it when no blank line is between them, else to the lines directly
/// above it; a comment between blank lines belongs to no entry.
pub(super) fn runs_of_entry(file: &ConfigFile<'_>, position: usize) -> Vec<EntryLines> {
    let text = file.text;
    let sections = sections(file);
    let trailing = file.document.trailing().span().unwrap_or(text.len()..text.len());
    let mut runs: Vec<EntryLines> = Vec::new();
    let mut is_continued = false;
    for (index, section) in sections.iter().enumerate() {
        if section.owner != Some(position) {
            is_continued = false;
            continue;
        }
        let next = sections.get(index + 1);
        let (text_end, end) = match next {
            Some(next) => end_before(text, &next.gap, comment_start(text, &next.gap)),
            None => end_before(text, &trailing, trailing.end),
        };
        match runs.last_mut() {
            Some(run) if is_continued => *run = EntryLines { span: run.span.start..end, text_end },
            Some(_) | None => runs.push(EntryLines { span: comment_start(text, &section.gap)..end, text_end }),
        }
        is_continued = true;
    }
    runs
}

fn sections(file: &ConfigFile<'_>) -> Vec<Section> {
    let mut sections = Vec::new();
    for (key, item) in file.document.iter() {
        match item {
            Item::ArrayOfTables(tables) if key == "runners" => {
                for (position, table) in tables.iter().enumerate() {
                    collect(table, Some(position), &mut sections);
                }
            }
            Item::None | Item::Value(_) | Item::Table(_) | Item::ArrayOfTables(_) => {
                collect_item(item, None, &mut sections);
            }
        }
    }
    sections.sort_by_key(|section| section.header);
    sections
}

fn collect_item(item: &Item, owner: Option<usize>, sections: &mut Vec<Section>) {
    match item {
        Item::Table(table) => collect(table, owner, sections),
        Item::ArrayOfTables(tables) => tables.iter().for_each(|table| collect(table, owner, sections)),
        Item::None | Item::Value(_) => {}
    }
}

fn collect(table: &Table, owner: Option<usize>, sections: &mut Vec<Section>) {
    if !table.is_implicit()
        && !table.is_dotted()
        && let Some(span) = table.span()
    {
        let gap = table.decor().prefix().and_then(RawString::span);
        let gap = gap.unwrap_or(span.start..span.start);
        sections.push(Section { header: span.start, gap, owner });
    }
    for (_, item) in table.iter() {
        collect_item(item, owner, sections);
    }
}

/// The start of the header below a gap, including indentation and comments directly above.
fn comment_start(text: &str, gap: &Range<usize>) -> usize {
    let gap_text = &text[gap.clone()];
    let mut start = line_start(gap_text, gap_text.len());
    while start > 0 {
        let above = line_start(gap_text, start - 1);
        if !is_comment(&gap_text[above..start]) {
            break;
        }
        start = above;
    }
    gap.start + start
}

/// The end of the lines above a gap: after the comments directly below them, and after the blank lines.
fn end_before(text: &str, gap: &Range<usize>, limit: usize) -> (usize, usize) {
    let lines = |from: usize| text[from..limit.max(from)].split_inclusive('\n');
    let comments: usize = lines(gap.start).take_while(|line| is_comment(line)).map(str::len).sum();
    let text_end = gap.start + comments;
    let blanks: usize = lines(text_end).take_while(|line| line.trim().is_empty()).map(str::len).sum();
    (text_end, text_end + blanks)
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}
