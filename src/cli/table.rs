//! Tables for people, fitted to the terminal.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::text::printable;

/// Spaces between two columns.
const GAP: usize = 2;

/// The narrowest that a column is cut to, in terminal columns.
const NARROWEST: usize = 8;

/// What a colour means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As expected.
    Good,
    /// Needs a look.
    Doubtful,
    /// Wrong.
    Bad,
    /// Not in use.
    Quiet,
}

/// One cell of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Cell {
    /// A text, or a dash if it is missing or empty.
    pub(super) fn new(text: Option<impl AsRef<str>>) -> Self {
        let text = text.map(|text| printable(text.as_ref())).filter(|text| !text.is_empty());
        Self { text: text.unwrap_or_else(|| "-".to_owned()), tone: None }
    }

    /// The same cell in a colour.
    pub(super) fn toned(self, tone: Option<Tone>) -> Self {
        Self { tone, ..self }
    }
}

/// Where a table is written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Screen {
    /// In terminal columns; `None` for a file, where nothing is cut.
    pub(super) width: Option<usize>,
    /// Whether to write colours.
    pub(super) is_coloured: bool,
}

/// A column's heading, and whether the column can be cut to fit.
pub(super) type Heading = (&'static str, bool);

/// Rows under headings, written in parts. The first part determines the widths of the columns, unless all rows were
/// measured before.
#[derive(Debug)]
pub(super) struct Table {
    headings: Vec<Heading>,
    screen: Screen,
    widths: Option<Vec<usize>>,
    is_begun: bool,
}

impl Table {
    pub(super) fn new(headings: Vec<Heading>, screen: Screen) -> Self {
        Self { headings, screen, widths: None, is_begun: false }
    }

    /// The same with columns as wide as these rows need.
    pub(super) fn measured(self, rows: impl Iterator<Item = Vec<Cell>>) -> Self {
        Self { widths: Some(self.fitted(rows)), ..self }
    }

    /// The lines of more rows; the first call starts with the headings.
    pub(super) fn lines(&mut self, rows: &[Vec<Cell>]) -> String {
        let mut text = String::new();
        let widths = match self.widths.take() {
            Some(widths) => widths,
            None => self.fitted(rows.iter()),
        };
        if !std::mem::replace(&mut self.is_begun, true) {
            let headings: Vec<_> = self.headings.iter().map(|(heading, _)| Cell::new(Some(heading))).collect();
            text.push_str(&self.line(&headings, &widths));
        }
        for row in rows {
            text.push_str(&self.line(row, &widths));
        }
        self.widths = Some(widths);
        text
    }

    /// The width of the widest cell of each column; on a terminal, the widest columns that can be cut shrink to fit.
    fn fitted(&self, rows: impl Iterator<Item = impl AsRef<[Cell]>>) -> Vec<usize> {
        let mut widths: Vec<_> = self.headings.iter().map(|(heading, _)| heading.width()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
                *width = cell.text.width().max(*width);
            }
        }
        let Some(screen) = self.screen.width else { return widths };
        let gaps = GAP * (widths.len() - 1);
        while widths.iter().sum::<usize>() + gaps > screen {
            let flexible = widths.iter_mut().zip(&self.headings).filter(|(_, (_, can_be_cut))| *can_be_cut);
            match flexible.map(|(width, _)| width).max_by_key(|width| **width).filter(|width| **width > NARROWEST) {
                Some(width) => *width -= 1,
                None => break,
            }
        }
        widths
    }

    fn line(&self, row: &[Cell], widths: &[usize]) -> String {
        let last = row.len() - 1;
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let can_be_cut = self.screen.width.is_some() && self.headings[column].1;
            let text = if can_be_cut { cut(&cell.text, *width) } else { cell.text.clone() };
            let padding = if column == last { 0 } else { width.saturating_sub(text.width()) + GAP };
            line.push_str(&painted(&text, cell.tone.filter(|_| self.screen.is_coloured)));
            line.push_str(&" ".repeat(padding));
        }
        line + "\n"
    }
}

/// A text in the colour of a tone.
pub(super) fn painted(text: &str, tone: Option<Tone>) -> String {
    let code = match tone {
        None => return text.to_owned(),
        Some(Tone::Good) => "32",
        Some(Tone::Doubtful) => "33",
        Some(Tone::Bad) => "31",
        Some(Tone::Quiet) => "2",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Shortens a text that is too wide, with an ellipsis.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut beginning = String::new();
    let mut used = 1;
    for character in text.chars() {
        used += character.width().unwrap_or_default();
        if used > width {
            break;
        }
        beginning.push(character);
    }
    beginning + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: [&str; 3]) -> Vec<Cell> {
        cells.into_iter().map(|text| Cell::new(Some(text))).collect()
    }

    fn table(width: Option<usize>) -> Table {
        Table::new(vec![("ID", false), ("DESCRIPTION", true), ("STATE", false)], Screen { width, is_coloured: false })
    }

    #[test]
    fn rows_fit_a_terminal_and_are_whole_in_a_file() {
        let rows = [row(["1", "a description that is long", "online"]), row(["22", "", "b\u{1b}[2J"])];
        insta::assert_snapshot!(table(None).lines(&rows), @r"
        ID  DESCRIPTION                 STATE
        1   a description that is long  online
        22  -                           b?[2J
        ");
        let fitted = table(Some(28)).lines(&rows);
        insta::assert_snapshot!(fitted, @r"
        ID  DESCRIPTION       STATE
        1   a description t…  online
        22  -                 b?[2J
        ");
        assert!(fitted.lines().all(|line| line.width() <= 28));
    }

    #[test]
    fn widths_count_wide_characters_and_stay_the_same() {
        let mut table = table(None);
        insta::assert_snapshot!(table.lines(&[row(["1", "测试 runner", "online"])]), @r"
        ID  DESCRIPTION  STATE
        1   测试 runner  online
        ");
        insta::assert_snapshot!(table.lines(&[row(["2", "läufer", "stale"])]), @"2   läufer       stale");
        assert_eq!(cut("测试 runner", 6), "测试 …");
    }

    #[test]
    fn a_tone_is_written_only_in_a_coloured_table() {
        let cell = Cell::new(Some("online")).toned(Some(Tone::Good));
        let lines = |is_coloured| {
            let mut table = Table::new(vec![("STATE", false)], Screen { width: None, is_coloured });
            table.lines(&[vec![cell.clone()]])
        };
        assert_eq!(lines(false), "STATE\nonline\n");
        assert_eq!(lines(true), "STATE\n\u{1b}[32monline\u{1b}[0m\n");
    }

    #[test]
    fn a_very_narrow_terminal_gets_lines_that_do_not_fit() {
        let lines = table(Some(5)).lines(&[row(["1", "a description that is long", "online"])]);
        assert!(lines.contains("a descr…"), "{lines}");
    }
}
