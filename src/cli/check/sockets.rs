//! The daemon's socket, and the addresses at which it would listen.

use super::super::Error;
use super::{Checked, Finding, Severity};
use crate::files::check_directory;
use crate::status::{StatusClientError, StatusServer};

/// Looks for a daemon of this config.toml; without one, checks whether it could listen.
pub(super) async fn check(checked: &mut Checked) {
    let findings = &mut checked.findings;
    let socket = checked.paths.sockets.first();
    match checked.paths.status_client().get("/healthz").await {
        Ok(_) => {
            let message = "a daemon serves this config.toml";
            findings.extend(socket.map(|socket| Finding::note(message).in_file(socket)));
            return;
        }
        Err(StatusClientError::NotRunning(_)) => {}
        Err(error) => findings.push(Finding { severity: Severity::Warning, ..Finding::of_error(&Error::from(error)) }),
    }
    let unusable = |path: &std::path::PathBuf| check_directory(path.parent()?).err();
    let problems: Vec<_> = checked.paths.sockets.iter().map(unusable).collect();
    if let (Some(socket), Some(Some(problem))) = (socket, problems.first())
        && problems.iter().all(Option::is_some)
    {
        let message =
            format!("the socket cannot be made, so `status` and `health` could not reach the daemon: {problem}");
        findings.push(if checked.paths.socket_is_named {
            Finding::error(&message).in_file(socket).stopping()
        } else {
            Finding::warning(&message).in_file(socket)
        });
    }
    let Some(settings) = &checked.settings else { return };
    for error in StatusServer::unusable_addresses(&settings.status_server).await {
        let finding = Finding::of_error(&Error::from(error)).stopping();
        findings.push(finding);
    }
}
