//! The answer to a rotation: where its token belongs, and whether it is GitLab's at all.

use super::{AccessDisk, AccessError, AccessEvent, AccessKeeper, Work, is_refusal, rules};
use crate::error_chain::chain;
use crate::ops::AccessServer;
use crate::secret::Token;
use crate::store::{self, Intent, JournalAnswer, Pending};

impl<S: AccessServer, D: AccessDisk> AccessKeeper<S, D> {
    /// Brings in an answer that was journaled, or could not be.
    pub(super) async fn bring_in(&self, work: &mut Work) -> Result<(), AccessError> {
        let (intent, answer) = match self.unsaved_answer() {
            Some((intent, answer)) => {
                self.journal_late(&intent, &answer).await;
                (intent, answer)
            }
            None => match self.disk.pending().await? {
                Some(Pending { intent, answer: Some(answer), .. }) => (intent, answer),
                Some(_) | None => return Ok(()),
            },
        };
        match self.finish(work, &intent, &answer).await {
            // A token that a person has put into the file meanwhile is taken.
            Err(AccessError::Unproven(_) | AccessError::Lost) if self.has_another(&intent, &answer).await => Ok(()),
            finished => finished.map(drop),
        }
    }

    /// Journals an answer that is in memory alone, if that is possible now.
    async fn journal_late(&self, intent: &Intent, answer: &JournalAnswer) {
        if !self.has_unsaved() {
            return;
        }
        let mut journaled = self.disk.answered(answer.clone()).await;
        if let Err(store::Error::NotBegun { .. }) = journaled {
            // It is another state directory.
            journaled = match self.disk.begin(intent.clone()).await {
                Ok(()) => self.disk.answered(answer.clone()).await,
                Err(error) => Err(error),
            };
        }
        match journaled {
            Ok(()) => self.unsaved_is_kept(),
            Err(error) => tracing::debug!(error = chain(&error), "still cannot journal a new access token"),
        }
    }

    /// Whether the file holds another token than the two of the rotation.
    async fn has_another(&self, intent: &Intent, answer: &JournalAnswer) -> bool {
        let found = self.disk.token().await;
        found.is_ok_and(|found| Some(found.digest()) != intent.token && answer.token.as_ref() != Some(&found))
    }

    /// Puts the token of an answer where it belongs. Returns false if it is none.
    pub(super) async fn finish(
        &self,
        work: &mut Work,
        intent: &Intent,
        answer: &JournalAnswer,
    ) -> Result<bool, AccessError> {
        let Some(token) = answer.token.clone() else {
            self.disk.clear().await?;
            return Ok(false);
        };
        work.is_pending = !answer.is_documented;
        if !answer.is_documented && !self.is_proven(work, intent, &token).await? {
            return Ok(false);
        }
        work.is_pending = false;
        let is_news = work.record.token.as_ref() != Some(&token);
        if is_news {
            // That of the answer counts from now on, and none is sent with the old one again.
            let mut record = std::mem::take(&mut work.record);
            rules::spend(&mut record, intent.token);
            work.record = record.with_token(token.clone());
            work.record.rotations += 1;
            work.record.rotated_at = answer.obtained_at.or(Some(work.now));
        }
        // One of them may be possible without the other, and each keeps the token.
        let saved = self.disk.save(work.record.clone()).await;
        let held = self.disk.replace(self.former(work, intent.token), token.clone()).await;
        let is_held = held.as_ref().is_ok_and(|held| held.as_ref() == Some(&token));
        if saved.is_ok() || is_held {
            self.is_safe(work, &token, is_held);
        }
        let unfinished = |error: AccessError| AccessError::Unfinished { error: Box::new(error), is_held };
        saved.map_err(|error| unfinished(error.into()))?;
        let held = held.map_err(|error| unfinished(error.into()))?;
        let read = self.disk.token().await?;
        if read == token {
            if !self.is_in_file() {
                work.events.push(AccessEvent::Rotated(token.fingerprint()));
            }
        } else if held.is_some_and(|held| held != token) {
            // The next step takes that of the person.
            work.events.push(AccessEvent::Displaced(token.fingerprint()));
        } else {
            return Err(AccessError::NotHeld);
        }
        self.disk.clear().await?;
        self.forget_unsaved();
        Ok(true)
    }

