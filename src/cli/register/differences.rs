//! What a repeated registration asked for and the runner has otherwise.

use std::path::Path;

use crate::model::{RegisteredWith, RunnerId};
use crate::ops::{Enrollment, Runner, registered_with};
use crate::settings::differing_keys;
use crate::store::EntryText;

/// What differs, and how to change it; `None` if nothing is known to differ. Values are left out: they can be secrets.
pub(super) fn hint(
    enrollment: &Enrollment,
    runner: &Runner,
    entry: Option<&EntryText>,
    config: &Path,
) -> Option<String> {
    let asked = registered_with(enrollment);
    let on_server = asked.as_ref().and_then(|asked| on_server(asked, runner));
    let keys = entry.map(|entry| differing_keys(&enrollment.entry, entry)).unwrap_or_default();
    let in_entry = (!keys.is_empty())
        .then(|| format!("its entry differs in {}: edit {} to change it", listed(&keys), config.display()));
    let parts: Vec<_> = [on_server, in_entry].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn on_server(asked: &RegisteredWith, runner: &Runner) -> Option<String> {
    let id = runner.record.id.map_or_else(|| "ID".to_owned(), |id: RunnerId| id.to_string());
    let change = format!("change it with `runner-agent fleet update {id}`, or register anew with --force");
    match runner.record.registered_with.as_deref() {
        Some(known) if known == asked => None,
        Some(known) => {
            Some(format!("the runner was registered with another {}: {change}", listed(&known.differing_flags(asked))))
        }
        None if asked.tag_list.is_empty() => None,
        None => Some(format!("its tags in GitLab stay as they are: {change}")),
    }
}

fn listed(names: &[impl AsRef<str>]) -> String {
    let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}
