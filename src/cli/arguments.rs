//! The grammar of the command line.
//!
//! Flags only: `settings` adds the environment variables that the help texts name; an empty one counts as unset.

#![allow(rustdoc::broken_intra_doc_links, reason = "[[runners]] in help texts is no link")]

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use super::access_token::arguments::AccessTokenArguments;
pub use super::entry_flags::EntryKeyArguments;
pub use super::fleet::arguments::FleetArguments;
pub use super::hook::arguments::HookArguments;
pub use super::init::InitArguments;
use super::row_filter::RowFilter;
pub use super::shared::arguments::SharedArguments;
use crate::log::{LogFormat, LogLevel};
use crate::model::{RunnerId, ServerUrl, TlsFiles, parse_span};
use crate::secret::{Token, TokenClass, TokenError, without_tokens};
use crate::settings::{Environment, Overrides, parse_boolean, parse_seconds};

/// Manages the credentials of GitLab runners: registers runners, verifies their tokens, rotates them
/// before they expire, and unregisters runners.
#[derive(Debug, Parser)]
#[command(
    name = "runner-agent",
    version,
    max_term_width = 100,
    propagate_version = true,
    disable_help_subcommand = true
)]
#[command(after_help = EXIT_CODES)]
pub struct Arguments {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The exit codes, below the help text.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage, or a selection that is ambiguous
  3  refused by the server
  4  a local file is unusable or locked
  5  the server is unreachable, busy, or not a GitLab API
  6  some runners done, some failed";

/// Options of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// config.toml with the [[runners]] entries, shared with gitlab-runner [env: CONFIG_FILE] [default:
    /// /etc/gitlab-runner/config.toml for root, else ~/.gitlab-runner/config.toml]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// agent.toml with the agent's settings [env: RUNNER_AGENT_CONFIG] [default:
    /// /etc/runner-agent/agent.toml for root, else ~/.config/runner-agent/agent.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub agent_config: Option<PathBuf>,
    /// Directory for the agent's own state [env: STATE_DIRECTORY] [default: /var/lib/runner-agent for root,
    /// else ~/.local/state/runner-agent]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
    /// Output format on stdout
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Output,
    /// Minimum level of log messages on stderr [env: LOG_LEVEL] [default: info for `run`, else warn]
    #[arg(
        short = 'l',
        long, global = true, value_name = "LEVEL", value_parser = one_of::<LogLevel>(&["error", "warn", "info", "debug", "trace"]))]
    pub log_level: Option<LogLevel>,
    /// Log format [env: LOG_FORMAT] [default: journald if stderr is systemd's journal, else text]
    #[arg(long, global = true, value_name = "FORMAT", value_parser = one_of::<LogFormat>(&["text", "json", "journald"]))]
    pub log_format: Option<LogFormat>,
}

/// Output format on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text for people
    #[default]
    Text,
    /// One JSON document
    Json,
    /// One JSON object per line; long lists are streamed
    Jsonl,
}

