use proptest::prelude::*;

use super::super::config_file::ConfigFile;
use super::super::fuzzing::{applied as apply, applied_together};
use super::*;

/// Lines that mean nothing to the agent.
fn filler() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("  # a comment with \"token = 'x'\"".to_owned()),
        Just("\t# [[runners]]".to_owned()),
    ]
}

/// One key of the agent's, in one of the spellings that mean the same.
fn spelled(key: &'static str, value: String) -> impl Strategy<Value = String> {
    let value =
        prop_oneof![Just(format!("\"{value}\"")), Just(format!("'{value}'")), Just(format!("\"\"\"{value}\"\"\"")),];
    let space = prop_oneof![Just(" = "), Just("="), Just("\t=  ")];
    let behind = prop_oneof![Just(""), Just(" # behind"), Just("   ")];
    let indent = prop_oneof![Just(""), Just("  "), Just("\t")];
    (indent, space, value, behind)
        .prop_map(move |(indent, space, value, behind)| format!("{indent}{key}{space}{value}{behind}"))
}

/// An entry whose keys stand in any order, with foreign ones between.
fn entry(number: u64) -> impl Strategy<Value = Vec<String>> {
    let keys = (
        spelled("url", URL.to_owned()),
        spelled("token", format!("token-{number}")),
        proptest::option::of(Just("  token_obtained_at = 2026-01-01T00:00:00Z # since".to_owned())),
        proptest::option::of(Just("  token_expires_at = 2026-01-02 00:00:00Z".to_owned())),
        proptest::option::of(Just("  docker.image = 'x'\n  limit = 1\n  docker.tty = true".to_owned())),
        filler(),
    );
    let keys = keys.prop_map(move |(url, token, obtained, expires, foreign, filler)| {
        let mut lines = vec![url, token, filler, format!("  id = {number}")];
        lines.extend([obtained, expires, foreign].into_iter().flatten());
        lines
    });
    let shuffled = keys.prop_shuffle();
    let tail = prop_oneof![
        Just(vec![]),
        Just(vec!["  [runners.cache]".to_owned(), "    Type = 's3' # cache".to_owned()]),
        Just(vec!["[[runners.docker2.services]]".to_owned(), "a = \"\"\"\n[[runners]]\ntoken = 1\n\"\"\"".to_owned()]),
        Just(vec!["[foreign]".to_owned()]),
    ];
    (filler(), shuffled, tail).prop_map(|(filler, lines, tail)| {
        let header = [filler, "[[runners]] # header".to_owned()];
        header.into_iter().chain(lines).chain(tail).collect()
    })
}

