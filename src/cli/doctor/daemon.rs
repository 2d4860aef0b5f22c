//! The daemon, if one runs.

use super::super::check::Checked;
use super::super::{Error, Exit, status};
use super::row::Row;
use crate::error_chain::chain;
use crate::model::Report;
use crate::status::StatusClientError;

/// Asks for the daemon of this config.toml. Returns its report too, if it answers.
pub(super) async fn examine(checked: &Checked) -> (Vec<Row>, Option<Report>) {
    let config = checked.paths.config.display().to_string();
    let (report, process) = match status::report(&checked.paths.status_client()).await {
        Ok(answer) => answer,
        Err(Error::Question(StatusClientError::NotRunning(_))) => {
            let message = format!("no daemon serves {config}");
            let row = Row::warning("daemon", "running", &message)
                .with_remedy(Some("start it: `systemctl start runner-agent`, or `runner-agent run`"));
            return (vec![row], None);
        }
        Err(error) => {
            let remedy = error.hint().map(str::to_owned);
            return (vec![Row::warning("daemon", "running", &chain(&error).to_string()).with_remedy(remedy)], None);
        }
    };
    let daemon = report.daemon.clone().unwrap_or_default();
    let process = process.map(|process| format!(" (process {process})")).unwrap_or_default();
    let message = format!("version {}{process} serves {config}", daemon.version);
    let mut rows = vec![if daemon.version == env!("CARGO_PKG_VERSION") {
        Row::ok("daemon", "running", &message)
    } else {
        Row::warning("daemon", "running", &format!("{message}; this command has version {}", env!("CARGO_PKG_VERSION")))
            .with_remedy(Some("restart the daemon"))
    }];
    let errors: Vec<_> = [&daemon.settings_error, &daemon.config_error].into_iter().flatten().collect();
    for error in &errors {
        let message = format!("not in force: {}", error.lines().next().unwrap_or_default());
        rows.push(Row::error("daemon", "files", &message, Exit::LocalFile));
    }
    if errors.is_empty() {
        rows.push(Row::ok("daemon", "files", "agent.toml and config.toml are in force"));
    }
    (rows, Some(report))
}
