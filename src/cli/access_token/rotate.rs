//! `access-token rotate`: replaces an access token with a new one.

use super::arguments::RotateArguments;
use super::copy_file::CopyFile;
use super::kept::{KeptSession, KeptToken};
use super::row::{TokenRow, report_rows};
use crate::cli::context::Context;
use crate::cli::interrupt::Interrupt;
use crate::cli::{Error, Exit};
use crate::error_chain::chain;
use crate::lifecycle::AccessKeeping;
use crate::model::{AccessTokenOwner, Action};
use crate::ops::{AccessEvent, AccessPass, AccessWish};
use crate::settings;

/// Rotates one token. An interrupt cuts no rotation that was sent.
pub(super) async fn rotate(
    context: &Context<'_>,
    arguments: RotateArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    let RotateArguments { token, if_due, write, life, group, project } = arguments;
    if let Some(life) = life.filter(|life| !settings::is_access_token_life(*life)) {
        let hours = life.as_secs() / 3600;
        return Err(Error::Usage(format!("--life: {hours} hours are not from 1 day to 400 days: use one such as 90d")));
    }
    let wait = token.wait.unwrap_or_default();
    let session = KeptSession::open(context, token, interrupt)?;
    let token = only_one(&session.tokens)?;
    let of_settings = token.access.keeping.clone();
    let owner = match (group, project) {
        (Some(group), _) => AccessTokenOwner::Group(group.to_string()),
        (None, Some(project)) => AccessTokenOwner::Project(project.to_string()),
        (None, None) => of_settings.owner,
    };
    let keeping = AccessKeeping { rotate: true, life: life.or(of_settings.life), owner, ..of_settings };
    let copy = match &write {
        Some(path) => CopyFile::prepare(context, &session, token, path).await?,
        None => None,
    };
    let keeper = session.keeper(token, keeping);
    let wish = if if_due { AccessWish::Keep } else { AccessWish::Rotate };
    let pass = session.pass(&keeper, wish, wait).await?;
    let row = outcome(TokenRow::of(&session, token, &pass), &pass, if_due);
    let row = match copy {
        Some(copy) if matches!(row.action, Some(Action::Rotated | Action::Unchanged)) => {
            copied(row, &copy, &pass).await
        }
        Some(_) | None => row,
    };
    Ok(report_rows(&session.reporter, &[row]))
}

/// Writes the copy of a token that its own file holds.
async fn copied(row: TokenRow, copy: &CopyFile, pass: &AccessPass) -> TokenRow {
    let Some(token) = &pass.record.token else { return row };
    match copy.write(token).await {
        Ok(()) => row.written(copy.path()),
        Err(error) => {
            let message = format!("{}; {} has the token", chain(&error), row.report.source);
            row.failed(error.exit(), message)
        }
    }
}

fn only_one(tokens: &[KeptToken]) -> Result<&KeptToken, Error> {
    match tokens {
        [only] => Ok(only),
        several => {
            let urls: Vec<_> = several.iter().map(|token| token.access.url.as_str()).collect();
            Err(Error::Usage(format!("several servers have an access token: name one of {}", urls.join(", "))))
        }
    }
}

/// What became of the rotation.
fn outcome(row: TokenRow, pass: &AccessPass, if_due: bool) -> TokenRow {
    let has = |is_it: fn(&AccessEvent) -> bool| pass.events.iter().any(is_it);
    if has(|event| matches!(event, AccessEvent::Rotated(_))) {
        return row.done(Action::Rotated);
    }
    if has(|event| matches!(event, AccessEvent::Displaced(_))) {
        let error = "another access token was put into the file during the rotation and stays there; the rotated one is given up, and valid until it ends";
        return row.done(Action::Failed).failed(Exit::LocalFile, error.to_owned());
    }
    if pass.error.is_some() {
        let action = if row.exit == Exit::Refused { Action::Refused } else { Action::Failed };
        return row.done(action);
    }
    if pass.record.is_unsupported {
        let error = "this GitLab does not say what an access token is, so it is not rotated: it has the calls for that since 15.5 and 16.10";
        return row.done(Action::Failed).failed(Exit::Refused, error.to_owned());
    }
    debug_assert!(if_due, "a rotation that was asked for has an event or an error");
    row.done(Action::Unchanged)
}
