//! `fleet reset-token` and `fleet reset-registration-token`: new tokens, which go where they are told.

use serde_json::{Map, Value, json};

use super::arguments::{ResetRegistrationTokenArguments, ResetTokenArguments};
use super::session::FleetSession;
use super::token_file::TokenFile;
use crate::cli::text::expiry_text;
use crate::cli::{Error, Exit};
use crate::error_chain::chain;
use crate::gitlab::Disposition;
use crate::gitlab::fleet::RegistrationTokenScope;
use crate::model::Timestamp;
use crate::secret::Token;
use crate::settings::Environment;

/// Gives a runner a new token.
pub(super) async fn token(
    session: &FleetSession,
    environment: &Environment,
    arguments: &ResetTokenArguments,
) -> Result<Exit, Error> {
    let file = TokenFile::prepare(&arguments.token.write_token, environment)?;
    let id = arguments.id;
    let reset = session.change(async || session.fleet.reset_token(id).await).await;
    let reset = reset.map_err(|error| explained(error, "the runner's old token may be dead"))?;
    let told = New { what: format!("runner {id}"), token: reset.token, expires_at: reset.expiry.at() };
    told.hand_out(session, file, &json!({ "id": id }))
}

/// Makes a registration token anew.
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
    New { what: what.clone(), token, expires_at: None }.hand_out(session, file, &json!({ "of": what }))
}

/// A token that nobody but this process holds.
struct New {
    what: String,
    token: Token,
    expires_at: Option<Timestamp>,
}

impl New {
    fn hand_out(self, session: &FleetSession, mut file: TokenFile, row: &Value) -> Result<Exit, Error> {
        if let Err(error) = file.fill(&self.token) {
            return Err(Error::Verdict {
                exit: error.exit(),
                message: format!("{}; {} has a new token that nobody holds", chain(&error), self.what),
                hint: Some("reset it once more, with another --write-token".to_owned()),
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
            session.reporter.answer(&format!("{}\n", json!({ "schema": 1, "tokens": [fields] })));
        } else {
            let expiry = expiry_text(self.expires_at, session.now());
            session.reporter.answer(&format!("{}: reset, the new token {expiry} and is in {path}\n", self.what));
        }
        Ok(Exit::Done)
    }
}

/// Says what a lost answer means.
fn explained(error: Error, what: &str) -> Error {
    let Error::Call { error: call } = &error else { return error };
    if !matches!(call.disposition(), Disposition::Unknown { .. }) {
        return error;
    }
    Error::Verdict {
        exit: Exit::Unreachable,
        message: chain(&error),
        hint: Some(format!("{what}, and the new one is lost: reset it once more")),
    }
}