/// A version of GitLab's API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Api {
    /// GitLab 9.0 and later
    #[default]
    V4,
    /// GitLab before 10.0; no verification, rotation or expiry
    V1,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon, which keeps all runners' tokens valid
    Run(RunArguments),
    /// Write an agent.toml
    Init(Box<InitArguments>),
    /// Register a new or an already created runner and write its entry to config.toml
    Register(Box<RegisterArguments>),
    /// Check the tokens in config.toml with the server
    Verify(VerifyArguments),
    /// Replace tokens with new ones
    #[command(visible_alias = "reset-token")]
    Rotate(RotateArguments),
    /// Remove runners from the server and from config.toml
    Unregister(UnregisterArguments),
    /// List the runners in config.toml without contacting a server
    List(ListArguments),
    /// Show what the daemon would do next for every runner, and at a stop
    Plan(PlanArguments),
    /// Find mistakes in the settings and files, without asking a server
    #[command(visible_alias = "validate")]
    Check(CheckArguments),
    /// Check the files, the way to each server, each token and the daemon
    Doctor(DoctorArguments),
    /// Let the daemon read its files again, and wait for the result
    Reload(ReloadArguments),
    /// Let the runners' records follow their GitLab to another address
    Relocate(RelocateArguments),
    /// Show the status of the daemon's runners, or wait until all are ready
    Status(StatusArguments),
    /// Print an address that opens the daemon's page in a browser
    Open(OpenArguments),
    /// Check the daemon's health, for example as a container's HEALTHCHECK
    Health(HealthArguments),
    /// Manage the runners of a GitLab instance with an access token
    Fleet(Box<FleetArguments>),
    /// Show and rotate the access tokens that the agent keeps
    AccessToken(Box<AccessTokenArguments>),
    /// Try what is done after an event
    Hook(HookArguments),
    /// Show and repair the runners that machines share over a store
    Shared(Box<SharedArguments>),
    /// Show the version, with its commit, target and features
    Version,
    /// Print a shell completion script
    Completions(CompletionsArguments),
    /// Write man pages, for packaging
    #[command(hide = true)]
    Manual(ManualArguments),
    /// Print the names of the runners in config.toml, for completions
    #[command(hide = true)]
    Names,
}

/// Runs the daemon.
///
/// It serves every [[runners]] entry of config.toml and registers the runners that agent.toml lists as
/// [[enroll]]. A container needs no agent.toml: if CI_SERVER_URL and one of REGISTRATION_TOKEN, CI_SERVER_TOKEN,
/// REGISTRATION_TOKEN_FILE or CI_SERVER_TOKEN_FILE are set, the environment describes one enrollment with the same
/// variables as `register`.
///
/// Signals: TERM and INT stop, and unregister as agent.toml says; QUIT stops and keeps every registration;
/// HUP reloads all files and verifies at once.
#[derive(Args, Debug)]
pub struct RunArguments {
    /// Enroll, verify and rotate what is due once, then exit
    #[arg(long)]
    pub once: bool,
    /// Show what would be done, like `plan`, and exit
    #[arg(long, conflicts_with_all = ["once", "listen_address", "allow_remote"])]
    pub dry_run: bool,
    /// Start without a runner, and wait until another process writes entries into config.toml [env: WAIT_FOR_CONFIG]
    #[arg(long)]
    pub wait_for_config: bool,
    /// Also serve HTTP at these addresses, such as 127.0.0.1:9252, separated by commas [env: LISTEN_ADDRESS]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "once")]
    pub listen_address: Option<String>,
    /// Allow an address that other machines can reach [env: LISTEN_ALLOW_REMOTE]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub allow_remote: Option<bool>,
    /// The daemon's socket.
    #[command(flatten)]
    pub socket: SocketArgument,
}

/// Shows what the daemon would do next for every runner, when and why, and what its stop would unregister.
///
/// Changes nothing, and works beside a running daemon. It goes by the files of this machine, as a start of the daemon
/// does, which verifies each token first; `status` shows under NEXT what a running daemon does.
#[derive(Args, Debug, Default)]
pub struct PlanArguments {
    /// Verify the tokens with the server first, as `verify` does
    #[arg(long)]
    pub verify: bool,
}

/// Looks for mistakes in agent.toml, config.toml, templates, token files, TLS files, directories, rights and sockets.
///
/// Contacts no server, and works beside a running daemon. `run` reports the same errors when it starts. Exits with 0, also
/// if there are warnings, and with 4 if there is an error.
#[derive(Args, Debug)]
pub struct CheckArguments {
    /// The daemon's socket.
    #[command(flatten)]
    pub socket: SocketArgument,
}

