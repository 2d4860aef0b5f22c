//! The status in one sentence: for the service manager, for logs, and for people.

use super::registry::{NotReadyReason, Phase, RegistryState, RunnerStatus, StatusRegistry};
use crate::clock::Reading;

impl StatusRegistry {
    /// Describes the status at `reading` in one line.
    #[must_use]
    pub fn summary(&self, reading: Reading) -> String {
        let state = self.state();
        let mut clauses = vec![state.ready_clause()];
        clauses.extend(state.file_work.trouble().map(str::to_owned));
        clauses.extend(state.not_in_force());
        let mut not_ready = state.not_ready();
        if let Some(NotReadyReason { name, why, .. }) = not_ready.next() {
            let more = match not_ready.count() {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            clauses.push(format!("{}: {why}{more}", name.as_deref().unwrap_or_default()));
        }
        clauses.extend(state.access_tokens.values().filter_map(|report| {
            let why = report.last_error.as_ref().filter(|_| report.state.needs_person())?;
            Some(format!("access token for {}: {why}", report.server))
        }));
        clauses.extend(state.next_rotation(reading));
        clauses.join("; ")
    }

    /// The same for a reader who sees the reasons beside it: how many runners are ready, how many of them need attention,
    /// and the next rotation.
    pub(super) fn headline(&self, need_attention: usize, reading: Reading) -> String {
        let state = self.state();
        let attention = match need_attention {
            0 => String::new(),
            1 => ", 1 needs attention".to_owned(),
            many => format!(", {many} need attention"),
        };
        let mut clauses = vec![state.ready_clause() + &attention];
        clauses.extend(state.file_work.trouble().map(str::to_owned));
        clauses.extend(state.next_rotation(reading));
        clauses.join("; ")
    }
}

impl RegistryState {
    fn ready_clause(&self) -> String {
        let missing = self.missing().count();
        let count = self.runners.len() + missing;
        let not_ready = self.runners.values().filter(|status| status.not_ready_because.is_some()).count() + missing;
        match (self.phase, count) {
            (Phase::Starting, 0) => "starting".to_owned(),
            (phase, count) => format!("{}{}", phase.prefix(), ready_of(count - not_ready, count)),
        }
    }

    /// The earliest rotation in the future.
    fn next_rotation(&self, reading: Reading) -> Option<String> {
        let planned = |status: &RunnerStatus| status.next_rotation_at.filter(|at| *at > status.time.now(reading));
        let rotations = self.runners.values().filter_map(|status| Some((planned(status)?, status)));
        let (at, status) = rotations.min_by_key(|(at, _)| *at)?;
        Some(format!("next rotation at {} ({})", at.whole_seconds(), status.label()))
    }
}

impl Phase {
    fn prefix(self) -> &'static str {
        match self {
            Self::Starting => "starting; ",
            Self::Serving => "",
            Self::Reloading => "reloading; ",
            Self::Stopping => "stopping; ",
        }
    }
}

fn ready_of(ready: usize, count: usize) -> String {
    match (ready, count) {
        (_, 0) => "no runners to serve".to_owned(),
        (1, 1) => "1 runner ready".to_owned(),
        (ready, count) if ready == count => format!("{count} runners ready"),
        (ready, count) => format!("{ready} of {count} runners ready"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StateName;
    use crate::status::FileWork;
    use crate::status::tests::{key, now, status};

    fn summary(registry: &StatusRegistry) -> String {
        registry.summary(now())
    }

    #[test]
    fn the_summary_counts_ready_runners_and_names_what_is_next() {
        let registry = StatusRegistry::default();
        assert_eq!(summary(&registry), "starting");
        registry.enter(Phase::Serving);
        assert_eq!(summary(&registry), "no runners to serve");
        registry.update(status("a", Some(1), StateName::Active));
        assert_eq!(summary(&registry), "1 runner ready; next rotation at 2027-01-01T00:38:00Z (a)");
        let later = RunnerStatus { next_rotation_at: None, ..status("b", Some(2), StateName::Active) };
        registry.update(later.clone());
        assert_eq!(summary(&registry), "2 runners ready; next rotation at 2027-01-01T00:38:00Z (a)");
        registry.remove(&key("a"));
        let refused = RunnerStatus { not_ready_because: Some("the server refuses the token".to_owned()), ..later };
        for name in ["b", "c"] {
            registry.update(RunnerStatus { key: key(name), ..refused.clone() });
        }
        registry.update(status("d", None, StateName::Active));
        let expected = "1 of 3 runners ready; b: the server refuses the token (and 1 more)";
        assert_eq!(summary(&registry), expected);
    }

    #[test]
    fn a_rotation_in_the_past_is_not_the_next_one() {
        let registry = StatusRegistry::default();
        registry.enter(Phase::Serving);
        let late = RunnerStatus {
            next_rotation_at: Some("2027-01-01T00:31:00Z".parse().unwrap()),
            ..status("a", Some(1), StateName::Active)
        };
        registry.update(late);
        assert_eq!(summary(&registry), "1 runner ready", "the server is a minute and a half ahead");
    }

    #[test]
    fn a_headline_counts_what_needs_attention_and_gives_no_reason() {
        let registry = StatusRegistry::default();
        registry.enter(Phase::Serving);
        registry.update(status("a", Some(1), StateName::Active));
        let refused = RunnerStatus {
            not_ready_because: Some("the server refuses the token".to_owned()),
            next_rotation_at: None,
            ..status("b", Some(2), StateName::Rejected)
        };
        registry.update(refused);
        let next = "next rotation at 2027-01-01T00:38:00Z (a)";
        assert_eq!(registry.headline(1, now()), format!("1 of 2 runners ready, 1 needs attention; {next}"));
        assert_eq!(registry.headline(0, now()), format!("1 of 2 runners ready; {next}"));
        registry.report_file_work(FileWork::Slow("slow".to_owned()));
        assert_eq!(registry.headline(2, now()), format!("1 of 2 runners ready, 2 need attention; slow; {next}"));
    }
}