    /// The rotation whose answer the journal may lack, and the answer.
    fn unsaved_answer(&self) -> Option<(Intent, JournalAnswer)> {
        self.unsaved.borrow().as_ref().map(|unsaved| (unsaved.intent.clone(), unsaved.answer.clone()))
    }

    /// A new token that was in memory alone is kept elsewhere, too.
    fn unsaved_is_kept(&self) {
        self.unsaved.borrow_mut().iter_mut().for_each(|unsaved| unsaved.copy = None);
    }

    /// A new token is where it belongs, or was none.
    pub(super) fn forget_unsaved(&self) {
        self.unsaved_is_kept();
        self.unsaved.take();
    }

    /// A new token that was in memory alone is in the record or in the file. That it is in the file is an event of its own
    /// if the state directory still has to follow.
    fn is_safe(&self, work: &mut Work, token: &Token, is_held: bool) {
        let mut unsaved = self.unsaved.borrow_mut();
        let Some(unsaved) = unsaved.as_mut() else { return };
        unsaved.copy = None;
        if is_held && !std::mem::replace(&mut unsaved.is_in_file, true) {
            work.events.push(AccessEvent::Rotated(token.fingerprint()));
        }
    }

    fn is_in_file(&self) -> bool {
        self.unsaved.borrow().as_ref().is_some_and(|unsaved| unsaved.is_in_file)
    }

    /// The state directory cannot be read: a new token that is in memory alone is put into its file nevertheless.
    pub(super) async fn put_into_file(&self, work: &mut Work) -> Result<(), AccessError> {
        let Some((intent, JournalAnswer { token: Some(token), is_documented: true, .. })) = self.unsaved_answer()
        else {
            return Ok(());
        };
        let _lock = self.disk.lock().await?;
        let held = self.disk.replace(self.former(work, intent.token), token.clone()).await?;
        if held.as_ref() == Some(&token) {
            self.is_safe(work, &token, true);
        }
        Ok(())
    }

    /// Whether the server accepts the token of an odd answer. If it accepts the old one instead, long after the request,
    /// the answer was not GitLab's, and nothing was rotated. If it refuses both for that long, the new one is lost.
    async fn is_proven(&self, work: &mut Work, intent: &Intent, token: &Token) -> Result<bool, AccessError> {
        const ODD: &str = "something in it is not as documented";
        if work.record.token.as_ref() == Some(token) && Some(token.digest()) != intent.token {
            // It was before.
            return Ok(true);
        }
        match self.ask(token).await {
            Ok(_) if Some(token.digest()) != intent.token => return Ok(true),
            Ok(_) => {}
            Err(failure) if is_refusal(&failure) => {}
            Err(failure) => return Err(AccessError::Asking(failure)),
        }
        let Some(old) = work.record.token.clone().filter(|old| Some(old.digest()) == intent.token) else {
            if !intent.token.is_some_and(|token| work.record.spent.contains(&token)) {
                return Err(AccessError::Unproven(ODD));
            }
            // A person's token was taken since.
            self.disk.clear().await?;
            self.forget_unsaved();
            work.is_pending = false;
            return Ok(false);
        };
        // Another process may have sent one with the same token since.
        let mut sent_at = self.sent_at(work, &old).await?;
        sent_at.push(intent.at);
        match self.ask(&old).await {
            Ok(answer) => {
                work.now = answer.date.unwrap_or(work.now);
                let from = rules::settles_from(&mut work.record, &sent_at, work.now).unwrap_or(work.now);
                if self.settle(work, &old, from).await?.is_some() {
                    return Err(AccessError::Unproven(ODD));
                }
                self.forget_unsaved();
                Ok(false)
            }
            Err(failure) if is_refusal(&failure) => {
                work.now = failure.date.unwrap_or(work.now);
                let from = rules::settles_from(&mut work.record, &sent_at, work.now).unwrap_or(work.now);
                let is_confirmed = rules::confirming(&work.record, work.now).is_none();
                rules::refused(&mut work.record, work.now);
                let is_lost = is_confirmed && rules::settling(from, work.now).is_none();
                if is_lost {
                    // The journal keeps the new one: it may be accepted some day.
                    self.lose(work);
                }
                self.disk.save(work.record.clone()).await?;
                Err(if is_lost { AccessError::Lost } else { AccessError::Unproven(ODD) })
            }
            Err(failure) => Err(AccessError::Asking(failure)),
        }
    }
}
