//! `manual`: writes the man pages of the program, of each command, and of agent.toml.

mod examples;
mod roff;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use clap::{Arg, Command};
use clap_mangen::Man;

use super::arguments::{EXIT_CODES, ManualArguments};
use super::help::grammar;
use super::{Error, Exit};

/// Describes the format and the tables of agent.toml.
const AGENT_TOML: &str = include_str!("../../packaging/docs/agent-toml.md");

/// Describes the tables of agent.toml that name runners and servers.
const AGENT_TOML_RUNNERS: &str = include_str!("../../packaging/docs/agent-toml-runners.md");

/// Describes all variables.
const ENVIRONMENT: &str = include_str!("../../packaging/docs/environment.md");

const FILES: &str = "\
# Files

| file | content |
|---|---|
| `/etc/gitlab-runner/config.toml` | the entries of runners, shared with gitlab-runner; for other users than root `~/.gitlab-runner/config.toml` |
| `/etc/runner-agent/agent.toml` | the settings: see **runner-agent.toml**(5); for other users `~/.config/runner-agent/agent.toml` |
| `/var/lib/runner-agent` | the state; for other users `~/.local/state/runner-agent` |
| `/run/runner-agent/agent.sock` | the daemon's socket; for other users in `$XDG_RUNTIME_DIR/runner-agent` |
| `/usr/share/doc/runner-agent` | guides, reference, and examples of units and settings |
";

/// Writes the pages into an existing directory.
pub(super) fn manual(arguments: &ManualArguments) -> Result<Exit, Error> {
    let directory = &arguments.directory;
    write_pages(directory).map_err(|error| Error::Verdict {
        exit: Exit::LocalFile,
        message: format!("cannot write the manual into `{}`: {error}", directory.display()),
        hint: None,
    })?;
    Ok(Exit::Done)
}

fn write_pages(directory: &Path) -> io::Result<()> {
    let mut root = grammar();
    root.build();
    write_page(directory, &root, None)?;
    for command in commands(&root) {
        write_page(directory, command, Some(&root))?;
        for below in commands(command) {
            write_page(directory, below, Some(command))?;
        }
    }
    write(&directory.join("runner-agent.toml.5"), &agent_toml_page())
}

/// The commands of a command that help texts show.
fn commands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

fn write_page(directory: &Path, command: &Command, parent: Option<&Command>) -> io::Result<()> {
    let man = Man::new(command.clone());
    let mut page = title(page_name(command), 1).into_bytes();
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if commands(command).next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    // An empty line is a break, too.
    let mut page = String::from_utf8_lossy(&page).replace("\n.br\n\n.br\n", "\n.sp\n").replace("\n\n.br\n", "\n.sp\n");
    page.push_str(&roff::from_markdown(&sections(command, parent)));
    write(&directory.join(man.get_filename()), &page)
}

#[expect(clippy::disallowed_methods, reason = "a build writes the pages into a directory of its own")]
fn write(path: &Path, page: &str) -> io::Result<()> {
    fs::write(path, page)
}

/// The first line of a page. It has no date, so that one version makes the same pages at any time.
fn title(name: &str, section: u8) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(".TH \"{name}\" {section} \"\" \"runner-agent {version}\" \"runner-agent\"\n").replace('-', "\\-")
}

/// The sections that are not made from the grammar, as Markdown.
fn sections(command: &Command, parent: Option<&Command>) -> String {
    let mut text = String::new();
    if parent.is_some() {
        text.push_str("# Global options\n\n**runner-agent**(1) describes the options of every command.\n\n");
    }
    text.push_str("# Examples\n\n");
    for (purpose, line) in examples::of(page_name(command)) {
        text.push_str(&format!("{purpose}:\n\n```sh\n{line}\n```\n\n"));
    }
    text.push_str(FILES);
    text.push_str(&environment(command, parent));
    text.push_str(&exit_status());
    text.push_str(&see_also(command, parent));
    text
}

/// The name of a command's page, such as `runner-agent-fleet-list`.
fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// The variables that the help of the command's options names; all of them for the program.
fn environment(command: &Command, parent: Option<&Command>) -> String {
    if parent.is_none() {
        return format!("\n{}\n", ENVIRONMENT.replace("# Environment variables", "# Environment"));
    }
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        for variable in variables_of(argument) {
            variables.insert(variable, argument.get_long().unwrap_or_default().to_owned());
        }
    }
    let mut text = "\n# Environment\n\n".to_owned();
    if !variables.is_empty() {
        text.push_str("| variable | stands for |\n|---|---|\n");
        text.extend(variables.iter().map(|(variable, option)| format!("| `{variable}` | `--{option}` |\n")));
        text.push('\n');
    }
    text + "**runner-agent**(1) lists all variables, such as those of the proxies and of `run`.\n"
}

