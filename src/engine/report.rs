//! What is told about a runner.

use crate::lifecycle::{Plan, State};
use crate::model::{NextStep, RunnerReport};
use crate::ops::Runner;

/// Tells about a runner in the one shape that all commands share.
pub fn report(runner: &Runner, state: &State, next: Option<Plan>) -> RunnerReport {
    let record = &runner.record;
    let credential = record.credential.as_ref();
    let validity = state.validity();
    RunnerReport {
        name: record.name.clone(),
        id: record.id,
        url: Some(record.url.clone()),
        executor: runner.executor.clone(),
        token_fingerprint: credential.map(|credential| credential.token.fingerprint()),
        token_obtained_at: validity.map(|validity| validity.obtained_at),
        token_expires_at: validity.and_then(|validity| validity.expiry.at()),
        state: state.name(),
        since: Some(state.since()),
        last_verify: record.last_verify.clone(),
        next: next.map(|plan| NextStep { step: plan.step, at: plan.at, why: plan.why }),
        action: None,
        error: None,
    }
}
