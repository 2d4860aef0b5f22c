//! GitLab's documents of the Runners API, of 2016, 15.x and 16.x: every request and every answer in them.
//!
//! `examples.json` has each documented request with its answer. The tests send both to the fake GitLab: the request as
//! curl sends it, and this client's equivalent.

mod ours;
mod request;
mod table;

use std::collections::BTreeSet;

use fake_gitlab::{Endpoint, Fault, Gitlab};
use serde_json::Value;

use ours::{Ours, everything};
use request::Documented;

fn examples() -> Value {
    serde_json::from_str(include_str!("documents/examples.json")).unwrap()
}

fn requests() -> Vec<(Documented, Option<Value>)> {
    let examples = examples();
    let request = |example: &Value| {
        let text = example["request"].as_str().unwrap();
        (Documented::parse(text), example.get("answer").cloned())
    };
    examples["requests"].as_array().unwrap().iter().map(request).collect()
}

/// A GitLab with both APIs.
fn gitlab() -> Gitlab {
    Gitlab::builder().version("16.11").with_v1().start()
}

#[test]
fn every_documented_example_is_covered() {
    let examples = examples();
    let occurrences = |is_wanted: &dyn Fn(&Value) -> bool| -> usize {
        let wanted = examples["requests"].as_array().unwrap().iter().filter(|example| is_wanted(example));
        wanted.map(|example| example["documents"].as_array().unwrap().len()).sum()
    };
    let is_curl = |example: &Value| example["request"].as_str().unwrap().starts_with("curl ");
    assert_eq!(occurrences(&is_curl), 2 + 20 + 20, "curl lines");
    assert_eq!(occurrences(&|example| example.get("answer").is_some()), 11 + 12, "answers");
}

#[test]
fn every_request_is_sent_as_documented() {
    let gitlab = gitlab();
    let mut calls = BTreeSet::new();
    for (documented, _) in requests() {
        documented.send(&gitlab);
        let asked = gitlab.requests().pop().unwrap();
        // The documents have lists with `/all` that no release supports.
        let is_route = asked.endpoint != Endpoint::Unknown;
        assert!(is_route || documented.path.contains("/runners/all?"), "{}", documented.text);
        let documented = if is_route { documented } else { documented.without_all() };
        documented.send(&gitlab);
        let asked = gitlab.requests().pop().unwrap();
        // The response for an unknown runner does not matter here.
        drop(Ours::new(&gitlab).send(&asked));
        let sent = gitlab.requests().pop().unwrap();
        assert_eq!(sent.endpoint, asked.endpoint, "{}", documented.text);
        assert_eq!(sent.bare_path(), asked.bare_path(), "{}", documented.text);
        assert_eq!(sent.header("private-token"), asked.header("private-token"), "{}", documented.text);
        assert_eq!(request::essential(&sent, &asked), request::essential(&asked, &asked), "{}", documented.text);
        calls.insert(format!("{:?}", asked.endpoint));
    }
    assert_eq!(calls.len(), 20, "{calls:?}");
}

#[test]
fn every_documented_response_is_fully_parsed() {
    let gitlab = gitlab();
    let mut count = 0;
    for (documented, answer) in requests() {
        let Some(answer) = answer else { continue };
        documented.send(&gitlab);
        let asked = gitlab.requests().pop().unwrap();
        let is_created = documented.method == "POST" && asked.endpoint != Endpoint::Verify;
        let status = if is_created { 201 } else { 200 };
        gitlab.order(asked.endpoint, Fault::json(status, answer.clone()));
        let understood = Ours::answering(&gitlab, &answer)
            .send(&asked)
            .unwrap_or_else(|error| panic!("{}: {error}", documented.text));
        assert_understood(&understood, &answer, &documented.text);
        count += 1;
    }
    assert_eq!(count, 12);
}

#[test]
fn every_documented_parameter_can_be_sent() {
    let gitlab = gitlab();
    for (call, names) in examples()["attributes"].as_object().unwrap() {
        let sent: BTreeSet<String> = everything(&gitlab, call);
        for name in names.as_array().unwrap() {
            let name = name.as_str().unwrap();
            // The older name of `maintenance_note`; the server refuses both together.
            if name == "maintainer_note" {
                continue;
            }
            // The inverse of `paused`: sent only to a server without that parameter.
            if name == "active" && call == "POST /runners" {
                continue;
            }
            assert!(sent.contains(name), "{call}: {name} is not among {sent:?}");
        }
    }
}

/// Whether this client has parsed every documented field; times may have another format.
fn assert_understood(understood: &Value, documented: &Value, place: &str) {
    match (understood, documented) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (name, value) in theirs {
                let ours = ours.get(name).unwrap_or_else(|| panic!("{place}: `{name}` is not read"));
                assert_understood(ours, value, &format!("{place}: {name}"));
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{place}");
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert_understood(ours, theirs, place);
            }
        }
        (Value::String(ours), Value::String(theirs)) => {
            let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
            assert!(ours == theirs || (time(ours).is_some() && time(ours) == time(theirs)), "{place}: {ours} {theirs}");
        }
        (Value::Number(ours), Value::Number(theirs)) => assert_eq!(ours.as_f64(), theirs.as_f64(), "{place}"),
        (ours, theirs) => assert_eq!(ours, theirs, "{place}"),
    }
}
