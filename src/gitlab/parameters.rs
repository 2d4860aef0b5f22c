//! The parameters of a registration, and the limits that the server enforces.

use std::time::Duration;

use crate::model::named_enum;

/// The settings of a new runner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterParameters {
    /// The description, at most [`MAX_TEXT_CHARS`].
    pub description: Option<String>,
    /// A note for administrators, at most [`MAX_TEXT_CHARS`]; since GitLab 14.8.
    pub maintenance_note: Option<String>,
    /// The tags, at most [`MAX_TAGS`].
    pub tag_list: Vec<String>,
    /// Whether it runs untagged jobs; the server's default is yes.
    pub run_untagged: Option<bool>,
    /// Whether it is locked to its project; the server's default is no.
    pub locked: Option<bool>,
    /// Whether it starts paused; the server's default is no. Ignored before GitLab 14.8.
    pub paused: Option<bool>,
    /// Which refs it runs jobs for.
    pub access_level: Option<AccessLevel>,
    /// Maximum duration of a job, at least [`MIN_MAXIMUM_TIMEOUT`]; sent in whole seconds.
    pub maximum_timeout: Option<Duration>,
    /// The program and machine of the runner.
    pub info: Option<Info>,
}

named_enum! {
    /// Which refs a runner runs jobs for.
    pub enum AccessLevel {
        /// All refs.
        NotProtected = "not_protected",
        /// Protected branches and tags only.
        RefProtected = "ref_protected",
    }
}

/// The program and machine of a runner: the `info` of registration and verification.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Info {
    /// The program name, at most [`MAX_NAME_CHARS`].
    pub name: String,
    /// The program version.
    pub version: String,
    /// The revision that the program was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The operating system: `linux`.
    pub platform: String,
    /// The processor architecture by its Go name: `amd64`, `arm64`.
    pub architecture: String,
}

/// Maximum length of a description or maintenance note, in characters. Source: GitLab's model of a runner.
pub const MAX_TEXT_CHARS: usize = 1024;

/// Maximum number of tags of a runner. Source: GitLab's model of a runner.
pub const MAX_TAGS: usize = 50;

/// Maximum length of a tag, in characters. Source: GitLab's column for tag names.
pub const MAX_TAG_CHARS: usize = 255;

/// Maximum length of [`Info::name`], in characters. Source: GitLab's parameter check.
pub const MAX_NAME_CHARS: usize = 256;

/// Minimum of [`RegisterParameters::maximum_timeout`]. Source: GitLab's model of a runner.
pub const MIN_MAXIMUM_TIMEOUT: Duration = Duration::from_secs(600);

/// A parameter that the server would reject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// See [`MAX_TEXT_CHARS`].
    #[error("the description has {0} characters, at most {MAX_TEXT_CHARS} are allowed")]
    DescriptionTooLong(usize),
    /// See [`MAX_TEXT_CHARS`].
    #[error("the maintenance note has {0} characters, at most {MAX_TEXT_CHARS} are allowed")]
    MaintenanceNoteTooLong(usize),
    /// See [`MAX_TAGS`].
    #[error("{0} tags, at most {MAX_TAGS} are allowed")]
    TooManyTags(usize),
    /// A tag that is empty or only white space.
    #[error("a tag is empty")]
    EmptyTag,
    /// See [`MAX_TAG_CHARS`].
    #[error("tag `{0}` is longer than {MAX_TAG_CHARS} characters")]
    TagTooLong(String),
    /// The server would split it into two tags.
    #[error("tag `{0}` contains a comma")]
    TagWithComma(String),
    /// The runner would never get a job.
    #[error("a runner that does not run untagged jobs needs at least one tag")]
    NoTags,
    /// See [`MIN_MAXIMUM_TIMEOUT`].
    #[error("the maximum timeout is {0} s, at least {min} s are required", min = MIN_MAXIMUM_TIMEOUT.as_secs())]
    MaximumTimeoutTooShort(u64),
    /// See [`MAX_NAME_CHARS`].
    #[error("the runner's program name has {0} characters, at most {MAX_NAME_CHARS} are allowed")]
    NameTooLong(usize),
}

