//! The disk port: config.toml and the state directory of the world.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::world::{Cause, Files, Kind, Port, State, World, literal};
use crate::model::{Credential, Held, RunnerId, RunnerKey, ServerUrl, Timestamp, TlsFiles};
use crate::ops::Disk;
use crate::secret::Digest;
use crate::store::{
    self, Edit, Edited, Entry, EntrySelector, EntryText, EntryToken, Intent, JournalAnswer, JournalOperation, Pending,
    Record, RecordQuery, Records, Snapshot, Urgency,
};

type Stored<T> = Result<T, store::Error>;

pub(super) fn url() -> ServerUrl {
    "https://gitlab.example.com".parse().unwrap()
}

pub(super) fn entry(name: &str, id: Option<RunnerId>, credential: &Credential) -> Entry {
    Entry {
        position: 0,
        line: 1,
        name: Some(name.to_owned()),
        url: Some(url()),
        id,
        token: EntryToken::Literal(credential.token.clone()),
        obtained_at: credential.obtained_at,
        expiry: credential.expiry,
        executor: None,
        tls: TlsFiles::default(),
        rotation_disabled: false,
        problems: Vec::new(),
    }
}

fn text_of(entry: &Entry) -> EntryText {
    let name = entry.name.clone().unwrap_or_default();
    EntryText::parse(&format!("[[runners]]\nname = \"{name}\"\nurl = \"{}\"\n", url())).unwrap()
}

/// As the store does: an entry with a token that is neither the runner's nor in `over` is left alone.
fn renew(
    files: &mut Files,
    target: &EntrySelector,
    id: Option<RunnerId>,
    credential: &Credential,
    over: &[Digest],
) -> usize {
    let may_overwrite = |entry: &Entry| {
        let EntryToken::Literal(token) = &entry.token else { return true };
        let digest = token.digest();
        *token == credential.token || target.digests.contains(&digest) || over.contains(&digest)
    };
    let mut renewed = 0;
    for entry in files.entries.iter_mut().filter(|entry| target.matches(entry) && may_overwrite(entry)) {
        entry.token = EntryToken::Literal(credential.token.clone());
        entry.obtained_at = credential.obtained_at;
        entry.expiry = credential.expiry;
        entry.id = id.or(entry.id);
        renewed += 1;
    }
    renewed
}

/// Completes the first prepared entry of a name.
fn complete(files: &mut Files, name: &str, id: Option<RunnerId>, credential: &Credential) -> usize {
    let is_it = |entry: &&mut Entry| {
        let has_it = entry.token.token() == Some(&credential.token);
        entry.name.as_deref() == Some(name) && (entry.is_incomplete() || has_it)
    };
    let Some(prepared) = files.entries.iter_mut().find(is_it) else { return 0 };
    let Entry { position, line, .. } = *prepared;
    *prepared = Entry { position, line, ..entry(name, id, credential) };
    1
}

/// The lock of a runner, until it is dropped.
pub(super) struct Lock {
    world: World,
    key: RunnerKey,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.world.state().files.locks.remove(&self.key);
    }
}

impl Port {
    /// Does disk work, between two awaits. A failure comes before or instead of it.
    async fn work<T>(&self, name: &'static str, work: impl FnOnce(&mut State) -> Stored<T>) -> Stored<T> {
        self.world.pass().await;
        let result = {
            let state = &mut *self.world.state();
            // Without a state directory there is no journal and no record that could fail.
            let is_there = !state.is_stateless || matches!(name, "edit" | "read" | "texts" | "probe");
            match state.files.failing.get_mut(name).filter(|times| is_there && **times > 0) {
                Some(times) => {
                    *times -= 1;
                    state.disk_failed();
                    state.note(|| format!("  process {}: {name} fails", self.process));
                    Err(store::Error::Stopped)
                }
                None => {
                    let result = work(state);
                    if is_write(name) {
                        let entries = if name == "edit" { shown(&state.files.entries) } else { String::new() };
                        state.note(|| format!("  process {}: {name}{entries}", self.process));
                        state.check(Cause::Write(self.process));
                    }
                    result
                }
            }
        };
        self.world.pass().await;
        result
    }

    /// How many versions of config.toml the process has found.
    fn has_read(&self, state: &mut State) -> u64 {
        let State { processes, files, .. } = state;
        processes.get_mut(&self.process).map_or(0, |process| process.known.read(&files.entries))
    }

    fn has_written(&self, state: &mut State) {
        let State { processes, files, .. } = state;
        processes.get_mut(&self.process).into_iter().for_each(|process| process.known.written(&files.entries));
    }

