//! `fleet create`: creates a runner and stores its token.

use serde_json::json;

use super::arguments::CreateArguments;
use super::change::{parameters, validated};
use super::reset::warn_of_shape;
use super::session::FleetSession;
use super::token_file::TokenFile;
use crate::cli::arguments::EntryArguments;
use crate::cli::context::Context;
use crate::cli::register::draft::{given, take_entry};
use crate::cli::register::{self, RegisterMode};
use crate::cli::text::expiry_text;
use crate::cli::{Error, Exit};
use crate::error_chain::chain;
use crate::gitlab::fleet::{NewRunner, NewRunnerOwner, OwnerName};
use crate::gitlab::{Disposition, RegisterParameters};
use crate::model::Expiry;
use crate::settings::{Draft, DraftCreation, DraftFlags, Environment, Place, split_list};

/// Creates a runner and writes its token to a file.
pub(super) async fn create(
    session: &FleetSession,
    environment: &Environment,
    arguments: CreateArguments,
) -> Result<Exit, Error> {
    if arguments.entry != EntryArguments::default() {
        return Err(Error::Usage(
            "--name, --executor and similar flags need --enroll: they describe an entry in config.toml".to_owned(),
        ));
    }
    let new = wanted(session, &arguments).await?;
    let path = arguments.write_token.as_deref().ok_or_else(|| Error::Usage("--write-token is missing".to_owned()))?;
    let mut file = TokenFile::prepare(path, environment)?;
    let made = session.change(async || session.fleet.create(&new).await).await;
    let made = made.map_err(|error| explained(error, &new))?;
    let runner = made.id.map_or_else(|| "a runner".to_owned(), |id| format!("runner {id}"));
    if let Err(error) = file.fill(&made.token) {
        let hint = match made.id {
            Some(id) => {
                format!("delete it with `fleet delete {id}`, or run `fleet reset-token {id}` with another file")
            }
            None => "GitLab did not send its id: find it in GitLab by its description and delete it there".to_owned(),
        };
        return Err(Error::Verdict {
            exit: error.exit(),
            message: format!("{}; {runner} was created and its token is lost", chain(&error)),
            hint: Some(hint),
        });
    }
    warn_of_shape(made.shape);
    let expires_at = match made.expiry {
        Expiry::At(at) => Some(at),
        Expiry::Never | Expiry::Unknown => None,
    };
    let path = file.path().display();
    if session.reporter.is_json() {
        let row = json!({
            "id": made.id, "token_expires_at": expires_at, "token_fingerprint": made.token.fingerprint().to_string(),
            "token_file": path.to_string(), "action": "created", "error": null,
        });
        session.reporter.document_line("runners", row);
    } else {
        let expiry = expiry_text(expires_at, session.now());
        session.reporter.answer(&format!("{runner}: created, its token {expiry} and is in {path}\n"));
    }
    Ok(Exit::Done)
}

/// Creates a runner and writes its entry into config.toml through the journal.
pub(super) async fn enroll(
    context: &Context<'_>,
    session: FleetSession,
    arguments: CreateArguments,
) -> Result<Exit, Error> {
    let CreateArguments { entry, attributes, paused, token_expires_at, token_rotation_deadline, .. } = arguments;
    let owner = owner(&session, arguments.project.as_ref(), arguments.group.as_ref()).await?;
    let mut draft = Draft::at(Place::Flag("create"));
    draft.url = given("--url", Some(Some(session.site.url.to_string())));
    let creation = DraftCreation {
        owner,
        access_token: Some(session.access_token.clone()),
        token_expires_at,
        token_rotation_deadline,
    };
    draft.create = given("--instance", Some(Some(creation)));
    let tls = session.site.tls.clone();
    let flags = DraftFlags {
        tls_ca_file: tls.ca_file.clone(),
        tls_cert_file: tls.cert_file.clone(),
        tls_key_file: tls.key_file.clone(),
        description: attributes.description,
        tag_list: attributes.tag_list.as_deref().map(split_list),
        run_untagged: attributes.run_untagged,
        locked: attributes.locked,
        access_level: attributes.access_level,
        maximum_timeout: attributes.maximum_timeout,
        maintenance_note: attributes.maintenance_note,
        paused,
        ..DraftFlags::default()
    };
    draft.set_flags(flags, &context.environment);
    take_entry(&mut draft, entry, &context.environment);
    let mut draft = draft.or(Draft::of_environment(&context.environment));
    draft.allows_unknown |= arguments.force;
    let is_named = draft.name.is_some();
    let FleetSession { wait, interrupt, .. } = session;
    register::enroll(context, draft, is_named, RegisterMode::waiting(wait, arguments.force), interrupt).await
}

/// The runner to create. Looks up the id of a project or group given by its path.
async fn wanted(session: &FleetSession, arguments: &CreateArguments) -> Result<NewRunner, Error> {
    let parameters = RegisterParameters { paused: arguments.paused, ..parameters(&arguments.attributes)? };
    validated(&parameters)?;
    Ok(NewRunner {
        owner: owner(session, arguments.project.as_ref(), arguments.group.as_ref()).await?,
        parameters,
        token_expires_at: arguments.token_expires_at,
        token_rotation_deadline: arguments.token_rotation_deadline,
    })
}

async fn owner(
    session: &FleetSession,
    project: Option<&OwnerName>,
    group: Option<&OwnerName>,
) -> Result<NewRunnerOwner, Error> {
    Ok(match (project, group) {
        (Some(project), _) => NewRunnerOwner::Project(match project.number() {
            Some(number) => number,
            None => session.ask(async || Ok(session.fleet.project(project).await?.value)).await?.id,
        }),
        (None, Some(group)) => NewRunnerOwner::Group(match group.number() {
            Some(number) => number,
            None => session.ask(async || Ok(session.fleet.group(group).await?.value)).await?.id,
        }),
        (None, None) => NewRunnerOwner::Instance,
    })
}

/// Explains what a lost answer may have left on the server.
fn explained(error: Error, new: &NewRunner) -> Error {
    let Error::Call { error: call } = &error else { return error };
    if !matches!(call.disposition(), Disposition::Unknown { .. }) {
        return error;
    }
    let description = new.parameters.description.as_deref().unwrap_or_default();
    Error::Verdict {
        exit: Exit::Unreachable,
        message: chain(&error),
        hint: Some(format!(
            "GitLab may have created the runner anyway: before trying again, delete the runner there that is described `{description}` and was never contacted"
        )),
    }
}
