//! The answers of the face: what each path says, from what is on the board.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde::Serialize;

use super::counters::Counters;
use super::metrics;
use super::registry::StatusRegistry;
use crate::clock::{Clock as _, SystemClock};
use crate::model::Report;

/// What is told comes from here; nothing of it is waited for.
pub struct Sources {
    /// What tells the daemon from another one on this machine, in hexadecimal digits; a header of every answer.
    pub instance_id: String,
    /// What the daemon says about its runners.
    pub registry: StatusRegistry,
    /// What was counted.
    pub counters: Counters,
    /// Whether the daemon's loop turns.
    pub is_alive: Box<dyn Fn() -> bool + Send + Sync>,
}

/// A whole answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// The header that tells which daemon answers.
pub(super) const INSTANCE_HEADER: &str = "runner-agent-config";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl Sources {
    pub(super) fn answer(&self, method: &Method, path: &str) -> Answer {
        let mut answer = self.unmarked(method, path);
        if let Ok(instance_id) = HeaderValue::from_str(&self.instance_id) {
            answer.headers_mut().insert(INSTANCE_HEADER, instance_id);
        }
        answer
    }

    fn unmarked(&self, method: &Method, path: &str) -> Answer {
        let answer: fn(&Self) -> Answer = match path {
            "/healthz" => Self::health,
            "/readyz" => Self::readiness,
            "/status" => Self::status,
            "/metrics" => Self::metrics,
            _ => return respond(StatusCode::NOT_FOUND, TEXT, "not found: /healthz, /readyz, /status, /metrics\n"),
        };
        if *method != Method::GET && *method != Method::HEAD {
            let mut refusal = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        answer(self)
    }

    fn health(&self) -> Answer {
        if (self.is_alive)() {
            respond(StatusCode::OK, TEXT, "ok\n")
        } else {
            respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the daemon's loop does not turn\n")
        }
    }

    fn readiness(&self) -> Answer {
        let readiness = self.registry.readiness();
        json(if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &readiness)
    }

    fn status(&self) -> Answer {
        let runners = self.registry.runners();
        json(StatusCode::OK, &Report::new(runners.into_iter().map(|status| status.report).collect()))
    }

    fn metrics(&self) -> Answer {
        match metrics::metrics(&self.counters, &self.registry, SystemClock.read()) {
            Ok(text) => respond(StatusCode::OK, metrics::CONTENT_TYPE, text),
            Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        }
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_string_pretty(body) {
        Ok(text) => respond(status, JSON, text + "\n"),
        Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use crate::model::StateName;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::status::Phase;
    use crate::status::tests::{sources, status};

    #[tokio::test]
    async fn the_status_is_the_shape_that_every_command_writes() {
        let answer = sources(true).answer(&Method::GET, "/status");
        assert_eq!(
            (answer.status(), &answer.headers()[CONTENT_TYPE]),
            (StatusCode::OK, &HeaderValue::from_static(JSON))
        );
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let report: Report = serde_json::from_slice(&body).unwrap();
        assert_eq!((report.schema, report.runners), (1, vec![status("a", Some(1), StateName::Active).report]));
    }

    #[test]
    fn each_path_has_its_status() {
        let statuses = |sources: &Sources| {
            ["/healthz", "/readyz", "/status", "/metrics", "/", "/metrics/", "/healthz/x"]
                .map(|path| sources.answer(&Method::GET, path).status().as_u16())
        };
        assert_eq!(statuses(&sources(true)), [200, 200, 200, 200, 404, 404, 404]);
        let hung = sources(false);
        hung.registry.enter(Phase::Stopping);
        assert_eq!(statuses(&hung), [503, 503, 200, 200, 404, 404, 404]);
    }

    #[test]
    fn nothing_but_reading_is_allowed() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
            let answer = sources(true).answer(&method, "/status");
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(answer.headers()[ALLOW], "GET, HEAD");
        }
        assert_eq!(sources(true).answer(&Method::HEAD, "/status").status(), StatusCode::OK);
    }
}
