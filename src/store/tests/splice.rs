use super::super::fuzzing::applied as apply;
use super::*;

fn edited(text: &str, edit: &Edit) -> String {
    apply(text, edit, reading()).unwrap().0
}

fn refused(text: &str, edit: &Edit) -> Error {
    apply(text, edit, reading()).unwrap_err()
}

/// One entry as gitlab-runner writes it.
fn official(number: u64, token: &str) -> String {
    format!(
        "[[runners]]\n  name = \"same\"\n  url = \"{URL}\"\n  id = {number}\n  token = \"{token}\"\n  \
         token_obtained_at = 2026-01-01T00:00:00Z\n  token_expires_at = 2026-02-01T00:00:00Z\n  executor = \"shell\"\n"
    )
}

fn renewed(text: &str, old: &str, new: &str) -> String {
    text.replace(old, new)
        .replace("2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z")
        .replace("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")
}

fn entry_text(body: &str) -> EntryText {
    EntryText::parse(&format!("[[runners]]\n{body}")).unwrap()
}

#[test]
fn renew_touches_nothing_but_its_values() {
    let before = format!(
        "# managed by hand\nconcurrent = 10   # many\n\n[session_server]\n  timeout = 1800\n\n# the builder\n{}  \
         [runners.docker]\n    image = 'alpine'  # small\n    foreign_key = {{ a = 1 }}\n",
        official(1, "old").replace("\"old\"", "'old' # secret").replace("url =", "url\t=")
    );
    let after = renewed(&before, "'old'", "\"new\"");
    assert_eq!(edited(&before, &renew(1, "new")), after);
}

#[test]
fn renew_keeps_crlf_a_byte_order_mark_and_a_missing_final_newline() {
    let before = format!("\u{feff}concurrent = 1\n\n{}", official(1, "old")).replace('\n', "\r\n");
    let before = before.trim_end();
    assert_eq!(edited(before, &renew(1, "new")), renewed(before, "old", "new"));
}

#[test]
fn a_token_with_white_space_around_it_counts_as_the_token() {
    for padded in ["\"old \"", "\" old\"", "\"old\\n\"", "'\u{a0}old'", "\"\"\"\nold\n\"\"\""] {
        let before = official(1, "old").replace("\"old\"", padded);
        let after = renewed(&before, padded, "\"new\"");
        let edit = Edit::Renew { target: by_token(&["old"]), id: None, credential: credential("new"), over: known() };
        assert_eq!(edited(&before, &edit), after, "{padded}");
        let unknown =
            Edit::Renew { target: by_token(&["other"]), id: None, credential: credential("new"), over: vec![] };
        assert!(matches!(refused(&before, &unknown), Error::NoSuchEntry { .. }));
        let by_id = EntrySelector { id: Some(id(1)), ..by_token(&["other"]) };
        let unknown = Edit::Renew { target: by_id, id: None, credential: credential("new"), over: vec![] };
        assert!(matches!(refused(&before, &unknown), Error::UnknownToken { .. }), "{padded}");
    }
}

#[test]
fn a_token_that_cannot_be_read_is_never_overwritten() {
    let before = official(1, "old").replace("\"old\"", "\"glrt-\u{200b}pasted\"");
    let target = EntrySelector { id: Some(id(1)), ..by_token(&["old"]) };
    let edit = Edit::Renew { target, id: None, credential: credential("new"), over: known() };
    assert!(matches!(refused(&before, &edit), Error::UnknownToken { .. }));
}

#[test]
fn of_two_runners_of_one_name_only_the_meant_one_is_renewed() {
    let before = format!("{}\n{}", official(1, "one"), official(2, "two"));
    let after = format!("{}\n{}", official(1, "one"), renewed(&official(2, "two"), "two", "new"));
    assert_eq!(edited(&before, &renew(2, "new")), after);
}

#[test]
fn every_duplicate_of_a_runner_is_renewed() {
    let before = format!("{}\n{}", official(1, "old"), official(1, "older"));
    let (after, done) = apply(&before, &renew(1, "new"), reading()).unwrap();
    assert_eq!(after, renewed(&before, "older", "new").replace("\"old\"", "\"new\""));
    assert_eq!(done.entries, 2);
}

