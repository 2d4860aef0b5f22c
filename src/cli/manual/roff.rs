//! From the Markdown of the pages to roff. Knows what the pages use: headings, paragraphs, lists, tables, quotes, code.

/// The text as roff with the macros of man(7). `#` is a section and `##` a subsection; comments are left out, and so are
/// the targets of links.
pub(super) fn from_markdown(markdown: &str) -> String {
    let mut page = Page::default();
    for line in markdown.lines() {
        page.line(line);
    }
    page.end_paragraph();
    page.roff
}

/// A page that is being written.
#[derive(Default)]
struct Page {
    roff: String,
    paragraph: Vec<String>,
    kind: Kind,
    is_code: bool,
    /// The header of the table that is being read, and whether its rows have begun.
    header: Option<Vec<String>>,
}

/// What the lines of a paragraph are.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Text,
    Bullet,
    Number,
    Quote,
}

impl Page {
    fn line(&mut self, line: &str) {
        if line.trim_start().starts_with("```") {
            self.end_paragraph();
            self.is_code = !self.is_code;
            self.macro_line(if self.is_code { ".PP\n.RS 4\n.nf" } else { ".fi\n.RE" });
        } else if self.is_code {
            self.macro_line(&leading_safe(&escaped(line)));
        } else if line.starts_with('|') {
            self.end_paragraph();
            self.row(line);
        } else if line.trim().is_empty() || line == ">" || line.starts_with("<!--") {
            self.end_paragraph();
            self.header = None;
        } else if let Some(title) = line.strip_prefix("## ") {
            self.end_paragraph();
            self.macro_line(&format!(".SS \"{}\"", inline(title)));
        } else if let Some(title) = line.strip_prefix("# ") {
            self.end_paragraph();
            self.macro_line(&format!(".SH \"{}\"", inline(&title.to_uppercase())));
        } else {
            self.text(line);
        }
    }

    fn text(&mut self, line: &str) {
        let (kind, text) = if let Some(text) = line.strip_prefix("- ") {
            (Kind::Bullet, text)
        } else if let Some(text) = line.strip_prefix("> ") {
            if self.kind == Kind::Quote {
                self.paragraph.push(text.to_owned());
                return;
            }
            (Kind::Quote, text)
        } else if let Some((number, text)) = line.split_once(". ")
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            (Kind::Number, text)
        } else {
            self.paragraph.push(line.trim().to_owned());
            return;
        };
        self.end_paragraph();
        self.kind = kind;
        self.paragraph.push(text.to_owned());
    }

    /// A row of a table: the first cell is a term, and the others are its description. The columns between the first and
    /// the last one are named.
    fn row(&mut self, line: &str) {
        let cells: Vec<String> = line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        let Some(header) = &self.header else {
            self.header = Some(cells);
            return;
        };
        let [term, between @ .., last] = cells.as_slice() else { return };
        if term.starts_with("---") {
            return;
        }
        let named = header.iter().skip(1).zip(between).filter(|(_, cell)| *cell != "–" && *cell != "none");
        let named: String = named.map(|(name, cell)| format!(" {}: {}.", capitalized(name), inline(cell))).collect();
        let text = leading_safe(&inline(&capitalized(last)));
        let stop = if text.ends_with(['.', ':']) { "" } else { "." };
        let row = format!(".TP\n{}\n{text}{stop}{named}", leading_safe(&inline(term)));
        self.macro_line(&row);
    }

    fn end_paragraph(&mut self) {
        let lines = std::mem::take(&mut self.paragraph);
        let kind = std::mem::take(&mut self.kind);
        if lines.is_empty() {
            return;
        }
        let text = leading_safe(&inline(&lines.join(" ")));
        // A paragraph directly below a heading needs no macro.
        let is_first = self.roff.lines().last().is_some_and(|line| line.starts_with(".S"));
        match kind {
            Kind::Text if is_first => self.macro_line(&text),
            Kind::Text => self.macro_line(&format!(".PP\n{text}")),
            Kind::Bullet | Kind::Number => self.macro_line(&format!(".IP \\(bu 2\n{text}")),
            Kind::Quote => self.macro_line(&format!(".PP\n.RS 4\n{text}\n.RE")),
        }
    }

    fn macro_line(&mut self, line: &str) {
        self.roff.push_str(line);
        self.roff.push('\n');
    }
}

