//! The routes of the status server.

use std::net::IpAddr;

use http_body_util::{Either, Full};
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::uri::Authority;
use hyper::{Method, Response, StatusCode};

use super::counters::Counters;
use super::metrics;
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
}

/// By which names in `Host` a listener is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Any: the socket, and addresses that other machines reach.
    Any,
    /// On loopback a page in a browser on this machine could ask, if its name leads here: it would ask by that name.
    Loopback,
}

impl Names {
    fn allow(self, host: &str) -> bool {
        if self == Self::Any {
            return true;
        }
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host();
        name.eq_ignore_ascii_case("localhost") || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    }
}

/// A response whose body is there, or is made in pages.
pub(super) type PagedResponse = Response<Either<Full<Bytes>, PagedBody>>;

/// The header of the instance id.
pub(super) const INSTANCE_HEADER: &str = "runner-agent-config";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl Sources {
    pub(super) fn respond_to(&self, method: &Method, path: &str, hosts: &[&str], names: Names) -> PagedResponse {
        let mut response = if hosts.iter().all(|host| names.allow(host)) {
            self.route(method, path)
        } else {
            respond(StatusCode::MISDIRECTED_REQUEST, TEXT, "ask this address by its number or as localhost\n")
        };
        if let Ok(instance_id) = HeaderValue::from_str(&self.instance_id) {
            response.headers_mut().insert(INSTANCE_HEADER, instance_id);
        }
        response
    }

    fn route(&self, method: &Method, path: &str) -> PagedResponse {
        let handler: fn(&Self) -> PagedResponse = match path {
            "/healthz" => Self::health,
            "/readyz" => Self::readiness,
            "/status" => Self::status,
            "/metrics" => Self::metrics,
            _ => return respond(StatusCode::NOT_FOUND, TEXT, "not found: /healthz, /readyz, /status, /metrics\n"),
        };
        if *method != Method::GET && *method != Method::HEAD {
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are allowed\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        handler(self)
    }

    fn health(&self) -> PagedResponse {
        if !(self.is_alive)() {
            return respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the daemon's main loop is stuck\n");
        }
        match self.registry.stuck_because() {
            Some(why) => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, why + "\n"),
            None => respond(StatusCode::OK, TEXT, "ok\n"),
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
fn paged(
    status: StatusCode,
    content_type: &'static str,
    rows: usize,
    pages: impl Iterator<Item = Page> + Send + 'static,
) -> PagedResponse {
    if rows > PAGE {
        return response(status, content_type, Either::Right(PagedBody::new(pages)));
    }
    match pages.collect::<Result<String, _>>() {
        Ok(text) => respond(status, content_type, text),
        Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> PagedResponse {
    response(status, content_type, Either::Left(Full::new(body.into())))
}

fn response(status: StatusCode, content_type: &'static str, body: Either<Full<Bytes>, PagedBody>) -> PagedResponse {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
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
        let response = sources(true).respond_to(&Method::GET, "/status", &[], Names::Any);
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
            ["/healthz", "/readyz", "/status", "/metrics", "/", "/metrics/", "/healthz/x"]
                .map(|path| sources.respond_to(&Method::GET, path, &[], Names::Any).status().as_u16())
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
            let response = sources(true).respond_to(&method, "/status", &[], Names::Any);
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(response.headers()[ALLOW], "GET, HEAD");
        }
        assert_eq!(sources(true).respond_to(&Method::HEAD, "/status", &[], Names::Any).status(), StatusCode::OK);
    }

    #[test]
    fn a_page_whose_name_leads_to_loopback_learns_nothing() {
        let ask =
            |hosts: &[&str], names| sources(true).respond_to(&Method::GET, "/status", hosts, names).status().as_u16();
        assert_eq!(ask(&[], Names::Loopback), 200);
        for host in ["127.0.0.1:9252", "localhost", "LOCALHOST:1", "[::1]:9252", "10.0.0.1"] {
            assert_eq!(ask(&[host], Names::Loopback), 200, "{host}");
        }
        for host in
            ["evil.example.com", "evil.example.com:9252", "localhost.evil.example.com", "", "127.0.0.1.evil.org", "a b"]
        {
            assert_eq!(ask(&["localhost", host], Names::Loopback), 421, "{host}");
            assert_eq!(ask(&[host], Names::Any), 200, "{host}");
        }
        let response = sources(true).respond_to(&Method::GET, "/status", &[], Names::Loopback);
        assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}
