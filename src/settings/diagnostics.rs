//! Errors in the settings, each with its place.

use std::fmt;
use std::path::PathBuf;

use crate::secret::WrongTokenClass;

/// The place where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of agent.toml.
    Line {
        /// Path of agent.toml.
        file: PathBuf,
        /// Line number, counted from 1.
        line: usize,
    },
    /// agent.toml as a whole, or another file that a setting names.
    File(PathBuf),
    /// An environment variable.
    Variable(&'static str),
    /// A flag of the command line, with its dashes.
    Flag(&'static str),
}

impl Place {
    /// Whether the place is a whole file.
    pub(super) fn is_whole_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Whether the setting came from the command line, which makes an error a usage error.
    #[must_use]
    pub fn is_argument(&self) -> bool {
        matches!(self, Self::Flag(_))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(formatter, "{}:{line}", file.display()),
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Variable(name) | Self::Flag(name) => formatter.write_str(name),
        }
    }
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// The place where it was given.
    pub place: Place,
}

impl<T> Placed<T> {
    /// Attaches a place to a value.
    #[must_use]
    pub fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }

    /// Converts the value and keeps the place.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Placed<U> {
        Placed { value: change(self.value), place: self.place }
    }
}

/// One error in the settings; never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}{}", in_sentence(remedy.as_ref()))]
pub struct Diagnostic {
    /// The place of the error.
    pub place: Place,
    /// The message, without a full stop.
    pub message: String,
    /// What the user can do, if the message does not say it.
    pub remedy: Option<String>,
    /// Whether it is a usage error wherever it was given.
    pub is_usage: bool,
}

/// A remedy at the end of a message.
fn in_sentence(remedy: Option<&String>) -> String {
    remedy.map_or_else(String::new, |remedy| format!(": {remedy}"))
}

impl Diagnostic {
    /// An error at a place, which says whether it is a usage error.
    #[must_use]
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        let is_usage = place.is_argument();
        Self { place, message: message.into(), remedy: None, is_usage }
    }
}

/// All errors in the settings, at least one; those of agent.toml in the order of their lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Diagnostic>);

impl Errors {
    /// The errors.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.0
    }

    /// Whether all errors are in flags, or tokens of the wrong class: a usage error rather than an unusable file.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        self.0.iter().all(|diagnostic| diagnostic.is_usage)
    }
}

impl From<Diagnostic> for Errors {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Errors {
    /// One line per error.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            diagnostic.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Collects errors, so that all of them are reported at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Adds one error.
    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.0.push(Diagnostic::new(place.clone(), message));
    }

    /// Adds one error with what the user can do about it.
    pub(super) fn add_with_remedy(&mut self, place: &Place, message: String, remedy: Option<String>) {
        self.0.push(Diagnostic { remedy, ..Diagnostic::new(place.clone(), message) });
    }

    /// Adds an error that is a usage error wherever it was given.
    pub(super) fn add_usage(&mut self, place: &Place, message: impl Into<String>) {
        self.0.push(Diagnostic { is_usage: true, ..Diagnostic::new(place.clone(), message) });
    }

    /// Adds that a token is of the wrong class.
    pub(super) fn add_wrong_class(&mut self, place: &Place, wrong: WrongTokenClass) {
        self.add_usage(place, wrong.to_string());
    }

    /// Adds the errors of `others`.
    pub(super) fn append(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// The number of errors.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the value, or all errors if there are any.
    pub(super) fn into_result<T>(mut self, value: T) -> Result<T, Errors> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort_by_key(|diagnostic| match diagnostic.place {
            Place::Line { line, .. } => line,
            Place::File(_) | Place::Variable(_) | Place::Flag(_) => usize::MAX,
        });
        Err(Errors(self.0))
    }
}
