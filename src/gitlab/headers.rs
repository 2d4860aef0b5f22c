//! The headers of an answer that mean something here.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, LOCATION, RETRY_AFTER};

use crate::model::Timestamp;

/// The longest wait that is believed; longer ones are cut to it, so that sums with it stay small.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The server's wall time when it answered.
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    Timestamp::from_http_date(text(headers, DATE.as_str())?).ok()
}

/// How long the server asks to wait. Points in time are taken relative to its own `Date`, without
/// which they say nothing.
///
/// The `RateLimit-` headers come with answers that were not throttled too, so they count only where
/// `is_throttled`.
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

/// When a rate limit ends: an HTTP date, or else seconds since 1970.
fn rate_limit_reset(headers: &HeaderMap) -> Option<Timestamp> {
    let time = text(headers, "ratelimit-resettime").and_then(|text| Timestamp::from_http_date(text).ok());
    time.or_else(|| {
        let seconds: i64 = text(headers, "ratelimit-reset")?.parse().ok()?;
        Some(Timestamp::from_millis(seconds.saturating_mul(1000)))
    })
}

/// Whether the body calls itself JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let media_type = text(headers, CONTENT_TYPE.as_str()).and_then(|text| text.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

/// The host that a redirect points to; nothing else of it, since its query may hold anything.
pub(super) fn location_host(headers: &HeaderMap, asked: &Url) -> Option<String> {
    let location = asked.join(text(headers, LOCATION.as_str())?).ok()?;
    let host = location.host_str()?;
    Some(location.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// One header as text.
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
    fn a_wait_is_seconds_or_a_point_of_the_servers_time() {
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
    fn a_throttles_own_end_goes_before_retry_after() {
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
    fn json_is_what_says_so() {
        for (value, expected) in
            [("application/json", true), ("Application/JSON; charset=utf-8", true), ("text/html", false), ("", false)]
        {
            assert_eq!(is_json(&headers(&[("content-type", value)])), expected, "{value}");
        }
    }
}
