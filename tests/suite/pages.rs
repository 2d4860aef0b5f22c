//! README.md and the pages of packaging/docs agree with the code: their commands are run, their links are followed, and
//! their keys, defaults, codes and messages are compared.

mod agent_toml;
mod code;
mod document;
mod sandbox;
mod shape;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use document::{Block, DOCS, Page, documents, guides, readme, root};
use sandbox::PagesSandbox;
use shape::shape;

/// The number of words that README.md may have.
const README_WORDS: usize = 1000;

/// The number of words that a page may have.
const PAGE_WORDS: usize = 1800;

#[test]
fn the_commands_of_readme_run_as_written_or_say_why_not() {
    let ran = run_blocks(&PagesSandbox::new(), readme());
    assert!(ran > 0, "no block was run");
}

/// One page may use the runners that an earlier one has registered.
#[test]
fn the_commands_of_the_pages_run_as_written_or_say_why_not() {
    let sandbox = PagesSandbox::new();
    let ran: usize = guides().iter().map(|page| run_blocks(&sandbox, page)).sum();
    assert!(ran > 5, "only {ran} blocks were run");
}

#[test]
fn every_link_leads_to_a_file_and_an_anchor_that_exist() {
    for page in documents() {
        for target in page.links() {
            let (path, anchor) = page.resolve(target);
            assert!(root().join(&path).exists(), "{}: the target of `{target}` does not exist", page.path);
            let Some(anchor) = anchor else { continue };
            let anchors = Page::read(path.to_str().unwrap()).anchors();
            assert!(anchors.iter().any(|it| it == anchor), "{}: `{target}` has no such heading", page.path);
        }
    }
}

#[test]
fn links_lead_to_files_that_the_package_installs_in_the_same_place() {
    let installed = installed();
    for page in guides().iter().chain([readme()]) {
        for target in page.links() {
            let (path, _) = page.resolve(target);
            let is_installed = installed.contains(&path) || installed.contains(&path.with_file_name("*.md"));
            assert!(is_installed, "{}: `{target}` is not installed", page.path);
        }
    }
}

#[test]
fn the_gitlab_of_readme_shows_a_rotation_within_the_first_hour() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, command) = text.split_once("cargo run --example gitlab -- ").unwrap();
    let words: Vec<_> = command.split('`').next().unwrap().split_whitespace().collect();
    let life = words.iter().position(|word| *word == "--token-life").and_then(|at| words.get(at + 1));
    let life = fake_gitlab::parse_span(life.expect("its tokens never expire")).unwrap();
    // Time to answer the questions of `init`, and none to forget what was to be seen.
    assert!((300..=1800).contains(&life.as_secs()), "{life:?}");
    // The example takes the flags.
    let example = root().join("tests/examples/gitlab.rs");
    let source = fs::read_to_string(example).unwrap();
    for flag in words.iter().filter(|word| word.starts_with("--")) {
        assert!(source.contains(&format!("    {}:", flag[2..].replace('-', "_"))), "{flag}");
    }
}

#[test]
fn readme_links_to_every_page() {
    let linked: BTreeSet<_> = guides().iter().map(|page| page.path.clone()).collect();
    let files = fs::read_dir(root().join(DOCS)).unwrap();
    let files = files.map(|file| format!("{DOCS}{}", file.unwrap().file_name().to_str().unwrap())).collect();
    assert_eq!(linked, files);
}

#[test]
fn readme_and_the_pages_are_short() {
    assert!(readme().words() <= README_WORDS, "README.md has {} words", readme().words());
    for page in guides() {
        assert!(page.words() <= PAGE_WORDS, "{} has {} words", page.path, page.words());
    }
}

/// The sources of the package's documentation that are as far from its root as from the repository's.
fn installed() -> BTreeSet<PathBuf> {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let placed = |asset: &toml::Value| {
        let (source, directory) = (PathBuf::from(asset[0].as_str()?), Path::new(asset[1].as_str()?));
        let place = directory.strip_prefix("usr/share/doc/runner-agent").ok()?;
        (source.parent()? == place).then_some(source)
    };
    assets.iter().filter_map(placed).collect()
}

/// Runs the blocks of a page in their order, and returns how many.
fn run_blocks(sandbox: &PagesSandbox, page: &Page) -> usize {
    let mut ran = 0;
    for block in page.blocks() {
        let Block { line, language, mark, text } = &block;
        let place = format!("{}:{line}", page.path);
        match (*language, *mark) {
            ("sh" | "console", Some(mark)) if mark.starts_with("not run: ") => continue,
            ("sh", Some("runs until stopped")) => sandbox.run_until_stopped(text),
            ("sh", Some("while the daemon runs")) => sandbox.run_beside_daemon(|| drop(sandbox.run(text))),
            ("sh", None) => drop(sandbox.run(text)),
            ("console", None) => run_and_compare(sandbox, &place, text),
            ("console", Some("while the daemon runs")) => {
                sandbox.run_beside_daemon(|| run_and_compare(sandbox, &place, text));
            }
            ("toml", Some(mark)) => {
                if let Some(path) = mark.strip_prefix("written to: ") {
                    sandbox.write(path, text);
                }
                continue;
            }
            ("toml", None) => {
                agent_toml::assert_is_accepted(&place, text);
                continue;
            }
            ("json" | "ini" | "dockerfile" | "yaml" | "hcl" | "text", None) | ("text", Some("lines of the tour")) => {
                continue;
            }
            _ => panic!("{place}: a block of `{language}` marked {mark:?}: run it, or say why not"),
        }
        ran += 1;
    }
    ran
}

/// Runs each command after a `$` and compares its output with the lines below it.
fn run_and_compare(sandbox: &PagesSandbox, place: &str, text: &str) {
    for part in text.split("$ ").skip(1) {
        let (command, expected) = part.split_once('\n').unwrap();
        let actual = sandbox.run(&format!("{command}\n"));
        assert_eq!(shape(&actual), shape(expected), "{place}: {command}\n{actual}");
    }
}
