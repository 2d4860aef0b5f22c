//! Selects the runners of a command.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::Error;
use super::arguments::{SecretArgument, Selection};
use crate::engine::{Inventory, ManagedRunner};
use crate::model::{RunnerId, ServerUrl};
use crate::ops::Runner;
use crate::secret::{Digest, Source, Token, TokenClass, TokenPurpose, read_descriptor, read_stream};
use crate::settings::Environment;
use crate::store::{Entry, EntryProblem, Record, Snapshot};

/// A runner that a command can select: from config.toml, or from a record whose entry is still to be written.
#[derive(Debug)]
pub(super) struct Candidate {
    /// The entries; several if config.toml repeats a runner. Once it is chosen: those that were selected.
    pub(super) entries: Vec<Entry>,
    /// Once it is chosen: the entries with the same token that were not selected, at this address or another one.
    pub(super) others: Vec<Entry>,
    /// Once it is chosen: the entries of its twins with another token, which were not selected.
    pub(super) twins: Vec<Entry>,
    /// The runner, or why its entry is unusable.
    pub(super) runner: Result<ManagedRunner, EntryProblem>,
}

/// A usable runner that a command has selected.
#[derive(Debug)]
pub(super) struct Selected {
    /// The runner.
    pub(super) managed: ManagedRunner,
    /// The entries by which it was selected; none if its entry is still to be written.
    pub(super) entries: Vec<Entry>,
    /// The entries with the same token that were not selected. What the command does to the runner concerns them too.
    pub(super) others: Vec<Entry>,
    /// The entries at another address whose token was this runner's before, or the other way around: they may be the
    /// same runner.
    pub(super) twins: Vec<Entry>,
}

/// The criteria of a selection, with the token read.
#[derive(Debug)]
pub(super) struct RunnerSelector {
    selection: Selection,
    /// The token to select by.
    pub(super) token: Option<Token>,
}

/// Arranges an inventory by the entries of config.toml; runners whose entry waits to be written come last.
pub(super) fn candidates(inventory: Inventory, snapshot: &Snapshot) -> Vec<Candidate> {
    let registered = |managed: &ManagedRunner| managed.runner.record.credential.is_some();
    // A command drives a runner as it is: what an enrollment wants is the daemon's to do.
    let found = |managed| ManagedRunner { enrollment: None, ..managed };
    let runners: Vec<_> = inventory.runners.into_iter().filter(registered).map(found).collect();
    let mut owners = Owners::default();
    for (number, managed) in runners.iter().enumerate() {
        owners.add(&managed.runner, number);
    }
    let mut runners: Vec<_> = runners.into_iter().map(Some).collect();
    let mut places: HashMap<usize, usize> = HashMap::new();
    let mut candidates: Vec<Candidate> = Vec::with_capacity(snapshot.entries.len());
    for entry in &snapshot.entries {
        let owner = owners.of(entry);
        if let Some(place) = owner.and_then(|owner| places.get(&owner)) {
            candidates[*place].entries.push(entry.clone());
            continue;
        }
        let runner = match owner.and_then(|owner| Some((owner, runners[owner].take()?))) {
            Some((owner, managed)) => {
                places.insert(owner, candidates.len());
                Ok(managed)
            }
            None => Err(entry.access().err().unwrap_or(EntryProblem::NoToken)),
        };
        candidates.push(Candidate { entries: vec![entry.clone()], others: Vec::new(), twins: Vec::new(), runner });
    }
    let unwritten =
        |runner| Candidate { entries: Vec::new(), others: Vec::new(), twins: Vec::new(), runner: Ok(runner) };
    candidates.extend(runners.into_iter().flatten().map(unwritten));
    candidates
}

/// Which runner an entry belongs to, the same as by [`crate::ops::is_own`] and without comparing each with each.
#[derive(Default)]
struct Owners {
    by_id: HashMap<(ServerUrl, RunnerId), usize>,
    by_token: HashMap<(ServerUrl, Digest), usize>,
}

impl Owners {
    /// Adds a runner; the first one of an id or token keeps it.
    fn add(&mut self, runner: &Runner, number: usize) {
        let target = runner.target();
        if let Some(id) = target.id {
            self.by_id.entry((target.url.clone(), id)).or_insert(number);
        }
        for digest in target.digests {
            self.by_token.entry((target.url.clone(), digest)).or_insert(number);
        }
    }

