//! `fleet jobs`: lists the jobs of a runner.

use super::arguments::JobsArguments;
use super::rows::write_pages;
use super::session::FleetSession;
use crate::cli::{Error, Exit};
use crate::gitlab::fleet::JobFilters;

/// Lists the jobs.
pub(super) async fn jobs(session: &FleetSession, arguments: &JobsArguments) -> Result<Exit, Error> {
    let filters = JobFilters {
        status: arguments.status.clone(),
        system_id: arguments.system_id.clone(),
        sort: arguments.sort.clone(),
    };
    let limit = (!arguments.all).then_some(arguments.limit);
    write_pages(session, session.fleet.jobs(arguments.id, &filters), limit, |_| true).await
}
