//! Keeps an access token: asks about it, rotates it, and finds out what became of a rotation whose answer was lost.
//!
//! A pass holds the lock beside the token file from its first look to its end. In order:
//!
//! 1. an answer in the journal is brought in: record · file · read back · clear the journal;
//! 2. a token that a person has put into the file is taken at once; one that was rotated before is replaced;
//! 3. the server is asked about the token, which also settles a rotation without an answer;
//! 4. **rotate**, if it is due: probe file and state · journal the intent · note the token's digest beside the file ·
//!    POST, once · journal the answer · then as in 1.
//!
//! GitLab revokes the new token if the old one is rotated again. So none is sent while the journal has an intent without
//! an answer, or the note beside the file names the token; both go only once the server has accepted the old token ten
//! minutes after the request, when no replica is behind any more. After a success the note stays, for processes that find
//! the old token in the file again.

mod disk;
#[cfg(test)]
mod explorer;
mod look;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod tests;
mod uses;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::time::Instant;

use super::sole_copies::SoleCopy;
use super::{AccessServer, AccessToken, Failure, ServerAccess, SoleCopies};
use crate::gitlab::{Answer, Disposition, Reason, RotatedAccessToken};
use crate::lifecycle::access::{self as rules, Settled};
use crate::lifecycle::{AccessKeeping, AccessObstacle, UsedElsewhere};
use crate::model::{AccessRecord, AccessTokenFacts, Expiry, Timestamp};
use crate::secret::{Digest, Fingerprint, SourceError, Token, random_bits};
use crate::store::{self, AccessMark, AskedBy, Intent, JournalAnswer, JournalOperation, Pending};

pub use disk::{AccessDisk, StoredAccessToken};
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
    _copy: SoleCopy,
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

