//! The grammar of `hook`.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use crate::model::HookKind;

/// Tries the hooks of agent.toml: what is done after an event, such as a rotation.
#[derive(Args, Debug)]
pub struct HookArguments {
    /// The command.
    #[command(subcommand)]
    pub command: HookCommand,
}

/// A command of `hook`.
#[derive(Debug, Subcommand)]
pub enum HookCommand {
    /// Run a hook once, now
    ///
    /// The hook gets an event whose id begins with `test-`, with what is known of the runner, and its present token if it
    /// asks for it. A failure is not tried again. Nothing of it is remembered, and no daemon is needed.
    Test(TestArguments),
}

/// Which hook to run, and what for.
#[derive(Args, Debug)]
pub struct TestArguments {
    /// The hook's name in agent.toml
    pub name: String,
    /// Name of the runner. Default: the first of the hook's `runner`, else the only runner
    #[arg(long)]
    pub runner: Option<String>,
    /// Kind of the event. Default: the first that the hook is for
    #[arg(long, value_parser = PossibleValuesParser::new(kinds()))]
    pub event: Option<String>,
}

fn kinds() -> Vec<&'static str> {
    HookKind::ALL.iter().map(|kind| kind.as_str()).collect()
}
