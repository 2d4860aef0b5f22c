//! The rules of a runner, from the settings, its policy and its origin.

use std::sync::Arc;

use super::{Config, RotateFound, RotatePolicy, Unregister};
use crate::lifecycle::{Recovery, RegisterAgain, Rejection, Rotation, Rules, Share, State};
use crate::model::{Origin, SystemId};
use crate::ops::{Deletion, Enrollment, RegistrationSource, Runner};
use crate::retry::LONGEST_DELAY;
use crate::store::Record;

/// Whether the server has named the runner's id for one of its tokens.
pub(super) fn has_confirmed_id(record: &Record) -> bool {
    record.id.is_some() && record.named_id() == record.id
}

/// The rules of a runner in the daemon.
pub fn rules(config: &Config, runner: &Runner, enrollment: Option<&Enrollment>, system_id: &SystemId) -> Rules {
    let policy = config.policy_of(runner);
    let is_shared = is_shared(config, runner) || is_abandoned(runner, enrollment);
    let rotate = match policy.rotate.unwrap_or(RotatePolicy::Auto) {
        RotatePolicy::Always => Some(Rotation::AtShare(config.rotate.unwrap_or(Share::DEFAULT))),
        RotatePolicy::Off => None,
        RotatePolicy::Auto => {
            let share = config.rotate.filter(|_| may_rotate(config, runner, enrollment));
            share.and_then(|share| match found_policy(config, runner, enrollment) {
                None | Some(RotateFound::Always) => Some(Rotation::AtShare(share)),
                Some(RotateFound::LastResort) => Some(Rotation::LastResort { is_issue_known: runner.is_issue_known() }),
                Some(RotateFound::Never) => None,
            })
        }
    };
    let verify_interval = if enrollment.is_some() { config.verify_enrolled } else { config.verify_found };
    let is_twin = runner.twin_of.is_some() && policy.rotate != Some(RotatePolicy::Always);
    let recovery = recovery(config, runner, enrollment, is_shared);
    let phase = runner.phase(system_id);
    let is_untimed = runner.is_untimed();
    Rules { timing: Arc::clone(&config.timing), verify_interval, rotate, is_twin, is_untimed, recovery, phase }
}

/// Whether nothing about the runner itself is against a rotation.
fn may_rotate(config: &Config, runner: &Runner, enrollment: Option<&Enrollment>) -> bool {
    let is_rotatable = match runner.record.origin {
        Origin::Registered | Origin::Given => runner.variable.is_none() && !runner.rotation_disabled,
        Origin::V1 => false,
    };
    is_rotatable && !is_shared(config, runner) && !is_abandoned(runner, enrollment)
}

/// Whether its name has gone from the settings: the other machines go on with the token.
fn is_abandoned(runner: &Runner, enrollment: Option<&Enrollment>) -> bool {
    runner.record.shared.is_some() && enrollment.is_none_or(|it| it.share_as.is_none())
}

/// The rule for a runner that was only found in config.toml: no enrollment and no `register` has made it, this agent has
/// not rotated its token before, and no `[[runner]]` has a rotate setting for it. `None` for any other, and for one that
/// cannot be rotated anyway.
#[must_use]
pub fn found_policy(config: &Config, runner: &Runner, enrollment: Option<&Enrollment>) -> Option<RotateFound> {
    let is_ours = enrollment.is_some() || runner.record.seed.is_some() || runner.record.last_reset_at.is_some();
    let is_found = !is_ours && config.policy_of(runner).rotate.is_none();
    let policy = config.rotate.map_or(RotateFound::Never, |_| config.rotate_found);
    (is_found && may_rotate(config, runner, enrollment)).then_some(policy)
}

/// The rules of a runner in a command. The user asked for the step and waits for it: a reset by the runner's id only
/// needs an access token, and no backoff is longer than [`LONGEST_DELAY`].
pub fn command_rules(config: &Config, runner: &Runner, rules: Rules) -> Rules {
    let record = &runner.record;
    let reset_by_id = config.access_to(&record.url).is_some() && has_confirmed_id(record);
    let mut timing = rules.timing;
    if timing.backoff_cap > LONGEST_DELAY {
        Arc::make_mut(&mut timing).backoff_cap = LONGEST_DELAY;
    }
    Rules { timing, recovery: Recovery { reset_by_id, register: RegisterAgain::Never }, ..rules }
}

