//! The help texts of commands: their own options first, the global ones in one line.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Args, Command, CommandFactory as _, FromArgMatches as _, Parser as _};

use super::arguments::{
    AccessTokenArguments, Arguments, CheckArguments, CompletionsArguments, DoctorArguments, FleetArguments,
    HealthArguments, HookArguments, InitArguments, ListArguments, OpenArguments, PlanArguments, RegisterArguments,
    ReloadArguments, RelocateArguments, RotateArguments, RunArguments, SharedArguments, StatusArguments,
    UnregisterArguments, VerifyArguments,
};

/// Parses a command line.
///
/// # Errors
/// A usage error, or the text of `--help` or `--version`.
pub(super) fn parse(arguments: &[OsString]) -> Result<Arguments, clap::Error> {
    // The grammar with these texts takes a millisecond to make. Only help and errors need it.
    if let Ok(parsed) = Arguments::try_parse_from(arguments) {
        return Ok(parsed);
    }
    let mut matches = grammar().try_get_matches_from(arguments)?;
    Arguments::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut grammar()))
}

/// The grammar in which a command has the global options, but its help only names them.
pub(super) fn grammar() -> Command {
    let command = Arguments::command();
    let globals: Vec<Arg> = command.get_arguments().filter(|argument| argument.is_global_set()).cloned().collect();
    let names: Vec<_> = globals.iter().filter_map(Arg::get_long).map(|name| format!("--{name}")).collect();
    let line = format!("Global options: {}; see `runner-agent --help`", names.join(", "));
    // A copy in the command counts instead of the one that clap would give it.
    let hidden = globals.into_iter().map(|argument| argument.hide(true)).collect::<Vec<_>>();
    command.mut_subcommands(|command| {
        let command = match description(command.get_name()) {
            Some(description) => command.long_about(description),
            None => command,
        };
        with_own_options(command.args(&hidden), &line)
    })
}

/// The description of a command. The type of its arguments has it; the list of commands has a shorter one.
fn description(name: &str) -> Option<StyledStr> {
    fn of<T: Args>() -> Option<StyledStr> {
        let command = T::augment_args(Command::new("command"));
        command.get_long_about().or_else(|| command.get_about()).cloned()
    }
    match name {
        "run" => of::<RunArguments>(),
        "register" => of::<RegisterArguments>(),
        "verify" => of::<VerifyArguments>(),
        "rotate" => of::<RotateArguments>(),
        "unregister" => of::<UnregisterArguments>(),
        "list" => of::<ListArguments>(),
        "plan" => of::<PlanArguments>(),
        "check" => of::<CheckArguments>(),
        "doctor" => of::<DoctorArguments>(),
        "init" => of::<InitArguments>(),
        "reload" => of::<ReloadArguments>(),
        "open" => of::<OpenArguments>(),
        "relocate" => of::<RelocateArguments>(),
        "status" => of::<StatusArguments>(),
        "health" => of::<HealthArguments>(),
        "fleet" => of::<FleetArguments>(),
        "access-token" => of::<AccessTokenArguments>(),
        "hook" => of::<HookArguments>(),
        "shared" => of::<SharedArguments>(),
        "completions" => of::<CompletionsArguments>(),
        _ => None,
    }
}

/// The command and its own commands, with this line instead of `--help`, `--version` and the global options.
fn with_own_options(command: Command, line: &str) -> Command {
    let flag = |name, short, action| Arg::new(name).short(short).long(name).action(action).hide(true);
    let command = command
        .disable_help_flag(true)
        .disable_version_flag(true)
        .arg(flag("help", 'h', ArgAction::Help))
        .arg(flag("version", 'V', ArgAction::Version));
    let text = match command.get_after_help() {
        Some(text) => format!("{text}\n\n{line}"),
        None => line.to_owned(),
    };
    command.after_help(text).mut_subcommands(|command| with_own_options(command, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_valid() {
        grammar().debug_assert();
    }

    #[test]
    fn the_help_of_a_command_begins_with_its_description() {
        let grammar = grammar();
        let text = |name| grammar.find_subcommand(name).unwrap().get_long_about().unwrap().to_string();
        assert!(text("unregister").contains("deletes only this machine's runner manager"), "{}", text("unregister"));
        assert!(text("run").contains("serves every [[runners]] entry"), "{}", text("run"));
    }

    #[test]
    fn global_options_count_before_and_after_the_command() {
        for words in [
            ["runner-agent", "--config", "a.toml", "fleet", "list"],
            ["runner-agent", "fleet", "--config", "a.toml", "list"],
            ["runner-agent", "fleet", "list", "--config", "a.toml"],
        ] {
            let arguments = parse(&words.map(OsString::from)).unwrap();
            assert_eq!(arguments.global.config.as_deref(), Some("a.toml".as_ref()), "{words:?}");
        }
    }

    #[test]
    fn every_command_takes_help_and_version() {
        for flag in ["-h", "--help", "-V", "--version"] {
            for command in [&["verify"][..], &["fleet"], &["fleet", "list"]] {
                let words = ["runner-agent"].iter().chain(command).chain([&flag]).map(OsString::from);
                let error = parse(&words.collect::<Vec<_>>()).unwrap_err();
                assert!(!error.use_stderr(), "{command:?} {flag}: {error}");
            }
        }
    }
}
