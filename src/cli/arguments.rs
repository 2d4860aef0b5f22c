//! The grammar of the command line.
//!
//! Flags only: what the environment says is filled in by `settings`, where an empty variable counts as
//! not set. The variables are named in the help texts.

#![allow(rustdoc::broken_intra_doc_links, reason = "the help texts speak of [[runners]], which are no links")]

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use super::fleet::arguments::FleetArguments;
use crate::log::{LogFormat, LogLevel};
use crate::model::{RunnerId, ServerUrl, parse_span};
use crate::secret::{Token, TokenError};
use crate::settings::{Overrides, parse_boolean, parse_seconds};

/// Keeps a GitLab runner's credential for its whole life: registers it, verifies it, rotates its token
/// before it expires, and unregisters it.
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
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage, or a selection that is ambiguous
  3  refused by the server
  4  a local file is unusable or locked
  5  the server is unreachable, busy, or not a GitLab API
  6  some runners done, some failed";

/// What every command takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// config.toml with the [[runners]], shared with gitlab-runner [env: CONFIG_FILE] [default:
    /// /etc/gitlab-runner/config.toml for root, else ~/.gitlab-runner/config.toml]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// agent.toml, which says what the agent shall do [env: RUNNER_AGENT_CONFIG] [default:
    /// /etc/runner-agent/agent.toml for root, else ~/.config/runner-agent/agent.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub agent_config: Option<PathBuf>,
    /// Where the agent keeps its own state [env: STATE_DIRECTORY] [default: /var/lib/runner-agent for root,
    /// else ~/.local/state/runner-agent]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
    /// How the answer is written to stdout
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Output,
    /// The least weight of a line in the log, which goes to stderr [env: LOG_LEVEL] [default: info for `run`,
    /// else warn]
    #[arg(
        short = 'l',
        long, global = true, value_name = "LEVEL", value_parser = one_of::<LogLevel>(&["error", "warn", "info", "debug", "trace"]))]
    pub log_level: Option<LogLevel>,
    /// How the log is written [env: LOG_FORMAT] [default: journald where stderr is systemd's journal, else text]
    #[arg(long, global = true, value_name = "FORMAT", value_parser = one_of::<LogFormat>(&["text", "json", "journald"]))]
    pub log_format: Option<LogFormat>,
}

/// How the answer is written to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// For scripts: one JSON document
    Json,
    /// For scripts: one JSON object a line, of what there can be many as soon as it is known
    Jsonl,
}

/// A version of GitLab's API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Api {
    /// That of GitLab since 9.0
    #[default]
    V4,
    /// That of GitLab before 10.0, without verification, rotation and expiry
    V1,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep all runners' credentials alive until told to stop
    Run(RunArguments),
    /// Register a runner, or take a created one, and write its entry into config.toml
    Register(Box<RegisterArguments>),
    /// Ask the server whether it accepts the tokens in config.toml
    Verify(VerifyArguments),
    /// Replace tokens by new ones
    #[command(visible_alias = "reset-token")]
    Rotate(RotateArguments),
    /// Remove runners from the server and from config.toml
    Unregister(UnregisterArguments),
    /// List the runners in config.toml, without asking any server
    List,
    /// Ask the running daemon how its runners stand, or wait until all are ready
    Status(StatusArguments),
    /// Ask the running daemon whether it is well, as a container's HEALTHCHECK
    Health(HealthArguments),
    /// Manage the runners of a GitLab with an access token
    Fleet(Box<FleetArguments>),
    /// Print a completion script for a shell
    Completions(CompletionsArguments),
    /// Write the pages for man, for whoever makes a package
    #[command(hide = true)]
    Manual(ManualArguments),
}

