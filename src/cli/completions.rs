//! `completions`: prints a shell completion script.

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;

use super::Exit;
use super::arguments::{Arguments, CompletionShell, CompletionsArguments};
use super::report::Reporter;
use crate::settings::EXECUTORS;

/// A value that stands for the names of runners until the script is written.
const NAMES: &str = "RUNNER_NAMES";

/// The group of arguments that select entries of config.toml.
const SELECTION: &str = "Selection";

/// Prints the script.
pub(super) fn completions(reporter: &Reporter, arguments: &CompletionsArguments) -> Exit {
    reporter.answer(&script(arguments.shell));
    Exit::Done
}

/// The script. The values that are known when it is used come from `runner-agent names`.
fn script(shell: CompletionShell) -> String {
    let mut command = completed(&Arguments::command());
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    let generator = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    clap_complete::generate(generator, &mut command, name, &mut script);
    with_names(shell, &String::from_utf8_lossy(&script))
}

/// The grammar as completions need it: without hidden commands, and with the values of names and executors.
fn completed(command: &Command) -> Command {
    let selects = command.get_groups().any(|group| group.get_id() == SELECTION);
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set()).map(|argument| {
        let values: &[&str] = match argument.get_id().as_str() {
            "executor" => &EXECUTORS,
            "name" | "positional" if selects => &[NAMES],
            _ => return argument.clone(),
        };
        argument.clone().value_parser(PossibleValuesParser::new(values))
    });
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set()).map(completed);
    let mut completed = Command::new(kept(command.get_name()))
        .disable_help_subcommand(true)
        .args(arguments.collect::<Vec<Arg>>())
        .subcommands(commands.collect::<Vec<_>>())
        .visible_aliases(command.get_visible_aliases().map(kept).collect::<Vec<_>>());
    if let Some(about) = command.get_about() {
        completed = completed.about(about.clone());
    }
    if command.is_propagate_version_set() {
        completed = completed.version(env!("CARGO_PKG_VERSION")).propagate_version(true);
    }
    completed
}

/// A name for the rest of the process: clap takes no other ones.
fn kept(name: &str) -> &'static str {
    name.to_owned().leak()
}

/// The script with a call of the shell's function in place of [`NAMES`].
fn with_names(shell: CompletionShell, script: &str) -> String {
    match shell {
        CompletionShell::Bash => {
            let values = format!(r#"COMPREPLY=($(compgen -W "{NAMES}" -- "${{cur}}"))"#);
            let script = with_names_as_words(&script.replace(&values, r#"_runner_agent_names "${cur}""#));
            // clap_complete writes the name of a program with a hyphen in two ways, and no command would be found.
            let script = script.replace("runner__subcmd__agent", "runner__agent");
            format!("{}\n{script}", include_str!("completions/names.bash"))
        }
        CompletionShell::Zsh => {
            let script = script.replace(&format!(":({NAMES})"), ":_runner_agent_names");
            // The first line has to stay the first one.
            let (first, rest) = script.split_once('\n').unwrap_or((&script, ""));
            format!("{first}\n\n{}{rest}", include_str!("completions/names.zsh"))
        }
        CompletionShell::Fish => {
            let script = script.replace(&format!(r#"-a "{NAMES}\t''""#), r#"-a "(__runner_agent_names)""#);
            // clap_complete leaves words without an option out.
            let words = script.lines().filter_map(|line| {
                let (condition, _) = line.split_once(" -s n -l name ").filter(|_| line.contains("_names)"))?;
                Some(format!("{condition} -f -a \"(__runner_agent_names)\"\n"))
            });
            let words: String = words.collect();
            format!("{}\n{script}{words}", include_str!("completions/names.fish"))
        }
    }
}

/// The script for bash, in which a word of a command that selects runners is a name unless it begins with a hyphen. As
/// clap_complete writes it, it would be the text of [`NAMES`].
fn with_names_as_words(script: &str) -> String {
    let mut takes_names = false;
    let line = |line: &str| {
        if line.trim_start().starts_with("opts=") {
            takes_names = line.contains(NAMES);
        }
        let line = line.replace(&format!(" {NAMES}"), "");
        let words = r#"COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )"#;
        let line = if takes_names { line.replace(words, r#"_runner_agent_words "${opts}" "${cur}""#) } else { line };
        line + "\n"
    };
    script.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use clap::ValueHint;

    use super::*;

    const SHELLS: [CompletionShell; 3] = [CompletionShell::Bash, CompletionShell::Zsh, CompletionShell::Fish];

    #[test]
    fn every_selection_by_name_calls_the_function_of_the_shell() {
        for shell in SHELLS {
            let script = script(shell);
            assert!(!script.contains(NAMES), "{shell:?}");
            let calls = script.lines().filter(|line| !line.starts_with(' ') || line.trim().starts_with("_runner"));
            let calls = calls.filter(|line| line.contains("_names") && !line.contains("()"));
            // verify, rotate with its alias, and unregister.
            assert!(calls.count() >= 4, "{shell:?}");
        }
    }

    #[test]
    fn no_script_offers_a_hidden_command() {
        for shell in SHELLS {
            let script = script(shell);
            assert!(!script.contains("manual:") && !script.contains("-a \"manual\""), "{shell:?}");
            assert!(!script.contains("completions manual") && !script.contains("subcmd__names"), "{shell:?}");
        }
    }

    #[test]
    fn every_file_is_completed_as_a_path() {
        fn check(command: &Command) {
            for argument in command.get_arguments() {
                let is_file = argument.get_value_names().unwrap_or_default().iter().any(|name| name == "FILE");
                assert!(
                    !is_file || argument.get_value_hint() == ValueHint::AnyPath,
                    "{}: {argument}",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Arguments::command());
    }
}