#[test]
fn absent_keys_are_added_behind_the_token_in_its_style() {
    let before = format!("[[runners]]\r\n\turl = \"{URL}\"\r\n\ttoken = \"old\"  # mine\r\n\texecutor = \"shell\"\r\n");
    let target = EntrySelector { id: Some(id(7)), ..by_token(&["old"]) };
    let edit = Edit::Renew { target, id: Some(id(7)), credential: credential("new"), over: known() };
    let after = format!(
        "[[runners]]\r\n\turl = \"{URL}\"\r\n\ttoken = \"new\"  # mine\r\n\tid = 7\r\n\t\
         token_obtained_at = 2026-02-01T00:00:00Z\r\n\ttoken_expires_at = 2026-03-01T00:00:00Z\r\n\texecutor = \"shell\"\r\n"
    );
    assert_eq!(edited(&before, &edit), after);
}

#[test]
fn absent_keys_are_added_to_a_last_line_without_newline() {
    let before = format!("[[runners]]\nurl = \"{URL}\"\nid = 1\ntoken = \"old\"");
    let after = format!(
        "[[runners]]\nurl = \"{URL}\"\nid = 1\ntoken = \"new\"\n\
         token_obtained_at = 2026-02-01T00:00:00Z\ntoken_expires_at = 2026-03-01T00:00:00Z"
    );
    assert_eq!(edited(&before, &renew(1, "new")), after);
}

#[test]
fn an_entry_without_a_token_gets_one() {
    let before = format!("[[runners]]\n    url = \"{URL}\"\n    id = 1\n    executor = \"shell\"\n");
    let after = edited(&before, &renew(1, "new"));
    assert!(after.contains("    id = 1\n    token = \"new\"\n    token_obtained_at = "), "{after}");
}

#[test]
fn inline_tables_are_renewed_in_place() {
    let before = format!("runners = [ {{ url = \"{URL}\", token = 'old', id = 1 }} ] # all\n");
    let after = format!(
        "runners = [ {{ url = \"{URL}\", token = \"new\", token_obtained_at = 2026-02-01T00:00:00Z, \
         token_expires_at = 2026-03-01T00:00:00Z, id = 1 }} ] # all\n"
    );
    assert_eq!(edited(&before, &renew(1, "new")), after);
}

#[test]
fn dotted_keys_and_interleaved_tables_stay() {
    let before = format!(
        "[[runners]]\ndocker.image = \"a\"\nurl = \"{URL}\"\ndocker.tty = true\nid = 1\ntoken = \"old\"\n\
         [other]\nx = 1\n[runners.cache]\nType = \"s3\"\n"
    );
    let after = edited(&before, &renew(1, "new"));
    let lines = "token_obtained_at = 2026-02-01T00:00:00Z\ntoken_expires_at = 2026-03-01T00:00:00Z\n";
    assert_eq!(after, before.replace("\"old\"\n", &format!("\"new\"\n{lines}")));
}

#[test]
fn times_are_written_together_or_not_at_all() {
    let before = official(1, "old");
    let without = Credential { obtained_at: None, ..credential("new") };
    let edit = Edit::Renew { target: target(1), id: None, credential: without, over: known() };
    assert_eq!(edited(&before, &edit), before.replace("old", "new"));

    let unknown = Credential { expiry: Expiry::Unknown, ..credential("new") };
    let edit = Edit::Renew { target: target(1), id: None, credential: unknown.clone(), over: known() };
    assert!(edited(&before, &edit).contains("token_expires_at = 0001-01-01T00:00:00Z"));

    let bare = format!("[[runners]]\nurl = \"{URL}\"\nid = 1\ntoken = \"old\"\n");
    let edit = Edit::Renew { target: target(1), id: None, credential: unknown, over: known() };
    assert_eq!(edited(&bare, &edit), bare.replace("old", "new"));

    let never = Credential { expiry: Expiry::Never, ..credential("new") };
    let edit = Edit::Renew { target: target(1), id: None, credential: never, over: known() };
    assert!(edited(&bare, &edit).contains("token_expires_at = 0001-01-01T00:00:00Z"));
}

