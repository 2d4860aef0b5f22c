//! The routes of the status server.

use std::net::IpAddr;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::uri::Authority;
use hyper::{Method, Response, StatusCode};

use super::body::ResponseBody;
use super::counters::Counters;
use super::event_stream::Progress;
use super::metrics;
use super::opening::PageAccess;
use super::pages::{PAGE, Page, PagedBody, json_pages};
use super::registry::StatusRegistry;
use crate::clock::{Clock as _, SystemClock};
use crate::model::{PrettyRows, Report};

/// The data behind the routes. Reading it never waits.
pub struct Sources {
    /// Hexadecimal digits that distinguish this daemon from others on the machine; a header of every response.
    pub instance_id: String,
    /// The status of the runners.
    pub registry: StatusRegistry,
    /// The counters.
    pub counters: Counters,
    /// Whether the daemon's main loop makes progress.
    pub is_alive: Box<dyn Fn() -> bool + Send + Sync>,
    /// Who may see the page over HTTP.
    pub access: PageAccess,
}

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listener {
    /// The socket, which only its owner can use.
    Socket,
    /// An address of this machine alone. Every local user can use it.
    Loopback,
    /// An address that other machines reach.
    Remote,
}

impl Listener {
    /// Whether it may be asked by this name in `Host`. A page in a browser on this machine could ask on loopback, if its name
    /// leads here: it would ask by that name.
    fn allows(self, host: &str) -> bool {
        if self != Self::Loopback {
            return true;
        }
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host();
        name.eq_ignore_ascii_case("localhost") || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    /// Without the question mark.
    pub(super) query: &'a str,
    /// The names that the server is asked by.
    pub(super) hosts: Vec<&'a str>,
    /// The headers `Cookie`.
    pub(super) cookies: Vec<&'a str>,
    pub(super) listener: Listener,
    /// Where a body without an end notes its progress.
    pub(super) progress: &'a Progress,
}

/// A response whose body is there, or is made while it is sent.
pub(super) type PagedResponse = Response<ResponseBody>;

/// The header of the instance id.
pub(super) const INSTANCE_HEADER: &str = "runner-agent-config";

const NOT_FOUND: &str = "not found: /, /events, /healthz, /readyz, /status, /metrics\n";

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";

impl Sources {
    /// Responds to a request.
    pub(super) fn answer(&self, asked: &Asked<'_>) -> PagedResponse {
        let mut response = if asked.hosts.iter().all(|host| asked.listener.allows(host)) {
            self.route(asked)
        } else {
            respond(StatusCode::MISDIRECTED_REQUEST, TEXT, "ask this address by its number or as localhost\n")
        };
        if let Ok(instance_id) = HeaderValue::from_str(&self.instance_id) {
            response.headers_mut().insert(INSTANCE_HEADER, instance_id);
        }
        response
    }