/// Why a pass was not completed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read, or holds no access token.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file cannot be read or written, or another process has locked it.
    #[error(transparent)]
    Disk(#[from] store::Error),
    /// The server did not accept the token, or did not answer.
    #[error(transparent)]
    Asking(Failure),
    /// A rotation failed.
    #[error(transparent)]
    Rotating(Failure),
    /// A rotation was sent, and its answer was lost.
    #[error("a rotation of the access token was sent and its answer was lost: the server is asked about the old token")]
    Uncertain {
        /// Until the next answer may settle it.
        wait: Duration,
    },
    /// The answer to a rotation was lost, and the token is dead.
    #[error(
        "the answer to a rotation of the access token was lost, and the server refuses the old token: make a new one in GitLab and put it into the file"
    )]
    Lost,
    /// The answer to a rotation is not one of GitLab's, and the token in it is not accepted.
    #[error(
        "the answer to a rotation of the access token is not one of GitLab's ({0}): the token in it is kept and asked about"
    )]
    Unproven(&'static str),
    /// The file was written and read back, and holds something else.
    #[error("the token file does not hold the new token: the state directory keeps it")]
    NotHeld,
    /// A rotation was asked for that is not possible.
    #[error("the access token is not rotated: {}", .0.as_str())]
    Obstacle(AccessObstacle),
    /// A rotation needs a file that can be written, and a state directory.
    #[error("{0}")]
    NoPlace(&'static str),
    /// The process stops.
    #[error("not sent, because the agent is stopping")]
    Stopping,
}

impl AccessError {
    /// The remedy, unless the message already contains it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Disk(error) => error.hint(),
            Self::Asking(failure) | Self::Rotating(failure) => failure.hint.as_deref(),
            _ => None,
        }
    }

    /// Whether the server refuses the token.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Asking(failure) if is_refusal(failure))
    }
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
        self.unsaved.borrow().is_some()
    }

    /// Looks at the file, asks the server, and rotates the token if it is due. Not cancel safe once a rotation is sent:
    /// [`SoleCopies`] counts that.
    pub async fn pass(&self, moment: AccessMoment) -> AccessPass {
        let (record, events, took) = Default::default();
        let mut work = Work { record, is_pending: false, events, now: moment.now, took };
        let error = self.work(&mut work, moment).await.err();
        let Work { record, is_pending, events, now, .. } = work;
        let wait = self.wait(&record, error.as_ref(), now);
        let obstacle = rules::obstacle(&record, &self.access.keeping);
        AccessPass { record, is_pending, events, error, obstacle, now, wait }
    }

    /// Remembers when this process has last used the token: after a restart, that use is not taken for one from elsewhere.
    ///
    /// # Errors
    /// As [`AccessDisk::record`] and [`AccessDisk::save`].
    pub async fn note_use(&self, last_use: Timestamp) -> Result<(), AccessError> {
        let _lock = self.disk.lock().await?;
        let record = self.disk.record().await?;
        Ok(self.disk.save(AccessRecord { last_use: record.last_use.max(Some(last_use)), ..record }).await?)
    }

    fn wait(&self, record: &AccessRecord, error: Option<&AccessError>, now: Timestamp) -> Duration {
        let retry_after = match error {
            None | Some(AccessError::Obstacle(_) | AccessError::NoPlace(_) | AccessError::Lost) => {
                self.failures.set(0);
                return rules::next_at(record, &self.access.keeping, now).since(now);
            }
            Some(AccessError::Uncertain { wait }) => {
                self.failures.set(0);
                return *wait;
            }
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
        let _lock = self.disk.lock().await?;
        work.record = self.disk.record().await?;
        self.bring_in(work).await?;
        let token = self.take(work).await?;
        let sent_at = self.sent_at(&token).await?;
        work.is_pending = sent_at.is_some();
        let asked = Instant::now();
        match self.ask(&token).await {
            Ok(Answer { value, date, .. }) => {
                work.took = asked.elapsed();
                work.now = date.unwrap_or(moment.now);
                work.record.last_use = work.record.last_use.max(moment.last_use);
                self.accept(work, value, sent_at).await?;
            }
            Err(failure) => return self.refuse(work, failure, sent_at).await,
        }
        self.rotate_if_wanted(work, &token, moment.wish).await
    }

    /// Brings in an answer that was journaled, or could not be.
    async fn bring_in(&self, work: &mut Work) -> Result<(), AccessError> {
        let unsaved = self.unsaved.borrow().as_ref().map(|unsaved| (unsaved.intent.clone(), unsaved.answer.clone()));
        let (intent, answer) = match unsaved {
            Some(unsaved) => unsaved,
            None => match self.disk.pending().await? {
                Some(Pending { intent, answer: Some(answer), .. }) => (intent, answer),
                Some(_) | None => return Ok(()),
            },
        };
        work.is_pending = true;
        self.finish(work, &intent, &answer).await.map(drop)
    }

    /// Puts the token of an answer where it belongs. Returns false if it is none.
    async fn finish(&self, work: &mut Work, intent: &Intent, answer: &JournalAnswer) -> Result<bool, AccessError> {
        let Some(token) = answer.token.clone() else {
            self.disk.clear().await?;
            return Ok(false);
        };
        if !answer.is_documented && !self.is_proven(work, intent, &token).await? {
            return Ok(false);
        }
        let is_news = work.record.token.as_ref() != Some(&token);
        if is_news {
            // That of the answer counts from now on, and none is sent with the old one again.
            let mut record = std::mem::take(&mut work.record);
            rules::spend(&mut record, intent.token);
            work.record = record.with_token(token.clone());
            work.record.rotations += 1;
            work.record.rotated_at = answer.obtained_at.or(Some(work.now));
        }
        self.disk.save(work.record.clone()).await?;
        let held = self.disk.replace(self.former(work, intent.token), token.clone()).await?;
        match held {
            // It is read back below.
            Some(held) if held == token => {}
            // The next step takes that of the person.
            Some(_) => work.events.push(AccessEvent::Displaced(token.fingerprint())),
            None => return Err(AccessError::NotHeld),
        }
        if self.disk.token().await? == token {
            work.events.push(AccessEvent::Rotated(token.fingerprint()));
        } else if !work.events.contains(&AccessEvent::Displaced(token.fingerprint())) {
            return Err(AccessError::NotHeld);
        }
        self.disk.clear().await?;
        self.unsaved.take();
        work.is_pending = false;
        Ok(true)
    }

    /// Whether the server accepts the token of an odd answer. If it accepts the old one instead, long after the request,
    /// the answer was not GitLab's, and nothing was rotated.
    async fn is_proven(&self, work: &mut Work, intent: &Intent, token: &Token) -> Result<bool, AccessError> {
        const ODD: &str = "something in it is not as documented";
        match self.ask(token).await {
            Ok(_) => return Ok(true),
            Err(failure) if is_refusal(&failure) => {}
            Err(failure) => return Err(AccessError::Asking(failure)),
        }
        let Some(old) = work.record.token.clone().filter(|old| Some(old.digest()) == intent.token) else {
            return Err(AccessError::Unproven(ODD));
        };
        let answer = self.ask(&old).await.map_err(AccessError::Asking)?;
        let now = answer.date.unwrap_or(work.now);
        // Another process may have sent one with the same token since.
        let sent_at = self.sent_at(&old).await?.unwrap_or(intent.at).max(intent.at);
        match rules::settled(&work.record, sent_at, now, true) {
            Settled::NotExecuted => {
                self.clear(old.digest()).await?;
                self.unsaved.take();
                work.is_pending = false;
                work.events.push(AccessEvent::NotExecuted);
                Ok(false)
            }
            Settled::Undecided(_) | Settled::Lost => Err(AccessError::Unproven(ODD)),
        }
    }

    /// The token of the file. A new one is taken at once if the server accepts it; one that was rotated before is replaced,
    /// and so is one that stays refused while the known one is accepted.
    async fn take(&self, work: &mut Work) -> Result<Token, AccessError> {
        let found = self.disk.token().await?;
        let Some(known) = work.record.token.clone().filter(|known| *known != found) else {
            if work.record.token.is_none() {
                self.adopt(work, &found).await?;
            }
            return Ok(found);
        };
        if work.record.spent.contains(&found.digest()) {
            // The newest one is good, or none is.
            self.ask(&known).await.map_err(AccessError::Asking)?;
            return self.restore(work, known).await;
        }
        match self.ask(&found).await {
            Err(failure) if is_refusal(&failure) => match self.ask(&known).await {
                Ok(answer) => {
                    let now = answer.date.unwrap_or(work.now);
                    if !self.stays_refused(&found, now) {
                        return Err(AccessError::Asking(failure));
                    }
                    rules::spend(&mut work.record, Some(found.digest()));
                    self.disk.save(work.record.clone()).await?;
                    return self.restore(work, known).await;
                }
                // Both are dead, or a replica does not know of the newest one yet.
                Err(known) if is_refusal(&known) => {
                    let now = known.date.unwrap_or(work.now);
                    if !self.stays_refused(&found, now) {
                        return Err(AccessError::Asking(failure));
                    }
                }
                Err(failure) => return Err(AccessError::Asking(failure)),
            },
            Ok(answer) => {
                // Another process may have rotated it, and the answer may come from a replica that is behind.
                let now = answer.date.unwrap_or(work.now);
                let sent_at = self.sent_at(&found).await?;
                let left = sent_at.and_then(|sent_at| rules::SETTLE_AFTER.checked_sub(now.since(sent_at)));
                if let Some(wait) = left.filter(|left| !left.is_zero()) {
                    work.is_pending = true;
                    return Err(AccessError::Uncertain { wait });
                }
            }
            Err(Failure { disposition: Disposition::Unsupported, .. }) => {}
            Err(failure) => return Err(AccessError::Asking(failure)),
        }
        work.events.push(AccessEvent::Found(found.fingerprint()));
        self.adopt(work, &found).await?;
        Ok(found)
    }

    /// Whether an unknown token was refused for so long that no replica can be behind.
    fn stays_refused(&self, found: &Token, now: Timestamp) -> bool {
        let mut refused = self.refused_found.borrow_mut();
        let since = match *refused {
            Some((digest, since)) if digest == found.digest() => since,
            Some(_) | None => refused.insert((found.digest(), now)).1,
        };
        now.since(since) >= rules::SETTLE_AFTER
    }

    async fn restore(&self, work: &mut Work, known: Token) -> Result<Token, AccessError> {
        let held = self.disk.replace(self.former(work, None), known.clone()).await?;
        if held.as_ref() != Some(&known) {
            return Err(AccessError::NotHeld);
        }
        work.events.push(AccessEvent::Restored(known.fingerprint()));
        Ok(known)
    }

    async fn adopt(&self, work: &mut Work, found: &Token) -> Result<(), AccessError> {
        let mut record = std::mem::take(&mut work.record);
        let pending = self.disk.pending().await?;
        // What became of its rotation does not matter any more, but that it was sent.
        rules::spend(&mut record, pending.as_ref().and_then(|pending| pending.intent.token));
        work.record = record.with_token(found.clone());
        self.disk.save(work.record.clone()).await?;
        if pending.is_some() {
            self.disk.clear().await?;
        }
        Ok(())
    }

    /// Server time of a rotation with this token whose answer is not known, by this or another process.
    async fn sent_at(&self, token: &Token) -> Result<Option<Timestamp>, AccessError> {
        let digest = token.digest();
        let pending = self.disk.pending().await?.map(|pending| pending.intent);
        let own = pending.filter(|intent| intent.token == Some(digest)).map(|intent| intent.at);
        let marks = self.disk.marks().await?.into_iter();
        Ok(marks.filter(|mark| mark.token == digest).map(|mark| mark.at).chain(own).max())
    }

    async fn accept(
        &self,
        work: &mut Work,
        facts: AccessTokenFacts,
        sent_at: Option<Timestamp>,
    ) -> Result<(), AccessError> {
        let settled = sent_at.map(|sent_at| rules::settled(&work.record, sent_at, work.now, true));
        rules::accepted(&mut work.record, facts, work.now, work.took, (self.draw)());
        self.disk.save(work.record.clone()).await?;
        match settled {
            None | Some(Settled::Lost) => Ok(()),
            Some(Settled::Undecided(wait)) => Err(AccessError::Uncertain { wait }),
            Some(Settled::NotExecuted) => {
                if let Some(token) = &work.record.token {
                    self.clear(token.digest()).await?;
                }
                work.is_pending = false;
                work.events.push(AccessEvent::NotExecuted);
                Ok(())
            }
        }
    }

    async fn refuse(&self, work: &mut Work, failure: Failure, sent_at: Option<Timestamp>) -> Result<(), AccessError> {
        work.now = failure.date.unwrap_or(work.now);
        if failure.disposition == Disposition::Unsupported {
            work.record.is_unsupported = true;
            self.disk.save(work.record.clone()).await?;
            return Ok(());
        }
        if !is_refusal(&failure) {
            return Err(AccessError::Asking(failure));
        }
        let settled = sent_at.map(|sent_at| rules::settled(&work.record, sent_at, work.now, false));
        rules::refused(&mut work.record, work.now);
        match settled {
            None => {
                self.disk.save(work.record.clone()).await?;
                Err(if work.record.lost_at.is_some() { AccessError::Lost } else { AccessError::Asking(failure) })
            }
            Some(Settled::Undecided(wait)) => {
                self.disk.save(work.record.clone()).await?;
                Err(AccessError::Uncertain { wait })
            }
            Some(Settled::NotExecuted | Settled::Lost) => {
                let is_news = work.record.lost_at.is_none();
                rules::lost(&mut work.record, work.now);
                self.disk.save(work.record.clone()).await?;
                // Another process may have the answer: the note stays for those with other state directories.
                self.disk.clear().await?;
                work.is_pending = false;
                work.events.extend(is_news.then_some(AccessEvent::Lost));
                Err(AccessError::Lost)
            }
        }
    }

    async fn rotate_if_wanted(&self, work: &mut Work, token: &Token, wish: AccessWish) -> Result<(), AccessError> {
        let keeping = &self.access.keeping;
        let is_due = rules::rotation_at(&work.record).is_some_and(|due_at| due_at <= work.now);
        match wish {
            AccessWish::Keep if is_due && keeping.rotate => {
                if let Some(obstacle) = rules::obstacle(&work.record, keeping) {
                    return Err(AccessError::Obstacle(obstacle));
                }
            }
            AccessWish::Keep | AccessWish::Ask => return Ok(()),
            AccessWish::Rotate => {
                let used_elsewhere = UsedElsewhere::Rotate;
                let asked = AccessKeeping { rotate: true, used_elsewhere, ..keeping.clone() };
                match rules::obstacle(&work.record, &asked) {
                    None | Some(AccessObstacle::Endless) => {}
                    Some(obstacle) => return Err(AccessError::Obstacle(obstacle)),
                }
            }
        }
        self.disk.check_place(&self.access.access_token).map_err(AccessError::NoPlace)?;
        self.rotate(work, token).await
    }

    async fn rotate(&self, work: &mut Work, token: &Token) -> Result<(), AccessError> {
        // Calls of this process with the old token end first.
        let pause = self.uses.pause(&self.access.url).await;
        let copy = self.copies.begin().ok_or(AccessError::Stopping)?;
        self.disk.probe().await?;
        let digest = token.digest();
        let operation =
            JournalOperation::Rotate { url: self.access.url.clone(), id: None, old: token.fingerprint(), by_id: false };
        let intent =
            Intent { operation, at: work.now, system_id: None, asked_by: Some(self.asked_by), token: Some(digest) };
        self.disk.begin(intent.clone()).await?;
        if let Err(error) = self.disk.add_mark(AccessMark { token: digest, at: work.now }).await {
            self.disk.clear().await?;
            return Err(error.into());
        }
        copy.sends();
        match self.send(work, token).await {
            Ok(Answer { value, date, .. }) => {
                let answer = journal_answer(&value, date);
                let written = self.disk.answered(answer.clone()).await;
                match written {
                    Ok(()) => copy.is_safe(),
                    // The record takes it, and until then it is held here.
                    Err(error) => {
                        tracing::error!(%error, "cannot journal a new access token: it is in memory alone");
                        let unsaved = Unsaved { intent: intent.clone(), answer: answer.clone(), _copy: copy };
                        self.unsaved.replace(Some(unsaved));
                    }
                }
                work.is_pending = true;
                work.record.declined = None;
                if !self.finish(work, &intent, &answer).await? {
                    return Ok(());
                }
                pause.changes_over(digest, &value.token);
                drop(pause);
                work.record.facts = value.facts;
                // The end of a rotation: the server knows the new one.
                let answer = self.ask_new(&value.token).await?;
                work.now = answer.date.unwrap_or(work.now);
                // Its only use is the question.
                rules::accepted(&mut work.record, answer.value, work.now, Duration::MAX, (self.draw)());
                Ok(self.disk.save(work.record.clone()).await?)
            }
            Err(failure) => self.not_rotated(work, digest, failure).await,
        }
    }

    async fn send(&self, work: &Work, token: &Token) -> Result<Answer<RotatedAccessToken>, Failure> {
        let AccessKeeping { owner, .. } = &self.access.keeping;
        let expires_at = rules::new_expiry(work.record.facts.as_ref(), &self.access.keeping, work.now);
        let access = self.access_token(token);
        let sent = self.server.rotate_access_token(&self.access.url, &access, owner, expires_at).await;
        #[cfg(test)]
        if self.repeats_blindly.get()
            && sent.as_ref().is_err_and(|failure| matches!(failure.disposition, Disposition::Unknown { .. }))
        {
            return self.server.rotate_access_token(&self.access.url, &access, owner, expires_at).await;
        }
        sent
    }

    async fn not_rotated(&self, work: &mut Work, sent: Digest, failure: Failure) -> Result<(), AccessError> {
        match failure.disposition {
            Disposition::Unknown { .. } => {
                work.is_pending = true;
                return Err(AccessError::Rotating(failure));
            }
            Disposition::NotExecuted { .. } => {}
            _ if is_refusal(&failure) => rules::refused(&mut work.record, work.now),
            _ => work.record.declined = Some(failure.to_string()),
        }
        self.clear(sent).await?;
        self.disk.save(work.record.clone()).await?;
        Err(AccessError::Rotating(failure))
    }

    /// A rotation with this token was not executed: no note and no journal are needed.
    async fn clear(&self, sent: Digest) -> Result<(), AccessError> {
        self.disk.remove_mark(sent).await?;
        Ok(self.disk.clear().await?)
    }

    async fn ask(&self, token: &Token) -> Result<Answer<AccessTokenFacts>, Failure> {
        self.server.access_token_facts(&self.access.url, &self.access_token(token)).await
    }

    async fn ask_new(&self, token: &Token) -> Result<Answer<AccessTokenFacts>, AccessError> {
        self.ask(token).await.map_err(AccessError::Asking)
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

fn journal_answer(answer: &RotatedAccessToken, date: Option<Timestamp>) -> JournalAnswer {
    let expiry = match &answer.facts {
        None => Expiry::Unknown,
        Some(facts) => facts.expires_at.map_or(Expiry::Never, Expiry::At),
    };
    JournalAnswer {
        id: None,
        token: Some(answer.token.clone()),
        expiry,
        obtained_at: date,
        is_documented: answer.oddity.is_none(),
    }
}
