//! What several `fleet` commands take.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::arguments::one_of;
use crate::gitlab::fleet::{DeprecatedScope, OwnerName, RunnerStatus, RunnerType};
use crate::model::RunnerId;
use crate::settings::{parse_boolean, parse_seconds};

/// Where runners are listed.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Where")]
pub struct PlaceArguments {
    /// Every runner of the instance, for administrators and auditors; else those that you manage
    #[arg(long, conflicts_with_all = ["project", "group"])]
    pub all: bool,
    /// The runners that serve a project, by its number or path
    #[arg(long, value_name = "PROJECT", conflicts_with = "group")]
    pub project: Option<OwnerName>,
    /// The runners that serve a group, by its number or path
    #[arg(long, value_name = "GROUP")]
    pub group: Option<OwnerName>,
}

/// Which runners of those listed; all given parts must match.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which runners")]
pub struct FilterArguments {
    /// By whose jobs they take
    #[arg(long = "type", value_name = "TYPE", value_parser = one_of::<RunnerType>(RunnerType::KNOWN))]
    pub runner_type: Option<RunnerType>,
    /// By how they are
    #[arg(long, value_name = "STATUS", value_parser = one_of::<RunnerStatus>(RunnerStatus::KNOWN))]
    pub status: Option<RunnerStatus>,
    /// By whether they are paused
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub paused: Option<bool>,
    /// By a tag, of which they must have all; can be repeated, or several be separated by commas
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    pub tags: Vec<String>,
    /// By the beginning of their program's version, such as 16.1 (GitLab 16.6)
    #[arg(long, value_name = "PREFIX")]
    pub version_prefix: Option<String>,
    /// The deprecated filter before --type, --status and --paused
    #[arg(long, value_name = "SCOPE", hide_short_help = true, value_parser = one_of::<DeprecatedScope>(DeprecatedScope::KNOWN))]
    pub scope: Option<DeprecatedScope>,
}

/// Which runners a change is about: by number, or by filters.
#[derive(Args, Clone, Debug, Default)]
pub struct TargetArguments {
    /// By their numbers in GitLab
    #[arg(value_name = "ID")]
    pub ids: Vec<RunnerId>,
    /// Where.
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Which.
    #[command(flatten)]
    pub filters: FilterArguments,
}

/// How a change is made.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Conduct")]
pub struct ConfirmArgs {
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The settings of a runner in GitLab.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Settings in GitLab")]
pub struct AttributeArguments {
    /// Its description
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// All its tags from now on, separated by commas
    #[arg(long, value_name = "TAGS")]
    pub tag_list: Option<String>,
    /// Take jobs without tags too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub run_untagged: Option<bool>,
    /// Let it not be assigned to further projects
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub locked: Option<bool>,
    /// Which refs it takes jobs of: not_protected or ref_protected
    #[arg(long, value_name = "LEVEL")]
    pub access_level: Option<String>,
    /// The longest a job may take, in seconds or as a duration such as 2h; 0 for no limit
    #[arg(long, value_name = "DURATION", value_parser = parse_seconds)]
    pub maximum_timeout: Option<Duration>,
    /// A note for those who maintain it
    #[arg(long, value_name = "TEXT")]
    pub maintenance_note: Option<String>,
}

/// Where a new token goes, since it is never printed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "New token")]
pub struct NewTokenArguments {
    /// A file that does not exist yet, made for its owner alone
    #[arg(long, value_name = "FILE")]
    pub write_token: PathBuf,
}
