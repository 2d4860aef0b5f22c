//! The disk thread's state: paths, and the blocking work on them.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::config_file::ParseContext;
use super::config_lock::{ConfigLocks, Urgency};
use super::draft::{Draft, ParsedText};
use super::edit::{Edit, Edited, EntrySelector};
use super::entry_text::EntryText;
use super::error::Error;
use super::files::{
    FileContent, FileIn, OwnFile as _, Seen, make_directory, open_if_there, parent, read_version, resolve,
};
use super::journal::{Intent, JournalAnswer, OpenJournals};
use super::locks::{self, LockAttempt};
use super::record::{self, Record};
use super::replace::{CONFIG_RULES, FileRules, ReplaceTarget};
use super::snapshot::Snapshot;
use super::state_directory::{self, StateDirectory};
use super::state_index::{RecordQuery, StateIndex};
use super::test_hooks::TestHooks;
use super::{Config, OnDisk, dropped, held, journal, splice, system_id, token_variables};
use crate::files::{Exposure, OwnDirectory, Place, look};
use crate::model::{Held, RunnerKey, SystemId, Timestamp};
use crate::secret::{Digest, Fingerprint};

/// Peak disk use of an operation, in bytes: a journal, a record, and its replacement.
const PROBE_BYTES: usize = 16 * 1024;

/// How long a probe speaks for the next operation too: many at once need not try the same disk each.
const PROBE_LIFE: Duration = Duration::from_secs(1);

/// The paths of one config.toml and its state.
pub(super) struct BlockingStore {
    config: Config,
    state: Option<StateDirectory>,
    runners: Option<Rc<OwnDirectory>>,
    /// The directory of what is kept about access tokens, once it was needed.
    access: Option<Rc<OwnDirectory>>,
    /// The directory of what hooks are to be run for, once it was needed.
    hook_files: Option<Rc<OwnDirectory>>,
    system_id: Option<SystemId>,
    journals: OpenJournals,
    /// The same for access tokens.
    pub(super) access_journals: OpenJournals,
    /// config.toml as it was last read or written.
    parsed: Option<ParsedText>,
    /// How another user could have written config.toml as it was last read: its `$NAME` tokens are not expanded then.
    exposure: Option<Exposure>,
    /// That of the last [`Snapshot`].
    found: u64,
    index: StateIndex,
    /// When the last probe has found that the disk can be used.
    probed_at: Option<Instant>,
    locks: ConfigLocks,
    hooks: TestHooks,
}

impl BlockingStore {
    /// Creates the state directories, probes them, and finishes an interrupted write.
    pub(super) fn open(config: Config, hooks: TestHooks) -> Result<Self, Error> {
        let path = resolve(&config.config_path)?;
        let state = config
            .state_root
            .as_deref()
            .map(|root| state_directory::open(root, &config.config_path, &path))
            .transpose()?;
        let runners = state.as_ref().map(|state| Rc::new(OwnDirectory::new(state.path.join("runners"))));
        let locks = ConfigLocks::new(config.root_locks.clone(), hooks.clone());
        let disk = Self {
            config,
            state,
            runners,
            system_id: None,
            journals: OpenJournals::default(),
            access_journals: OpenJournals::default(),
            access: None,
            hook_files: None,
            parsed: None,
            exposure: None,
            found: 0,
            index: StateIndex::default(),
            probed_at: None,
            locks,
            hooks,
        };
        disk.probe_state()?;
        let replay = || match disk.place()? {
            Some(place) => disk.target(&place).replay(),
            None => Ok(()),
        };
        if let Err(error) = replay() {
            tracing::error!(%error, "cannot finish an interrupted write of config.toml");
        }
        Ok(disk)
    }

    /// Resolves config.toml; a symbolic link may have changed.
    pub(super) fn path(&self) -> Result<PathBuf, Error> {
        resolve(&self.config.config_path)
    }

    /// Resolves config.toml; `None` if its directory is missing.
    fn place(&self) -> Result<Option<Place>, Error> {
        match Place::find(&self.config.config_path) {
            Ok(place) => Ok(Some(place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &self.config.config_path)(error)),
        }
    }

    /// As [`Self::place`], with the directory made if it is missing.
    fn place_to_write(&self) -> Result<Place, Error> {
        let path = &self.config.config_path;
        if let Some(place) = self.place()? {
            return Ok(place);
        }
        make_directory(parent(&self.path()?))?;
        Place::find(path).map_err(Error::io("read", path))
    }

