//! `run`: the daemon.

use std::io;
use std::path::PathBuf;
use std::pin::pin;

use tokio::sync::mpsc;

use super::arguments::RunArguments;
use super::context::{Context, chance, operations};
use super::{Error, Exit};
use crate::agent::{self, Farewells, Notice, Parts, Watch, Watched, Watcher};
use crate::clock::SystemClock;
use crate::gitlab::Client;
use crate::model::RunnerReport;
use crate::ops::{Enrollment, Seed};
use crate::secret::Source;
use crate::settings::{self, Environment, Overrides, Paths, Settings};
use crate::signals::{Signal, Signals};
use crate::store::Store;

/// Runs until a signal ends it, or makes one pass.
pub(super) async fn run(context: &Context<'_>, arguments: &RunArguments, signals: Signals) -> Result<Exit, Error> {
    let Settings { store, gitlab, agent, .. } = context.settings()?;
    let store = Store::open(store)?;
    let _instance = store.lock_instance().await?;
    let files = Files {
        overrides: context.overrides.clone(),
        environment: context.environment.clone(),
        config: store.config_path().to_owned(),
    };
    let watch = files.watch(&agent);
    let parts = Parts {
        ops: operations(store.clone(), Client::new(gitlab)).await?,
        clock: SystemClock,
        chance,
        reload: files.reload(watch.as_ref().map(Watch::watcher)),
        watch,
    };
    let ended =
        if arguments.once { pass(context, agent, parts, signals).await } else { serve(agent, parts, signals).await };
    // Of what was given up, a new token may be on its way to the disk still.
    store.drain().await;
    ended
}

/// The daemon, until a signal ends it.
async fn serve(agent: agent::Config, parts: DaemonParts, mut signals: Signals) -> Result<Exit, Error> {
    let (notices, inbox) = mpsc::unbounded_channel();
    let pass_on = async {
        // Never ends by itself.
        loop {
            let notice = match signals.next().await {
                Signal::Terminate | Signal::Interrupt => Notice::Stop,
                Signal::Quit => Notice::StopAndKeep,
                Signal::Hangup => Notice::Reload,
            };
            // Once the daemon has ended, so does this.
            let _ended = notices.send(notice);
        }
    };
    let farewells = tokio::select! {
        result = agent::run(agent, parts, inbox) => result?,
        never = pass_on => never,
    };
    Ok(match farewells {
        Farewells::Done => Exit::Done,
        Farewells::Unfinished => Exit::Failed,
    })
}

/// One pass. As with the other commands that end by themselves, any signal asks for an end: what is under
/// way has the grace time to finish, and a second signal takes that away.
async fn pass(
    context: &Context<'_>,
    agent: agent::Config,
    parts: DaemonParts,
    mut signals: Signals,
) -> Result<Exit, Error> {
    let grace = agent.shutdown.grace;
    let mut pass = pin!(agent::once(agent, parts));
    let runners = tokio::select! {
        biased;
        runners = &mut pass => runners?,
        _ = signals.next() => {
            context.reporter.remark("interrupted: finishing what is under way, a second signal ends at once");
            tokio::select! {
                biased;
                runners = &mut pass => runners?,
                _ = signals.next() => return Err(unfinished("told to stop a second time")),
                () = tokio::time::sleep(grace) => return Err(unfinished("the grace time is over")),
            }
        }
    };
    Ok(tell(context, runners))
}

fn unfinished(why: &str) -> Error {
    Error::Interrupted(format!("{why} before the pass was: the next start finishes what was begun"))
}

type DaemonParts = Parts<Client, Store, SystemClock>;

/// Where the settings come from, to read and watch them again later.
struct Files {
    overrides: Overrides,
    environment: Environment,
    /// config.toml, with symbolic links resolved.
    config: PathBuf,
}

impl Files {
    /// Watches config.toml, agent.toml and the token files; without it, HUP still works.
    fn watch(&self, agent: &agent::Config) -> Option<Watch> {
        Watch::new(self.watched(agent)).inspect_err(cannot_watch).ok()
    }

    /// Reads the settings again, and watches the token files that they name then.
    fn reload(self, mut watcher: Option<Watcher>) -> Box<dyn FnMut() -> Option<agent::Config>> {
        Box::new(move || match settings::load(&self.overrides, &self.environment) {
            Ok(Settings { agent, .. }) => {
                if let Some(watcher) = &mut watcher {
                    watcher.watch(self.watched(&agent)).unwrap_or_else(|error| cannot_watch(&error));
                }
                Some(agent)
            }
            Err(errors) => {
                tracing::error!("the settings are wrong, those from before stay in force: {errors}");
                None
            }
        })
    }

    fn watched(&self, agent: &agent::Config) -> Watched {
        let Paths { agent_config, config, .. } = settings::paths(&self.overrides, &self.environment);
        let seeds = agent.enrollments.iter().filter_map(seed_file);
        Watched {
            config: vec![config, self.config.clone()],
            settings: std::iter::once(agent_config).chain(seeds).collect(),
        }
    }
}

fn cannot_watch(error: &io::Error) {
    tracing::warn!(%error, "cannot watch files for changes: send HUP after changing them");
}

fn seed_file(enrollment: &Enrollment) -> Option<PathBuf> {
    match &enrollment.seed {
        Seed::Registration(Source::File(path)) | Seed::Given(Source::File(path)) | Seed::V1(Source::File(path)) => {
            Some(path.clone())
        }
        Seed::Registration(_) | Seed::Given(_) | Seed::V1(_) => None,
    }
}

fn tell(context: &Context<'_>, runners: Vec<RunnerReport>) -> Exit {
    let exits: Vec<_> = runners.iter().map(exit_of).collect();
    let now = context.now();
    context.reporter.runners(runners, |runners| super::list::table(runners, now));
    Exit::of_all(&exits)
}

fn exit_of(runner: &RunnerReport) -> Exit {
    if runner.error.is_some() {
        return Exit::LocalFile;
    }
    match runner.state.as_str() {
        "active" if runner.last_verify.as_ref().is_none_or(|verify| verify.outcome == "accepted") => Exit::Done,
        "active" | "unregistered" | "uncertain" => Exit::Unreachable,
        _ => Exit::Refused,
    }
}