/// The daemon.
///
/// It serves every [[runners]] entry of config.toml and makes the runners exist that agent.toml lists as
/// [[enroll]]. In a container no agent.toml is needed: with REGISTRATION_TOKEN or CI_SERVER_TOKEN (or
/// REGISTRATION_TOKEN_FILE, CI_SERVER_TOKEN_FILE) and CI_SERVER_URL set, the environment is one enrollment,
/// which takes the same variables as `register`.
///
/// Signals: TERM and INT stop and unregister as agent.toml says, QUIT stops and keeps every registration,
/// HUP reads all files again and verifies now.
#[derive(Args, Debug)]
pub struct RunArguments {
    /// Make one pass (enroll, verify, rotate what is due) and exit
    #[arg(long)]
    pub once: bool,
    /// Answer at this address too, such as 127.0.0.1:9252; several are separated by commas [env:
    /// LISTEN_ADDRESS]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "once")]
    pub listen_address: Option<String>,
    /// Let the address be one that other machines can reach [env: LISTEN_ALLOW_REMOTE]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub allow_remote: Option<bool>,
    /// Where the socket is.
    #[command(flatten)]
    pub socket: SocketArgument,
}

/// Where the daemon's socket is.
#[derive(Args, Debug)]
pub struct SocketArgument {
    /// The daemon's socket [default: agent.sock in $RUNTIME_DIRECTORY, for root in /run/runner-agent, else in
    /// $XDG_RUNTIME_DIR/runner-agent; or in the state directory where that cannot be written]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Asks the running daemon how its runners stand.
///
/// Neither config.toml nor agent.toml is read. Without a daemon that answers the exit code is 5. With --wait it
/// is 0 once every enrollment is registered and the server has accepted every token, and 1 if that takes longer
/// than --timeout; a daemon that does not answer yet is waited for.
#[derive(Args, Debug)]
pub struct StatusArguments {
    /// Wait until the daemon is ready
    #[arg(long, value_enum, value_name = "FOR")]
    pub wait: Option<Wait>,
    /// How long to wait, such as 90s [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse_span, requires = "wait")]
    pub timeout: Option<Duration>,
    /// Where the socket is.
    #[command(flatten)]
    pub socket: SocketArgument,
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// Every enrollment is registered, and the server has accepted every token
    Ready,
}

/// Asks the running daemon whether it is well, and answers with one line and the exit code 0 or 1.
///
/// Well is a daemon whose loop turns, whatever its runners and their servers do. One that has not answered
/// within 3 seconds is not.
#[derive(Args, Debug)]
pub struct HealthArguments {
    /// Ask whether it is ready instead: every enrollment registered, every token accepted by its server
    #[arg(long)]
    pub ready: bool,
    /// Where the socket is.
    #[command(flatten)]
    pub socket: SocketArgument,
}

/// Registers a runner; safe to repeat.
///
/// With a registration token a runner is made on the server; with a created runner's own token (glrt-) that
/// runner is verified and taken. Either way its entry is written into config.toml. A second run with the
/// same server, name and token changes nothing.
///
/// On a terminal everything that is missing is asked for.
#[derive(Args, Debug)]
#[command(next_help_heading = "Server and token")]
pub struct RegisterArguments {
    /// The server's address [env: CI_SERVER_URL]
    #[arg(short, long, value_name = "URL")]
    pub url: Option<String>,
    /// A created runner's own token, which begins with glrt- [env: CI_SERVER_TOKEN]
    #[arg(short, long, value_name = "TOKEN", allow_hyphen_values = true, conflicts_with = "token_file")]
    pub token: Option<SecretArgument>,
    /// The same from a file, from stdin with `-`, or from an inherited descriptor with fd:N [env: CI_SERVER_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A registration token [env: REGISTRATION_TOKEN]
    #[arg(short, long, value_name = "TOKEN", allow_hyphen_values = true, conflicts_with = "registration_token_file")]
    pub registration_token: Option<SecretArgument>,
    /// The same from a file, from stdin with `-`, or from an inherited descriptor with fd:N [env: REGISTRATION_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub registration_token_file: Option<PathBuf>,
    /// Which API to use; v1 is the one that GitLab had before 9.0, and is never chosen by itself
    #[arg(long, value_enum, value_name = "VERSION", default_value_t)]
    pub api: Api,
    /// How to trust the server, and who we are to it
    #[command(flatten)]
    pub tls: TlsArguments,
    /// How it is done
    #[command(flatten)]
    pub mode: RegisterModeArgs,
    /// What the server is told
    #[command(flatten)]
    pub parameters: RegisterParameterArguments,
    /// What the entry gets
    #[command(flatten)]
    pub entry: EntryArguments,
}

/// How a registration is done.
#[derive(Args, Debug)]
#[command(next_help_heading = "Conduct")]
pub struct RegisterModeArgs {
    /// Ask nothing, even on a terminal [env: REGISTER_NON_INTERACTIVE]
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub non_interactive: Option<bool>,
    /// Leave the runner on the server if its entry cannot be written [env: REGISTER_LEAVE_RUNNER]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub leave_runner: Option<bool>,
    /// Wait this long for a server that cannot be reached or is busy, such as 5m
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub wait: Option<Duration>,
    /// Register anew although there is a runner of this server and name, into the same entry
    #[arg(long)]
    pub force: bool,
}

/// What the server is told about a new runner.
#[derive(Args, Debug)]
#[command(next_help_heading = "Runner in GitLab (with a registration token only)")]
pub struct RegisterParameterArguments {
    /// The description in GitLab; also the local name unless --name is given
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Tags, separated by commas [env: RUNNER_TAG_LIST]
    #[arg(long, value_name = "TAGS")]
    pub tag_list: Option<String>,
    /// Take jobs without tags too [env: REGISTER_RUN_UNTAGGED] [default: true if there are no tags]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub run_untagged: Option<bool>,
    /// Tie it to its project [env: REGISTER_LOCKED] [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub locked: Option<bool>,
    /// Which refs it takes jobs of: not_protected or ref_protected [env: REGISTER_ACCESS_LEVEL]
    #[arg(long, value_name = "LEVEL")]
    pub access_level: Option<String>,
    /// The longest a job may take, in seconds or as a duration such as 2h [env: REGISTER_MAXIMUM_TIMEOUT]
    #[arg(long, value_name = "DURATION", value_parser = parse_seconds)]
    pub maximum_timeout: Option<Duration>,
    /// Start paused [env: REGISTER_PAUSED]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub paused: Option<bool>,
    /// A note for administrators [env: REGISTER_MAINTENANCE_NOTE]
    #[arg(long, value_name = "TEXT")]
    pub maintenance_note: Option<String>,
}

/// What the new entry in config.toml gets.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Entry in config.toml")]
pub struct EntryArguments {
    /// The local name; also the description in GitLab [env: RUNNER_NAME] [default: this machine's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The executor [env: RUNNER_EXECUTOR]
    #[arg(long, value_name = "EXECUTOR")]
    pub executor: Option<String>,
    /// The shell [env: RUNNER_SHELL]
    #[arg(long, value_name = "SHELL")]
    pub shell: Option<String>,
    /// Jobs at the same time [env: RUNNER_LIMIT]
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<u32>,
    /// Requests for jobs at the same time [env: RUNNER_REQUEST_CONCURRENCY]
    #[arg(long, value_name = "NUMBER")]
    pub request_concurrency: Option<u32>,
    /// Longest job log, in KiB [env: RUNNER_OUTPUT_LIMIT]
    #[arg(long, value_name = "KIB")]
    pub output_limit: Option<u32>,
    /// Ask for jobs strictly at each check interval [env: RUNNER_STRICT_CHECK_INTERVAL]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_boolean)]
    pub strict_check_interval: Option<bool>,
    /// Failed requests after which it counts as unhealthy [env: RUNNER_UNHEALTHY_REQUESTS_LIMIT]
    #[arg(long, value_name = "NUMBER")]
    pub unhealthy_requests_limit: Option<u32>,
    /// How long it asks for no jobs once it is unhealthy
    #[arg(long, value_name = "DURATION", value_parser = parse_seconds)]
    pub unhealthy_interval: Option<Duration>,
    /// How often the final state of a job is sent at most [env:
    /// RUNNER_JOB_STATUS_FINAL_UPDATE_RETRY_LIMIT]
    #[arg(long, value_name = "NUMBER")]
    pub job_status_final_update_retry_limit: Option<u32>,
    /// A file with exactly one [[runners]] that the entry is made from, comments and all [env:
    /// TEMPLATE_CONFIG_FILE]
    #[arg(long, value_name = "FILE")]
    pub template_config: Option<PathBuf>,
    /// Any other key of the entry with its value as TOML, such as docker.image='"alpine"'; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
}

/// How to trust the server, and who we are to it.
#[derive(Args, Debug)]
pub struct TlsArguments {
    /// PEM certificates to trust besides the system's [env: CI_SERVER_TLS_CA_FILE]
    #[arg(long, value_name = "FILE")]
    pub tls_ca_file: Option<PathBuf>,
    /// PEM client certificate [env: CI_SERVER_TLS_CERT_FILE]
    #[arg(long, value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM key of the client certificate [env: CI_SERVER_TLS_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
}

/// Verifies tokens: those of all entries at the same time, unless some are selected.
///
/// Asking keeps a runner "online" in GitLab and makes this machine's runner manager there.
#[derive(Args, Debug)]
pub struct VerifyArguments {
    /// Which entries.
    #[command(flatten)]
    pub selection: Selection,
    /// Drop entries that the server refuses, and keep what was dropped in the state directory; never after an
    /// answer that is not genuinely GitLab's
    #[arg(long)]
    pub delete: bool,
}

/// Replaces tokens by new ones and writes them into config.toml. The old ones stop working at once.
#[derive(Args, Debug)]
pub struct RotateArguments {
    /// Which entries.
    #[command(flatten)]
    pub selection: Selection,
    /// All entries of config.toml
    #[arg(long, visible_alias = "all", conflicts_with_all = SELECTORS)]
    pub all_runners: bool,
    /// An access token, to rotate by runner id a token that is already refused
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub pat: Option<SecretArgument>,
    /// The same from a file, from stdin with `-`, or from an inherited descriptor with fd:N
    #[arg(long, value_name = "FILE", conflicts_with = "pat")]
    pub pat_file: Option<PathBuf>,
}

/// Unregisters runners. A runner that is already gone counts as done.
///
/// A runner that was made with a registration token is deleted on the server. Of a created runner (glrt-) only
/// this machine's runner manager is deleted, since the runner itself cannot be made again from here.
#[derive(Args, Debug)]
pub struct UnregisterArguments {
    /// Which entries.
    #[command(flatten)]
    pub selection: Selection,
    /// All entries of config.toml
    #[arg(long, visible_alias = "all", conflicts_with_all = SELECTORS)]
    pub all_runners: bool,
    /// Which API the runners were made through; known of those that were registered here
    #[arg(long, value_enum, value_name = "VERSION")]
    pub api: Option<Api>,
    /// For a --url and --token that have no entry.
    #[command(flatten)]
    pub tls: TlsArguments,
}

/// Which entries of config.toml a command is about. All given parts must match.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Selection")]
pub struct Selection {
    /// By the entry's name
    #[arg(short, long, value_name = "NAME")]
    pub name: Option<String>,
    /// By the server's address
    #[arg(short, long, value_name = "URL")]
    pub url: Option<ServerUrl>,
    /// By the runner's number in GitLab
    #[arg(short, long, value_name = "ID")]
    pub id: Option<RunnerId>,
    /// By the token
    #[arg(short, long, value_name = "TOKEN", allow_hyphen_values = true, conflicts_with = "token_file")]
    pub token: Option<SecretArgument>,
    /// By the token in a file, on stdin with `-`, or at an inherited descriptor with fd:N
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

const SELECTORS: [&str; 5] = ["name", "url", "id", "token", "token_file"];

/// Prints a completion script.
#[derive(Args, Debug)]
pub struct CompletionsArguments {
    /// For which shell
    #[arg(value_enum)]
    pub shell: CompletionShell,
}

/// Writes a page for the program and one for each of its commands.
#[derive(Args, Debug)]
pub struct ManualArguments {
    /// A directory that exists
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
}

/// The shells that completions are printed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// A secret on the command line. Taken whatever it is, so that no message repeats a wrong one.
#[derive(Clone, Debug)]
pub struct SecretArgument(Result<Token, TokenError>);

impl SecretArgument {
    /// The secret.
    ///
    /// # Errors
    /// [`TokenError`] if it cannot be one.
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
    /// What was given that outweighs the environment and agent.toml.
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
                ..files
            },
            Command::Status(StatusArguments { socket, .. }) | Command::Health(HealthArguments { socket, .. }) => {
                Overrides { socket: socket.socket.clone(), ..files }
            }
            Command::Register(_)
            | Command::Verify(_)
            | Command::Rotate(_)
            | Command::Unregister(_)
            | Command::List
            | Command::Fleet(_)
            | Command::Completions(_)
            | Command::Manual(_) => files,
        }
    }

    /// The secrets on the command line; a text that is no token is none, and ends the command at once.
    #[must_use]
    pub fn secrets(&self) -> Vec<Token> {
        let (first, second) = match &self.command {
            Command::Register(register) => (&register.token, &register.registration_token),
            Command::Verify(verify) => (&verify.selection.token, &None),
            Command::Rotate(rotate) => (&rotate.selection.token, &rotate.pat),
            Command::Unregister(unregister) => (&unregister.selection.token, &None),
            Command::Run(_)
            | Command::List
            | Command::Fleet(_)
            | Command::Status(_)
            | Command::Health(_)
            | Command::Completions(_)
            | Command::Manual(_) => (&None, &None),
        };
        [first, second].into_iter().flatten().filter_map(|argument| argument.token().ok()).collect()
    }
}