fn document() -> impl Strategy<Value = String> {
    let first = entry(1).prop_map(|lines| lines.into_iter().filter(|line| line != "[foreign]").collect::<Vec<_>>());
    let head = prop_oneof![Just("concurrent = 1"), Just(""), Just("# head\n[session_server]\nx = 1")];
    (head, first, entry(2), filler(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(head, first, second, filler, has_crlf, has_mark, has_end)| {
            let lines = [vec![head.to_owned()], first, second, vec![filler]].concat();
            let mut text = lines.join("\n");
            if has_end {
                text.push('\n');
            }
            let mark = if has_mark { "\u{feff}" } else { "" };
            format!("{mark}{}", if has_crlf { text.replace('\n', "\r\n") } else { text })
        },
    )
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let text = || {
        EntryText::parse(&format!("# new\n[[runners]]\n  name = \"n\"\n  url = \"{URL}\"\n  [runners.a]\n    b = 1\n"))
            .unwrap()
    };
    let insert =
        move |number, name: &str| Edit::Insert { text: text(), id: Some(id(number)), credential: credential(name) };
    prop_oneof![
        (1..=3_u64, "new(er)?").prop_map(|(number, text)| renew(number, &text)),
        (1..=4_u64).prop_map(|number| Edit::Remove { target: knowing(number) }),
        (1..=4_u64, "inserted|new").prop_map(move |(number, name)| insert(number, &name)),
        (3..=4_u64).prop_map(|number| Edit::Complete {
            name: "n".to_owned(),
            url: url(),
            id: Some(id(number)),
            credential: credential("newer"),
        }),
    ]
}

const KEYS: [&str; 4] = ["id", "token", "token_obtained_at", "token_expires_at"];

fn is_ours(line: &str) -> bool {
    let key = line.trim().split(['=', ' ', '\t']).next().unwrap_or_default();
    KEYS.contains(&key) && !line.trim_start().starts_with('#')
}

/// The lines that are not of the agent's keys, with their line breaks; the last break is the file's own.
fn foreign_lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').map(|line| line.trim_end_matches(['\r', '\n'])).filter(|line| !is_ours(line)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn renewed_values_read_back_and_every_foreign_line_stays(text in document(), number in 1..=2_u64) {
        let (edited, done) = apply(&text, &renew(number, "renewed"), reading()).unwrap();
        prop_assert_eq!(done.entries, 1);
        prop_assert_eq!(foreign_lines(&edited), foreign_lines(&text));
        prop_assert_eq!(edited.contains("\r\n"), text.contains("\r\n"));
        prop_assert_eq!(edited.matches('\n').count() - edited.matches("\r\n").count(),
            if text.contains("\r\n") { 0 } else { edited.matches('\n').count() });
        prop_assert_eq!(edited.starts_with('\u{feff}'), text.starts_with('\u{feff}'));
        prop_assert_eq!(edited.ends_with('\n'), text.ends_with('\n'));
        for comment in ["# behind", "# since", "# header", "# cache"] {
            prop_assert_eq!(edited.matches(comment).count(), text.matches(comment).count());
        }

        let before = ConfigFile::parse(&text, reading()).unwrap().entries();
        let after = ConfigFile::parse(&edited, reading()).unwrap().entries();
        for (before, after) in before.iter().zip(&after) {
            if before.id == Some(id(number)) {
                let expected = credential("renewed");
                prop_assert_eq!(after.token.token(), Some(&expected.token));
                prop_assert_eq!((after.obtained_at, after.expiry), (expected.obtained_at, expected.expiry));
            } else {
                let line = after.line;
                prop_assert_eq!(&Entry { line, ..before.clone() }, after);
            }
        }
    }

    #[test]
    fn an_inserted_entry_can_be_removed_again(text in document()) {
        let entry_text = EntryText::parse(&format!("# new\n[[runners]]\n  url = \"{URL}\"\n  [runners.a]\n    b = 1\n")).unwrap();
        let insert = Edit::Insert { text: entry_text.clone(), id: Some(id(3)), credential: credential("inserted") };
        let (inserted, _) = apply(&text, &insert, reading()).unwrap();
        prop_assert!(inserted.starts_with(&text));
        let (removed, done) = apply(&inserted, &Edit::Remove { target: knowing(3) }, reading()).unwrap();
        prop_assert_eq!(&done.removed, &[entry_text]);
        let is_complete = text.is_empty() || (text.ends_with('\n') && !text.replace('\r', "").ends_with("\n\n"));
        if is_complete {
            prop_assert_eq!(removed, text);
        } else {
            prop_assert_eq!(removed.trim_end(), text.trim_end());
        }
    }

    #[test]
    fn edits_of_the_parts_of_a_text_give_the_same_as_edits_of_the_whole(
        texts in proptest::collection::vec(document(), 1..4),
        edits in proptest::collection::vec(any_edit(), 1..6),
    ) {
        // Entries of the same id in several places, and other tables between them.
        applied_together(&texts.concat(), &edits, reading());
        applied_together(&texts[0], &edits, reading());
    }

    #[test]
    fn removing_one_entry_leaves_the_other_as_it_was(text in document(), number in 1..=2_u64) {
        let (edited, done) = apply(&text, &Edit::Remove { target: knowing(number) }, reading()).unwrap();
        let left = ConfigFile::parse(&edited, reading()).unwrap().entries();
        prop_assert_eq!((done.entries, left.len()), (1, 1));
        prop_assert_eq!(left[0].id, Some(id(3 - number)));
        let secret = format!("token-{number}");
        prop_assert!(!done.removed[0].expose().contains(&secret));
    }
}
