//! The runner report, in the one shape that the daemon and all commands share.

use crate::lifecycle::{Plan, Rotation, Rules, State, next_rotation, plan};
use crate::model::{NextStep, PlannedRotation, RotationRule, RunnerReport, StateName, Timestamp};
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
        // What was recorded is about an answer, and such a token gets none.
        state: if runner.has_wrong_token() { StateName::Failed } else { record.state.unwrap_or(StateName::Unknown) },
        since: record.since,
        last_verify: record.last_verify.clone(),
        sharing: runner.recorded_sharing().map(Box::new),
        ..RunnerReport::default()
    }
}

/// Reports a runner in this state, with its next step and the rule for its rotation.
#[must_use]
pub fn planned_report(runner: &Runner, state: &State, rules: &Rules, now: Timestamp) -> RunnerReport {
    let validity = state.validity();
    RunnerReport {
        token_obtained_at: validity.map(|validity| validity.obtained_at),
        token_expires_at: validity.and_then(|validity| validity.expiry.at()),
        state: state.name(),
        since: Some(state.since()),
        next: plan(state, rules).map(|Plan { step, at, why }| NextStep { step, at, why }),
        rotation: Some(planned_rotation(state, rules)),
        ..record_report(runner, now)
    }
}

/// The rule for its rotation, and when that is due.
fn planned_rotation(state: &State, rules: &Rules) -> PlannedRotation {
    let rule = match rules.rotate {
        Some(Rotation::AtShare(_)) => RotationRule::ShareOfLife,
        Some(Rotation::LastResort { .. }) => RotationRule::LastResort,
        None => RotationRule::Off,
    };
    PlannedRotation { rule, at: next_rotation(state, rules) }
}
