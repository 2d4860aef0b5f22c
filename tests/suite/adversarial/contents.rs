//! Well-formed responses with impossible values.

use super::limited::LimitedSandbox;
use fake_gitlab::{Endpoint, Fault};
use serde_json::{Value, json};

/// Changes one field of a response; `None` removes it.
fn with(field: &'static str, value: Option<Value>) -> Fault {
    Fault::amended(move |answer| {
        let fields = answer.as_object_mut().unwrap();
        match value.clone() {
            Some(value) => fields.insert(field.to_owned(), value),
            None => fields.remove(field),
        };
    })
}

fn tokens() -> Vec<Option<Value>> {
    let texts = ["", "a b", "a\nb", "a\r\nb = 1", "a\"b", "a'b", "a\\b", "a\0b", "a\u{1b}[2Jb", "t\u{f6}ken"];
    let mut tokens: Vec<_> = texts.into_iter().map(|text| Some(json!(text))).collect();
    tokens.extend([Some(json!("x".repeat(600))), Some(json!("x".repeat(900_000)))]);
    tokens.extend([Some(json!(null)), Some(json!(7)), Some(json!(["a"])), Some(json!({"a": 1})), None]);
    tokens
}

fn ids() -> Vec<Option<Value>> {
    let numbers = [json!(0), json!(-1), json!(1.5), json!(1_u64 << 63), json!(u64::MAX), json!(1e300)];
    let others = [json!("x"), json!("-1"), json!("9223372036854775808"), json!(null), json!([7]), json!(true)];
    numbers.into_iter().chain(others).map(Some).chain([None]).collect()
}

fn dates() -> Vec<Option<Value>> {
    let texts = [
        "",
        "soon",
        "0001-01-01T00:00:00Z",
        "-009999-01-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2027-01-11 14:39:24 UTC",
        "\n[[runners]]",
    ];
    let others = [json!(1_768_142_364), json!([]), json!({}), json!(true)];
    texts.into_iter().map(|text| json!(text)).chain(others).map(Some).collect()
}

#[test]
fn registration_response_without_a_token_writes_no_entry() {
    let sandbox = LimitedSandbox::new();
    for value in tokens() {
        sandbox.gitlab.order(Endpoint::Register, with("token", value.clone()));
        let done = sandbox.register(&sandbox.gitlab.url(), &["--force"]);
        assert_eq!(done.code, Some(5), "{value:?}: {done:#?}");
        done.says("error: ");
        assert_eq!(sandbox.entries().len(), 0, "{value:?}");
    }
    // A later valid response works.
    sandbox.register(&sandbox.gitlab.url(), &["--force"]).exits(0);
    assert_eq!(sandbox.entries().len(), 1);
}

#[test]
fn reset_response_without_a_token_keeps_the_entry() {
    for value in tokens() {
        let sandbox = LimitedSandbox::new();
        let (_, token) = sandbox.add_created();
        let config = sandbox.config();
        sandbox.gitlab.order(Endpoint::Reset, with("token", value.clone()));
        let done = sandbox.run(&["rotate", "--name", "a"]);
        // The server has rotated the token, so it refuses the old one.
        assert_eq!(done.code, Some(3), "{value:?}: {done:#?}");
        done.says("the new one is lost");
        assert!(!done.text().contains(&token));
        assert_eq!(sandbox.config(), config, "{value:?}");
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 1);
    }
}

/// Responses that contain a good token beside something odd.
fn odd_responses() -> Vec<Fault> {
    let dates = dates().into_iter().map(|date| with("token_expires_at", date));
    let types = ["text/json", "application/vnd.api+json", "text/plain", "text/html"].map(Fault::content_type);
    dates.chain(types).collect()
}

/// Whether config.toml or a file of the state has this token.
fn is_kept(sandbox: &LimitedSandbox, token: &str) -> bool {
    let has_token = |path: &std::path::Path| std::fs::read_to_string(path).is_ok_and(|text| text.contains(token));
    let mut directories = vec![sandbox.path("config"), sandbox.path("state")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if has_token(&path) {
                return true;
            }
        }
    }
    false
}

#[test]
fn token_in_an_odd_reset_response_is_kept() {
    for fault in odd_responses() {
        let sandbox = LimitedSandbox::new();
        let (id, _) = sandbox.add_created();
        let place = format!("{fault:?}");
        sandbox.gitlab.order(Endpoint::Reset, fault);
        let done = sandbox.run(&["rotate", "--name", "a"]);
        assert!(is_kept(&sandbox, &sandbox.gitlab.runner(id).unwrap().token), "{place}: {done:#?}");
    }
}

