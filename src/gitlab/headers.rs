//! The response headers that this client reads.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, LOCATION, RETRY_AFTER};
use serde_json::Value;

use crate::model::Timestamp;

/// Upper bound for the wait that a server asks for; longer ones are cut to it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads the server's wall time of the answer.
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    Timestamp::from_http_date(text(headers, DATE.as_str())?).ok()
}

/// Reads how long the server asks to wait. Points in time are relative to its own `Date` and ignored without it.
///
/// The `RateLimit-` headers also come with answers that are not throttled, so they count only if `is_throttled`.
pub(super) fn retry_after(headers: &HeaderMap, is_throttled: bool) -> Option<Duration> {
    let date = date(headers);
    let rate_limit = || rate_limit_reset(headers).zip(date).map(|(reset, date)| reset.since(date));
    let wait = if is_throttled { rate_limit() } else { None };
    let wait = wait.or_else(|| {
        let text = text(headers, RETRY_AFTER.as_str())?;
        let until = || Timestamp::from_http_date(text).ok().zip(date).map(|(until, date)| until.since(date));
        text.parse().ok().map(Duration::from_secs).or_else(until)
    });
    wait.map(|wait| wait.min(MAX_RETRY_AFTER))
}

/// Reads when a rate limit ends: an HTTP date, or else seconds since 1970.
fn rate_limit_reset(headers: &HeaderMap) -> Option<Timestamp> {
    let time = text(headers, "ratelimit-resettime").and_then(|text| Timestamp::from_http_date(text).ok());
    time.or_else(|| {
        let seconds: i64 = text(headers, "ratelimit-reset")?.parse().ok()?;
        Some(Timestamp::from_millis(seconds.saturating_mul(1000)))
    })
}

/// Whether the content type is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let media_type = text(headers, CONTENT_TYPE.as_str()).and_then(|text| text.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

/// Whether the server asks to wait, in any form.
pub(super) fn has_retry_after(headers: &HeaderMap) -> bool {
    headers.contains_key(RETRY_AFTER)
}

/// Whether this is GitLab's own header: JSON with a correlation id.
pub(super) fn has_gitlab_meta(headers: &HeaderMap) -> bool {
    let meta = text(headers, "x-gitlab-meta").and_then(|text| serde_json::from_str::<Value>(text).ok());
    meta.is_some_and(|meta| meta.get("correlation_id").is_some_and(Value::is_string))
}

/// Reads the host of a redirect's target. The rest of the target is dropped: its query may contain a secret.
pub(super) fn location_host(headers: &HeaderMap, asked: &Url) -> Option<String> {
    let location = asked.join(text(headers, LOCATION.as_str())?).ok()?;
    let host = location.host_str()?;
    Some(location.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// Reads one header as text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    const NOW: (&str, &str) = ("date", "Sun, 11 Jan 2026 14:39:24 GMT");

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn retry_after_is_seconds_or_a_server_time() {
        for (pairs, seconds) in [
            (vec![("retry-after", "60")], Some(60)),
            (vec![("retry-after", "0")], Some(0)),
            (vec![NOW, ("retry-after", "Sun, 11 Jan 2026 14:40:24 GMT")], Some(60)),
            (vec![NOW, ("retry-after", "Sun, 11 Jan 2026 14:00:00 GMT")], Some(0)),
            (vec![("retry-after", "Sun, 11 Jan 2026 14:40:24 GMT")], None),
            (vec![("retry-after", "-5")], None),
            (vec![("retry-after", "soon")], None),
            (vec![("retry-after", "18446744073709551615")], Some(86_400)),
            (vec![], None),
        ] {
            assert_eq!(retry_after(&headers(&pairs), false), seconds.map(Duration::from_secs), "{pairs:?}");
        }
    }

    #[test]
    fn a_rate_limit_reset_overrides_retry_after() {
        let time = ("ratelimit-resettime", "Sun, 11 Jan 2026 14:40:00 GMT");
        let seconds = ("ratelimit-reset", "1768142384");
        let after = ("retry-after", "7");
        for (pairs, throttled, expected) in [
            (vec![NOW, time, seconds, after], true, 36),
            (vec![NOW, seconds, after], true, 20),
            (vec![time, seconds, after], true, 7),
            (vec![NOW, time, seconds, after], false, 7),
        ] {
            assert_eq!(retry_after(&headers(&pairs), throttled), Some(Duration::from_secs(expected)), "{pairs:?}");
        }
    }

    #[test]
    fn a_redirect_is_reduced_to_its_host() {
        let asked = Url::parse("https://gitlab.example.com/api/v4/runners").unwrap();
        for (location, host) in [
            ("https://sso.example.com:8443/login?token=x", Some("sso.example.com:8443")),
            ("/users/sign_in", Some("gitlab.example.com")),
            ("mailto:x@y", None),
        ] {
            assert_eq!(location_host(&headers(&[("location", location)]), &asked).as_deref(), host, "{location}");
        }
    }

    #[test]
    fn gitlabs_own_header_has_a_correlation_id() {
        for (value, expected) in [
            (r#"{"correlation_id":"01JX","version":"1"}"#, true),
            (r#"{"correlation_id":7}"#, false),
            (r#"{"request_id":"01JX"}"#, false),
            ("gateway", false),
            ("", false),
        ] {
            assert_eq!(has_gitlab_meta(&headers(&[("x-gitlab-meta", value)])), expected, "{value}");
        }
    }

    #[test]
    fn json_is_recognised_by_its_content_type() {
        for (value, expected) in
            [("application/json", true), ("Application/JSON; charset=utf-8", true), ("text/html", false), ("", false)]
        {
            assert_eq!(is_json(&headers(&[("content-type", value)])), expected, "{value}");
        }
    }
}
