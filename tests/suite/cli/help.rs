//! Help texts and completions.

#[test]
fn help_texts_match_their_snapshots() {
    let sandbox = super::sandbox();
    for command in [
        "",
        "run",
        "register",
        "verify",
        "rotate",
        "unregister",
        "list",
        "plan",
        "check",
        "doctor",
        "reload",
        "status",
        "health",
        "completions",
        "fleet",
        "fleet list",
        "fleet update",
        "fleet delete",
        "fleet create",
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
fn completions_contain_every_command() {
    let sandbox = super::sandbox();
    for shell in ["bash", "zsh", "fish"] {
        let done = sandbox.run(&["completions", shell]);
        done.exits(0);
        for command in [
            "register",
            "verify",
            "rotate",
            "reset-token",
            "unregister",
            "list",
            "plan",
            "check",
            "doctor",
            "reload",
            "status",
            "health",
            "shared",
            "completions",
        ] {
            assert!(done.stdout.contains(command), "{shell} {command}");
        }
    }
    sandbox.run(&["completions", "tcsh"]).exits(2);
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
    let names = names.into_iter().chain(of_group("fleet")).chain(of_group("shared"));
    let mut expected: Vec<_> = names.map(|name| format!("runner-agent-{name}.1")).collect();
    expected.push("runner-agent.1".to_owned());
    expected.sort();
    let entries = std::fs::read_dir(&directory).unwrap();
    let mut pages: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    pages.sort();
    assert_eq!(pages, expected);
    assert!(pages.len() > 5);
    let page = std::fs::read_to_string(directory.join("runner-agent-register.1")).unwrap();
    assert!(page.contains("registration\\-token\\-file"), "{page}");
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
