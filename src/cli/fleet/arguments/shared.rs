//! Arguments of several `fleet` commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::arguments::one_of;
use crate::gitlab::fleet::{ContactStatus, DeprecatedScope, OwnerName, RunnerType};
use crate::model::RunnerId;
use crate::settings::{parse_boolean, parse_seconds};

/// The scope of a list.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Scope")]
pub struct PlaceArguments {
    /// All runners of the instance, for administrators and auditors [default: those that you manage]
    #[arg(long, conflicts_with_all = ["project", "group"])]
    pub all: bool,
    /// Runners available to a project, by id or path
    #[arg(long, value_name = "PROJECT", conflicts_with = "group")]
    pub project: Option<OwnerName>,
    /// Runners available to a group, by id or path
    #[arg(long, value_name = "GROUP")]
    pub group: Option<OwnerName>,
}

/// Filters; all that are given must match.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Filters")]
pub struct FilterArguments {
    /// Filter by type
    #[arg(long = "type", value_name = "TYPE", value_parser = one_of::<RunnerType>(RunnerType::KNOWN))]
    pub runner_type: Option<RunnerType>,
    /// Filter by status
    #[arg(long, value_name = "STATUS", value_parser = one_of::<ContactStatus>(ContactStatus::KNOWN))]
    pub status: Option<ContactStatus>,
    /// Filter by whether they are paused
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub paused: Option<bool>,
    /// Filter by tag; repeatable or separated by commas, all must match
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',', value_parser = not_blank)]
    pub tags: Vec<String>,
    /// Filter by version prefix, such as 16.1 (GitLab 16.6)
    #[arg(long, value_name = "PREFIX", value_parser = not_blank)]
    pub version_prefix: Option<String>,
    /// Deprecated filter; use --type, --status and --paused
    #[arg(long, value_name = "SCOPE", hide_short_help = true, value_parser = one_of::<DeprecatedScope>(DeprecatedScope::KNOWN))]
    pub scope: Option<DeprecatedScope>,
}

/// Parses the value of a filter. An empty one, from a variable that is not set, would match everything.
fn not_blank(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.is_empty() { Err("an empty filter would match every runner") } else { Ok(text.to_owned()) }
}

/// The runners to change, by id or by filters.
#[derive(Args, Clone, Debug, Default)]
pub struct TargetArguments {
    /// Runner ids
    #[arg(value_name = "ID")]
    pub ids: Vec<RunnerId>,
    /// Scope.
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Filters.
    #[command(flatten)]
    pub filters: FilterArguments,
}

/// Whether a change needs confirmation.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Confirmation")]
pub struct ConfirmArgs {
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The settings of a runner in GitLab.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Settings in GitLab")]
pub struct AttributeArguments {
    /// Description
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Tags, separated by commas; replaces existing tags
    #[arg(long, value_name = "TAGS")]
    pub tag_list: Option<String>,
    /// Accept untagged jobs
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub run_untagged: Option<bool>,
    /// Lock the runner: it cannot be assigned to other projects
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub locked: Option<bool>,
    /// Access level: not_protected or ref_protected
    #[arg(long, value_name = "LEVEL")]
    pub access_level: Option<String>,
    /// Maximum job duration, in seconds or such as 2h; 0 for no limit
    #[arg(long, value_name = "DURATION", value_parser = parse_seconds)]
    pub maximum_timeout: Option<Duration>,
    /// Maintenance note
    #[arg(long, value_name = "TEXT")]
    pub maintenance_note: Option<String>,
}

/// The file for a new token, which is never printed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "New token")]
pub struct NewTokenArguments {
    /// Write the token to a new file with mode 0600
    #[arg(long, value_name = "FILE")]
    pub write_token: PathBuf,
}
