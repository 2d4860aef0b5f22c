//! Routes a path to an endpoint, and answers for releases without it.

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::{Call, Outcome, authentication};
use crate::{Answer, Endpoint};

/// The target of a request.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    pub(crate) api: Api,
    /// The path below the API's root, in decoded segments.
    pub(crate) segments: Vec<String>,
}

/// Which API a path belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    V1,
    V3,
    V4,
    /// The web interface.
    None,
}

impl Target {
    /// Parses a path below the instance's root; `None` is a path outside it.
    pub(crate) fn of(method: &Method, path: Option<&str>) -> Self {
        let path = path.unwrap_or_default();
        for (root, api) in [("/api/v4", Api::V4), ("/api/v3", Api::V3), ("/ci/api/v1", Api::V1)] {
            let Some(below) = path.strip_prefix(root).filter(|below| below.is_empty() || below.starts_with('/')) else {
                continue;
            };
            let segments = decoded(below);
            let names: Vec<&str> = segments.iter().map(String::as_str).collect();
            let endpoint = match api {
                Api::V4 => Endpoint::of_v4(method, &names),
                Api::V1 => Endpoint::of_v1(method, &names),
                Api::V3 | Api::None => Endpoint::Unknown,
            };
            return Self { endpoint, api, segments };
        }
        Self { endpoint: Endpoint::Unknown, api: Api::None, segments: Vec::new() }
    }

    /// The runner's id in the path, if there is one.
    pub(crate) fn runner_id(&self) -> Option<u64> {
        let place = if self.endpoint == Endpoint::UnassignRunner { 3 } else { 1 };
        let is_about_a_runner =
            self.segments.first().is_some_and(|first| first == "runners") || self.endpoint == Endpoint::UnassignRunner;
        self.segments.get(place).filter(|_| is_about_a_runner)?.parse().ok()
    }
}

/// Answers a request for which the release has no route.
pub(crate) fn missing(call: &mut Call<'_>) -> Outcome {
    match call.target.api {
        Api::V4 => missing_in_v4(call),
        Api::V3 => Err(Answer::raw_error(410, "API V3 is no longer supported. Use API V4 instead.")),
        Api::V1 => Err(Answer::html(404)),
        Api::None if call.method == Method::GET => Ok(Answer::text(200, "text/html; charset=utf-8", SIGN_IN_PAGE)),
        Api::None => Err(Answer::html(404)),
    }
}

/// The web interface without a session.
const SIGN_IN_PAGE: &str =
    "<!DOCTYPE html>\n<html><head><title>Sign in · GitLab</title></head><body>Sign in</body></html>\n";

/// Releases without `DELETE /runners/managers` parse `managers` as an id. A path that exists only with another method is
/// 405.
fn missing_in_v4(call: &mut Call<'_>) -> Outcome {
    if call.target.endpoint == Endpoint::DeleteManager {
        authentication::authenticate(call)?;
        return Err(Answer::raw_error(400, "id is invalid"));
    }
    let names: Vec<&str> = call.target.segments.iter().map(String::as_str).collect();
    let has_another_method = [Method::GET, Method::POST, Method::PUT, Method::DELETE]
        .iter()
        .any(|method| method != call.method && Endpoint::of_v4(method, &names).exists_in(call.state.version));
    if has_another_method {
        Err(Answer::raw_error(405, "405 Not Allowed"))
    } else {
        Err(Answer::raw_error(404, "404 Not Found"))
    }
}

fn decoded(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect()
}
