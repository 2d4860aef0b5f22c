//! Changes to several runners: preview, confirm, apply, report.

use std::rc::Rc;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::arguments::ConfirmArgs;
use super::rows::TableRow as _;
use super::session::FleetSession;
use super::targets::Target;
use crate::cli::arguments::Output;
use crate::cli::confirm::ask_to_confirm;
use crate::cli::progress::Bar;
use crate::cli::report::Reporter;
use crate::cli::table::{Screen, Table};
use crate::cli::{Error, Exit};
use crate::error_chain::chain;
use crate::gitlab::fleet::FleetRunner;

/// How many changes run at the same time; the client limits how many of them are on the wire.
const UNDER_WAY: usize = 8;

/// How many runners the preview lists.
const PREVIEWED: usize = 20;

/// The words for a kind of change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Act {
    /// As in "this will …": `delete`.
    pub(super) verb: &'static str,
    /// The `action` in JSON, and as in "would be …": `deleted`.
    pub(super) done: &'static str,
    /// Whether even a single runner needs confirmation.
    pub(super) is_grave: bool,
}

/// The result of a change.
#[derive(Debug)]
pub(super) struct Made {
    /// The result for people: `deleted`.
    pub(super) line: String,
    /// The server's answer about the runner, for scripts; a JSON object.
    pub(super) answer: Value,
}

/// Applies a change to all targets once the user has confirmed it, several at the same time, and reports the
/// result of each. An interrupt starts no further changes and waits for those that have begun.
///
/// # Errors
/// [`Error::Usage`] if the change is not confirmed and stdin is no terminal.
pub(super) async fn apply<Work, Future>(
    session: FleetSession,
    act: Act,
    targets: Vec<Target>,
    confirm: ConfirmArgs,
    work: Work,
) -> Result<Exit, Error>
where
    Work: Fn(Rc<FleetSession>, Target) -> Future,
    Future: std::future::Future<Output = Result<Made, Error>> + 'static,
{
    let mut outcomes = OutcomeWriter::new(session.reporter);
    let (unclear, targets): (Vec<_>, Vec<_>) = targets.into_iter().partition(|target| target.unclear.is_some());
    for target in &unclear {
        outcomes.add(target, act.done, Err(not_judged(target)));
    }
    if targets.is_empty() && unclear.is_empty() {
        outcomes.finish_empty();
        return Ok(Exit::Done);
    }
    if confirm.dry_run {
        for target in &targets {
            let line = format!("would be {}", act.done);
            outcomes.add(target, &format!("would_be_{}", act.done), Ok(Made { line, answer: known(target) }));
        }
        return Ok(outcomes.finish());
    }
    if targets.is_empty() {
        return Ok(outcomes.finish());
    }
    confirmed(&session, act, &targets, confirm).await?;
    let mut bar = Bar::new(&session.reporter, targets.len(), "runners");
    let session = Rc::new(session);
    let mut waiting = targets.into_iter();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < UNDER_WAY && !session.interrupt.is_interrupted() {
            let Some(target) = waiting.next() else { break };
            let task = work(Rc::clone(&session), target.clone());
            tasks.spawn_local(async move { (target, task.await) });
        }
        let Some(done) = tasks.join_next().await else { break };
        let (target, result) = done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        bar.clear();
        outcomes.add(&target, act.done, result);
        bar.add(1);
    }
    bar.clear();
    for target in waiting {
        outcomes.add(&target, act.done, Err(Error::Interrupted("not started".to_owned())));
    }
    Ok(outcomes.finish())
}

/// Why a runner is left as it is: neither the list nor its details say whether it matches the filters.
fn not_judged(target: &Target) -> Error {
    let field = target.unclear.unwrap_or("whether it matches");
    Error::Verdict {
        exit: Exit::Failed,
        message: format!("not changed: the server does not report {field}, so it may not match the filters"),
        hint: Some("select it by its id".to_owned()),
    }
}

