//! config.toml, the state directory, and the rights on both.

use std::path::Path;
use std::sync::Arc;

use super::super::Error;
use super::super::context::{Context, until_signal};
use super::Finding;
use crate::daemon;
use crate::error_chain::chain;
use crate::files::{check_directory, is_there};
use crate::settings::{Paths, Settings};
use crate::store::{self, ErrorKind, Record, Snapshot, Store, Urgency};

/// Opens the disk; `None` if it cannot be used. A state directory that does not exist is not made.
pub(super) fn open(paths: &Paths, findings: &mut Vec<Finding>) -> Result<Option<Store>, Error> {
    let config = paths.store();
    let open = |config: store::Config| {
        let path = config.config_path.clone();
        until_signal(&path, move || Store::open(config))
    };
    let without_state = store::Config { state_root: None, ..config.clone() };
    let Some(root) = &config.state_root else {
        let message = "there is no state directory: a crash can lose a new token";
        findings.push(Finding::warning(message).with_remedy(Some("set STATE_DIRECTORY, or use --state-dir")));
        return Ok(opened(open(without_state)?, paths, findings));
    };
    if !is_there(root) {
        findings.push(match check_directory(root) {
            Ok(()) => Finding::note("the state directory does not exist: the daemon makes it").in_file(root),
            Err(error) => Finding::error(&format!("the state directory cannot be made: {error}"))
                .in_file(root)
                .with_remedy(Some("make the directory for the daemon's user, or use another --state-dir"))
                .stopping(),
        });
        return Ok(opened(open(without_state)?, paths, findings));
    }
    match open(config.clone())? {
        Ok(store) => Ok(Some(store)),
        Err(error) => {
            findings.push(Finding::of_store(&error, root).stopping());
            // Without its state, config.toml can still be read. What is wrong with its path is known already.
            Ok(open(without_state)?.ok())
        }
    }
}

fn opened(opened: Result<Store, store::Error>, paths: &Paths, findings: &mut Vec<Finding>) -> Option<Store> {
    opened.map_err(|error| findings.push(Finding::of_store(&error, &paths.config).stopping())).ok()
}

/// Reads the runners' records.
pub(super) async fn read_records(store: &Store, paths: &Paths, findings: &mut Vec<Finding>) -> Vec<Record> {
    let root = paths.state_root.as_deref().unwrap_or(Path::new(""));
    match store.records().await {
        Ok(records) => {
            findings.extend(records.damaged.iter().map(|error| Finding::of_store(error, root)));
            records.records
        }
        Err(error) => {
            findings.push(Finding::of_store(&error, root).stopping());
            Vec::new()
        }
    }
}

/// Reads config.toml, and looks at its entries and at the rights to replace it.
pub(super) async fn read_config(store: &Store, paths: &Paths, findings: &mut Vec<Finding>) -> Option<Arc<Snapshot>> {
    let path = &paths.config;
    let snapshot = match store.read().await {
        Ok(snapshot) => snapshot,
        Err(error) => {
            findings.push(Finding::of_store(&error, path).stopping());
            return None;
        }
    };
    for entry in &snapshot.entries {
        for problem in &entry.problems {
            let name = entry.name.as_ref().map(|name| format!(" `{name}`")).unwrap_or_default();
            let message = format!("the entry{name} cannot be used: {problem}");
            // An enrollment can complete it.
            let finding = if problem.is_fatal() && !entry.is_incomplete() {
                Finding::error(&message)
            } else {
                Finding::warning(&format!("the entry{name}: {problem}"))
            };
            findings.push(finding.in_line(path, entry.line));
        }
    }
    if !snapshot.exists {
        findings.push(Finding::note("the file does not exist yet: the first registration makes it").in_file(path));
    }
    if !snapshot.takes_entries {
        let message = "`runners` is written as one array: no entry can be added";
        findings.push(Finding::warning(message).in_file(path).with_remedy(Some("write each runner as [[runners]]")));
    }
    check_rights(store, paths, findings).await;
    Some(snapshot)
}

/// Whether config.toml can be replaced. The daemon starts without that, and cannot rotate.
async fn check_rights(store: &Store, paths: &Paths, findings: &mut Vec<Finding>) {
    let directory = paths.config.parent().unwrap_or(Path::new("/"));
    let problem = if is_there(directory) {
        let failed = store.probe(Urgency::CanWait).await.err();
        // Another process of the agent is at work, which shows that it can be.
        let failed = failed.filter(|error| error.kind() != ErrorKind::Locked);
        failed.map(|error| (chain(&error), error.hint().map(str::to_owned)))
    } else {
        check_directory(directory).err().map(|error| (error.to_string(), None))
    };
    if let Some((problem, remedy)) = problem {
        let message =
            format!("config.toml cannot be replaced, so no runner can be registered and no token rotated: {problem}");
        findings.push(Finding::error(&message).in_file(&paths.config).with_remedy(remedy));
    }
}

/// Whether the daemon has something to serve, and whether it could listen.
pub(super) async fn check_start(
    context: &Context<'_>,
    settings: &Settings,
    store: &Store,
    findings: &mut Vec<Finding>,
) {
    if let Err(error) = daemon::expect_runners(settings, &context.environment, store).await {
        findings.push(Finding::of_error(&error.into()).in_file(&settings.store.config_path).stopping());
    }
}
