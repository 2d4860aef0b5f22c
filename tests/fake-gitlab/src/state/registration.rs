//! Registration tokens and the runner types that they allow.

use super::State;
use super::runner::{NewRunner, RunnerType};

/// The instance's own registration token and the switches of the whole instance.
pub(crate) struct Registration {
    pub(crate) instance_token: String,
    pub(crate) is_allowed: bool,
    /// Runner types that the admin refuses.
    pub(crate) refused_types: Vec<RunnerType>,
}

impl Registration {
    pub(crate) fn new(instance_token: String) -> Self {
        Self { instance_token, is_allowed: true, refused_types: Vec::new() }
    }
}

/// Why a registration token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegistrationRefusal {
    /// An unknown token, or one for a runner type that the admin refuses.
    Forbidden,
    /// Registration tokens are switched off.
    Disallowed,
}

impl State {
    /// The type of runner that a registration token may register.
    pub(crate) fn registrant(&self, token: &str) -> Result<NewRunner, RegistrationRefusal> {
        if token.trim().is_empty() {
            return Err(RegistrationRefusal::Forbidden);
        }
        if !self.registration.is_allowed {
            return Err(RegistrationRefusal::Disallowed);
        }
        let (new, is_allowed) = self.owner_of(token).ok_or(RegistrationRefusal::Forbidden)?;
        if !is_allowed {
            return Err(RegistrationRefusal::Disallowed);
        }
        if self.registration.refused_types.contains(&new.runner_type) {
            return Err(RegistrationRefusal::Forbidden);
        }
        Ok(new.registered())
    }

    fn owner_of(&self, token: &str) -> Option<(NewRunner, bool)> {
        if token == self.registration.instance_token {
            return Some((NewRunner::instance(), true));
        }
        let project = self.projects.values().find(|project| project.registration_token == token);
        if let Some(project) = project {
            return Some((NewRunner::project(project.id), project.allows_registration));
        }
        let group = self.groups.values().find(|group| group.registration_token == token)?;
        Some((NewRunner::group(group.id), group.allows_registration))
    }
}
