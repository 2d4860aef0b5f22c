//! `fleet delete`: deletes runners with all their managers, by id, by filters or by a runner's token.

use std::path::Path;
use std::rc::Rc;

use serde_json::json;

use super::arguments::{AccessArguments, ConfirmArgs, DeleteArguments};
use super::bulk::{Act, Made, apply};
use super::session::{Address, FleetSession};
use super::targets::{Target, targets};
use crate::cli::context::Context;
use crate::cli::interrupt::Interrupt;
use crate::cli::selection::read_file;
use crate::cli::{Error, Exit};
use crate::gitlab::ErrorKind;
use crate::secret::TokenPurpose;

const ACT: Act = Act { verb: "delete", done: "deleted", is_grave: true };

/// Deletes the selected runners.
pub(super) async fn delete(session: FleetSession, arguments: &DeleteArguments) -> Result<Exit, Error> {
    let looks_up = !arguments.confirm.yes;
    let targets = targets(&session, &arguments.targets, looks_up).await?;
    delete_all(session, targets, arguments.confirm).await
}

/// Deletes runners once the user has confirmed it.
pub(super) async fn delete_all(
    session: FleetSession,
    targets: Vec<Target>,
    confirm: ConfirmArgs,
) -> Result<Exit, Error> {
    apply(session, ACT, targets, confirm, delete_one).await
}

/// Deletes one runner; one that is already gone counts as success.
async fn delete_one(session: Rc<FleetSession>, target: Target) -> Result<Made, Error> {
    let answer = json!({ "id": target.id });
    match session.change(async || session.fleet.delete(target.id).await).await {
        Ok(()) => Ok(Made { line: "deleted".to_owned(), answer }),
        Err(Error::Call { error }) if error.kind() == ErrorKind::NotFound => {
            Ok(Made { line: "was already gone".to_owned(), answer })
        }
        Err(error) => Err(error),
    }
}

/// Deletes the runner of an authentication token, without an access token.
pub(super) async fn by_token(
    context: &Context<'_>,
    access: &AccessArguments,
    path: &Path,
    confirm: ConfirmArgs,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    let Address { site, client, .. } = Address::of(context, access)?;
    let token = read_file(path, &context.environment, TokenPurpose::Runner)?;
    let whose = format!("the runner whose token has the fingerprint {} at {}", token.fingerprint(), site.url);
    if confirm.dry_run {
        context.reporter.answer(&format!("{whose}: would be deleted\n"));
        return Ok(Exit::Done);
    }
    if !confirm.yes {
        return Err(Error::Usage(format!("this deletes {whose}, with all its managers: confirm with --yes")));
    }
    if interrupt.is_interrupted() {
        return Err(Error::Interrupted("nothing was deleted".to_owned()));
    }
    client.delete_runner(&site, &token).await?;
    context.reporter.answer(&format!("{whose}: deleted\n"));
    Ok(Exit::Done)
}