/// The daemon's socket.
#[derive(Args, Debug)]
pub struct SocketArgument {
    /// The daemon's socket [default: agent.sock in $RUNTIME_DIRECTORY, in /run/runner-agent for root, else in
    /// $XDG_RUNTIME_DIR/runner-agent; in the state directory if that is not writable]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Lists the runners in config.toml, without contacting a server.
///
/// What the last verification said is in the state directory; without the rights to read it, the state is unknown. TOKEN
/// is not the token, but its fingerprint: the first eight hex digits of its SHA-256.
#[derive(Clone, Debug, Default, Args)]
pub struct ListArguments {
    /// Show a table of 80 columns
    #[arg(long)]
    pub short: bool,
    /// The rows to show.
    #[command(flatten)]
    pub filter: RowFilter,
}

/// Shows the status of the daemon's runners.
///
/// Reads neither config.toml nor agent.toml. Exits with 0 if the daemon answers, whatever the state of its runners, and
/// with 5 if no daemon answers. With --wait, exits with 0 once every enrollment is registered and the server has
/// accepted every token, and with 1 after --timeout; it also waits for a daemon that does not answer yet, and says on
/// stderr what it waits for. With NAME, draws the life of the token as a line: obtained, the last verification (v), now,
/// the planned rotation (R) and the expiry. TOKEN is not the token, but its fingerprint: the first eight hex digits of the
/// token's SHA-256.
#[derive(Args, Debug)]
pub struct StatusArguments {
    /// Show only runners of this name, and draw the lives of their tokens
    #[arg(value_name = "NAME")]
    pub name: Option<NameArgument>,
    /// Wait until the daemon is ready
    #[arg(long, value_enum, value_name = "FOR", conflicts_with = "watch")]
    pub wait: Option<Wait>,
    /// Show the status again and again until interrupted; without a terminal, after each change
    #[arg(long)]
    pub watch: bool,
    /// Show a table of 80 columns
    #[arg(long)]
    pub short: bool,
    /// The rows to show.
    #[command(flatten)]
    pub filter: RowFilter,
    /// Maximum time to wait, such as 90s [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse_span, requires = "wait")]
    pub timeout: Option<Duration>,
    /// The daemon's socket.
    #[command(flatten)]
    pub socket: SocketArgument,
}

/// Prints an address of the daemon that opens its page in a browser: every runner, the life of its token, and the last
/// events.
///
/// The address can be opened once, within a minute, and the browser may see the page for twelve hours. A page that was
/// opened before is closed. Only the user of the daemon and root can do that. The daemon has to listen for HTTP: `listen`
/// in [http] of agent.toml, or --listen-address.
#[derive(Args, Debug)]
pub struct OpenArguments {
    /// The daemon's socket.
    #[command(flatten)]
    pub socket: SocketArgument,
}

/// Checks what `check` does, then proxy, name, connection, certificate and clock of each server, whether it is a GitLab,
/// whether each token is accepted and can be rotated, and the daemon.
///
/// Changes nothing, but that a verification makes this machine's manager in GitLab, as gitlab-runner's does. Exits with 0 if
/// there is no error, else with the code of the first one.
#[derive(Args, Debug)]
pub struct DoctorArguments {
    /// Write the results and the files without secrets to a new file, for a bug report
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// The daemon's socket.
    #[command(flatten)]
    pub socket: SocketArgument,
}

/// Lets the daemon read agent.toml and config.toml again and verify every token, as the signal HUP does.
///
/// Waits until the files were read. Exits with 4 if one of them is invalid: the daemon goes on with its previous content.
#[derive(Args, Debug)]
pub struct ReloadArguments {
    /// Maximum time to wait, such as 90s [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub timeout: Option<Duration>,
    /// The daemon's socket.
    #[command(flatten)]
    pub socket: SocketArgument,
}

/// Lets the records of this machine's runners follow their GitLab to another address: another host name, scheme, port or
/// path.
///
/// Change `url` in config.toml and agent.toml first. The server at the new address is asked about each token, and only a
/// record whose token it accepts is changed. The record keeps how the runner was made, its enrollment and its former
/// tokens. A running daemon is told to read its files again. Can be repeated, and taken back with the addresses exchanged.
#[derive(Args, Debug)]
pub struct RelocateArguments {
    /// The former address, as the records have it
    #[arg(value_name = "OLD")]
    pub old: ServerUrl,
    /// The new address, as config.toml has it
    #[arg(value_name = "NEW")]
    pub new: ServerUrl,
    /// The daemon's socket.
    #[command(flatten)]
    pub socket: SocketArgument,
}

/// A condition to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// Every enrollment is registered and every token accepted
    Ready,
}

