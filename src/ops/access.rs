//! Keeps an access token: asks about it, rotates it, and finds out what became of a rotation whose answer was lost.
//!
//! A pass holds the lock beside the token file from its first look to its end. In order:
//!
//! 1. an answer in the journal, or in memory alone, is brought in: record · file, also if one of them is impossible · read
//!    back · clear the journal;
//! 2. a token that a person has put into the file is taken if the server accepts it; one that was rotated before is replaced;
//! 3. the server is asked about the token, which also settles a rotation without an answer;
//! 4. **rotate**, if it is due: probe file and state · journal the intent · note the token's digest beside the file ·
//!    POST, once · journal the answer · then as in 1.
//!
//! GitLab revokes the new token if the old one is rotated again. So none is sent while the journal has an intent without
//! an answer, or the note beside the file names the token; both go only once the server has accepted the old token in two
//! answers ten minutes after the request, when no replica is behind any more. After a success the note stays, for processes that find
//! the old token in the file again.

mod answer;
mod disk;
mod error;
#[cfg(test)]
mod explorer;
mod found;
mod look;
#[cfg(test)]
mod memory;
mod rotation;
#[cfg(test)]
mod tests;
mod uses;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::time::Instant;

use super::sole_copies::SoleCopy;
use super::{AccessServer, AccessToken, Failure, ServerAccess, SoleCopies};
use crate::error_chain::chain;
use crate::gitlab::{Answer, Disposition, Reason};
use crate::lifecycle::AccessObstacle;
use crate::lifecycle::access as rules;
use crate::model::{AccessRecord, AccessTokenFacts, Timestamp};
use crate::secret::{Digest, Fingerprint, Token, random_bits};
use crate::store::{self, AskedBy, Intent, JournalAnswer};

pub use disk::{AccessDisk, StoredAccessToken};
pub use error::AccessError;
pub(super) use uses::AccessUse;
pub use uses::AccessUses;

/// Keeps the access token of one server.
#[derive(Debug)]
pub struct AccessKeeper<S, D> {
    server: S,
    disk: D,
    access: ServerAccess,
    asked_by: AskedBy,
    copies: SoleCopies,
    uses: AccessUses,
    /// Draws 32 random bits.
    draw: fn() -> u32,
    /// How many passes in a row were not answered.
    failures: Cell<u32>,
    /// An answer that neither the journal nor the record holds yet.
    unsaved: RefCell<Option<Unsaved>>,
    /// An unknown token in the file that the server refuses, and server time of the first refusal.
    refused_found: RefCell<Option<(Digest, Timestamp)>>,
    /// Repeats a rotation whose answer was lost, to show what that does.
    #[cfg(test)]
    repeats_blindly: Cell<bool>,
}

#[derive(Debug)]
struct Unsaved {
    intent: Intent,
    answer: JournalAnswer,
    /// Held while it is in memory alone.
    copy: Option<SoleCopy>,
    /// Whether the token file holds it.
    is_in_file: bool,
}

impl Drop for Unsaved {
    fn drop(&mut self) {
        if self.copy.is_some() {
            tracing::error!("ending with a new access token in memory alone: it is lost");
        }
    }
}

/// When and what for a pass is made.
#[derive(Clone, Copy, Debug)]
pub struct AccessMoment {
    /// Server time as far as known; that of the answers counts.
    pub now: Timestamp,
    /// Server time of the last use of the token by this process, but for passes.
    pub last_use: Option<Timestamp>,
    /// What is wanted.
    pub wish: AccessWish,
}

/// What is wanted of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessWish {
    /// Ask, and rotate if it is due.
    Keep,
    /// Ask only.
    Ask,
    /// Ask, and rotate unless it is too dangerous.
    Rotate,
}

/// What a pass has found and done.
#[derive(Debug)]
pub struct AccessPass {
    /// What is known now.
    pub record: AccessRecord,
    /// Whether a rotation was sent whose answer is not known.
    pub is_pending: bool,
    /// What has happened, in order.
    pub events: Vec<AccessEvent>,
    /// Why it was not completed.
    pub error: Option<AccessError>,
    /// Whether a new token is in memory alone.
    pub is_unsaved: bool,
    /// What is against a rotation, also against one that is not due.
    pub obstacle: Option<AccessObstacle>,
    /// Server time at its end, as far as known.
    pub now: Timestamp,
    /// Until the next pass.
    pub wait: Duration,
}

