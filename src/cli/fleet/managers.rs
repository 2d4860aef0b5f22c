//! `fleet managers` and `fleet projects`: who uses a runner's token, and whom it serves.

use super::arguments::OneArguments;
use super::desk::Desk;
use super::rows::{Rows, write_pages};
use crate::cli::{Error, Exit};
use crate::gitlab::fleet::Manager;

/// Lists the machines that use a runner's token, which come in one answer.
pub(super) async fn managers(desk: &Desk, arguments: &OneArguments) -> Result<Exit, Error> {
    let managers = desk.ask(async || Ok(desk.fleet.managers(arguments.id).await?.value)).await?;
    let mut rows = Rows::new::<Manager>(desk);
    // A reader that has gone away has read enough.
    let _closed = rows.add(&managers);
    rows.finish(None);
    Ok(Exit::Done)
}

/// Lists the projects that a runner is assigned to.
pub(super) async fn projects(desk: &Desk, arguments: &OneArguments) -> Result<Exit, Error> {
    write_pages(desk, desk.fleet.projects_of(arguments.id), None).await
}
