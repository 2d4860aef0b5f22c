//! The grammar of `access-token`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::arguments::TlsArguments;
use crate::cli::fleet::arguments::GivenServer;
use crate::gitlab::fleet::OwnerName;
use crate::model::parse_span;

/// Shows and rotates access tokens: those of the [[server]] tables in agent.toml, or one in a file.
///
/// The daemon does this by itself for a [[server]] whose `access_token` has `rotate = true`. These commands are for
/// everything else: to see what GitLab says about a token, to rotate it now, and to let a script or timer keep a token
/// that the settings do not name. GitLab revokes the new token if the old one is rotated again, so no rotation is ever
/// sent twice with one token, also after its answer was lost.
#[derive(Args, Debug)]
pub struct AccessTokenArguments {
    /// The command.
    #[command(subcommand)]
    pub command: AccessTokenCommand,
}

/// A command of `access-token`.
#[derive(Debug, Subcommand)]
pub enum AccessTokenCommand {
    /// Show what GitLab says about access tokens
    ///
    /// Asks each server about its token and rotates nothing. What a crash interrupted is finished first, and a rotation
    /// whose answer was lost is settled if that is possible by now.
    Show(ShowArguments),
    /// Replace an access token with a new one
    ///
    /// The old token stops working at once. The new one is stored in the state directory first, then in the token's
    /// file. A running daemon takes it up by itself. The file and the state directory are tested before the request.
    ///
    /// If the answer is lost, the command exits with 5 and nothing is sent again: the next `show` or `rotate` asks GitLab
    /// whether the old token still works. After ten minutes this proves that no rotation took place. If GitLab refuses it
    /// twice, the new token is lost, and a person has to make another one.
    Rotate(RotateArguments),
}

/// Which access tokens to show.
#[derive(Args, Debug)]
pub struct ShowArguments {
    /// The token.
    #[command(flatten)]
    pub token: TokenArguments,
}

/// Which access token to rotate, and how.
#[derive(Args, Debug)]
pub struct RotateArguments {
    /// Rotate only if at most a third of the token's life is left; else do nothing, successfully
    #[arg(long)]
    pub if_due: bool,
    /// Also write the token into FILE, for another program that needs a copy of it
    ///
    /// A new file gets mode 0600; one that exists keeps its mode and owner, and must hold an access token or nothing. It
    /// is tested before the rotation and replaced after it. If that fails nevertheless, the rotation stays done, the
    /// token's own file has the new token, and the exit code is 4.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Life of the new token in whole days, such as 90d [default: `life` in agent.toml, else that of the old token]
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub life: Option<Duration>,
    /// Group that the token belongs to, by id or path [default: `group` in agent.toml]
    #[arg(long, value_name = "GROUP", conflicts_with = "project")]
    pub group: Option<OwnerName>,
    /// Project that the token belongs to, by id or path [default: `project` in agent.toml]
    #[arg(long, value_name = "PROJECT")]
    pub project: Option<OwnerName>,
    /// The token.
    #[command(flatten)]
    pub token: TokenArguments,
}

/// The token, and how long its server is waited for.
#[derive(Args, Debug)]
pub struct TokenArguments {
    /// Server of the token [default: the [[server]] tables in agent.toml; `rotate` needs it if there are several]
    #[arg(value_name = "SERVER-URL")]
    pub server: Option<GivenServer>,
    /// Server of the token, as the argument without a flag
    #[arg(short, long, value_name = "URL", conflicts_with = "server")]
    pub url: Option<GivenServer>,
    /// File of a token that agent.toml need not name; `show` also reads stdin (`-`) and an inherited file descriptor
    /// (fd:N) [default: the source in the [[server]] of agent.toml]
    #[arg(long, value_name = "FILE")]
    pub access_token_file: Option<PathBuf>,
    /// Maximum time to retry while the server is unreachable or busy, and to find out what became of a rotation whose
    /// answer was lost, such as 15m
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub wait: Option<Duration>,
    /// TLS files of a token that agent.toml does not name.
    #[command(flatten, next_help_heading = "Server of the access token")]
    pub tls: TlsArguments,
}
