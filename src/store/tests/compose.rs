use super::*;

fn new_entry() -> NewEntry {
    NewEntry {
        template: None,
        name: "a \"quoted\" name".to_owned(),
        url: url(),
        executor: Some("docker".to_owned()),
        shell: None,
        limit: Some(2),
        request_concurrency: None,
        output_limit: None,
        tls: crate::model::TlsPaths { ca_file: Some("/ca.crt".into()), ..Default::default() }.into(),
        settings: Vec::new(),
    }
}

fn setting(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[test]
fn a_new_entry_looks_like_the_official_one() {
    let settings = vec![
        setting("docker.image", "\"alpine\""),
        setting("docker.volumes", "[\"/cache\"]"),
        setting("docker.sysctls.a", "1"),
        setting("strict_check_interval", "true"),
    ];
    let text = EntryText::compose(&NewEntry { settings, ..new_entry() }).unwrap();
    assert_eq!(
        text.expose(),
        r#"[[runners]]
  name = 'a "quoted" name'
  url = "https://gitlab.example.com"
  executor = "docker"
  limit = 2
  tls-ca-file = "/ca.crt"
  strict_check_interval = true
  [runners.docker]
    image = "alpine"
    volumes = ["/cache"]
    [runners.docker.sysctls]
      a = 1
"#
    );
    assert_eq!((text.name().as_deref(), text.url()), (Some("a \"quoted\" name"), Some(url())));
}

#[test]
fn a_template_keeps_its_comments_and_loses_its_identity() {
    let template = "concurrent = 3\n\n# about it\n[[runners]]\n  # who\n  name = \"template\" # name\n  token = \"glrt-x\"\n  \
                    id = 9\n  executor = \"shell\"\n  [runners.docker]\n    image = \"old\" # image\n    tty = true\n";
    let settings = vec![setting("docker.image", "\"new\"")];
    let text = EntryText::compose(&NewEntry { template: Some(template.to_owned()), settings, ..new_entry() }).unwrap();
    assert_eq!(
        text.expose(),
        r#"# about it
[[runners]]
  # who
  name = 'a "quoted" name' # name
  url = "https://gitlab.example.com"
  executor = "docker"
  limit = 2
  tls-ca-file = "/ca.crt"
  [runners.docker]
    image = "new" # image
    tty = true
"#
    );
}

#[test]
fn a_template_has_exactly_one_entry() {
    for (template, count) in [("concurrent = 1\n", 0), ("[[runners]]\n[[runners]]\n", 2)] {
        let entry = NewEntry { template: Some(template.to_owned()), ..new_entry() };
        assert_eq!(EntryText::compose(&entry), Err(ComposeError::EntryCount(count)));
    }
    let entry = NewEntry { template: Some("[[runners]]\nx = \"secret\n".to_owned()), ..new_entry() };
    let error = EntryText::compose(&entry).unwrap_err();
    assert!(matches!(error, ComposeError::Syntax { line: 2, .. }), "{error}");
    assert!(!error.to_string().contains("secret"));
}

#[test]
fn a_bad_setting_is_named_without_its_value() {
    for (key, value, expected) in [
        ("docker.image", "alpine", ComposeError::SettingValue("docker.image".to_owned())),
        ("docker..image", "1", ComposeError::SettingKey("docker..image".to_owned())),
        ("token", "\"x\"", ComposeError::SettingReserved("token".to_owned())),
        ("executor.x", "1", ComposeError::SettingConflict("executor.x".to_owned())),
    ] {
        let entry = NewEntry { settings: vec![setting(key, value)], ..new_entry() };
        assert_eq!(EntryText::compose(&entry), Err(expected), "{key}");
    }
}

#[test]
fn settings_reach_into_an_inline_table() {
    let template = "[[runners]]\n  docker = { image = \"a\" }\n";
    let settings = vec![setting("docker.tty", "true"), setting("docker.sysctls.a", "1")];
    let text = EntryText::compose(&NewEntry { template: Some(template.to_owned()), settings, ..new_entry() }).unwrap();
    assert!(text.expose().contains("tty = true") && text.expose().contains("a = 1"), "{}", text.expose());
}

#[test]
fn the_text_of_an_entry_is_not_shown() {
    let text = EntryText::parse("[[runners]]\nsecret = \"hidden\"\n").unwrap();
    assert!(!format!("{text:?}").contains("hidden"));
}
