//! The command line.
//!
//! `arguments` is the grammar, `report` the only writer to stdout and stderr; every command is one file.
//! Only main imports this room. `clap`, `clap_complete`, `clap_mangen`, `rpassword` and
//! `unicode-width` are used here and nowhere else.

mod access_text;
pub mod access_token;
pub mod arguments;
mod check;
mod completions;
mod confirm;
mod context;
mod doctor;
mod document;
pub mod entry_flags;
mod error;
mod exit;
pub mod fleet;
mod handover;
mod health;
mod help;
pub mod hook;
pub mod init;
mod interrupt;
mod list;
mod manual;
mod misdirected;
mod names;
mod open;
mod outcome;
mod plan;
mod progress;
mod register;
mod reload;
mod relocate;
mod report;
mod rotate;
pub mod row_filter;
mod run;
mod selection;
mod session;
pub mod shared;
mod shared_entry;
mod short;
mod status;
mod table;
mod terminal;
mod text;
mod unregister;
mod verify;
mod version;

use std::io;

use tokio::runtime::Runtime;
use tokio::task::LocalSet;

pub use exit::Exit;

use arguments::{Arguments, Command, Output, PlanArguments, RunArguments};
use context::Context;
use error::Error;
use interrupt::Interrupt;
use report::Reporter;

use crate::error_chain::chain;
use crate::files::{ReadLimit, limit_reads};
use crate::host::note_container;
use crate::log::{LogConfig, LogFormat, LogLevel, is_stderr_journal, log_panics, start_log};
use crate::secret::without_tokens;
use crate::settings::{Environment, Start};
use crate::signals::{Signals, has_any_arrived};
use crate::systemd::{is_service, notify_last_status};

/// Runs the command of the command line and returns its exit code. May execute the program again first.
pub fn run(start: io::Result<Start>, signals: io::Result<Signals>, core_dumps: io::Result<()>) -> Exit {
    log_panics();
    let start = match start {
        Ok(start) => start,
        Err(error) => return Reporter::new(Output::default()).failed(&Error::System(error)),
    };
    let arguments = match help::parse(&misdirected::with_help_flag(&start.launch.arguments)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let explained = misdirected::explained(&error);
            return explained
                .map_or_else(|| report::usage(&error), |error| Reporter::new(Output::default()).failed(&error));
        }
    };
    let reporter = Reporter::new(arguments.global.output);
    let secrecy = Secrecy { core_dumps, handover: handover::hand_over(&start, &arguments) };
    let is_daemon = matches!(arguments.command, Command::Run(RunArguments { dry_run: false, .. }));
    let ended = perform(arguments, start.environment, signals, secrecy, &reporter);
    let cause = ended.as_ref().err().map(|error| chain(error));
    let exit = reporter.end(ended.unwrap_or_else(|error| reporter.failed(&error)));
    if is_daemon && is_service() {
        say_end(exit, cause.as_deref());
    }
    exit
}

/// Says what the exit code of a service means, which systemd shows by a name of its own.
fn say_end(exit: Exit, cause: Option<&str>) {
    let Some(name) = exit.misleading_name() else { return };
    let (code, meaning) = (exit as u8, exit.meaning());
    tracing::error!(code, "ending: {meaning}; systemd shows this code as {name}, which is not meant");
    let cause = cause.map(|cause| format!(": {}", without_tokens(cause)));
    notify_last_status(&format!("ended, {meaning} (exit code {code}, not {name}){}", cause.unwrap_or_default()));
}

/// Results of protecting secrets, from before the log was started.
struct Secrecy {
    core_dumps: io::Result<()>,
    handover: io::Result<()>,
}

impl Secrecy {
    fn log(&self) {
        if let Err(error) = &self.core_dumps {
            tracing::warn!(%error, "cannot disable core dumps, which would contain tokens");
        }
        if let Err(error) = &self.handover {
            tracing::warn!(
                %error,
                "cannot hide tokens from the command line or the environment: other processes may read them in /proc"
            );
        }
    }
}

fn perform(
    arguments: Arguments,
    environment: Environment,
    signals: io::Result<Signals>,
    secrecy: Secrecy,
    reporter: &Reporter,
) -> Result<Exit, Error> {
    let signals = signals.map_err(Error::System)?;
    signals.release().map_err(Error::System)?;
    note_container(environment.is_container);
    start_log(log_config(&arguments, &environment, reporter)?);
    secrecy.log();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::System)?;
    let context = Context::new(arguments.overrides(), environment, reporter);
    let exit = work(arguments.command, &context, &runtime, signals);
    // Not waited for: a thread may look at a file of a network share that does not answer.
    runtime.shutdown_background();
    exit
}

