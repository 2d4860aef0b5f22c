//! README.md agrees with the code: its commands are run; its keys, defaults, codes and messages are compared.

mod document;
mod sandbox;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use runner_agent::cli::Exit;
use runner_agent::cli::arguments::Arguments;
use runner_agent::model::{LastVerify, Report, RunnerReport, StateName, VerifyOutcome};
use runner_agent::settings::{Environment, Errors, Overrides, Settings, load};

use document::{Block, README, blocks, code, headings, marked, table_below};
use sandbox::ReadmeSandbox;

/// The tables of agent.toml that occur once and have defaults.
const SINGLE: [&str; 7] = ["verify", "rotate", "recover", "shutdown", "timing", "gitlab", "http"];

/// The table of the store, which has no default.
const STORE: &str = "sharing";

/// Its keys that the complete agent.toml has as comments, because they are for another engine than the rest.
const OF_OTHER_ENGINE: [&str; 2] = ["kubeconfig", "namespace"];

/// The tables that can occur several times.
const REPEATED: [&str; 3] = ["enroll", "server", "runner"];

const EXAMPLE: &str = "agent.toml with every key";

#[test]
fn every_command_block_runs_as_written_or_says_why_not() {
    let sandbox = ReadmeSandbox::new();
    let mut ran = 0;
    for block in blocks() {
        let Block { line, language, mark, text } = &block;
        match (*language, *mark) {
            ("sh" | "console", Some(mark)) if mark.starts_with("not run: ") => continue,
            ("sh", Some("runs until stopped")) => sandbox.run_until_stopped(text),
            ("sh", None) => drop(sandbox.run(text)),
            ("console", None) => run_and_compare(&sandbox, &block),
            ("console", Some("while the daemon runs")) => {
                sandbox.run_beside_daemon(|| run_and_compare(&sandbox, &block));
            }
            ("toml", Some(mark)) => {
                if let Some(path) = mark.strip_prefix("written to: ") {
                    sandbox.write(path, text);
                }
                continue;
            }
            ("json" | "ini" | "dockerfile" | "yaml", None) => continue,
            _ => panic!("README.md:{line}: a block of `{language}` marked {mark:?}: run it, or say why not"),
        }
        ran += 1;
    }
    assert!(ran > 5, "only {ran} blocks were run");
}

#[test]
fn the_complete_agent_toml_is_accepted_and_has_every_key() {
    assert_is_complete(&marked(EXAMPLE));
}

#[test]
fn the_packaged_agent_toml_sets_nothing_and_shows_every_key() {
    let text = include_str!("../../packaging/agent.toml");
    let (as_installed, absent) = (loaded(text).unwrap(), loaded("").unwrap());
    assert_eq!(as_installed.engine, absent.engine);
    let shown = uncommented(text);
    assert_is_complete(&shown);
    let (shown, documented): (toml::Table, toml::Table) = (shown.parse().unwrap(), marked(EXAMPLE).parse().unwrap());
    for name in SINGLE {
        assert_eq!(shown[name], documented[name], "[{name}]");
    }
}

#[test]
fn the_documented_keys_are_those_of_the_settings() {
    let tables: BTreeSet<_> = SINGLE.iter().chain([&STORE]).chain(&REPEATED).map(|name| (*name).to_owned()).collect();
    assert_eq!(known("nonsense = 1\n"), tables);
    for name in SINGLE.into_iter().chain([STORE]) {
        assert_eq!(documented(name), known(&format!("[{name}]\nnonsense = 1\n")), "[{name}]");
    }
    for name in REPEATED {
        assert_eq!(documented(name), known(&format!("[[{name}]]\nnonsense = 1\n")), "[[{name}]]");
    }
}

