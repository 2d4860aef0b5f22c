//! The grammar of `init`.

use std::path::PathBuf;

use clap::Args;

use crate::model::ServerUrl;

/// The headings of its help.
const SOURCE: &str = "Source of the token, the newest way first";
const RUNNER: &str = "Runner";

/// Writes an agent.toml with comments, from flags, from questions on a terminal, or from the entries of config.toml.
///
/// Contacts no server. Secrets are named as files and never written. An existing file is replaced only with --force.
#[derive(Args, Debug)]
pub struct InitArguments {
    /// Server URL
    #[arg(short, long, value_name = "URL")]
    pub url: Option<ServerUrl>,
    /// Create the runner with the access token in this file; needs --instance, --group or --project
    #[arg(long, value_name = "FILE", help_heading = SOURCE)]
    pub access_token_file: Option<PathBuf>,
    /// Create an instance runner
    #[arg(long, help_heading = SOURCE, conflicts_with_all = ["group", "project"])]
    pub instance: bool,
    /// Create a runner of the group with this id
    #[arg(
        long,
        value_name = "ID",
        help_heading = SOURCE,
        conflicts_with = "project"
    )]
    pub group: Option<u64>,
    /// Create a runner of the project with this id
    #[arg(long, value_name = "ID", help_heading = SOURCE)]
    pub project: Option<u64>,
    /// File with the authentication token (glrt-) of a runner created in GitLab
    #[arg(long, value_name = "FILE", help_heading = SOURCE, conflicts_with_all = ["access_token_file", "registration_token_file"])]
    pub token_file: Option<PathBuf>,
    /// File with a registration token
    #[arg(
        long,
        value_name = "FILE",
        help_heading = SOURCE,
        conflicts_with = "access_token_file"
    )]
    pub registration_token_file: Option<PathBuf>,
    /// Local name [default: the hostname]
    #[arg(long, value_name = "NAME", help_heading = RUNNER)]
    pub name: Option<String>,
    /// Executor
    #[arg(long, value_name = "EXECUTOR", help_heading = RUNNER)]
    pub executor: Option<String>,
    /// Tags, separated by commas
    #[arg(long, value_name = "TAGS", help_heading = RUNNER)]
    pub tag_list: Option<String>,
    /// File with exactly one [[runners]], for further keys of the entry
    #[arg(long, value_name = "FILE", help_heading = RUNNER)]
    pub template: Option<PathBuf>,
    /// Send a HUP to the main process of this systemd unit after each change of a token, so that it reads config.toml at once;
    /// beside gitlab-runner: gitlab-runner.service
    #[arg(long, value_name = "UNIT")]
    pub signal_unit: Option<String>,
    /// Enroll nothing, and serve the runners that config.toml has already
    #[arg(long, conflicts_with_all = ["url", "access_token_file", "token_file", "registration_token_file", "name", "executor", "tag_list", "template", "instance", "group", "project"])]
    pub from_config: bool,
    /// Never prompt, even on a terminal
    #[arg(short, long)]
    pub non_interactive: bool,
    /// Replace an existing agent.toml
    #[arg(long)]
    pub force: bool,
}
