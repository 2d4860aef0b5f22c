//! The two ports of the operations: server and disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{AccessToken, Failure};
use crate::gitlab::fleet::{Manager, NewRunner};
use crate::gitlab::{
    self, Answer, IN_FLIGHT_PER_HOST, Info, REQUEST_TIMEOUT, RegisterParameters, Registered, Reset, RotatedAccessToken,
    Verified,
};
use crate::model::{
    AccessTokenFacts, AccessTokenOwner, Held, RunnerId, RunnerKey, ServerUrl, Site, SystemId, Timestamp,
};
use crate::secret::{Digest, Token};
use crate::store::{
    self, Edit, Edited, EntrySelector, EntryText, Intent, JournalAnswer, OnDisk, Pending, Record, RecordQuery, Records,
    Snapshot, Store, Urgency,
};

/// The result of a call to a server.
pub(super) type Answered<T> = Result<Answer<T>, Failure>;

/// The calls to GitLab that operations make; each sends one request, once.
#[expect(async_fn_in_trait, missing_docs, reason = "one thread runs everything; the implementation has the docs")]
pub trait Server: 'static {
    fn forget_tls(&self) {}
    /// The number of requests that may be under way to one host; at least one.
    fn in_flight_per_host(&self) -> usize {
        IN_FLIGHT_PER_HOST
    }
    /// How long an answer is waited for.
    fn request_timeout(&self) -> Duration {
        REQUEST_TIMEOUT
    }
    async fn register(&self, site: &Site, token: &Token, parameters: &RegisterParameters) -> Answered<Registered>;
    async fn create(&self, url: &ServerUrl, access: &AccessToken, new: &NewRunner) -> Answered<Registered>;
    async fn register_v1(&self, site: &Site, token: &Token, parameters: &RegisterParameters) -> Answered<Registered>;
    async fn verify(&self, site: &Site, token: &Token, id: &SystemId, info: Option<&Info>) -> Answered<Verified>;
    async fn probe(&self, site: &Site) -> Answered<()>;
    async fn delete_runner(&self, site: &Site, token: &Token) -> Answered<()>;
    async fn delete_v1(&self, site: &Site, token: &Token) -> Answered<()>;
    async fn delete_manager(&self, site: &Site, token: &Token, id: &SystemId) -> Answered<()>;
    async fn reset(&self, site: &Site, token: &Token, id: &SystemId) -> Answered<Reset>;
    async fn reset_by_id(&self, url: &ServerUrl, id: RunnerId, access: &AccessToken) -> Answered<Reset>;
    async fn managers(&self, url: &ServerUrl, id: RunnerId, access: &AccessToken) -> Answered<Vec<Manager>>;
    async fn description(&self, url: &ServerUrl, id: RunnerId, access: &AccessToken) -> Answered<Option<String>>;
}

