//! The log of requests as they were sent.

use std::collections::VecDeque;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::Endpoint;

/// How many requests the log keeps, which bounds its memory.
const REMEMBERED: usize = 65_536;

/// A received request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method, in capitals.
    pub method: String,
    /// The path with its query, as sent.
    pub path: String,
    /// The headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The parameters of query and body together, as the API sees them.
    pub parameters: Map<String, Value>,
    /// The body as sent, with any invalid UTF-8 replaced.
    pub body: String,
    /// The endpoint that was called, whether or not the imitated release has it.
    pub endpoint: Endpoint,
    /// The client's address; one port is one connection.
    pub peer: SocketAddr,
    /// When the request was complete, by the real wall clock.
    pub received_at: Timestamp,
    /// The status of the answer; `None` while unanswered and for cut connections.
    pub status: Option<u16>,
}

impl Request {
    /// The first value of a header, by its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(present, _)| present.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A parameter's text; `None` if it is absent or not a text.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).and_then(Value::as_str)
    }

    /// The path without its query, which is safe to print.
    #[must_use]
    pub fn bare_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }
}

/// The latest requests, oldest first.
#[derive(Default)]
pub(crate) struct Log {
    requests: VecDeque<Request>,
    /// How many requests were dropped, which keeps earlier numbers valid.
    forgotten: usize,
}

impl Log {
    /// Adds a request and returns its number.
    pub(crate) fn begin(&mut self, request: Request) -> usize {
        if self.requests.len() == REMEMBERED {
            self.requests.pop_front();
            self.forgotten += 1;
        }
        self.requests.push_back(request);
        self.forgotten + self.requests.len() - 1
    }

    /// Records the answer to a request and returns the request, unless it was dropped.
    pub(crate) fn end(&mut self, number: usize, status: Option<u16>) -> Option<Request> {
        let request = self.requests.get_mut(number.checked_sub(self.forgotten)?)?;
        request.status = status;
        Some(request.clone())
    }

    pub(crate) fn all(&self) -> Vec<Request> {
        self.requests.iter().cloned().collect()
    }

    pub(crate) fn to(&self, endpoint: Endpoint) -> Vec<Request> {
        self.requests.iter().filter(|request| endpoint.covers(request.endpoint)).cloned().collect()
    }

    pub(crate) fn count(&self, endpoint: Endpoint) -> usize {
        self.requests.iter().filter(|request| endpoint.covers(request.endpoint)).count()
    }

    pub(crate) fn clear(&mut self) {
        self.forgotten += self.requests.len();
        self.requests.clear();
    }
}
