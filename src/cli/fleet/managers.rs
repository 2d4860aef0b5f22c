//! `fleet managers` and `fleet projects`: the machines that use a runner's token, and the projects it serves.

use super::arguments::OneArguments;
use super::rows::{Rows, write_pages};
use super::session::FleetSession;
use crate::cli::{Error, Exit};
use crate::gitlab::fleet::Manager;

/// Lists the machines that use a runner's token; they come in one answer.
pub(super) async fn managers(session: &FleetSession, arguments: &OneArguments) -> Result<Exit, Error> {
    let managers = session.ask(async || Ok(session.fleet.managers(arguments.id).await?.value)).await?;
    let mut rows = Rows::new::<Manager>(session);
    // A closed pipe is no error.
    let _closed = rows.add(&managers);
    rows.finish(None);
    Ok(Exit::Done)
}

/// Lists the projects that a runner is assigned to.
pub(super) async fn projects(session: &FleetSession, arguments: &OneArguments) -> Result<Exit, Error> {
    write_pages(session, session.fleet.projects_of(arguments.id), None, |_| true).await
}