/// The calls to GitLab that keep an access token; each sends one request, once.
#[expect(async_fn_in_trait, reason = "one thread runs everything")]
pub trait AccessServer: 'static {
    /// How long an answer is waited for.
    fn request_timeout(&self) -> Duration {
        REQUEST_TIMEOUT
    }
    /// Asks about a token with itself. [`Disposition::Unsupported`](gitlab::Disposition::Unsupported) from a server that
    /// does not have the call, [`Reason::AccessToken`](gitlab::Reason::AccessToken) for a token that it refuses.
    async fn access_token_facts(&self, url: &ServerUrl, access: &AccessToken) -> Answered<AccessTokenFacts>;
    /// Replaces a token with itself; the new one ends at `expires_at`, 00:00 UTC of a day. GitLab revokes the new token if
    /// the old one is sent here again.
    async fn rotate_access_token(
        &self,
        url: &ServerUrl,
        access: &AccessToken,
        owner: &AccessTokenOwner,
        expires_at: Timestamp,
    ) -> Answered<RotatedAccessToken>;
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

    fn in_flight_per_host(&self) -> usize {
        Self::in_flight_per_host(self)
    }

    fn request_timeout(&self) -> Duration {
        Self::request_timeout(self)
    }

    async fn create(&self, url: &ServerUrl, access: &AccessToken, new: &NewRunner) -> Answered<Registered> {
        Ok(self.fleet(access.site(url), access.token.clone()).create(new).await?)
    }

    async fn reset_by_id(&self, url: &ServerUrl, id: RunnerId, access: &AccessToken) -> Answered<Reset> {
        Ok(Self::reset_by_id(self, &access.site(url), id, &access.token).await?)
    }

    async fn managers(&self, url: &ServerUrl, id: RunnerId, access: &AccessToken) -> Answered<Vec<Manager>> {
        Ok(self.fleet(access.site(url), access.token.clone()).managers(id).await?)
    }

    async fn description(&self, url: &ServerUrl, id: RunnerId, access: &AccessToken) -> Answered<Option<String>> {
        let answer = self.fleet(access.site(url), access.token.clone()).runner(id, false).await?;
        Ok(Answer { value: answer.value.runner.description, date: answer.date, request_id: answer.request_id })
    }

    by_own_methods! {
        async fn register(&self, site: &Site, token: &Token, parameters: &RegisterParameters) -> Answered<Registered>;
        async fn register_v1(&self, site: &Site, token: &Token, parameters: &RegisterParameters) -> Answered<Registered>;
        async fn verify(&self, site: &Site, token: &Token, id: &SystemId, info: Option<&Info>) -> Answered<Verified>;
        async fn probe(&self, site: &Site) -> Answered<()>;
        async fn delete_runner(&self, site: &Site, token: &Token) -> Answered<()>;
        async fn delete_v1(&self, site: &Site, token: &Token) -> Answered<()>;
        async fn delete_manager(&self, site: &Site, token: &Token, id: &SystemId) -> Answered<()>;
        async fn reset(&self, site: &Site, token: &Token, id: &SystemId) -> Answered<Reset>;
    }
}

impl AccessServer for gitlab::Client {
    fn request_timeout(&self) -> Duration {
        Self::request_timeout(self)
    }

    async fn access_token_facts(&self, url: &ServerUrl, access: &AccessToken) -> Answered<AccessTokenFacts> {
        Ok(Self::access_token_facts(self, &access.site(url), &access.token).await?)
    }

    async fn rotate_access_token(
        &self,
        url: &ServerUrl,
        access: &AccessToken,
        owner: &AccessTokenOwner,
        expires_at: Timestamp,
    ) -> Answered<RotatedAccessToken> {
        Ok(Self::rotate_access_token(self, &access.site(url), &access.token, owner, expires_at).await?)
    }
}

type Stored<T> = Result<T, store::Error>;

