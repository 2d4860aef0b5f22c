//! The entry of a draft: which keys of flags and variables it gets, what its executor needs, and whether gitlab-runner
//! can read it.

use std::path::Path;
use std::str::FromStr as _;

use toml::Value;
use toml::de::DeTable;

use super::diagnostics::{Diagnostics, Place, Placed};
use super::draft::Draft;
use super::enrollment::{Findings, place, value};
use super::entry_keys::{Problem, check_entry, check_executor, executor_table, first_entry, tables_of};
use super::paths::read_text;
use crate::store::{ComposeError, EntryText, NewEntry};

/// How strictly an entry is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryStrictness {
    /// A user waits for the answer: what gitlab-runner does not know, or misses, is an error.
    Command,
    /// The daemon must not stop for a key that is newer than this version: it warns.
    Daemon,
}

/// The flag that accepts unknown keys.
const ALLOW_UNKNOWN: &str = "--allow-unknown";

/// The place of a key that a `--set` gives.
const SET: Place = Place::Flag("--set");

impl Draft {
    pub(super) fn template_text(&self, diagnostics: &mut Diagnostics) -> Option<String> {
        let template = self.template.as_ref()?;
        let text = read_text(&template.value);
        text.inspect_err(|error| {
            diagnostics
                .add(&template.place, format!("cannot read the template `{}`: {error}", template.value.display()));
        })
        .ok()
    }

    /// Adds the settings to an entry, and checks it.
    pub(super) fn complete_entry(
        &self,
        mut entry: NewEntry,
        strictness: EntryStrictness,
        findings: &mut Findings,
    ) -> NewEntry {
        let executor = entry.executor.clone().or_else(|| entry.template.as_deref().and_then(executor_of));
        let mut settings = self.used_settings(executor.as_deref(), findings);
        if entry.template.is_none() {
            settings.extend(cache_volume(executor.as_deref(), &settings));
        }
        if executor.as_deref() == Some("docker-windows") && entry.template.is_none() {
            entry.shell.get_or_insert_with(|| "pwsh".to_owned());
        }
        let before = findings.diagnostics.len();
        let judge = Judge { draft: self, executor: executor.as_deref(), strictness };
        judge.check_executor(findings);
        for setting in &settings {
            let alone = NewEntry { template: None, settings: vec![setting.value.clone()], ..entry.clone() };
            judge.check_setting(&alone, setting, findings);
        }
        if let (Some(template), Some(path)) = (&entry.template, value(&self.template)) {
            judge.check_template(&entry, template, &path, findings);
        }
        entry.settings = settings.into_iter().map(|setting| setting.value).collect();
        if findings.diagnostics.len() == before {
            judge.check_whole(&entry, findings);
        }
        entry
    }

    /// The settings without those of executors' tables that this executor does not use. Such a variable may be set for
    /// another program; such a flag is reported.
    fn used_settings(&self, executor: Option<&str>, findings: &mut Findings) -> Vec<Placed<(String, String)>> {
        let mut unused = Vec::new();
        let mut is_used = |setting: &&Placed<(String, String)>| {
            let Some(table) = executor_table(&setting.value.0).filter(|_| setting.place != SET) else { return true };
            match (executor, &setting.place) {
                (Some(executor), _) if tables_of(executor).contains(&table) => true,
                (Some(executor), Place::Flag(flag)) if check_executor(executor).is_none() => {
                    unused.push(*flag);
                    false
                }
                (_, place) => place.is_argument(),
            }
        };
        let used = self.settings.iter().filter(|setting| is_used(setting)).cloned().collect();
        if let (Some(executor), false) = (executor, unused.is_empty()) {
            findings
                .warnings
                .push(format!("ignored, because the executor `{executor}` has no use for them: {}", unused.join(", ")));
        }
        used
    }

    fn explain(&self, error: &ComposeError) -> String {
        let template = self.template.as_ref().map(|template| template.value.display());
        match (error, template) {
            (ComposeError::Syntax { .. } | ComposeError::EntryCount(_), Some(template)) => {
                format!("`{template}`: {error}")
            }
            (
                ComposeError::Syntax { .. }
                | ComposeError::EntryCount(_)
                | ComposeError::SettingKey(_)
                | ComposeError::SettingValue(_)
                | ComposeError::SettingReserved(_)
                | ComposeError::SettingConflict(_),
                _,
            ) => error.to_string(),
        }
    }
}

/// Checks the parts of an entry, each at its place.
struct Judge<'draft> {
    draft: &'draft Draft,
    executor: Option<&'draft str>,
    strictness: EntryStrictness,
}