/// The variables in the `[env: …]` of an option's help.
fn variables_of(argument: &Arg) -> Vec<String> {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let Some((_, rest)) = help.split_once("[env: ") else { return Vec::new() };
    let names = rest.split(']').next().unwrap_or_default();
    let is_variable =
        |word: &&str| word.len() > 2 && word.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
    names
        .split(|character: char| !matches!(character, 'A'..='Z' | '0'..='9' | '_'))
        .filter(is_variable)
        .map(str::to_owned)
        .collect()
}

fn exit_status() -> String {
    let rows = EXIT_CODES.lines().filter_map(|line| line.trim().split_once("  "));
    let rows: String = rows.map(|(code, meaning)| format!("| {code} | {meaning} |\n")).collect();
    format!("\n# Exit status\n\n| code | meaning |\n|---|---|\n{rows}")
}

fn see_also(command: &Command, parent: Option<&Command>) -> String {
    let near: Vec<&Command> = match parent {
        None => commands(command).collect(),
        Some(parent) if parent.get_name() == "runner-agent" => [parent].into_iter().chain(commands(command)).collect(),
        Some(group) => {
            [group].into_iter().chain(commands(group).filter(|it| it.get_name() != command.get_name())).collect()
        }
    };
    let pages = near.into_iter().map(|command| format!("**{}**(1)", page_name(command)));
    let pages: Vec<_> = pages.chain(["**runner-agent.toml**(5)".to_owned()]).collect();
    format!("\n# See also\n\n{}\n", pages.join(", "))
}

/// runner-agent.toml(5), made from the pages about agent.toml.
fn agent_toml_page() -> String {
    let name = "# Name\n\nrunner-agent.toml - settings of runner-agent, in the file agent.toml\n\n";
    let settings = AGENT_TOML.replacen("# agent.toml", "# Description", 1);
    let runners = AGENT_TOML_RUNNERS.replacen("# agent.toml: runners and servers", "# Runners, servers and store", 1);
    let files = "\n# Files\n\n| file | content |\n|---|---|\n\
        | `/etc/runner-agent/agent.toml` | the file of root |\n\
        | `~/.config/runner-agent/agent.toml` | the file of other users |\n\
        | `/usr/share/doc/runner-agent/examples/agent.toml` | every key, with comments |\n\n";
    let see_also = "# See also\n\n**runner-agent**(1), **runner-agent-run**(1), **runner-agent-plan**(1)\n";
    title("runner-agent.toml", 5) + &roff::from_markdown(&[name, &settings, "\n", &runners, files, see_also].concat())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::arguments::Arguments;

    #[test]
    fn every_page_has_examples_that_the_grammar_accepts() {
        let mut root = grammar();
        root.build();
        let all = commands(&root).flat_map(|command| commands(command).chain([command]));
        for command in all.chain([&root]) {
            let examples = examples::of(page_name(command));
            assert!(!examples.is_empty(), "{}", page_name(command));
            for (_, line) in examples {
                let line = line.split('>').next().unwrap().replace('\'', "");
                let start =
                    if command.get_name() == "runner-agent" { "runner-agent" } else { command.get_bin_name().unwrap() };
                assert!(line.starts_with(start), "{line}");
                let parsed = Arguments::command().try_get_matches_from(line.split_whitespace());
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn no_example_is_of_a_command_that_does_not_exist() {
        let mut root = grammar();
        root.build();
        let mut names: Vec<_> = vec![page_name(&root)];
        for command in commands(&root) {
            names.push(page_name(command));
            names.extend(commands(command).map(page_name));
        }
        for name in examples::pages() {
            assert!(names.contains(&name), "{name}");
        }
    }

    #[test]
    fn the_variables_of_a_command_are_those_in_its_help() {
        let mut root = grammar();
        root.build();
        let register = root.find_subcommand("register").unwrap();
        let text = environment(register, Some(&root));
        assert!(text.contains("| `CI_SERVER_URL` | `--url` |"), "{text}");
        assert!(text.contains("| `REGISTRATION_TOKEN_FILE` | `--registration-token-file` |"), "{text}");
        assert!(!text.contains("| `CONFIG_FILE`"), "{text}");
    }

    #[test]
    fn the_page_of_agent_toml_has_every_table_and_key() {
        let page = agent_toml_page();
        for line in AGENT_TOML.lines().chain(AGENT_TOML_RUNNERS.lines()) {
            if let Some(key) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next()) {
                assert!(page.contains(&format!(".TP\n\\fB{}\\fR\n", key.replace('-', "\\-"))), "{key}");
            }
            if let Some(table) = line.strip_prefix("## `") {
                assert!(page.contains(&format!(".SS \"\\fB{}\\fR\"", table.trim_end_matches('`'))), "{table}");
            }
        }
    }
}