impl Selection {
    /// Whether nothing was selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.name.is_none()
            && self.url.is_none()
            && self.id.is_none()
            && self.token.is_none()
            && self.token_file.is_none()
    }
}

/// A parser that shows its words in the help text.
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
    fn the_grammar_is_sound() {
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
    fn a_bare_boolean_does_not_eat_what_follows() {
        let register = register(&["--run-untagged", "--url", "https://x"]);
        assert_eq!((register.parameters.run_untagged, register.url.as_deref()), (Some(true), Some("https://x")));
    }

    #[test]
    fn a_wrong_secret_is_not_repeated() {
        let Command::Verify(verify) = parse(&["verify", "--token", "two words"]).unwrap().command else { panic!() };
        let token = verify.selection.token.unwrap();
        assert!(token.token().is_err());
        assert!(!format!("{token:?}").contains("words"));
    }

    #[test]
    fn the_official_command_lines_are_understood() {
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
    fn everything_and_something_cannot_both_be_meant() {
        assert!(parse(&["rotate", "--all", "--name", "a"]).is_err());
        assert!(parse(&["unregister", "--all-runners", "--id", "1"]).is_err());
    }

    #[test]
    fn a_token_may_begin_with_a_hyphen_as_gitlabs_random_ones_do() {
        let token = register(&["-r", "-xyz_1"]).registration_token.unwrap().token().unwrap();
        assert_eq!(token.expose(), "-xyz_1");
    }

    #[test]
    fn a_setting_keeps_what_follows_its_first_equals_sign() {
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
