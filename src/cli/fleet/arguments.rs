//! The grammar of `fleet`.

mod shared;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

pub use shared::{
    AttributeArguments, ConfirmArgs, FilterArguments, NewTokenArguments, PlaceArguments, TargetArguments,
};

use crate::cli::arguments::{EntryArguments, TlsArguments, one_of};
use crate::gitlab::fleet::{JobStatus, OwnerName, Sort};
use crate::model::{RunnerId, ServerUrl, SystemId, Timestamp, parse_span};
use crate::secret::Token;
use crate::settings::parse_boolean;

/// Manages the runners of a GitLab instance, on this machine or not, with an access token.
///
/// The access token is taken from the first of: --access-token-file; a systemd credential; GITLAB_TOKEN or
/// PRIVATE_TOKEN (or GITLAB_TOKEN_FILE or PRIVATE_TOKEN_FILE, which name a file); the [[server]] in agent.toml
/// with this URL.
///
/// Changes to several runners and all deletions are shown first and need confirmation, or --yes.
#[derive(Args, Debug)]
pub struct FleetArguments {
    /// Server and access token.
    #[command(flatten)]
    pub access: AccessArguments,
    /// The command.
    #[command(subcommand)]
    pub command: FleetCommand,
}

impl FleetArguments {
    /// The secrets on the command line.
    pub(in crate::cli) fn secrets(&self) -> Vec<Token> {
        let FleetCommand::Create(create) = &self.command else { return Vec::new() };
        create.entry.keys.secrets().collect()
    }
}

/// A server URL as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenServer {
    /// The server.
    pub url: ServerUrl,
    /// Whether the address of its API was given, which is no part of it.
    pub is_of_api: bool,
}

impl FromStr for GivenServer {
    type Err = <ServerUrl as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self { url: text.parse()?, is_of_api: ServerUrl::is_of_api(text) })
    }
}

/// The server and the access token.
#[derive(Args, Debug)]
#[command(next_help_heading = "Server and access token")]
pub struct AccessArguments {
    /// Server URL [env: CI_SERVER_URL] [default: the only [[server]] in agent.toml]
    #[arg(short, long, global = true, value_name = "URL")]
    pub url: Option<GivenServer>,
    /// Read the access token from a file, from stdin (`-`) or from an inherited file descriptor (fd:N) [env:
    /// GITLAB_TOKEN_FILE, PRIVATE_TOKEN_FILE; GITLAB_TOKEN and PRIVATE_TOKEN hold the token itself]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "access_token_credential")]
    pub access_token_file: Option<PathBuf>,
    /// Read the access token from a systemd credential (LoadCredential=NAME:PATH)
    #[arg(long, global = true, value_name = "NAME")]
    pub access_token_credential: Option<String>,
    /// TLS files.
    #[command(flatten)]
    pub tls: TlsArguments,
    /// Maximum time to retry each request to a server that is unreachable or busy, such as 5m; a change is retried
    /// only if the server certainly did not make it
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_span)]
    pub wait: Option<Duration>,
}

/// A command of `fleet`.
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// List runners
    List(ListArguments),
    /// Show the details of runners
    Show(ShowArguments),
    /// Change the settings of runners
    Update(UpdateArguments),
    /// Pause runners, so that they accept no new jobs
    Pause(ChangeArguments),
    /// Resume paused runners
    Resume(ChangeArguments),
    /// List the jobs of a runner, newest first
    Jobs(JobsArguments),
    /// List the machines that use a runner's token
    Managers(OneArguments),
    /// List the projects that a runner is assigned to
    Projects(OneArguments),
    /// Assign project runners to another project
    Assign(AssignArguments),
    /// Unassign project runners from a project
    Unassign(UnassignArguments),
    /// Delete runners with all their managers
    Delete(DeleteArguments),
    /// Create a runner
    Create(Box<CreateArguments>),
    /// Delete runners that have not contacted GitLab for a long time
    Prune(PruneArguments),
    /// Reset a runner's token by id, even an expired one
    ResetToken(ResetTokenArguments),
    /// Reset a registration token
    ResetRegistrationToken(ResetRegistrationTokenArguments),
}