    /// Whether an entry may go although its runner lives on.
    fn check_removal(&self, state: &mut State, entry: &Entry) {
        let Some(token) = literal(entry) else { return };
        let owner = state.gitlab.database.iter().find(|(_, runner)| runner.token == token).map(|(id, _)| *id);
        let Some(id) = owner else { return };
        let intent = state.processes.get(&self.process).map(|process| process.intent.clone()).unwrap_or_default();
        let is_created = state.gitlab.database[&id].is_created;
        let now = state.now();
        if state.gitlab.database[&id].expires_at.is_some_and(|at| at < now) {
            return;
        }
        let is_kept = state.files.entries.iter().any(|other| literal(other) == Some(token));
        let is_named = entry.name.as_ref().is_some_and(|name| intent.names.contains(name));
        let is_home = entry.name.as_ref().and_then(|name| state.homes.get(name)) == Some(&id);
        // A person may have put one of its former tokens into another entry, which counts as its entry too.
        let is_moved = state.duplicated_at > 0;
        if is_named && (is_kept || !is_home || is_moved) || state.let_go.contains(&id) {
            return;
        }
        // A person has put its token into another entry after an unregistration that a disk fault has cut off: the
        // next process finishes that, and the entry's text is kept.
        let is_unfinished = state.files.journal.values().any(|pending| {
            let operation = &pending.intent.operation;
            let of = match operation {
                JournalOperation::Unregister { id, .. } => id.map(RunnerId::number),
                JournalOperation::Register { .. } | JournalOperation::Rotate { .. } => None,
            };
            of == Some(id) && pending.answer.is_some()
        });
        if is_moved && is_unfinished && state.last_disk_fault > 0 {
            return;
        }
        if !(intent.runners.contains(&id) && is_created) {
            state.violate(Kind::Deleted, format!("the entry of runner {id} was removed, and the runner lives on"));
        }
    }
}

/// The entries for a trace.
fn shown(entries: &[Entry]) -> String {
    let shown = |entry: &Entry| {
        let id = entry.id.map(RunnerId::number).unwrap_or_default();
        format!(" {}:{id}:{}", entry.name.as_deref().unwrap_or_default(), literal(entry).unwrap_or_default())
    };
    entries.iter().map(shown).collect()
}

fn is_write(name: &str) -> bool {
    !matches!(name, "read" | "get_record" | "get_held" | "records" | "probe" | "pending" | "texts" | "lock")
}

impl Disk for Port {
    type RunnerLock = Lock;

    fn has_state(&self) -> bool {
        !self.world.state().is_stateless
    }

