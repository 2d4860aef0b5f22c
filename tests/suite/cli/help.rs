//! Help texts and man pages.

#[test]
fn help_texts_match_their_snapshots() {
    let sandbox = super::sandbox();
    for command in [
        "",
        "run",
        "init",
        "register",
        "verify",
        "rotate",
        "unregister",
        "list",
        "plan",
        "check",
        "doctor",
        "reload",
        "open",
        "relocate",
        "status",
        "health",
        "version",
        "completions",
        "fleet",
        "fleet list",
        "fleet update",
        "fleet delete",
        "fleet create",
        "access-token",
        "access-token show",
        "access-token rotate",
        "hook",
        "hook test",
        "shared",
        "shared list",
        "shared show",
        "shared heal",
        "shared forget",
    ] {
        let args: Vec<_> = command.split(' ').chain(["--help"]).filter(|word| !word.is_empty()).collect();
        let done = sandbox.run(&args);
        done.exits(0);
        assert!(done.stderr.is_empty());
        let name = if command.is_empty() { "help".to_owned() } else { command.replace(' ', "-") };
        insta::assert_snapshot!(format!("help-{name}"), done.stdout);
    }
}

#[test]
fn version_flag_prints_the_version() {
    let done = super::sandbox().run(&["--version"]);
    assert_eq!(done.exits(0).stdout, concat!("runner-agent ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn manual_has_a_page_for_every_command() {
    let sandbox = super::sandbox();
    let directory = sandbox.path("pages");
    std::fs::create_dir(&directory).unwrap();
    sandbox.run(&["manual", directory.to_str().unwrap()]).exits(0);
    let of_group = |group: &str| {
        let names = commands_in(&sandbox.run(&[group, "--help"]).stdout);
        names.into_iter().map(|name| format!("{group}-{name}")).collect::<Vec<_>>()
    };
    let names = commands_in(&sandbox.run(&["--help"]).stdout);
    let names = names.into_iter().chain(of_group("fleet")).chain(of_group("shared")).chain(of_group("access-token"));
    let names = names.chain(of_group("hook"));
    let mut expected: Vec<_> = names.map(|name| format!("runner-agent-{name}.1")).collect();
    expected.extend(["runner-agent.1".to_owned(), "runner-agent.toml.5".to_owned()]);
    expected.sort();
    let entries = std::fs::read_dir(&directory).unwrap();
    let mut pages: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    pages.sort();
    assert_eq!(pages, expected);
    assert!(pages.len() > 5);
    let page = std::fs::read_to_string(directory.join("runner-agent-register.1")).unwrap();
    assert!(page.contains("registration\\-token\\-file"), "{page}");
    for name in pages.iter().filter(|name| name.ends_with(".1")) {
        let page = std::fs::read_to_string(directory.join(name)).unwrap();
        for section in ["NAME", "SYNOPSIS", "EXAMPLES", "FILES", "ENVIRONMENT", "EXIT STATUS", "SEE ALSO"] {
            let found = page.lines().filter(|line| line.trim_start_matches(".SH").trim().trim_matches('"') == section);
            assert_eq!(found.count(), 1, "{name}: {section}");
        }
    }
    sandbox.run(&["manual", "/nowhere"]).exits(4);
}

/// The commands that a help text lists.
fn commands_in(help: &str) -> Vec<String> {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    commands.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

#[test]
fn usage_error_exits_2_without_repeating_a_secret() {
    let sandbox = super::sandbox();
    for args in [
        &["registr"][..],
        &["verify", "--id", "none"],
        &["rotate"],
        &["unregister"],
        &["rotate", "--all-runners", "--name", "a"],
        &["verify", "--token", "two words"],
        &["register", "--locked=perhaps"],
        &["register", "-n", "--url", "https://gitlab.example.com", "--token", "two words"],
        &["register", "-n", "--url", "https://gitlab.example.com"],
        &["register", "-n", "--url", "ftp://gitlab.example.com", "--token", "glrt-abc"],
        &["register", "-n", "--url", "https://g.example.com", "--token", "glrt-a", "--registration-token", "b"],
    ] {
        let done = sandbox.run(args);
        done.exits(2);
        assert!(!done.stderr.is_empty() && done.stdout.is_empty(), "{args:?}");
        assert!(!done.stderr.contains("two words"), "{args:?}");
    }
    assert_eq!(sandbox.gitlab.requests().len(), 0);
}

#[test]
fn help_shows_the_help_of_a_command() {
    let sandbox = super::sandbox();
    for (line, same) in [
        (&["help"][..], &["--help"][..]),
        (&["help", "register"], &["register", "--help"]),
        (&["fleet", "help", "list"], &["fleet", "list", "--help"]),
    ] {
        assert_eq!(sandbox.run(line).exits(0).stdout, sandbox.run(same).exits(0).stdout, "{line:?}");
    }
}

#[test]
fn version_names_what_tells_two_builds_apart() {
    let sandbox = super::sandbox();
    let text = &sandbox.run(&["version"]).exits(0).stdout.clone();
    assert!(text.starts_with(concat!("runner-agent ", env!("CARGO_PKG_VERSION"), "\ncommit    ")), "{text}");
    assert!(text.contains("\ntarget    ") && text.contains("-linux-"), "{text}");
    let build = sandbox.run(&["version", "--output", "json"]).exits(0).stdout.clone();
    let build: serde_json::Value = serde_json::from_str(&build).unwrap();
    assert_eq!(build["build"][0]["version"], env!("CARGO_PKG_VERSION"));
    assert!(build["build"][0]["features"].is_array());
}

#[test]
fn commands_of_the_service_manager_are_named() {
    let sandbox = super::sandbox();
    for word in ["start", "stop", "restart"] {
        let done = sandbox.run(&[word]);
        done.exits(2).says(&format!("`systemctl {word} runner-agent`"));
        assert!(!done.stderr.contains("register") && !done.stderr.contains("rotate"), "{done:?}");
    }
}
