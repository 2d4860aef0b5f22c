//! What `check` and `doctor` find.

use std::path::Path;

use serde::Serialize;

use super::super::text::printable;
use super::super::{Error, Exit};
use crate::error_chain::chain;
use crate::secret::without_tokens;
use crate::settings::{Diagnostic, Place};
use crate::store;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum Severity {
    /// It does not work.
    Error,
    /// It works now, and is probably unintended or fails later.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One finding; never contains a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in super::super) struct Finding {
    /// How bad it is.
    pub(in super::super) severity: Severity,
    /// The file, directory or socket; null for a flag, a variable, or the machine.
    pub(in super::super) file: Option<String>,
    /// The line in the file, counted from 1.
    pub(in super::super) line: Option<usize>,
    /// The flag or variable; null for a file.
    pub(in super::super) setting: Option<&'static str>,
    /// What was found.
    pub(in super::super) message: String,
    /// What the user can do; null if the message says it.
    pub(in super::super) remedy: Option<String>,
    /// Whether the daemon does not start because of it.
    pub(in super::super) stops_start: bool,
    /// The exit code of a command that fails because of it.
    #[serde(skip)]
    pub(in super::super) exit: Exit,
}

impl Finding {
    pub(in super::super) fn new(severity: Severity, message: &str) -> Self {
        Self {
            severity,
            file: None,
            line: None,
            setting: None,
            message: without_tokens(message),
            remedy: None,
            stops_start: false,
            exit: Exit::LocalFile,
        }
    }

    pub(in super::super) fn error(message: &str) -> Self {
        Self::new(Severity::Error, message)
    }

    pub(in super::super) fn warning(message: &str) -> Self {
        Self::new(Severity::Warning, message)
    }

    pub(in super::super) fn note(message: &str) -> Self {
        Self::new(Severity::Note, message)
    }

    /// The same in a file, which the message does not repeat. A message that begins with a line of the file is about that.
    pub(in super::super) fn in_file(mut self, file: &Path) -> Self {
        let file = without_tokens(&file.to_string_lossy());
        if let Some(rest) = self.message.strip_prefix(&format!("{file}:")) {
            let (line, message) = rest.split_once(": ").unwrap_or(("", rest));
            let line = line.parse().ok();
            let message = if line.is_some() { message } else { rest }.trim_start().to_owned();
            (self.line, self.message) = (line, message);
        }
        let quoted = format!("`{file}`");
        let message = self.message.replace(&format!("the file {quoted}: "), "");
        let message = message.replace(&format!("file {quoted}"), "file").replace(&quoted, "it");
        Self { file: Some(file), message, ..self }
    }

    /// The same in a line of a file.
    pub(in super::super) fn in_line(self, file: &Path, line: usize) -> Self {
        Self { line: Some(line), ..self.in_file(file) }
    }

    /// The same with what the user can do.
    pub(in super::super) fn with_remedy<T: Into<String>>(self, remedy: Option<T>) -> Self {
        Self { remedy: remedy.map(Into::into), ..self }
    }

    /// The same as a reason why the daemon does not start.
    pub(in super::super) fn stopping(self) -> Self {
        Self { stops_start: true, ..self }
    }

    /// An error in the settings.
    pub(super) fn of_setting(diagnostic: &Diagnostic) -> Self {
        let Diagnostic { place, message, remedy, is_usage } = diagnostic;
        let exit = if *is_usage { Exit::Usage } else { Exit::LocalFile };
        Self { exit, ..Self::error(message).with_remedy(remedy.clone()).stopping() }.at(Some(place))
    }

    /// The same at the place of a setting.
    pub(super) fn at(self, place: Option<&Place>) -> Self {
        match place {
            Some(Place::Line { file, line }) => self.in_line(file, *line),
            Some(Place::File(file)) => self.in_file(file),
            Some(Place::Variable(name) | Place::Flag(name)) => Self { setting: Some(*name), ..self },
            None => self,
        }
    }

    /// An error of config.toml or the state directory.
    pub(super) fn of_store(error: &store::Error, file: &Path) -> Self {
        let finding = Self::error(&chain(error)).with_remedy(error.hint());
        match error {
            store::Error::Syntax { path, line, .. } | store::Error::RunnersShape { path, line } => {
                finding.in_line(path, *line)
            }
            store::Error::Io { path, .. } => finding.in_file(path),
            _ => finding.in_file(file),
        }
    }

    /// Any other error that a command ends with.
    pub(super) fn of_error(error: &Error) -> Self {
        Self { exit: error.exit(), ..Self::error(&chain(error)).with_remedy(error.hint()) }
    }

    /// The place, the severity and the message in one line: `agent.toml:3: error: …`.
    pub(super) fn line_of_text(&self) -> String {
        printable(&format!("{}{}: {}", self.place(), self.severity.as_str(), self.message))
    }

    /// The place and the message in one line: `agent.toml:3: …`.
    pub(in super::super) fn place_and_message(&self) -> String {
        format!("{}{}", self.place(), self.message)
    }

    fn place(&self) -> String {
        match (&self.file, self.line, self.setting) {
            (Some(file), Some(line), _) => format!("{file}:{line}: "),
            (Some(file), None, _) => format!("{file}: "),
            (None, _, Some(setting)) => format!("{setting}: "),
            (None, _, None) => String::new(),
        }
    }
}

/// How many errors and warnings there are: `2 errors, 1 warning`.
pub(super) fn count_text(findings: &[Finding]) -> String {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let counted = |number, one: &str| match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        number => Some(format!("{number} {one}s")),
    };
    let parts = [counted(count(Severity::Error), "error"), counted(count(Severity::Warning), "warning")];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "no errors, no warnings".to_owned() } else { parts.join(", ") }
}