/// Checks the daemon's health: prints one line and exits with 0 or 1.
///
/// The daemon is healthy if its main loop runs, whatever the state of its runners and their servers, and if it
/// answers within 3 seconds.
#[derive(Args, Debug)]
pub struct HealthArguments {
    /// Check readiness instead: every enrollment registered, every token accepted by its server
    #[arg(long)]
    pub ready: bool,
    /// The daemon's socket.
    #[command(flatten)]
    pub socket: SocketArgument,
}

/// Registers a runner; safe to repeat.
///
/// With a registration token, creates a runner on the server; with the token of a runner that was created there
/// (glrt-), verifies that token. Either way, writes an entry to config.toml. A second run with the same server,
/// name and token changes nothing.
///
/// On a terminal, asks for missing values.
#[derive(Args, Debug)]
#[command(next_help_heading = "Server and token")]
pub struct RegisterArguments {
    /// Server URL [env: CI_SERVER_URL]
    #[arg(short, long, value_name = "URL")]
    pub url: Option<String>,
    /// Authentication token (glrt-) of a runner created in GitLab [env: CI_SERVER_TOKEN]
    #[arg(short, long, value_name = "TOKEN", allow_hyphen_values = true, conflicts_with = "token_file")]
    pub token: Option<SecretArgument>,
    /// Read this token from a file, from stdin (`-`) or from an inherited file descriptor (fd:N) [env:
    /// CI_SERVER_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Registration token [env: REGISTRATION_TOKEN]
    #[arg(short, long, value_name = "TOKEN", allow_hyphen_values = true, conflicts_with = "registration_token_file")]
    pub registration_token: Option<SecretArgument>,
    /// Read the registration token from a file, from stdin (`-`) or from an inherited file descriptor (fd:N) [env:
    /// REGISTRATION_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub registration_token_file: Option<PathBuf>,
    /// Share one runner among all machines that give this name, through the store in [sharing] of agent.toml [env:
    /// RUNNER_SHARE_AS]
    #[arg(long, value_name = "NAME")]
    pub share_as: Option<String>,
    /// API version; v1 is the API before GitLab 9.0 and is never chosen automatically
    #[arg(long, value_enum, value_name = "VERSION", default_value_t)]
    pub api: Api,
    /// TLS files
    #[command(flatten)]
    pub tls: TlsArguments,
    /// Mode
    #[command(flatten)]
    pub mode: RegisterModeArgs,
    /// Runner settings in GitLab
    #[command(flatten)]
    pub parameters: RegisterParameterArguments,
    /// Entry in config.toml
    #[command(flatten)]
    pub entry: EntryArguments,
}

/// How a registration proceeds.
#[derive(Args, Debug)]
#[command(next_help_heading = "Mode")]
pub struct RegisterModeArgs {
    /// Never prompt, even on a terminal [env: REGISTER_NON_INTERACTIVE]
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub non_interactive: Option<bool>,
    /// Keep the runner on the server if its entry cannot be written [env: REGISTER_LEAVE_RUNNER]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub leave_runner: Option<bool>,
    /// Maximum time to wait for a server that is unreachable or busy, such as 5m
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub wait: Option<Duration>,
    /// Register again even if config.toml has this server and name, and replace the token in that entry
    #[arg(long)]
    pub force: bool,
}

