//! A look at an access token that changes nothing about it.

use tokio::time::Instant;

use super::{AccessDisk, AccessError, AccessKeeper, AccessPass, Work, is_refusal, rules};
use crate::error_chain::chain;
use crate::gitlab::{Answer, Disposition};
use crate::model::Timestamp;
use crate::ops::AccessServer;

impl<S: AccessServer, D: AccessDisk> AccessKeeper<S, D> {
    /// Asks the server about the token in the file, without the lock: rotates, settles and repairs nothing. The question is
    /// a use of the token, which is remembered if no other process works on the file.
    pub async fn look(&self, now: Timestamp) -> AccessPass {
        let (record, events, took) = Default::default();
        let mut work = Work { record, is_pending: false, events, now, took };
        let error = self.look_at(&mut work).await.err();
        if work.record.asked_at == Some(work.now)
            && let Err(error) = self.note_use(work.now).await
        {
            tracing::debug!(error = chain(&error), "cannot remember the use of an access token");
        }
        let Work { record, is_pending, events, now, .. } = work;
        let obstacle = rules::obstacle(&record, &self.access.keeping);
        let is_unsaved = self.has_unsaved();
        AccessPass { record, is_pending, events, error, is_unsaved, obstacle, now, wait: rules::ASK_INTERVAL }
    }

    async fn look_at(&self, work: &mut Work) -> Result<(), AccessError> {
        work.record = self.disk.record().await?;
        let token = self.disk.token().await?;
        if work.record.token.as_ref() != Some(&token) {
            work.record = std::mem::take(&mut work.record).with_token(token.clone());
        }
        work.is_pending = !self.sent_at(work, &token).await?.is_empty();
        let asked = Instant::now();
        match self.ask(&token).await {
            Ok(Answer { value, date, .. }) => {
                work.now = date.unwrap_or(work.now);
                // Nothing is drawn that is not saved.
                rules::accepted(&mut work.record, value, work.now, asked.elapsed(), 0);
                Ok(())
            }
            Err(failure) if failure.disposition == Disposition::Unsupported => {
                work.record.is_unsupported = true;
                Ok(())
            }
            Err(failure) => {
                work.now = failure.date.unwrap_or(work.now);
                if is_refusal(&failure) && !rules::is_new(&work.record, work.now) {
                    rules::refused(&mut work.record, work.now);
                    if work.record.lost_at.is_some() {
                        return Err(AccessError::Lost);
                    }
                }
                Err(self.refusal(work, failure))
            }
        }
    }
}
