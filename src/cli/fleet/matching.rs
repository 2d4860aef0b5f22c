//! Whether a runner matches the filters of a command, judged here again: a server ignores filters that it does not know,
//! and would return runners that must not be changed.

use std::time::Duration;

use crate::gitlab::fleet::{ContactStatus, DeprecatedScope, FleetRunner, RunnerDetails, RunnerFilters, RunnerType};
use crate::model::Timestamp;

/// How long GitLab counts a runner as online after a contact.
const ONLINE: Duration = Duration::from_secs(2 * 3600);

/// After how long without contact GitLab counts a runner as stale; three months before 17.1.
const STALE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Whether a runner matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It matches every filter.
    Yes,
    /// It does not match some filter.
    No,
    /// The server does not say; the field that is missing.
    Unclear(&'static str),
}

/// The details of a runner, and when the server sent them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Details<'a> {
    /// The details.
    pub(super) details: &'a RunnerDetails,
    /// Server time of the answer.
    pub(super) at: Timestamp,
}

impl Match {
    fn of(known: Option<bool>, field: &'static str) -> Self {
        match known {
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None => Self::Unclear(field),
        }
    }

    /// Both must match.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Unclear(field), _) | (_, Self::Unclear(field)) => Self::Unclear(field),
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

/// Judges a listed runner by all filters. Lists contain neither tags nor version nor the last contact of a paused
/// runner: these are unclear without details.
pub(super) fn matches(runner: &FleetRunner, details: Option<Details<'_>>, filters: &RunnerFilters) -> Match {
    // The details are newer than the list.
    let newest = details.map_or(runner, |details| &details.details.runner);
    let judged = Judged { newest, runner, details };
    let runner_type = filters.runner_type.as_ref().map(|wanted| judged.is_of_type(wanted));
    let status = filters.status.as_ref().map(|wanted| judged.has_status(wanted));
    let paused = filters.paused.map(|wanted| judged.is_paused(wanted));
    let tags = filters.tag_list.iter().map(|tag| judged.has_tag(tag));
    let version = filters.version_prefix.as_ref().map(|prefix| judged.has_version(prefix));
    let scope = filters.scope.as_ref().map(|scope| judged.is_in_scope(scope));
    [runner_type, status, paused, version, scope].into_iter().flatten().chain(tags).fold(Match::Yes, Match::and)
}

struct Judged<'a> {
    newest: &'a FleetRunner,
    runner: &'a FleetRunner,
    details: Option<Details<'a>>,
}

