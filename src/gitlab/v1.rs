//! The first API, of 2016, which GitLab 10.0 removed: make a runner and delete it, nothing else.
//!
//! It has no verification, no rotation and no expiry. Never tried by itself: which API a server has is for the
//! user to say.

use super::client::{Call, json, success};
use super::error::CallFailure;
use super::transport::Incoming;
use super::wire::{self, Flaw, RegisterRequest, TokenRequest};
use super::{Answer, Client, Endpoint, Error, RegisterParameters, Registered};
use crate::model::Site;
use crate::secret::Token;

impl Client {
    /// Makes a runner: `POST /ci/api/v1/runners/register`. Of the parameters only description, tags,
    /// `run_untagged`, `locked` and `info` exist there. Each success makes another one; its token never ends.
    ///
    /// # Errors
    /// [`Error`]; of invalid parameters for the 404 that stands for them.
    pub async fn register_v1(
        &self,
        site: &Site,
        registration_token: &Token,
        parameters: &RegisterParameters,
    ) -> Result<Answer<Registered>, Error> {
        let body = json(&RegisterRequest::of_first_api(registration_token, parameters));
        let call = Call::new(Endpoint::RegisterV1, site, "runners/register", body, registration_token);
        self.call(call, |incoming| success(incoming, wire::registered)).await
    }

    /// Deletes a runner: `DELETE /ci/api/v1/runners/delete`, which answers 200 with the runner that was.
    ///
    /// # Errors
    /// [`Error`]; deleted twice is refused like any unknown token.
    pub async fn delete_v1(&self, site: &Site, token: &Token) -> Result<Answer<()>, Error> {
        let body = json(&TokenRequest::new(token, None, None));
        let call = Call::new(Endpoint::DeleteV1, site, "runners/delete", body, token);
        self.call(call, deleted).await
    }
}

/// What the answer tells of the runner is not documented, so that any JSON will do.
fn deleted(incoming: &Incoming) -> Result<(), CallFailure> {
    match incoming.status {
        204 => Ok(()),
        _ => success(incoming, |body| {
            serde_json::from_slice::<serde::de::IgnoredAny>(body)
                .map(drop)
                .map_err(|_| Flaw("it is not the JSON that GitLab sends"))
        }),
    }
}