/// The settings of a new runner in GitLab.
#[derive(Args, Debug)]
#[command(next_help_heading = "Runner in GitLab (only with a registration token)")]
pub struct RegisterParameterArguments {
    /// Description in GitLab; also the local name unless --name is given
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Tags, separated by commas [env: RUNNER_TAG_LIST]
    #[arg(long, value_name = "TAGS")]
    pub tag_list: Option<String>,
    /// Accept untagged jobs [env: REGISTER_RUN_UNTAGGED] [default: true without tags]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub run_untagged: Option<bool>,
    /// Lock the runner to its project [env: REGISTER_LOCKED] [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub locked: Option<bool>,
    /// Access level: not_protected or ref_protected [env: REGISTER_ACCESS_LEVEL]
    #[arg(long, value_name = "LEVEL")]
    pub access_level: Option<String>,
    /// Maximum job duration, in seconds or such as 2h [env: REGISTER_MAXIMUM_TIMEOUT]
    #[arg(long, value_name = "DURATION", value_parser = parse_seconds)]
    pub maximum_timeout: Option<Duration>,
    /// Register the runner as paused [env: REGISTER_PAUSED]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub paused: Option<bool>,
    /// Maintenance note for administrators [env: REGISTER_MAINTENANCE_NOTE]
    #[arg(long, value_name = "TEXT")]
    pub maintenance_note: Option<String>,
}

/// The new entry in config.toml.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Entry in config.toml")]
pub struct EntryArguments {
    /// Local name; also the description in GitLab [env: RUNNER_NAME] [default: the hostname]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Executor [env: RUNNER_EXECUTOR]
    #[arg(long, value_name = "EXECUTOR")]
    pub executor: Option<String>,
    /// Shell [env: RUNNER_SHELL]
    #[arg(long, value_name = "SHELL")]
    pub shell: Option<String>,
    /// Maximum number of concurrent jobs [env: RUNNER_LIMIT]
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<u32>,
    /// Maximum number of concurrent job requests [env: RUNNER_REQUEST_CONCURRENCY]
    #[arg(long, value_name = "NUMBER")]
    pub request_concurrency: Option<u32>,
    /// Maximum size of a job log, in KiB [env: RUNNER_OUTPUT_LIMIT]
    #[arg(long, value_name = "KIB")]
    pub output_limit: Option<u32>,
    /// Request jobs only at each check interval [env: RUNNER_STRICT_CHECK_INTERVAL]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub strict_check_interval: Option<bool>,
    /// Number of failed requests after which the runner is unhealthy [env: RUNNER_UNHEALTHY_REQUESTS_LIMIT]
    #[arg(long, value_name = "NUMBER")]
    pub unhealthy_requests_limit: Option<u32>,
    /// How long an unhealthy runner requests no jobs
    #[arg(long, value_name = "DURATION", value_parser = parse_seconds)]
    pub unhealthy_interval: Option<Duration>,
    /// Maximum attempts to send a job's final status [env:
    /// RUNNER_JOB_STATUS_FINAL_UPDATE_RETRY_LIMIT]
    #[arg(long, value_name = "NUMBER")]
    pub job_status_final_update_retry_limit: Option<u32>,
    /// Template for the entry: a file with exactly one [[runners]]; its comments are kept [env:
    /// TEMPLATE_CONFIG_FILE]
    #[arg(long, value_name = "FILE")]
    pub template_config: Option<PathBuf>,
    /// Set another key of the entry to a TOML value, such as docker.image='"alpine"'; repeatable. gitlab-runner's flags
    /// and variables for the entry, such as --docker-image and DOCKER_IMAGE, are accepted too
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
    /// Accept an executor and keys that gitlab-runner is not known to have
    #[arg(long)]
    pub allow_unknown: bool,
    /// gitlab-runner's flags for the entry.
    #[command(flatten)]
    pub keys: EntryKeyArguments,
}

/// Certificates to trust, and the client certificate.
#[derive(Args, Clone, Debug)]
pub struct TlsArguments {
    /// PEM file of CA certificates to trust besides the system's [env: CI_SERVER_TLS_CA_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file of the client certificate [env: CI_SERVER_TLS_CERT_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file of the client certificate's key [env: CI_SERVER_TLS_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
}

impl TlsArguments {
    /// The files that flags or variables name.
    pub(super) fn files(self, environment: &Environment) -> TlsFiles {
        environment.tls_files(self.tls_ca_file, self.tls_cert_file, self.tls_key_file)
    }
}

