//! What hooks are to be run for: `hooks/<key>.json` in the state directory, one file for each runner, access token, and the
//! settings.

use std::path::PathBuf;
use std::rc::Rc;

use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use super::blocking::BlockingStore;
use super::error::Error;
use super::files::{FileIn, OwnFile as _, names_in, read_file, remove_durably, remove_file, replace_file};
use super::{Store, held};
use crate::files::{OwnDirectory, is_there};
use crate::model::{Announced, HookDelivery, HookRecord, RunnerKey};

/// Incremented when a field changes its meaning; other schemas are rejected.
const SCHEMA: u32 = 1;

/// Ends the name of a file that a command reads a token from. A crash can leave it.
const TOKEN: &str = ".token";

/// Stands before the number of the process that tests a hook, in the name of such a file.
const TEST: &str = ".test-";

/// Is there once every runner that was there before the first hook has its file.
const BEGUN: &str = "begun";

/// What was read.
#[derive(Debug, Default)]
pub struct HookFilesRead {
    /// The records.
    pub records: Vec<HookRecord>,
    /// The damaged ones, which are kept under other names.
    pub damaged: Vec<(RunnerKey, Error)>,
    /// Whether every runner that was there before the first hook has its file, so that one without a file is new.
    pub has_begun: bool,
}

/// The files of the hooks. Without a state directory there are none, and events are kept in memory alone.
#[derive(Clone, Debug)]
pub struct HookFiles(Store);

#[derive(Serialize, Deserialize)]
struct StoredRecord {
    schema: u32,
    announced: Announced,
    events: u64,
    queue: Vec<HookDelivery>,
}

impl HookFiles {
    /// Those of a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self(store)
    }

    /// Reads all of them, and removes what a crash has left.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn read(&self) -> Result<HookFilesRead, Error> {
        self.in_hooks(|hooks| {
            let mut read = HookFilesRead::default();
            for name in names_in(hooks.path())? {
                let Some(name) = name.to_str() else { continue };
                let file = FileIn { directory: hooks, name: name.to_owned() };
                if name.ends_with(TOKEN)
                    && !is_in_use(name)
                    && let Err(error) = remove_file(&file)
                {
                    tracing::warn!(%error, "cannot remove the file that a hook's command has read a token from"
                    );
                }
                read.has_begun |= name == BEGUN;
                let key = name.strip_suffix(".json").and_then(|key| RunnerKey::try_from(key.to_owned()).ok());
                let Some(key) = key else { continue };
                match read_record(&file, key.clone()) {
                    Ok(record) => read.records.extend(record),
                    Err(error @ Error::Record { .. }) => {
                        set_aside(&file)?;
                        read.damaged.push((key, error));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(read)
        })
        .await
    }

    /// Notes durably that every runner that was there before the first hook has its file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn begin(&self) -> Result<(), Error> {
        self.in_hooks(|hooks| replace_file(&FileIn { directory: hooks, name: BEGUN.to_owned() }, b"")).await
    }

    /// Writes one durably.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn save(&self, record: HookRecord) -> Result<(), Error> {
        self.in_hooks(move |hooks| {
            let HookRecord { key, announced, events, queue } = record;
            let file = file_of(hooks, &key);
            let invalid = |error: serde_json::Error| Error::Record { path: file.path(), reason: held::at(&error) };
            let stored = StoredRecord { schema: SCHEMA, announced, events, queue };
            replace_file(&file, &serde_json::to_vec(&stored).map_err(invalid)?)
        })
        .await
    }

    /// Removes one durably.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn remove(&self, key: RunnerKey) -> Result<(), Error> {
        self.in_hooks(move |hooks| remove_durably(&file_of(hooks, &key))).await
    }

    /// Removes all of them, for settings without hooks.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn remove_all(&self) -> Result<(), Error> {
        let work = |disk: &mut BlockingStore| {
            let Some(path) = disk.state().map(|state| state.join("hooks")) else { return Ok(()) };
            if !is_there(&path) {
                return Ok(());
            }
            let Some(hooks) = disk.hook_files()? else { return Ok(()) };
            for name in names_in(hooks.path())? {
                if let Some(name) = name.to_str() {
                    remove_file(&FileIn { directory: &hooks, name: name.to_owned() })?;
                }
            }
            Ok(())
        };
        self.0.work(work).await
    }

    /// The path for a file of this stem that a command reads a token from; `None` without a state directory. [`read`] removes
    /// those that are left.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// [`read`]: HookFiles::read
    pub async fn token_path(&self, stem: String) -> Result<Option<PathBuf>, Error> {
        self.in_hooks(move |hooks| Ok(Some(hooks.path().join(format!("{stem}{TOKEN}"))))).await
    }

    /// As [`HookFiles::token_path`], for a test by this process, while which the file stays.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn token_path_of_test(&self, hook: &str) -> Result<Option<PathBuf>, Error> {
        self.token_path(format!("{hook}{TEST}{}", std::process::id())).await
    }

    async fn in_hooks<T: Default + Send + 'static>(
        &self,
        work: impl FnOnce(&Rc<OwnDirectory>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let work = move |disk: &mut BlockingStore| match disk.hook_files()? {
            Some(hooks) => work(&hooks),
            None => Ok(T::default()),
        };
        self.0.work(work).await
    }
}

/// Whether the process that tests a hook with this file is at work. Another one may have its number: then the file stays
/// until that has ended.
fn is_in_use(name: &str) -> bool {
    let number = name.strip_suffix(TOKEN).and_then(|stem| stem.rsplit_once(TEST)?.1.parse().ok());
    number.and_then(Pid::from_raw).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// Renames a damaged file. An older one that was damaged is replaced.
fn set_aside(file: &FileIn<'_>) -> Result<(), Error> {
    let place = file.place("rename")?;
    let mut name = place.name().to_owned();
    name.push(".damaged");
    place.rename(&place.sibling(name)).map_err(Error::io("rename", &file.path()))
}

fn file_of<'d>(hooks: &'d OwnDirectory, key: &RunnerKey) -> FileIn<'d> {
    FileIn { directory: hooks, name: format!("{key}.json") }
}

fn read_record(file: &FileIn<'_>, key: RunnerKey) -> Result<Option<HookRecord>, Error> {
    let Some(content) = read_file(file)? else { return Ok(None) };
    let damaged = |reason| Error::Record { path: file.path(), reason };
    let stored: StoredRecord = serde_json::from_slice(&content).map_err(|error| damaged(held::at(&error)))?;
    let StoredRecord { schema, announced, events, queue } = stored;
    if schema != SCHEMA {
        return Err(damaged(format!("unknown schema {schema}")));
    }
    Ok(Some(HookRecord { key, announced, events, queue }))
}
