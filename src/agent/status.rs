//! What is told about a runner.

use crate::lifecycle::{Plan, State};
use crate::model::{NextStep, RunnerReport};
use crate::ops::Runner;

/// Tells about a runner in the one shape that all commands share.
pub(super) fn report(runner: &Runner, state: &State, next: Option<Plan>) -> RunnerReport {
    let record = &runner.record;
    let credential = record.credential.as_ref();
    let held = state.held();
    RunnerReport {
        name: record.name.clone(),
        id: record.id,
        url: Some(record.url.clone()),
        executor: runner.executor.clone(),
        token_fingerprint: credential.map(|credential| credential.token.fingerprint()),
        token_obtained_at: held.map(|held| held.obtained_at),
        token_expires_at: held.and_then(|held| held.expiry.at()),
        state: state.word().to_owned(),
        since: Some(state.since()),
        last_verify: record.last_verify.clone(),
        next: next.map(|plan| NextStep {
            step: plan.step.word().to_owned(),
            at: plan.at,
            why: plan.why.word().to_owned(),
        }),
        action: None,
        error: None,
    }
}