/// Verifies the tokens of the selected entries; of all entries without a selection.
///
/// GitLab then shows a runner as online and creates a runner manager for this machine.
#[derive(Args, Debug)]
pub struct VerifyArguments {
    /// Remove entries whose token the server rejects, and keep a copy in the state directory; only if the rejection
    /// is genuinely GitLab's
    #[arg(long)]
    pub delete: bool,
    /// Number of runners of one server that are asked about at the same time [default: in_flight_per_host in agent.toml, or 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub parallel: Option<u16>,
    /// Selected entries.
    #[command(flatten)]
    pub selection: Selection,
}

/// Replaces tokens with new ones and writes them to config.toml. The old tokens stop working at once.
#[derive(Args, Debug)]
pub struct RotateArguments {
    /// Access token, to rotate a token that is already rejected, by runner id
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub pat: Option<SecretArgument>,
    /// Read the access token from a file, from stdin (`-`) or from an inherited file descriptor (fd:N)
    #[arg(long, value_name = "FILE", conflicts_with = "pat")]
    pub pat_file: Option<PathBuf>,
    /// With an access token: believe the id in config.toml, although the server has not confirmed it
    #[arg(long)]
    pub force: bool,
    /// Number of runners of one server that are worked on at the same time [default: in_flight_per_host in agent.toml, or 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub parallel: Option<u16>,
    /// Selected entries.
    #[command(flatten)]
    pub selection: Selection,
    /// Select all entries of config.toml
    #[arg(long, visible_alias = "all", conflicts_with_all = SELECTORS)]
    pub all_runners: bool,
    /// TLS files for the access token.
    #[command(flatten, next_help_heading = "Server of the access token")]
    pub tls: TlsArguments,
}

/// Unregisters runners. A runner that is already gone counts as success.
///
/// Deletes a runner from the server if it was registered with a registration token. Of a runner that was created
/// in GitLab (glrt-), deletes only this machine's runner manager, because the agent cannot recreate the runner.
#[derive(Args, Debug)]
pub struct UnregisterArguments {
    /// Do not ask for confirmation: with --all-runners, a terminal is asked first
    #[arg(long)]
    pub yes: bool,
    /// API version that the runners were registered with [default: as recorded when registered here]
    #[arg(long, value_enum, value_name = "VERSION")]
    pub api: Option<Api>,
    /// Number of runners of one server that are worked on at the same time [default: in_flight_per_host in agent.toml, or 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub parallel: Option<u16>,
    /// Selected entries.
    #[command(flatten)]
    pub selection: Selection,
    /// Select all entries of config.toml
    #[arg(long, visible_alias = "all", conflicts_with_all = SELECTORS)]
    pub all_runners: bool,
    /// TLS files for a --url and --token without an entry.
    #[command(flatten, next_help_heading = "Server without an entry")]
    pub tls: TlsArguments,
}

/// Selects entries of config.toml; all given criteria must match.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Selection")]
pub struct Selection {
    /// Select by name, as --name does
    #[arg(value_name = "NAME", conflicts_with = "name")]
    pub positional: Option<NameArgument>,
    /// Select by name
    #[arg(short, long, value_name = "NAME")]
    pub name: Option<String>,
    /// Select by server URL
    #[arg(short, long, value_name = "URL")]
    pub url: Option<ServerUrl>,
    /// Select by runner id
    #[arg(short, long, value_name = "ID")]
    pub id: Option<RunnerId>,
    /// Select by token
    #[arg(short, long, value_name = "TOKEN", allow_hyphen_values = true, conflicts_with = "token_file")]
    pub token: Option<SecretArgument>,
    /// Select by a token read from a file, from stdin (`-`) or from an inherited file descriptor (fd:N)
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

const SELECTORS: [&str; 6] = ["positional", "name", "url", "id", "token", "token_file"];

/// Prints a shell completion script.
#[derive(Args, Debug)]
pub struct CompletionsArguments {
    /// Shell
    #[arg(value_enum)]
    pub shell: CompletionShell,
}

/// Writes the man pages of the program, of each command, and of agent.toml.
#[derive(Args, Debug)]
pub struct ManualArguments {
    /// Existing directory
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
}

/// A shell with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// A name on the command line, which can be a token by mistake.
#[derive(Clone)]
pub struct NameArgument(String);

impl NameArgument {
    /// The name.
    ///
    /// # Errors
    /// The class of a token.
    pub(super) fn name(&self) -> Result<&str, TokenClass> {
        self.token().and_then(|token| token.class()).map_or(Ok(&self.0), Err)
    }

