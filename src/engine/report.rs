//! The runner report, in the one shape that the daemon and all commands share.

use crate::model::{RunnerReport, StateName, Timestamp};
use crate::ops::Runner;

/// Reports a runner as its record has it.
#[must_use]
pub fn record_report(runner: &Runner, now: Timestamp) -> RunnerReport {
    let record = &runner.record;
    let validity = runner.validity(now);
    RunnerReport {
        name: record.name.clone(),
        id: record.id,
        url: Some(record.url.clone()),
        executor: runner.executor.clone(),
        token_fingerprint: record.credential.as_ref().map(|credential| credential.token.fingerprint()),
        token_obtained_at: validity.map(|validity| validity.obtained_at),
        token_expires_at: validity.and_then(|validity| validity.expiry.at()),
        state: record.state.unwrap_or(StateName::Unknown),
        since: record.since,
        last_verify: record.last_verify.clone(),
        sharing: runner.recorded_sharing().map(Box::new),
        ..RunnerReport::default()
    }
}
