//! One look at a token, or its rotation: waits for the lock, for the server, and for an answer that must not be cut.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::kept::{Keeper, KeptSession};
use crate::cli::Error;
use crate::clock::{Clock as _, SystemClock};
use crate::error_chain::chain;
use crate::gitlab::Disposition;
use crate::model::format_span;
use crate::ops::{AccessError, AccessMoment, AccessPass, AccessWish, LOCK_WAIT};
use crate::retry::Delays;
use crate::store;

/// The pause between two attempts to lock the file.
pub(super) const LOCK_POLL: Duration = Duration::from_millis(100);

/// The pause between two attempts to store a token that is in memory alone.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The delay before the first question after a lost answer.
const FIRST_QUESTION: Duration = Duration::from_secs(1);

impl KeptSession {
    /// Makes passes until one is complete, for up to `wait` while the server does not answer or an answer is unsettled.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if a signal came before a rotation was sent. One that was sent is finished.
    pub(super) async fn pass(&self, keeper: &Keeper, wish: AccessWish, wait: Duration) -> Result<AccessPass, Error> {
        let ends_at = Instant::now() + wait;
        let mut delays = Delays::within(wait);
        let mut events = Vec::new();
        loop {
            let mut pass = self.uncut(self.locked_pass(keeper, wish)).await?;
            events.append(&mut pass.events);
            let left = ends_at.saturating_duration_since(Instant::now());
            let delay =
                pass.error.as_ref().and_then(|error| delay_after(error, &mut delays)).filter(|delay| *delay <= left);
            let Some((delay, error)) = delay.zip(pass.error.as_ref()) else { return Ok(AccessPass { events, ..pass }) };
            self.reporter.remark(&format!("asking again in {}: {}", format_span(delay), chain(error)));
            tokio::select! {
                biased;
                () = self.interrupt.asked() => return Ok(AccessPass { events, ..pass }),
                () = sleep(delay) => {}
            }
        }
    }

    /// Lets work end that has sent a rotation, whatever signals come; no rotation begins after the first signal.
    async fn uncut<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            () = self.interrupt.asked() => self.copies.close(),
        }
        if self.copies.under_way() == 0 {
            return Err(Error::Interrupted("no rotation was sent".to_owned()));
        }
        // The request has a timeout.
        Ok(work.await)
    }

    /// A pass, once no other process works on the file.
    async fn locked_pass(&self, keeper: &Keeper, wish: AccessWish) -> AccessPass {
        let began = Instant::now();
        loop {
            let moment = AccessMoment { now: SystemClock.read().wall, last_use: None, wish };
            let pass = keeper.pass(moment).await;
            let is_locked = matches!(pass.error, Some(AccessError::Disk(store::Error::FileLocked { .. })));
            if !is_locked || began.elapsed() >= LOCK_WAIT {
                return self.stored(keeper, pass).await;
            }
            sleep(LOCK_POLL).await;
        }
    }

    /// Stores a new token that is in memory alone, for as long as that takes. A second signal gives it up.
    async fn stored(&self, keeper: &Keeper, mut pass: AccessPass) -> AccessPass {
        let mut is_said = false;
        while keeper.has_unsaved() {
            let error = pass.error.as_ref().map(|error| chain(error).to_string()).unwrap_or_default();
            if !std::mem::replace(&mut is_said, true) {
                self.reporter.remark(&format!(
                    "error: the new access token for {} exists only in memory, retrying: {error}",
                    keeper.access().url
                ));
            }
            tokio::select! {
                biased;
                () = self.interrupt.interrupted_twice() => {
                    tracing::error!(error, "ending nevertheless: the new access token is lost");
                    return pass;
                }
                () = sleep(STORE_PAUSE) => {}
            }
            let events = std::mem::take(&mut pass.events);
            let moment = AccessMoment { now: SystemClock.read().wall, last_use: None, wish: AccessWish::Ask };
            pass = keeper.pass(moment).await;
            pass.events.splice(0..0, events);
        }
        pass
    }
}

/// After what time another pass may succeed; `None` if it needs a person, or there is no time left.
fn delay_after(error: &AccessError, delays: &mut Delays) -> Option<Duration> {
    match error {
        AccessError::Uncertain { wait } => Some(*wait),
        AccessError::Rotating(failure) if matches!(failure.disposition, Disposition::Unknown { .. }) => {
            delays.next().map(|_| FIRST_QUESTION)
        }
        AccessError::Asking(failure) | AccessError::Rotating(failure) => match failure.disposition {
            Disposition::NotExecuted { retry_after } | Disposition::Unknown { retry_after } => {
                Some(delays.next()?.max(retry_after.unwrap_or_default()))
            }
            _ => None,
        },
        AccessError::Unproven(_) | AccessError::NotKnownYet => delays.next(),
        AccessError::Source(_)
        | AccessError::Disk(_)
        | AccessError::Lost
        | AccessError::NotHeld
        | AccessError::Unfinished { .. }
        | AccessError::Obstacle(_)
        | AccessError::NoPlace(_)
        | AccessError::Stopping => None,
    }
}