/// The runner as it was before the change.
fn known(target: &Target) -> Value {
    let known = target.runner.as_ref().and_then(|runner| serde_json::to_value(runner).ok());
    known.unwrap_or_else(|| json!({ "id": target.id }))
}

/// Shows the change and asks for confirmation. For a single runner only a grave change needs one.
///
/// # Errors
/// [`Error::Usage`] if stdin is no terminal, [`Error::Verdict`] if the user declines, and [`Error::Interrupted`].
async fn confirmed(session: &FleetSession, act: Act, targets: &[Target], confirm: ConfirmArgs) -> Result<(), Error> {
    if confirm.yes || (targets.len() == 1 && !act.is_grave) {
        return Ok(());
    }
    let number = match targets.len() {
        1 => "this runner".to_owned(),
        number => format!("these {number} runners"),
    };
    session.reporter.remark(&format!(
        "This will {} {number} at {}:\n{}",
        act.verb,
        session.site.url,
        preview(session, targets)
    ));
    ask_to_confirm(&session.interrupt, "confirm with --yes, or preview with --dry-run").await
}

/// The first runners as a table.
fn preview(session: &FleetSession, targets: &[Target]) -> String {
    let known: Vec<_> = targets.iter().take(PREVIEWED).filter_map(|target| target.runner.as_ref()).collect();
    let mut text = if known.len() == targets.len().min(PREVIEWED) {
        let cells: Vec<_> = known.iter().map(|runner| runner.cells(session.now())).collect();
        Table::new(FleetRunner::headings(), Screen::default()).lines(&cells)
    } else {
        targets.iter().take(PREVIEWED).map(|target| format!("runner {}\n", target.label())).collect()
    };
    if targets.len() > PREVIEWED {
        text.push_str(&format!("and {} more\n", targets.len() - PREVIEWED));
    }
    text.trim_end().to_owned()
}

/// Reports the results: a line for each as it arrives, or one JSON document at the end.
struct OutcomeWriter {
    reporter: Reporter,
    exits: Vec<Exit>,
    rows: Vec<Value>,
}

impl OutcomeWriter {
    fn new(reporter: Reporter) -> Self {
        Self { reporter, exits: Vec::new(), rows: Vec::new() }
    }

    fn finish_empty(self) {
        match self.reporter.output() {
            Output::Text => self.reporter.answer("no runners\n"),
            Output::Json | Output::Jsonl => drop(self.finish()),
        }
    }

    fn add(&mut self, target: &Target, action: &str, result: Result<Made, Error>) {
        self.exits.push(result.as_ref().map_or_else(Error::exit, |_| Exit::Done));
        match self.reporter.output() {
            Output::Text => self.line(target, result),
            Output::Json => self.rows.push(row(target, action, result)),
            Output::Jsonl => self.reporter.answer(&format!("{}\n", row(target, action, result))),
        }
    }

    fn line(&self, target: &Target, result: Result<Made, Error>) {
        match result {
            Ok(made) => self.reporter.answer(&format!("runner {}: {}\n", target.label(), made.line)),
            Err(error) => {
                self.reporter.remark(&format!("error: runner {}: {}", target.label(), chain(&error)));
                if let Some(hint) = error.hint() {
                    self.reporter.remark(&format!("hint: {hint}"));
                }
            }
        }
    }

    fn finish(self) -> Exit {
        if self.reporter.output() == Output::Json {
            self.reporter.document("runners", self.rows.iter());
        }
        Exit::of_all(&self.exits)
    }
}

/// One runner for scripts: the server's fields, the action and the error.
fn row(target: &Target, action: &str, result: Result<Made, Error>) -> Value {
    let (mut row, action, error) = match result {
        Ok(made) => (made.answer, action, Value::Null),
        Err(error) => (known(target), "failed", Value::String(chain(&error))),
    };
    if let Value::Object(fields) = &mut row {
        fields.entry("id").or_insert(json!(target.id));
        fields.insert("action".to_owned(), json!(action));
        fields.insert("error".to_owned(), error);
    }
    row
}
