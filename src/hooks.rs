//! Hooks: what is done after an event, once for each event and hook.
//!
//! A [`Hook`] says which events of which runners it is for, and what is done: a command is run, a web server is told, a
//! signal is sent, or the token is written into a file. [`Hook::run`] makes one attempt. The daemon decides when, and how
//! often.

mod command;
mod examine;
mod file_work;
mod limit;
mod orphans;
mod output;
mod program;
mod signal;
mod token_file;
mod webhook;
mod write_token;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::model::{HookEvent, HookKind};
use crate::secret::{Source, Token};

pub use command::{CommandAction, TokenInput};
pub use examine::Obstacle;
pub use signal::{SignalAction, SignalName, SignalTarget};
pub use webhook::{WebhookAction, about_secret};
pub use write_token::{FileOwner, WriteTokenAction};

use limit::TimeLimit;

/// The default time limit of one attempt.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A hook; built by `settings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name, which no other one has.
    pub name: String,
    /// What it is for.
    pub on: Vec<HookKind>,
    /// The names of the runners that it is for; empty for all.
    pub runners: Vec<String>,
    /// What is done.
    pub action: Action,
    /// Time limit of one attempt.
    pub timeout: Duration,
    /// Attempts after the first one.
    pub retries: u32,
}

/// What a hook does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Runs a command.
    Command(CommandAction),
    /// Sends a signal.
    Signal(SignalAction),
    /// Sends the event to a web server.
    Webhook(WebhookAction),
    /// Writes the token into a file.
    WriteToken(WriteTokenAction),
}

impl Action {
    /// The default number of attempts after the first one.
    #[must_use]
    pub const fn default_retries(&self) -> u32 {
        match self {
            // About a quarter of an hour. A process that does not run needs no signal.
            Self::Command(_) | Self::Signal(_) => 10,
            // About a day: a server can be down for long, and it may be the one that wakes people.
            Self::Webhook(_) => 100,
            // A runner without a token does nothing, and the next event can be weeks away.
            Self::WriteToken(_) => u32::MAX,
        }
    }
}

/// One event for one hook.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// What has happened.
    pub event: &'a HookEvent,
    /// The runner's present token, if it is known. A hook gets it only if it takes it; it is hidden in the output of every
    /// command.
    pub token: Option<&'a Token>,
    /// Where a command finds the token, if it reads it from a file. It is written for the attempt, and removed after it.
    pub token_path: Option<&'a Path>,
    /// Whether the runner is enrolled: no other program takes its token from config.toml.
    pub is_own: bool,
}

/// Why an attempt has failed. Never contains a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// Another attempt may succeed.
    #[error("{0}")]
    Passing(String),
    /// No further attempt would.
    #[error("{0}")]
    Lasting(String),
}

/// The JSON of an event.
#[derive(Serialize)]
struct Body<'a> {
    /// Incremented when a field changes its meaning.
    schema: u32,
    hook: &'a str,
    #[serde(flatten)]
    event: &'a HookEvent,
}

impl Hook {
    /// Whether it is for an event.
    #[must_use]
    pub fn is_for(&self, event: &HookEvent) -> bool {
        let is_for_runner = |name: &String| self.runners.is_empty() || self.runners.contains(name);
        self.on.contains(&event.event) && event.runner.as_ref().is_none_or(is_for_runner)
    }

    /// Whether it is for an event that has waited for it: the settings may have changed meanwhile.
    #[must_use]
    pub fn still_wants(&self, event: &HookEvent) -> bool {
        // A file is looked at after a start, whatever else it is for.
        let is_look =
            event.event == HookKind::Rotated && event.runner.as_ref().is_some_and(|runner| self.keeps_file_of(runner));
        is_look || self.is_for(event)
    }

    /// Whether it can be for events of a kind.
    #[must_use]
    pub fn can_be_for(&self, kind: HookKind) -> bool {
        match &self.action {
            Action::Command(command) => command.token == TokenInput::None || kind.leaves_token(),
            Action::Signal(_) | Action::Webhook(_) => true,
            Action::WriteToken(_) => kind.leaves_token() && kind.changes_token(),
        }
    }

