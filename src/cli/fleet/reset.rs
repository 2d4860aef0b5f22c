//! `fleet reset-token` and `fleet reset-registration-token`: replace a token and store the new one.

use serde_json::{Map, Value, json};

use super::arguments::{ResetRegistrationTokenArguments, ResetTokenArguments};
use super::session::FleetSession;
use super::token_file::TokenFile;
use crate::cli::text::expiry_text;
use crate::cli::{Error, Exit};
use crate::error_chain::chain;
use crate::gitlab::fleet::RegistrationTokenScope;
use crate::gitlab::{Disposition, Shape};
use crate::model::Timestamp;
use crate::secret::Token;
use crate::settings::Environment;

/// Resets a runner's token and writes the new one to a file.
pub(super) async fn token(
    session: &FleetSession,
    environment: &Environment,
    arguments: &ResetTokenArguments,
) -> Result<Exit, Error> {
    let file = TokenFile::prepare(&arguments.token.write_token, environment)?;
    let id = arguments.id;
    let reset = session.change(async || session.fleet.reset_token(id).await).await;
    let reset = reset.map_err(|error| explained(error, "the runner's old token may be dead"))?;
    warn_of_shape(reset.shape);
    let token = NewToken { what: format!("runner {id}"), token: reset.token, expires_at: reset.expiry.at() };
    token.store(session, file, &json!({ "id": id }))
}

/// Resets a registration token and writes the new one to a file.
pub(super) async fn registration_token(
    session: &FleetSession,
    environment: &Environment,
    arguments: &ResetRegistrationTokenArguments,
) -> Result<Exit, Error> {
    let file = TokenFile::prepare(&arguments.token.write_token, environment)?;
    let (scope, what) = match (&arguments.project, &arguments.group) {
        (Some(project), _) => (RegistrationTokenScope::Project(project.clone()), format!("project {project}")),
        (None, Some(group)) => (RegistrationTokenScope::Group(group.clone()), format!("group {group}")),
        (None, None) => (RegistrationTokenScope::Instance, "instance".to_owned()),
    };
    let token = session.change(async || session.fleet.reset_registration_token(&scope).await).await;
    let token = token.map_err(|error| explained(error, "the old registration token may be dead"))?;
    NewToken { what: what.clone(), token, expires_at: None }.store(session, file, &json!({ "of": what }))
}

/// Logs why a token may not be one: something else than GitLab may have sent it.
pub(super) fn warn_of_shape(shape: Shape) {
    if let Shape::Odd(oddity) = shape {
        tracing::warn!("the answer is not quite one that GitLab sends: {oddity}; the token in it is kept");
    }
}

/// A new token, which only this process has.
struct NewToken {
    what: String,
    token: Token,
    expires_at: Option<Timestamp>,
}

impl NewToken {
    fn store(self, session: &FleetSession, mut file: TokenFile, row: &Value) -> Result<Exit, Error> {
        if let Err(error) = file.fill(&self.token) {
            return Err(Error::Verdict {
                exit: error.exit(),
                message: format!("{}; the new token of {} is lost", chain(&error), self.what),
                hint: Some("reset it again, with another --write-token".to_owned()),
            });
        }
        let path = file.path().display();
        if session.reporter.is_json() {
            let mut fields: Map<String, Value> = row.as_object().cloned().unwrap_or_default();
            fields.insert("token_expires_at".to_owned(), json!(self.expires_at));
            fields.insert("token_fingerprint".to_owned(), json!(self.token.fingerprint().to_string()));
            fields.insert("token_file".to_owned(), json!(path.to_string()));
            fields.insert("action".to_owned(), json!("reset"));
            fields.insert("error".to_owned(), Value::Null);
            session.reporter.document_line("tokens", fields);
        } else {
            let expiry = expiry_text(self.expires_at, session.now());
            session.reporter.answer(&format!("{}: reset, the new token {expiry} and is in {path}\n", self.what));
        }
        Ok(Exit::Done)
    }
}

/// Explains what a lost answer means for the token.
fn explained(error: Error, what: &str) -> Error {
    let Error::Call { error: call } = &error else { return error };
    if !matches!(call.disposition(), Disposition::Unknown { .. }) {
        return error;
    }
    Error::Verdict {
        exit: Exit::Unreachable,
        message: chain(&error),
        hint: Some(format!("{what}, and the new one is lost: reset it again")),
    }
}
