//! README.md and the pages of packaging/docs as data: their code blocks, tables, headings and links.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The directory of the pages, from the root of the repository.
pub(crate) const DOCS: &str = "packaging/docs/";

/// Documents that tools look for at the top level. Their links are checked, but they have no commands of users.
const TOP_LEVEL: [&str; 4] = ["CONTRIBUTING.md", "SECURITY.md", "RELEASING.md", "CHANGELOG.md"];

static README: LazyLock<Page> = LazyLock::new(|| Page::read("README.md"));

static GUIDES: LazyLock<Vec<Page>> = LazyLock::new(|| {
    let mut names: Vec<String> = Vec::new();
    for target in README.links() {
        let path = target.split('#').next().unwrap();
        if path.starts_with(DOCS) && !names.iter().any(|name| name == path) {
            names.push(path.to_owned());
        }
    }
    names.iter().map(|name| Page::read(name)).collect()
});

/// README.md.
pub(crate) fn readme() -> &'static Page {
    &README
}

/// The pages of packaging/docs that README.md links to, in the order of these links.
pub(crate) fn guides() -> &'static [Page] {
    &GUIDES
}

/// The page of packaging/docs with this name, without its extension.
pub(crate) fn page(name: &str) -> &'static Page {
    let path = format!("{DOCS}{name}.md");
    guides().iter().find(|page| page.path == path).unwrap_or_else(|| panic!("README.md does not link to {path}"))
}

/// Every document with links: README.md, the pages, and the other documents at the top level.
pub(crate) fn documents() -> impl Iterator<Item = Page> {
    let paths = std::iter::once("README.md").chain(TOP_LEVEL).map(str::to_owned);
    paths.chain(guides().iter().map(|page| page.path.clone())).map(|path| Page::read(&path))
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Markdown file.
#[derive(Debug)]
pub(crate) struct Page {
    /// The path from the root of the repository.
    pub(crate) path: String,
    text: &'static str,
}

/// A fenced block, with the comment directly above it.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) language: &'static str,
    pub(crate) mark: Option<&'static str>,
    pub(crate) text: String,
}

impl Page {
    /// Reads a file; its text is kept until the process ends.
    pub(crate) fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { path: path.to_owned(), text: text.leak() }
    }

    /// The number of words, as `wc -w` counts them.
    pub(crate) fn words(&self) -> usize {
        self.text.split_whitespace().count()
    }

    /// All fenced blocks in their order.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut is_inside = false;
        let mut above = "";
        for (index, line) in self.text.lines().enumerate() {
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
    pub(crate) fn marked(&self, mark: &str) -> String {
        let mut found = self.blocks().into_iter().filter(|block| block.mark == Some(mark));
        let text = found.next().unwrap_or_else(|| panic!("no block of {} is marked `{mark}`", self.path)).text;
        assert!(found.next().is_none(), "several blocks of {} are marked `{mark}`", self.path);
        text
    }

    /// The targets of the links, and none of code.
    pub(crate) fn links(&self) -> Vec<&'static str> {
        let targets = |line: &'static str| {
            let parts = line.split("](").skip(1);
            parts.map(|rest| rest.split(')').next().unwrap()).filter(|target| !target.starts_with("https://"))
        };
        self.prose().flat_map(targets).collect()
    }

    /// The anchors of the headings, as GitLab and GitHub make them.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let is_kept = |character: &char| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_');
        let anchor = |line: &str| line.to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-");
        self.prose().filter(|line| line.starts_with('#')).map(|line| anchor(title(line))).collect()
    }

    /// The cells of the first table below a heading, by row, without the table's own heading.
    pub(crate) fn table_below(&self, heading: &str) -> Vec<Vec<&'static str>> {
        let is_heading = |line: &&str| line.starts_with('#') && title(line) == heading;
        let below = self.prose().skip_while(|line| !is_heading(line)).skip(1);
        let section = below.take_while(|line| !line.starts_with('#'));
        let rows = section.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
        let cells = |row: &'static str| row.trim_matches('|').split(" | ").map(str::trim).collect();
        let rows: Vec<_> = rows.skip(2).map(cells).collect();
        assert!(!rows.is_empty(), "{}: no table below `{heading}`", self.path);
        rows
    }

    /// The path of a link's target from the root of the repository, and its anchor.
    pub(crate) fn resolve<'a>(&self, target: &'a str) -> (PathBuf, Option<&'a str>) {
        let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
        if path.is_empty() {
            return (PathBuf::from(&self.path), anchor);
        }
        let mut resolved = PathBuf::from(&self.path);
        resolved.pop();
        for part in path.split('/') {
            if part == ".." { assert!(resolved.pop(), "{}: {target}", self.path) } else { resolved.push(part) }
        }
        (resolved, anchor)
    }

    /// The lines outside of code blocks.
    fn prose(&self) -> impl Iterator<Item = &'static str> + use<> {
        let mut is_inside = false;
        self.text.lines().filter(move |line| {
            let is_fence = line.starts_with("```");
            is_inside ^= is_fence;
            !is_inside && !is_fence
        })
    }
}

/// The content of a cell between its backticks.
pub(crate) fn code(cell: &'static str) -> &'static str {
    cell.trim_matches('`').trim()
}

fn title(line: &str) -> &str {
    line.trim_start_matches('#').trim()
}
