//! The hooks of the settings.

use std::path::Path;

use super::Finding;
use super::secrets::of_source;
use crate::files::spawn_file_task;
use crate::hooks::about_secret;
use crate::settings::{Paths, Settings};
use crate::store::{Record, Snapshot};

/// Looks at what each hook needs, and whether its runners exist. Runs none.
pub(super) async fn check(
    settings: &Settings,
    records: &[Record],
    snapshot: Option<&Snapshot>,
    paths: &Paths,
    findings: &mut Vec<Finding>,
) {
    for hook in &settings.engine.hooks {
        let about = |message: &str| format!("the hook `{}`: {message}", hook.name);
        let examined = hook.clone();
        let obstacle = spawn_file_task(Path::new("the files of a hook"), move || examined.obstacle()).await;
        match obstacle {
            Ok(None) => {}
            Ok(Some(obstacle)) => {
                let message = about(&obstacle.message);
                let finding = if obstacle.is_passing { Finding::warning(&message) } else { Finding::error(&message) };
                findings.push(finding.in_file(obstacle.path.as_deref().unwrap_or(&paths.agent_config)));
            }
            Err(error) => findings.push(Finding::warning(&about(&error.to_string()))),
        }
        if let Some(secret) = hook.secret()
            && let Err(error) = secret.read_password()
        {
            let message = about(&about_secret(&error));
            findings.push(of_source(&message, &error, secret));
        }
        if hook.takes_token_path() && paths.state_root.is_none() {
            let message = about("`token = \"file\"` needs a state directory");
            findings
                .push(Finding::error(&message).with_remedy(Some("set STATE_DIRECTORY, or use `token = \"stdin\"`")));
        }
        for name in hook.runners.iter().filter(|name| !is_known(name, settings, records, snapshot)) {
            let message = about(&format!("there is no runner `{name}`"));
            let remedy = "`runner-agent list` shows the names of config.toml";
            findings.push(Finding::warning(&message).in_file(&paths.agent_config).with_remedy(Some(remedy)));
        }
    }
}

/// Whether an enrollment, a record or an entry has this name.
fn is_known(name: &str, settings: &Settings, records: &[Record], snapshot: Option<&Snapshot>) -> bool {
    let entries = snapshot.map(|snapshot| &snapshot.entries[..]).unwrap_or_default();
    settings.engine.enrollments.iter().any(|enrollment| enrollment.entry.name == name)
        || records.iter().any(|record| record.label() == name)
        || entries.iter().any(|entry| entry.name.as_deref() == Some(name))
}
