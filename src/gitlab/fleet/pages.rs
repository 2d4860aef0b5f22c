//! Paged lists as one stream of rows.

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

/// GitLab's maximum page length, in rows. Longer requests are silently cut to it.
pub const MAX_PAGE_ROWS: usize = 100;

/// A row of a list, with an id that is unique in the list.
pub trait Row: DeserializeOwned {
    /// The row's id.
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

/// All pages of a list, one request each, sent on demand.
///
/// The next page comes from the page number or cursor in the answer, never from the URL in its `Link` header: the
/// access token must not be sent to another server. The total number of rows is not needed.
///
/// A list is not a snapshot. A row that moved to a later page is returned once; its id is remembered for that, about
/// 16 bytes per row. A row that moved to an earlier page is missed. The list ends at an empty page, even if that page
/// names a next one. A page without new rows, or one that names an earlier page, is an error.
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

/// The position of the next page.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// A page number, from one.
    Page(u64),
    /// The first page of a list that may support cursors.
    FirstByCursor,
    /// A cursor.
    Cursor(String),
    /// After the last page.
    End,
}

impl<'a, R: Row> Pages<'a, R> {
    pub(super) fn new(fleet: &'a Fleet, endpoint: Endpoint, path: String, query: Query) -> Self {
        Self {
            fleet,
            endpoint,
            path,
            query,
            length: MAX_PAGE_ROWS,
            next: Next::Page(1),
            seen: HashSet::new(),
            rows: std::marker::PhantomData,
        }
    }

    /// Uses keyset pagination if the server supports it for this list.
    pub(super) fn by_cursor(self) -> Self {
        Self { next: Next::FirstByCursor, ..self }
    }

    /// Limits the page length for callers that need only a few rows, from 1 to [`MAX_PAGE_ROWS`].
    #[must_use]
    pub fn of_length(self, rows: usize) -> Self {
        Self { length: rows.clamp(1, MAX_PAGE_ROWS), ..self }
    }

    /// Returns the new rows of the next page; `None` after the last one. After an error the position is unchanged, and
    /// the same page can be requested again.
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
            .append_to(&self.path);
            let call =
                Call::new(self.endpoint, &self.fleet.site, &path, Zeroizing::default(), Some(&self.fleet.access_token));
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

    /// Reads a page and the position of the next one.
    fn read(&self, incoming: &Incoming) -> Result<(Vec<R>, Next), CallFailure> {
        let rows: Vec<R> = success(incoming, |body| {
            serde_json::from_slice(body).map_err(|_| Flaw("not the JSON list that GitLab sends"))
        })?;
        if rows.is_empty() {
            return Ok((rows, Next::End));
        }
        if rows.iter().all(|row| self.seen.contains(&row.number())) {
            return Err(unexpected("the page only repeats rows of earlier pages"));
        }
        let next = self.next_after(incoming, rows.len())?;
        Ok((rows, next))
    }

    fn next_after(&self, incoming: &Incoming, rows: usize) -> Result<Next, CallFailure> {
        let page = match &self.next {
            Next::Page(page) => *page,
            Next::FirstByCursor | Next::Cursor(_) => match cursor(incoming) {
                Some(cursor) if self.next == Next::Cursor(cursor.clone()) => {
                    return Err(unexpected("the cursor points to its own page"));
                }
                Some(cursor) => return Ok(Next::Cursor(cursor)),
                // A server without keyset pagination numbers its pages.
                None if self.next == Next::FirstByCursor && headers::text(&incoming.headers, NEXT_PAGE).is_some() => 1,
                None => return Ok(Next::End),
            },
            Next::End => return Ok(Next::End),
        };
        match headers::text(&incoming.headers, NEXT_PAGE) {
            Some("") => Ok(Next::End),
            Some(text) => match text.parse::<u64>() {
                Ok(next) if next > page && next <= LAST_PAGE => Ok(Next::Page(next)),
                Ok(next) => Err(unexpected(&format!("page {page} names page {next} as the next one"))),
                Err(_) => Err(unexpected("the number of the next page is invalid")),
            },
            // A proxy may have dropped the header: assume another page after a full one. It may be empty.
            None if rows >= self.length && page < LAST_PAGE => Ok(Next::Page(page + 1)),
            None if rows >= self.length => Err(unexpected(&format!("page {page} must be the last one, but is full"))),
            None => Ok(Next::End),
        }
    }
}

/// The highest possible page number: no database has more rows.
const LAST_PAGE: u64 = i64::MAX.unsigned_abs();

/// The header with the number of the next page; empty on the last one.
const NEXT_PAGE: &str = "x-next-page";

/// Returns the cursor of the next page, from its own header or from the URL in `Link`.
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