/// A line of text with its code and bold words in bold, and without the targets of its links.
fn inline(text: &str) -> String {
    let mut roff = String::new();
    let mut rest = text;
    let mut is_bold = false;
    while let Some(first) = rest.chars().next() {
        if let Some((code, after)) = code_span(rest) {
            roff.push_str(&format!("\\fB{}\\fR", escaped(code)));
            rest = after;
        } else if let Some(after) = rest.strip_prefix("**") {
            is_bold = !is_bold;
            roff.push_str(if is_bold { "\\fB" } else { "\\fR" });
            rest = after;
        } else if let Some((title, after)) = link(rest) {
            roff.push_str(&inline(title));
            rest = after;
        } else {
            roff.push_str(&escaped(&rest[..first.len_utf8()]));
            rest = &rest[first.len_utf8()..];
        }
    }
    roff
}

/// The code at the beginning of the text, between one or two backticks, and what is after it.
fn code_span(text: &str) -> Option<(&str, &str)> {
    let fence = if text.starts_with("``") { "``" } else { "`" };
    text.strip_prefix(fence)?.split_once(fence)
}

/// The title of the link at the beginning of the text, and what is after the link.
fn link(text: &str) -> Option<(&str, &str)> {
    let (title, after) = text.strip_prefix('[')?.split_once("](")?;
    // Brackets without a target are no link.
    if title.contains("[[") || title.contains("] ") {
        return None;
    }
    Some((title, after.split_once(')')?.1))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq")
}

/// The line with its first character protected from being a macro.
fn leading_safe(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_paragraphs_and_lists_become_macros() {
        let page = from_markdown("# Settings\n\nOne `key`\nof **two**.\n\nThree.\n\n- a\n  b\n- c\n\n> d\n> e\n");
        let expected = ".SH \"SETTINGS\"\nOne \\fBkey\\fR of \\fBtwo\\fR.\n.PP\nThree.\n.IP \\(bu 2\na b\n.IP \\(bu 2\nc\n\
            .PP\n.RS 4\nd e\n.RE\n";
        assert_eq!(page, expected);
    }

    #[test]
    fn a_row_of_a_table_is_a_term_with_its_description() {
        let page = from_markdown(
            "| key | default | meaning |\n|---|---|---|\n| `at` | `\"66%\"` | share |\n| `id` | – | number |\n",
        );
        let expected = ".TP\n\\fBat\\fR\nShare. Default: \\fB\\(dq66%\\(dq\\fR.\n.TP\n\\fBid\\fR\nNumber.\n";
        assert_eq!(page, expected);
    }

    #[test]
    fn no_text_is_a_macro_or_an_escape() {
        assert_eq!(from_markdown("```sh\n.x \\n -a\n```\n"), ".PP\n.RS 4\n.nf\n\\&.x \\en \\-a\n.fi\n.RE\n");
        assert_eq!(from_markdown("`.hidden` is\n"), ".PP\n\\fB.hidden\\fR is\n");
        assert_eq!(from_markdown("'quoted'\n"), ".PP\n\\&'quoted'\n");
    }

    #[test]
    fn links_lose_their_targets_and_comments_are_left_out() {
        assert_eq!(
            inline("see [State](state.md), [`[http]`](a.md#http) and `[[enroll]]`"),
            "see State, \\fB[http]\\fR and \\fB[[enroll]]\\fR"
        );
        assert_eq!(from_markdown("<!-- not run: x -->\na\n"), ".PP\na\n");
    }
}
