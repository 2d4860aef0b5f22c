//! What is wrong with the settings, and where.

use std::fmt;
use std::path::PathBuf;

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of agent.toml, counted from 1.
    Line {
        /// agent.toml.
        file: PathBuf,
        /// Counted from 1.
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
    /// Whether no line or setting is named.
    pub(super) fn is_whole_file(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Line { .. } | Self::Variable(_) | Self::Flag(_) => false,
        }
    }

    /// Whether the user typed it, so that the mistake is one of usage.
    #[must_use]
    pub fn is_argument(&self) -> bool {
        match self {
            Self::Flag(_) => true,
            Self::Line { .. } | Self::File(_) | Self::Variable(_) => false,
        }
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

/// A value and where it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where it was given.
    pub place: Place,
}

impl<T> Placed<T> {
    /// Remembers where a value was given.
    #[must_use]
    pub fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }

    /// The same place with another value.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Placed<U> {
        Placed { value: change(self.value), place: self.place }
    }
}

/// One thing that is wrong; never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// What, in one sentence without a full stop.
    pub message: String,
}

/// Everything that is wrong with the settings, in the order in which it stands there; at least one mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Mistake>);

impl Errors {
    /// The mistakes.
    #[must_use]
    pub fn diagnostics(&self) -> &[Mistake] {
        &self.0
    }

    /// Whether all of them were typed on the command line: a wrong usage rather than an unusable file.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        self.0.iter().all(|mistake| mistake.place.is_argument())
    }
}

impl From<Mistake> for Errors {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

impl fmt::Display for Errors {
    /// One line a mistake.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            mistake.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Collects mistakes while the reading goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Adds one.
    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.0.push(Mistake { place: place.clone(), message: message.into() });
    }

    /// Adds those that were collected elsewhere.
    pub(super) fn append(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value if there was no mistake, else all of them, those of agent.toml by line.
    pub(super) fn into_result<T>(mut self, value: T) -> Result<T, Errors> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort_by_key(|mistake| match mistake.place {
            Place::Line { line, .. } => line,
            Place::File(_) | Place::Variable(_) | Place::Flag(_) => usize::MAX,
        });
        Err(Errors(self.0))
    }
}