    /// `STATE/<hash>`.
    pub(super) fn state(&self) -> Option<&Path> {
        self.state.as_ref().map(|state| state.path.as_path())
    }

    /// The directory of records, journals and runner locks.
    pub(super) fn runners(&self) -> Option<Rc<OwnDirectory>> {
        let runners = self.runners.as_ref()?;
        runners.begin_task();
        Some(Rc::clone(runners))
    }

    /// The directory of records and journals of access tokens; `None` without a state directory.
    pub(super) fn access(&mut self) -> Result<Option<Rc<OwnDirectory>>, Error> {
        let Some(path) = self.state().map(|state| state.join("access")) else { return Ok(None) };
        make_directory(&path)?;
        let access = self.access.get_or_insert_with(|| Rc::new(OwnDirectory::new(path)));
        access.begin_task();
        Ok(Some(Rc::clone(access)))
    }

    /// The directory of what hooks are to be run for; `None` without a state directory.
    pub(super) fn hook_files(&mut self) -> Result<Option<Rc<OwnDirectory>>, Error> {
        let Some(path) = self.state().map(|state| state.join("hooks")) else { return Ok(None) };
        make_directory(&path)?;
        let hooks = self.hook_files.get_or_insert_with(|| Rc::new(OwnDirectory::new(path)));
        hooks.begin_task();
        Ok(Some(Rc::clone(hooks)))
    }

    pub(super) fn read(&mut self) -> Result<Arc<Snapshot>, Error> {
        if let Some(parsed) = self.parsed()? {
            return Ok(Arc::clone(&parsed.snapshot));
        }
        self.found += u64::from(self.parsed.take().is_some());
        Ok(Arc::new(Snapshot::missing().with_found(self.found)))
    }

    /// config.toml, read and parsed again only if it has changed; `None` if it is missing.
    fn parsed(&mut self) -> Result<Option<&ParsedText>, Error> {
        // The path is resolved only if the file is another one.
        let seen = self.parsed.as_ref().and_then(|parsed| parsed.seen);
        let is_seen = |seen| look(&self.config.config_path).is_ok_and(|found| Seen::of(&found) == seen);
        if !seen.is_some_and(is_seen) {
            let Some(place) = self.place()? else { return Ok(None) };
            let Some(FileContent { content, seen, opened }) = read_version(&place)? else { return Ok(None) };
            self.note_owner(opened.exposure(), &content);
            if self.parsed.as_ref().is_none_or(|parsed| parsed.text.as_bytes() != content) {
                let text = self.target(&place).text(&content)?.to_owned();
                self.found += 1;
                let reading = self.reading(place.path());
                self.parsed = Some(ParsedText::parse(text, self.found, self.parsed.as_ref(), reading)?);
            }
            self.parsed.as_mut().into_iter().for_each(|parsed| parsed.seen = seen);
        }
        Ok(self.parsed.as_ref())
    }

    /// Another user could otherwise have any variable of the environment sent to a server of his own.
    fn note_owner(&mut self, exposure: Option<Exposure>, content: &[u8]) {
        if self.exposure == exposure {
            return;
        }
        self.exposure = exposure;
        // It is parsed again.
        self.parsed = None;
        let named = token_variables(String::from_utf8_lossy(content).into_owned());
        if let Some(exposure) = exposure.filter(|_| !named.is_empty()) {
            let path = self.config.config_path.display();
            tracing::warn!(%path, "tokens from variables are not used in this file: {exposure}");
        }
    }

    /// Tries to lock a runner; `None` without a state directory.
    pub(super) fn try_lock_runner(&self, key: &RunnerKey) -> Result<Option<LockAttempt>, Error> {
        self.runners()
            .map(|runners| locks::try_lock(&FileIn { directory: &runners, name: format!("{key}.lock") }))
            .transpose()
    }

    pub(super) fn on_disk(&mut self, key: &RunnerKey) -> OnDisk {
        let snapshot = self.read();
        let Some(runners) = self.runners() else {
            return OnDisk { record: Ok(None), held: Ok(Held::default()), pending: Ok(None), snapshot };
        };
        OnDisk {
            record: record::read(&runners, key),
            held: held::read(&runners, key),
            pending: journal::pending_of(&runners, key),
            snapshot,
        }
    }

    pub(super) fn save_record(&mut self, record: &Record) -> Result<(), Error> {
        let Some(runners) = self.runners() else { return Ok(()) };
        let written = record::save(&runners, record)?;
        self.index.note_written(record, written);
        Ok(())
    }

