//! The two seams: what operations need of a server and of a disk.

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

/// The calls of a GitLab that operations make; each is one request, sent once.
#[expect(async_fn_in_trait, reason = "everything runs on one thread")]
pub trait Server {
    /// Reads certificates again at their next use.
    fn forget_tls(&self) {}

    /// Makes a runner.
    async fn register(
        &self,
        site: &Site,
        registration_token: &Token,
        parameters: &RegisterParameters,
    ) -> Result<Answer<Registered>, Failure>;

    /// Makes a runner with an access token.
    async fn create(&self, site: &Site, access_token: &Token, new: &NewRunner) -> Result<Answer<Registered>, Failure>;

    /// Makes a runner through the API of 2016.
    async fn register_v1(
        &self,
        site: &Site,
        registration_token: &Token,
        parameters: &RegisterParameters,
    ) -> Result<Answer<Registered>, Failure>;

    /// Asks whether a token is good, and until when.
    async fn verify(
        &self,
        site: &Site,
        token: &Token,
        system_id: &SystemId,
        info: Option<&Info>,
    ) -> Result<Answer<Verified>, Failure>;

    /// Deletes a runner with all its managers.
    async fn delete_runner(&self, site: &Site, token: &Token) -> Result<Answer<()>, Failure>;

    /// Deletes a runner through the API of 2016.
    async fn delete_v1(&self, site: &Site, token: &Token) -> Result<Answer<()>, Failure>;

    /// Deletes this machine's manager of a runner.
    async fn delete_manager(&self, site: &Site, token: &Token, system_id: &SystemId) -> Result<Answer<()>, Failure>;

    /// Replaces a token by a new one.
    async fn reset(&self, site: &Site, token: &Token, system_id: &SystemId) -> Result<Answer<Reset>, Failure>;

    /// Replaces a token by a new one with an access token.
    async fn reset_by_id(&self, site: &Site, id: RunnerId, access_token: &Token) -> Result<Answer<Reset>, Failure>;

    /// The machines that use a runner's token.
    async fn managers(&self, site: &Site, id: RunnerId, access_token: &Token) -> Result<Answer<Vec<Manager>>, Failure>;
}

impl Server for gitlab::Client {
    fn forget_tls(&self) {
        Self::forget_tls(self);
    }

    async fn register(
        &self,
        site: &Site,
        registration_token: &Token,
        parameters: &RegisterParameters,
    ) -> Result<Answer<Registered>, Failure> {
        Ok(Self::register(self, site, registration_token, parameters).await?)
    }

    async fn verify(
        &self,
        site: &Site,
        token: &Token,
        system_id: &SystemId,
        info: Option<&Info>,
    ) -> Result<Answer<Verified>, Failure> {
        Ok(Self::verify(self, site, token, system_id, info).await?)
    }

    async fn delete_runner(&self, site: &Site, token: &Token) -> Result<Answer<()>, Failure> {
        Ok(Self::delete_runner(self, site, token).await?)
    }

    async fn create(&self, site: &Site, access_token: &Token, new: &NewRunner) -> Result<Answer<Registered>, Failure> {
        Ok(self.fleet(site.clone(), access_token.clone()).create(new).await?)
    }

    async fn register_v1(
        &self,
        site: &Site,
        registration_token: &Token,
        parameters: &RegisterParameters,
    ) -> Result<Answer<Registered>, Failure> {
        Ok(Self::register_v1(self, site, registration_token, parameters).await?)
    }

    async fn delete_v1(&self, site: &Site, token: &Token) -> Result<Answer<()>, Failure> {
        Ok(Self::delete_v1(self, site, token).await?)
    }

    async fn delete_manager(&self, site: &Site, token: &Token, system_id: &SystemId) -> Result<Answer<()>, Failure> {
        Ok(Self::delete_manager(self, site, token, system_id).await?)
    }

    async fn reset(&self, site: &Site, token: &Token, system_id: &SystemId) -> Result<Answer<Reset>, Failure> {
        Ok(Self::reset(self, site, token, system_id).await?)
    }

    async fn reset_by_id(&self, site: &Site, id: RunnerId, access_token: &Token) -> Result<Answer<Reset>, Failure> {
        Ok(Self::reset_by_id(self, site, id, access_token).await?)
    }

    async fn managers(&self, site: &Site, id: RunnerId, access_token: &Token) -> Result<Answer<Vec<Manager>>, Failure> {
        Ok(self.fleet(site.clone(), access_token.clone()).managers(id).await?)
    }
}