    fn of(&self, entry: &Entry) -> Option<usize> {
        let url = entry.url.as_ref()?;
        let by_id = entry.id.and_then(|id| self.by_id.get(&(url.clone(), id)));
        let token = entry.token.token().map(Token::digest);
        let by_token = token.and_then(|token| self.by_token.get(&(url.clone(), token)));
        by_id.into_iter().chain(by_token).min().copied()
    }
}

impl Candidate {
    /// The name of its first entry, or the label of its runner.
    pub(super) fn name(&self) -> Option<String> {
        let of_entry = self.entries.first().and_then(|entry| entry.name.clone());
        of_entry.or_else(|| self.runner.as_ref().ok().map(|managed| managed.runner.label().to_owned()))
    }

    /// The runner's record, if its entry can be used.
    pub(super) fn record(&self) -> Option<&Record> {
        self.runner.as_ref().ok().map(|managed| &managed.runner.record)
    }

    /// Whether the two may be one runner, whichever the inventory lists first.
    fn is_twin_of(&self, other: &Self) -> bool {
        let (Ok(one), Ok(other)) = (&self.runner, &other.runner) else { return false };
        one.twin_of.as_ref() == Some(&other.runner.record.key) || other.twin_of.as_ref() == Some(&one.runner.record.key)
    }

    /// Distinguishes it from other candidates: id and server, and the line of its entry.
    fn description(&self) -> String {
        let entry = self.entries.first();
        let record = self.record();
        let id = record.and_then(|record| record.id).or(entry.and_then(|entry| entry.id));
        let url = record.map(|record| &record.url).or(entry.and_then(|entry| entry.url.as_ref()));
        let place = entry.map(|entry| format!(" (line {})", entry.line)).unwrap_or_default();
        match (id, url) {
            (Some(id), Some(url)) => format!("--id {id} --url {url}{place}"),
            (Some(id), None) => format!("--id {id}{place}"),
            (None, Some(url)) => format!("no id at {url}{place}"),
            (None, None) => format!("no id{place}"),
        }
    }
}

impl RunnerSelector {
    /// Reads the token of a selection.
    ///
    /// # Errors
    /// [`Error::Usage`] or [`Error::Secret`] for an invalid or unreadable token.
    pub(super) fn new(mut selection: Selection, environment: &Environment) -> Result<Self, Error> {
        if let Some(positional) = selection.positional.take() {
            selection.name = Some(positional.name().map_err(misplaced_token)?.to_owned());
        }
        let token = match (&selection.token, &selection.token_file) {
            (Some(argument), _) => Some(argument_token("--token", argument, TokenPurpose::Runner)?),
            (None, Some(path)) => Some(read_file(path, environment, TokenPurpose::Runner)?),
            (None, None) => None,
        };
        Ok(Self { selection, token })
    }

    /// Whether all runners are selected.
    pub(super) fn selects_all(&self) -> bool {
        self.selection.is_empty()
    }

    /// Server and token, if exactly these are given: they suffice without an entry.
    pub(super) fn without_entry(&self) -> Option<(crate::model::ServerUrl, Token)> {
        let Selection { name: None, id: None, url: Some(url), .. } = &self.selection else { return None };
        Some((url.clone(), self.token.clone()?))
    }

