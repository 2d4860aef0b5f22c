//! Writes long lists as they arrive.

use std::io;

use serde::Serialize;
use tokio::sync::mpsc;

use super::session::FleetSession;
use crate::cli::arguments::Output;
use crate::cli::document;
use crate::cli::report::Reporter;
use crate::cli::table::{Cell, Heading, Screen, Table};
use crate::cli::{Error, Exit};
use crate::error_chain::chain;
use crate::gitlab::fleet::{Pages, Row};
use crate::model::Timestamp;

/// A row of a list.
pub(super) trait TableRow: Serialize {
    /// The name of the rows in the JSON document.
    const NAME: &'static str;

    /// The headings of the columns.
    fn headings() -> Vec<Heading>;

    /// The cells, one for each heading.
    fn cells(&self, now: Timestamp) -> Vec<Cell>;
}

/// Streams rows in the requested format: a table, one JSON document, or one JSON object per line.
pub(super) struct Rows {
    name: &'static str,
    reporter: Reporter,
    table: Table,
    now: Timestamp,
    count: usize,
}

impl Rows {
    /// Writes nothing yet.
    pub(super) fn new<T: TableRow>(session: &FleetSession) -> Self {
        let screen = Screen { width: session.reporter.stdout_width(), is_coloured: session.is_coloured };
        Self {
            name: T::NAME,
            reporter: session.reporter,
            table: Table::new(T::headings(), screen),
            now: session.now(),
            count: 0,
        }
    }

    /// How many rows were written.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Writes some rows.
    ///
    /// # Errors
    /// If the reader is gone or stdout cannot be written.
    pub(super) fn add<T: TableRow>(&mut self, rows: &[T]) -> io::Result<()> {
        let mut text = String::new();
        match self.reporter.output() {
            Output::Text if rows.is_empty() => {}
            Output::Text => {
                let cells: Vec<_> = rows.iter().map(|row| row.cells(self.now)).collect();
                text = self.table.lines(&cells);
            }
            Output::Json => {
                for (position, row) in rows.iter().enumerate() {
                    text.push_str(&if self.count + position == 0 {
                        document::opening(self.name)
                    } else {
                        ",\n".to_owned()
                    });
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

    /// Ends the list; `error` is why it is incomplete.
    pub(super) fn finish(self, error: Option<&Error>) {
        match (self.reporter.output(), error) {
            (Output::Json, _) => {
                let opening = if self.count == 0 { document::opening(self.name) } else { String::new() };
                self.reporter.answer(&(opening + &document::closing(error.map(|error| chain(error)))));
            }
            (Output::Text, None) if self.count == 0 => self.reporter.answer(&format!("no {}\n", self.name)),
            (Output::Text, Some(_)) if self.count > 0 => {
                self.reporter.remark(&format!("warning: the list ends early, after {} {}", self.count, self.name));
            }
            (Output::Text | Output::Jsonl, _) => {}
        }
    }
}

/// Writes the pages of a list as they arrive, up to a limit of rows that match. Rows read before a failure are written.
pub(super) async fn write_pages<T: Row + TableRow>(
    session: &FleetSession,
    pages: Pages<'_, T>,
    limit: Option<usize>,
    matches: impl Fn(&T) -> bool,
) -> Result<Exit, Error> {
    let mut rows = Rows::new::<T>(session);
    let written = write(session, pages, limit, matches, &mut rows).await;
    rows.finish(written.as_ref().err());
    written.map(|()| Exit::Done)
}

async fn write<T: Row + TableRow>(
    session: &FleetSession,
    pages: Pages<'_, T>,
    limit: Option<usize>,
    matches: impl Fn(&T) -> bool,
    rows: &mut Rows,
) -> Result<(), Error> {
    let limit = limit.unwrap_or(usize::MAX);
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    let reading = read(session, pages.of_length(limit), limit, matches, sender);
    let writing = async {
        while let Some(page) = receiver.recv().await {
            let mut page = page?;
            // Sends the request for the next page before this page is written.
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

/// How many pages are read ahead of the one being written.
const AHEAD: usize = 1;

/// Reads pages until there are enough rows, the receiver is gone, or a request fails.
async fn read<T: Row>(
    session: &FleetSession,
    mut pages: Pages<'_, T>,
    limit: usize,
    matches: impl Fn(&T) -> bool,
    sender: mpsc::Sender<Result<Vec<T>, Error>>,
) {
    let mut count = 0;
    while count < limit {
        let mut page = match next_page(session, &mut pages).await.transpose() {
            None => return,
            Some(page) => page,
        };
        if let Ok(page) = &mut page {
            page.retain(&matches);
        }
        let is_last = page.is_err();
        count += page.as_ref().map_or(0, Vec::len);
        if sender.send(page).await.is_err() || is_last {
            return;
        }
    }
}

/// Reads the next page of a list; `None` after the last.
pub(super) async fn next_page<T: Row>(
    session: &FleetSession,
    pages: &mut Pages<'_, T>,
) -> Result<Option<Vec<T>>, Error> {
    tokio::select! {
        biased;
        () = session.interrupt.asked() => Err(Error::Interrupted("the list is incomplete".to_owned())),
        page = session.ask(async || pages.next_page().await) => page,
    }
}