    async fn lock_runner(&self, key: &RunnerKey, wait: Duration) -> Stored<Lock> {
        self.world.pass().await;
        let until = tokio::time::Instant::now() + wait;
        loop {
            if self.world.state().files.locks.insert(key.clone()) {
                return Ok(Lock { world: self.world.clone(), key: key.clone() });
            }
            if tokio::time::Instant::now() >= until {
                return Err(store::Error::RunnerLocked { key: key.clone(), holder: None });
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    async fn read(&self) -> Stored<Arc<Snapshot>> {
        self.work("read", |state| {
            let mut entries = state.files.entries.clone();
            for (position, entry) in entries.iter_mut().enumerate() {
                (entry.position, entry.line) = (position, position * 10 + 1);
            }
            let found = self.has_read(state);
            Ok(Arc::new(Snapshot::new(entries, true).with_found(found)))
        })
        .await
    }

    async fn edit(&self, edit: Edit) -> Stored<Edited> {
        self.work("edit", |state| {
            let missing = || store::Error::NoSuchEntry { path: PathBuf::new(), runner: String::new() };
            let before = state.files.entries.clone();
            self.has_read(state);
            let edited = match edit {
                Edit::Renew { target, id, credential, over } => {
                    let has_match = state.files.entries.iter().any(|entry| target.matches(entry));
                    match renew(&mut state.files, &target, id, &credential, &over) {
                        0 if has_match => Err(store::Error::UnknownToken { path: PathBuf::new(), line: 1 }),
                        0 => Err(missing()),
                        entries => Ok(Edited { entries, removed: Vec::new() }),
                    }
                }
                Edit::Insert { text, id, credential } => {
                    let url = text.url().unwrap_or_else(url);
                    let digests = vec![credential.token.digest()];
                    let target = EntrySelector { url: url.clone(), id, digests, name: None };
                    let name = text.name().unwrap_or_default();
                    if renew(&mut state.files, &target, id, &credential, &[]) == 0
                        && complete(&mut state.files, &name, id, &credential) == 0
                    {
                        state.files.entries.push(Entry { url: Some(url), ..entry(&name, id, &credential) });
                    }
                    Ok(Edited { entries: 1, removed: Vec::new() })
                }
                Edit::Complete { name, url, id, credential } => {
                    let digests = vec![credential.token.digest()];
                    let target = EntrySelector { url, id, digests, name: None };
                    match renew(&mut state.files, &target, id, &credential, &[])
                        + complete(&mut state.files, &name, id, &credential)
                    {
                        0 => Err(missing()),
                        entries => Ok(Edited { entries, removed: Vec::new() }),
                    }
                }
                Edit::Remove { target } => {
                    let (gone, kept): (Vec<_>, Vec<_>) =
                        state.files.entries.drain(..).partition(|entry| target.may_remove(entry));
                    state.files.entries = kept;
                    for entry in &gone {
                        self.check_removal(state, entry);
                    }
                    if gone.is_empty() {
                        return Err(missing());
                    }
                    Ok(Edited { entries: gone.len(), removed: gone.iter().map(text_of).collect() })
                }
            };
            self.has_written(state);
            // An edit that changes nothing writes nothing.
            if state.files.entries != before {
                state.config_changed();
            }
            edited
        })
        .await
    }

    async fn texts(&self, target: EntrySelector) -> Stored<Vec<EntryText>> {
        self.work("texts", |state| {
            let own = state.files.entries.iter().filter(|entry| target.matches(entry));
            Ok(own.map(text_of).collect())
        })
        .await
    }

    async fn probe(&self, _urgency: Urgency) -> Stored<()> {
        self.work("probe", |_| Ok(())).await
    }

    async fn record(&self, key: &RunnerKey) -> Stored<Option<Record>> {
        self.work("get_record", |state| Ok(state.files.records.get(key).cloned())).await
    }

    async fn records(&self) -> Stored<Records> {
        self.work("records", |state| {
            Ok(Records { records: state.files.records.values().cloned().collect(), damaged: Vec::new() })
        })
        .await
    }

    async fn records_with(&self, _: RecordQuery) -> Stored<Vec<Record>> {
        Ok(self.records().await?.records)
    }

    async fn save_record(&self, record: Record) -> Stored<()> {
        self.work("record", |state| {
            if state.is_stateless {
                return Ok(());
            }
            state.files.records.insert(record.key.clone(), record);
            Ok(())
        })
        .await
    }

    async fn remove_record(&self, key: &RunnerKey) -> Stored<()> {
        self.work("forget", |state| {
            state.files.records.remove(key);
            Ok(())
        })
        .await
    }

    async fn held(&self, key: &RunnerKey) -> Stored<Held> {
        self.work("get_held", |state| Ok(state.files.held.get(key).cloned().unwrap_or_default())).await
    }

    async fn save_held(&self, key: &RunnerKey, held: Held) -> Stored<()> {
        self.work("held", |state| {
            if held.is_empty() {
                state.files.held.remove(key);
            } else if !state.is_stateless {
                state.files.held.insert(key.clone(), held);
            }
            Ok(())
        })
        .await
    }

    async fn begin(&self, key: &RunnerKey, intent: Intent) -> Stored<()> {
        self.work("begin", |state| {
            if state.is_stateless {
                return Ok(());
            }
            let answer = state.files.journal.get(key).and_then(|pending| pending.answer.as_ref());
            if answer.is_some_and(|answer| answer.token.is_some()) {
                return Err(store::Error::Unsettled { key: key.clone() });
            }
            let pending = Pending { key: key.clone(), intent, answer: None };
            state.files.journal.insert(key.clone(), pending);
            Ok(())
        })
        .await
    }

    async fn answered(&self, key: &RunnerKey, answer: JournalAnswer) -> Stored<()> {
        self.work("answered", |state| match state.files.journal.get_mut(key) {
            _ if state.is_stateless => Ok(()),
            Some(pending) => {
                pending.answer = Some(answer);
                Ok(())
            }
            None => Err(store::Error::NotBegun { key: key.clone() }),
        })
        .await
    }

    async fn take_back_to(&self, key: &RunnerKey, intent: Intent) -> Stored<()> {
        self.work("take_back_to", |state| {
            if !state.is_stateless {
                let pending = Pending { key: key.clone(), intent, answer: None };
                state.files.journal.insert(key.clone(), pending);
            }
            Ok(())
        })
        .await
    }

    async fn clear(&self, key: &RunnerKey) -> Stored<()> {
        self.work("clear", |state| {
            state.files.journal.remove(key);
            Ok(())
        })
        .await
    }

    async fn pending(&self) -> Stored<Vec<Pending>> {
        self.work("pending", |state| Ok(state.files.journal.values().cloned().collect())).await
    }

    async fn pending_of(&self, key: &RunnerKey) -> Stored<Option<Pending>> {
        self.work("pending", |state| Ok(state.files.journal.get(key).cloned())).await
    }

    async fn lost_resets_of(&self, token: Digest) -> Stored<Vec<RunnerKey>> {
        self.work("pending", |state| {
            let lost = state.files.journal.values().filter(|pending| pending.is_lost_reset_of(token));
            Ok(lost.map(|pending| pending.key.clone()).collect())
        })
        .await
    }

    async fn keep_dropped(&self, _: &str, _: &EntryText, _: Timestamp) -> Stored<Option<PathBuf>> {
        self.work("keep_dropped", |_| Ok(None)).await
    }
}