#[test]
fn the_documented_defaults_are_those_of_the_code() {
    let mut text = String::new();
    for name in SINGLE {
        text.push_str(&format!("[{name}]\n"));
        for row in table_below(&heading(name)) {
            text.push_str(&format!("{} = {}\n", code(row[0]), code(row[1])));
        }
    }
    let (mut written, absent) = (loaded(&text).unwrap(), loaded("").unwrap());
    assert_eq!(written.engine, absent.engine);
    // Commands have another default, so the settings keep apart what is set.
    assert_eq!(written.gitlab.in_flight_per_host.take(), Some(absent.gitlab.in_flight()));
    assert_eq!(format!("{:?}", written.gitlab), format!("{:?}", absent.gitlab));
    assert_eq!(written.status_server, absent.status_server);

    let (documented, example): (toml::Table, toml::Table) = (text.parse().unwrap(), marked(EXAMPLE).parse().unwrap());
    for name in SINGLE {
        assert_eq!(example[name], documented[name], "[{name}] of the complete agent.toml");
    }

    let store = "[sharing]\nengine = \"etcd\"\nendpoints = [\"https://etcd-1:2379\"]\n";
    let mut with_defaults = store.to_owned();
    for row in table_below(&heading(STORE)) {
        if row[1].starts_with('`') {
            with_defaults.push_str(&format!("{} = {}\n", code(row[0]), code(row[1])));
        }
    }
    assert!(with_defaults.len() > store.len());
    assert_eq!(loaded(&with_defaults).unwrap().engine, loaded(store).unwrap().engine);
}

#[test]
fn the_exit_codes_are_those_of_the_code_and_the_help() {
    let all = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Refused, Exit::LocalFile, Exit::Unreachable, Exit::Partial];
    let rows = table_below("Exit codes");
    let codes: Vec<u8> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(codes, all.map(|exit| exit as u8));
    let help = Arguments::command().get_after_help().unwrap().to_string();
    for row in rows {
        assert!(help.contains(&format!("{}  {}", row[0], row[1])), "{row:?} is not in the help:\n{help}");
    }
}

#[test]
fn the_commands_are_those_of_the_command_line() {
    let rows = table_below("Commands");
    let documented: BTreeSet<_> = rows.iter().map(|row| row[0].split('`').nth(1).unwrap().to_owned()).collect();
    let commands: BTreeSet<_> = Arguments::command()
        .get_subcommands()
        .filter(|it| !it.is_hide_set())
        .map(|it| it.get_name().to_owned())
        .collect();
    assert_eq!(documented, commands);

    let rows = table_below("Fleet");
    let documented: BTreeSet<_> = rows.iter().map(|row| code(row[0]).replace("fleet ", "")).collect();
    let command = Arguments::command();
    let fleet = command.find_subcommand("fleet").unwrap();
    let commands: BTreeSet<_> = fleet.get_subcommands().map(|it| it.get_name().to_owned()).collect();
    assert_eq!(documented, commands);
}

#[test]
fn the_json_example_has_the_keys_of_the_report() {
    let json = blocks().into_iter().find(|block| block.language == "json").unwrap().text;
    let documented: serde_json::Value = serde_json::from_str(&json).unwrap();
    let actual = serde_json::to_value(Report::new(vec![report()])).unwrap();
    assert_eq!(json_keys(&documented), json_keys(&actual));
    assert_eq!(json_keys(&documented["runners"][0]), json_keys(&actual["runners"][0]));
    assert_eq!(json_keys(&documented["runners"][0]["last_verify"]), json_keys(&actual["runners"][0]["last_verify"]));
    assert_eq!(documented["schema"], actual["schema"]);
}

#[test]
fn the_messages_and_variables_occur_in_the_code() {
    let code_text = sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    for row in table_below("Troubleshooting") {
        let message = code(row[0]);
        assert!(
            code_text.lines().any(|line| has_parts_in_order(line, message)),
            "`{message}` is no message of the code"
        );
    }
    for row in table_below("Run the daemon") {
        for variable in row[0].split(", ").map(code) {
            assert!(code_text.contains(variable), "the code does not read `{variable}`");
        }
    }
}

#[test]
fn every_link_has_a_target() {
    let is_kept = |character: &char| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_');
    let anchor = |heading: &str| heading.to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-");
    let anchors: BTreeSet<_> = headings().map(anchor).collect();
    for target in README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        let exists = match target.strip_prefix('#') {
            Some(name) => anchors.contains(name),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join(target).exists(),
        };
        assert!(exists, "the link target `{target}` does not exist");
    }
}

/// Whether a line of code has the parts of a message, which `…` separates, in their order.
fn has_parts_in_order(line: &str, message: &str) -> bool {
    let parts = message.split('…').map(str::trim);
    parts.into_iter().try_fold(line, |rest, part| Some(rest.split_once(part)?.1)).is_some()
}

/// Runs each command after a `$` and compares its output with the lines below it.
fn run_and_compare(sandbox: &ReadmeSandbox, block: &Block) {
    for part in block.text.split("$ ").skip(1) {
        let (command, expected) = part.split_once('\n').unwrap();
        let actual = sandbox.run(&format!("{command}\n"));
        assert_eq!(shape(&actual), shape(expected), "README.md:{}: {command}\n{actual}", block.line);
    }
}