fn work(command: Command, context: &Context<'_>, runtime: &Runtime, signals: Signals) -> Result<Exit, Error> {
    let reporter = context.reporter;
    limit_reads(ReadLimit::Signal, has_any_arrived);
    match command {
        Command::Run(RunArguments { dry_run: true, .. }) => {
            one_shot(runtime, signals, reporter, |interrupt| plan::plan(context, PlanArguments::default(), interrupt))
        }
        Command::Plan(arguments) => {
            one_shot(runtime, signals, reporter, |interrupt| plan::plan(context, arguments, interrupt))
        }
        Command::Run(arguments) => runtime.block_on(run::run(context, &arguments, signals)),
        Command::List(arguments) => runtime.block_on(until_signal(signals, list::list(context, &arguments))),
        Command::Check(_) => runtime.block_on(until_signal(signals, check::check(context))),
        Command::Doctor(arguments) => {
            one_shot(runtime, signals, reporter, |interrupt| doctor::doctor(context, arguments, interrupt))
        }
        Command::Reload(arguments) => runtime.block_on(until_signal(signals, reload::reload(context, &arguments))),
        Command::Relocate(arguments) => {
            one_shot(runtime, signals, reporter, |interrupt| relocate::relocate(context, arguments, interrupt))
        }
        Command::Open(_) => runtime.block_on(until_signal(signals, open::open(context))),
        Command::Status(arguments) => runtime.block_on(status::status(context, &arguments, signals)),
        Command::Health(arguments) => Ok(runtime.block_on(health::health(context, &arguments))),
        Command::Version => Ok(version::version(reporter)),
        Command::Completions(arguments) => Ok(completions::completions(reporter, &arguments)),
        Command::Manual(arguments) => manual::manual(&arguments),
        Command::Names => runtime.block_on(until_signal(signals, names::names(context))),
        Command::Register(arguments) => {
            one_shot(runtime, signals, reporter, |interrupt| register::register(context, *arguments, interrupt))
        }
        Command::Init(arguments) => {
            one_shot(runtime, signals, reporter, |interrupt| init::init(context, *arguments, interrupt))
        }
        Command::Verify(arguments) => {
            one_shot(runtime, signals, reporter, |interrupt| verify::verify(context, arguments, interrupt))
        }
        Command::Rotate(arguments) => {
            one_shot(runtime, signals, reporter, |interrupt| rotate::rotate(context, arguments, interrupt))
        }
        Command::Fleet(arguments) => {
            one_shot(runtime, signals, reporter, |interrupt| fleet::fleet(context, *arguments, interrupt))
        }
        Command::Shared(arguments) => {
            one_shot(runtime, signals, reporter, |interrupt| shared::shared(context, *arguments, interrupt))
        }
        Command::AccessToken(arguments) => {
            one_shot(runtime, signals, reporter, |interrupt| access_token::access_token(context, *arguments, interrupt))
        }
        Command::Hook(arguments) => runtime.block_on(until_signal(signals, hook::hook(context, arguments))),
        Command::Unregister(arguments) => {
            one_shot(runtime, signals, reporter, |interrupt| unregister::unregister(context, arguments, interrupt))
        }
    }
}

/// Runs a command that changes nothing: a signal ends it.
async fn until_signal(mut signals: Signals, command: impl Future<Output = Result<Exit, Error>>) -> Result<Exit, Error> {
    tokio::select! {
        biased;
        exit = command => exit,
        _ = signals.next() => Err(Error::Interrupted("interrupted".to_owned())),
    }
}

/// Runs a command that decides where an interrupt can end it.
fn one_shot<Work: Future<Output = Result<Exit, Error>>>(
    runtime: &Runtime,
    signals: Signals,
    reporter: &Reporter,
    command: impl FnOnce(Interrupt) -> Work,
) -> Result<Exit, Error> {
    LocalSet::new().block_on(runtime, async {
        let (interrupt, _counting) = Interrupt::count(signals, *reporter);
        command(interrupt).await
    })
}

/// The log settings; by default the daemon logs from level info, a one-shot command from warn.
fn log_config(arguments: &Arguments, environment: &Environment, reporter: &Reporter) -> Result<LogConfig, Error> {
    let word = |name: &str| environment.text(name);
    let level = match (arguments.global.log_level, word("LOG_LEVEL")) {
        (Some(level), _) => level,
        (None, Some(word)) => word.parse().map_err(|error| Error::Usage(format!("LOG_LEVEL: {error}")))?,
        (None, None) if matches!(arguments.command, Command::Run(RunArguments { dry_run: false, .. })) => {
            LogLevel::Info
        }
        (None, None) => LogLevel::Warn,
    };
    let format = match (arguments.global.log_format, word("LOG_FORMAT")) {
        (Some(format), _) => format,
        (None, Some(word)) => word.parse().map_err(|error| Error::Usage(format!("LOG_FORMAT: {error}")))?,
        (None, None) if is_stderr_journal(word("JOURNAL_STREAM").as_deref()) => LogFormat::Journald,
        (None, None) => LogFormat::Text,
    };
    let is_coloured = reporter.is_stderr_terminal() && word("NO_COLOR").is_none();
    Ok(LogConfig { format, level, is_coloured })
}