/// What operations need of the disk; see [`Store`] for what each call promises.
#[expect(async_fn_in_trait, reason = "everything runs on one thread")]
pub trait Disk {
    /// Validity during one operation on one runner.
    type RunnerLock;

    /// Keeps other processes from working on one runner.
    async fn lock_runner(&self, key: &RunnerKey, wait: Duration) -> Result<Self::RunnerLock, store::Error>;
    /// Reads config.toml.
    async fn read(&self) -> Result<Snapshot, store::Error>;
    /// Changes config.toml durably.
    async fn edit(&self, edit: Edit) -> Result<Edited, store::Error>;
    /// The texts of a runner's entries, without their credentials.
    async fn texts(&self, target: EntrySelector) -> Result<Vec<EntryText>, store::Error>;
    /// Does everything a replace needs but the rename.
    async fn probe(&self) -> Result<(), store::Error>;
    /// Reads one record.
    async fn record(&self, key: &RunnerKey) -> Result<Option<Record>, store::Error>;
    /// Reads all records.
    async fn records(&self) -> Result<Records, store::Error>;
    /// Writes a record durably.
    async fn save_record(&self, record: Record) -> Result<(), store::Error>;
    /// Forgets a runner.
    async fn remove_record(&self, key: &RunnerKey) -> Result<(), store::Error>;
    /// Writes down what is about to be asked.
    async fn begin(&self, key: &RunnerKey, intent: Intent) -> Result<(), store::Error>;
    /// Adds the answer.
    async fn answered(&self, key: &RunnerKey, answer: JournalAnswer) -> Result<(), store::Error>;
    /// Ends an operation.
    async fn clear(&self, key: &RunnerKey) -> Result<(), store::Error>;
    /// The operations that were begun and not cleared.
    async fn pending(&self) -> Result<Vec<Pending>, store::Error>;
    /// One runner's operation that was begun and not cleared.
    async fn pending_of(&self, key: &RunnerKey) -> Result<Option<Pending>, store::Error>;
    /// Keeps an entry that was dropped from config.toml.
    async fn keep_dropped(&self, label: &str, text: &EntryText, at: Timestamp)
    -> Result<Option<PathBuf>, store::Error>;
}

impl Disk for Store {
    type RunnerLock = store::RunnerLock;

    async fn lock_runner(&self, key: &RunnerKey, wait: Duration) -> Result<Self::RunnerLock, store::Error> {
        Self::lock_runner(self, key, wait).await
    }

    async fn read(&self) -> Result<Snapshot, store::Error> {
        Self::read(self).await
    }

    async fn edit(&self, edit: Edit) -> Result<Edited, store::Error> {
        Self::edit(self, edit).await
    }

    async fn texts(&self, target: EntrySelector) -> Result<Vec<EntryText>, store::Error> {
        Self::texts(self, target).await
    }

    async fn probe(&self) -> Result<(), store::Error> {
        Self::probe(self).await
    }

    async fn record(&self, key: &RunnerKey) -> Result<Option<Record>, store::Error> {
        Self::record(self, key).await
    }

    async fn records(&self) -> Result<Records, store::Error> {
        Self::records(self).await
    }

    async fn save_record(&self, record: Record) -> Result<(), store::Error> {
        Self::save_record(self, record).await
    }

    async fn remove_record(&self, key: &RunnerKey) -> Result<(), store::Error> {
        Self::remove_record(self, key).await
    }

    async fn begin(&self, key: &RunnerKey, intent: Intent) -> Result<(), store::Error> {
        Self::begin(self, key, intent).await
    }

    async fn answered(&self, key: &RunnerKey, answer: JournalAnswer) -> Result<(), store::Error> {
        Self::answered(self, key, answer).await
    }

    async fn clear(&self, key: &RunnerKey) -> Result<(), store::Error> {
        Self::clear(self, key).await
    }

    async fn pending(&self) -> Result<Vec<Pending>, store::Error> {
        Self::pending(self).await
    }

    async fn pending_of(&self, key: &RunnerKey) -> Result<Option<Pending>, store::Error> {
        Self::pending_of(self, key).await
    }

    async fn keep_dropped(
        &self,
        label: &str,
        text: &EntryText,
        at: Timestamp,
    ) -> Result<Option<PathBuf>, store::Error> {
        Self::keep_dropped(self, label, text, at).await
    }
}
