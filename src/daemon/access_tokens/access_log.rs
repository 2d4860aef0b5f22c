//! What the log says about an access token: each thing once. The news are events too.

use std::mem::Discriminant;

use crate::daemon::events::{record_access, record_access_problem};
use crate::gitlab::Disposition;
use crate::lifecycle::AccessWarning;
use crate::lifecycle::access::warning;
use crate::model::{AccessTokenReport, AccessTokenState, ServerUrl};
use crate::ops::{AccessError, AccessEvent, AccessPass};
use crate::status::{OperationOutcome, StatusRegistry};
use crate::store;

/// What was said about a server's access token.
pub(super) struct AccessLog {
    server: ServerUrl,
    registry: StatusRegistry,
    problem: Option<Problem>,
    warned: Option<AccessWarning>,
    is_known: bool,
    is_unsupported: bool,
}

/// What is wrong, without what changes with each answer.
#[derive(PartialEq)]
struct Problem {
    state: AccessTokenState,
    error: Option<Discriminant<AccessError>>,
    missing_scopes: Vec<String>,
}

impl AccessLog {
    pub(super) fn new(server: ServerUrl, registry: StatusRegistry) -> Self {
        Self { server, registry, problem: None, warned: None, is_known: false, is_unsupported: false }
    }

    /// Logs what is new.
    pub(super) fn note(&mut self, pass: &AccessPass, report: &AccessTokenReport) {
        for event in &pass.events {
            self.log_event(*event, report);
            record_access(&self.registry, pass.now, *event, report);
        }
        self.log_first_facts(pass, report);
        let is_passing =
            matches!(pass.error, Some(AccessError::Stopping | AccessError::Disk(store::Error::FileLocked { .. })));
        if !is_passing {
            self.log_problem(pass, report);
        }
        self.log_ending(pass, report);
    }

    fn log_event(&self, event: AccessEvent, report: &AccessTokenReport) {
        let (server, source) = (self.server.as_str(), report.source.as_str());
        let ends_on = report.expires_at.map(|at| at.date());
        match event {
            AccessEvent::Found(token) => tracing::info!(server, source, %token, "another access token is in the file"),
            AccessEvent::Rotated(token) => {
                tracing::info!(server, source, %token, ends_on, "the access token was rotated, and the file has the new one");
            }
            AccessEvent::Restored(token) => tracing::warn!(
                server,
                source,
                %token,
                "the file had an access token that was rotated before: it has the newest one again"
            ),
            AccessEvent::Displaced(token) => tracing::warn!(
                server,
                source,
                %token,
                "another access token was put into the file during a rotation: the rotated one is given up and stays valid until it expires"
            ),
            AccessEvent::NotExecuted => {
                tracing::info!(server, "the rotation of the access token whose answer was lost was not executed");
            }
            AccessEvent::Lost => tracing::error!(
                server,
                source,
                "the new access token is lost with the answer to its rotation: make a new one in GitLab and put it into the file"
            ),
        }
    }

    fn log_first_facts(&mut self, pass: &AccessPass, report: &AccessTokenReport) {
        if pass.record.is_unsupported && !self.is_unsupported {
            tracing::info!(
                server = self.server.as_str(),
                "this GitLab does not say when an access token ends: it has no call for that before 15.5"
            );
        }
        self.is_unsupported = pass.record.is_unsupported;
        let Some(scopes) = report.scopes.as_ref().filter(|_| pass.error.is_none() && !self.is_known) else { return };
        self.is_known = true;
        tracing::info!(
            server = self.server.as_str(),
            name = report.name,
            scopes = scopes.join(","),
            ends_on = report.expires_at.map(|at| at.date()),
            rotation_at = report.next_rotation_at.map(|at| at.to_string()),
            "the access token is accepted"
        );
    }

    /// A problem is logged when it begins, and its end.
    fn log_problem(&mut self, pass: &AccessPass, report: &AccessTokenReport) {
        let server = self.server.as_str();
        // What remains of a token's life changes with each pass.
        let is_ending = pass.error.is_none() && report.missing_scopes.is_empty() && !report.state.needs_person();
        let text = report.last_error.as_ref().filter(|_| !is_ending);
        let problem = text.map(|_| Problem {
            state: report.state,
            error: pass.error.as_ref().map(std::mem::discriminant),
            missing_scopes: report.missing_scopes.clone(),
        });
        match text {
            None if self.problem.is_some() => tracing::info!(server, "the access token is well again"),
            None => {}
            Some(text) if problem == self.problem => tracing::debug!(server, "access token, still: {text}"),
            Some(text) => {
                if report.state.needs_person() {
                    tracing::error!(server, "access token: {text}");
                } else {
                    tracing::warn!(server, "access token: {text}");
                }
                record_access_problem(&self.registry, pass.now, report, text);
            }
        }
        self.problem = problem;
    }

    fn log_ending(&mut self, pass: &AccessPass, report: &AccessTokenReport) {
        let warned = pass.record.facts.as_ref().and_then(|facts| warning(facts, pass.now));
        let is_news = warned > self.warned;
        self.warned = warned;
        let expires_at = report.expires_at.filter(|at| is_news && *at > pass.now && report.last_error.is_some());
        let Some(expires_at) = expires_at else { return };
        let (server, ends_on) = (self.server.as_str(), expires_at.date());
        let why = report.last_error.as_deref().unwrap_or_default();
        match warned {
            Some(AccessWarning::VerySoon) => tracing::error!(server, ends_on, "the access token ends very soon: {why}"),
            Some(AccessWarning::Soon) => tracing::warn!(server, ends_on, "the access token ends soon: {why}"),
            None => {}
        }
    }
}

/// What a pass counts as; `None` if it has sent no rotation and brought none in.
pub(super) fn outcome_of(pass: &AccessPass) -> Option<OperationOutcome> {
    if pass.events.iter().any(|event| matches!(event, AccessEvent::Rotated(_) | AccessEvent::Displaced(_))) {
        return Some(OperationOutcome::Done);
    }
    let AccessError::Rotating(failure) = pass.error.as_ref()? else { return None };
    Some(match failure.disposition {
        Disposition::Unknown { .. } => OperationOutcome::Lost,
        Disposition::NotExecuted { .. } => OperationOutcome::Failed,
        _ => OperationOutcome::Refused,
    })
}
