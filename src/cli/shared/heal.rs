//! `shared heal`: a token that works for a shared runner, because a person asks for it.

use std::rc::Rc;

use super::arguments::HealArguments;
use super::session::no_store;
use crate::cli::context::Context;
use crate::cli::interrupt::Interrupt;
use crate::cli::outcome::RunnerOutcome;
use crate::cli::rotate::{rescue, rotated, until_interrupted};
use crate::cli::selection::read_file;
use crate::cli::session::{CommandSession, Driver, error_of};
use crate::cli::{Error, Exit};
use crate::engine::{Asker, Budget, ManagedRunner, record_report};
use crate::lifecycle::{Goal, Outcome, State};
use crate::model::{Action, ShareName};
use crate::ops::{AccessToken, EntryFate};
use crate::secret::TokenPurpose;
use crate::sharing::{AnyEngine, Shares};

/// Heals it. An interrupt cancels no reset that is under way.
pub(super) async fn heal(context: &Context<'_>, arguments: HealArguments, interrupt: Interrupt) -> Result<Exit, Error> {
    let token = arguments.access_token_file;
    let token = token.map(|path| read_file(&path, &context.environment, TokenPurpose::Access)).transpose()?;
    let tls = arguments.tls.files(&context.environment);
    let access_token = token.map(|token| AccessToken { token, tls });
    let session = CommandSession::open(context, interrupt.clone(), None).await?;
    let name = &arguments.name;
    let is_shared = |wanted: &crate::ops::Enrollment| wanted.share_as.as_ref() == Some(name);
    if !session.config.enrollments.iter().any(is_shared) {
        return Err(not_shared_here(name));
    }
    let shares = session.ops().shares().ok_or_else(no_store)?;
    let ready = async {
        // What the new token needs, before one is spent.
        shares.probe(name).await?;
        shares.read(name).await
    };
    tokio::select! {
        biased;
        read = ready => drop(read?),
        () = interrupt.asked() => return Err(Error::Interrupted("not begun".to_owned())),
    }
    let (inventory, _) = session.inventory().await?;
    let has_token = |managed: &ManagedRunner| managed.runner.record.credential.is_some();
    let is_own = |managed: &ManagedRunner| managed.enrollment.as_deref().is_some_and(is_shared) && has_token(managed);
    let Some(managed) = inventory.runners.into_iter().find(is_own) else { return Err(not_held_here(name)) };
    let mut driver = session.driver(managed, Asker::Command { access_token, entry_fate: EntryFate::Keep });
    driver.is_healing = true;
    let sole_copies = session.ops().sole_copies().clone();
    let healed = until_interrupted(&interrupt, &sole_copies, try_heal(&session, &mut driver, name, &shares)).await;
    let outcome = healed.unwrap_or_else(|error| {
        let action = if error.exit() == Exit::Refused { Action::Refused } else { Action::Failed };
        RunnerOutcome::failed(record_report(&driver.runner, driver.now()), action, "not healed", &error)
    });
    Ok(session.reporter.report_outcomes(vec![outcome]))
}

async fn try_heal(
    session: &CommandSession,
    driver: &mut Driver,
    name: &ShareName,
    shares: &Rc<Shares<AnyEngine>>,
) -> Result<RunnerOutcome, Error> {
    // What is of another runner is neither used nor overwritten.
    session.ops().check_store(name, &mut driver.runner).await?;
    let drive = session.drive(driver, Goal::Healed, Budget::BY_RULES).await;
    if let Some(stored) = rescue(session, driver, &drive).await {
        return rotated(session, driver, stored).await;
    }
    match (drive.outcome(), driver.state()) {
        (Some(Outcome::Rotated(_)), _) => {
            let outcome = rotated(session, driver, drive).await?;
            generation_in(session, shares, name, driver).await?;
            Ok(outcome)
        }
        (Some(Outcome::Accepted(_) | Outcome::Adopted(_)), _) => {
            let generation = generation_in(session, shares, name, driver).await?;
            let report = record_report(&driver.runner, driver.now());
            let line = format!("its token is accepted, and stands in the store as generation {generation}");
            Ok(RunnerOutcome::done(report, Action::Verified, line))
        }
        (Some(Outcome::MustAct(_)), State::Rejected(_)) if drive.failure().is_none() => Err(Error::Verdict {
            exit: Exit::Refused,
            message: "GitLab accepts none of the tokens that this machine and the store know".to_owned(),
            hint: Some(
                "reset it by its id: use --access-token-file, or add a [[server]] with an access token to agent.toml"
                    .to_owned(),
            ),
        }),
        _ if drive.is_interrupted => Err(Error::Interrupted("nothing was replaced".to_owned())),
        _ => Err(error_of(drive)),
    }
}

/// The generation of this machine's token in the store, which has to have it.
async fn generation_in(
    session: &CommandSession,
    shares: &Rc<Shares<AnyEngine>>,
    name: &ShareName,
    driver: &mut Driver,
) -> Result<u64, Error> {
    session.ops().check_store(name, &mut driver.runner).await?;
    let stored = shares.read(name).await?;
    let token = stored.and_then(|stored| stored.runner.token);
    match token.filter(|token| Some(token.lineage.token()) == driver.runner.digest()) {
        Some(token) => Ok(token.lineage.generation()),
        None => Err(Error::Verdict {
            exit: Exit::Unreachable,
            message: "its token is accepted, and does not stand in the store yet".to_owned(),
            hint: Some("try again, or leave it to the daemon of this machine".to_owned()),
        }),
    }
}

fn not_shared_here(name: &ShareName) -> Error {
    Error::Verdict {
        exit: Exit::LocalFile,
        message: format!("no [[enroll]] in agent.toml has `share_as = \"{name}\"`"),
        hint: Some("run it on a machine that shares the runner".to_owned()),
    }
}

fn not_held_here(name: &ShareName) -> Error {
    Error::Verdict {
        exit: Exit::LocalFile,
        message: format!("this machine has no token of the shared runner `{name}` yet"),
        hint: Some("run it on a machine that holds the runner, or start the daemon, which takes it over".to_owned()),
    }
}