    /// Returns the selected candidates with the entries that were selected. A server alone may select several; other
    /// criteria must select one.
    ///
    /// # Errors
    /// [`Error::Usage`] if none match, or several where one is required; the message lists them.
    pub(super) fn choose(&self, candidates: Vec<Candidate>) -> Result<Vec<Candidate>, Error> {
        if self.selects_all() {
            return Ok(candidates);
        }
        let (mut chosen, rest): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|candidate| self.matches(candidate));
        chosen.iter_mut().for_each(|candidate| self.narrow(candidate, &rest));
        let must_be_one = self.selection.name.is_some() || self.selection.id.is_some() || self.token.is_some();
        match chosen.len() {
            0 => Err(Error::Usage(format!("no runner in config.toml has {self}"))),
            1 => Ok(chosen),
            _ if !must_be_one => Ok(chosen),
            number => {
                let choices: Vec<_> =
                    chosen.iter().map(|candidate| format!("\n  {}", candidate.description())).collect();
                Err(Error::Usage(format!("{number} runners have {self}, choose one by{}", choices.concat())))
            }
        }
    }

    /// Tells the selected entries from those that only share their token.
    fn narrow(&self, candidate: &mut Candidate, rest: &[Candidate]) {
        let is_selected = |entry: &Entry| self.selection.name.is_none() || entry.name == self.selection.name;
        let tokens: Vec<_> = candidate.entries.iter().filter_map(|entry| entry.token.token()).cloned().collect();
        let has_token = |entry: &&Entry| entry.token.token().is_some_and(|token| tokens.contains(token));
        let elsewhere = rest.iter().flat_map(|candidate| &candidate.entries).filter(has_token).cloned().collect();
        (candidate.entries, candidate.others) =
            std::mem::take(&mut candidate.entries).into_iter().partition(is_selected);
        candidate.others.extend::<Vec<_>>(elsewhere);
        let twins = rest.iter().filter(|other| candidate.is_twin_of(other)).flat_map(|other| &other.entries);
        candidate.twins = twins.filter(|entry| !has_token(entry)).cloned().collect();
    }

    fn matches(&self, candidate: &Candidate) -> bool {
        let Selection { name, url, id, .. } = &self.selection;
        let record = candidate.record();
        let entries = &candidate.entries;
        let has_name = |name: &String| {
            entries.iter().any(|entry| entry.name.as_ref() == Some(name))
                || entries.is_empty() && record.is_some_and(|record| record.name.as_ref() == Some(name))
        };
        let has_url = |url| {
            entries.iter().any(|entry| entry.url.as_ref() == Some(url))
                || record.is_some_and(|record| record.url == *url)
        };
        let has_id = |id: &crate::model::RunnerId| {
            entries.iter().any(|entry| entry.id == Some(*id)) || record.is_some_and(|record| record.id == Some(*id))
        };
        let has_token = |token: &Token| {
            let current = record.and_then(|record| record.credential.as_ref());
            entries.iter().any(|entry| entry.token.token() == Some(token))
                || current.is_some_and(|credential| credential.token == *token)
        };
        name.as_ref().is_none_or(has_name)
            && url.as_ref().is_none_or(has_url)
            && id.as_ref().is_none_or(has_id)
            && self.token.as_ref().is_none_or(has_token)
    }
}

impl std::fmt::Display for RunnerSelector {
    /// `the name `a` and the id 5`
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Selection { name, url, id, .. } = &self.selection;
        let parts = [
            name.as_ref().map(|name| format!("the name `{name}`")),
            url.as_ref().map(|url| format!("the url {url}")),
            id.as_ref().map(|id| format!("the id {id}")),
            self.token.as_ref().map(|token| format!("the token with the fingerprint {}", token.fingerprint())),
        ];
        formatter.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(" and "))
    }
}

/// A token where a name belongs; it is not repeated.
pub(super) fn misplaced_token(class: TokenClass) -> Error {
    Error::Usage(format!(
        "this is {class}, not a name: select by token with --token-file, or by name; anyone who could see the command line has read it"
    ))
}

/// The token of a flag.
pub(super) fn argument_token(flag: &str, argument: &SecretArgument, purpose: TokenPurpose) -> Result<Token, Error> {
    let token = argument.token().map_err(|error| Error::Usage(format!("{flag}: {error}")))?;
    purpose.check(&token).map_err(|wrong| Error::Usage(format!("{flag}: {wrong}")))?;
    Ok(token)
}

/// The token of a flag that names a file; warns if all users can read the file.
pub(super) fn read_file(path: &Path, environment: &Environment, purpose: TokenPurpose) -> Result<Token, Error> {
    let source = file_source(path, environment)?;
    if let Some(remark) = source.warning() {
        tracing::warn!("{remark}");
    }
    Ok(source.read_for(purpose)?)
}

/// The source of a secret: a file, or stdin for `-` or an inherited descriptor for `fd:3`, which are read at once.
pub(super) fn file_source(path: &Path, environment: &Environment) -> Result<Source, Error> {
    let word = path.to_str().unwrap_or_default();
    let descriptor = word.strip_prefix("fd:").and_then(|number| number.parse().ok());
    let token = match descriptor {
        Some(number) => read_descriptor(number)?,
        None if word == "-" => read_stream(io::stdin().lock(), "stdin")?,
        None => return Ok(Source::File(environment.absolute(path))),
    };
    let origin = if descriptor.is_some() { word } else { "stdin" };
    Ok(Source::Value { token, origin: origin.to_owned() })
}