    /// Whether it is for events of a kind if the settings name none. A process is signalled to read a changed token. A hook
    /// for some runners is for events of runners.
    #[must_use]
    pub fn is_for_by_default(&self, kind: HookKind) -> bool {
        if !self.runners.is_empty() && !kind.is_of_runner() {
            return false;
        }
        match &self.action {
            Action::Signal(_) => kind.changes_token(),
            Action::Command(_) | Action::Webhook(_) | Action::WriteToken(_) => self.can_be_for(kind),
        }
    }

    /// Whether it needs the runner's token.
    #[must_use]
    pub fn takes_token(&self) -> bool {
        match &self.action {
            Action::Command(command) => command.token != TokenInput::None,
            Action::WriteToken(_) => true,
            Action::Signal(_) | Action::Webhook(_) => false,
        }
    }

    /// Whether an event has nothing to do any more once there is a later one: a file gets the present token.
    #[must_use]
    pub fn needs_only_the_last(&self) -> bool {
        self.written_file().is_some()
    }

    /// The file that it writes the token into.
    #[must_use]
    pub fn written_file(&self) -> Option<&Path> {
        match &self.action {
            Action::WriteToken(write) => Some(&write.path),
            Action::Command(_) | Action::Signal(_) | Action::Webhook(_) => None,
        }
    }

    /// Whether it keeps a file with the token of a runner of this name.
    #[must_use]
    pub fn keeps_file_of(&self, runner: &str) -> bool {
        self.written_file().is_some() && self.runners.iter().any(|name| name == runner)
    }

    /// The source of its secret, if it has one.
    #[must_use]
    pub fn secret(&self) -> Option<&Source> {
        match &self.action {
            Action::Webhook(webhook) => webhook.secret.as_ref(),
            Action::Command(_) | Action::Signal(_) | Action::WriteToken(_) => None,
        }
    }

    /// Whether [`Delivery::token_path`] is needed.
    #[must_use]
    pub fn takes_token_path(&self) -> bool {
        match &self.action {
            Action::Command(command) => command.token == TokenInput::File,
            Action::Signal(_) | Action::Webhook(_) | Action::WriteToken(_) => false,
        }
    }

    /// Makes one attempt, within the time limit. Returns what has come of it, in a few words. Dropping the future ends the
    /// attempt.
    ///
    /// Each action bounds all that it waits for by the time limit. What a command leaves may take a second longer.
    ///
    /// # Errors
    /// [`HookError`].
    pub async fn run(&self, delivery: Delivery<'_>) -> Result<String, HookError> {
        if self.takes_token() && delivery.token.is_none() {
            return Err(HookError::Lasting("the runner has no token any more".to_owned()));
        }
        let limit = TimeLimit::begin(self.timeout);
        let result = match &self.action {
            Action::Command(command) => command.run(self, delivery, limit).await,
            Action::Signal(signal) => signal.run(limit).await,
            Action::Webhook(webhook) => webhook.run(self, delivery, limit).await,
            Action::WriteToken(write) => write.run(delivery, limit).await,
        };
        orphans::reap().await;
        result
    }

    /// The event as JSON.
    fn body(&self, event: &HookEvent) -> Result<Vec<u8>, HookError> {
        let body = serde_json::to_vec(&Body { schema: 1, hook: &self.name, event });
        body.map_err(|error| HookError::Lasting(format!("the event cannot be written as JSON: {error}")))
    }
}

impl HookError {
    /// An error of the system about a file.
    fn of_file(path: &Path, error: &std::io::Error) -> Self {
        Self::Passing(format!("`{}`: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RunnerId, Timestamp};

    impl HookEvent {
        /// An event for tests.
        pub(super) fn sample() -> Self {
            Self {
                event_id: "test-rotated".to_owned(),
                event: HookKind::Rotated,
                at: Timestamp::from_millis(0),
                runner: Some("builder".to_owned()),
                runner_id: RunnerId::try_new(7).ok(),
                url: Some("https://gitlab.example.com".parse().unwrap()),
                expires_at: None,
                text: "the token was rotated".to_owned(),
            }
        }
    }
}