    pub(super) fn records_with(&mut self, query: &RecordQuery) -> Result<Vec<Record>, Error> {
        self.runners().map_or_else(|| Ok(Vec::new()), |runners| self.index.records(&runners, query))
    }

    pub(super) fn lost_resets_of(&mut self, token: Digest) -> Result<Vec<RunnerKey>, Error> {
        self.runners().map_or_else(|| Ok(Vec::new()), |runners| self.index.lost_resets_of(&runners, token))
    }

    pub(super) fn texts(&mut self, target: &EntrySelector) -> Result<Vec<EntryText>, Error> {
        let path = self.path()?;
        if self.parsed()?.is_none() {
            return Ok(Vec::new());
        }
        let reading = self.reading(&path);
        let Some(parsed) = &self.parsed else { return Ok(Vec::new()) };
        let mut draft = Draft::around(parsed, &parsed.snapshot.positions_of(target));
        match draft.apply(&Edit::Remove { target: target.clone() }, reading) {
            Ok(edited) => Ok(edited.removed),
            Err(Error::NoSuchEntry { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Makes several changes with one replace; each has its own result.
    pub(super) fn edit(&mut self, edits: &[Edit]) -> Vec<Result<Edited, Error>> {
        match self.edit_together(edits) {
            Ok(results) => results,
            Err(error) => edits.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn edit_together(&mut self, edits: &[Edit]) -> Result<Vec<Result<Edited, Error>>, Error> {
        let is_insert = |edit: &Edit| matches!(edit, Edit::Insert { .. });
        let place = if edits.iter().any(is_insert) { Some(self.place_to_write()?) } else { self.place()? };
        let Some(place) = place else { return Ok(self.edit_nothing(edits, &self.path()?)) };
        let mut parsed = self.parsed.take();
        let target = self.target(&place);
        target.replay()?;
        let reading = self.reading(place.path());
        if open_if_there(&place)?.is_none() && !edits.iter().any(is_insert) {
            // Nothing to lock.
            return Ok(self.edit_nothing(edits, place.path()));
        }
        let (mut results, mut found) = (Vec::new(), self.found);
        target.replace(&mut |original| {
            let (edited, edited_results) = edited(original, &mut found, parsed.as_ref(), edits, reading);
            results = edited_results;
            match edited {
                Some(edited) => parsed.insert(edited).text.clone(),
                None => original.to_owned(),
            }
        })?;
        (self.parsed, self.found) = (parsed, found);
        Ok(results)
    }

    /// What the changes come to without a file.
    fn edit_nothing(&self, edits: &[Edit], path: &Path) -> Vec<Result<Edited, Error>> {
        edits.iter().map(|edit| splice::apply("", edit, self.reading(path)).map(|(_, edited)| edited)).collect()
    }

    pub(super) fn begin(&mut self, key: &RunnerKey, intent: &Intent) -> Result<(), Error> {
        self.runners().map_or(Ok(()), |runners| self.journals.begin(&runners, key, intent))
    }

    pub(super) fn answered(&mut self, key: &RunnerKey, answer: &JournalAnswer) -> Result<(), Error> {
        self.runners().map_or(Ok(()), |runners| self.journals.answered(&runners, key, answer))
    }

    pub(super) fn take_back_to(&mut self, key: &RunnerKey, intent: &Intent) -> Result<(), Error> {
        self.runners().map_or(Ok(()), |runners| self.journals.take_back_to(&runners, key, intent))
    }

    pub(super) fn clear(&mut self, key: &RunnerKey) -> Result<(), Error> {
        self.runners().map_or(Ok(()), |runners| self.journals.clear(&runners, key))
    }

    pub(super) fn probe(&mut self, urgency: Urgency) -> Result<(), Error> {
        if self.probed_at.is_some_and(|probed_at| probed_at.elapsed() < PROBE_LIFE) {
            return Ok(());
        }
        self.probed_at = None;
        self.probe_state()?;
        self.read()?;
        self.target(&self.place_to_write()?).probe(urgency)?;
        self.probed_at = Some(Instant::now());
        Ok(())
    }

    pub(super) fn expected_system_id(&mut self) -> Result<Option<SystemId>, Error> {
        system_id::read_or_derive(&self.path()?, &self.config.machine_id_path)
    }

    pub(super) fn system_id(&mut self) -> Result<SystemId, Error> {
        if let Some(system_id) = &self.system_id {
            return Ok(system_id.clone());
        }
        self.notice_copy()?;
        let system_id = system_id::read_or_create(&self.path()?, &self.config.machine_id_path, &self.locks)?;
        self.system_id = Some(system_id.clone());
        Ok(system_id)
    }

    /// Detects a state directory from another machine (a golden image, a restored disk). That machine may use the
    /// same tokens: the runners count as shared, and this machine takes its own system_id first, then marks the
    /// records. This order is crash-safe.
    fn notice_copy(&self) -> Result<(), Error> {
        let (Some(runners), Some(machine)) = (self.runners(), self.machine()) else { return Ok(()) };
        let is_foreign = |record: &Record| record.machine.as_ref().is_some_and(|known| *known != machine);
        let mut copied = record::read_all(&runners)?.records;
        copied.retain(is_foreign);
        if copied.is_empty() {
            return Ok(());
        }
        system_id::take_over(&self.path()?, &self.config.machine_id_path, &self.locks)?;
        tracing::error!(
            runners = copied.len(),
            "the state directory was copied from another machine: its runners count as shared and are not rotated here, and this machine has taken a system_id of its own; register runners of its own here, or say `shared = false` in a [[runner]] of agent.toml if the other machine is gone"
        );
        for mut record in copied {
            record.machine = Some(machine);
            record.is_copy = true;
            record::save(&runners, &record)?;
        }
        Ok(())
    }

    pub(super) fn machine(&self) -> Option<Fingerprint> {
        system_id::machine(&self.config.machine_id_path)
    }

    /// Keeps the text of a dropped entry under an unused name.
    pub(super) fn keep_dropped(&self, label: &str, text: &EntryText, at: Timestamp) -> Result<Option<PathBuf>, Error> {
        let Some(state) = self.state() else { return Ok(None) };
        dropped::keep(&state.join("dropped"), label, text, at)
    }

    /// A token file to replace.
    pub(super) fn token_target<'a>(&'a self, place: &'a Place, rules: &'a FileRules) -> ReplaceTarget<'a> {
        ReplaceTarget { place, rules, state: self.state(), locks: &self.locks, hooks: &self.hooks }
    }

    fn target<'a>(&'a self, place: &'a Place) -> ReplaceTarget<'a> {
        ReplaceTarget { place, rules: &CONFIG_RULES, state: self.state(), locks: &self.locks, hooks: &self.hooks }
    }

    fn reading<'a>(&self, path: &'a Path) -> ParseContext<'a> {
        let variables = if self.exposure.is_none() { self.config.variables } else { |_: &_| None };
        ParseContext { path, variables, exposure: self.exposure }
    }

    /// Checks that the state directory has space for an operation.
    fn probe_state(&self) -> Result<(), Error> {
        let Some(runners) = self.runners() else { return Ok(()) };
        let place = FileIn { directory: &runners, name: ".probe".to_owned() }.place("write")?;
        let path = place.path();
        // Several processes may probe concurrently with the same file.
        let written = place.create_or_empty().and_then(|mut file| {
            file.write_all(&[b'#'; PROBE_BYTES])?;
            file.sync_all()
        });
        place.remove().map_err(Error::io("remove", path))?;
        written.map_err(Error::io("write", path))
    }
}

/// A text with edits, parsed, and the result of each edit; no text if it cannot be edited at all. `former` is the last
/// known version of it, and `found` counts this one if it is another.
fn edited(
    original: &str,
    found: &mut u64,
    former: Option<&ParsedText>,
    edits: &[Edit],
    reading: ParseContext<'_>,
) -> (Option<ParsedText>, Vec<Result<Edited, Error>>) {
    let all = |error: Error| (None, edits.iter().map(|_| Err(error.clone())).collect());
    let mut again = None;
    let parsed = match former.filter(|former| former.text == original) {
        Some(former) => former,
        None => {
            *found += 1;
            match ParsedText::parse(original.to_owned(), *found, former, reading) {
                Ok(parsed) => again.insert(parsed),
                Err(error) => return all(error),
            }
        }
    };
    let mut draft = Draft::new(parsed);
    let results = edits.iter().map(|edit| draft.apply(edit, reading)).collect();
    match ParsedText::parse(draft.text(), *found, Some(parsed), reading) {
        Ok(edited) if draft.is_the_same(&edited.snapshot) => (Some(edited), results),
        Ok(_) | Err(_) => all(Error::EditMismatch { path: reading.path.to_owned() }),
    }
}
