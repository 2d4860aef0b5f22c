//! `fleet prune`: deletes runners without recent contact, except those that this machine serves.

use std::collections::{HashMap, HashSet};

use super::arguments::PruneArguments;
use super::delete::delete_all;
use super::list::{filters, scope};
use super::matching::{Details, Match, matches};
use super::rows::next_page;
use super::session::FleetSession;
use super::targets::Target;
use crate::cli::context::Context;
use crate::cli::{Error, Exit, list};
use crate::gitlab::fleet::{ContactStatus, FleetRunner, RunnerDetails};
use crate::model::{RunnerId, ServerUrl, Timestamp, format_span};
use crate::secret::Token;
use crate::settings;

/// The host of GitLab's own public instance.
const PUBLIC_GITLAB: &str = "gitlab.com";

/// Deletes stale runners once the user has confirmed it.
pub(super) async fn prune(
    context: &Context<'_>,
    session: FleetSession,
    arguments: &PruneArguments,
) -> Result<Exit, Error> {
    let served = Served::read(context, &session.site.url).await?;
    let silent = silent(&session, arguments).await?;
    let (ours, silent): (Vec<_>, Vec<_>) = silent.into_iter().partition(|runner| served.ids.contains(&runner.id));
    let (alike, silent): (Vec<_>, Vec<_>) =
        silent.into_iter().partition(|runner| served.elsewhere.contains_key(&runner.id));
    if !ours.is_empty() {
        let numbers: Vec<_> = ours.iter().map(|runner| runner.id.to_string()).collect();
        session.reporter.remark(&format!("kept, because this machine serves them: {}", numbers.join(", ")));
    }
    if !alike.is_empty() {
        let of_one = |runner: &FleetRunner| Some(format!("{} ({})", runner.id, served.elsewhere.get(&runner.id)?));
        let numbers: Vec<_> = alike.iter().filter_map(of_one).collect();
        session.reporter.remark(&format!(
            "kept, because this machine serves a runner with the same id at an address that may belong to this GitLab too: {}",
            numbers.join(", ")
        ));
    }
    if !silent.is_empty() {
        session.reporter.remark(&format!("reading the last contact of {} runners, one request each", silent.len()));
    }
    let stale = stale(&session, silent, arguments).await?;
    delete_all(session, stale, arguments.confirm).await
}

/// What this machine has entries or records of.
#[derive(Default)]
struct Served {
    /// The ids at this server.
    ids: HashSet<RunnerId>,
    /// The ids at other addresses that may be names of this server.
    elsewhere: HashMap<RunnerId, ServerUrl>,
}

impl Served {
    /// Reads config.toml and the state directory.
    ///
    /// # Errors
    /// [`Error::Verdict`] for an entry without a known id, since it could be any of the runners.
    async fn read(context: &Context<'_>, server: &ServerUrl) -> Result<Self, Error> {
        let store = list::open(settings::paths(&context.overrides, &context.environment).store())?;
        let (snapshot, records) = (store.read().await?, store.records().await?.records);
        let mut served = Self::default();
        let mut recorded = HashMap::new();
        for record in &records {
            served.add(&record.url, record.id, server);
            let current = record.credential.as_ref().map(|credential| credential.token.digest());
            let tokens = current.into_iter().chain(record.former_digests.iter().copied());
            recorded.extend(tokens.filter_map(|token| Some(((&record.url, token), record.id?))));
        }
        for entry in &snapshot.entries {
            let Some(url) = &entry.url else { continue };
            let token = entry.token.token().map(Token::digest);
            let recorded = token.and_then(|token| recorded.get(&(url, token)).copied());
            let id = entry.id.or(recorded);
            served.add(url, id, server);
            // A claimed id may be wrong; the one that the server has confirmed counts too.
            served.add(url, recorded, server);
            if id.is_none() && url.host() == server.host() {
                return Err(Error::Verdict {
                    exit: Exit::LocalFile,
                    message: format!(
                        "the entry `{}` in config.toml has no known id, so it could be any of these runners",
                        entry.name.as_deref().unwrap_or_default()
                    ),
                    hint: Some("run `verify` first, which learns the id".to_owned()),
                });
            }
        }
        Ok(served)
    }

    fn add(&mut self, url: &ServerUrl, id: Option<RunnerId>, server: &ServerUrl) {
        let Some(id) = id else { return };
        if url == server {
            self.ids.insert(id);
        } else if may_be_same(url, server) {
            self.elsewhere.insert(id, url.clone());
        }
    }
}

/// Whether two addresses may belong to one GitLab. A name, an alias and an address of a server cannot be told from those
/// of another one, except for GitLab.com.
fn may_be_same(url: &ServerUrl, other: &ServerUrl) -> bool {
    (url.host() == PUBLIC_GITLAB) == (other.host() == PUBLIC_GITLAB)
}

/// The runners that are not online or have no status.
async fn silent(session: &FleetSession, arguments: &PruneArguments) -> Result<Vec<FleetRunner>, Error> {
    let filters = filters(&arguments.filters);
    let scope = scope(&arguments.place);
    let mut pages = session.fleet.runners(&scope, &filters);
    let mut silent = Vec::new();
    while let Some(page) = next_page(session, &mut pages).await? {
        let is_silent = |runner: &FleetRunner| {
            matches(runner, None, &filters) != Match::No
                && runner.status != Some(ContactStatus::Online)
                && runner.online != Some(true)
        };
        silent.extend(page.into_iter().filter(is_silent));
    }
    Ok(silent)
}

/// The runners whose last contact, or creation if there was none, is long enough ago.
async fn stale(
    session: &FleetSession,
    silent: Vec<FleetRunner>,
    arguments: &PruneArguments,
) -> Result<Vec<Target>, Error> {
    let filters = filters(&arguments.filters);
    let mut stale = Vec::new();
    let mut unknown = 0_usize;
    for runner in silent {
        if session.interrupt.is_interrupted() {
            return Err(Error::Interrupted("nothing was deleted".to_owned()));
        }
        let answer = match session.ask(async || session.fleet.runner(runner.id, false).await).await {
            Ok(answer) => answer,
            // Deleted since it was listed.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let now = answer.date.unwrap_or_else(|| session.now());
        let details: RunnerDetails = answer.value;
        let unclear = match matches(&runner, Some(Details { details: &details, at: now }), &filters) {
            Match::Yes => None,
            Match::No => continue,
            Match::Unclear(field) => Some(field),
        };
        match last_seen(&details) {
            None => unknown += 1,
            Some(at) if is_long_ago(at, now, arguments) => {
                stale.push(Target { id: runner.id, runner: Some(runner), unclear });
            }
            Some(_) => {}
        }
    }
    if unknown > 0 {
        session.reporter.remark(&format!(
            "kept, because the server does not report their age: {unknown} runners that were never in contact"
        ));
    }
    if stale.is_empty() {
        session.reporter.remark(&format!("no runner is stale for {}", format_span(arguments.stale)));
    }
    Ok(stale)
}

/// The last contact, or the creation of a runner that was never in contact. A runner that was seen at a time that is
/// missing or unreadable has neither.
fn last_seen(details: &RunnerDetails) -> Option<Timestamp> {
    let created_at = details.runner.created_at.filter(|_| details.runner.online.is_none());
    details.contacted_at.or(created_at)
}

fn is_long_ago(at: Timestamp, now: Timestamp, arguments: &PruneArguments) -> bool {
    now.since(at) >= arguments.stale
}