impl Judged<'_> {
    fn is_of_type(&self, wanted: &RunnerType) -> Match {
        let own = self.newest.runner_type.as_ref().or(self.runner.runner_type.as_ref());
        let is_shared = self.newest.is_shared.or(self.runner.is_shared);
        let by_flag = match is_shared {
            Some(true) => Some(*wanted == RunnerType::Instance),
            Some(false) if *wanted == RunnerType::Instance => Some(false),
            Some(false) | None => None,
        };
        Match::of(own.map(|own| own == wanted).or(by_flag), "its type")
    }

    fn is_paused(&self, wanted: bool) -> Match {
        let is_paused = self.newest.is_paused().or(self.runner.is_paused());
        Match::of(is_paused.map(|is_paused| is_paused == wanted), "whether it is paused")
    }

    fn has_status(&self, wanted: &ContactStatus) -> Match {
        match wanted {
            ContactStatus::Active => self.is_paused(false),
            ContactStatus::Paused => self.is_paused(true),
            ContactStatus::Online
            | ContactStatus::Offline
            | ContactStatus::Stale
            | ContactStatus::NeverContacted
            | ContactStatus::NotConnected
            | ContactStatus::Other(_) => Match::of(self.has_contact_status(wanted), "its last contact"),
        }
    }

    fn has_contact_status(&self, wanted: &ContactStatus) -> Option<bool> {
        let is_never =
            |status: &ContactStatus| matches!(status, ContactStatus::NeverContacted | ContactStatus::NotConnected);
        match self.newest.status.as_ref().or(self.runner.status.as_ref()) {
            // GitLab hides the contact status of a paused runner.
            None | Some(ContactStatus::Paused | ContactStatus::Active | ContactStatus::Other(_)) => {
                self.has_last_contact(wanted)
            }
            Some(own) if own == wanted || (is_never(own) && is_never(wanted)) => Some(true),
            // A runner that was created long ago and never seen is both.
            Some(ContactStatus::Stale) if is_never(wanted) => self.has_last_contact(wanted),
            Some(_) => Some(false),
        }
    }

    /// Whether the last contact has the meaning of a status.
    fn has_last_contact(&self, wanted: &ContactStatus) -> Option<bool> {
        let Details { details, at } = self.details?;
        let Some(contacted_at) = details.contacted_at else {
            // It was seen, and the time is missing or unreadable.
            if self.newest.online.or(self.runner.online).is_some() {
                return None;
            }
            return match wanted {
                ContactStatus::NeverContacted | ContactStatus::NotConnected => Some(true),
                ContactStatus::Stale => self.newest.created_at.map(|created_at| at.since(created_at) >= STALE),
                _ => Some(false),
            };
        };
        let silence = at.since(contacted_at);
        Some(match wanted {
            ContactStatus::Online => silence < ONLINE,
            ContactStatus::Offline => (ONLINE..STALE).contains(&silence),
            ContactStatus::Stale => silence >= STALE,
            _ => false,
        })
    }

    fn has_tag(&self, tag: &str) -> Match {
        let own = self.details.and_then(|Details { details, .. }| details.tag_list.as_ref());
        Match::of(own.map(|own| own.iter().any(|own| own == tag)), "its tags")
    }

    /// A runner without a version has never reported one.
    fn has_version(&self, prefix: &str) -> Match {
        let has_prefix = |Details { details, .. }: Details<'_>| {
            details.version.as_ref().is_some_and(|version| version.starts_with(prefix))
        };
        Match::of(self.details.map(has_prefix), "its version")
    }

    fn is_in_scope(&self, scope: &DeprecatedScope) -> Match {
        match scope {
            DeprecatedScope::Active => self.is_paused(false),
            DeprecatedScope::Paused => self.is_paused(true),
            DeprecatedScope::Online => self.has_status(&ContactStatus::Online),
            DeprecatedScope::Offline => self.has_status(&ContactStatus::Offline),
            DeprecatedScope::Shared => self.is_of_type(&RunnerType::Instance),
            DeprecatedScope::Specific => match self.is_of_type(&RunnerType::Instance) {
                Match::Yes => Match::No,
                Match::No => Match::Yes,
                unclear @ Match::Unclear(_) => unclear,
            },
            DeprecatedScope::Other(_) => Match::Unclear("its scope"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-07-01T12:00:00Z";

    fn filters(name: &str, value: &str) -> RunnerFilters {
        let mut filters = RunnerFilters::default();
        match name {
            "type" => filters.runner_type = Some(value.parse().unwrap()),
            "status" => filters.status = Some(value.parse().unwrap()),
            "paused" => filters.paused = Some(value == "true"),
            "tag" => filters.tag_list = value.split(',').map(str::to_owned).collect(),
            "version" => filters.version_prefix = Some(value.to_owned()),
            "scope" => filters.scope = Some(value.parse().unwrap()),
            _ => unreachable!("{name}"),
        }
        filters
    }

    fn judged(row: &Value, details: Option<&Value>, name: &str, value: &str) -> Match {
        let row: FleetRunner = serde_json::from_value(row.clone()).unwrap();
        let details: Option<RunnerDetails> = details.map(|details| serde_json::from_value(details.clone()).unwrap());
        let at = NOW.parse().unwrap();
        matches(&row, details.as_ref().map(|details| Details { details, at }), &filters(name, value))
    }

    #[test]
    fn every_filter_is_checked_on_a_row() {
        let row = json!({ "id": 1, "status": "online", "paused": false, "runner_type": "group_type" });
        for (name, matching, other) in [
            ("type", "group_type", "project_type"),
            ("status", "online", "offline"),
            ("status", "online", "stale"),
            ("status", "online", "never_contacted"),
            ("status", "active", "paused"),
            ("paused", "false", "true"),
            ("scope", "active", "paused"),
            ("scope", "online", "offline"),
            ("scope", "specific", "shared"),
        ] {
            assert_eq!(judged(&row, None, name, matching), Match::Yes, "{name} {matching}");
            assert_eq!(judged(&row, None, name, other), Match::No, "{name} {other}");
        }
        let bare = json!({ "id": 1 });
        for (name, value) in [
            ("type", "group_type"),
            ("status", "online"),
            ("status", "paused"),
            ("paused", "true"),
            ("tag", "a"),
            ("version", "16"),
            ("scope", "shared"),
            ("scope", "specific"),
        ] {
            assert!(matches!(judged(&bare, None, name, value), Match::Unclear(_)), "{name} {value}");
        }
        let shared = json!({ "id": 1, "is_shared": true, "active": false });
        assert_eq!(judged(&shared, None, "type", "instance_type"), Match::Yes);
        assert_eq!(judged(&shared, None, "scope", "paused"), Match::Yes);
    }

    #[test]
    fn tags_and_version_are_checked_in_the_details() {
        let row = json!({ "id": 1 });
        let details = json!({ "id": 1, "tag_list": ["a", "b"], "version": "16.1.0" });
        for (name, value, expected) in [
            ("tag", "a,b", Match::Yes),
            ("tag", "a,c", Match::No),
            ("version", "16.1", Match::Yes),
            ("version", "16.2", Match::No),
        ] {
            assert_eq!(judged(&row, Some(&details), name, value), expected, "{name} {value}");
        }
        assert_eq!(judged(&row, Some(&row), "tag", "a"), Match::Unclear("its tags"));
        assert_eq!(judged(&row, Some(&row), "version", "16"), Match::No);
    }

    #[test]
    fn the_last_contact_decides_for_a_paused_runner() {
        let row = json!({ "id": 1, "status": "paused", "paused": true, "online": false });
        let statuses = ["online", "offline", "stale", "never_contacted"];
        for (contacted_at, expected) in [
            ("2026-07-01T11:00:00Z", "online"),
            ("2026-07-01T09:00:00Z", "offline"),
            ("2026-06-25T12:00:00Z", "offline"),
            ("2026-06-20T12:00:00Z", "stale"),
        ] {
            let mut details = row.clone();
            details["contacted_at"] = json!(contacted_at);
            for status in statuses {
                let is_expected = if status == expected { Match::Yes } else { Match::No };
                assert_eq!(judged(&row, Some(&details), "status", status), is_expected, "{contacted_at} {status}");
            }
        }
        for status in statuses {
            assert_eq!(judged(&row, None, "status", status), Match::Unclear("its last contact"));
        }
        let never = json!({ "id": 1, "status": "paused", "online": null, "contacted_at": null, "created_at": "2026-06-30T12:00:00Z" });
        for (status, expected) in statuses.into_iter().zip([Match::No, Match::No, Match::No, Match::Yes]) {
            assert_eq!(judged(&row, None, "status", status), Match::Unclear("its last contact"));
            assert_eq!(judged(&never, Some(&never), "status", status), expected, "{status}");
        }
    }

    #[test]
    fn an_unreadable_last_contact_is_not_a_missing_one() {
        let row = json!({ "id": 1, "status": "paused", "paused": true, "online": false });
        let mut details = row.clone();
        details["contacted_at"] = json!("yesterday");
        for status in ["online", "offline", "stale", "never_contacted"] {
            assert_eq!(judged(&row, Some(&details), "status", status), Match::Unclear("its last contact"), "{status}");
        }
    }
}