impl Judge<'_> {
    /// Checks an executor that is not the template's.
    fn check_executor(&self, findings: &mut Findings) {
        let Some(executor) = &self.draft.executor else { return };
        self.report(check_executor(&executor.value), &executor.place, findings);
    }

    fn check_setting(&self, alone: &NewEntry, setting: &Placed<(String, String)>, findings: &mut Findings) {
        match EntryText::compose(alone) {
            Ok(text) => {
                let problems = check_entry(text.expose(), Some(self.executor.unwrap_or_default()));
                self.report(problems, &setting.place, findings);
            }
            Err(error) => findings.diagnostics.add(&setting.place, self.draft.explain(&error)),
        }
    }

    fn check_template(&self, entry: &NewEntry, template: &str, path: &Path, findings: &mut Findings) {
        let alone = NewEntry { settings: Vec::new(), ..entry.clone() };
        if let Err(error) = EntryText::compose(&alone) {
            let place = place(&self.draft.template).unwrap_or(&self.draft.place);
            return findings.diagnostics.add(place, self.draft.explain(&error));
        }
        for problem in check_entry(template, value(&self.draft.executor).as_deref()) {
            let before = template.as_bytes().iter().take(problem.offset);
            let line = before.filter(|byte| **byte == b'\n').count() + 1;
            self.report([problem], &Place::Line { file: path.to_owned(), line }, findings);
        }
    }

    /// Checks the entry with all its parts, which are valid alone.
    fn check_whole(&self, entry: &NewEntry, findings: &mut Findings) {
        let text = match EntryText::compose(entry) {
            Ok(text) => text,
            Err(error) => {
                let place = self.draft.settings.first().map_or(&self.draft.place, |setting| &setting.place);
                return findings.diagnostics.add(place, self.draft.explain(&error));
            }
        };
        if self.strictness == EntryStrictness::Daemon {
            return;
        }
        let place = place(&self.draft.executor).or(place(&self.draft.template)).unwrap_or(&self.draft.place);
        let executor = self.executor.unwrap_or_default();
        for need in needs_of(executor).iter().filter(|need| !has_text(text.expose(), need.path)) {
            let message =
                format!("the executor `{executor}` needs {}: set {} or {}", need.what, need.flag, need.variable);
            findings.diagnostics.add_usage(place, message);
        }
    }

    fn report(&self, problems: impl IntoIterator<Item = Problem>, place: &Place, findings: &mut Findings) {
        for problem in problems {
            let Problem { message, is_unknown, .. } = problem;
            match self.strictness {
                EntryStrictness::Command if is_unknown && self.draft.allows_unknown => {}
                EntryStrictness::Command if is_unknown => {
                    let message = format!("{message}; {ALLOW_UNKNOWN} accepts it as it is");
                    findings.diagnostics.add_usage(place, message);
                }
                EntryStrictness::Command => findings.diagnostics.add(place, message),
                EntryStrictness::Daemon => findings.warnings.push(format!("{place}: {message}")),
            }
        }
    }
}

/// A key without which gitlab-runner's `register` makes no entry with this executor.
#[derive(Debug, PartialEq, Eq)]
struct Need {
    path: &'static str,
    what: &'static str,
    flag: &'static str,
    variable: &'static str,
}

const IMAGE: Need =
    Need { path: "docker.image", what: "a default image", flag: "--docker-image", variable: "DOCKER_IMAGE" };
const SSH_HOST: Need = Need { path: "ssh.host", what: "an SSH server", flag: "--ssh-host", variable: "SSH_HOST" };
const SSH_USER: Need = Need { path: "ssh.user", what: "an SSH user", flag: "--ssh-user", variable: "SSH_USER" };
const PARALLELS_VM: Need = Need {
    path: "parallels.base_name",
    what: "a virtual machine",
    flag: "--parallels-base-name",
    variable: "PARALLELS_BASE_NAME",
};
const VIRTUALBOX_VM: Need = Need {
    path: "virtualbox.base_name",
    what: "a virtual machine",
    flag: "--virtualbox-base-name",
    variable: "VIRTUALBOX_BASE_NAME",
};

fn needs_of(executor: &str) -> &'static [Need] {
    match executor {
        "docker" | "docker+machine" | "docker-autoscaler" | "docker-windows" => &[IMAGE],
        "ssh" => &[SSH_HOST, SSH_USER],
        "parallels" => &[PARALLELS_VM, SSH_HOST],
        "virtualbox" => &[VIRTUALBOX_VM, SSH_USER],
        _ => &[],
    }
}

/// Whether the first entry has a text that is not empty under this dotted key.
fn has_text(text: &str, path: &str) -> bool {
    let Ok(document) = DeTable::parse(text) else { return false };
    let Some((last, tables)) = path.rsplit_once('.').map(|(tables, last)| (last, tables)) else { return false };
    let entry = first_entry(document.get_ref());
    let table = tables.split('.').fold(entry, |table, name| table?.get(name)?.get_ref().as_table());
    table.and_then(|table| table.get(last)?.get_ref().as_str()).is_some_and(|text| !text.is_empty())
}

/// The executor of a template.
fn executor_of(template: &str) -> Option<String> {
    let document = DeTable::parse(template).ok()?;
    first_entry(document.get_ref())?.get("executor")?.get_ref().as_str().map(str::to_owned)
}

/// The volume of the cache, which gitlab-runner adds to an entry whose image is given as its flag, its variable or an
/// answer; an entry that `--set` or a template describes is left as it is.
fn cache_volume(executor: Option<&str>, settings: &[Placed<(String, String)>]) -> Option<Placed<(String, String)>> {
    let path = match executor? {
        "docker" | "docker+machine" | "docker-autoscaler" => "/cache",
        "docker-windows" => "c:\\cache",
        _ => return None,
    };
    let last = |key: &str| settings.iter().rfind(|setting| setting.value.0 == key);
    let image = last("docker.image").filter(|image| image.place != SET)?;
    let parsed = |key: &str| last(key).and_then(|setting| Value::from_str(&setting.value.1).ok());
    if parsed("docker.disable_cache") == Some(Value::Boolean(true)) {
        return None;
    }
    let mut volumes = match parsed("docker.volumes") {
        Some(Value::Array(volumes)) => volumes,
        _ => Vec::new(),
    };
    if volumes.iter().filter_map(Value::as_str).any(|volume| volume.ends_with(path)) {
        return None;
    }
    volumes.push(Value::String(path.to_owned()));
    let setting = ("docker.volumes".to_owned(), Value::Array(volumes).to_string());
    Some(Placed::new(setting, image.place.clone()))
}