#[test]
fn a_renewal_can_be_repeated() {
    let target = by_token(&["old"]);
    let edit = Edit::Renew { target, id: Some(id(1)), credential: credential("new"), over: known() };
    let once = edited(&official(1, "old"), &edit);
    assert_eq!(edited(&once, &edit), once);
}

#[test]
fn a_token_from_a_variable_is_never_written() {
    let before = format!("[[runners]]\nurl = \"{URL}\"\nid = 1\ntoken = \"$RUNNER_TOKEN\"\n");
    let error = refused(&before, &renew(1, "new"));
    assert!(matches!(&error, Error::VariableToken { variable, line: 1, .. } if variable == "RUNNER_TOKEN"));
    assert!(!format!("{error}{error:?}").contains("glrt-from-variable"));
}

#[test]
fn missing_entry_is_an_error() {
    let error = refused(&official(1, "one"), &renew(2, "new"));
    assert_eq!(error.kind(), ErrorKind::NoSuchEntry);
    assert!(error.to_string().contains("runner 2 of https://gitlab.example.com"), "{error}");
}

#[test]
fn a_table_in_the_place_of_a_value_is_not_edited() {
    let before = format!("[[runners]]\nurl = \"{URL}\"\nid = 1\n[runners.token]\na = 1\n");
    assert!(matches!(refused(&before, &renew(1, "new")), Error::EditMismatch { .. }));
}

#[test]
fn insert_appends_in_the_official_order_and_the_files_style() {
    let before = "concurrent = 1\r\n";
    let text = entry_text(&format!("  name = \"new\"\n  url = \"{URL}\"\n  executor = \"shell\"\n"));
    let edit = Edit::Insert { text, id: Some(id(5)), credential: credential("tok") };
    let after = format!(
        "concurrent = 1\n\n[[runners]]\n  name = \"new\"\n  url = \"{URL}\"\n  id = 5\n  token = \"tok\"\n  \
         token_obtained_at = 2026-02-01T00:00:00Z\n  token_expires_at = 2026-03-01T00:00:00Z\n  executor = \"shell\"\n"
    );
    assert_eq!(edited(before, &edit), after.replace('\n', "\r\n"));
}

#[test]
fn insert_renews_an_entry_that_is_there_already_unless_its_token_is_unknown() {
    let text = entry_text(&format!("name = \"new\"\nurl = \"{URL}\"\n"));
    let edit = Edit::Insert { text, id: Some(id(1)), credential: credential("new") };
    let there = official(1, "new");
    assert_eq!(edited(&there, &edit), renewed(&there, "new", "new"));
    assert!(matches!(refused(&official(1, "old"), &edit), Error::UnknownToken { line: 1, .. }));
}

#[test]
fn unknown_token_is_not_overwritten() {
    let renewal = |over| Edit::Renew {
        target: EntrySelector { id: Some(id(1)), ..by_token(&["former"]) },
        id: None,
        credential: credential("new"),
        over,
    };
    let by_a_person = official(1, "typed");
    assert!(matches!(refused(&by_a_person, &renewal(Vec::new())), Error::UnknownToken { line: 1, .. }));
    let refused_twice = vec![token("typed").digest()];
    assert_eq!(edited(&by_a_person, &renewal(refused_twice)), renewed(&by_a_person, "typed", "new"));
    let (known, unknown) = (official(1, "former"), by_a_person);
    let both = format!("{known}\n{unknown}");
    let (after, done) = apply(&both, &renewal(Vec::new()), reading()).unwrap();
    assert_eq!((done.entries, after), (1, format!("{}\n{unknown}", renewed(&known, "former", "new"))));
}

