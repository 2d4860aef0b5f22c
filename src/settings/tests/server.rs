//! Tests of `[[server]]`: the access token, and how it is kept.

use std::time::Duration;

use super::{diagnostics, loaded, read_text};
use crate::lifecycle::{AccessKeeping, UsedElsewhere};
use crate::model::AccessTokenOwner;
use crate::settings::Environment;

fn server(access_token: &str) -> String {
    format!("[[server]]\nurl = \"https://gitlab.example.com\"\naccess_token = {access_token}\n")
}

#[test]
fn an_access_token_is_kept_as_it_is_unless_the_settings_ask_for_more() {
    for text in ["{ file = \"t\" }", "{ file = \"t\", rotate = false }", "{ credential = \"t\", rotate = false }"] {
        assert_eq!(loaded(&server(text)).engine.servers[0].keeping, AccessKeeping::default(), "{text}");
    }
}

#[test]
fn every_key_of_an_access_token_sets_its_field() {
    let keeping = |text: &str| loaded(&server(text)).engine.servers[0].keeping.clone();
    let rotated = AccessKeeping { rotate: true, ..AccessKeeping::default() };
    let day = Duration::from_secs(24 * 60 * 60);
    for (text, expected) in [
        ("{ file = \"t\", rotate = true }", rotated.clone()),
        ("{ file = \"t\", rotate = true, life = \"90d\" }", AccessKeeping { life: Some(90 * day), ..rotated.clone() }),
        ("{ file = \"t\", rotate = true, life = \"1d\" }", AccessKeeping { life: Some(day), ..rotated.clone() }),
        (
            "{ file = \"t\", rotate = true, life = \"400d\", used_elsewhere = \"rotate\" }",
            AccessKeeping { life: Some(400 * day), used_elsewhere: UsedElsewhere::Rotate, ..rotated.clone() },
        ),
        (
            "{ file = \"t\", rotate = true, used_elsewhere = \"report\", group = 7 }",
            AccessKeeping { owner: AccessTokenOwner::Group("7".to_owned()), ..rotated },
        ),
        // It decides the call of `access-token rotate`, too.
        (
            "{ file = \"t\", project = \"a/b.c\" }",
            AccessKeeping { owner: AccessTokenOwner::Project("a/b.c".to_owned()), ..AccessKeeping::default() },
        ),
    ] {
        assert_eq!(keeping(text), expected, "{text}");
    }
}

#[test]
fn mistakes_in_an_access_token_are_reported_with_what_to_do() {
    let texts = [
        "\"glpat-secret\"",
        "{ rotate = true }",
        "{ file = \"t\", env = \"GITLAB_TOKEN\", rotate = true }",
        "{ credential = \"gitlab-access-token\", rotate = true, life = \"90d\" }",
        "{ env = \"ACCESS\", rotate = true }",
        "{ env = \"RUNNER\" }",
        "{ file = \"t\", life = \"90d\", used_elsewhere = \"rotate\" }",
        "{ file = \"t\", rotate = false, life = \"90d\" }",
        "{ file = \"t\", rotate = true, life = \"23h\" }",
        "{ file = \"t\", rotate = true, life = \"401d\" }",
        "{ file = \"t\", rotate = true, life = 90 }",
        "{ file = \"t\", rotate = true, life = \"ninety\" }",
        "{ file = \"t\", rotate = \"yes\" }",
        "{ file = \"t\", rotate = true, group = 7, project = 8 }",
        "{ file = \"t\", rotate = true, group = \"/a/\" }",
        "{ file = \"t\", rotate = true, project = -1 }",
        "{ file = \"t\", rotate = true, used_elsewhere = \"ignore\" }",
        "{ file = \"t\", rotates = true }",
        "{ file = \"t\", rotate = true, useed_elsewhere = \"rotate\" }",
    ];
    let environment = Environment::default().with("ACCESS", "glpat-of-the-environment").with("RUNNER", "glrt-secret");
    let report = |text: &&str| {
        let errors = read_text(&server(text), &environment).unwrap_err().to_string();
        assert!(!errors.contains("secret") && !errors.contains("of-the-environment"), "{errors}");
        format!("{text}\n\n{errors}\n")
    };
    insta::assert_snapshot!(texts.iter().map(report).collect::<Vec<_>>().join("----\n"));
}

#[test]
fn machines_that_share_a_runner_are_warned_of_copies_of_a_rotated_token() {
    let sharing = "[sharing]\nengine = \"etcd\"\nendpoints = [\"https://etcd:2379\"]\nprefix = \"/runner-agent/\"\n";
    let enrollment = "[[enroll]]\nname = \"docker\"\nurl = \"https://gitlab.example.com\"\ncreate = { runner_type = \"instance_type\" }\n";
    let warned = |token: &str, shared: &str| {
        let text = format!("{}{enrollment}{shared}{sharing}", server(token));
        let warnings = loaded(&text).warnings;
        warnings.iter().any(|warning| warning.contains("give every machine an access token of its own"))
    };
    assert!(warned("{ file = \"t\", rotate = true }", "share_as = \"fleet\"\n"));
    assert!(!warned("{ file = \"t\" }", "share_as = \"fleet\"\n"));
    assert!(!warned("{ file = \"t\", rotate = true }", ""));
}

#[test]
fn two_servers_cannot_rotate_one_file() {
    let first = server("{ file = \"t\" }");
    let second = |text: &str| server(text).replace("gitlab.example.com", "gitlab.example.org");
    loaded(&format!("{first}{}", second("{ file = \"t\" }")));
    loaded(&format!("{first}{}", second("{ file = \"u\", rotate = true }")));
    assert_eq!(
        diagnostics(&format!("{first}{}", second("{ file = \"t\", rotate = true }"))),
        "/etc/x/agent.toml:4: https://gitlab.example.com and https://gitlab.example.org have one access token file, and it would be rotated: give each server a file of its own"
    );
}
