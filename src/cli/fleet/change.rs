//! `fleet update`, `pause`, `resume`, `assign` and `unassign`.

use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::arguments::{AssignArguments, AttributeArguments, ChangeArguments, UnassignArguments, UpdateArguments};
use super::bulk::{Act, Made, apply};
use super::session::FleetSession;
use super::targets::{Target, targets};
use crate::cli::{Error, Exit};
use crate::gitlab::fleet::{Fleet, PauseParameter, RunnerChanges};
use crate::gitlab::{AccessLevel, RegisterParameters};

/// Changes the settings of runners.
pub(super) async fn update(session: FleetSession, arguments: &UpdateArguments) -> Result<Exit, Error> {
    let changes = changes(&arguments.changes)?;
    if changes.is_empty() {
        return Err(Error::Usage("specify changes: --description, --tag-list, --locked and so on".to_owned()));
    }
    let act = Act { verb: "change", done: "updated", is_grave: false };
    let targets = targets(&session, &arguments.targets, false).await?;
    apply(session, act, targets, arguments.confirm, |session, target| update_one(session, target, changes.clone()))
        .await
}

async fn update_one(session: Rc<FleetSession>, target: Target, changes: RunnerChanges) -> Result<Made, Error> {
    let details = session.change(async || session.fleet.update(target.id, &changes).await).await?;
    Ok(Made { line: "updated".to_owned(), answer: answer(&details) })
}

/// Pauses or resumes runners.
pub(super) async fn set_paused(
    session: FleetSession,
    arguments: &ChangeArguments,
    paused: bool,
) -> Result<Exit, Error> {
    let (verb, done) = if paused { ("pause", "paused") } else { ("resume", "resumed") };
    let act = Act { verb, done, is_grave: false };
    let targets = targets(&session, &arguments.targets, false).await?;
    apply(session, act, targets, arguments.confirm, |session, target| set_paused_one(session, target, paused)).await
}

async fn set_paused_one(session: Rc<FleetSession>, target: Target, paused: bool) -> Result<Made, Error> {
    let set = async |word| session.change(async || session.fleet.set_paused(target.id, paused, word).await).await;
    let details = match set(PauseParameter::Paused).await {
        Err(Error::Call { error }) if Fleet::needs_active_parameter(&error) => set(PauseParameter::Active).await?,
        set => set?,
    };
    if details.runner.is_paused() == Some(!paused) {
        return Err(Error::Verdict {
            exit: Exit::Refused,
            message: "the server accepted the change but did not make it".to_owned(),
            hint: None,
        });
    }
    let line = if paused { "paused" } else { "resumed" };
    Ok(Made { line: line.to_owned(), answer: answer(&details) })
}

/// Assigns runners to another project.
pub(super) async fn assign(session: FleetSession, arguments: &AssignArguments) -> Result<Exit, Error> {
    let act = Act { verb: "assign to another project", done: "assigned", is_grave: false };
    let targets = targets(&session, &arguments.targets, false).await?;
    let project = &arguments.to;
    apply(session, act, targets, arguments.confirm, |session: Rc<FleetSession>, target| {
        let project = project.clone();
        async move {
            let runner = session.change(async || session.fleet.assign(&project, target.id).await).await?;
            Ok(Made { line: format!("assigned to {project}"), answer: answer(&runner) })
        }
    })
    .await
}

/// Unassigns runners from a project.
pub(super) async fn unassign(session: FleetSession, arguments: &UnassignArguments) -> Result<Exit, Error> {
    let act = Act { verb: "unassign from a project", done: "unassigned", is_grave: false };
    let targets = targets(&session, &arguments.targets, false).await?;
    let project = &arguments.from;
    apply(session, act, targets, arguments.confirm, |session: Rc<FleetSession>, target| {
        let project = project.clone();
        async move {
            session.change(async || session.fleet.unassign(&project, target.id).await).await?;
            Ok(Made { line: format!("unassigned from {project}"), answer: json!({ "id": target.id }) })
        }
    })
    .await
}

/// The server's answer as JSON.
fn answer(answer: &impl Serialize) -> Value {
    serde_json::to_value(answer).unwrap_or_else(|_| json!({}))
}

/// The changes of the flags, validated by the server's rules.
fn changes(arguments: &AttributeArguments) -> Result<RunnerChanges, Error> {
    let parameters = parameters(arguments)?;
    // An update need not repeat existing settings, such as the tags that `run_untagged` needs.
    let untagged = RegisterParameters { run_untagged: None, ..parameters.clone() };
    let changes = RunnerChanges {
        description: parameters.description.clone(),
        paused: None,
        tag_list: arguments.tag_list.as_ref().map(|_| parameters.tag_list.clone()),
        run_untagged: parameters.run_untagged,
        locked: parameters.locked,
        access_level: parameters.access_level,
        maximum_timeout: arguments.maximum_timeout.map(|timeout| Some(timeout).filter(|timeout| !timeout.is_zero())),
        maintenance_note: parameters.maintenance_note.clone(),
    };
    validated(&untagged).map(|()| changes)
}

/// The settings of the flags, not validated as a whole.
pub(super) fn parameters(arguments: &AttributeArguments) -> Result<RegisterParameters, Error> {
    let level = |word: &String| {
        let levels = [AccessLevel::NotProtected, AccessLevel::RefProtected];
        levels
            .into_iter()
            .find(|level| level.as_str() == word)
            .ok_or_else(|| Error::Usage(format!("unknown access level `{word}`: use not_protected or ref_protected")))
    };
    let tags = arguments.tag_list.as_deref().unwrap_or_default().split(',').map(str::trim);
    Ok(RegisterParameters {
        description: arguments.description.clone(),
        maintenance_note: arguments.maintenance_note.clone(),
        tag_list: tags.filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        run_untagged: arguments.run_untagged,
        locked: arguments.locked,
        paused: None,
        access_level: arguments.access_level.as_ref().map(level).transpose()?,
        maximum_timeout: arguments.maximum_timeout.filter(|timeout| *timeout != Duration::ZERO),
        info: None,
    })
}

/// Validates settings by the server's rules.
pub(super) fn validated(parameters: &RegisterParameters) -> Result<(), Error> {
    let diagnostics: Vec<_> = parameters.validate().iter().map(ToString::to_string).collect();
    if diagnostics.is_empty() { Ok(()) } else { Err(Error::Usage(diagnostics.join("; "))) }
}
