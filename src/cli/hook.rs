//! `hook test`: runs a hook once, now.

pub mod arguments;

use std::path::PathBuf;

use serde::Serialize;

use super::context::Context;
use super::{Error, Exit};
use crate::engine::Config;
use crate::hooks::{Delivery, Hook};
use crate::model::{HookEvent, HookKind, RunnerId, ServerUrl, Timestamp};
use crate::secret::Token;
use crate::settings::Settings;
use crate::store::{Entry, HookFiles, Record, Store};
use arguments::{HookArguments, HookCommand, TestArguments};

/// Runs a command of `hook`.
pub(super) async fn hook(context: &Context<'_>, arguments: HookArguments) -> Result<Exit, Error> {
    match arguments.command {
        HookCommand::Test(arguments) => test(context, arguments).await,
    }
}

/// What is known of a runner.
struct KnownRunner {
    name: String,
    id: Option<RunnerId>,
    url: ServerUrl,
    expires_at: Option<Timestamp>,
    token: Option<Token>,
    is_own: bool,
}

/// What a test has done, as JSON.
#[derive(Serialize)]
struct TestReport<'a> {
    name: &'a str,
    event: HookKind,
    runner: Option<&'a str>,
    result: &'a str,
}

async fn test(context: &Context<'_>, TestArguments { name, runner, event }: TestArguments) -> Result<Exit, Error> {
    let settings = context.command_settings()?;
    settings.log_warnings();
    let Settings { store, engine: config, .. } = settings;
    let hook = named(&config, &name)?;
    let kind = event.as_deref().and_then(HookKind::from_name).or(hook.on.first().copied());
    let kind = kind.filter(|kind| hook.can_be_for(*kind)).ok_or_else(|| {
        Error::Usage(format!("the hook `{name}` cannot be for that event: it needs a token, or a new one"))
    })?;
    let store = context.open_store(store)?;
    let known = match kind {
        HookKind::AccessTokenRotated | HookKind::SettingsRejected => None,
        HookKind::Registered
        | HookKind::Rotated
        | HookKind::Rejected
        | HookKind::Recovered
        | HookKind::Unregistered
        | HookKind::Expiring => runner_of(&store, hook, runner).await?,
    };
    if hook.takes_token() && known.is_none() {
        return Err(Error::Usage(format!("the hook `{name}` gets a token: name its runner with --runner")));
    }
    let token_path = token_path(&store, hook).await?;
    let event = HookEvent {
        event_id: format!("test-{kind}"),
        event: kind,
        at: context.now(),
        runner: known.as_ref().map(|known| known.name.clone()),
        runner_id: known.as_ref().and_then(|known| known.id),
        url: known.as_ref().map(|known| known.url.clone()),
        expires_at: known.as_ref().and_then(|known| known.expires_at),
        text: "a test of the hook".to_owned(),
    };
    let delivery = Delivery {
        event: &event,
        token: known.as_ref().and_then(|known| known.token.as_ref()),
        token_path: token_path.as_deref(),
        is_own: known.as_ref().is_some_and(|known| known.is_own),
    };
    let result = hook.run(delivery).await.map_err(|error| Error::Verdict {
        exit: Exit::Failed,
        message: format!("hook `{name}`, event `{kind}`: {error}"),
        hint: None,
    })?;
    if context.reporter.is_json() {
        let runner = event.runner.as_deref();
        context.reporter.document_line("hooks", TestReport { name: &name, event: kind, runner, result: &result });
    } else {
        context.reporter.answer(&format!("hook `{name}`, event `{kind}`: {result}\n"));
    }
    Ok(Exit::Done)
}

fn named<'a>(config: &'a Config, name: &str) -> Result<&'a Hook, Error> {
    config.hooks.iter().find(|hook| hook.name == name).ok_or_else(|| {
        let names: Vec<_> = config.hooks.iter().map(|hook| hook.name.as_str()).collect();
        let known = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
        Error::Usage(format!("agent.toml has no hook `{name}`: {known}"))
    })
}

/// The file that a command reads the token from, if it does.
async fn token_path(store: &Store, hook: &Hook) -> Result<Option<PathBuf>, Error> {
    if !hook.takes_token_path() {
        return Ok(None);
    }
    Ok(HookFiles::new(store.clone()).token_path_of_test(&hook.name).await?)
}

/// The runner that was named, or else the one that the hook means.
async fn runner_of(store: &Store, hook: &Hook, named: Option<String>) -> Result<Option<KnownRunner>, Error> {
    let (records, snapshot) = (store.records().await?.records, store.read().await?);
    let registered = records.into_iter().filter(|record| record.credential.is_some()).map(KnownRunner::of_record);
    let mut known: Vec<_> = registered.collect();
    let of_files: Vec<_> = snapshot.entries.iter().filter_map(KnownRunner::of_entry).collect();
    known.extend(
        of_files.into_iter().filter(|entry| known.iter().all(|known| known.name != entry.name)).collect::<Vec<_>>(),
    );
    if let Some(name) = named.as_ref().filter(|name| !hook.runners.is_empty() && !hook.runners.contains(name)) {
        let (hook, runners) = (&hook.name, hook.runners.join(", "));
        return Err(Error::Usage(format!("the hook `{hook}` is not for the runner `{name}`: it is for {runners}")));
    }
    let is_named = named.is_some() || hook.takes_token();
    let Some(name) = named.or_else(|| hook.runners.first().cloned()) else {
        return Ok(if known.len() == 1 { known.pop() } else { None });
    };
    let found = known.into_iter().find(|known| known.name == name);
    if found.is_none() && is_named {
        return Err(Error::Usage(format!("there is no runner `{name}` with a token: `runner-agent list` shows them")));
    }
    Ok(found)
}

impl KnownRunner {
    fn of_record(record: Record) -> Self {
        let name = record.label().to_owned();
        let expires_at = record.credential.as_ref().and_then(|credential| credential.expiry.at());
        let token = record.credential.map(|credential| credential.token);
        Self { name, id: record.id, url: record.url, expires_at, token, is_own: record.enrollment.is_some() }
    }

    fn of_entry(entry: &Entry) -> Option<Self> {
        let (site, token) = entry.access().ok()?;
        let (name, expires_at) = (entry.name.clone()?, entry.expiry.at());
        Some(Self { name, id: entry.id, url: site.url, expires_at, token: Some(token), is_own: false })
    }
}