/// Something that has happened to an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessEvent {
    /// A token that was not known before was found in the file.
    Found(Fingerprint),
    /// A person has put another token into the file while the answer to the rotation of the former one was to be brought in:
    /// this one, which is valid, is dropped.
    Displaced(Fingerprint),
    /// It was rotated, and the file holds the new one.
    Rotated(Fingerprint),
    /// The file held a token that was rotated before, and holds the new one again.
    Restored(Fingerprint),
    /// A rotation whose answer was lost had not been executed.
    NotExecuted,
    /// A rotation whose answer was lost was executed: its token is lost.
    Lost,
}

/// A pass under way.
struct Work {
    record: AccessRecord,
    is_pending: bool,
    events: Vec<AccessEvent>,
    now: Timestamp,
    /// How long the answer about the token took.
    took: Duration,
}

impl<S: AccessServer, D: AccessDisk> AccessKeeper<S, D> {
    /// A keeper by these ports. A stop waits for an answer that `copies` counts, and a rotation for the calls that `uses`
    /// counts.
    pub fn new(
        server: S,
        disk: D,
        access: ServerAccess,
        asked_by: AskedBy,
        (copies, uses): (SoleCopies, AccessUses),
    ) -> Self {
        Self {
            server,
            disk,
            access,
            asked_by,
            copies,
            uses,
            draw: random_bits,
            failures: Cell::new(0),
            unsaved: RefCell::default(),
            refused_found: RefCell::default(),
            #[cfg(test)]
            repeats_blindly: Cell::new(false),
        }
    }

    /// The token that is kept, and how.
    pub fn access(&self) -> &ServerAccess {
        &self.access
    }

    /// Whether a new token is in memory alone. The next pass stores it.
    pub fn has_unsaved(&self) -> bool {
        self.unsaved.borrow().as_ref().is_some_and(|unsaved| unsaved.copy.is_some())
    }

    /// Looks at the file, asks the server, and rotates the token if it is due. Not cancel safe once a rotation is sent:
    /// [`SoleCopies`] counts that.
    pub async fn pass(&self, moment: AccessMoment) -> AccessPass {
        let (record, events, took) = Default::default();
        let mut work = Work { record, is_pending: false, events, now: moment.now, took };
        let error = self.work(&mut work, moment).await.err();
        let Work { record, is_pending, events, now, .. } = work;
        let wait = self.wait(&record, error.as_ref(), now);
        let (is_unsaved, obstacle) = (self.has_unsaved(), rules::obstacle(&record, &self.access.keeping));
        AccessPass { record, is_pending, events, error, is_unsaved, obstacle, now, wait }
    }

    /// Remembers when this process has last used the token: neither after a restart nor by another process that has the
    /// file, that use is taken for one from elsewhere.
    ///
    /// # Errors
    /// As [`AccessDisk::record`] and [`AccessDisk::save`].
    pub async fn note_use(&self, last_use: Timestamp) -> Result<(), AccessError> {
        let _lock = self.disk.lock().await?;
        let mut record = self.disk.record().await?;
        rules::used(&mut record, Some(last_use), last_use);
        self.disk.save(record).await?;
        self.note_use_beside(last_use).await;
        Ok(())
    }