/// The disk operations; see [`Store`] for the guarantees of each call.
#[expect(async_fn_in_trait, missing_docs, reason = "one thread runs everything; the implementation has the docs")]
pub trait Disk: 'static {
    type RunnerLock;
    fn has_state(&self) -> bool;
    /// The process is about to end.
    fn hurry(&self) {}
    async fn lock_runner(&self, key: &RunnerKey, wait: Duration) -> Stored<Self::RunnerLock>;
    async fn read(&self) -> Stored<Arc<Snapshot>>;
    async fn edit(&self, edit: Edit) -> Stored<Edited>;
    async fn texts(&self, target: EntrySelector) -> Stored<Vec<EntryText>>;
    async fn probe(&self, urgency: Urgency) -> Stored<()>;
    async fn record(&self, key: &RunnerKey) -> Stored<Option<Record>>;
    async fn records(&self) -> Stored<Records>;
    async fn records_with(&self, query: RecordQuery) -> Stored<Vec<Record>>;
    /// What an operation on a runner starts from; see [`OnDisk`].
    async fn on_disk(&self, key: &RunnerKey) -> Stored<OnDisk> {
        let (record, held) = (self.record(key).await, self.held(key).await);
        Ok(OnDisk { record, held, pending: self.pending_of(key).await, snapshot: self.read().await })
    }
    /// Locks a runner without waiting, and reads what an operation on it starts from.
    async fn lock_and_read(&self, key: &RunnerKey) -> Stored<(Self::RunnerLock, OnDisk)> {
        Ok((self.lock_runner(key, Duration::ZERO).await?, self.on_disk(key).await?))
    }
    async fn save_record(&self, record: Record) -> Stored<()>;
    async fn remove_record(&self, key: &RunnerKey) -> Stored<()>;
    async fn held(&self, key: &RunnerKey) -> Stored<Held>;
    /// [`Disk::held`] of each of these runners.
    async fn held_of(&self, keys: Vec<RunnerKey>) -> Stored<Vec<Stored<Held>>> {
        let mut all = Vec::with_capacity(keys.len());
        for key in keys {
            all.push(self.held(&key).await);
        }
        Ok(all)
    }
    async fn save_held(&self, key: &RunnerKey, held: Held) -> Stored<()>;
    async fn begin(&self, key: &RunnerKey, intent: Intent) -> Stored<()>;
    async fn answered(&self, key: &RunnerKey, answer: JournalAnswer) -> Stored<()>;
    async fn take_back_to(&self, key: &RunnerKey, intent: Intent) -> Stored<()>;
    async fn clear(&self, key: &RunnerKey) -> Stored<()>;
    async fn pending(&self) -> Stored<Vec<Pending>>;
    async fn pending_of(&self, key: &RunnerKey) -> Stored<Option<Pending>>;
    async fn lost_resets_of(&self, token: Digest) -> Stored<Vec<RunnerKey>>;
    async fn keep_dropped(&self, label: &str, text: &EntryText, at: Timestamp) -> Stored<Option<PathBuf>>;
}

impl Disk for Store {
    type RunnerLock = store::RunnerLock;

    fn has_state(&self) -> bool {
        Self::has_state(self)
    }

    fn hurry(&self) {
        Self::hurry(self);
    }

    by_own_methods! {
        async fn lock_runner(&self, key: &RunnerKey, wait: Duration) -> Stored<Self::RunnerLock>;
        async fn read(&self) -> Stored<Arc<Snapshot>>;
        async fn edit(&self, edit: Edit) -> Stored<Edited>;
        async fn texts(&self, target: EntrySelector) -> Stored<Vec<EntryText>>;
        async fn probe(&self, urgency: Urgency) -> Stored<()>;
        async fn record(&self, key: &RunnerKey) -> Stored<Option<Record>>;
        async fn on_disk(&self, key: &RunnerKey) -> Stored<OnDisk>;
        async fn lock_and_read(&self, key: &RunnerKey) -> Stored<(Self::RunnerLock, OnDisk)>;
        async fn records(&self) -> Stored<Records>;
        async fn records_with(&self, query: RecordQuery) -> Stored<Vec<Record>>;
        async fn save_record(&self, record: Record) -> Stored<()>;
        async fn remove_record(&self, key: &RunnerKey) -> Stored<()>;
        async fn held(&self, key: &RunnerKey) -> Stored<Held>;
        async fn held_of(&self, keys: Vec<RunnerKey>) -> Stored<Vec<Stored<Held>>>;
        async fn save_held(&self, key: &RunnerKey, held: Held) -> Stored<()>;
        async fn begin(&self, key: &RunnerKey, intent: Intent) -> Stored<()>;
        async fn answered(&self, key: &RunnerKey, answer: JournalAnswer) -> Stored<()>;
        async fn take_back_to(&self, key: &RunnerKey, intent: Intent) -> Stored<()>;
        async fn clear(&self, key: &RunnerKey) -> Stored<()>;
        async fn pending(&self) -> Stored<Vec<Pending>>;
        async fn pending_of(&self, key: &RunnerKey) -> Stored<Option<Pending>>;
        async fn lost_resets_of(&self, token: Digest) -> Stored<Vec<RunnerKey>>;
        async fn keep_dropped(&self, label: &str, text: &EntryText, at: Timestamp) -> Stored<Option<PathBuf>>;
    }
}
