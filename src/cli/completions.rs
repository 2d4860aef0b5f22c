//! `completions`: prints a shell completion script.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Exit;
use super::arguments::{Arguments, CompletionShell, CompletionsArguments};
use super::report::Reporter;

/// Prints the script.
pub(super) fn completions(reporter: &Reporter, arguments: &CompletionsArguments) -> Exit {
    let shell = match arguments.shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    reporter.answer(&String::from_utf8_lossy(&script));
    Exit::Done
}