    fn wait(&self, record: &AccessRecord, error: Option<&AccessError>, now: Timestamp) -> Duration {
        if self.has_unsaved() {
            return rules::STORE_PAUSE;
        }
        let retry_after = match error {
            None | Some(AccessError::Obstacle(_) | AccessError::NoPlace(_) | AccessError::Lost) => {
                self.failures.set(0);
                return rules::next_at(record, &self.access.keeping, now, (self.draw)()).since(now);
            }
            Some(AccessError::Uncertain { wait }) => {
                self.failures.set(0);
                return *wait;
            }
            Some(AccessError::Disk(store::Error::FileLocked { .. })) => return rules::LOCKED_PAUSE,
            Some(AccessError::Unfinished { .. }) => return rules::STORE_PAUSE,
            Some(AccessError::Asking(failure) | AccessError::Rotating(failure)) => match failure.disposition {
                Disposition::NotExecuted { retry_after } | Disposition::Unknown { retry_after } => retry_after,
                // A token that was just made is unknown to a replica that is behind.
                Disposition::MustAct(Reason::AccessToken) => None,
                _ => Some(rules::ASK_INTERVAL),
            },
            Some(_) => None,
        };
        self.failures.set(self.failures.get().saturating_add(1));
        rules::backoff(self.failures.get(), retry_after)
    }

    async fn work(&self, work: &mut Work, moment: AccessMoment) -> Result<(), AccessError> {
        // What is known is reported, also if another process works on the file.
        work.record = match self.disk.record().await {
            Ok(record) => record,
            Err(error) => {
                self.put_into_file(work).await?;
                return Err(error.into());
            }
        };
        let _lock = self.lock().await?;
        work.record = self.disk.record().await?;
        self.bring_in(work).await?;
        let token = self.take(work).await?;
        let sent_at = self.sent_at(work, &token).await?;
        work.is_pending = !sent_at.is_empty() && work.record.lost_at.is_none();
        let asked = Instant::now();
        match self.ask(&token).await {
            Ok(Answer { value, date, .. }) => {
                work.took = asked.elapsed();
                work.now = date.unwrap_or(moment.now);
                rules::used(&mut work.record, moment.last_use, work.now);
                self.accept(work, &token, value, &sent_at).await?;
            }
            Err(failure) => return self.refuse(work, failure, &sent_at).await,
        }
        self.rotate_if_wanted(work, &token, moment.wish).await
    }

    /// A file that cannot be locked because it cannot be found or read is reported as that.
    async fn lock(&self) -> Result<Option<D::Lock>, AccessError> {
        match self.disk.lock().await {
            Ok(lock) => Ok(lock),
            Err(error @ store::Error::FileLocked { .. }) => Err(error.into()),
            Err(error) => {
                self.disk.token().await?;
                Err(error.into())
            }
        }
    }

    /// Server times of rotations with this token whose answers are not known, by this or another process; or of the last
    /// one, if this token was rotated before.
    async fn sent_at(&self, work: &Work, token: &Token) -> Result<Vec<Timestamp>, AccessError> {
        let (digest, record) = (token.digest(), &work.record);
        let pending = self.disk.pending().await?.map(|pending| pending.intent);
        let own = pending.filter(|intent| intent.token == Some(digest)).map(|intent| intent.at);
        let lost_at = record.lost_at.filter(|_| record.token.as_ref() == Some(token));
        let is_spent = record.spent.contains(&digest);
        let spent_at = is_spent.then(|| record.rotated_at.unwrap_or(Timestamp::EARLIEST));
        let marks = self.disk.note().await?.sent.into_iter();
        let marked = marks.filter(|mark| mark.token == digest).map(|mark| mark.at);
        Ok(marked.chain(own).chain(lost_at).chain(spent_at).collect())
    }

