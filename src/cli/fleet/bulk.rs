//! Changes to runners: shown first, agreed to, made, and told.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::rc::Rc;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::arguments::ConfirmArgs;
use super::rows::Shown as _;
use super::session::FleetSession;
use super::table::{Screen, Table};
use super::targets::Target;
use crate::cli::arguments::Output;
use crate::cli::report::Reporter;
use crate::cli::{Error, Exit, progress};
use crate::error_chain::chain;
use crate::gitlab::fleet::Runner;

/// How many changes are under way at a time; the client bounds how many of them are on the wire.
const UNDER_WAY: usize = 8;

/// How many runners are shown by name before a change.
const SHOWN: usize = 20;

/// What a change is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Act {
    /// As in "this will …": `delete`.
    pub(super) verb: &'static str,
    /// As in "not …", and the `action` in JSON: `deleted`.
    pub(super) done: &'static str,
    /// Whether it is asked about even for one runner.
    pub(super) is_grave: bool,
}

/// A change that was made.
#[derive(Debug)]
pub(super) struct Made {
    /// How it went, for people: `deleted`.
    pub(super) line: String,
    /// What the server said about the runner, for scripts; an object.
    pub(super) answer: Value,
}

/// Makes a change to all targets that the user agrees to, several at the same time, and tells what became of
/// each. What is under way is finished before an interrupt ends it.
///
/// # Errors
/// [`Error::Usage`] if nobody agreed.
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
    let mut told = Telling::new(session.reporter);
    if targets.is_empty() {
        told.nobody();
        return Ok(Exit::Done);
    }
    if confirm.dry_run {
        for target in &targets {
            let line = format!("would be {}", act.done);
            told.one(target, &format!("would_be_{}", act.done), Ok(Made { line, answer: known(target) }));
        }
        return Ok(told.finish());
    }
    agree(&session, act, &targets, confirm).await?;
    let bar = progress::bar(&session.reporter, targets.len(), "runners");
    let session = Rc::new(session);
    let mut waiting = targets.into_iter();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < UNDER_WAY && !session.interrupt.is_asked() {
            let Some(target) = waiting.next() else { break };
            let task = work(Rc::clone(&session), target.clone());
            tasks.spawn_local(async move { (target, task.await) });
        }
        let Some(done) = tasks.join_next().await else { break };
        let (target, result) = done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        bar.suspend(|| told.one(&target, act.done, result));
        bar.inc(1);
    }
    bar.finish_and_clear();
    for target in waiting {
        told.one(&target, act.done, Err(Error::Interrupted("not begun".to_owned())));
    }
    Ok(told.finish())
}

/// What is known of a runner before it is changed.
fn known(target: &Target) -> Value {
    let known = target.runner.as_ref().and_then(|runner| serde_json::to_value(runner).ok());
    known.unwrap_or_else(|| json!({ "id": target.id }))
}

/// Shows what will be done, and asks. One runner is asked about only if the change is grave.
///
/// # Errors
/// [`Error::Usage`] if nobody can be asked, and [`Error::Interrupted`] if the answer is no.
async fn agree(session: &FleetSession, act: Act, targets: &[Target], confirm: ConfirmArgs) -> Result<(), Error> {
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
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(
            "nobody can be asked here: agree with --yes, or look first with --dry-run".to_owned(),
        ));
    }
    let (answer, answered) = oneshot::channel();
    // A thread of its own, which the end of the process does not wait for.
    std::thread::spawn(move || answer.send(asked()).ok());
    tokio::select! {
        biased;
        () = session.interrupt.asked() => Err(Error::Interrupted("nothing was changed".to_owned())),
        agreed = answered => match agreed {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Error::Verdict {
                exit: Exit::Failed,
                message: "not agreed to: nothing was changed".to_owned(),
                hint: None,
            }),
        },
    }
}

fn asked() -> bool {
    let _closed = write!(io::stderr(), "Go on? [y/N] ");
    let mut line = String::new();
    let is_read = io::stdin().lock().read_line(&mut line).is_ok();
    is_read && matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// The first of them, for people.
fn preview(session: &FleetSession, targets: &[Target]) -> String {
    let known: Vec<_> = targets.iter().take(SHOWN).filter_map(|target| target.runner.as_ref()).collect();
    let mut text = if known.len() == targets.len().min(SHOWN) {
        let cells: Vec<_> = known.iter().map(|runner| runner.cells(session.now())).collect();
        Table::new(Runner::headings(), Screen::default()).lines(&cells)
    } else {
        targets.iter().take(SHOWN).map(|target| format!("runner {}\n", target.label())).collect()
    };
    if targets.len() > SHOWN {
        text.push_str(&format!("and {} more\n", targets.len() - SHOWN));
    }
    text.trim_end().to_owned()
}

/// Tells what became of runners: a line each as it happens, or one JSON document at the end.
struct Telling {
    reporter: Reporter,
    exits: Vec<Exit>,
    rows: Vec<Value>,
}

impl Telling {
    fn new(reporter: Reporter) -> Self {
        Self { reporter, exits: Vec::new(), rows: Vec::new() }
    }

    fn nobody(self) {
        match self.reporter.output() {
            Output::Text => self.reporter.answer("no runners\n"),
            Output::Json | Output::Jsonl => drop(self.finish()),
        }
    }

    fn one(&mut self, target: &Target, action: &str, result: Result<Made, Error>) {
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
            self.reporter.answer(&format!("{:#}\n", json!({ "schema": 1, "runners": self.rows })));
        }
        Exit::of_all(&self.exits)
    }
}

/// What scripts get of one runner: the server's fields, what was done, and what went wrong.
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
