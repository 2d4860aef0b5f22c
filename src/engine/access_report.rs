//! What is reported about an access token.

use super::Config;
use super::access_scopes::NeededScope;
use crate::error_chain::chain;
use crate::lifecycle::AccessObstacle;
use crate::lifecycle::access as rules;
use crate::model::{AccessTokenReport, AccessTokenState, Timestamp, format_span};
use crate::ops::{AccessError, AccessPass, ServerAccess};
use crate::secret::Token;
use crate::store;

impl Config {
    /// The report about a server's access token after a pass.
    #[must_use]
    pub fn access_report(&self, server: &ServerAccess, pass: &AccessPass) -> AccessTokenReport {
        let facts = pass.record.facts.as_ref();
        let missing = facts.map(|facts| self.missing_scopes(server, &facts.scopes)).unwrap_or_default();
        access_report(server, pass, &missing)
    }
}

/// The report about an access token after a pass, which lacks these scopes.
#[must_use]
pub fn access_report(server: &ServerAccess, pass: &AccessPass, missing: &[NeededScope]) -> AccessTokenReport {
    let AccessPass { record, is_pending, error, is_unsaved, obstacle, now, .. } = pass;
    let facts = record.facts.as_ref();
    let state = match error {
        _ if *is_unsaved => AccessTokenState::Unsaved,
        Some(AccessError::Disk(store::Error::FileLocked { .. })) => rules::state(record, *is_pending, *now),
        Some(AccessError::Source(_) | AccessError::Disk(_)) => AccessTokenState::Unreadable,
        _ => match rules::state(record, *is_pending, *now) {
            AccessTokenState::Active | AccessTokenState::Expiring
                if is_obstructed(server, *obstacle) || rules::declined(record, &server.keeping, *now).is_some() =>
            {
                AccessTokenState::NotRenewable
            }
            state => state,
        },
    };
    let is_planned = server.keeping.rotate && obstacle.is_none();
    let next_rotation_at = rules::rotation_at(record).filter(|_| is_planned);
    AccessTokenReport {
        server: server.url.clone(),
        source: server.access_token.label(),
        state,
        token_fingerprint: record.token.as_ref().map(Token::fingerprint),
        name: facts.map(|facts| facts.name.clone()),
        scopes: facts.map(|facts| facts.scopes.clone()),
        missing_scopes: missing.iter().map(|scope| scope.as_str().to_owned()).collect(),
        expires_at: facts.and_then(|facts| facts.expires_at),
        next_rotation_at,
        rotates: server.keeping.rotate,
        rotations: record.rotations,
        asked_at: record.asked_at,
        last_error: problem(server, pass, missing),
    }
}

/// Whether a rotation that the settings ask for needs a person.
fn is_obstructed(server: &ServerAccess, obstacle: Option<AccessObstacle>) -> bool {
    let needs_person =
        matches!(obstacle, Some(AccessObstacle::Spent | AccessObstacle::Scope | AccessObstacle::UsedElsewhere));
    server.keeping.rotate && needs_person
}

/// Why a token needs a person, or could not be asked about or rotated, in one sentence.
fn problem(server: &ServerAccess, pass: &AccessPass, missing: &[NeededScope]) -> Option<String> {
    let AccessPass { record, error, obstacle, now, .. } = pass;
    let expired_at = record.facts.as_ref().and_then(|facts| facts.expires_at).filter(|at| at <= now);
    if pass.is_unsaved {
        let why = error.as_ref().map(in_words).unwrap_or_default();
        return Some(format!(
            "it was rotated, and the new one is in memory alone: do not end the agent before it is stored: {why}"
        ));
    }
    if let Some(error) = error {
        let place = server.access_token.origin();
        return Some(match (error.is_refusal(), expired_at) {
            (true, Some(at)) => {
                format!("it has expired on {}: make a new one in GitLab and put it into {place}", at.date())
            }
            (true, None) => format!(
                "the server refuses it, because it has expired, was revoked, or is not one of this server's: put a valid access token into {place}"
            ),
            (false, _) => in_words(error),
        });
    }
    if let Some(declined) = rules::declined(record, &server.keeping, *now) {
        return Some(format!("GitLab does not rotate it: {declined}"));
    }
    if let Some(obstacle) = obstacle.filter(|obstacle| is_obstructed(server, Some(*obstacle))) {
        return Some(format!("it is not rotated: {}", obstacle.as_str()));
    }
    if let Some(first) = missing.first() {
        let names: Vec<_> = missing.iter().map(|scope| format!("`{}`", scope.as_str())).collect();
        return Some(format!("it lacks the scope {}: {}", names.join(", "), first.consequence()));
    }
    ending(server, pass)
}

fn in_words(error: &AccessError) -> String {
    error.hint().map_or_else(|| chain(error).to_string(), |hint| format!("{}: {hint}", chain(error)))
}

/// That a token ends soon which nothing rotates.
fn ending(server: &ServerAccess, AccessPass { record, obstacle, now, .. }: &AccessPass) -> Option<String> {
    let facts = record.facts.as_ref()?;
    let expires_at: Timestamp = facts.expires_at?;
    rules::warning(facts, *now).filter(|_| obstacle.is_some() || !server.keeping.rotate)?;
    let left = format_span(expires_at.since(*now));
    Some(format!(
        "it ends in {left}, on {}, and nothing rotates it: set `rotate = true`, or make a new one and put it into {}",
        expires_at.date(),
        server.access_token.origin()
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lifecycle::AccessKeeping;
    use crate::model::{AccessRecord, AccessTokenFacts, TlsFiles};
    use crate::secret::Source;

    #[test]
    fn a_rotation_that_only_a_person_can_make_possible_is_reported() {
        let facts = AccessTokenFacts {
            id: 1,
            name: "a".to_owned(),
            scopes: Vec::new(),
            active: true,
            revoked: false,
            created_at: None,
            last_used_at: None,
            expires_at: None,
        };
        let state = |rotate, obstacle| {
            let server = ServerAccess {
                url: "https://gitlab.example.com".parse().unwrap(),
                access_token: Source::File("token".into()),
                tls: TlsFiles::default(),
                keeping: AccessKeeping { rotate, ..AccessKeeping::default() },
            };
            let record = AccessRecord { facts: Some(facts.clone()), ..AccessRecord::default() };
            let (events, now) = (Vec::new(), Timestamp::from_millis(0));
            let pass = AccessPass {
                record,
                is_pending: false,
                is_unsaved: false,
                events,
                error: None,
                obstacle,
                now,
                wait: Duration::ZERO,
            };
            access_report(&server, &pass, &[]).state
        };
        for obstacle in [AccessObstacle::Spent, AccessObstacle::Scope, AccessObstacle::UsedElsewhere] {
            assert_eq!(state(true, Some(obstacle)), AccessTokenState::NotRenewable, "{obstacle:?}");
            assert_eq!(state(false, Some(obstacle)), AccessTokenState::Active, "{obstacle:?}");
        }
        assert_eq!(state(true, None), AccessTokenState::Active);
    }
}
