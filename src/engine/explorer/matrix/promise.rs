//! What one wrong answer of a gateway must leave as it is.

use super::Row;
use crate::engine::explorer::gitlab::Call;
use crate::engine::explorer::world::{CallLog, Files, State, literal};
use crate::model::{Conclusion, Evidence, StateName, Trouble};
use crate::store::{Entry, Record};

/// What the agent held was kept, and nothing was changed at GitLab, until that has answered again. The log begins with
/// the wrongly answered request.
pub(super) fn is_kept(row: &Row, status: u16, log: &[CallLog], state: &State) -> Result<(), String> {
    let [wrong, next @ ..] = log else { return Err("the request was not sent".to_owned()) };
    let subject = subject(row, state);
    let has_subject = matches!(row.call, Call::Verify | Call::Reset | Call::DeleteRunner | Call::DeleteManager);
    if has_subject && wrong.about != subject {
        return Err(format!("the request was about {}, not about {subject}", wrong.about));
    }
    let settled = next.iter().position(|entry| settles(row, status, &subject, entry));
    let until_settled = &next[..settled.map_or(next.len(), |at| at + 1)];
    if let Some(early) = too_early(row, &subject, until_settled) {
        return Err(format!("{:?} about {} came before a verification was answered", early.call, early.about));
    }
    let held = until_settled.iter().map(|entry| &entry.files);
    let last = settled.is_none().then_some(&state.files);
    held.chain(last).try_for_each(|after| {
        entries_are_kept(row, &wrong.files, after, state)?;
        records_are_kept(row, status, &wrong.files, after)?;
        evidence_is_none(row, status, &wrong.files, after)
    })
}

/// The number of the row's runner, as the log of the requests has it.
fn subject(row: &Row, state: &State) -> String {
    state.homes.get(row.name).map(u64::to_string).unwrap_or_default()
}

fn is_registration(call: Call) -> bool {
    matches!(call, Call::Register | Call::Create)
}

/// Whether the answer leaves open that GitLab has made a runner: then nothing but a person's request repeats it.
fn is_open(row: &Row, status: u16) -> bool {
    is_registration(row.call) && (status < 300 || status == 408 || status >= 500)
}

/// Whether GitLab has answered what the wrong answer has left open. Where there is no token yet, a probe says that a
/// GitLab is there.
fn settles(row: &Row, status: u16, subject: &str, entry: &CallLog) -> bool {
    match row.call {
        _ if is_open(row, status) => false,
        Call::Register | Call::Create | Call::Probe => entry.call == Call::Probe,
        // A manager is deleted once more instead.
        Call::DeleteManager => matches!(entry.call, Call::Verify | Call::DeleteManager) && entry.about == subject,
        _ => entry.call == Call::Verify && entry.about == subject,
    }
}

/// A request that changes something and came too early. A manager may be deleted once more.
fn too_early<'a>(row: &Row, subject: &str, log: &'a [CallLog]) -> Option<&'a CallLog> {
    let mut repeats = usize::from(row.call == Call::DeleteManager);
    log.iter().find(|entry| {
        let is_about_it = match entry.call {
            Call::Verify | Call::Probe | Call::Managers | Call::Any => false,
            // They are about the token that makes or resets runners.
            Call::Register | Call::Create | Call::ResetById => true,
            Call::Reset | Call::DeleteRunner | Call::DeleteManager => entry.about == subject,
        };
        let is_repeat = is_about_it && entry.call == row.call && repeats > 0;
        repeats -= usize::from(is_repeat);
        is_about_it && !is_repeat
    })
}

/// The entry of the row's runner is the same, and of the others no more than their token is another: one that GitLab has
/// issued since.
fn entries_are_kept(row: &Row, before: &Files, after: &Files, state: &State) -> Result<(), String> {
    let is_issued = |entry: &Entry| literal(entry).is_some_and(|token| state.owners.contains_key(token));
    let is_same = |(before, after): (&Entry, &Entry)| {
        let is_other = before.name.as_deref() != Some(row.name) && !row.removed.contains(&row.name);
        before == after || is_other && before.name == after.name && before.id == after.id && is_issued(after)
    };
    let is_removed = |entry: &&Entry| entry.name.as_deref().is_some_and(|name| row.removed.contains(&name));
    let before: Vec<_> = before.entries.iter().filter(|entry| !is_removed(entry)).collect();
    let after: Vec<_> = after.entries.iter().filter(|entry| !is_removed(entry)).collect();
    if before.len() == after.len() && before.iter().copied().zip(after.iter().copied()).all(is_same) {
        return Ok(());
    }
    Err(format!("entries before: {before:#?}, after: {after:#?}"))
}

fn of_row<'a>(row: &Row, files: &'a Files) -> Vec<&'a Record> {
    files.records.values().filter(|record| record.name.as_deref() == Some(row.name)).collect()
}

/// What may be another in a record: the state, and when the server was asked.
fn core(record: &Record) -> Record {
    Record { state: None, since: None, last_verify: None, ..record.clone() }
}

