//! Whether a hook could work, without running it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::signal::SYSTEMCTL;
use super::{Action, Hook, SignalTarget};
use crate::files::{check_directory, is_there, trusted_program};
use crate::gitlab::JsonClient;
use crate::model::TlsPaths;

/// What stands in the way of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What it is. Never contains a secret.
    pub message: String,
    /// The file or directory.
    pub path: Option<PathBuf>,
    /// Whether it can go away without a change of the settings, such as a program that has not started yet.
    pub is_passing: bool,
}

impl Hook {
    /// Looks at what it needs: programs, files, directories and users. Reads files, so it can take long.
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        match &self.action {
            Action::Command(command) => {
                let error = trusted_program(&command.program).err()?;
                Some(lasting(format!("its program cannot be run: {error}"), &command.program))
            }
            Action::Webhook(webhook) => {
                let tls = TlsPaths { ca_file: webhook.ca_file.clone(), ..TlsPaths::default() }.into();
                let client = JsonClient::for_site(webhook.url.site(), &webhook.proxies, &tls, Duration::from_secs(1));
                let message = client.err()?;
                Some(Obstacle { message, path: webhook.ca_file.clone(), is_passing: false })
            }
            Action::WriteToken(write) => {
                let directory = write.path.parent().unwrap_or(Path::new("/"));
                if !is_there(directory) {
                    return Some(passing("the directory of its file does not exist", directory));
                }
                let unusable =
                    check_directory(directory).err().map(|error| format!("its file cannot be written: {error}"));
                let unknown =
                    || write.owner.as_ref()?.numbers().err().map(|error| format!("its file has no owner: {error}"));
                Some(lasting(unusable.or_else(unknown)?, &write.path))
            }
            Action::Signal(signal) => match &signal.target {
                SignalTarget::PidFile(path) if !is_there(path) => {
                    Some(passing("its pid file does not exist: no process gets the signal until it does", path))
                }
                SignalTarget::Unit(_) if !is_there(Path::new(SYSTEMCTL)) => {
                    Some(lasting("this machine has no systemctl: name a `pid_file`".to_owned(), Path::new(SYSTEMCTL)))
                }
                SignalTarget::PidFile(_) | SignalTarget::Unit(_) => None,
            },
        }
    }
}

fn lasting(message: String, path: &Path) -> Obstacle {
    Obstacle { message, path: Some(path.to_owned()), is_passing: false }
}

fn passing(message: &str, path: &Path) -> Obstacle {
    Obstacle { is_passing: true, ..lasting(message.to_owned(), path) }
}
