//! `unregister` of one entry whose token other entries use too.

use std::rc::Rc;

use super::Error;
use super::outcome::{RunnerOutcome, described};
use super::selection::Selected;
use super::session::CommandSession;
use crate::engine::record_report;
use crate::model::Action;

/// Removes the selected entries from config.toml. The runner and this machine's manager stay, because the other
/// entries need them.
pub(super) async fn drop_entry(session: Rc<CommandSession>, selected: Selected) -> RunnerOutcome {
    let Selected { managed, entries, others, twins: _ } = selected;
    let mut runner = managed.runner;
    let report = record_report(&runner, session.now());
    if session.interrupt.is_interrupted() {
        let error = Error::Interrupted("not begun".to_owned());
        return RunnerOutcome::failed(report, Action::Failed, "not unregistered", &error);
    }
    let is_of_runner = |url| others.iter().filter(|other| other.url.as_ref() == Some(url)).cloned().collect::<Vec<_>>();
    let remaining = is_of_runner(&runner.record.url);
    let enrollments = &session.config.enrollments;
    let enrollment = enrollments.iter().find(|enrollment| enrollment.key == runner.record.key);
    let enrolled_as = enrollment.map(|enrollment| enrollment.entry.name.as_str());
    match session.ops().remove_entries_of(&mut runner, &entries, &remaining, enrolled_as, session.now()).await {
        Ok(dropped_to) => {
            let kept = dropped_to.map(|path| format!(" and kept in {}", path.display())).unwrap_or_default();
            let users = described(&others.iter().collect::<Vec<_>>());
            let verb = if others.len() == 1 { "uses" } else { "use" };
            let line = format!(
                "its entry is removed from config.toml{kept}; the runner and this machine's runner manager stay, because {users} {verb} the same token"
            );
            RunnerOutcome::done(report, Action::Dropped, line)
        }
        Err(error) => RunnerOutcome::failed(report, Action::Failed, "not unregistered", &error.into()),
    }
}
