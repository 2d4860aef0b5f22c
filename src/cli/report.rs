//! The only writer to stdout and stderr besides the log: results to stdout, everything else to stderr.

use std::borrow::Borrow;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;

use serde::Serialize;

use super::arguments::Output;
use super::check::report_mistakes;
use super::document::ReportDocument;
use super::outcome::RunnerOutcome;
use super::text::{label, printable};
use super::{Error, Exit};
use crate::error_chain::chain;
use crate::log;
use crate::model::{PrettyRows, Report, RunnerReport, printable_json};
use crate::secret::without_tokens;

/// The first error of writing to stdout; the process has one stdout.
static UNWRITTEN: OnceLock<String> = OnceLock::new();

/// The width of a terminal that does not say it.
const DEFAULT_COLUMNS: u16 = 80;

/// How much of a long result is written at once.
const PART_BYTES: usize = 32 * 1024;

/// Writes results in the requested format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reporter {
    output: Output,
}

impl Reporter {
    pub(super) fn new(output: Output) -> Self {
        Self { output }
    }

    /// Whether results are for scripts.
    pub(super) fn is_json(&self) -> bool {
        self.output != Output::Text
    }

    /// The requested format.
    pub(super) fn output(&self) -> Output {
        self.output
    }

    /// The width of stdout in terminal columns; `None` if it is no terminal.
    pub(super) fn stdout_width(&self) -> Option<usize> {
        let stdout = io::stdout();
        let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    }

    /// The width of stderr in terminal columns.
    pub(super) fn stderr_width(&self) -> u16 {
        let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
        size.map(|size| size.ws_col).filter(|columns| *columns > 0).unwrap_or(DEFAULT_COLUMNS)
    }

    /// Whether stdout is a terminal.
    pub(super) fn is_stdout_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether stderr is a terminal.
    pub(super) fn is_stderr_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// Reports runners in the requested format, one after the other; `text` makes the parts of the one for people.
    pub(super) fn runners<R: Borrow<RunnerReport> + Serialize, T: IntoIterator<Item = String>>(
        &self,
        runners: impl Iterator<Item = R>,
        text: impl FnOnce() -> T,
    ) {
        match self.output {
            Output::Text => self.parts(text().into_iter().map(Ok)),
            Output::Json => self.document("runners", runners),
            Output::Jsonl => self.lines(runners),
        }
    }

    /// Reports what a daemon says of itself and its runners.
    pub(super) fn status<T: IntoIterator<Item = String>>(&self, report: &Report, text: impl FnOnce() -> T) {
        match self.output {
            Output::Json => self.json(serde_json::to_string_pretty(report)),
            Output::Text | Output::Jsonl => self.runners(report.runners.iter(), text),
        }
    }

    /// Writes rows in the requested JSON format: one document with them under `name`, or one per line.
    pub(super) fn rows(&self, name: &'static str, rows: impl Iterator<Item = impl Serialize>) {
        match self.output {
            Output::Jsonl => self.lines(rows),
            Output::Text | Output::Json => self.document(name, rows),
        }
    }

    /// Writes rows as JSON, one per line.
    pub(super) fn lines(&self, rows: impl Iterator<Item = impl Serialize>) {
        self.parts(rows.map(|row| serde_json::to_string(&row).map(|line| line + "\n")));
    }

    /// Writes one JSON document with these rows under `name`, in parts.
    pub(super) fn document(&self, name: &'static str, rows: impl Iterator<Item = impl Serialize>) {
        let mut document = PrettyRows::default();
        let mut text = PrettyRows::opening("schema", Report::SCHEMA, name);
        let opening = std::mem::take(&mut text);
        let rows = rows.map(|row| document.add(&row, &mut text).map(|()| std::mem::take(&mut text)));
        self.parts(std::iter::once(Ok(opening)).chain(rows));
        self.answer(document.closing());
    }

    /// Writes a long result in parts, as far as it goes.
    fn parts(&self, parts: impl Iterator<Item = serde_json::Result<String>>) {
        let mut text = String::new();
        for part in parts {
            match part {
                Ok(part) => text.push_str(&part),
                Err(error) => return self.remark(&format!("cannot write the result as JSON: {error}")),
            }
            if text.len() >= PART_BYTES {
                if self.try_answer(&text).is_err() {
                    return;
                }
                text.clear();
            }
        }
        self.answer(&text);
    }

