//! `list`: the runners in config.toml, without asking any server.

use super::context::Context;
use super::{Error, Exit};
use crate::model::RunnerReport;

/// Lists the runners.
pub(super) async fn list(context: &Context<'_>) -> Result<Exit, Error> {
    let _ = context;
    Err(Error::Usage("not there yet".to_owned()))
}

/// The runners as a table for people.
pub(super) fn table(runners: &[RunnerReport]) -> String {
    let _ = runners;
    String::new()
}
