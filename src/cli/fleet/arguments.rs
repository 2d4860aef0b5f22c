//! The grammar of `fleet`.

mod shared;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

pub use shared::{
    AttributeArguments, ConfirmArgs, FilterArguments, NewTokenArguments, PlaceArguments, TargetArguments,
};

use crate::cli::arguments::{EntryArguments, TlsArguments, one_of};
use crate::gitlab::fleet::{JobStatus, OwnerName, Sort};
use crate::model::{RunnerId, ServerUrl, SystemId, Timestamp, parse_span};
use crate::settings::parse_boolean;

/// Manages the runners of a GitLab with an access token, whether they are on this machine or not.
///
/// The access token comes from --access-token-file, from a systemd credential, from GITLAB_TOKEN or
/// PRIVATE_TOKEN (or their twins GITLAB_TOKEN_FILE and PRIVATE_TOKEN_FILE, which name a file), or from the
/// [[server]] of agent.toml with this address; the first of these counts.
///
/// Whatever changes several runners, and every deletion, is shown first and asked about, unless --yes says it
/// may be done.
#[derive(Args, Debug)]
pub struct FleetArguments {
    /// Where, and who asks.
    #[command(flatten)]
    pub access: AccessArguments,
    /// What is to be done.
    #[command(subcommand)]
    pub command: FleetCommand,
}

/// Where the runners are, and who asks.
#[derive(Args, Debug)]
#[command(next_help_heading = "Server and access token")]
pub struct AccessArguments {
    /// The server's address [env: CI_SERVER_URL] [default: that of the only [[server]] in agent.toml]
    #[arg(short, long, global = true, value_name = "URL")]
    pub url: Option<ServerUrl>,
    /// The access token in a file, on stdin with `-`, or at an inherited descriptor with fd:N [env: GITLAB_TOKEN_FILE,
    /// PRIVATE_TOKEN_FILE; GITLAB_TOKEN and PRIVATE_TOKEN hold the token itself]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "access_token_credential")]
    pub access_token_file: Option<PathBuf>,
    /// The access token in a systemd credential (LoadCredential=NAME:PATH)
    #[arg(long, global = true, value_name = "NAME")]
    pub access_token_credential: Option<String>,
    /// PEM certificates to trust besides the system's [env: CI_SERVER_TLS_CA_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_ca_file: Option<PathBuf>,
    /// PEM client certificate [env: CI_SERVER_TLS_CERT_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM key of the client certificate [env: CI_SERVER_TLS_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// Wait this long with each request for a server that cannot be reached or is busy, such as 5m; a change is only
    /// tried again when the server surely did not make it
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_span)]
    pub wait: Option<Duration>,
}

impl AccessArguments {
    /// The TLS files that were named.
    #[must_use]
    pub fn tls(&self) -> TlsArguments {
        TlsArguments {
            tls_ca_file: self.tls_ca_file.clone(),
            tls_cert_file: self.tls_cert_file.clone(),
            tls_key_file: self.tls_key_file.clone(),
        }
    }
}

/// What is to be done to the runners of a server.
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// List runners, as they arrive
    List(ListArguments),
    /// Show all about some runners
    Show(ShowArguments),
    /// Change the settings of runners
    Update(UpdateArguments),
    /// Let runners take no more jobs
    Pause(ChangeArguments),
    /// Let paused runners take jobs again
    Resume(ChangeArguments),
    /// List the jobs that a runner took, the newest first
    Jobs(JobsArguments),
    /// List the machines that use a runner's token
    Managers(OneArguments),
    /// List the projects that a runner is assigned to
    Projects(OneArguments),
    /// Assign project runners to one more project
    Assign(AssignArguments),
    /// Take project runners from a project
    Unassign(UnassignArguments),
    /// Delete runners with all their managers
    Delete(DeleteArguments),
    /// Create a runner
    Create(Box<CreateArguments>),
    /// Delete runners that nobody has seen for long
    Prune(PruneArguments),
    /// Give a runner a new token, by its number; also revives an expired one
    ResetToken(ResetTokenArguments),
    /// Make a registration token anew
    ResetRegistrationToken(ResetRegistrationTokenArguments),
}

