//! A rotation: what has to be true before it is sent, and what its answer or its failure means.

use super::{AccessDisk, AccessError, AccessKeeper, AccessWish, Unsaved, Work, is_refusal, rules};
use crate::gitlab::{Answer, Disposition, RotatedAccessToken};
use crate::lifecycle::{AccessKeeping, AccessObstacle, UsedElsewhere};
use crate::model::{Expiry, Timestamp};
use crate::ops::{AccessServer, Failure};
use crate::secret::{Digest, Token};
use crate::store::{AccessMark, Intent, JournalAnswer, JournalOperation};

impl<S: AccessServer, D: AccessDisk> AccessKeeper<S, D> {
    pub(super) async fn rotate_if_wanted(
        &self,
        work: &mut Work,
        token: &Token,
        wish: AccessWish,
    ) -> Result<(), AccessError> {
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
        self.rotate(work, token, wish).await
    }

    async fn rotate(&self, work: &mut Work, token: &Token, wish: AccessWish) -> Result<(), AccessError> {
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
                let answer = journal_answer(&value, token, date);
                let written = self.disk.answered(answer.clone()).await;
                match written {
                    Ok(()) => copy.is_safe(),
                    // The record takes it, and until then it is held here.
                    Err(error) => {
                        tracing::error!(%error, "cannot journal a new access token: it is in memory alone");
                        let (intent, answer) = (intent.clone(), answer.clone());
                        let unsaved = Unsaved { intent, answer, copy: Some(copy), is_in_file: false };
                        self.unsaved.replace(Some(unsaved));
                    }
                }
                work.record.declined = None;
                if answer.is_documented {
                    // Whether it can be stored or not.
                    pause.changes_over(digest, &value.token);
                }
                if !self.finish(work, &intent, &answer).await? {
                    return Ok(());
                }
                // An odd answer is proven now.
                pause.changes_over(digest, &value.token);
                drop(pause);
                work.record.facts = value.facts;
                // The end of a rotation: the server knows the new one.
                let answer = self.ask(&value.token).await.map_err(|failure| self.refusal(work, failure))?;
                work.now = answer.date.unwrap_or(work.now);
                rules::accepted_new(&mut work.record, answer.value, work.now, (self.draw)());
                Ok(self.disk.save(work.record.clone()).await?)
            }
            Err(failure) => self.not_rotated(work, digest, wish, failure).await,
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

    async fn not_rotated(
        &self,
        work: &mut Work,
        sent: Digest,
        wish: AccessWish,
        failure: Failure,
    ) -> Result<(), AccessError> {
        match failure.disposition {
            Disposition::Unknown { .. } => {
                work.is_pending = true;
                return Err(AccessError::Rotating(failure));
            }
            Disposition::NotExecuted { .. } => {}
            _ if is_refusal(&failure) => rules::refused(&mut work.record, work.now),
            // The one that a person asked for by a command is not that of the settings.
            _ if wish == AccessWish::Keep => work.record.declined = Some(in_words(&failure)),
            _ => {}
        }
        self.clear(sent).await?;
        self.disk.save(work.record.clone()).await?;
        Err(AccessError::Rotating(failure))
    }
}

/// A failure with its remedy, in one sentence.
fn in_words(failure: &Failure) -> String {
    failure.hint.as_ref().map_or_else(|| failure.to_string(), |hint| format!("{failure}: {hint}"))
}

/// The answer as the journal keeps it. One with the token in it that was sent has rotated nothing.
fn journal_answer(answer: &RotatedAccessToken, sent: &Token, date: Option<Timestamp>) -> JournalAnswer {
    let expiry = match &answer.facts {
        None => Expiry::Unknown,
        Some(facts) => facts.expires_at.map_or(Expiry::Never, Expiry::At),
    };
    JournalAnswer {
        id: None,
        token: Some(answer.token.clone()),
        expiry,
        obtained_at: date,
        is_documented: answer.oddity.is_none() && answer.token != *sent,
    }
}
