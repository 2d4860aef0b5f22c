//! Checks api.md against the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use runner_agent::cli::arguments::Arguments;

use super::request::Documented;
use super::requests;

const PAGE: &str = include_str!("api.md");

/// The rows of its tables: call, method, command and test, without their backticks.
fn rows() -> Vec<[String; 4]> {
    let lines = PAGE.lines().filter(|line| line.starts_with("| `"));
    let cells = |line: &str| -> [String; 4] {
        let cells: Vec<_> =
            line.trim_matches('|').split(" | ").map(|cell| cell.replace('`', "").trim().to_owned()).collect();
        cells.try_into().unwrap_or_else(|_| panic!("{line} has not four cells"))
    };
    lines.map(cells).collect()
}

#[test]
fn every_documented_call_has_a_row() {
    let listed: BTreeSet<String> = rows().into_iter().map(|[call, ..]| call).collect();
    for (documented, _) in requests() {
        assert!(listed.contains(&call(&documented)), "{} is not in api.md", call(&documented));
    }
}

#[test]
fn every_row_names_existing_items() {
    let sources = text_of("src/gitlab");
    let tests = text_of("tests/suite/cli");
    let rows = rows();
    assert!(rows.len() > 25);
    for [call, method, command, test] in rows {
        assert!(
            sources.contains(&format!("pub async fn {method}(")) || sources.contains(&format!("pub fn {method}(")),
            "{call}: no method {method}"
        );
        assert!(tests.contains(&format!("fn {test}()")), "{call}: no test {test}");
        assert_command(&command);
    }
}

/// Asserts that a command exists with all the named flags.
fn assert_command(command_line: &str) {
    let mut command = Arguments::command();
    command.build();
    for word in command_line.split(' ') {
        match word.strip_prefix("--") {
            Some(flag) => {
                assert!(command.get_arguments().any(|it| it.get_long() == Some(flag)), "{command_line}: no {word}")
            }
            None if word == "v1" => {}
            None => {
                let found = command.find_subcommand(word).unwrap_or_else(|| panic!("{command_line}: no {word}"));
                command = found.clone();
            }
        }
    }
}

/// The call with placeholders and without parameters, such as `GET /runners/:id/jobs`.
fn call(documented: &Documented) -> String {
    let path = documented.path.split('?').next().unwrap();
    let path = path.strip_prefix("/api/v4").unwrap_or(path);
    // Lists with `/all` below a project or a group exist only in the documents.
    let path = if path.matches('/').count() == 4 { path.trim_end_matches("/all") } else { path };
    let is_number = |segment: &str| !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
    let segments: Vec<_> = path.split('/').map(|segment| if is_number(segment) { ":id" } else { segment }).collect();
    format!("{} {}", documented.method, segments.join("/"))
}

/// All Rust source at or below a path.
fn text_of(place: &str) -> String {
    fn collect(path: &Path, text: &mut String) {
        if path.is_dir() {
            let mut files: Vec<_> = fs::read_dir(path).unwrap().map(|file| file.unwrap().path()).collect();
            files.sort();
            files.iter().for_each(|file| collect(file, text));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let mut text = String::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(place), &mut text);
    text
}
