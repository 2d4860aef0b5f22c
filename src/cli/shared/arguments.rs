//! The grammar of `shared`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::arguments::TlsArguments;
use crate::model::{ShareName, SystemId};

/// Shows and repairs the runners that machines share over the store in [sharing] of agent.toml.
///
/// The daemons of these machines need none of this while they run: they register, rotate and repair a shared runner
/// by themselves. `list` and `show` only read.
#[derive(Args, Debug)]
pub struct SharedArguments {
    /// The command.
    #[command(subcommand)]
    pub command: SharedCommand,
}

/// A command of `shared`.
#[derive(Debug, Subcommand)]
pub enum SharedCommand {
    /// List the shared runners that agent.toml names
    List,
    /// Show everything that the store knows of a shared runner, but its token
    ///
    /// That is its generations, its members, a change under way, and how the token of this machine compares with the
    /// one in the store.
    Show(ShowSharedArguments),
    /// Give a shared runner a token that works
    ///
    /// Run it on a machine that shares the runner. GitLab is asked about every token that this machine and the store
    /// know. One that it accepts is written into the store, and nothing is replaced. If it refuses all of them twice, a
    /// minute apart, the token is reset by the runner's id. That needs an access token, from --access-token-file or the
    /// [[server]] in agent.toml.
    Heal(HealArguments),
    /// Remove a shared runner or one of its members from the store
    ///
    /// Shows what is there and asks first. The runner stays in GitLab, and its machines keep its token: each of them
    /// that still names it in `share_as` writes it into the store again. This also removes a value that is damaged,
    /// sealed with another key, or of another program.
    Forget(ForgetArguments),
}

/// Which runner to show.
#[derive(Args, Debug)]
pub struct ShowSharedArguments {
    /// Name of the shared runner, as in `share_as`
    #[arg(value_name = "NAME")]
    pub name: ShareName,
}

/// Which runner to heal, and by which access token.
#[derive(Args, Debug)]
pub struct HealArguments {
    /// Name of the shared runner, as in `share_as`
    #[arg(value_name = "NAME")]
    pub name: ShareName,
    /// Read the access token from a file, from stdin (`-`) or from an inherited file descriptor (fd:N) [default: that
    /// of the [[server]] in agent.toml]
    #[arg(long, value_name = "FILE")]
    pub access_token_file: Option<PathBuf>,
    /// TLS files for the access token.
    #[command(flatten, next_help_heading = "Server of the access token")]
    pub tls: TlsArguments,
}

/// What to remove.
#[derive(Args, Debug)]
pub struct ForgetArguments {
    /// Name of the shared runner, as in `share_as`
    #[arg(value_name = "NAME")]
    pub name: ShareName,
    /// Remove only this machine from the members, by its system_id: one that is gone and did not leave
    #[arg(long, value_name = "MACHINE")]
    pub member: Option<SystemId>,
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,
}
