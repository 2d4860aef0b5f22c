//! The two ports of the operations: server and disk.

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

/// The result of a call to a server.
pub(super) type Answered<T> = Result<Answer<T>, Failure>;

/// The calls to GitLab that operations make; each sends one request, once.
#[expect(async_fn_in_trait, reason = "everything runs on one thread")]
pub trait Server: 'static {
    /// Reloads certificates at their next use.
    fn forget_tls(&self) {}

    /// Registers a runner.
    async fn register(&self, site: &Site, token: &Token, parameters: &RegisterParameters) -> Answered<Registered>;

    /// Creates a runner with an access token.
    async fn create(&self, site: &Site, access_token: &Token, new: &NewRunner) -> Answered<Registered>;

    /// Registers a runner through the API v1 of 2016.
    async fn register_v1(&self, site: &Site, token: &Token, parameters: &RegisterParameters) -> Answered<Registered>;

    /// Asks whether a token is accepted, and when it expires.
    async fn verify(&self, site: &Site, token: &Token, id: &SystemId, info: Option<&Info>) -> Answered<Verified>;

    /// Deletes a runner with all its managers.
    async fn delete_runner(&self, site: &Site, token: &Token) -> Answered<()>;

    /// Deletes a runner through the API v1 of 2016.
    async fn delete_v1(&self, site: &Site, token: &Token) -> Answered<()>;

    /// Deletes this machine's manager of a runner.
    async fn delete_manager(&self, site: &Site, token: &Token, id: &SystemId) -> Answered<()>;

    /// Replaces a token, authenticated by itself.
    async fn reset(&self, site: &Site, token: &Token, id: &SystemId) -> Answered<Reset>;

    /// Replaces the token of a runner, authenticated by an access token.
    async fn reset_by_id(&self, site: &Site, id: RunnerId, access_token: &Token) -> Answered<Reset>;

    /// Lists the machines that use a runner's token.
    async fn managers(&self, site: &Site, id: RunnerId, access_token: &Token) -> Answered<Vec<Manager>>;
}

/// Implements methods of a port by the type's own methods of the same names.
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

/// The disk operations; see [`Store`] for the guarantees of each call.
#[expect(async_fn_in_trait, reason = "everything runs on one thread")]
pub trait Disk: 'static {
    /// A runner's lock, held during one operation.
    type RunnerLock;

    /// Locks a runner against other processes.
    async fn lock_runner(&self, key: &RunnerKey, wait: Duration) -> Stored<Self::RunnerLock>;
    /// Reads config.toml.
    async fn read(&self) -> Stored<Snapshot>;
    /// Changes config.toml durably.
    async fn edit(&self, edit: Edit) -> Stored<Edited>;
    /// The texts of a runner's entries, without their credentials.
    async fn texts(&self, target: EntrySelector) -> Stored<Vec<EntryText>>;
    /// Checks that config.toml can be replaced, by doing everything except the rename.
    async fn probe(&self) -> Stored<()>;
    /// Reads one record.
    async fn record(&self, key: &RunnerKey) -> Stored<Option<Record>>;
    /// Reads all records.
    async fn records(&self) -> Stored<Records>;
    /// Writes a record durably.
    async fn save_record(&self, record: Record) -> Stored<()>;
    /// Removes a runner's record.
    async fn remove_record(&self, key: &RunnerKey) -> Stored<()>;
    /// Journals the intent of an operation.
    async fn begin(&self, key: &RunnerKey, intent: Intent) -> Stored<()>;
    /// Journals the answer.
    async fn answered(&self, key: &RunnerKey, answer: JournalAnswer) -> Stored<()>;
    /// Clears the journal of an operation.
    async fn clear(&self, key: &RunnerKey) -> Stored<()>;
    /// The journals that are not cleared.
    async fn pending(&self) -> Stored<Vec<Pending>>;
    /// One runner's journal, if it is not cleared.
    async fn pending_of(&self, key: &RunnerKey) -> Stored<Option<Pending>>;
    /// Keeps the text of a dropped entry; returns its file.
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
