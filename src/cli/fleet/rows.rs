//! Long lists, written as they arrive.

use std::io;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::session::FleetSession;
use super::table::{Cell, Heading, Screen, Table};
use crate::cli::arguments::Output;
use crate::cli::report::Reporter;
use crate::cli::{Error, Exit};
use crate::error_chain::chain;
use crate::gitlab::fleet::{Pages, Row};
use crate::model::Timestamp;

/// Raised when a name in the JSON document changes its meaning.
const SCHEMA: u32 = 1;

/// A row as people see it.
pub(super) trait Shown: Serialize {
    /// What the rows are called in the JSON document.
    const NAME: &'static str;

    /// The headings of its columns.
    fn headings() -> Vec<Heading>;

    /// Its cells, one for each heading.
    fn cells(&self, now: Timestamp) -> Vec<Cell>;
}

/// Writes rows in the form that was asked for: a table that goes on, one JSON document that is opened and
/// closed, or a line of JSON each.
pub(super) struct Rows {
    name: &'static str,
    reporter: Reporter,
    table: Table,
    now: Timestamp,
    count: usize,
}

impl Rows {
    /// Writes nothing yet.
    pub(super) fn new<T: Shown>(session: &FleetSession) -> Self {
        let screen = Screen { width: session.reporter.stdout_width(), is_coloured: session.is_coloured };
        Self {
            name: T::NAME,
            reporter: session.reporter,
            table: Table::new(T::headings(), screen),
            now: session.now(),
            count: 0,
        }
    }

    /// How many were written.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Writes some rows.
    ///
    /// # Errors
    /// If nobody reads any more.
    pub(super) fn add<T: Shown>(&mut self, rows: &[T]) -> io::Result<()> {
        let mut text = String::new();
        match self.reporter.output() {
            Output::Text if rows.is_empty() => {}
            Output::Text => {
                let cells: Vec<_> = rows.iter().map(|row| row.cells(self.now)).collect();
                text = self.table.lines(&cells);
            }
            Output::Json => {
                for (position, row) in rows.iter().enumerate() {
                    text.push_str(&if self.count + position == 0 { self.opening() } else { ",\n".to_owned() });
                    text.push_str(&serde_json::to_string(row)?);
                }
            }
            Output::Jsonl => {
                for row in rows {
                    text.push_str(&serde_json::to_string(row)?);
                    text.push('\n');
                }
            }
        }
        self.count += rows.len();
        self.reporter.try_answer(&text)
    }

    /// Closes what was opened, and says whether all came.
    pub(super) fn finish(self, error: Option<&Error>) {
        match (self.reporter.output(), error) {
            (Output::Json, _) => {
                let opening = if self.count == 0 { self.opening() } else { String::new() };
                let error = error.map_or(Value::Null, |error| Value::String(chain(error)));
                let end = format!("\n],\"complete\":{},\"error\":{error}}}\n", error.is_null());
                self.reporter.answer(&(opening + &end));
            }
            (Output::Text, None) if self.count == 0 => self.reporter.answer(&format!("no {}\n", self.name)),
            (Output::Text, Some(_)) if self.count > 0 => {
                self.reporter.remark(&format!("warning: the list ends early, after {} {}", self.count, self.name));
            }
            (Output::Text | Output::Jsonl, _) => {}
        }
    }

    fn opening(&self) -> String {
        format!("{{\"schema\":{SCHEMA},\"{}\":[\n", self.name)
    }
}

/// Writes the pages of a list as they arrive, up to a limit. What was read before a failure is written.
///
/// # Errors
/// The failure that ended the list, and [`Error::Interrupted`].
pub(super) async fn write_pages<T: Row + Shown>(
    session: &FleetSession,
    pages: Pages<'_, T>,
    limit: Option<usize>,
) -> Result<Exit, Error> {
    let mut rows = Rows::new::<T>(session);
    let written = write(session, pages, limit, &mut rows).await;
    rows.finish(written.as_ref().err());
    written.map(|()| Exit::Done)
}

async fn write<T: Row + Shown>(
    session: &FleetSession,
    pages: Pages<'_, T>,
    limit: Option<usize>,
    rows: &mut Rows,
) -> Result<(), Error> {
    let limit = limit.unwrap_or(usize::MAX);
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    let reading = read(session, pages.of_length(limit), limit, sender);
    let writing = async {
        while let Some(page) = receiver.recv().await {
            let mut page = page?;
            // Lets the request for the next page out before this one is written.
            tokio::task::yield_now().await;
            page.truncate(limit - rows.count());
            if rows.add(&page).is_err() {
                break;
            }
        }
        receiver.close();
        Ok(())
    };
    let ((), written) = tokio::join!(reading, writing);
    written
}

/// How many pages are read ahead of the one that is being written, so that the server works meanwhile.
const AHEAD: usize = 1;

/// Reads pages until there are enough rows, nobody wants more, or something goes wrong.
async fn read<T: Row>(
    session: &FleetSession,
    mut pages: Pages<'_, T>,
    limit: usize,
    sender: mpsc::Sender<Result<Vec<T>, Error>>,
) {
    let mut count = 0;
    while count < limit {
        let page = match next_page(session, &mut pages).await.transpose() {
            None => return,
            Some(page) => page,
        };
        let is_last = page.is_err();
        count += page.as_ref().map_or(0, Vec::len);
        if sender.send(page).await.is_err() || is_last {
            return;
        }
    }
}

/// The next page of a list, unless an end is asked for.
///
/// # Errors
/// That of the request, and [`Error::Interrupted`].
pub(super) async fn next_page<T: Row>(
    session: &FleetSession,
    pages: &mut Pages<'_, T>,
) -> Result<Option<Vec<T>>, Error> {
    tokio::select! {
        biased;
        () = session.interrupt.asked() => Err(Error::Interrupted("the list was not read to its end".to_owned())),
        page = session.ask(async || pages.next_page().await) => page,
    }
}
