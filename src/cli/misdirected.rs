//! Command lines that mean another one: `help COMMAND`, and what the service manager does.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Error;

/// The commands that have commands of their own.
const GROUPS: [&str; 4] = ["access-token", "fleet", "hook", "shared"];

/// The global options, which take a value in the next word.
const GLOBAL_OPTIONS: [&str; 9] =
    ["-c", "--config", "--agent-config", "--state-dir", "-o", "--output", "-l", "--log-level", "--log-format"];

/// Reads `help COMMAND` as `COMMAND --help`, also behind global options.
pub(super) fn with_help_flag(arguments: &[OsString]) -> Vec<OsString> {
    let is_help = |at: usize| arguments.get(at).is_some_and(|word| word == "help");
    let first = after_global_options(arguments, 1);
    let is_group = arguments.get(first).is_some_and(|word| GROUPS.iter().any(|group| word == group));
    let second = after_global_options(arguments, first + 1);
    let Some(at) = [first, second].into_iter().find(|at| is_help(*at) && (*at == first || is_group)) else {
        return arguments.to_vec();
    };
    let mut words = arguments.to_vec();
    words.remove(at);
    words.push("--help".into());
    words
}

/// The position of the first word from here on that neither is a global option nor belongs to one.
fn after_global_options(arguments: &[OsString], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = arguments.get(at).and_then(|word| word.to_str()) {
        let is_attached = |option: &str| match word.strip_prefix(option) {
            Some(rest) => rest.starts_with('=') || !option.starts_with("--"),
            None => false,
        };
        at += match word {
            _ if GLOBAL_OPTIONS.contains(&word) => 2,
            _ if GLOBAL_OPTIONS.iter().any(|option| is_attached(option)) => 1,
            _ => break,
        };
    }
    at
}

/// The error for a command that gitlab-runner has and that another program does here; clap would suggest a command that
/// changes runners.
pub(super) fn explained(error: &clap::Error) -> Option<Error> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let remedy = match word.as_str() {
        "start" | "stop" | "restart" => {
            format!("the service manager does this: `systemctl {word} runner-agent`, or {word} the container")
        }
        "install" => "the package installs the service: `systemctl enable --now runner-agent` starts it".to_owned(),
        "uninstall" => {
            "`systemctl disable --now runner-agent` stops the service, and the package removes it".to_owned()
        }
        _ => return None,
    };
    Some(Error::Usage(format!("there is no command `{word}`: {remedy}")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::arguments::Arguments;

    #[test]
    fn every_global_option_with_a_value_is_known() {
        let command = Arguments::command();
        let options = command.get_arguments().filter(|argument| argument.is_global_set());
        let words = options.flat_map(|option| {
            let short = option.get_short().map(|short| format!("-{short}"));
            short.into_iter().chain(option.get_long().map(|long| format!("--{long}")))
        });
        assert_eq!(words.collect::<Vec<_>>(), GLOBAL_OPTIONS);
    }

    #[test]
    fn every_command_with_commands_of_its_own_is_known() {
        let command = Arguments::command();
        let groups = command.get_subcommands().filter(|command| command.has_subcommands());
        let mut names: Vec<_> = groups.map(clap::Command::get_name).collect();
        names.sort_unstable();
        assert_eq!(names, GROUPS);
    }

    #[test]
    fn help_is_read_as_a_flag_of_the_command_after_it() {
        for (line, expected) in [
            ("x help", "x --help"),
            ("x help register", "x register --help"),
            ("x help fleet list", "x fleet list --help"),
            ("x fleet help list", "x fleet list --help"),
            ("x -c a.toml help register", "x -c a.toml register --help"),
            (
                "x --config=a.toml -ojson fleet -l debug help list",
                "x --config=a.toml -ojson fleet -l debug list --help",
            ),
            ("x --config help register", "x --config help register"),
            ("x verify help", "x verify help"),
            ("x verify --name help", "x verify --name help"),
        ] {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            let expected: Vec<_> = expected.split(' ').map(OsString::from).collect();
            assert_eq!(with_help_flag(&words), expected, "{line}");
        }
    }
}