/// The text without what differs between runs: the widths of columns, and words with a digit in them. Several such words
/// in a row, such as a time, count as one.
fn shape(text: &str) -> Vec<String> {
    text.lines().map(|line| shape_of_line(&line.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

fn shape_of_line(line: &str) -> String {
    let mut shape = String::new();
    for part in line.split_inclusive(|character: char| !character.is_alphanumeric()) {
        let word = part.trim_end_matches(|character: char| !character.is_alphanumeric());
        if word.bytes().any(|byte| byte.is_ascii_digit()) {
            // The characters between two such words belong to them.
            let before = shape.trim_end_matches([' ', '-', ':', '.']).len();
            if shape[..before].ends_with('#') {
                shape.truncate(before - 1);
            }
            shape.push('#');
        } else {
            shape.push_str(word);
        }
        shape.push_str(&part[word.len()..]);
    }
    shape
}

/// Asserts that an agent.toml is accepted and has every key that README lists.
fn assert_is_complete(text: &str) {
    let settings = loaded(text).unwrap();
    assert_eq!(settings.warnings, Vec::<String>::new());
    let example: toml::Table = text.parse().unwrap();
    for name in SINGLE {
        assert_eq!(keys_of(example[name].as_table().unwrap()), documented(name), "[{name}]");
    }
    let commented = OF_OTHER_ENGINE.map(str::to_owned);
    assert!(commented.iter().all(|key| text.contains(&format!("\n# {key} = "))), "a key of another engine is missing");
    let keys = &keys_of(example[STORE].as_table().unwrap()) | &commented.into();
    assert_eq!(keys, documented(STORE), "[{STORE}]");
    for name in REPEATED {
        let tables = example[name].as_array().unwrap();
        let keys: BTreeSet<_> = tables.iter().flat_map(|table| keys_of(table.as_table().unwrap())).collect();
        assert_eq!(keys, documented(name), "[[{name}]]");
    }
}

/// The text with the `#` removed from every line without a space after it.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting,
        Some(_) | None => line,
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// Loads an agent.toml from a directory that contains the files of README's example.
fn loaded(text: &str) -> Result<Settings, Errors> {
    let directory = tempfile::tempdir().unwrap();
    let agent_config = directory.path().join("agent.toml");
    fs::write(&agent_config, text).unwrap();
    fs::write(directory.path().join("docker.toml"), "[[runners]]\n[runners.docker]\nimage = \"alpine\"\n").unwrap();
    let mut environment = Environment::default();
    environment.hostname = "host-1".to_owned();
    load(&Overrides { agent_config: Some(agent_config), ..Overrides::default() }, &environment)
}

/// The keys that the settings list as known if they reject the key `nonsense`.
fn known(text: &str) -> BTreeSet<String> {
    let errors = loaded(text).unwrap_err().to_string();
    let (_, list) = errors.split_once("unknown key `nonsense` in ").unwrap().1.split_once("known are: ").unwrap();
    list.lines().next().unwrap().split(", ").map(str::to_owned).collect()
}

/// The keys that README lists for a table.
fn documented(name: &str) -> BTreeSet<String> {
    table_below(&heading(name)).iter().map(|row| code(row[0]).to_owned()).collect()
}

fn heading(name: &str) -> String {
    if REPEATED.contains(&name) { format!("`[[{name}]]`") } else { format!("`[{name}]`") }
}

fn keys_of(table: &toml::Table) -> BTreeSet<String> {
    table.keys().cloned().collect()
}

fn json_keys(value: &serde_json::Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

fn report() -> RunnerReport {
    let at = "2026-07-31T08:00:00Z".parse().unwrap();
    RunnerReport {
        name: None,
        id: None,
        url: None,
        executor: None,
        token_fingerprint: None,
        token_obtained_at: None,
        token_expires_at: None,
        state: StateName::Active,
        since: None,
        last_verify: Some(LastVerify { at, outcome: VerifyOutcome::Accepted }),
        next: None,
        rotation: None,
        at_stop: None,
        action: None,
        error: None,
        clock_skew_seconds: None,
        sharing: None,
    }
}

/// All Rust files below a directory, as one text.
fn sources(directory: &Path) -> String {
    let mut text = String::new();
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
    text
}