    fn route(&self, asked: &Asked<'_>) -> PagedResponse {
        let handler: fn(&Self, &Asked<'_>) -> PagedResponse = match asked.path {
            "/open" => return self.open(asked),
            "/" => Self::page,
            "/events" => Self::events,
            "/healthz" => |this, _| this.health(),
            "/readyz" => |this, _| this.readiness(),
            "/status" => |this, _| this.status(),
            "/metrics" => |this, _| this.metrics(),
            _ => return respond(StatusCode::NOT_FOUND, TEXT, NOT_FOUND),
        };
        if *asked.method != Method::GET && *asked.method != Method::HEAD {
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are allowed\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        handler(self, asked)
    }

    fn health(&self) -> PagedResponse {
        let (status, text) = self.health_text();
        respond(status, TEXT, text)
    }

    pub(super) fn health_text(&self) -> (StatusCode, String) {
        if !(self.is_alive)() {
            return (StatusCode::SERVICE_UNAVAILABLE, "the daemon's main loop is stuck\n".to_owned());
        }
        match self.registry.stuck_because() {
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
            None => (StatusCode::OK, "ok\n".to_owned()),
        }
    }

    fn readiness(&self) -> PagedResponse {
        // Taken at once, so that the reasons are those of the status code.
        let readiness = self.registry.readiness();
        let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let opening = PrettyRows::opening("ready", readiness.ready, "waiting_for");
        let mut reasons = readiness.waiting_for.into_iter();
        let count = reasons.len();
        let next = move || Some(reasons.by_ref().take(PAGE).collect::<Vec<_>>()).filter(|page| !page.is_empty());
        paged(status, JSON, count, json_pages(opening, next))
    }

    fn status(&self) -> PagedResponse {
        let registry = self.registry.clone();
        let mut numbers = registry.numbers();
        let daemon = registry.daemon();
        let opening = match PrettyRows::opening_with("schema", Report::SCHEMA, ("daemon", &daemon), "runners") {
            Ok(opening) => opening,
            Err(error) => return respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        };
        let reading = SystemClock.read();
        let next = move || {
            (!numbers.is_empty()).then(|| registry.page(&mut numbers, PAGE, |_, status| status.report_at(reading)))
        };
        paged(StatusCode::OK, JSON, self.registry.count(), json_pages(opening, next))
    }

    fn metrics(&self) -> PagedResponse {
        let pages = metrics::pages(&self.counters, &self.registry, SystemClock.read());
        paged(StatusCode::OK, metrics::CONTENT_TYPE, self.registry.count(), pages)
    }
}

/// Responds with pages. What fits on one is sent whole, with its length.
pub(super) fn paged(
    status: StatusCode,
    content_type: &'static str,
    rows: usize,
    pages: impl Iterator<Item = Page> + Send + 'static,
) -> PagedResponse {
    if rows > PAGE {
        return response(status, content_type, ResponseBody::Paged(PagedBody::new(pages)));
    }
    match pages.collect::<Result<String, _>>() {
        Ok(text) => respond(status, content_type, text),
        Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

pub(super) fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> PagedResponse {
    response(status, content_type, ResponseBody::Whole(Full::new(body.into())))
}

pub(super) fn response(status: StatusCode, content_type: &'static str, body: ResponseBody) -> PagedResponse {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
impl Sources {
    /// Responds to a request for a path with a query.
    pub(super) fn respond_to(&self, method: &Method, path: &str, hosts: &[&str], listener: Listener) -> PagedResponse {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (hosts, cookies, progress) = (hosts.to_vec(), Vec::new(), &Progress::default());
        self.answer(&Asked { method, path, query, hosts, cookies, listener, progress })
    }
}

#[cfg(test)]
mod tests {
    use crate::model::StateName;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::status::tests::{sources, status};
    use crate::status::{FileWork, Phase};

    #[tokio::test]
    async fn the_status_has_the_shape_of_every_command() {
        let response = sources(true).respond_to(&Method::GET, "/status", &[], Listener::Socket);
        assert_eq!(
            (response.status(), &response.headers()[CONTENT_TYPE]),
            (StatusCode::OK, &HeaderValue::from_static(JSON))
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let report: Report = serde_json::from_slice(&body).unwrap();
        assert_eq!((report.schema, report.runners), (1, vec![status("a", Some(1), StateName::Active).report]));
    }

    #[test]
    fn each_path_has_its_status() {
        let statuses = |sources: &Sources| {
            ["/healthz", "/readyz", "/status", "/metrics", "/favicon.ico", "/metrics/", "/healthz/x"]
                .map(|path| sources.respond_to(&Method::GET, path, &[], Listener::Socket).status().as_u16())
        };
        assert_eq!(statuses(&sources(true)), [200, 200, 200, 200, 404, 404, 404]);
        let stuck = sources(false);
        stuck.registry.enter(Phase::Stopping);
        assert_eq!(statuses(&stuck), [503, 503, 200, 200, 404, 404, 404]);
        let waiting = sources(true);
        waiting.registry.report_file_work(FileWork::Slow("slow".to_owned()));
        assert_eq!(statuses(&waiting), [200, 503, 200, 200, 404, 404, 404]);
        waiting.registry.report_file_work(FileWork::Stuck("stuck".to_owned()));
        assert_eq!(statuses(&waiting), [503, 503, 200, 200, 404, 404, 404]);
    }

    #[test]
    fn only_reading_is_allowed() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
            let response = sources(true).respond_to(&method, "/status", &[], Listener::Socket);
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(response.headers()[ALLOW], "GET, HEAD");
        }
        assert_eq!(sources(true).respond_to(&Method::HEAD, "/status", &[], Listener::Socket).status(), StatusCode::OK);
    }

    #[test]
    fn a_page_whose_name_leads_to_loopback_learns_nothing() {
        let ask = |hosts: &[&str], listener| {
            sources(true).respond_to(&Method::GET, "/status", hosts, listener).status().as_u16()
        };
        assert_eq!(ask(&[], Listener::Loopback), 200);
        for host in ["127.0.0.1:9252", "localhost", "LOCALHOST:1", "[::1]:9252", "10.0.0.1"] {
            assert_eq!(ask(&[host], Listener::Loopback), 200, "{host}");
        }
        for host in
            ["evil.example.com", "evil.example.com:9252", "localhost.evil.example.com", "", "127.0.0.1.evil.org", "a b"]
        {
            assert_eq!(ask(&["localhost", host], Listener::Loopback), 421, "{host}");
            assert_eq!(ask(&[host], Listener::Remote), 200, "{host}");
        }
        let response = sources(true).respond_to(&Method::GET, "/status", &[], Listener::Loopback);
        assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}
