//! Command lines that mean another one: `help COMMAND`, and what the service manager does.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Error;

/// The commands that have commands of their own.
const GROUPS: [&str; 2] = ["fleet", "shared"];

/// Reads `help COMMAND` as `COMMAND --help`.
pub(super) fn with_help_flag(arguments: &[OsString]) -> Vec<OsString> {
    let is_help = |at: usize| arguments.get(at).is_some_and(|word| word == "help");
    let is_group = arguments.get(1).is_some_and(|word| GROUPS.iter().any(|group| word == group));
    let Some(at) = [1, 2].into_iter().find(|at| is_help(*at) && (*at == 1 || is_group)) else {
        return arguments.to_vec();
    };
    let mut words = arguments.to_vec();
    words.remove(at);
    words.push("--help".into());
    words
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
    use super::*;

    #[test]
    fn help_is_read_as_a_flag_of_the_command_after_it() {
        for (line, expected) in [
            ("x help", "x --help"),
            ("x help register", "x register --help"),
            ("x help fleet list", "x fleet list --help"),
            ("x fleet help list", "x fleet list --help"),
            ("x verify help", "x verify help"),
            ("x verify --name help", "x verify --name help"),
        ] {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            let expected: Vec<_> = expected.split(' ').map(OsString::from).collect();
            assert_eq!(with_help_flag(&words), expected, "{line}");
        }
    }
}
