//! The API of 2016 (v1), which GitLab 10.0 removed: it registers and deletes runners.
//!
//! It has no verification, no rotation and no expiry. It is never chosen automatically: the user specifies it.

use super::client::{Call, json, registered, success};
use super::error::CallFailure;
use super::transport::Incoming;
use super::wire::{Fields, Flaw, RegisterRequest, TokenRequest};
use super::{Answer, Client, Endpoint, Error, RegisterParameters, Registered};
use crate::model::Site;
use crate::secret::Token;

impl Client {
    /// Registers a runner: `POST /ci/api/v1/runners/register`. Only the parameters description, tags, `run_untagged`,
    /// `locked` and `info` exist there. Each success creates another runner, whose token never expires.
    ///
    /// # Errors
    /// [`Error`]. The server answers 404 to invalid parameters.
    pub async fn register_v1(
        &self,
        site: &Site,
        registration_token: &Token,
        parameters: &RegisterParameters,
    ) -> Result<Answer<Registered>, Error> {
        let body = json(&RegisterRequest::new_v1(registration_token, parameters));
        let call = Call::new(Endpoint::RegisterV1, site, "runners/register", body, Some(registration_token));
        self.call(call, |incoming| registered(incoming, Fields::Id)).await
    }

    /// Deletes a runner: `DELETE /ci/api/v1/runners/delete`, which answers 200 with the deleted runner.
    ///
    /// # Errors
    /// [`Error`]. A second deletion is refused like any unknown token.
    pub async fn delete_v1(&self, site: &Site, token: &Token) -> Result<Answer<()>, Error> {
        let body = json(&TokenRequest::new(token, None, None));
        let call = Call::new(Endpoint::DeleteV1, site, "runners/delete", body, Some(token));
        self.call(call, deleted).await
    }
}

/// The content of the answer is not documented, so any JSON is accepted.
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