    /// Writes one JSON document with a single row, on one line.
    pub(super) fn document_line(&self, name: &'static str, row: impl Serialize) {
        self.json(serde_json::to_string(&ReportDocument { name, row }));
    }

    fn json(&self, document: serde_json::Result<String>) {
        match document {
            Ok(document) => self.answer(&(document + "\n")),
            Err(error) => self.remark(&format!("cannot write the result as JSON: {error}")),
        }
    }

    /// Reports what became of runners: one JSON document, or a line for each on stdout and its error with its
    /// hint on stderr. Returns the exit code of all together.
    pub(super) fn report_outcomes(&self, outcomes: Vec<RunnerOutcome>) -> Exit {
        let exits: Vec<_> = outcomes.iter().map(|outcome| outcome.exit).collect();
        match self.output {
            Output::Text => self.report_texts(&outcomes),
            Output::Json | Output::Jsonl => {
                self.runners(outcomes.iter().map(|outcome| &outcome.report), || None);
            }
        }
        Exit::of_all(&exits)
    }

    /// Lines that no error parts are written together.
    fn report_texts(&self, outcomes: &[RunnerOutcome]) {
        let mut lines = String::new();
        for outcome in outcomes {
            if !outcome.line.is_empty() {
                lines.push_str(&format!("runner {}: {}\n", label(&outcome.report), outcome.line));
            }
            let is_parted = outcome.report.error.is_some() || outcome.hint.is_some();
            if is_parted || lines.len() >= PART_BYTES {
                self.answer(&std::mem::take(&mut lines));
                self.report_error(outcome);
            }
        }
        self.answer(&lines);
    }

    fn report_error(&self, outcome: &RunnerOutcome) {
        let label = label(&outcome.report);
        if let Some(error) = &outcome.report.error {
            self.remark(&format!("error: runner {label}: {}", printable(error)));
        }
        if let Some(hint) = &outcome.hint {
            self.remark(&format!("hint: {hint}"));
        }
    }

    /// Writes a result to stdout. A closed pipe is no error; any other failure is reported by [`end`](Self::end).
    pub(super) fn answer(&self, text: &str) {
        let _reported_at_the_end = self.try_answer(text);
    }

    /// Writes a part of a long result to stdout.
    ///
    /// # Errors
    /// If the pipe is closed or stdout cannot be written; the caller can stop then.
    pub(super) fn try_answer(&self, text: &str) -> io::Result<()> {
        let escaped = self.is_json().then(|| printable_json(text));
        let text = escaped.as_deref().unwrap_or(text);
        log::flush();
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        written.inspect_err(|error| {
            if error.kind() != io::ErrorKind::BrokenPipe {
                let _first_counts = UNWRITTEN.set(error.to_string());
            }
        })
    }

    /// The exit code of the program: a result that could not be written is a failure.
    pub(super) fn end(&self, exit: Exit) -> Exit {
        let Some(error) = UNWRITTEN.get() else { return exit };
        self.remark(&format!("error: cannot write to stdout: {error}"));
        if exit == Exit::Done { Exit::Failed } else { exit }
    }

    /// Writes a line to stderr, and never waits for its reader.
    pub(super) fn remark(&self, line: &str) {
        log::remark(&printable(&without_tokens(line)));
    }

    /// Reports why a command failed, with causes and hint, and returns its exit code.
    pub(super) fn failed(&self, error: &Error) -> Exit {
        if let Error::Mistakes(findings) = error {
            report_mistakes(self, findings);
            return error.exit();
        }
        // Errors of the settings have a line each.
        format!("error: {}", chain(error)).lines().for_each(|line| self.remark(line));
        if let Some(hint) = error.hint() {
            self.remark(&format!("hint: {hint}"));
        }
        error.exit()
    }
}

/// Prints clap's message: help and version to stdout, usage errors to stderr.
pub(super) fn usage(error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    let shown = without_tokens(&text);
    let printed =
        if error.use_stderr() && shown != text { write!(io::stderr().lock(), "{shown}") } else { error.print() };
    let is_unwritten = printed.is_err_and(|failure| failure.kind() != io::ErrorKind::BrokenPipe);
    match (error.use_stderr(), is_unwritten) {
        (true, _) => Exit::Usage,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Done,
    }
}
