//! The token that is found in the file: the known one, that of a person, or one that was rotated before.

use std::time::Duration;

use super::{AccessDisk, AccessError, AccessEvent, AccessKeeper, Work, is_refusal, rules};
use crate::gitlab::Disposition;
use crate::model::Timestamp;
use crate::ops::{AccessServer, Failure};
use crate::secret::Token;

impl<S: AccessServer, D: AccessDisk> AccessKeeper<S, D> {
    /// The token of the file. Another one than the known one is taken if the server accepts it. Otherwise it is replaced by
    /// the known one, provided that the server accepts that: at once if it was rotated before, and once it stays refused.
    pub(super) async fn take(&self, work: &mut Work) -> Result<Token, AccessError> {
        let found = self.disk.token().await?;
        let Some(known) = work.record.token.clone().filter(|known| *known != found) else {
            if work.record.token.is_none() {
                self.adopt(work, &found).await?;
            }
            return Ok(found);
        };
        let is_spent = work.record.spent.contains(&found.digest());
        match self.ask(&found).await {
            Ok(answer) => {
                work.now = answer.date.unwrap_or(work.now);
                if let Some(wait) = self.settling(work, &found).await? {
                    // The answer may come from a replica that is behind.
                    if is_spent && self.ask(&known).await.is_ok() {
                        return self.restore(work, known).await;
                    }
                    work.is_pending = true;
                    return Err(AccessError::Uncertain { wait });
                }
            }
            Err(failure) if is_refusal(&failure) => match self.ask(&known).await {
                Ok(answer) => {
                    work.now = answer.date.unwrap_or(work.now);
                    if !is_spent && !self.stays_refused(&found, work.now) {
                        return Err(AccessError::Asking(failure));
                    }
                    rules::spend(&mut work.record, Some(found.digest()));
                    self.disk.save(work.record.clone()).await?;
                    return self.restore(work, known).await;
                }
                // Both are dead, or a replica does not know of the newest one yet. That one is kept: it may be good after all.
                Err(refused) if is_refusal(&refused) => {
                    work.now = refused.date.unwrap_or(work.now);
                    if !rules::is_new(&work.record, work.now) {
                        rules::refused(&mut work.record, work.now);
                        self.disk.save(work.record.clone()).await?;
                    }
                    return Err(self.refusal(work, if is_spent { refused } else { failure }));
                }
                Err(failure) => return Err(AccessError::Asking(failure)),
            },
            Err(Failure { disposition: Disposition::Unsupported, .. }) => {}
            Err(failure) => return Err(AccessError::Asking(failure)),
        }
        work.events.push(AccessEvent::Found(found.fingerprint()));
        self.adopt(work, &found).await?;
        Ok(found)
    }

    /// How much longer the acceptance of a token that was found may come from a replica that does not know of its rotation
    /// by this or another process.
    async fn settling(&self, work: &mut Work, found: &Token) -> Result<Option<Duration>, AccessError> {
        let (sent_at, known) = (self.sent_at(work, found).await?, work.record.settles_from);
        let Some(from) = rules::settles_from(&mut work.record, &sent_at, work.now) else { return Ok(None) };
        if work.record.settles_from != known {
            self.disk.save(work.record.clone()).await?;
        }
        self.still_settling(work, found, from).await
    }

    /// Whether an unknown token was refused for so long that no replica can be behind.
    fn stays_refused(&self, found: &Token, now: Timestamp) -> bool {
        let mut refused = self.refused_found.borrow_mut();
        let since = match *refused {
            // One that lies ahead is of a clock that was wrong.
            Some((digest, since)) if digest == found.digest() && since <= now => since,
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
        self.forget_unsaved();
        self.uses.take(&self.access.url, found.digest());
        if pending.is_some() {
            self.disk.clear().await?;
        }
        Ok(())
    }
}