/// What a stop of the daemon deletes: never a runner that other machines use, or that cannot be registered again.
pub fn deletion_at_stop(config: &Config, runner: &Runner) -> Deletion {
    if is_in_store(config, runner) {
        return Deletion::Manager;
    }
    match runner.record.origin {
        Origin::Registered | Origin::V1 if !is_shared(config, runner) => Deletion::Runner,
        Origin::Registered | Origin::V1 | Origin::Given => Deletion::Manager,
    }
}

/// What a stop of the daemon that unregisters does with a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStop {
    /// It keeps its registration.
    Keep,
    /// It keeps its registration, because the answer to a rotation was lost, and with it the token.
    TokenLost,
    /// It is unregistered.
    Unregister,
    /// It is unregistered if the secret of its enrollment can be read, with which it is registered again.
    UnregisterRenewable,
}

/// What a stop of the daemon that unregisters does with a runner in this state.
#[must_use]
pub fn at_stop(config: &Config, runner: &Runner, enrollment: Option<&Enrollment>, state: &State) -> AtStop {
    let is_lost = match state {
        State::Retired { .. } => return AtStop::Keep,
        State::Uncertain(_) => true,
        State::Rejected(rejected) => rejected.rejection == Rejection::Lost,
        State::Unregistered(_) | State::Active(_) | State::NotRenewable(_) | State::Failed(_) => false,
    };
    if runner.record.credential.is_none() {
        return AtStop::Keep;
    }
    if is_lost { AtStop::TokenLost } else { at_stop_once_registered(config, runner, enrollment) }
}

/// What a stop of the daemon that unregisters does with a runner once it is registered and its token is known.
#[must_use]
pub fn at_stop_once_registered(config: &Config, runner: &Runner, enrollment: Option<&Enrollment>) -> AtStop {
    match config.policy_of(runner).unregister.unwrap_or(config.shutdown.unregister) {
        Unregister::Never => AtStop::Keep,
        Unregister::All => AtStop::Unregister,
        Unregister::Enrolled if enrollment.is_none() => AtStop::Keep,
        // The next verification makes a manager again.
        Unregister::Enrolled if deletion_at_stop(config, runner) == Deletion::Manager => AtStop::Unregister,
        Unregister::Enrolled => AtStop::UnregisterRenewable,
    }
}

/// What a person's command deletes: a registered runner, whoever else uses it, but not through a copy of its record,
/// unless the settings know better.
pub(super) fn requested_deletion(config: &Config, runner: &Runner) -> Deletion {
    // It has other members, or the store would go on naming it.
    if is_in_store(config, runner) {
        return Deletion::Manager;
    }
    let is_copy = runner.record.is_copy && config.policy_of(runner).shared != Some(false);
    match runner.record.origin {
        Origin::Registered | Origin::V1 if !is_copy => Deletion::Runner,
        Origin::Registered | Origin::V1 | Origin::Given => Deletion::Manager,
    }
}

/// Whether other machines have the runner from a store, by its record or its enrollment.
fn is_in_store(config: &Config, runner: &Runner) -> bool {
    let is_its = |enrollment: &&Enrollment| runner.record.enrollment.as_deref() == Some(enrollment.key.as_str());
    let mut enrollments = config.enrollments.iter().filter(is_its);
    runner.record.shared.is_some() || enrollments.any(|enrollment| enrollment.share_as.is_some())
}

/// Whether other machines use the runner's token: a copied record says so, unless the settings know better.
fn is_shared(config: &Config, runner: &Runner) -> bool {
    config.policy_of(runner).shared.unwrap_or(runner.record.is_copy)
}

/// The rungs of the recovery ladder that a runner has.
fn recovery(config: &Config, runner: &Runner, enrollment: Option<&Enrollment>, is_shared: bool) -> Recovery {
    let record = &runner.record;
    let token = record.credential.as_ref().map(|credential| credential.token.fingerprint());
    let was_recovered = record.recovered.is_some() && record.recovered == token;
    let can_register = enrollment.is_some_and(|enrollment| {
        matches!(enrollment.source, RegistrationSource::Registration(_) | RegistrationSource::Created(_))
    });
    let is_of_store = record.shared.is_some() || enrollment.is_some_and(|it| it.share_as.is_some());
    let may_recover = !is_of_store || config.sharing.as_ref().is_some_and(|sharing| sharing.recover);
    Recovery {
        reset_by_id: config.access_to(&record.url).is_some()
            && has_confirmed_id(record)
            && !is_shared
            // The store counts what all machines together do.
            && (is_of_store || !was_recovered)
            && may_recover,
        register: if can_register && record.given_to.is_none() && !is_of_store {
            config.register_again
        } else {
            RegisterAgain::Never
        },
    }
}
