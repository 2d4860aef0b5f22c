//! The attributes of a runner that registration, creation and update share.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::parameters::Parameters;
use crate::state::runner::{AccessLevel, Runner};
use crate::{Answer, Version};

/// The longest description and the longest note, in characters.
const LONGEST_TEXT: usize = 1024;
/// The most tags that a runner may have.
const MOST_TAGS: usize = 50;
/// The shortest maximum timeout, in seconds.
const SHORTEST_TIMEOUT_SECS: i64 = 600;

/// The attributes that a request sets; `None` keeps an attribute.
pub(super) struct Attributes {
    description: Option<String>,
    maintenance_note: Option<String>,
    tags: Option<Vec<String>>,
    run_untagged: Option<bool>,
    locked: Option<bool>,
    access_level: Option<AccessLevel>,
    /// `Some(None)` removes the timeout.
    maximum_timeout: Option<Option<i64>>,
    paused: Option<bool>,
}

/// The parameters of every release.
const NAMES: [&str; 7] =
    ["description", "active", "tag_list", "run_untagged", "locked", "access_level", "maximum_timeout"];

/// The parameters since 14.8; older releases ignore them.
const NEWER_NAMES: [&str; 3] = ["paused", "maintenance_note", "maintainer_note"];

/// The parameters of a release.
pub(super) fn names(version: Version) -> Vec<&'static str> {
    let newer = if knows_newer_names(version) { &NEWER_NAMES[..] } else { &[] };
    [&NAMES[..], newer].concat()
}

fn knows_newer_names(version: Version) -> bool {
    version.is_at_least(14, 8)
}

impl Attributes {
    /// Reads the attributes, or refuses with 400 for a parameter of a wrong type.
    pub(super) fn read(version: Version, parameters: &Parameters) -> Result<Self, Answer> {
        let mut parameters = parameters.clone();
        if !knows_newer_names(version) {
            parameters.0.retain(|name, _| !NEWER_NAMES.contains(&name.as_str()));
        }
        parameters.exclusive(&["maintainer_note", "maintenance_note"])?;
        parameters.exclusive(&["paused", "active"])?;
        let active = parameters.boolean("active")?;
        let access_level = parameters.choice("access_level", &["not_protected", "ref_protected"])?;
        let timeout = parameters.integer("maximum_timeout")?;
        Ok(Self {
            description: parameters.text("description")?,
            maintenance_note: parameters.text("maintenance_note")?.or(parameters.text("maintainer_note")?),
            tags: parameters.list("tag_list")?,
            run_untagged: parameters.boolean("run_untagged")?,
            locked: parameters.boolean("locked")?,
            access_level: access_level.map(|name| match name.as_str() {
                "ref_protected" => AccessLevel::RefProtected,
                _ => AccessLevel::NotProtected,
            }),
            maximum_timeout: parameters.has("maximum_timeout").then_some(timeout),
            paused: parameters.boolean("paused")?.or(active.map(|active| !active)),
        })
    }

    /// Validates the attributes, given the current runner.
    pub(super) fn violations(&self, tags: &[String], run_untagged: bool) -> Violations {
        let mut violations = Violations::default();
        let tags = self.tags.as_deref().unwrap_or(tags);
        let too_long = format!("is too long (maximum is {LONGEST_TEXT} characters)");
        if self.description.as_ref().is_some_and(|text| text.chars().count() > LONGEST_TEXT) {
            violations.add("description", &too_long);
        }
        if self.maintenance_note.as_ref().is_some_and(|text| text.chars().count() > LONGEST_TEXT) {
            violations.add("maintenance_note", &too_long);
        }
        if tags.is_empty() && !self.run_untagged.unwrap_or(run_untagged) {
            violations.add("tags_list", "can not be empty when runner is not allowed to pick untagged jobs");
        }
        if tags.len() > MOST_TAGS {
            violations
                .add("tags_list", &format!("Too many tags specified. Please limit the number of tags to {MOST_TAGS}"));
        }
        if self.maximum_timeout.flatten().is_some_and(|secs| secs < SHORTEST_TIMEOUT_SECS) {
            violations.add("maximum_timeout", "needs to be at least 10 minutes");
        }
        violations
    }

    /// Sets the attributes, which must have no [`Attributes::violations`].
    pub(super) fn apply(self, runner: &mut Runner) {
        if let Some(description) = self.description {
            runner.description = description;
        }
        if let Some(note) = self.maintenance_note {
            runner.maintenance_note = Some(note);
        }
        if let Some(tags) = self.tags {
            runner.tags = tags;
        }
        if let Some(timeout) = self.maximum_timeout {
            runner.maximum_timeout = timeout.and_then(|secs| u64::try_from(secs).ok());
        }
        runner.run_untagged = self.run_untagged.unwrap_or(runner.run_untagged);
        runner.locked = self.locked.unwrap_or(runner.locked);
        runner.access_level = self.access_level.unwrap_or(runner.access_level);
        runner.paused = self.paused.unwrap_or(runner.paused);
    }
}

/// The validation errors of some attributes.
#[derive(Default)]
pub(super) struct Violations(BTreeMap<&'static str, Vec<String>>);

impl Violations {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The refusal as an object of arrays.
    pub(super) fn as_object(&self) -> Answer {
        let fields: serde_json::Map<String, Value> =
            self.0.iter().map(|(field, texts)| ((*field).to_owned(), json!(texts))).collect();
        Answer::message(400, fields)
    }

    /// The refusal as one sentence.
    pub(super) fn as_text(&self) -> Answer {
        let sentences: Vec<String> = self
            .0
            .iter()
            .flat_map(|(field, texts)| texts.iter().map(move |text| format!("{} {text}", humanized(field))))
            .collect();
        Answer::message(400, format!("400 Bad request - {}", sentences.join(", ")))
    }

    fn add(&mut self, field: &'static str, text: &str) {
        self.0.entry(field).or_default().push(text.to_owned());
    }
}

fn humanized(field: &str) -> String {
    let words = field.replace('_', " ");
    let (first, rest) = words.split_at(1);
    first.to_ascii_uppercase() + rest
}
