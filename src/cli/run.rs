//! `run`: the daemon.

use std::path::PathBuf;

use tokio::sync::mpsc;

use super::arguments::RunArguments;
use super::context::{Context, chance, operations};
use super::{Error, Exit};
use crate::agent::{self, Notice, Parts, Watch, Watched};
use crate::clock::SystemClock;
use crate::gitlab::Client;
use crate::model::RunnerReport;
use crate::ops::{Enrollment, Seed};
use crate::secret::Source;
use crate::settings::{self, Paths, Settings};
use crate::signals::{Signal, Signals};
use crate::store::Store;

/// Runs until a signal ends it, or makes one pass.
pub(super) async fn run(context: &Context<'_>, arguments: &RunArguments, mut signals: Signals) -> Result<Exit, Error> {
    let Settings { store, gitlab, agent, .. } = context.settings()?;
    let store = Store::open(store)?;
    let _instance = store.lock_instance().await?;
    let watch = watch(context, &store, &agent);
    let (overrides, environment) = (context.overrides.clone(), context.environment.clone());
    let parts = Parts {
        ops: operations(store, Client::new(gitlab)).await?,
        clock: SystemClock,
        chance,
        watch,
        reload: Box::new(move || match settings::load(&overrides, &environment) {
            Ok(settings) => Some(settings.agent),
            Err(errors) => {
                tracing::error!("the settings are wrong, those from before stay in force: {errors}");
                None
            }
        }),
    };
    if arguments.once {
        let runners = agent::once(agent, parts).await?;
        return Ok(tell(context, runners));
    }
    let (notices, inbox) = mpsc::unbounded_channel();
    let pass_on = async {
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
    tokio::select! {
        result = agent::run(agent, parts, inbox) => result?,
        () = pass_on => {}
    }
    Ok(Exit::Done)
}

/// Watches config.toml, agent.toml and the token files; without it, HUP still works.
fn watch(context: &Context<'_>, store: &Store, agent: &agent::Config) -> Option<Watch> {
    let Paths { agent_config, config, .. } = settings::paths(&context.overrides, &context.environment);
    let seeds = agent.enrollments.iter().filter_map(seed_file);
    let watched = Watched {
        config: vec![config, store.config_path().to_owned()],
        settings: std::iter::once(agent_config).chain(seeds).collect(),
    };
    Watch::new(watched)
        .inspect_err(|error| tracing::warn!(%error, "cannot watch files for changes: send HUP after changing them"))
        .ok()
}

fn seed_file(enrollment: &Enrollment) -> Option<PathBuf> {
    match &enrollment.seed {
        Seed::Registration(Source::File(path)) | Seed::Given(Source::File(path)) => Some(path.clone()),
        Seed::Registration(_) | Seed::Given(_) => None,
    }
}

fn tell(context: &Context<'_>, runners: Vec<RunnerReport>) -> Exit {
    let exits: Vec<_> = runners.iter().map(exit_of).collect();
    let now = context.now();
    context.reporter.runners(runners, |runners| super::list::table(runners, now));
    Exit::of_all(&exits)
}

fn exit_of(runner: &RunnerReport) -> Exit {
    match runner.state.as_str() {
        "active" if runner.last_verify.as_ref().is_none_or(|verify| verify.outcome == "accepted") => Exit::Done,
        "active" | "unregistered" | "uncertain" => Exit::Unreachable,
        _ => Exit::Refused,
    }
}