/// Lists runners.
///
/// Prints rows as they arrive. Without --limit, reads all pages.
#[derive(Args, Debug)]
pub struct ListArguments {
    /// Scope.
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Filters.
    #[command(flatten)]
    pub filters: FilterArguments,
    /// Maximum number of results
    #[arg(long, help_heading = "Output", value_name = "NUMBER")]
    pub limit: Option<usize>,
    /// Include tags, last contact and other details: one more request per runner
    #[arg(long, help_heading = "Output")]
    pub details: bool,
}

/// Changes runners.
#[derive(Args, Debug)]
pub struct ChangeArguments {
    /// Runners.
    #[command(flatten)]
    pub targets: TargetArguments,
    /// Confirmation.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Shows the details of runners.
#[derive(Args, Debug)]
pub struct ShowArguments {
    /// Runner ids
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<RunnerId>,
    /// Omit the projects (GitLab 18.6)
    #[arg(long)]
    pub no_projects: bool,
}

/// One runner.
#[derive(Args, Debug)]
pub struct OneArguments {
    /// Runner id
    #[arg(value_name = "ID")]
    pub id: RunnerId,
}

/// Changes the settings of runners; settings without a flag stay the same.
#[derive(Args, Debug)]
pub struct UpdateArguments {
    /// Runners.
    #[command(flatten)]
    pub targets: TargetArguments,
    /// Changed settings.
    #[command(flatten)]
    pub changes: AttributeArguments,
    /// Confirmation.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Lists the jobs of a runner.
#[derive(Args, Debug)]
pub struct JobsArguments {
    /// Runner id
    #[arg(value_name = "ID")]
    pub id: RunnerId,
    /// Filter by status
    #[arg(long, value_name = "STATUS", value_parser = one_of::<JobStatus>(JobStatus::KNOWN))]
    pub status: Option<JobStatus>,
    /// Filter by the machine that ran them (GitLab 16.8)
    #[arg(long, value_name = "SYSTEM_ID")]
    pub system_id: Option<SystemId>,
    /// Sort order: oldest or newest first
    #[arg(long, value_name = "ORDER", value_parser = one_of::<Sort>(Sort::KNOWN))]
    pub sort: Option<Sort>,
    /// Maximum number of results
    #[arg(long, value_name = "NUMBER", default_value_t = 20, conflicts_with = "all")]
    pub limit: usize,
    /// List all jobs
    #[arg(long)]
    pub all: bool,
}

/// Assigns project runners to another project.
#[derive(Args, Debug)]
pub struct AssignArguments {
    /// Runners.
    #[command(flatten)]
    pub targets: TargetArguments,
    /// Project id or path
    #[arg(long, value_name = "PROJECT")]
    pub to: OwnerName,
    /// Confirmation.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Unassigns project runners from a project that is not their owner.
#[derive(Args, Debug)]
pub struct UnassignArguments {
    /// Runners.
    #[command(flatten)]
    pub targets: TargetArguments,
    /// Project id or path
    #[arg(long, value_name = "PROJECT")]
    pub from: OwnerName,
    /// Confirmation.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Deletes runners with all their managers, including those of other machines.
///
/// For a runner that this machine serves, prefer `unregister`, which also removes its entry.
#[derive(Args, Debug)]
pub struct DeleteArguments {
    /// Runners.
    #[command(flatten)]
    pub targets: TargetArguments,
    /// Delete the runner with this token instead, read from a file, from stdin (`-`) or from an inherited file
    /// descriptor (fd:N); needs no access token
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ids", "all", "project", "group", "runner_type", "status", "paused", "tags", "version_prefix", "scope"])]
    pub runner_token_file: Option<PathBuf>,
    /// Confirmation.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Deletes runners that have not contacted GitLab for a long time, except those that this machine serves.
///
/// GitLab's lists contain no contact times, so each runner that is not online needs one more request. The age of a
/// runner that was never in contact counts from its creation, which GitLab reports since 18.1; a runner without
/// either time is kept.
#[derive(Args, Debug)]
pub struct PruneArguments {
    /// Minimum time since the last contact, such as 30d
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub stale: Duration,
    /// Scope.
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Filters.
    #[command(flatten)]
    pub filters: FilterArguments,
    /// Confirmation.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Creates a runner.
///
/// GitLab shows the token only once: store it in a file with --write-token, or in config.toml with --enroll, as
/// `register` does.
#[derive(Args, Debug)]
pub struct CreateArguments {
    /// Create a project runner, by project id or path
    #[arg(long, value_name = "PROJECT", help_heading = "Owner", conflicts_with = "group")]
    pub project: Option<OwnerName>,
    /// Create a group runner, by group id or path
    #[arg(long, value_name = "GROUP", help_heading = "Owner")]
    pub group: Option<OwnerName>,
    /// Create an instance runner; for administrators
    #[arg(long, help_heading = "Owner", conflicts_with_all = ["project", "group"], required_unless_present_any = ["project", "group"])]
    pub instance: bool,
    /// Write the token to a new file with mode 0600
    #[arg(
        long,
        help_heading = "New token",
        value_name = "FILE",
        required_unless_present = "enroll",
        conflicts_with = "enroll"
    )]
    pub write_token: Option<PathBuf>,
    /// Serve the runner on this machine: write its entry to config.toml. Safe to repeat: the same server, access
    /// token and name create one runner
    #[arg(long, help_heading = "New token")]
    pub enroll: bool,
    /// With --enroll: create a runner even if config.toml has this server and name, and replace the token in that entry
    #[arg(long, help_heading = "New token", requires = "enroll")]
    pub force: bool,
    /// Entry in config.toml, with --enroll.
    #[command(flatten)]
    pub entry: EntryArguments,
    /// Settings.
    #[command(flatten)]
    pub attributes: AttributeArguments,
    /// Create the runner as paused
    #[arg(long, help_heading = "Settings in GitLab", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub paused: Option<bool>,
    /// Expiry of the first token, such as 2027-01-15T08:00:00Z: 5 minutes to 15 days ahead (GitLab 18.10)
    #[arg(long, help_heading = "Settings in GitLab", value_name = "TIME")]
    pub token_expires_at: Option<Timestamp>,
    /// Time until which that token can be rotated; needs --token-expires-at (GitLab 18.10)
    #[arg(long, help_heading = "Settings in GitLab", value_name = "TIME", requires = "token_expires_at")]
    pub token_rotation_deadline: Option<Timestamp>,
}

/// Resets a runner's token by id; the old token stops working at once.
///
/// For a runner in config.toml use `rotate --id ID --pat-file FILE`, which also updates its entry.
#[derive(Args, Debug)]
pub struct ResetTokenArguments {
    /// Runner id
    #[arg(value_name = "ID")]
    pub id: RunnerId,
    /// New token.
    #[command(flatten)]
    pub token: NewTokenArguments,
}

/// Resets a registration token; the old token stops working at once.
#[derive(Args, Debug)]
pub struct ResetRegistrationTokenArguments {
    /// Reset the token of a project, by id or path
    #[arg(long, value_name = "PROJECT", help_heading = "Owner", conflicts_with = "group")]
    pub project: Option<OwnerName>,
    /// Reset the token of a group, by id or path
    #[arg(long, value_name = "GROUP", help_heading = "Owner")]
    pub group: Option<OwnerName>,
    /// Reset the token of the instance; for administrators
    #[arg(long, help_heading = "Owner", conflicts_with_all = ["project", "group"], required_unless_present_any = ["project", "group"])]
    pub instance: bool,
    /// New token.
    #[command(flatten)]
    pub token: NewTokenArguments,
}
