//! The pages about agent.toml agree with the settings: keys, defaults and the complete example.

use std::collections::BTreeSet;
use std::fs;

use runner_agent::settings::{Environment, Errors, Overrides, Settings, load};

use super::document::{Page, code, page, root};

/// The tables of agent.toml that occur once and have defaults.
const SINGLE: [&str; 7] = ["verify", "rotate", "recover", "shutdown", "timing", "gitlab", "http"];

/// The table of the store, which has no default.
const STORE: &str = "sharing";

/// Its keys that the complete agent.toml has as comments, because they are for another engine than the rest.
const OF_OTHER_ENGINE: [&str; 2] = ["kubeconfig", "namespace"];

/// The tables that can occur several times.
const REPEATED: [&str; 4] = ["enroll", "server", "runner", "hook"];

const EXAMPLE: &str = "agent.toml with every key";

#[test]
fn the_complete_agent_toml_is_accepted_and_has_every_key() {
    assert_is_complete(&example());
}

#[test]
fn the_packaged_agent_toml_sets_nothing_and_shows_every_key() {
    let text = include_str!("../../../packaging/agent.toml");
    let (as_installed, absent) = (loaded(text).unwrap(), loaded("").unwrap());
    assert_eq!(as_installed.engine, absent.engine);
    let shown = uncommented(text);
    assert_is_complete(&shown);
    let (shown, documented): (toml::Table, toml::Table) = (shown.parse().unwrap(), example().parse().unwrap());
    for name in SINGLE {
        assert_eq!(shown[name], documented[name], "[{name}]");
    }
}

#[test]
fn the_agent_toml_of_each_manifest_is_accepted() {
    let manifests = root().join("packaging/kubernetes");
    for overlay in ["", "chart/single", "chart/kubernetes", "chart/etcd"] {
        let path = manifests.join(overlay).join("agent.toml");
        // The template of the chart is in the pod alone.
        let text = fs::read_to_string(&path).unwrap().replace("/configmaps/config.template.toml", "docker.toml");
        assert_is_accepted(path.to_str().unwrap(), &text);
    }
}

#[test]
fn the_ansible_role_has_a_variable_for_each_table() {
    let role = root().join("packaging/ansible/roles/runner_agent");
    let page = root().join("packaging/docs/ansible.md");
    let files = ["defaults/main.yml", "vars/main.yml", "meta/argument_specs.yml"].map(|file| role.join(file));
    for file in files.iter().chain([&page]) {
        let text = fs::read_to_string(file).unwrap();
        let words: BTreeSet<_> = text.split(|it: char| it != '_' && !it.is_ascii_alphanumeric()).collect();
        for name in SINGLE.into_iter().chain([STORE]).chain(REPEATED) {
            let variable = format!("runner_agent_{name}");
            assert!(words.contains(variable.as_str()), "{}: no {variable}", file.display());
        }
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
        for row in page_of(name).table_below(&heading(name)) {
            text.push_str(&format!("{} = {}\n", code(row[0]), code(row[1])));
        }
    }
    let (mut written, absent) = (loaded(&text).unwrap(), loaded("").unwrap());
    assert_eq!(written.engine, absent.engine);
    // Commands have another default, so the settings keep apart what is set.
    assert_eq!(written.gitlab.in_flight_per_host.take(), Some(absent.gitlab.in_flight()));
    assert_eq!(format!("{:?}", written.gitlab), format!("{:?}", absent.gitlab));
    assert_eq!(written.status_server, absent.status_server);

    let (documented, example): (toml::Table, toml::Table) = (text.parse().unwrap(), example().parse().unwrap());
    for name in SINGLE {
        assert_eq!(example[name], documented[name], "[{name}] of the complete agent.toml");
    }

    let store = "[sharing]\nengine = \"etcd\"\nendpoints = [\"https://etcd-1:2379\"]\n";
    let mut with_defaults = store.to_owned();
    for row in page_of(STORE).table_below(&heading(STORE)) {
        if row[1].starts_with('`') {
            with_defaults.push_str(&format!("{} = {}\n", code(row[0]), code(row[1])));
        }
    }
    assert!(with_defaults.len() > store.len());
    assert_eq!(loaded(&with_defaults).unwrap().engine, loaded(store).unwrap().engine);
}

/// Asserts that an agent.toml in a page is accepted.
pub(crate) fn assert_is_accepted(place: &str, text: &str) {
    let warnings = loaded(text).unwrap_or_else(|errors| panic!("{place}: {errors}")).warnings;
    assert!(warnings.is_empty(), "{place}: {warnings:?}");
}

/// Asserts that an agent.toml is accepted and has every key that the pages list.
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

/// Loads an agent.toml from a directory that contains the files of the example.
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

/// The keys that the pages list for a table.
fn documented(name: &str) -> BTreeSet<String> {
    page_of(name).table_below(&heading(name)).iter().map(|row| code(row[0]).to_owned()).collect()
}

/// The page that has the keys of a table.
fn page_of(name: &str) -> &'static Page {
    page(if SINGLE.contains(&name) { "agent-toml" } else { "agent-toml-runners" })
}

/// The agent.toml with every key.
fn example() -> String {
    page("agent-toml").marked(EXAMPLE)
}

fn heading(name: &str) -> String {
    if REPEATED.contains(&name) { format!("`[[{name}]]`") } else { format!("`[{name}]`") }
}

fn keys_of(table: &toml::Table) -> BTreeSet<String> {
    table.keys().cloned().collect()
}
