//! The file for a bug report: what `doctor` found, and the files without secrets.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::super::check::Checked;
use super::super::context::{Context, until_signal};
use super::super::{Error, Exit};
use super::row::Row;
use crate::engine::{Inventory, record_report};
use crate::files::{Place, read};
use crate::model::Report;
use crate::secret::{Source, masked, token_length};
use crate::settings::{Settings, redacted_config, redacted_settings, secret_files, secret_variables};
use crate::sharing;
use crate::store::MAX_FILE_BYTES;

/// Everything that a bug report needs, as JSON without secrets.
pub(super) fn content(
    context: &Context<'_>,
    checked: &Checked,
    inventory: &Inventory,
    rows: &[Row],
    daemon: Option<Report>,
) -> String {
    let system = rustix::system::uname();
    let text_of = |path: &Path| {
        let file = path.to_owned();
        let content = until_signal(path, move || read(&file, MAX_FILE_BYTES)).ok().and_then(Result::ok);
        content.and_then(|content| String::from_utf8(content).ok()).unwrap_or_default()
    };
    let now = context.now();
    let document = json!({
        "schema": Report::SCHEMA,
        "created_at": now,
        "version": env!("CARGO_PKG_VERSION"),
        "features": features(),
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "kernel": system.release().to_string_lossy(),
        "is_root": context.environment.is_root,
        "is_container": context.environment.is_container,
        "paths": {
            "agent_toml": checked.paths.agent_config,
            "config_toml": checked.paths.config,
            "state": checked.paths.state_root,
            "sockets": checked.paths.sockets,
        },
        "checks": rows,
        "agent_toml": redacted_settings(&text_of(&checked.paths.agent_config)),
        "config_toml": redacted_config(&text_of(&checked.paths.config)),
        "runners": inventory.runners.iter().map(|it| record_report(&it.runner, now)).collect::<Vec<_>>(),
        "daemon": daemon,
    });
    let text = serde_json::to_string_pretty(&document).unwrap_or_default() + "\n";
    without_secrets(text, &secrets(context, checked))
}

fn features() -> Vec<&'static str> {
    [("etcd", cfg!(feature = "etcd")), ("kubernetes", cfg!(feature = "kubernetes"))]
        .into_iter()
        .filter_map(|(name, is_in)| is_in.then_some(name))
        .collect()
}

/// Every secret that this machine's files and variables hold, as far as they can be read.
fn secrets(context: &Context<'_>, checked: &Checked) -> Vec<String> {
    let mut secrets = Vec::new();
    let names = secret_variables(&context.overrides, &context.environment);
    secrets.extend(names.iter().filter_map(|name| context.environment.text(&name.to_string_lossy())));
    if let Some(snapshot) = &checked.snapshot {
        secrets.extend(snapshot.entries.iter().filter_map(|entry| Some(entry.token.token()?.expose().to_owned())));
    }
    let credentials = checked.records.iter().filter_map(|record| record.credential.as_ref());
    secrets.extend(credentials.map(|credential| credential.token.expose().to_owned()));
    let files = secret_files(&context.overrides, &context.environment).into_iter().map(Source::File);
    let credentials = checked.settings.iter().flat_map(sources_of).cloned();
    secrets
        .extend(files.chain(credentials).filter_map(|source| Some(source.read_password().ok()?.expose().to_owned())));
    secrets.retain(|secret| secret.len() >= MIN_SECRET_BYTES);
    // The longest first: one may begin with another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.dedup();
    secrets
}

/// The sources of the valid settings: credentials of systemd are no files that agent.toml names.
fn sources_of(settings: &Settings) -> impl Iterator<Item = &Source> {
    let enrollments = settings.engine.enrollments.iter().map(|enrollment| enrollment.source.secret());
    let servers = settings.engine.servers.iter().map(|server| &server.access_token);
    enrollments.chain(servers).chain(settings.engine.sharing.iter().flat_map(sharing::Settings::secrets))
}

/// A shorter text is no secret, and would hide ordinary words.
const MIN_SECRET_BYTES: usize = 6;

/// Hides each secret wherever it is, and what looks like a token of GitLab.
fn without_secrets(text: String, secrets: &[String]) -> String {
    let hidden = secrets.iter().fold(text, |text, secret| {
        let escaped = Value::String(secret.clone()).to_string();
        text.replace(escaped.trim_matches('"'), "[token]").replace(secret, "[token]")
    });
    masked(&hidden, token_length)
}

/// Writes a new file that only its owner can read.
pub(super) fn write(context: &Context<'_>, path: &Path, content: &str) -> Result<(), Error> {
    let path = context.environment.absolute(path);
    let written = Place::find(&path).and_then(|place| {
        let mut file = place.create()?;
        file.write_all(content.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| Error::Verdict {
        exit: Exit::LocalFile,
        message: format!("cannot write the bundle `{}`: {error}", path.display()),
        hint: Some("name a file that does not exist, in a directory that can be written".to_owned()),
    })?;
    context.reporter.remark(&format!(
        "wrote {}: it has no tokens; it has names and addresses, so look through it before you send it",
        path.display()
    ));
    Ok(())
}
