//! The store of shared runners: whether it can be opened. It is asked nothing.

use super::Finding;
use crate::error_chain::chain;
use crate::settings::{Place, Settings};
use crate::sharing::{self, Error};

/// Opens the store. Secrets that cannot be read are reported with the others.
pub(super) async fn check(settings: &Settings, findings: &mut Vec<Finding>) {
    let Some(sharing) = &settings.engine.sharing else { return };
    let opened = match sharing.engine.check_compiled() {
        Ok(()) if sharing.secrets().any(|source| source.read_password().is_err()) => return,
        Ok(()) => sharing::open(sharing).await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = opened {
        findings.push(of_error(&error, settings.sharing_place.as_ref()));
    }
}

/// The daemon waits for a secret that cannot be read.
fn of_error(error: &Error, place: Option<&Place>) -> Finding {
    let finding = Finding::error(&chain(error)).with_remedy(error.hint()).at(place);
    match error {
        Error::Unreadable { .. } => finding,
        _ => finding.stopping(),
    }
}
