//! What a repeated registration asked for and the runner has otherwise.

use std::path::Path;

use crate::cli::text::shell_word;
use crate::engine::Config;
use crate::model::{RegisteredWith, RunnerId};
use crate::ops::{Enrollment, Runner, registered_with};
use crate::secret::without_tokens;
use crate::settings::differing_keys;
use crate::store::EntryText;

/// The file of an access token that the settings do not name.
const ACCESS_TOKEN_FILE: &str = "access-token";

/// What differs, and how to change it; `None` if nothing is known to differ. Values of the entry are left out: they can
/// be secrets.
pub(super) fn hint(
    enrollment: &Enrollment,
    runner: &Runner,
    entry: Option<&EntryText>,
    config: &Config,
    path: &Path,
) -> Option<String> {
    let asked = registered_with(enrollment);
    let on_server = asked.as_ref().and_then(|asked| on_server(asked, enrollment, runner, config));
    let keys = entry.map(|entry| differing_keys(&enrollment.entry, entry)).unwrap_or_default();
    let in_entry = (!keys.is_empty())
        .then(|| format!("its entry differs in {}: edit {} to change it", listed(&keys), path.display()));
    let parts: Vec<_> = [on_server, in_entry].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn on_server(asked: &RegisteredWith, enrollment: &Enrollment, runner: &Runner, config: &Config) -> Option<String> {
    let (what, flags) = match runner.record.registered_with.as_deref() {
        Some(known) if known == asked => return None,
        Some(known) => {
            let flags = known.differing_flags(asked);
            (format!("the runner was registered with another {}", listed(&flags)), flags)
        }
        None if asked.tag_list.is_empty() => return None,
        None => ("its tags in GitLab stay as they are".to_owned(), vec!["--tag-list"]),
    };
    let to = reaching(enrollment, runner, config);
    let changes: Vec<_> = flags.iter().filter_map(|flag| change(flag, asked)).collect();
    let update = (!changes.is_empty()).then(|| format!("`runner-agent fleet update {to} {}`", changes.join(" ")));
    let pause = flags.contains(&"--paused").then(|| {
        let command = if asked.paused == Some(true) { "pause" } else { "resume" };
        format!("`runner-agent fleet {command} {to}`")
    });
    let commands: Vec<_> = [update, pause].into_iter().flatten().collect();
    let file = if to.ends_with(ACCESS_TOKEN_FILE) {
        format!(" (`{ACCESS_TOKEN_FILE}` is a file with an access token of the scope `manage_runner` or `api`)")
    } else {
        String::new()
    };
    Some(format!("{what}: change it with {}{file}, or register anew with --force", commands.join(" and ")))
}

/// The runner, its server, and the access token for that, as `fleet` takes them.
fn reaching(enrollment: &Enrollment, runner: &Runner, config: &Config) -> String {
    let id = runner.record.id.map_or_else(|| "ID".to_owned(), |id: RunnerId| id.to_string());
    let url = &enrollment.site.url;
    let mut words = format!("{id} --url {}", shell_word(&url.to_string()));
    if config.access_to(url).is_some() {
        return words;
    }
    let tls = &enrollment.site.tls;
    for (flag, file) in
        [("--tls-ca-file", &tls.ca_file), ("--tls-cert-file", &tls.cert_file), ("--tls-key-file", &tls.key_file)]
    {
        let word = file.as_ref().map(|file| shell_word(&file.display().to_string()));
        words.extend(word.map(|word| format!(" {flag} {word}")));
    }
    format!("{words} --access-token-file {ACCESS_TOKEN_FILE}")
}

/// The flag of `fleet update` for what is asked for, or for GitLab's default; `None` for what it does not change.
fn change(flag: &str, asked: &RegisteredWith) -> Option<String> {
    let text = |text: &str| format!("{flag} {}", shell_word(&without_tokens(text)));
    Some(match flag {
        "--description" => text(asked.description.as_deref().unwrap_or_default()),
        "--tag-list" => text(&asked.tag_list.join(",")),
        "--run-untagged" => format!("{flag}={}", asked.run_untagged.unwrap_or(true)),
        "--locked" => format!("{flag}={}", asked.locked.unwrap_or(false)),
        "--access-level" => text(asked.access_level.as_deref().unwrap_or("not_protected")),
        "--maximum-timeout" => text(&asked.maximum_timeout_secs.unwrap_or(0).to_string()),
        "--maintenance-note" => text(asked.maintenance_note.as_deref().unwrap_or_default()),
        _ => return None,
    })
}

fn listed(names: &[impl AsRef<str>]) -> String {
    let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}
