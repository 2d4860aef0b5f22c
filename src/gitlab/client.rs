//! The calls.

use crate::model::{RunnerId, Site, SystemId};
use crate::secret::Token;

use super::{Answer, Config, Error, Info, RegisterParameters, Registered, Reset, Verified};

/// The client of any number of GitLab servers. Cloning is cheap, and clones share their connections.
///
/// Every method sends one request, once. Each fails with an [`Error`] and is cancelled by dropping its
/// future, after which nobody can tell whether the server acted.
#[derive(Clone)]
pub struct Client {
    config: std::sync::Arc<Config>,
}

impl Client {
    /// Makes a client; nothing is read or connected before its first use.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config: std::sync::Arc::new(config) }
    }

    /// Makes a runner: `POST /runners`. Each success makes another one.
    pub async fn register(
        &self,
        site: &Site,
        registration_token: &Token,
        parameters: &RegisterParameters,
    ) -> Result<Answer<Registered>, Error> {
        let _ = (site, registration_token, parameters, &self.config);
        todo!()
    }

    /// Asks whether a runner's token is good, and until when: `POST /runners/verify`. Makes this
    /// machine's manager on the server if there is none.
    pub async fn verify(
        &self,
        site: &Site,
        token: &Token,
        system_id: &SystemId,
        info: Option<&Info>,
    ) -> Result<Answer<Verified>, Error> {
        let _ = (site, token, system_id, info);
        todo!()
    }

    /// Deletes a runner with all its managers, also those of other machines: `DELETE /runners`.
    pub async fn delete_runner(&self, site: &Site, token: &Token) -> Result<Answer<()>, Error> {
        let _ = (site, token);
        todo!()
    }

    /// Deletes this machine's manager, leaving the runner and its token alive:
    /// `DELETE /runners/managers`.
    pub async fn delete_manager(&self, site: &Site, token: &Token, system_id: &SystemId) -> Result<Answer<()>, Error> {
        let _ = (site, token, system_id);
        todo!()
    }

    /// Replaces a token by a new one: `POST /runners/reset_authentication_token`. The old one dies at
    /// once, and the answer is the only place where the new one is ever shown.
    pub async fn reset(&self, site: &Site, token: &Token, system_id: &SystemId) -> Result<Answer<Reset>, Error> {
        let _ = (site, token, system_id);
        todo!()
    }

    /// Replaces a token by a new one with an access token, which also revives an expired one:
    /// `POST /runners/:id/reset_authentication_token`.
    pub async fn reset_by_id(&self, site: &Site, id: RunnerId, access_token: &Token) -> Result<Answer<Reset>, Error> {
        let _ = (site, id, access_token);
        todo!()
    }
}
