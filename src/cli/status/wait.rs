//! `status --wait ready`: asks until the daemon is ready, and says on stderr what it waits for.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::reasons;
use crate::cli::Error;
use crate::cli::report::Reporter;
use crate::error_chain::chain;
use crate::status::{StatusClient, StatusClientError};

/// The interval of readiness requests.
const POLL: Duration = Duration::from_millis(500);

/// How long a start that goes well may take without a remark.
const REMARK_AFTER: Duration = Duration::from_secs(2);

/// How many reasons a remark has.
const REMARKED_REASONS: usize = 3;

/// Longer than any wait, and short enough to be added to any instant.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How a wait ended.
pub(super) enum Waited {
    Ready,
    For {
        /// Why the daemon is not ready.
        reasons: Vec<String>,
        /// Whether the daemon itself gave the reasons.
        has_answered: bool,
    },
}

/// Polls until the daemon is ready or `limit` is over; a daemon that does not answer is not ready.
pub(super) async fn wait(reporter: &Reporter, daemon: &StatusClient, limit: Duration) -> Result<Waited, Error> {
    let began = Instant::now();
    let deadline = began.checked_add(limit).unwrap_or(began + FOR_EVER);
    let mut remarks = Remarks::default();
    loop {
        // With a limit of 0, one answer is awaited.
        let asked = timeout_at(deadline.max(Instant::now() + POLL), daemon.get("/readyz")).await;
        let (reasons, has_answered) = match asked {
            Ok(Ok(reply)) if reply.is_ok => return Ok(Waited::Ready),
            Ok(Ok(reply)) => (reasons(&reply.body), true),
            // With several paths, the daemon may appear at the next one.
            Ok(Err(error @ StatusClientError::Connect { .. })) if daemon.sockets.len() == 1 => return Err(error.into()),
            Ok(Err(error)) => (vec![chain(&error)], false),
            Err(_) => (vec!["the daemon did not answer in time".to_owned()], false),
        };
        let now = Instant::now();
        if now >= deadline {
            return Ok(Waited::For { reasons, has_answered });
        }
        if let Some(lines) = remarks.next(now - began, &reasons) {
            lines.iter().for_each(|line| reporter.remark(line));
        }
        sleep(POLL.min(deadline - now)).await;
    }
}

/// What was said so far about the wait.
#[derive(Debug, Default)]
struct Remarks {
    /// The reasons of the last remark.
    said: Option<Vec<String>>,
    /// The last reasons, and since when they are the same, counted from the begin of the wait.
    last: (Vec<String>, Duration),
}

impl Remarks {
    /// The lines to say after this much of the wait: the reasons, once the first moments are over, and others that last.
    fn next(&mut self, waited: Duration, reasons: &[String]) -> Option<Vec<String>> {
        if self.last.0 != reasons {
            self.last = (reasons.to_vec(), waited);
        }
        let since = match &self.said {
            None => Duration::ZERO,
            Some(said) if said == reasons => return None,
            Some(_) => self.last.1,
        };
        if waited - since < REMARK_AFTER {
            return None;
        }
        self.said = Some(reasons.to_vec());
        Some(remark(reasons))
    }
}

fn remark(reasons: &[String]) -> Vec<String> {
    let more = reasons.len().saturating_sub(REMARKED_REASONS);
    let more = (more > 0).then(|| format!("  and {more} more"));
    let shown = reasons.iter().take(REMARKED_REASONS).map(|reason| format!("  {reason}"));
    std::iter::once("waiting: not ready yet".to_owned()).chain(shown).chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remarked(polls: &[(u64, &str)]) -> Vec<u64> {
        let mut remarks = Remarks::default();
        let said = |(seconds, reason): &(u64, &str)| {
            remarks.next(Duration::from_secs(*seconds), &[(*reason).to_owned()]).map(|_| *seconds)
        };
        polls.iter().filter_map(said).collect()
    }

    #[test]
    fn a_reason_is_said_once_and_another_one_when_it_lasts() {
        let polls = [(0, "a"), (1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b"), (6, "b"), (9, "b")];
        assert_eq!(remarked(&polls), [2, 6]);
        // Reasons that keep changing are said once, and so is one that comes back.
        assert_eq!(remarked(&[(0, "a"), (1, "b"), (2, "a"), (3, "b"), (4, "a"), (60, "a")]), [2]);
    }

    #[test]
    fn a_long_list_of_reasons_is_cut() {
        let reasons: Vec<_> = (1..=5).map(|number| format!("runner `{number}`: refused")).collect();
        let lines = remark(&reasons);
        assert_eq!(lines[3..], ["  runner `3`: refused", "  and 2 more"]);
    }
}
