//! Lists in pages, as one stream of rows.

use std::collections::HashSet;

use reqwest::Url;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::query::Query;
use super::{CiJob, Fleet, FleetRunner, Project};
use crate::gitlab::client::{Call, success};
use crate::gitlab::error::CallFailure;
use crate::gitlab::headers;
use crate::gitlab::transport::Incoming;
use crate::gitlab::wire::Flaw;
use crate::gitlab::{Endpoint, Error, ErrorKind};

/// The longest page that GitLab sends, in rows; a longer one that is asked for is cut to it in silence.
pub const LONGEST_PAGE: usize = 100;

/// What a list is made of: something with a number that is unique in it.
pub trait Row: DeserializeOwned {
    /// The number that a row is recognised by.
    fn number(&self) -> u64;
}

impl Row for FleetRunner {
    fn number(&self) -> u64 {
        self.id.number()
    }
}

impl Row for CiJob {
    fn number(&self) -> u64 {
        self.id
    }
}

impl Row for Project {
    fn number(&self) -> u64 {
        self.id
    }
}

/// All pages of a list, one request each, asked for when they are wanted.
///
/// The next page is the one that the answer names by number or cursor, never the address in its `Link`, so that
/// the access token stays with its server; how many rows there are need not be known. A list is no snapshot:
/// a row that moved to a later page is left out there, for which its number is remembered, some sixteen bytes a
/// row; a row that moved to an earlier page meanwhile is missed. Ends at an empty page, whatever that says of
/// another one, and with an error at a page that holds nothing new or names no later one.
#[derive(Debug)]
pub struct Pages<'a, R> {
    fleet: &'a Fleet,
    endpoint: Endpoint,
    path: String,
    query: Query,
    length: usize,
    next: Next,
    seen: HashSet<u64>,
    rows: std::marker::PhantomData<R>,
}

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// At a page by its number, from one.
    Page(u64),
    /// At the first page of a list that may have cursors.
    FirstByCursor,
    /// Behind a cursor.
    Cursor(String),
    /// Nowhere.
    End,
}

impl<'a, R: Row> Pages<'a, R> {
    pub(super) fn new(fleet: &'a Fleet, endpoint: Endpoint, path: String, query: Query) -> Self {
        Self {
            fleet,
            endpoint,
            path,
            query,
            length: LONGEST_PAGE,
            next: Next::Page(1),
            seen: HashSet::new(),
            rows: std::marker::PhantomData,
        }
    }

    /// The same by cursors, where the server has them for this list.
    pub(super) fn by_cursor(self) -> Self {
        Self { next: Next::FirstByCursor, ..self }
    }

    /// The same in pages no longer than this, for who wants only a few rows; at least one, at most
    /// [`LONGEST_PAGE`].
    #[must_use]
    pub fn of_length(self, rows: usize) -> Self {
        Self { length: rows.clamp(1, LONGEST_PAGE), ..self }
    }

    /// The rows of the next page that no page had before; `None` after the last one. After an error the list
    /// is as it was, and the same page can be asked for again.
    ///
    /// # Errors
    /// [`Error`] of the page's request.
    pub async fn next_page(&mut self) -> Result<Option<Vec<R>>, Error> {
        loop {
            let path = match &self.next {
                Next::End => return Ok(None),
                Next::Page(page) => self.sized().with("page", page),
                Next::FirstByCursor => self.keyset(),
                Next::Cursor(cursor) => self.keyset().with("cursor", cursor),
            }
            .behind(&self.path);
            let call =
                Call::new(self.endpoint, &self.fleet.site, &path, Zeroizing::default(), &self.fleet.access_token);
            let answer = self.fleet.client.call(call, |incoming| self.read(incoming)).await;
            match answer {
                Err(error) if self.next == Next::FirstByCursor && error.status() == Some(405) => {
                    self.next = Next::Page(1);
                }
                Err(error) => return Err(error),
                Ok(answer) => {
                    let (rows, next) = answer.value;
                    self.next = next;
                    let new: Vec<R> = rows.into_iter().filter(|row| self.seen.insert(row.number())).collect();
                    return Ok(Some(new).filter(|new| !new.is_empty()));
                }
            }
        }
    }

    fn sized(&self) -> Query {
        self.query.with("per_page", self.length)
    }

    fn keyset(&self) -> Query {
        self.sized().with("pagination", "keyset")
    }

    /// Reads a page, and where the list goes on behind it.
    fn read(&self, incoming: &Incoming) -> Result<(Vec<R>, Next), CallFailure> {
        let rows: Vec<R> = success(incoming, |body| {
            serde_json::from_slice(body).map_err(|_| Flaw("it is not the JSON list that GitLab sends"))
        })?;
        if rows.is_empty() {
            return Ok((rows, Next::End));
        }
        if rows.iter().all(|row| self.seen.contains(&row.number())) {
            return Err(unexpected("it repeats rows of earlier pages and has no others"));
        }
        let next = self.next_after(incoming, rows.len())?;
        Ok((rows, next))
    }

    fn next_after(&self, incoming: &Incoming, rows: usize) -> Result<Next, CallFailure> {
        let page = match &self.next {
            Next::Page(page) => *page,
            Next::FirstByCursor | Next::Cursor(_) => match cursor(incoming) {
                Some(cursor) if self.next == Next::Cursor(cursor.clone()) => {
                    return Err(unexpected("its cursor leads back to it"));
                }
                Some(cursor) => return Ok(Next::Cursor(cursor)),
                // A server that ignored the wish for cursors numbers its pages.
                None if self.next == Next::FirstByCursor && headers::text(&incoming.headers, NEXT_PAGE).is_some() => 1,
                None => return Ok(Next::End),
            },
            Next::End => return Ok(Next::End),
        };
        match headers::text(&incoming.headers, NEXT_PAGE) {
            Some("") => Ok(Next::End),
            Some(text) => match text.parse::<u64>() {
                Ok(next) if next > page && next <= LAST_PAGE => Ok(Next::Page(next)),
                Ok(next) => Err(unexpected(&format!("behind page {page} it names page {next}"))),
                Err(_) => Err(unexpected("the next page that it names is none")),
            },
            // A proxy may have dropped the header: a full page has another behind it, perhaps an empty one.
            None if rows >= self.length && page < LAST_PAGE => Ok(Next::Page(page + 1)),
            None if rows >= self.length => Err(unexpected(&format!("page {page} is not the last one"))),
            None => Ok(Next::End),
        }
    }
}

/// The number of the last page that there could be: no database counts more rows.
const LAST_PAGE: u64 = i64::MAX.unsigned_abs();

/// The number of the next page; empty on the last one.
const NEXT_PAGE: &str = "x-next-page";

/// The cursor behind this page, from its own header or out of the address of the next page.
fn cursor(incoming: &Incoming) -> Option<String> {
    if let Some(cursor) = headers::text(&incoming.headers, "x-next-cursor").filter(|cursor| !cursor.is_empty()) {
        return Some(cursor.to_owned());
    }
    let links = headers::text(&incoming.headers, "link")?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let address = next.split_once('<')?.1.split_once('>')?.0;
    let url = incoming.url.join(address).ok()?;
    parameter(&url, "cursor")
}

fn parameter(url: &Url, wanted: &str) -> Option<String> {
    url.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}

fn unexpected(detail: &str) -> CallFailure {
    CallFailure::new(ErrorKind::UnexpectedAnswer).with_detail(detail)
}
