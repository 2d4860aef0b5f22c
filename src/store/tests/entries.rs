use super::super::config_file::ConfigFile;
use super::*;

fn entries(text: &str) -> Vec<Entry> {
    ConfigFile::parse(text, reading()).unwrap().entries()
}

#[test]
fn an_entry_is_read_with_all_its_keys() {
    let text = r#"
concurrent = 4
[[runners]]
  name = "build"
  url = "https://gitlab.example.com/"
  id = 42
  token = "glrt-abc"
  token_obtained_at = 2026-01-01T00:00:00Z
  token_expires_at = "2026-02-01T00:00:00Z"
  tls-ca-file = "/ca.crt"
  tls-cert-file = "/cert.pem"
  tls-key-file = "/key.pem"
  executor = "docker"
  [runners.feature_flags]
    FF_DISABLE_AUTOMATIC_TOKEN_ROTATION = true
"#;
    let expected = Entry {
        position: 0,
        line: 3,
        name: Some("build".to_owned()),
        url: Some(url()),
        id: Some(id(42)),
        token: EntryToken::Literal(token("glrt-abc")),
        obtained_at: Some(time("2026-01-01T00:00:00Z")),
        expiry: Expiry::At(time("2026-02-01T00:00:00Z")),
        executor: Some("docker".into()),
        tls: crate::model::TlsPaths {
            ca_file: Some("/ca.crt".into()),
            cert_file: Some("/cert.pem".into()),
            key_file: Some("/key.pem".into()),
        }
        .into(),
        rotation_disabled: true,
        problems: Vec::new(),
    };
    assert_eq!(entries(text), [expected]);
}

#[test]
fn missing_and_zero_values_mean_unknown() {
    let text = format!(
        "[[runners]]\nurl = \"{URL}\"\ntoken = \"a\"\nid = 0\n\
         token_obtained_at = 0001-01-01T00:00:00Z\ntoken_expires_at = 0001-01-01T00:00:00Z\n\
         [[runners]]\nurl = \"{URL}\"\ntoken = \"b\"\n"
    );
    let entries = entries(&text);
    assert_eq!((entries[0].id, entries[0].obtained_at, entries[0].expiry), (None, None, Expiry::Never));
    assert_eq!((entries[1].id, entries[1].obtained_at, entries[1].expiry), (None, None, Expiry::Unknown));
    assert!(entries.iter().all(|entry| entry.problems.is_empty() && !entry.rotation_disabled));
}

#[test]
fn an_inline_array_is_read_like_tables() {
    let text = format!("concurrent = 1\nrunners = [\n  {{ url = \"{URL}\", id = 1, token = \"a\" }},\n]\n");
    let entries = entries(&text);
    assert_eq!((entries.len(), entries[0].line, entries[0].id), (1, 3, Some(id(1))));
}

#[test]
fn the_flag_in_the_environment_disables_rotation_too() {
    let text = "[[runners]]\nenvironment = [\"A=b\", \"FF_DISABLE_AUTOMATIC_TOKEN_ROTATION=true\"]\n\
                [[runners]]\nenvironment = [\"FF_DISABLE_AUTOMATIC_TOKEN_ROTATION=false\"]\n";
    let disabled: Vec<bool> = entries(text).iter().map(|entry| entry.rotation_disabled).collect();
    assert_eq!(disabled, [true, false]);
}

#[test]
fn a_variable_is_expanded_and_stays_a_variable() {
    for spelling in ["$RUNNER_TOKEN", "${RUNNER_TOKEN}"] {
        let entry = &entries(&format!("[[runners]]\nurl = \"{URL}\"\ntoken = \"{spelling}\"\n"))[0];
        let expected =
            EntryToken::Variable { name: "RUNNER_TOKEN".to_owned(), token: Some(token("glrt-from-variable")) };
        assert_eq!(entry.token, expected);
        assert_eq!(entry.access().unwrap().1, token("glrt-from-variable"));
    }
    let unset = &entries(&format!("[[runners]]\nurl = \"{URL}\"\ntoken = \"$UNSET\"\n"))[0];
    assert_eq!(unset.access().unwrap_err(), EntryProblem::Variable("UNSET".to_owned()));
}

#[test]
fn a_wrong_type_is_a_problem_of_its_entry_alone() {
    let text = format!("[[runners]]\nurl = 5\ntoken = true\nid = \"x\"\n[[runners]]\nurl = \"{URL}\"\ntoken = \"a\"\n");
    let entries = entries(&text);
    assert_eq!(entries[0].problems.len(), 3);
    assert_eq!(entries[0].access().unwrap_err(), EntryProblem::WrongType { key: "url", expected: "text in quotes" });
    assert!(entries[1].access().is_ok());
}

#[test]
fn an_unreadable_time_does_not_keep_an_entry_from_being_used() {
    let entry = &entries(&format!("[[runners]]\nurl = \"{URL}\"\ntoken = \"a\"\ntoken_expires_at = 7\n"))[0];
    assert_eq!(entry.problems.len(), 1);
    assert!(entry.access().is_ok());
}

#[test]
fn syntax_error_has_a_position_but_no_content() {
    let text = "concurrent = 1\r\n[[runners]]\r\n  tokeñ = \"glrt-secret\r\n";
    let Err(error) = ConfigFile::parse(text, reading()) else { panic!("it is no TOML") };
    let Error::Syntax { line, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*line, 3);
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[test]
fn runners_that_are_no_list_of_tables_are_refused() {
    for text in ["runners = 5\n", "runners = [1]\n", "\n[runners]\nurl = \"x\"\n"] {
        assert!(matches!(ConfigFile::parse(text, reading()), Err(Error::RunnersShape { .. })), "{text}");
    }
}