#[test]
fn token_in_an_odd_registration_response_is_kept() {
    for fault in ids().into_iter().map(|id| with("id", id)).chain(odd_responses()) {
        let sandbox = LimitedSandbox::new();
        let place = format!("{fault:?}");
        sandbox.gitlab.order(Endpoint::Register, fault);
        let done = sandbox.register(&sandbox.gitlab.url(), &[]);
        assert!(is_kept(&sandbox, &sandbox.gitlab.runners()[0].token), "{place}: {done:#?}");
    }
}

#[test]
fn invalid_verify_response_changes_nothing() {
    let sandbox = LimitedSandbox::new();
    let (_, token) = sandbox.add_created();
    let config = sandbox.config();
    let other = [Some(json!("glrt-theirs0000000000"))];
    let cases = [("token", [tokens(), other.to_vec()].concat()), ("id", ids())];
    for (field, values) in cases {
        for value in values {
            sandbox.gitlab.order(Endpoint::Verify, with(field, value.clone()));
            let done = sandbox.run(&["verify", "--name", "a", "--delete"]);
            assert_eq!(done.code, Some(5), "{field} = {value:?}: {done:#?}");
            assert!(!done.text().contains(&token) && !done.text().contains("theirs"), "{done:#?}");
            assert_eq!(sandbox.config(), config, "{field} = {value:?}");
        }
    }
    // The id and the token prove the acceptance; only the expiry is not learned.
    for date in dates() {
        sandbox.gitlab.order(Endpoint::Verify, with("token_expires_at", date.clone()));
        sandbox.run(&["verify", "--name", "a", "--delete"]).exits(0);
        assert_eq!(sandbox.entries()[0]["token"].as_str(), Some(token.as_str()), "{date:?}");
    }
}

#[test]
fn foreign_id_in_a_verify_response_keeps_the_entry() {
    let sandbox = LimitedSandbox::new();
    let (id, _) = sandbox.add_created();
    let config = sandbox.config();
    sandbox.gitlab.order(Endpoint::Verify, with("id", Some(json!(4711))));
    sandbox.run(&["verify", "--name", "a"]);
    assert_eq!(sandbox.config(), config);
    sandbox.run(&["rotate", "--name", "a"]).exits(0);
    let entries = sandbox.entries();
    assert_eq!(entries.len(), 1, "{}", sandbox.config());
    assert_eq!(entries[0]["token"].as_str(), Some(sandbox.gitlab.runner(id).unwrap().token.as_str()));
}

/// Valid dates are written unchanged or as never.
#[test]
fn extreme_expiry_is_written_as_a_date_or_as_never() {
    for (expires_at, written) in [
        (json!("9999-12-31T23:59:59Z"), "0001-01-01T00:00:00Z"),
        (json!("+12345-01-01T00:00:00Z"), "0001-01-01T00:00:00Z"),
        (json!(null), "0001-01-01T00:00:00Z"),
        (json!("1990-01-01T00:00:00.000Z"), "1990-01-01T00:00:00Z"),
        (json!("2026-07-01T13:59:59.999+14:00"), "2026-06-30T23:59:59Z"),
    ] {
        let sandbox = LimitedSandbox::new();
        let (id, _) = sandbox.add_created();
        sandbox.gitlab.order(Endpoint::Any, with("token_expires_at", Some(expires_at.clone()))).always();
        sandbox.run(&["rotate", "--name", "a"]).exits(0);
        sandbox.register(&sandbox.gitlab.url(), &[]).exits(0);
        let entries = sandbox.entries();
        assert_eq!(entries.len(), 2, "{}", sandbox.config());
        assert_eq!(entries[0]["token"].as_str(), Some(sandbox.gitlab.runner(id).unwrap().token.as_str()));
        for entry in entries {
            assert_eq!(entry["token_expires_at"].as_datetime().unwrap().to_string(), written, "{expires_at}");
        }
    }
}

#[test]
fn invalid_date_header_breaks_no_entry() {
    for date in [
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Fri, 31 Dec 9998 23:59:59 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "yesterday",
        "",
    ] {
        let sandbox = LimitedSandbox::new();
        let (id, old) = sandbox.add_created();
        sandbox.gitlab.order(Endpoint::Any, Fault::header("Date", date)).always();
        sandbox.run(&["verify", "--name", "a"]).exits(0);
        let done = sandbox.run(&["rotate", "--name", "a"]);
        done.exits(0);
        let token = sandbox.gitlab.runner(id).unwrap().token;
        assert_ne!(token, old);
        let entries = sandbox.entries();
        assert_eq!(entries[0]["token"].as_str(), Some(token.as_str()), "{date}: {}", sandbox.config());
        assert!(entries[0]["token_expires_at"].is_datetime() && entries[0]["token_obtained_at"].is_datetime());
        sandbox.register(&sandbox.gitlab.url(), &[]).exits(0);
        assert_eq!(sandbox.entries().len(), 2, "{}", sandbox.config());
    }
}
