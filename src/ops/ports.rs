//! The two ports: what operations need of a server and of a disk.

use std::path::PathBuf;
use std::time::Duration;

use super::Failure;
use crate::gitlab::fleet::{Manager, NewRunner};
use crate::gitlab::{self, Answer, Info, RegisterParameters, Registered, Reset, Verified};
use crate::model::{RunnerId, RunnerKey, Site, SystemId, Timestamp};
use crate::secret::Token;
use crate::store::{
    self, Edit, Edited, EntrySelector, EntryText, Intent, JournalAnswer, Pending, Record, Records, Snapshot, Store,
};

/// What a call to a server brings.
pub(super) type Answered<T> = Result<Answer<T>, Failure>;

/// The calls of a GitLab that operations make; each is one request, sent once.
#[expect(async_fn_in_trait, reason = "everything runs on one thread")]
pub trait Server: 'static {
    /// Reads certificates again at their next use.
    fn forget_tls(&self) {}

    /// Makes a runner.
    async fn register(&self, site: &Site, token: &Token, parameters: &RegisterParameters) -> Answered<Registered>;

    /// Makes a runner with an access token.
    async fn create(&self, site: &Site, access_token: &Token, new: &NewRunner) -> Answered<Registered>;

    /// Makes a runner through the API of 2016.
    async fn register_v1(&self, site: &Site, token: &Token, parameters: &RegisterParameters) -> Answered<Registered>;

    /// Asks whether a token is good, and until when.
    async fn verify(&self, site: &Site, token: &Token, id: &SystemId, info: Option<&Info>) -> Answered<Verified>;

    /// Deletes a runner with all its managers.
    async fn delete_runner(&self, site: &Site, token: &Token) -> Answered<()>;

    /// Deletes a runner through the API of 2016.
    async fn delete_v1(&self, site: &Site, token: &Token) -> Answered<()>;

    /// Deletes this machine's manager of a runner.
    async fn delete_manager(&self, site: &Site, token: &Token, id: &SystemId) -> Answered<()>;

    /// Replaces a token by a new one.
    async fn reset(&self, site: &Site, token: &Token, id: &SystemId) -> Answered<Reset>;

    /// Replaces a token by a new one with an access token.
    async fn reset_by_id(&self, site: &Site, id: RunnerId, access_token: &Token) -> Answered<Reset>;

    /// The machines that use a runner's token.
    async fn managers(&self, site: &Site, id: RunnerId, access_token: &Token) -> Answered<Vec<Manager>>;
}

/// Implements methods of a port by the type's own ones of the same names.
macro_rules! by_own_methods {
    ($(async fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)+) => {
        $(async fn $name(&self $(, $argument: $type)*) -> $result {
            Self::$name(self $(, $argument)*).await.map_err(Into::into)
        })+
    };
}

impl Server for gitlab::Client {
    fn forget_tls(&self) {
        Self::forget_tls(self);
    }

    async fn create(&self, site: &Site, access_token: &Token, new: &NewRunner) -> Answered<Registered> {
        Ok(self.fleet(site.clone(), access_token.clone()).create(new).await?)
    }

    async fn managers(&self, site: &Site, id: RunnerId, access_token: &Token) -> Answered<Vec<Manager>> {
        Ok(self.fleet(site.clone(), access_token.clone()).managers(id).await?)
    }

    by_own_methods! {
        async fn register(&self, site: &Site, token: &Token, parameters: &RegisterParameters) -> Answered<Registered>;
        async fn register_v1(&self, site: &Site, token: &Token, parameters: &RegisterParameters) -> Answered<Registered>;
        async fn verify(&self, site: &Site, token: &Token, id: &SystemId, info: Option<&Info>) -> Answered<Verified>;
        async fn delete_runner(&self, site: &Site, token: &Token) -> Answered<()>;
        async fn delete_v1(&self, site: &Site, token: &Token) -> Answered<()>;
        async fn delete_manager(&self, site: &Site, token: &Token, id: &SystemId) -> Answered<()>;
        async fn reset(&self, site: &Site, token: &Token, id: &SystemId) -> Answered<Reset>;
        async fn reset_by_id(&self, site: &Site, id: RunnerId, access_token: &Token) -> Answered<Reset>;
    }
}

type Stored<T> = Result<T, store::Error>;

/// What operations need of the disk; see [`Store`] for what each call promises.
#[expect(async_fn_in_trait, reason = "everything runs on one thread")]
pub trait Disk: 'static {
    /// Held during one operation on one runner.
    type RunnerLock;

    /// Keeps other processes from working on one runner.
    async fn lock_runner(&self, key: &RunnerKey, wait: Duration) -> Stored<Self::RunnerLock>;
    /// Reads config.toml.
    async fn read(&self) -> Stored<Snapshot>;
    /// Changes config.toml durably.
    async fn edit(&self, edit: Edit) -> Stored<Edited>;
    /// The texts of a runner's entries, without their credentials.
    async fn texts(&self, target: EntrySelector) -> Stored<Vec<EntryText>>;
    /// Does everything a replace needs but the rename.
    async fn probe(&self) -> Stored<()>;
    /// Reads one record.
    async fn record(&self, key: &RunnerKey) -> Stored<Option<Record>>;
    /// Reads all records.
    async fn records(&self) -> Stored<Records>;
    /// Writes a record durably.
    async fn save_record(&self, record: Record) -> Stored<()>;
    /// Removes a runner's record.
    async fn remove_record(&self, key: &RunnerKey) -> Stored<()>;
    /// Writes down what is about to be asked.
    async fn begin(&self, key: &RunnerKey, intent: Intent) -> Stored<()>;
    /// Adds the answer.
    async fn answered(&self, key: &RunnerKey, answer: JournalAnswer) -> Stored<()>;
    /// Ends an operation.
    async fn clear(&self, key: &RunnerKey) -> Stored<()>;
    /// The operations that were begun and not cleared.
    async fn pending(&self) -> Stored<Vec<Pending>>;
    /// One runner's operation that was begun and not cleared.
    async fn pending_of(&self, key: &RunnerKey) -> Stored<Option<Pending>>;
    /// Keeps an entry that was dropped from config.toml.
    async fn keep_dropped(&self, label: &str, text: &EntryText, at: Timestamp) -> Stored<Option<PathBuf>>;
}

impl Disk for Store {
    type RunnerLock = store::RunnerLock;

    by_own_methods! {
        async fn lock_runner(&self, key: &RunnerKey, wait: Duration) -> Stored<Self::RunnerLock>;
        async fn read(&self) -> Stored<Snapshot>;
        async fn edit(&self, edit: Edit) -> Stored<Edited>;
        async fn texts(&self, target: EntrySelector) -> Stored<Vec<EntryText>>;
        async fn probe(&self) -> Stored<()>;
        async fn record(&self, key: &RunnerKey) -> Stored<Option<Record>>;
        async fn records(&self) -> Stored<Records>;
        async fn save_record(&self, record: Record) -> Stored<()>;
        async fn remove_record(&self, key: &RunnerKey) -> Stored<()>;
        async fn begin(&self, key: &RunnerKey, intent: Intent) -> Stored<()>;
        async fn answered(&self, key: &RunnerKey, answer: JournalAnswer) -> Stored<()>;
        async fn clear(&self, key: &RunnerKey) -> Stored<()>;
        async fn pending(&self) -> Stored<Vec<Pending>>;
        async fn pending_of(&self, key: &RunnerKey) -> Stored<Option<Pending>>;
        async fn keep_dropped(&self, label: &str, text: &EntryText, at: Timestamp) -> Stored<Option<PathBuf>>;
    }
}
