//! What the registry keeps of a runner.

use std::ops::Deref;

use super::registry::RunnerStatus;
use crate::model::Timestamp;

/// How many verifications before the last one are kept.
const FORMER_VERIFICATIONS: usize = 3;

/// The status of a runner, and when it was verified before.
#[derive(Debug)]
pub(super) struct KeptRunner {
    pub(super) status: RunnerStatus,
    /// Server time of the verifications before the last one, newest first.
    verified_before: [Option<Timestamp>; FORMER_VERIFICATIONS],
}

impl KeptRunner {
    /// The first status of a runner.
    pub(super) fn new(status: RunnerStatus) -> Self {
        Self { status, verified_before: [None; FORMER_VERIFICATIONS] }
    }

    /// Replaces the status.
    pub(super) fn update(&mut self, status: RunnerStatus) {
        let former = self.verified_at();
        self.status = status;
        if former.is_some() && former != self.verified_at() {
            self.verified_before.rotate_right(1);
            self.verified_before[0] = former;
        }
    }

    fn verified_at(&self) -> Option<Timestamp> {
        self.status.report.last_verify.as_ref().map(|verify| verify.at)
    }

    /// Server time of the verifications before the last one, newest first.
    pub(super) fn verified_before(&self) -> Vec<Timestamp> {
        self.verified_before.iter().flatten().copied().collect()
    }
}

impl Deref for KeptRunner {
    type Target = RunnerStatus;

    fn deref(&self) -> &RunnerStatus {
        &self.status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LastVerify, StateName, VerifyOutcome};
    use crate::status::tests::status;

    #[test]
    fn the_last_verifications_are_kept_once_each() {
        let verified = |minute: u32| {
            let at = format!("2027-01-01T00:{minute:02}:00Z").parse().unwrap();
            let mut status = status("a", Some(1), StateName::Active);
            status.report.last_verify = Some(LastVerify { at, outcome: VerifyOutcome::Accepted });
            status
        };
        let mut kept = KeptRunner::new(verified(0));
        assert!(kept.verified_before().is_empty());
        for minute in [0, 1, 1, 2, 3, 4] {
            kept.update(verified(minute));
        }
        let before: Vec<_> = kept.verified_before().iter().map(ToString::to_string).collect();
        assert_eq!(before, ["2027-01-01T00:03:00Z", "2027-01-01T00:02:00Z", "2027-01-01T00:01:00Z"]);
    }
}