    /// The token that it is by mistake.
    fn token(&self) -> Option<Token> {
        Token::parse(self.0.trim()).ok().filter(|token| token.class().is_some())
    }
}

impl FromStr for NameArgument {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for NameArgument {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&without_tokens(&self.0))
    }
}

/// A secret on the command line. Parsing accepts any text, so that clap's errors never print it.
#[derive(Clone, Debug)]
pub struct SecretArgument(Result<Token, TokenError>);

impl SecretArgument {
    /// The secret.
    ///
    /// # Errors
    /// [`TokenError`] if it is no valid token.
    pub fn token(&self) -> Result<Token, TokenError> {
        self.0.clone()
    }
}

impl FromStr for SecretArgument {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Token::parse(text.trim())))
    }
}

impl Arguments {
    /// The flags that override the environment and agent.toml.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        let Global { config, agent_config, state_dir, .. } = &self.global;
        let files = Overrides {
            config: config.clone(),
            agent_config: agent_config.clone(),
            state_dir: state_dir.clone(),
            ..Overrides::default()
        };
        match &self.command {
            Command::Run(run) => Overrides {
                socket: run.socket.socket.clone(),
                listen_address: run.listen_address.clone(),
                allow_remote: run.allow_remote,
                wait_for_config: run.wait_for_config,
                ..files
            },
            Command::Status(StatusArguments { socket, .. })
            | Command::Health(HealthArguments { socket, .. })
            | Command::Check(CheckArguments { socket })
            | Command::Doctor(DoctorArguments { socket, .. })
            | Command::Relocate(RelocateArguments { socket, .. })
            | Command::Open(OpenArguments { socket })
            | Command::Reload(ReloadArguments { socket, .. }) => Overrides { socket: socket.socket.clone(), ..files },
            Command::Register(_)
            | Command::Verify(_)
            | Command::Rotate(_)
            | Command::Unregister(_)
            | Command::List(_)
            | Command::Plan(_)
            | Command::Fleet(_)
            | Command::AccessToken(_)
            | Command::Hook(_)
            | Command::Shared(_)
            | Command::Init(_)
            | Command::Version
            | Command::Completions(_)
            | Command::Manual(_)
            | Command::Names => files,
        }
    }

    /// The valid tokens on the command line; an invalid one ends the command at once.
    #[must_use]
    pub fn secrets(&self) -> Vec<Token> {
        match &self.command {
            Command::Register(register) => {
                let tokens = valid([&register.token, &register.registration_token]);
                tokens.chain(register.entry.keys.secrets()).collect()
            }
            Command::Verify(verify) => verify.selection.secrets().collect(),
            Command::Rotate(rotate) => rotate.selection.secrets().chain(valid([&rotate.pat])).collect(),
            Command::Unregister(unregister) => unregister.selection.secrets().collect(),
            Command::Fleet(fleet) => fleet.secrets(),
            Command::Status(status) => status.name.as_ref().and_then(NameArgument::token).into_iter().collect(),
            Command::Run(_)
            | Command::List(_)
            | Command::Plan(_)
            | Command::Check(_)
            | Command::Doctor(_)
            | Command::Reload(_)
            | Command::Open(_)
            | Command::Relocate(_)
            | Command::AccessToken(_)
            | Command::Hook(_)
            | Command::Shared(_)
            | Command::Health(_)
            | Command::Init(_)
            | Command::Version
            | Command::Completions(_)
            | Command::Manual(_)
            | Command::Names => Vec::new(),
        }
    }
}