/// A record without a former one is that of an entry which is served for the first time, or of an enrollment.
fn is_first(record: &Record, files: &Files) -> bool {
    let token = record.credential.as_ref().map(|credential| credential.token.expose());
    let mut entries = files.entries.iter().filter(|entry| entry.id == record.id);
    token.is_none_or(|token| entries.any(|entry| literal(entry) == Some(token)))
}

fn records_are_kept(row: &Row, status: u16, before: &Files, after: &Files) -> Result<(), String> {
    let before = of_row(row, before);
    for record in of_row(row, after) {
        let former = before.iter().find(|former| former.key == record.key);
        if !former.map_or_else(|| is_first(record, after), |former| core(former) == core(record)) {
            return Err(format!("record before: {former:#?}, after: {record:#?}"));
        }
        let former = former.and_then(|former| former.state);
        let is_default = matches!(record.state, Some(StateName::Active | StateName::Unregistered));
        // A registration that may have made a runner waits for a person.
        let uncertain = if is_open(row, status) { StateName::Failed } else { StateName::Uncertain };
        let is_kept = former == record.state || former.is_none() && is_default;
        if !is_kept && record.state != Some(uncertain) {
            return Err(format!("{former:?} became {:?}", record.state));
        }
    }
    // That of a registration which has brought no token goes with the command.
    let mut with_token = before.iter().filter(|former| former.credential.is_some());
    if with_token.any(|former| !after.records.contains_key(&former.key)) {
        return Err("its record is gone".to_owned());
    }
    Ok(())
}

/// Nothing was concluded, and the answer counts once.
fn evidence_is_none(row: &Row, status: u16, before: &Files, after: &Files) -> Result<(), String> {
    for (key, held) in &after.held {
        let former = before.held.get(key);
        let is_candidate = |token: &str| held.candidates.iter().any(|candidate| candidate.token.expose() == token);
        let mut candidates = former.iter().flat_map(|former| &former.candidates);
        if !candidates.all(|candidate| is_candidate(candidate.token.expose())) {
            return Err(format!("{key}: a token that was kept beside the record is gone"));
        }
        let former = former.and_then(|former| former.evidence.as_deref().cloned()).unwrap_or_default();
        let Some(Evidence { asked, changed, conclusion, .. }) = held.evidence.as_deref().cloned() else { continue };
        let is_lost = match &conclusion {
            Some(Conclusion::Failed { trouble, .. }) => *trouble == Trouble::RegistrationLost,
            // A recovery was to register the runner again.
            Some(Conclusion::Rejected { rungs, .. }) => rungs.register_lost,
            _ => false,
        };
        if conclusion != former.conclusion && !(is_lost && is_open(row, status)) {
            return Err(format!("{key}: {conclusion:?} was concluded"));
        }
        let is_once = |finding: Option<crate::model::Finding>| finding.is_none_or(|finding| finding.count <= 1);
        if !is_once(asked) || !is_once(changed) {
            return Err(format!("{key}: one answer counts as {asked:?} and {changed:?}"));
        }
    }
    Ok(())
}

/// config.toml holds what GitLab accepts: of the row's runner, and of all others.
pub(super) fn goes_on(row: &Row, is_repeated: bool, state: &State) -> Result<(), String> {
    if let Some(violation) = state.violations.first() {
        return Err(format!("{violation:?}"));
    }
    let others = ["found", "created"].into_iter().filter(|name| !row.removed.contains(name) && *name != row.name);
    others.into_iter().try_for_each(|name| is_served(name, state))?;
    // A command's deletion that was sent once more is done. A stop leaves the entry for the next start.
    let is_unregistered = row.call == Call::DeleteManager && is_repeated && row.removed.is_empty();
    if is_unregistered {
        let is_left = state.files.entries.iter().any(|entry| entry.name.as_deref() == Some(row.name));
        let managers = state.homes.get(row.name).and_then(|id| state.gitlab.database.get(id));
        let is_gone = managers.is_some_and(|runner| runner.managers.is_empty());
        return if is_gone && !is_left { Ok(()) } else { Err("the manager was deleted by half".to_owned()) };
    }
    is_served(row.name, state)?;
    let is_active = |record: &&Record| record.state == Some(StateName::Active);
    if !of_row(row, &state.files).iter().all(is_active) {
        return Err(format!("it is not active: {:?}", of_row(row, &state.files)));
    }
    let entry = state.files.entries.iter().find(|entry| entry.name.as_deref() == Some(row.name));
    if row.call == Call::Reset
        && row.setup == super::DUE
        && entry.and_then(literal).is_some_and(|it| it.ends_with("00001"))
    {
        return Err("the rotation never came".to_owned());
    }
    Ok(())
}

fn is_served(name: &str, state: &State) -> Result<(), String> {
    let entry = state.files.entries.iter().find(|entry| entry.name.as_deref() == Some(name));
    let token = entry.and_then(literal).ok_or_else(|| format!("`{name}` has no entry"))?;
    state.gitlab.find(token, state.now()).ok_or_else(|| format!("the token of `{name}` is not accepted"))?;
    Ok(())
}