    async fn accept(
        &self,
        work: &mut Work,
        token: &Token,
        facts: AccessTokenFacts,
        sent_at: &[Timestamp],
    ) -> Result<(), AccessError> {
        let used_at = self.disk.note().await?.used_at;
        rules::used(&mut work.record, used_at, work.now);
        rules::accepted(&mut work.record, facts, work.now, work.took, (self.draw)());
        self.disk.save(work.record.clone()).await?;
        self.note_use_beside(work.now).await;
        match rules::settles_from(&mut work.record, sent_at, work.now) {
            Some(from) => match self.settle(work, token, from).await? {
                Some(wait) => Err(AccessError::Uncertain { wait }),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// The server accepts the token of a rotation that is waited for since `from`. Returns how much longer that may come from
    /// a replica that does not know of the rotation; `None` once it was not executed, and another one may follow.
    async fn settle(&self, work: &mut Work, token: &Token, from: Timestamp) -> Result<Option<Duration>, AccessError> {
        let left = self.still_settling(work, token, from).await?;
        if left.is_none() {
            rules::not_executed(&mut work.record);
            work.events.push(AccessEvent::NotExecuted);
        }
        self.disk.save(work.record.clone()).await?;
        if left.is_none() {
            self.clear(token.digest()).await?;
            work.is_pending = false;
        }
        Ok(left)
    }

    /// As [`rules::settling`] by two answers, of which one may have a wrong date.
    async fn still_settling(
        &self,
        work: &mut Work,
        token: &Token,
        from: Timestamp,
    ) -> Result<Option<Duration>, AccessError> {
        if let Some(left) = rules::settling(from, work.now) {
            return Ok(Some(left));
        }
        let again = self.ask(token).await.map_err(AccessError::Asking)?;
        work.now = again.date.unwrap_or(work.now);
        Ok(rules::settling(from, work.now))
    }

    /// Notes a use beside the file, for other processes that have it, if it matters. Without the note, uses by these may be
    /// taken for uses from elsewhere.
    async fn note_use_beside(&self, used_at: Timestamp) {
        if self.access.keeping.rotate
            && let Err(error) = self.disk.note_use(used_at).await
        {
            tracing::debug!(error = chain(&error), "cannot note the use of an access token beside its file");
        }
    }

    async fn refuse(&self, work: &mut Work, failure: Failure, sent_at: &[Timestamp]) -> Result<(), AccessError> {
        work.now = failure.date.unwrap_or(work.now);
        if failure.disposition == Disposition::Unsupported {
            work.record.is_unsupported = true;
            self.disk.save(work.record.clone()).await?;
            return Ok(());
        }
        if !is_refusal(&failure) {
            return Err(AccessError::Asking(failure));
        }
        if rules::settles_from(&mut work.record, sent_at, work.now).is_none() {
            if !rules::is_new(&work.record, work.now) {
                rules::refused(&mut work.record, work.now);
                self.disk.save(work.record.clone()).await?;
            }
            return Err(self.refusal(work, failure));
        }
        let confirming = rules::confirming(&work.record, work.now);
        rules::refused(&mut work.record, work.now);
        if let Some(wait) = confirming {
            self.disk.save(work.record.clone()).await?;
            return Err(AccessError::Uncertain { wait });
        }
        self.lose(work);
        self.disk.save(work.record.clone()).await?;
        // Another process may have the answer: the note stays for those with other state directories.
        self.disk.clear().await?;
        Err(AccessError::Lost)
    }

    /// The new token of a rotation is lost.
    fn lose(&self, work: &mut Work) {
        work.events.extend(work.record.lost_at.is_none().then_some(AccessEvent::Lost));
        rules::lost(&mut work.record, work.now);
        work.is_pending = false;
    }

    /// What a refusal of the newest token means.
    fn refusal(&self, work: &Work, failure: Failure) -> AccessError {
        if is_refusal(&failure) && rules::is_new(&work.record, work.now) {
            AccessError::NotKnownYet
        } else {
            AccessError::Asking(failure)
        }
    }

    /// A rotation with this token was not executed: no note and no journal are needed.
    async fn clear(&self, sent: Digest) -> Result<(), AccessError> {
        self.disk.remove_mark(sent).await?;
        Ok(self.disk.clear().await?)
    }

    async fn ask(&self, token: &Token) -> Result<Answer<AccessTokenFacts>, Failure> {
        self.server.access_token_facts(&self.access.url, &self.access_token(token)).await
    }

    fn access_token(&self, token: &Token) -> AccessToken {
        AccessToken { token: token.clone(), tls: self.access.tls.clone() }
    }

    /// The tokens that the file may hold in place of the newest one.
    fn former(&self, work: &Work, sent: Option<Digest>) -> Vec<Digest> {
        work.record.spent.iter().copied().chain(sent).collect()
    }
}

/// Whether the server refuses the token: it is revoked, expired or unknown.
fn is_refusal(failure: &Failure) -> bool {
    failure.disposition == Disposition::MustAct(Reason::AccessToken)
}
