//! The page, as a reader of its HTML sees it.

use super::*;
use crate::model::EventKind;
use crate::secret::Digest;
use crate::status::tests::{key, now, sources, status};
use crate::status::{RunnerStatus, Sources};

fn page(sources: &Sources, query: &str) -> String {
    pages(&sources.registry, query, now()).collect::<Result<String, _>>().unwrap()
}

/// The SHA-256 of a text in base64, as a policy has it.
fn hash(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let hex = Digest::of(text.as_bytes()).to_hex();
    let bits: String = hex.chars().map(|digit| format!("{:04b}", digit.to_digit(16).unwrap())).collect();
    let digit = |bits: &[u8]| {
        let bits = format!("{:0<6}", std::str::from_utf8(bits).unwrap());
        char::from(DIGITS[usize::from_str_radix(&bits, 2).unwrap()])
    };
    bits.as_bytes().chunks(6).map(digit).collect::<String>() + "="
}

fn with(runners: impl IntoIterator<Item = RunnerStatus>) -> Sources {
    let sources = sources(true);
    sources.registry.remove(&key("a"));
    runners.into_iter().for_each(|runner| sources.registry.update(runner));
    sources
}

fn count(html: &str, text: &str) -> usize {
    html.matches(text).count()
}

#[test]
fn the_facts_are_there_without_a_script() {
    let sources = sources(true);
    let refused = RunnerStatus {
        not_ready_because: Some("the server refuses the token".to_owned()),
        ..status("b", Some(2), StateName::Rejected)
    };
    sources.registry.update(refused);
    sources.registry.record_event(now().wall, Some("b"), EventKind::Rejected, "the server refuses the token");
    let html = page(&sources, "");
    let before_script = html.split("<script>").next().unwrap();
    for fact in [
        "<!DOCTYPE html>",
        "1 of 2 runners ready, 1 needs attention; next rotation at 2027-01-01T00:38:00Z (a).",
        "<small>id 2</small>",
        "gitlab.example.com:8443",
        "<span class=\"state bad\">rejected</span>",
        "<span class=\"state good\">active</span>",
        "52 % of the token&#39;s life is over",
        "rotated <time",
        "expires <time datetime=\"2027-01-01T01:00:00Z\"",
        "verify <time",
        "<small>interval</small>",
        "2027-01-01 00:30:00 UTC",
    ] {
        assert!(before_script.contains(&fact.replace("&#39;", "'")), "{fact}: {before_script}");
    }
    assert!(
        html.find("runner-2").unwrap_or(0) < html.find("runner-1").unwrap_or(usize::MAX),
        "the refused one is first"
    );
}

#[test]
fn names_of_other_people_are_text() {
    let evil = "<img src=x onerror=alert(1)>\"'\u{202e}";
    let mut runner = status("a", Some(1), StateName::Active);
    runner.report.name = Some(evil.to_owned());
    runner.report.error = Some(evil.to_owned());
    let sources = with([runner]);
    sources.registry.record_event(now().wall, Some(evil), EventKind::Rotated, evil);
    sources.registry.report_settings(Some(&evil.to_owned()));
    let html = page(&sources, &crate::model::encode_query(&[("q", evil)]));
    assert!(!html.contains("<img") && !html.contains('\u{202e}'), "{html}");
    assert!(count(&html, "&lt;img src=x onerror=alert(1)&gt;&quot;&#39;?") >= 6, "{html}");
}

#[test]
fn ten_thousand_runners_are_a_hundred_rows_at_a_time() {
    let sources =
        with((0..10_000).map(|number| status(&format!("runner-{number:05}"), Some(number + 1), StateName::Active)));
    let first = page(&sources, "sort=name");
    assert_eq!(count(&first, "<tr id="), 100);
    assert!(
        first.contains("Page 1 of 100") && first.contains("10000 runners") && first.len() < 160_000,
        "{}",
        first.len()
    );
    assert!(first.contains("href=\"/?sort=name&amp;page=2\"") && !first.contains("id=\"previous\""));
    let last = page(&sources, "sort=name&page=1000");
    assert!(last.contains("Page 100 of 100") && last.contains("runner-09999") && !last.contains("id=\"next\""));
    let found = page(&sources, "q=runner-0123");
    assert_eq!(count(&found, "<tr id="), 10);
    assert!(found.contains("10 of 10000 runners") && !found.contains("<nav"));
}

#[test]
fn a_few_runners_make_a_page_below_60_kilobytes() {
    let sources = with((0..10).map(|number| status(&format!("runner-{number}"), Some(number + 1), StateName::Active)));
    let html = page(&sources, "");
    assert!(html.len() < 60_000, "{}", html.len());
}

#[test]
fn the_policy_names_the_hashes_of_style_and_script() {
    for (name, text) in [("style-src", STYLE), ("script-src", SCRIPT)] {
        let expected = format!("{name} 'sha256-{}';", hash(text));
        assert!(POLICY.contains(&expected), "the policy has to have {expected}");
    }
    let html = page(&sources(true), "");
    assert_eq!((count(&html, "<script"), count(&html, "<style")), (1, 1));
    assert!(!html.contains(" style=") && !html.contains(" onclick="));
    for outside in ["src=\"", "@import", "url(", "http://", "https://"] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn a_token_that_has_expired_since_is_shown_as_expired() {
    let mut runner = status("a", Some(1), StateName::Active);
    runner.report.token_expires_at = Some("2027-01-01T00:31:00Z".parse().unwrap());
    let html = page(&with([runner]), "");
    assert!(html.contains("<span class=\"state bad\">expired</span>") && html.contains("expired <time"), "{html}");
    assert!(page(&with([]), "").contains("The daemon serves no runners."));
}
