//! Entries that configuration management has prepared without a token.

use super::super::config_file::ConfigFile;
use super::super::fuzzing::applied as apply;
use super::*;

/// What stands for the token in a prepared entry.
const PLACEHOLDERS: [&str; 7] = [
    "",
    "token = \"\"\n",
    "token = '<TOKEN>'\n",
    "token = \"glrt-<paste here>\"\n",
    "token = \"  \"\n",
    "token = \"TO DO\" # later\n",
    "token = \"\"\"\\n\"\"\"\n",
];

fn prepared(token_line: &str) -> String {
    let indent = if token_line.is_empty() { "" } else { "  " };
    format!(
        "concurrent = 2\n\n# the builder\n[[runners]]\n  name = \"build\" # fixed\n  url = \"{URL}\"\n{indent}{token_line}  \
         executor = \"docker\"\n  [runners.docker]\n    image = \"alpine\"\n    privileged = false # never\n"
    )
}

fn entries(text: &str) -> Vec<Entry> {
    ConfigFile::parse(text, reading()).unwrap().entries()
}

fn completion() -> Edit {
    Edit::Complete { name: "build".to_owned(), url: url(), id: Some(id(7)), credential: credential("new") }
}

fn completed(text: &str) -> String {
    let (completed, done) = apply(text, &completion(), reading()).unwrap();
    assert_eq!((done.entries, done.removed.len()), (1, 0));
    completed
}

#[test]
fn entry_without_a_token_or_with_a_placeholder_is_incomplete() {
    for line in PLACEHOLDERS {
        let entry = &entries(&prepared(line))[0];
        assert!(entry.is_incomplete() && entry.access().is_err(), "{line}");
    }
}

#[test]
fn entry_with_a_token_or_another_fault_is_not_incomplete() {
    let lines = [
        "token = \"old\"\n",
        "token = \"$RUNNER_TOKEN\"\n",
        "token = \"$UNSET\"\n",
        "token = \"tök\"\n",
        "token = 5\n",
    ];
    for line in lines {
        assert!(!entries(&prepared(line))[0].is_incomplete(), "{line}");
    }
    assert!(!entries(&prepared("id = \"x\"\n"))[0].is_incomplete());
    assert!(!entries(&prepared("").replace(URL, "<URL>"))[0].is_incomplete());
    assert!(!entries(&prepared("").replace("url =", "host ="))[0].is_incomplete());
}

#[test]
fn placeholder_is_reported_as_one() {
    let problem = |line| entries(&prepared(line))[0].access().unwrap_err();
    assert_eq!(problem("token = '<TOKEN>'\n"), EntryProblem::PlaceholderToken);
    assert_eq!(problem("token = \"\"\n"), EntryProblem::NoToken);
    assert_eq!(problem(""), EntryProblem::NoToken);
}

#[test]
fn completion_fills_the_token_and_keeps_every_other_byte() {
    let times = "  token_obtained_at = 2026-02-01T00:00:00Z\n  token_expires_at = 2026-03-01T00:00:00Z\n";
    for line in PLACEHOLDERS {
        let kept = line.find(" #").map_or("\n", |comment| &line[comment..]);
        let filled = format!("  token = \"new\"{kept}  id = 7\n{times}");
        let expected = match line {
            "" => prepared(&format!("id = 7\n  token = \"new\"\n{times}")),
            _ => prepared(line).replace(&format!("  {line}"), &filled),
        };
        assert_eq!(completed(&prepared(line)), expected, "{line}");
    }
}

#[test]
fn completion_replaces_an_id_and_times_that_are_there() {
    let before = prepared("id = 3\n  token_expires_at = 0001-01-01T00:00:00Z\n  token = \"\"\n");
    let entry = &entries(&completed(&before))[0];
    assert_eq!((entry.id, entry.token.token()), (Some(id(7)), Some(&token("new"))));
    assert_eq!((entry.obtained_at, entry.expiry), (credential("new").obtained_at, credential("new").expiry));
}

#[test]
fn completion_keeps_crlf_and_a_byte_order_mark() {
    for line in PLACEHOLDERS.into_iter().filter(|line| !line.contains("\"\"\"")) {
        let before = format!("\u{feff}{}", prepared(line)).replace('\n', "\r\n");
        let after = completed(&before);
        assert_eq!(after.replace("\r\n", "\n"), completed(&before.replace("\r\n", "\n")));
        assert!(
            after.starts_with('\u{feff}') && after.matches('\n').count() == after.matches("\r\n").count(),
            "{after}"
        );
    }
}

#[test]
fn completion_works_in_inline_tables() {
    for token in ["", ", token = ''", ", token = \"<TOKEN>\""] {
        let before = format!(
            "runners = [ {{ name = \"build\", url = \"{URL}\"{token}, limit = 2 }}, {{ name = \"b\" }} ] # all\n"
        );
        let after = completed(&before);
        assert!(after.ends_with(", limit = 2 }, { name = \"b\" } ] # all\n"), "{after}");
        let entry = &entries(&after)[0];
        assert_eq!((entry.id, entry.access().unwrap().1), (Some(id(7)), super::token("new")));
    }
}

#[test]
fn completion_can_be_repeated() {
    let once = completed(&prepared("token = \"\"\n"));
    assert_eq!(completed(&once), once);
}

#[test]
fn completion_takes_only_the_entry_of_its_name_and_server() {
    for other in [
        prepared("").replace("\"build\"", "\"other\""),
        prepared("").replace(URL, "https://other.example.com"),
        prepared("token = \"old\"\n"),
    ] {
        assert!(matches!(apply(&other, &completion(), reading()), Err(Error::NoSuchEntry { .. })), "{other}");
        let both = format!("{other}\n{}", prepared("").replace("concurrent = 2\n\n", ""));
        let after = completed(&both);
        assert!(after.starts_with(&other) && entries(&after)[1].id == Some(id(7)), "{after}");
    }
}

#[test]
fn of_two_prepared_entries_the_first_is_completed() {
    let both = format!("{}\n{}", prepared(""), prepared("").replace("concurrent = 2\n\n", ""));
    let after = completed(&both);
    assert_eq!(entries(&after).iter().map(Entry::is_incomplete).collect::<Vec<_>>(), [false, true]);
    assert_eq!(completed(&after), after);
}

#[test]
fn insertion_completes_the_prepared_entry() {
    let text =
        EntryText::parse(&format!("[[runners]]\nname = \"build\"\nurl = \"{URL}\"\nexecutor = \"shell\"\n")).unwrap();
    let insertion = Edit::Insert { text, id: Some(id(7)), credential: credential("new") };
    let (inserted, done) = apply(&prepared("token = \"\"\n"), &insertion, reading()).unwrap();
    assert_eq!(inserted, completed(&prepared("token = \"\"\n")));
    assert_eq!(done.entries, 1);
    assert_eq!(apply(&inserted, &insertion, reading()).unwrap().0, inserted);
}