/// Lists runners.
///
/// Rows are printed as they arrive. Without a limit every page is read.
#[derive(Args, Debug)]
pub struct ListArguments {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Which.
    #[command(flatten)]
    pub filters: FilterArguments,
    /// No more than so many
    #[arg(long, help_heading = "How much", value_name = "NUMBER")]
    pub limit: Option<usize>,
    /// With tags, last contact and the rest: one more request for each runner
    #[arg(long, help_heading = "How much")]
    pub details: bool,
}

/// Changes runners.
#[derive(Args, Debug)]
pub struct ChangeArguments {
    /// Which runners.
    #[command(flatten)]
    pub targets: TargetArguments,
    /// How.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Shows all about some runners.
#[derive(Args, Debug)]
pub struct ShowArguments {
    /// Their numbers in GitLab
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<RunnerId>,
    /// Leave the projects out, which can be many (GitLab 18.6)
    #[arg(long)]
    pub no_projects: bool,
}

/// One runner.
#[derive(Args, Debug)]
pub struct OneArguments {
    /// Its number in GitLab
    #[arg(value_name = "ID")]
    pub id: RunnerId,
}

/// Changes the settings of runners; what is not given stays.
#[derive(Args, Debug)]
pub struct UpdateArguments {
    /// Which runners.
    #[command(flatten)]
    pub targets: TargetArguments,
    /// What changes.
    #[command(flatten)]
    pub changes: AttributeArguments,
    /// How.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Lists the jobs that a runner took.
#[derive(Args, Debug)]
pub struct JobsArguments {
    /// Its number in GitLab
    #[arg(value_name = "ID")]
    pub id: RunnerId,
    /// By how they are
    #[arg(long, value_name = "STATUS", value_parser = one_of::<JobStatus>(JobStatus::KNOWN))]
    pub status: Option<JobStatus>,
    /// By the machine that took them (GitLab 16.8)
    #[arg(long, value_name = "SYSTEM_ID")]
    pub system_id: Option<SystemId>,
    /// Which way: the oldest first or the newest
    #[arg(long, value_name = "ORDER", value_parser = one_of::<Sort>(Sort::KNOWN))]
    pub sort: Option<Sort>,
    /// No more than so many
    #[arg(long, value_name = "NUMBER", default_value_t = 20, conflicts_with = "all")]
    pub limit: usize,
    /// Every job
    #[arg(long)]
    pub all: bool,
}

/// Assigns project runners to one more project.
#[derive(Args, Debug)]
pub struct AssignArguments {
    /// Which runners.
    #[command(flatten)]
    pub targets: TargetArguments,
    /// The project, by its number or path
    #[arg(long, value_name = "PROJECT")]
    pub to: OwnerName,
    /// How.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Takes project runners from a project that is not their owner.
#[derive(Args, Debug)]
pub struct UnassignArguments {
    /// Which runners.
    #[command(flatten)]
    pub targets: TargetArguments,
    /// The project, by its number or path
    #[arg(long, value_name = "PROJECT")]
    pub from: OwnerName,
    /// How.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Deletes runners with all their managers, also those of other machines.
///
/// A runner that this machine serves is better unregistered, which takes its entry along.
#[derive(Args, Debug)]
pub struct DeleteArguments {
    /// Which runners.
    #[command(flatten)]
    pub targets: TargetArguments,
    /// Instead: the one whose own token is in a file, on stdin with `-`, or at an inherited descriptor with fd:N; needs
    /// no access token
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ids", "all", "project", "group", "runner_type", "status", "paused", "tags", "version_prefix", "scope"])]
    pub runner_token_file: Option<PathBuf>,
    /// How.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Deletes runners that nobody has seen for long, and none that this machine serves.
///
/// Lists tell no times, so that each runner that is not online takes one more request. A runner that never was
/// in contact counts from when it was made, which GitLab tells since 18.1; where it does not tell, it is left
/// alone.
#[derive(Args, Debug)]
pub struct PruneArguments {
    /// How long nobody has seen them, such as 30d
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub stale: Duration,
    /// Where.
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Which.
    #[command(flatten)]
    pub filters: FilterArguments,
    /// How.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Creates a runner. Its token is told only once, so say where it goes: into a file, or with --enroll into
/// config.toml, as `register` would, without passing through anybody's hands.
#[derive(Args, Debug)]
pub struct CreateArguments {
    /// For a project, by its number or path
    #[arg(long, value_name = "PROJECT", help_heading = "For whom", conflicts_with = "group")]
    pub project: Option<OwnerName>,
    /// For a group, by its number or path
    #[arg(long, value_name = "GROUP", help_heading = "For whom")]
    pub group: Option<OwnerName>,
    /// For the whole instance, as administrators can
    #[arg(long, help_heading = "For whom", conflicts_with_all = ["project", "group"], required_unless_present_any = ["project", "group"])]
    pub instance: bool,
    /// Write its token to a file that does not exist yet, made for its owner alone
    #[arg(
        long,
        help_heading = "New token",
        value_name = "FILE",
        required_unless_present = "enroll",
        conflicts_with = "enroll"
    )]
    pub write_token: Option<PathBuf>,
    /// Serve it on this machine: write its entry into config.toml. Safe to repeat: the same server, access token and
    /// name make one runner
    #[arg(long, help_heading = "New token")]
    pub enroll: bool,
    /// With --enroll: create it although there is a runner of this server and name, into the same entry
    #[arg(long, help_heading = "New token", requires = "enroll")]
    pub force: bool,
    /// What the entry gets, with --enroll.
    #[command(flatten)]
    pub entry: EntryArguments,
    /// Its settings.
    #[command(flatten)]
    pub attributes: AttributeArguments,
    /// Start paused
    #[arg(long, help_heading = "Settings in GitLab", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub paused: Option<bool>,
    /// When its first token ends, as 2027-01-15T08:00:00Z: five minutes to fifteen days ahead (GitLab 18.10)
    #[arg(long, help_heading = "Settings in GitLab", value_name = "TIME")]
    pub token_expires_at: Option<Timestamp>,
    /// Until when that token can be rotated; needs --token-expires-at (GitLab 18.10)
    #[arg(long, help_heading = "Settings in GitLab", value_name = "TIME", requires = "token_expires_at")]
    pub token_rotation_deadline: Option<Timestamp>,
}

/// Gives a runner a new token, by its number; the old one stops working at once.
///
/// For a runner in config.toml use `rotate --id ID --pat-file FILE`, which also writes its entry.
#[derive(Args, Debug)]
pub struct ResetTokenArguments {
    /// Its number in GitLab
    #[arg(value_name = "ID")]
    pub id: RunnerId,
    /// Where the token goes.
    #[command(flatten)]
    pub token: NewTokenArguments,
}

/// Makes a registration token anew; the old one stops working at once.
#[derive(Args, Debug)]
pub struct ResetRegistrationTokenArguments {
    /// That of a project, by its number or path
    #[arg(long, value_name = "PROJECT", help_heading = "Whose", conflicts_with = "group")]
    pub project: Option<OwnerName>,
    /// That of a group, by its number or path
    #[arg(long, value_name = "GROUP", help_heading = "Whose")]
    pub group: Option<OwnerName>,
    /// That of the instance, as administrators can
    #[arg(long, help_heading = "Whose", conflicts_with_all = ["project", "group"], required_unless_present_any = ["project", "group"])]
    pub instance: bool,
    /// Where the token goes.
    #[command(flatten)]
    pub token: NewTokenArguments,
}