#[test]
fn insert_into_an_inline_array_is_refused() {
    let text = entry_text(&format!("url = \"{URL}\"\n"));
    let edit = Edit::Insert { text, id: Some(id(2)), credential: credential("new") };
    let before = format!("runners = [{{ url = \"{URL}\", id = 1, token = \"a\" }}]\n");
    assert!(matches!(refused(&before, &edit), Error::InlineRunners { line: 1, .. }));
}

#[test]
fn remove_takes_the_entry_its_sub_tables_and_its_comment_and_nothing_else() {
    let before = format!(
        "# head\nconcurrent = 1\n\n# general note\n\n# about one\n{one}  [runners.docker]\n    image = \"a\"\n    \
         [[runners.docker.services]]\n      name = \"s\"\n  # end of one\n\n# detached\n\n# about two\n{two}",
        one = official(1, "one"),
        two = official(2, "two")
    );
    let (after, done) = apply(&before, &Edit::Remove { target: knowing(1) }, reading()).unwrap();
    assert_eq!(
        after,
        format!("# head\nconcurrent = 1\n\n# general note\n\n# detached\n\n# about two\n{}", official(2, "two"))
    );
    let kept = done.removed[0].expose();
    assert_eq!(
        kept,
        format!(
            "# about one\n[[runners]]\n  name = \"same\"\n  url = \"{URL}\"\n  executor = \"shell\"\n  [runners.docker]\n    \
             image = \"a\"\n    [[runners.docker.services]]\n      name = \"s\"\n  # end of one\n"
        )
    );
}

#[test]
fn remove_finds_sub_tables_that_stand_apart() {
    let before = format!("{}[other]\nx = 1\n[runners.cache]\nType = \"s3\"\n[last]\ny = 1\n", official(1, "one"));
    let (after, done) = apply(&before, &Edit::Remove { target: knowing(1) }, reading()).unwrap();
    assert_eq!(after, "[other]\nx = 1\n[last]\ny = 1\n");
    assert!(done.removed[0].expose().ends_with("[runners.cache]\nType = \"s3\"\n"));
}

#[test]
fn remove_takes_every_duplicate() {
    let before = format!("{}\n{}\n{}", official(1, "a"), official(2, "b"), official(1, "c"));
    let (after, done) = apply(&before, &Edit::Remove { target: knowing(1) }, reading()).unwrap();
    assert_eq!(after, official(2, "b"));
    assert_eq!((done.entries, done.removed.len()), (2, 2));
}

#[test]
fn remove_works_in_an_inline_array() {
    let element = |number: u64| format!("{{ url = \"{URL}\", id = {number}, token = \"t{number}\", limit = 1 }}");
    let before = format!("runners = [ {}, {}, {} ]\n", element(1), element(2), element(3));
    for (number, after) in [
        (1, format!("runners = [ {}, {} ]\n", element(2), element(3))),
        (2, format!("runners = [ {}, {} ]\n", element(1), element(3))),
        (3, format!("runners = [ {}, {} ]\n", element(1), element(2))),
    ] {
        let (found, done) = apply(&before, &Edit::Remove { target: knowing(number) }, reading()).unwrap();
        assert_eq!(found, after);
        assert_eq!(done.removed[0].expose(), format!("[[runners]]\n  url = \"{URL}\"\n  limit = 1\n"));
    }
    let single = format!("runners = [\n  {},\n]\nx = 1\n", element(1));
    assert_eq!(edited(&single, &Edit::Remove { target: knowing(1) }), "runners = []\nx = 1\n");
}

#[test]
fn what_was_removed_can_be_inserted_again() {
    let entry = format!("# mine\n{}  [runners.docker]\n    image = \"a\" # b\n", official(1, "one"));
    let before = format!("concurrent = 1\n\n{entry}");
    let (without, done) = apply(&before, &Edit::Remove { target: knowing(1) }, reading()).unwrap();
    let credential = Credential {
        token: token("one"),
        obtained_at: Some(time("2026-01-01T00:00:00Z")),
        expiry: Expiry::At(time("2026-02-01T00:00:00Z")),
    };
    let insert = Edit::Insert { text: done.removed[0].clone(), id: Some(id(1)), credential };
    assert_eq!(edited(&without, &insert), before);
}
