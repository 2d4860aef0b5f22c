//! The reference pages agree with the code: exit codes, commands, JSON, metrics, messages and variables.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use runner_agent::cli::Exit;
use runner_agent::cli::arguments::Arguments;
use runner_agent::model::{LastVerify, Report, RunnerReport, StateName, VerifyOutcome};

use super::document::{code, page, readme, root};
use super::shape::has_parts_in_order;

#[test]
fn the_exit_codes_are_those_of_the_code_and_the_help() {
    let all = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Refused, Exit::LocalFile, Exit::Unreachable, Exit::Partial];
    let rows = page("exit-codes-and-signals").table_below("Exit codes");
    let codes: Vec<u8> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(codes, all.map(|exit| exit as u8));
    let help = Arguments::command().get_after_help().unwrap().to_string();
    for row in rows {
        assert!(help.contains(&format!("{}  {}", row[0], row[1])), "{row:?} is not in the help:\n{help}");
    }
}

#[test]
fn the_commands_are_those_of_the_command_line() {
    let rows = page("commands").table_below("Commands");
    let documented: BTreeSet<_> = rows.iter().map(|row| row[0].split('`').nth(1).unwrap().to_owned()).collect();
    let commands: BTreeSet<_> = Arguments::command()
        .get_subcommands()
        .filter(|it| !it.is_hide_set())
        .map(|it| it.get_name().to_owned())
        .collect();
    assert_eq!(documented, commands);

    let rows = page("fleet").table_below("Fleet");
    let documented: BTreeSet<_> = rows.iter().map(|row| code(row[0]).replace("fleet ", "")).collect();
    let command = Arguments::command();
    let fleet = command.find_subcommand("fleet").unwrap();
    let commands: BTreeSet<_> = fleet.get_subcommands().map(|it| it.get_name().to_owned()).collect();
    assert_eq!(documented, commands);
}

#[test]
fn the_json_example_has_the_keys_of_the_report() {
    let json = page("json").blocks().into_iter().find(|block| block.language == "json").unwrap().text;
    let documented: serde_json::Value = serde_json::from_str(&json).unwrap();
    let actual = serde_json::to_value(Report::new(vec![report()])).unwrap();
    assert_eq!(json_keys(&documented), json_keys(&actual));
    assert_eq!(json_keys(&documented["runners"][0]), json_keys(&actual["runners"][0]));
    assert_eq!(json_keys(&documented["runners"][0]["last_verify"]), json_keys(&actual["runners"][0]["last_verify"]));
    assert_eq!(documented["schema"], actual["schema"]);
}

#[test]
fn the_documented_states_are_those_of_the_code() {
    let documented: Vec<_> = page("json").table_below("JSON").iter().map(|row| code(row[0])).collect();
    let states: Vec<_> = StateName::ALL.iter().map(|state| state.as_str()).collect();
    assert_eq!(documented.iter().collect::<BTreeSet<_>>(), states.iter().collect::<BTreeSet<_>>());
}

#[test]
fn the_messages_occur_in_the_code() {
    let code_text = code_text();
    let remote = page("troubleshooting").table_below("Troubleshooting");
    let local = page("troubleshooting-files").table_below("Messages about files");
    for row in remote.iter().chain(&local) {
        let message = code(row[0]);
        assert!(
            code_text.lines().any(|line| has_parts_in_order(line, message)),
            "`{message}` is no message of the code"
        );
    }
}

#[test]
fn the_variables_occur_in_the_code() {
    let code_text = code_text();
    for row in page("environment").table_below("Environment variables") {
        for variable in row[0].split(", ").map(code) {
            assert!(code_text.contains(variable), "the code does not read `{variable}`");
        }
    }
}

#[test]
fn the_metrics_are_those_of_the_snapshots() {
    let rows = page("metrics").table_below("Metrics");
    let documented: BTreeSet<_> = rows.iter().map(|row| code(row[0]).to_owned()).collect();
    let snapshots = fs::read_dir(root().join("src/status/snapshots")).unwrap();
    let snapshots: String = snapshots.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let types = snapshots.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    assert_eq!(documented, types.map(str::to_owned).collect());
}

#[test]
fn the_lines_of_the_tour_in_readme_are_those_that_it_prints() {
    let tour = fs::read_to_string(root().join("tests/examples/tour.rs")).unwrap();
    let shown = readme().marked("lines of the tour");
    let steps: Vec<_> = shown.lines().filter_map(|line| line.strip_prefix("=> ")).collect();
    assert!(steps.len() > 5);
    for step in steps {
        assert!(tour.contains(&format!("say(\"{step}\")")), "the tour does not say `{step}`");
    }
}

fn code_text() -> String {
    sources(&root().join("src"))
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
