//! One line of the report.

use serde::Serialize;

use super::super::Exit;
use super::super::check::{Finding, Severity};
use super::super::text::printable;
use crate::secret::without_tokens;
use crate::settings::Environment;

/// The result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RowResult {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It works now, and is probably unintended or fails later.
    Warning,
    /// It does not work.
    Error,
}

/// One check; never contains a token.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// What was checked: `files`, a server's address, a runner, `daemon`.
    pub(super) subject: String,
    /// The name of the check.
    pub(super) check: &'static str,
    /// Its result.
    pub(super) result: RowResult,
    /// What was found.
    pub(super) message: String,
    /// What the user can do; null if the message says it.
    pub(super) remedy: Option<String>,
    /// The exit code of a command that fails because of it.
    #[serde(skip)]
    pub(super) exit: Exit,
    #[serde(skip)]
    pub(super) is_of_runner: bool,
    /// Whether it is a note that nothing was checked.
    #[serde(skip)]
    is_untested: bool,
}

impl Row {
    fn new(subject: &str, check: &'static str, result: RowResult, message: &str) -> Self {
        Self {
            subject: without_tokens(subject),
            check,
            result,
            message: without_tokens(message),
            remedy: None,
            exit: Exit::Done,
            is_of_runner: false,
            is_untested: false,
        }
    }

    pub(super) fn ok(subject: &str, check: &'static str, message: &str) -> Self {
        Self::new(subject, check, RowResult::Ok, message)
    }

    pub(super) fn note(subject: &str, check: &'static str, message: &str) -> Self {
        Self::new(subject, check, RowResult::Note, message)
    }

    /// A note that the check was left out, and why.
    pub(super) fn untested(subject: &str, check: &'static str, why: &str) -> Self {
        Self { is_untested: true, ..Self::note(subject, check, &format!("not tested: {why}")) }
    }

    pub(super) fn warning(subject: &str, check: &'static str, message: &str) -> Self {
        Self::new(subject, check, RowResult::Warning, message)
    }

    pub(super) fn error(subject: &str, check: &'static str, message: &str, exit: Exit) -> Self {
        Self { exit, ..Self::new(subject, check, RowResult::Error, message) }
    }

    pub(super) fn with_remedy<T: Into<String>>(self, remedy: Option<T>) -> Self {
        Self { remedy: remedy.map(Into::into), ..self }
    }

    /// The same about a runner.
    pub(super) fn of_runner(self) -> Self {
        Self { is_of_runner: true, ..self }
    }

    pub(super) fn of_finding(finding: &Finding) -> Self {
        let result = match finding.severity {
            Severity::Error => RowResult::Error,
            Severity::Warning => RowResult::Warning,
            Severity::Note => RowResult::Note,
        };
        let exit = if result == RowResult::Error { finding.exit } else { Exit::Done };
        let row = Self::new("files", "check", result, &finding.place_and_message());
        Self { exit, ..row.with_remedy(finding.remedy.clone()) }
    }

    /// A line, and one for the remedy.
    pub(super) fn text(&self, marks: Marks) -> String {
        let mark = match self.result {
            RowResult::Note if self.is_untested => '-',
            RowResult::Ok | RowResult::Note => marks.ok,
            RowResult::Warning => '!',
            RowResult::Error => marks.error,
        };
        let remedy = self.remedy.as_ref().map(|remedy| format!("      {}\n", printable(remedy))).unwrap_or_default();
        format!("  {mark} {}: {}\n{remedy}", self.check, printable(&self.message))
    }
}

/// The marks before the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    ok: char,
    error: char,
}

impl Marks {
    /// Those that the locale can show.
    pub(super) fn of(environment: &Environment) -> Self {
        if environment.is_utf8() { Self { ok: '✓', error: '✗' } } else { Self { ok: '+', error: 'x' } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_of_the_locale_decides_about_the_marks() {
        let of = |variables: &[(&str, &str)]| {
            let environment = variables.iter().fold(Environment::default(), |it, (name, value)| it.with(name, *value));
            Marks::of(&environment).ok
        };
        assert_eq!(of(&[]), '+');
        assert_eq!(of(&[("LANG", "C.UTF-8")]), '✓');
        assert_eq!(of(&[("LANG", "de_DE.utf8"), ("LC_ALL", "C")]), '+');
        assert_eq!(of(&[("LC_CTYPE", "en_US.UTF-8"), ("LC_ALL", "")]), '✓');
    }
}