fn valid<const N: usize>(arguments: [&Option<SecretArgument>; N]) -> impl Iterator<Item = Token> {
    arguments.into_iter().flatten().filter_map(|argument| argument.token().ok())
}

impl Selection {
    /// The tokens in it.
    fn secrets(&self) -> impl Iterator<Item = Token> {
        valid([&self.token]).chain(self.positional.as_ref().and_then(NameArgument::token))
    }

    /// Whether no criteria were given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.positional.is_none()
            && self.name.is_none()
            && self.url.is_none()
            && self.id.is_none()
            && self.token.is_none()
            && self.token_file.is_none()
    }
}

/// A parser that lists the possible values in the help text.
pub(super) fn one_of<T>(words: &'static [&'static str]) -> impl clap::builder::TypedValueParser<Value = T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    use clap::builder::TypedValueParser as _;
    PossibleValuesParser::new(words).try_map(|word| word.parse::<T>())
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("expected KEY=VALUE, such as docker.image='\"alpine\"'".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_grammar_is_valid() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn booleans_work_bare_and_with_a_value() {
        for (flag, expected) in [("--locked", true), ("--locked=true", true), ("--locked=false", false)] {
            assert_eq!(register(&[flag]).parameters.locked, Some(expected), "{flag}");
        }
        assert_eq!(register(&["-n"]).mode.non_interactive, Some(true));
        assert_eq!(register(&[]).parameters.locked, None);
    }

    #[test]
    fn a_bare_boolean_does_not_consume_the_next_word() {
        let register = register(&["--run-untagged", "--url", "https://x"]);
        assert_eq!((register.parameters.run_untagged, register.url.as_deref()), (Some(true), Some("https://x")));
    }

    #[test]
    fn an_invalid_secret_is_not_printed() {
        let Command::Verify(verify) = parse(&["verify", "--token", "two words"]).unwrap().command else { panic!() };
        let token = verify.selection.token.unwrap();
        assert!(token.token().is_err());
        assert!(!format!("{token:?}").contains("words"));
    }

    #[test]
    fn command_lines_of_gitlab_runner_are_accepted() {
        for line in [
            "register -n -u https://x -r GR1348941abc --executor shell --tag-list a,b --locked=false",
            "register --non-interactive --url https://x --token glrt-abc --name a --template-config t.toml",
            "reset-token --name a",
            "reset-token -u https://x -i 42 --pat glpat-abc",
            "reset-token --all-runners",
            "unregister --url https://x --token glrt-abc",
            "unregister -n a",
            "unregister --all-runners",
            "verify --delete -n a",
            "list -c config.toml",
        ] {
            let words: Vec<_> = line.split(' ').collect();
            assert!(parse(&words).is_ok(), "{line}");
        }
    }

    #[test]
    fn all_runners_conflicts_with_a_selection() {
        assert!(parse(&["rotate", "--all", "--name", "a"]).is_err());
        assert!(parse(&["unregister", "--all-runners", "--id", "1"]).is_err());
    }

    #[test]
    fn a_token_may_begin_with_a_hyphen() {
        let token = register(&["-r", "-xyz_1"]).registration_token.unwrap().token().unwrap();
        assert_eq!(token.expose(), "-xyz_1");
    }

    #[test]
    fn a_setting_is_split_at_the_first_equals_sign() {
        let register = register(&["--set", "docker.image=\"a=b\""]);
        assert_eq!(register.entry.set, [("docker.image".to_owned(), "\"a=b\"".to_owned())]);
        assert!(parse(&["register", "--set", "docker.image"]).is_err());
    }

    fn register(flags: &[&str]) -> RegisterArguments {
        let Command::Register(register) = parse(&[&["register"], flags].concat()).unwrap().command else { panic!() };
        *register
    }

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from([&["runner-agent"], words].concat())
    }
}