impl RegisterParameters {
    /// Returns everything the server would reject.
    #[must_use]
    pub fn validate(&self) -> Vec<ParameterError> {
        let mut errors = Vec::new();
        if let Some(chars) = too_long(self.description.as_deref(), MAX_TEXT_CHARS) {
            errors.push(ParameterError::DescriptionTooLong(chars));
        }
        if let Some(chars) = too_long(self.maintenance_note.as_deref(), MAX_TEXT_CHARS) {
            errors.push(ParameterError::MaintenanceNoteTooLong(chars));
        }
        self.validate_tags(&mut errors);
        if let Some(timeout) = self.maximum_timeout.filter(|timeout| *timeout < MIN_MAXIMUM_TIMEOUT) {
            errors.push(ParameterError::MaximumTimeoutTooShort(timeout.as_secs()));
        }
        if let Some(chars) = too_long(self.info.as_ref().map(|info| info.name.as_str()), MAX_NAME_CHARS) {
            errors.push(ParameterError::NameTooLong(chars));
        }
        errors
    }

    fn validate_tags(&self, errors: &mut Vec<ParameterError>) {
        if self.tag_list.len() > MAX_TAGS {
            errors.push(ParameterError::TooManyTags(self.tag_list.len()));
        }
        if self.tag_list.is_empty() && self.run_untagged == Some(false) {
            errors.push(ParameterError::NoTags);
        }
        for tag in &self.tag_list {
            if tag.trim().is_empty() {
                errors.push(ParameterError::EmptyTag);
            }
            if tag.contains(',') {
                errors.push(ParameterError::TagWithComma(tag.clone()));
            }
            if tag.chars().count() > MAX_TAG_CHARS {
                errors.push(ParameterError::TagTooLong(tag.clone()));
            }
        }
    }
}

/// Returns the length of a text in characters if it exceeds `limit`.
fn too_long(text: Option<&str>, limit: usize) -> Option<usize> {
    let chars = text?.chars().count();
    (chars > limit).then_some(chars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_at_their_limits_are_valid() {
        let parameters = RegisterParameters {
            description: Some("ü".repeat(MAX_TEXT_CHARS)),
            tag_list: (0..MAX_TAGS).map(|n| format!("{n:0255}")).collect(),
            run_untagged: Some(false),
            maximum_timeout: Some(MIN_MAXIMUM_TIMEOUT),
            ..RegisterParameters::default()
        };
        assert_eq!(parameters.validate(), []);
        assert_eq!(RegisterParameters::default().validate(), []);
    }

    #[test]
    fn every_mistake_is_reported_with_its_limit() {
        let long_tag = "x".repeat(256);
        let parameters = RegisterParameters {
            description: Some("x".repeat(1025)),
            maintenance_note: Some("x".repeat(1026)),
            tag_list: vec![" ".to_owned(), "a,b".to_owned(), long_tag.clone()],
            maximum_timeout: Some(Duration::from_secs(599)),
            info: Some(Info {
                name: "x".repeat(257),
                version: String::new(),
                revision: None,
                platform: String::new(),
                architecture: String::new(),
            }),
            ..RegisterParameters::default()
        };
        let expected = [
            ParameterError::DescriptionTooLong(1025),
            ParameterError::MaintenanceNoteTooLong(1026),
            ParameterError::EmptyTag,
            ParameterError::TagWithComma("a,b".to_owned()),
            ParameterError::TagTooLong(long_tag),
            ParameterError::MaximumTimeoutTooShort(599),
            ParameterError::NameTooLong(257),
        ];
        assert_eq!(parameters.validate(), expected);
        for (error, limit) in expected.iter().zip(["1024", "1024", "empty", "comma", "255", "600", "256"]) {
            assert!(error.to_string().contains(limit), "{error}");
        }
    }

    #[test]
    fn tags_are_limited_and_required_without_untagged_jobs() {
        let too_many = RegisterParameters { tag_list: vec!["a".to_owned(); 51], ..RegisterParameters::default() };
        assert_eq!(too_many.validate(), [ParameterError::TooManyTags(51)]);
        let none = RegisterParameters { run_untagged: Some(false), ..RegisterParameters::default() };
        assert_eq!(none.validate(), [ParameterError::NoTags]);
    }
}
