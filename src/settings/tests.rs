//! Tests of agent.toml, environment and flags.

mod server;

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::engine::{OnReboot, RotateFound, RotatePolicy, Unregister, UnregisterShared};
use crate::gitlab::AccessLevel;
use crate::lifecycle::Timing;
use crate::model::{RunnerKey, Site, TlsFiles};
use crate::ops::RegistrationSource;
use crate::secret::{Source, Token};
use crate::sharing::{self, EngineSettings};

const ENROLL: &str = r#"
[[enroll]]
name = "build-1"
url = "https://gitlab.example.com"
registration_token = { file = "token" }
"#;

const ETCD: &str = r#"
[sharing]
engine = "etcd"
endpoints = ["https://etcd-1:2379"]
"#;

#[test]
fn a_missing_agent_toml_means_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let settings = load(&Overrides::default(), &user(directory.path())).unwrap();
    assert_eq!(settings.engine, engine::Config::default());
    assert_eq!(settings.store.config_path, directory.path().join(".gitlab-runner/config.toml"));
    assert_eq!(settings.gitlab.certs_dir, Some(directory.path().join(".gitlab-runner/certs")));
}

#[test]
fn a_missing_named_agent_toml_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let overrides = Overrides { agent_config: Some("absent.toml".into()), ..Overrides::default() };
    let errors = load(&overrides, &user(directory.path())).unwrap_err();
    assert!(errors.to_string().contains("absent.toml: cannot read agent.toml"), "{errors}");
}

#[test]
fn an_unreadable_agent_toml_is_an_error_at_any_path() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("config/agent.toml")).unwrap();
    assert!(load(&Overrides::default(), &user(directory.path())).is_err());
}

#[test]
fn every_key_sets_its_field() {
    let settings = loaded(
        r#"
        [verify]
        interval = "30m"
        found_interval = "2d"
        [rotate]
        at = "50%"
        [shutdown]
        unregister = "all"
        unregister_shared = "last"
        on_reboot = "unregister"
        grace = "20s"
        [timing]
        between_resets = "1s"
        between_resets_floor = "2s"
        confirm_after = "3s"
        settle_after = "4s"
        backoff_first = "5s"
        backoff_cap = "6s"
        floor = "7s"
        retry_after_cap = "8s"
        look_again = "9s"
        longest_nap = "10s"
        [gitlab]
        connect_timeout = "2s"
        request_timeout = "9s"
        in_flight_per_host = 2
        [[server]]
        url = "https://gitlab.example.com"
        access_token = { file = "access" }
        tls_ca_file = "ca.pem"
        [[runner]]
        id = 42
        rotate = "always"
        unregister = "never"
        shared = true
        "#,
    );
    let secs = Duration::from_secs;
    let engine = settings.engine;
    assert_eq!((engine.verify_enrolled, engine.verify_found), (secs(1800), secs(172_800)));
    assert_eq!(engine.rotate, Some("50%".parse().unwrap()));
    assert_eq!((engine.shutdown.unregister, engine.shutdown.grace), (Unregister::All, secs(20)));
    assert_eq!(engine.shutdown.on_reboot, OnReboot::Unregister);
    assert_eq!(engine.shutdown.unregister_shared, UnregisterShared::Last);
    let timing = Timing {
        between_resets: secs(1),
        between_resets_floor: secs(2),
        confirm_after: secs(3),
        settle_after: secs(4),
        backoff_first: secs(5),
        backoff_cap: secs(6),
        floor: secs(7),
        retry_after_cap: secs(8),
        look_again: secs(9),
        longest_nap: secs(10),
    };
    assert_eq!(*engine.timing, timing);
    assert_eq!((settings.gitlab.connect_timeout, settings.gitlab.request_timeout), (secs(2), secs(9)));
    assert_eq!(settings.gitlab.in_flight_per_host, Some(2));
    assert_eq!(engine.servers[0].access_token, Source::File("/etc/x/access".into()));
    let policy = &engine.policies[0];
    assert_eq!(policy.selector.id.map(u64::from), Some(42));
    assert_eq!(
        (policy.rotate, policy.unregister, policy.shared),
        (Some(RotatePolicy::Always), Some(Unregister::Never), Some(true))
    );
}

#[test]
fn rotation_can_be_switched_off() {
    assert_eq!(loaded("[rotate]\nat = \"off\"").engine.rotate, None);
}

#[test]
fn found_entries_are_rotated_as_the_settings_say() {
    assert_eq!(loaded("").engine.rotate_found, RotateFound::LastResort);
    for rule in RotateFound::ALL {
        assert_eq!(loaded(&format!("[rotate]\nfound = \"{rule}\"")).engine.rotate_found, *rule);
    }
}

#[test]
fn an_enrollment_has_all_its_parameters() {
    let settings = loaded(
        r#"
        [[enroll]]
        name = "build-1"
        key = "build"
        url = "https://gitlab.example.com/"
        registration_token = { file = "token" }
        tag_list = "linux, docker"
        description = "the builder"
        run_untagged = true
        locked = false
        access_level = "ref_protected"
        maximum_timeout = 3600
        paused = true
        maintenance_note = "ask Ada"
        executor = "docker"
        shell = "bash"
        limit = 3
        request_concurrency = 2
        tls_ca_file = "ca.pem"
        tls_cert_file = "/tls/cert.pem"
        tls_key_file = "/tls/key.pem"
        "#,
    );
    let enrollment = &settings.engine.enrollments[0];
    assert_eq!((enrollment.key.as_str(), enrollment.entry.name.as_str()), ("build", "build-1"));
    assert_eq!(enrollment.source, RegistrationSource::Registration(Source::File("/etc/x/token".into())));
    let parameters = &enrollment.parameters;
    assert_eq!(parameters.tag_list, ["linux", "docker"]);
    assert_eq!(parameters.description.as_deref(), Some("the builder"));
    assert_eq!((parameters.run_untagged, parameters.locked, parameters.paused), (Some(true), Some(false), Some(true)));
    assert_eq!(parameters.access_level, Some(AccessLevel::RefProtected));
    assert_eq!(parameters.maximum_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(parameters.maintenance_note.as_deref(), Some("ask Ada"));
    let entry = &enrollment.entry;
    assert_eq!((entry.executor.as_deref(), entry.shell.as_deref()), (Some("docker"), Some("bash")));
    assert_eq!((entry.limit, entry.request_concurrency), (Some(3), Some(2)));
    assert_eq!(entry.tls.ca_file.as_deref(), Some(Path::new("/etc/x/ca.pem")));
    assert_eq!(enrollment.site, Site { url: "https://gitlab.example.com".parse().unwrap(), tls: entry.tls.clone() });
}

#[test]
fn defaults_are_those_of_gitlab_runner() {
    let untagged = &loaded(ENROLL).engine.enrollments[0];
    assert_eq!(untagged.key.as_str(), "build-1");
    assert_eq!(untagged.parameters.description.as_deref(), Some("build-1"));
    assert_eq!((untagged.parameters.run_untagged, untagged.parameters.locked), (Some(true), Some(true)));
    assert_eq!((untagged.parameters.paused, untagged.parameters.access_level), (None, None));
    let tagged = &loaded(&format!("{ENROLL}tag_list = [\"linux\"]")).engine.enrollments[0];
    assert_eq!(tagged.parameters.run_untagged, Some(false));
}

#[test]
fn all_errors_are_reported_with_their_lines() {
    let text = r#"interval = "1h"
[verify]
interval = "soon"
found_interval = 5
[rotate]
at = "80%"
[shutdown]
unregister = "sometimes"
[timing]
floor = "0s"
[recover]
register = "sometimes"
[https]
listen = []
[gitlab]
in_flight_per_host = 0
[[enroll]]
name = "a"
url = "gitlab.example.com"
token = { file = "a", env = "b" }
[[enroll]]
name = "b"
registration_token = { env = "ABSENT" }
tagList = ["x"]
[[enroll]]
name = "a"
url = "https://gitlab.example.com"
token = { file = "a" }
registration_token = { credential = "../b" }
[[server]]
url = "https://gitlab.example.com"
[[runner]]
shared = true
"#;
    insta::assert_snapshot!(diagnostics(text));
}

#[test]
fn all_syntax_errors_are_reported() {
    insta::assert_snapshot!(diagnostics("[verify\ninterval = \"1h\"\n[rotate]\nat = 66%\n"));
}

#[test]
fn limits_of_the_server_are_checked() {
    let long = "x".repeat(1025);
    let tags: Vec<_> = (0..51).map(|number| format!("\"t{number}\"")).collect();
    let text = format!(
        "{ENROLL}description = \"{long}\"\ntag_list = [{}]\nmaximum_timeout = \"5m\"\naccess_level = \"open\"\n\
         [[enroll]]\nname = \"c\"\nurl = \"https://x\"\nregistration_token = {{ file = \"t\" }}\nrun_untagged = false",
        tags.join(", ")
    );
    insta::assert_snapshot!(diagnostics(&text));
}

#[test]
fn a_token_in_agent_toml_is_refused_and_not_shown() {
    let message = diagnostics("[[enroll]]\nname = \"a\"\nurl = \"https://x\"\ntoken = \"glrt-secret\"");
    assert!(message.contains("agent.toml:4: `token` must be { file ="), "{message}");
    assert!(!message.contains("glrt-secret"), "{message}");
}

#[test]
fn a_created_runner_takes_no_parameters() {
    let message = diagnostics(
        "[[enroll]]\nname = \"a\"\nurl = \"https://x\"\ntoken = { file = \"t\" }\ntag_list = [\"x\"]\nlocked = true",
    );
    assert!(message.contains("agent.toml:5: `tag_list` needs a registration token"), "{message}");
    assert!(message.contains("agent.toml:6: `locked` needs a registration token"), "{message}");
}

#[test]
fn a_name_that_is_no_valid_key_needs_a_key() {
    let text = ENROLL.replace("build-1", "Build machine 1");
    assert!(diagnostics(&text).contains("set `key`"));
    let settings = loaded(&format!("{text}key = \"build-1\""));
    assert_eq!(settings.engine.enrollments[0].entry.name, "Build machine 1");
}

#[test]
fn an_unreadable_template_is_an_error() {
    let message = diagnostics(&format!("{ENROLL}template = \"docker.toml\""));
    assert!(message.contains("agent.toml:6: cannot read the template `/etc/x/docker.toml`"), "{message}");
}

#[test]
fn a_client_certificate_needs_a_key() {
    let server = "[[server]]\nurl = \"https://a\"\naccess_token = { file = \"a\" }\ntls_key_file = \"key.pem\"";
    assert!(diagnostics(server).contains("set both"));
    let message = diagnostics(&format!("{ENROLL}tls_cert_file = \"cert.pem\""));
    assert!(message.contains("agent.toml:6: the client certificate has no key file"), "{message}");
}

#[test]
fn systemd_credentials_are_read_from_their_directory() {
    let text = ENROLL.replace("file = \"token\"", "credential = \"gitlab\"");
    let source =
        |environment: &Environment| read_text(&text, environment).unwrap().engine.enrollments[0].source.clone();
    let credential = |path| RegistrationSource::Registration(Source::Credential { name: "gitlab".to_owned(), path });
    assert_eq!(source(&Environment::default()), credential(None));
    let with_directory = Environment::default().with("CREDENTIALS_DIRECTORY", "/run/credentials");
    assert_eq!(source(&with_directory), credential(Some("/run/credentials/gitlab".into())));
}

#[test]
fn a_runner_is_created_with_the_access_token_of_its_server() {
    let enroll = ENROLL.replace(
        "registration_token = { file = \"token\" }",
        "create = { runner_type = \"group_type\", group_id = 7 }",
    );
    let server = "[[server]]\nurl = \"https://gitlab.example.com\"\naccess_token = { file = \"access\" }\n";
    let settings = read_text(&format!("{enroll}{server}"), &Environment::default()).unwrap();
    let RegistrationSource::Created(creation) = &settings.engine.enrollments[0].source else { panic!("no creation") };
    assert_eq!(creation.access_token, Source::File("/etc/x/access".into()));
    assert_eq!(creation.owner, crate::gitlab::fleet::NewRunnerOwner::Group(7));
    assert_eq!(creation.tls, TlsFiles::default());

    let ca_of = |text: &str| {
        let settings = read_text(text, &Environment::default()).unwrap();
        let RegistrationSource::Created(creation) = &settings.engine.enrollments[0].source else {
            panic!("no creation")
        };
        creation.tls.ca_file.clone()
    };
    let own = format!("{enroll}tls_ca_file = \"own.pem\"\n{server}");
    assert_eq!(ca_of(&own), Some("/etc/x/own.pem".into()));
    assert_eq!(ca_of(&format!("{own}tls_ca_file = \"ca.pem\"\n")), Some("/etc/x/ca.pem".into()));

    let message = diagnostics(&enroll);
    assert!(
        message.contains("`create` needs an access token: add a [[server]] for https://gitlab.example.com"),
        "{message}"
    );
    let elsewhere = server.replace("gitlab.example.com", "gitlab.example.org");
    assert!(diagnostics(&format!("{enroll}{elsewhere}")).contains("`create` needs an access token"));
    let both = format!("{enroll}token = {{ file = \"token\" }}\n{server}");
    assert!(diagnostics(&both).contains("set either `create` or a token, not both"));
}

#[test]
fn the_environment_makes_one_enrollment() {
    let environment =
        Environment { hostname: "host-1".to_owned(), current_dir: "/work".into(), ..Environment::default() }
            .with("CI_SERVER_URL", "https://gitlab.example.com")
            .with("REGISTRATION_TOKEN", "GR1348941secret")
            .with("RUNNER_TAG_LIST", "linux,docker")
            .with("REGISTER_LOCKED", "false")
            .with("REGISTER_MAXIMUM_TIMEOUT", "3600")
            .with("RUNNER_EXECUTOR", "docker")
            .with("CI_SERVER_TLS_CA_FILE", "ca.pem");
    let enrollments = read_text("", &environment).unwrap().engine.enrollments;
    let [enrollment] = enrollments.as_slice() else { panic!("{enrollments:?}") };
    assert_eq!((enrollment.key.as_str(), enrollment.entry.name.as_str()), (ENVIRONMENT_KEY, "host-1"));
    assert_eq!(enrollment.source, RegistrationSource::Registration(value("GR1348941secret", "REGISTRATION_TOKEN")));
    assert_eq!(enrollment.parameters.tag_list, ["linux", "docker"]);
    assert_eq!(enrollment.parameters.locked, Some(false));
    assert_eq!(enrollment.entry.tls.ca_file.as_deref(), Some(Path::new("/work/ca.pem")));
}

#[test]
fn the_hostname_names_only_a_new_runner() {
    let text = ENROLL.replace("name = \"build-1\"\n", "");
    let environment = Environment { hostname: "host-1".to_owned(), ..Environment::default() };
    let called = |environment: &Environment| {
        let enrollment = read_text(&text, environment).unwrap().engine.enrollments[0].clone();
        (enrollment.key.to_string(), enrollment.entry.name, enrollment.parameters.description.unwrap())
    };
    let all = |name: &str| ("default".to_owned(), name.to_owned(), name.to_owned());
    assert_eq!(called(&environment), all("host-1"));
    let names = [("default", "host-0"), ("build-1", "other")]
        .map(|(key, name)| (RunnerKey::enrollment(key).unwrap(), name.to_owned()));
    assert_eq!(called(&environment.remembering(names)), all("host-0"));
}

#[test]
fn a_url_without_a_token_is_no_enrollment() {
    let environment = Environment::default()
        .with("CI_SERVER_URL", "https://gitlab.example.com")
        .with("REGISTRATION_TOKEN", "")
        .with("RUNNER_TAG_LIST", "linux");
    assert!(read_text("", &environment).unwrap().engine.enrollments.is_empty());
}

#[test]
fn all_errors_in_the_environment_are_reported() {
    let environment = Environment::default()
        .with("REGISTRATION_TOKEN", "two words")
        .with("REGISTRATION_TOKEN_FILE", "/run/secrets/token")
        .with("REGISTER_LOCKED", "maybe")
        .with("REGISTER_MAXIMUM_TIMEOUT", "long")
        .with("RUNNER_LIMIT", "-1");
    insta::assert_snapshot!(read_text("", &environment).unwrap_err());
}

#[test]
fn a_registration_token_can_be_a_created_runners() {
    let environment = Environment { hostname: "host-1".to_owned(), ..Environment::default() }
        .with("CI_SERVER_URL", "https://gitlab.example.com")
        .with("REGISTRATION_TOKEN", "glrt-secret")
        .with("RUNNER_TAG_LIST", "linux");
    let settings = read_text("", &environment).unwrap();
    let enrollment = &settings.engine.enrollments[0];
    assert_eq!(enrollment.source, RegistrationSource::Given(value("glrt-secret", "REGISTRATION_TOKEN")));
    assert!(enrollment.parameters.tag_list.is_empty());
    assert_eq!(
        settings.warnings,
        ["REGISTRATION_TOKEN: this is a created runner's token; ignored, because they are set in GitLab: tag_list"]
    );
}

#[test]
fn the_environment_and_an_enrollment_cannot_share_a_key() {
    let environment =
        Environment::default().with("CI_SERVER_URL", "https://x").with("CI_SERVER_TOKEN_FILE", "/run/token");
    let errors = read_text(&format!("{ENROLL}key = \"env\""), &environment).unwrap_err();
    assert!(errors.to_string().contains("the enrollment at /etc/x/agent.toml:6 has the key `env` too"), "{errors}");
}

#[test]
fn two_enrollments_cannot_mean_the_same_entry() {
    let second = ENROLL.replace("[[enroll]]", "[[enroll]]\nkey = \"other\"");
    let both = format!("{ENROLL}{second}");
    let message = "/etc/x/agent.toml:9: the enrollment at /etc/x/agent.toml:3 has the name `build-1` at https://gitlab.example.com too";
    assert!(diagnostics(&both).starts_with(message), "{}", diagnostics(&both));
    // Other mistakes are reported with it.
    assert_eq!(diagnostics(&format!("{both}[verify]\ninterval = \"soon\"\n")).lines().count(), 2);
    for different in [second.replace("build-1", "build-2"), second.replace("gitlab.example.com", "gitlab.example.org")]
    {
        assert_eq!(loaded(&format!("{ENROLL}{different}")).engine.enrollments.len(), 2);
    }
    let environment = Environment { hostname: "build-1".to_owned(), ..Environment::default() }
        .with("CI_SERVER_URL", "https://gitlab.example.com/")
        .with("REGISTRATION_TOKEN", "GR1348941secret");
    let errors = read_text(ENROLL, &environment).unwrap_err();
    assert!(errors.to_string().contains("has the name `build-1`"), "{errors}");
}

#[test]
fn two_enrollments_cannot_take_the_same_token() {
    let given = ENROLL.replace("registration_token", "token");
    let second = given.replace("build-1", "build-2");
    assert!(diagnostics(&format!("{given}{second}")).contains("has the same `token` too"));
    let another = second.replace("\"token\" }", "\"another\" }");
    assert_eq!(loaded(&format!("{given}{another}")).engine.enrollments.len(), 2);
}

#[test]
fn commands_ignore_the_enrollment_of_the_environment() {
    let environment = Environment::default().with("REGISTRATION_TOKEN", "not even one with an address");
    let directory = tempfile::tempdir().unwrap();
    let environment = Environment { user: user(directory.path()).user, ..environment };
    assert!(load_for_command(&Overrides::default(), &environment).is_ok());
    assert!(load(&Overrides::default(), &environment).is_err());
}

#[test]
fn a_store_of_shared_runners_has_all_its_settings() {
    let settings = loaded(
        r#"
        [sharing]
        engine = "etcd"
        endpoints = ["https://etcd-1:2379/", "https://etcd-2:2379", "https://etcd-1:2379"]
        prefix = "/ci/"
        tls_ca_file = "etcd-ca.pem"
        tls_cert_file = "/tls/etcd.pem"
        tls_key_file = "/tls/etcd.key"
        username = "agent"
        password = { file = "etcd-password" }
        encryption_key = { credential = "sharing-key" }
        recover = true
        "#,
    );
    let sharing::Settings { engine, encryption_key, recover } = settings.engine.sharing.unwrap();
    let EngineSettings::Etcd { endpoints, prefix, tls, user } = engine else { panic!("{engine:?}") };
    let endpoints: Vec<_> = endpoints.iter().map(|url| url.as_str()).collect();
    assert_eq!(endpoints, ["https://etcd-1:2379", "https://etcd-2:2379"]);
    assert_eq!((prefix.as_str(), recover), ("/ci/", true));
    assert_eq!(tls.ca_file.as_deref(), Some(Path::new("/etc/x/etcd-ca.pem")));
    assert_eq!(tls.cert_file.as_deref(), Some(Path::new("/tls/etcd.pem")));
    assert_eq!(tls.key_file.as_deref(), Some(Path::new("/tls/etcd.key")));
    assert_eq!(user, Some(("agent".to_owned(), Source::File("/etc/x/etcd-password".into()))));
    assert_eq!(encryption_key, Some(Source::Credential { name: "sharing-key".to_owned(), path: None }));

    let settings = loaded("[sharing]\nengine = \"kubernetes\"\nkubeconfig = \"kube.yaml\"\nnamespace = \"ci\"\n");
    let kubernetes =
        EngineSettings::Kubernetes { kubeconfig: Some("/etc/x/kube.yaml".into()), namespace: Some("ci".to_owned()) };
    let expected = sharing::Settings { engine: kubernetes, encryption_key: None, recover: false };
    assert_eq!(settings.engine.sharing, Some(expected));
}

#[test]
fn a_store_without_further_settings_has_defaults() {
    let EngineSettings::Etcd { prefix, tls, user, .. } = loaded(ETCD).engine.sharing.unwrap().engine else {
        panic!("another engine")
    };
    assert_eq!((prefix.as_str(), tls, user), ("/runner-agent/", TlsFiles::default(), None));
    let pod = loaded("[sharing]\nengine = \"kubernetes\"").engine.sharing.unwrap().engine;
    assert_eq!(pod, EngineSettings::Kubernetes { kubeconfig: None, namespace: None });
    assert_eq!(loaded(ENROLL).engine.sharing, None);
}

#[test]
fn an_enrollment_of_any_kind_but_api_v1_can_be_shared() {
    let shared =
        |text: &str| loaded(&format!("{text}share_as = \"docker-fleet\"\n{ETCD}")).engine.enrollments.remove(0);
    let name = Some("docker-fleet".parse().unwrap());
    for text in [ENROLL.to_owned(), ENROLL.replace("registration_token", "token")] {
        assert_eq!(shared(&text).share_as, name);
    }
    assert_eq!(loaded(&format!("{ENROLL}{ETCD}")).engine.enrollments[0].share_as, None);

    let draft = Draft {
        is_v1: true,
        url: Some(Placed::new(Some("https://x".to_owned()), Place::Flag("--url"))),
        registration_token: Some(Placed::new(
            Some(Source::File("/t".into())),
            Place::Flag("--registration-token-file"),
        )),
        share_as: Some(Placed::new("docker-fleet".to_owned(), Place::Flag("--share-as"))),
        name: Some(Placed::new("a".to_owned(), Place::Flag("--name"))),
        ..Draft::at(Place::Flag("register"))
    };
    let errors = enrollment(draft, &Environment::default()).unwrap_err();
    assert_eq!(errors.to_string(), "--share-as: API v1 has no rotation, so there is nothing that machines could share");
}

#[test]
fn errors_in_the_store_of_shared_runners_are_reported_with_their_lines() {
    let texts = [
        "[sharing]\nprefix = \"/x/\"",
        "[sharing]\nengine = \"consul\"\nendpoints = []",
        "[sharing]\nengine = \"etcd\"",
        "[sharing]\nengine = \"etcd\"\nendpoints = []",
        "[sharing]\nengine = \"etcd\"\nendpoints = 5",
        "[sharing]\nengine = \"etcd\"\nendpoints = [\"etcd-1:2379\", \"etcd 2\", \"https://me:secret@etcd-3\"]",
        "[sharing]\nengine = \"etcd\"\nendpoints = [\"https://a\"]\nprefix = \"/runner-agent\"\ntls_cert_file = \"c\"",
        "[sharing]\nengine = \"etcd\"\nendpoints = [\"https://a\"]\nusername = \"me\"",
        "[sharing]\nengine = \"etcd\"\nendpoints = [\"https://a\"]\npassword = { file = \"p\" }",
        "[sharing]\nengine = \"etcd\"\nendpoints = [\"https://a\"]\nusername = \"me\"\npassword = \"secret\"",
        "[sharing]\nengine = \"etcd\"\nendpoints = [\"https://a\"]\nnamespace = \"ci\"\nkubeconfig = \"k\"",
        "[sharing]\nengine = \"kubernetes\"\nendpoints = [\"https://a\"]\nusername = \"me\"\nnamespace = \"C I\"",
        "[sharing]\nengine = \"kubernetes\"\nkubeconfig = \"\"\nrecover = \"yes\"\nleader = true",
        "[shutdown]\nunregister_shared = \"all\"",
    ];
    let reports: Vec<_> = texts.iter().map(|text| format!("{text}\n\n{}\n", diagnostics(text))).collect();
    insta::assert_snapshot!(reports.join("----\n"));
}

#[test]
fn a_password_is_sent_unencrypted_only_to_this_machine() {
    let text = |url: &str| {
        format!(
            "[sharing]\nengine = \"etcd\"\nendpoints = [\"{url}\"]\nusername = \"me\"\npassword = {{ file = \"p\" }}"
        )
    };
    for url in ["https://etcd-1:2379", "http://127.0.0.1:2379", "http://[::1]:2379", "http://localhost:2379"] {
        assert!(loaded(&text(url)).engine.sharing.is_some(), "{url}");
    }
    for url in ["http://etcd-1:2379", "http://192.0.2.1:2379", "http://localhost.example.com:2379"] {
        let expected = format!("/etc/x/agent.toml:3: {url} would get the password unencrypted: use https");
        assert_eq!(diagnostics(&text(url)), expected);
    }
    assert!(loaded("[sharing]\nengine = \"etcd\"\nendpoints = [\"http://etcd-1:2379\"]").engine.sharing.is_some());
}

#[test]
fn a_shared_enrollment_needs_a_store_and_a_name_of_its_own() {
    let shared = format!("{ENROLL}share_as = \"docker-fleet\"\n");
    assert_eq!(
        diagnostics(&shared),
        "/etc/x/agent.toml:6: a shared runner needs a store: add [sharing] to agent.toml, or set SHARING_ENGINE"
    );
    // An invalid store is one mistake, not two.
    assert_eq!(diagnostics(&format!("{shared}[sharing]\nengine = \"etcd\"")).lines().count(), 1);
    let message = diagnostics(&format!("{}{ETCD}", shared.replace("docker-fleet", "Docker fleet")));
    assert_eq!(
        message,
        "/etc/x/agent.toml:6: invalid name `Docker fleet`: the name of a shared runner has 1 to 40 lower-case letters, digits and dashes, with no dash at either end"
    );
    let other = shared.replace("build-1", "build-2").replace("gitlab.example.com", "gitlab.example.org");
    assert_eq!(
        diagnostics(&format!("{shared}{other}{ETCD}")),
        "/etc/x/agent.toml:12: the enrollment at /etc/x/agent.toml:6 has `share_as = \"docker-fleet\"` too: remove one"
    );
    let another = other.replace("docker-fleet", "shell-fleet");
    assert_eq!(loaded(&format!("{shared}{another}{ETCD}")).engine.enrollments.len(), 2);
}

#[test]
fn a_runner_in_the_store_cannot_be_declared_shared() {
    let shared = format!("{ENROLL}share_as = \"docker-fleet\"\n{ETCD}");
    let with = |policies: &str| read_text(&format!("{shared}{policies}"), &Environment::default());
    for selector in [
        "name = \"build-1\"",
        "url = \"https://gitlab.example.com\"",
        "name = \"build-1\"\nid = 5",
        "name = \"build-1\"\nurl = \"https://gitlab.example.com\"",
    ] {
        let errors = with(&format!("[[runner]]\n{selector}\nshared = true\n")).unwrap_err().to_string();
        let expected = "/etc/x/agent.toml:6: its [[runner]] has `shared = true`, so that nothing rotates its token: remove that, or `share_as`";
        assert_eq!(errors, expected, "{selector}");
    }
    for policies in [
        "[[runner]]\nname = \"build-2\"\nshared = true\n",
        "[[runner]]\nid = 5\nshared = true\n",
        "[[runner]]\nname = \"build-1\"\nshared = false\n[[runner]]\nurl = \"https://gitlab.example.com\"\nshared = true\n",
        "[[runner]]\nname = \"build-1\"\nrotate = \"auto\"\n",
    ] {
        assert!(with(policies).is_ok(), "{policies}");
    }
}

#[test]
fn a_shared_runner_that_cannot_be_recovered_causes_a_warning() {
    let shared = format!("{ENROLL}share_as = \"docker-fleet\"\n");
    let server = |host: &str| format!("[[server]]\nurl = \"https://{host}\"\naccess_token = {{ file = \"/t\" }}\n");
    let (recover, other, own) =
        (format!("{ETCD}recover = true\n"), server("gitlab.example.org"), server("gitlab.example.com"));
    let warning = "/etc/x/agent.toml:11: `recover` has no effect on the shared runner `docker-fleet`: it needs the access token of a [[server]] with the url https://gitlab.example.com";
    for (text, expected) in [
        (format!("{shared}{recover}"), Some(warning)),
        (format!("{shared}{recover}{other}"), Some(warning)),
        (format!("{shared}{recover}{own}"), None),
        (format!("{shared}{ETCD}"), None),
        (format!("{shared}{ETCD}recover = false\n"), None),
        (format!("{ENROLL}{recover}"), None),
    ] {
        assert_eq!(loaded(&text).warnings.first().map(String::as_str), expected, "{text}");
    }
}

#[test]
fn the_store_comes_from_variables_too() {
    let environment =
        Environment { current_dir: "/work".into(), hostname: "host-1".to_owned(), ..Environment::default() }
            .with("CI_SERVER_URL", "https://gitlab.example.com")
            .with("REGISTRATION_TOKEN", "GR1348941secret")
            .with("RUNNER_SHARE_AS", "docker-fleet");
    let message = read_text("", &environment).unwrap_err().to_string();
    assert_eq!(
        message,
        "RUNNER_SHARE_AS: a shared runner needs a store: add [sharing] to agent.toml, or set SHARING_ENGINE"
    );

    let etcd = environment
        .clone()
        .with("SHARING_ENGINE", "etcd")
        .with("SHARING_ENDPOINTS", "https://etcd-1:2379, https://etcd-2:2379")
        .with("SHARING_PREFIX", "/ci/")
        .with("SHARING_TLS_CA_FILE", "ca.pem")
        .with("SHARING_TLS_CERT_FILE", "cert.pem")
        .with("SHARING_TLS_KEY_FILE", "key.pem")
        .with("SHARING_USERNAME", "agent")
        .with("SHARING_PASSWORD_FILE", "password")
        .with("SHARING_ENCRYPTION_KEY", "0123456789abcdef0123456789abcdef")
        .with("SHARING_RECOVER", "1");
    let settings = read_text("", &etcd).unwrap().engine;
    assert_eq!(settings.enrollments[0].share_as, Some("docker-fleet".parse().unwrap()));
    let tls = ["ca.pem", "cert.pem", "key.pem"].map(|name| Some(Path::new("/work").join(name)));
    let [ca_file, cert_file, key_file] = tls;
    let engine = EngineSettings::Etcd {
        endpoints: ["https://etcd-1:2379", "https://etcd-2:2379"].map(|url| url.parse().unwrap()).to_vec(),
        prefix: "/ci/".to_owned(),
        tls: crate::model::TlsPaths { ca_file, cert_file, key_file }.into(),
        user: Some(("agent".to_owned(), Source::File("/work/password".into()))),
    };
    let encryption_key = Some(value("0123456789abcdef0123456789abcdef", "SHARING_ENCRYPTION_KEY"));
    assert_eq!(settings.sharing, Some(sharing::Settings { engine, encryption_key, recover: true }));

    let kubernetes = environment
        .with("SHARING_ENGINE", "kubernetes")
        .with("SHARING_KUBECONFIG", "kube.yaml")
        .with("SHARING_NAMESPACE", "ci");
    let engine =
        EngineSettings::Kubernetes { kubeconfig: Some("/work/kube.yaml".into()), namespace: Some("ci".to_owned()) };
    assert_eq!(read_text("", &kubernetes).unwrap().engine.sharing.unwrap().engine, engine);
}

#[test]
fn a_variable_overrides_one_key_of_the_store_also_for_commands() {
    let environment = Environment::default()
        .with("SHARING_ENDPOINTS", "https://etcd-9:2379")
        .with("SHARING_ENCRYPTION_KEY_FILE", "/run/key");
    let mut paths = paths(&Overrides::default(), &environment);
    paths.agent_config = "/etc/x/agent.toml".into();
    for scope in [Scope::Daemon, Scope::Command] {
        let text = Some(format!("{ETCD}prefix = \"/ci/\"\n"));
        let settings = assemble(&paths, text, &Overrides::default(), &environment, scope).unwrap();
        let sharing::Settings { engine, encryption_key, .. } = settings.engine.sharing.unwrap();
        let EngineSettings::Etcd { endpoints, prefix, .. } = engine else { panic!("{engine:?}") };
        assert_eq!((endpoints[0].as_str(), prefix.as_str()), ("https://etcd-9:2379", "/ci/"));
        assert_eq!(encryption_key, Some(Source::File("/run/key".into())));
    }
}

#[test]
fn all_errors_in_the_variables_of_the_store_are_reported() {
    let environments = [
        Environment::default().with("SHARING_PREFIX", "/x/"),
        Environment::default()
            .with("SHARING_ENGINE", "Etcd")
            .with("SHARING_PASSWORD", "two words")
            .with("SHARING_ENCRYPTION_KEY", "a")
            .with("SHARING_ENCRYPTION_KEY_FILE", "/run/key")
            .with("SHARING_RECOVER", "maybe"),
        Environment::default()
            .with("SHARING_ENGINE", "etcd")
            .with("SHARING_ENDPOINTS", "http://etcd-1:2379")
            .with("SHARING_USERNAME", "me")
            .with("SHARING_PASSWORD", "secret")
            .with("SHARING_NAMESPACE", "ci"),
    ];
    let reports = environments.map(|environment| read_text("", &environment).unwrap_err().to_string());
    insta::assert_snapshot!(reports.join("\n----\n"));
}

#[test]
fn secrets_of_the_store_that_all_users_can_read_cause_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let [password, key] = ["password", "key"].map(|name| directory.path().join(name));
    for (path, mode) in [(&password, 0o644), (&key, 0o604)] {
        fs::write(path, "0123456789abcdef0123456789abcdef").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let text = format!(
        "{ETCD}username = \"me\"\npassword = {{ file = \"{}\" }}\nencryption_key = {{ file = \"{}\" }}\n",
        password.display(),
        key.display()
    );
    let warnings: Vec<_> = loaded(&text).secret_warnings().collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("0644") && warnings[1].contains("0604"), "{warnings:?}");
}

#[test]
fn proxy_variables_are_read_in_either_case() {
    let environment = Environment::default().with("HTTPS_PROXY", "http://a").with("https_proxy", "http://b");
    let settings = read_text("", &environment.with("no_proxy", "localhost")).unwrap();
    assert_eq!(settings.gitlab.proxies.https.unwrap().variable, "HTTPS_PROXY");
    assert_eq!(settings.gitlab.proxies.no_proxy.as_deref(), Some("localhost"));
}

#[test]
fn files_are_found_by_flag_then_variable_then_default() {
    let environment = Environment { current_dir: "/work".into(), is_root: true, ..Environment::default() };
    let defaults = paths(&Overrides::default(), &environment);
    assert_eq!(defaults.config, Path::new("/etc/gitlab-runner/config.toml"));
    assert_eq!(defaults.agent_config, Path::new("/etc/runner-agent/agent.toml"));
    assert_eq!(defaults.state_root.as_deref(), Some(Path::new("/var/lib/runner-agent")));
    let environment = environment
        .with("CONFIG_FILE", "here.toml")
        .with("RUNNER_AGENT_CONFIG", "/a/agent.toml")
        .with("STATE_DIRECTORY", "/var/lib/private/a:/var/lib/b");
    let of_variables = paths(&Overrides::default(), &environment);
    assert_eq!(of_variables.config, Path::new("/work/here.toml"));
    assert!(of_variables.agent_config_is_named);
    assert_eq!(of_variables.state_root.as_deref(), Some(Path::new("/var/lib/private/a")));
    let overrides = Overrides { config: Some("/b.toml".into()), state_dir: Some("s".into()), ..Overrides::default() };
    let of_flags = paths(&overrides, &environment);
    assert_eq!(of_flags.config, Path::new("/b.toml"));
    assert_eq!(of_flags.state_root.as_deref(), Some(Path::new("/work/s")));
}

#[test]
fn debug_of_an_environment_shows_no_values() {
    let environment = Environment::default().with("REGISTRATION_TOKEN", "secret");
    assert!(!format!("{environment:?}").contains("secret"));
}

#[test]
fn the_key_of_register_depends_on_server_and_name() {
    let draft = |name: &str| Draft {
        name: Some(Placed::new(name.to_owned(), Place::Flag("--name"))),
        url: Some(Placed::new(Some("https://x".to_owned()), Place::Flag("--url"))),
        token: Some(Placed::new(Some(Source::File("/t".into())), Place::Flag("--token-file"))),
        ..Draft::at(Place::Flag("register"))
    };
    let key = |name| enrollment(draft(name), &Environment::default()).unwrap().0.key;
    assert_eq!(key("My runner"), key("My runner"));
    assert_ne!(key("My runner"), key("Your runner"));
}

#[test]
fn flags_win_over_the_environment() {
    let flag = |value: &str| Some(Placed::new(value.to_owned(), Place::Flag("--flag")));
    let token = Some(Placed::new(Some(Source::File("/t".into())), Place::Flag("--token-file")));
    let flags = Draft { name: flag("mine"), token, ..Draft::at(Place::Flag("register")) };
    let environment = Environment::default()
        .with("CI_SERVER_URL", "https://x")
        .with("REGISTRATION_TOKEN", "GR1348941secret")
        .with("RUNNER_NAME", "theirs")
        .with("RUNNER_EXECUTOR", "shell");
    let (enrollment, _) = enrollment(flags.or(Draft::of_environment(&environment)), &environment).unwrap();
    assert_eq!(enrollment.entry.name, "mine");
    assert_eq!(enrollment.source, RegistrationSource::Given(Source::File("/t".into())));
    assert_eq!(enrollment.entry.executor.as_deref(), Some("shell"));
}

#[test]
fn a_template_needs_exactly_one_entry() {
    for (template, expected) in
        [("", "0 [[runners]]"), ("[[runners]]\n[[runners]]\n", "2 [[runners]]"), ("[[", "line 1")]
    {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker.toml");
        fs::write(&path, template).unwrap();
        let message = diagnostics(&format!("{ENROLL}template = \"{}\"", path.display()));
        assert!(message.contains("agent.toml:6: ") && message.contains(expected), "{message}");
    }
}

#[test]
fn errors_in_flags_are_usage_errors() {
    let errors = enrollment(Draft::at(Place::Flag("register")), &Environment::default()).unwrap_err();
    assert!(errors.is_usage());
    assert_eq!(errors.diagnostics().len(), 2);
}

#[test]
fn a_path_that_only_a_shell_expands_is_an_error_that_says_what_to_write() {
    for path in ["~/token", "~", "$HOME/token", "${HOME}/token"] {
        let text = ENROLL.replace("{ file = \"token\" }", &format!("{{ file = \"{path}\" }}"));
        let errors = diagnostics(&text);
        assert!(errors.contains(&format!("`file`: only a shell expands the beginning of `{path}`")), "{errors}");
        assert!(errors.contains("write the whole path"), "{errors}");
    }
    for path in ["./~/token", "~token", "a~/$b", "$"] {
        loaded(&ENROLL.replace("{ file = \"token\" }", &format!("{{ file = \"{path}\" }}")));
    }
}

#[test]
fn an_unknown_key_is_followed_by_the_near_one_or_by_all() {
    assert!(
        diagnostics("[verify]\nintervall = 1")
            .ends_with("unknown key `intervall` in [verify]: did you mean `interval`?")
    );
    assert!(
        diagnostics("[verify]\nx = 1").ends_with("unknown key `x` in [verify]: known are: interval, found_interval")
    );
}

#[test]
fn remote_addresses_need_allow_remote() {
    let loopback = loaded("[http]\nlisten = [\"127.0.0.1:9252\", \"[::1]:9252\", \"[::ffff:127.0.0.1]:80\"]\n");
    assert_eq!(loopback.status_server.listen.len(), 3);
    for address in ["0.0.0.0:9252", ":9252", "[::]:9252", "192.0.2.1"] {
        let listen = format!("[http]\nlisten = [\"{address}\"]\n");
        let message = diagnostics(&listen);
        assert!(message.starts_with("/etc/x/agent.toml:2: ") && message.contains("allow_remote = true"), "{message}");
        assert_eq!(loaded(&format!("{listen}allow_remote = true\n")).status_server.listen.len(), 1);
    }
    assert!(diagnostics("[http]\nlisten = \"here\"\nport = 1\n").lines().count() == 2);
}

#[test]
fn listen_addresses_come_from_flag_variable_then_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.toml");
    std::fs::write(&path, "[http]\nlisten = [\"127.0.0.1:1\"]\n").unwrap();
    let file = Overrides { agent_config: Some(path), ..Overrides::default() };
    let listen =
        |overrides: &Overrides, environment: &Environment| load(overrides, environment).unwrap().status_server.listen;
    let ports =
        |addresses: Vec<std::net::SocketAddr>| -> Vec<_> { addresses.iter().map(|address| address.port()).collect() };
    assert_eq!(ports(listen(&file, &Environment::default())), [1]);
    let environment = Environment::default().with("LISTEN_ADDRESS", "127.0.0.1:2");
    assert_eq!(ports(listen(&file, &environment)), [2]);
    let flag = Overrides { listen_address: Some("127.0.0.1:3,[::1]:4".to_owned()), ..file.clone() };
    assert_eq!(ports(listen(&flag, &environment)), [3, 4]);
    let remote = Overrides { listen_address: Some("0.0.0.0:3".to_owned()), ..file };
    assert!(load(&remote, &environment).unwrap_err().is_usage());
    assert_eq!(ports(listen(&remote, &environment.with("LISTEN_ALLOW_REMOTE", "1"))), [3]);
}

#[test]
fn the_socket_follows_flag_user_and_service_manager() {
    let sockets = |overrides: &Overrides, environment: &Environment| paths(overrides, environment).sockets;
    let root = Environment { is_root: true, ..Environment::default() };
    let default = Overrides::default();
    let texts = |paths: Vec<PathBuf>| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    assert_eq!(texts(sockets(&default, &root)), ["/run/runner-agent/agent.sock", "/var/lib/runner-agent/agent.sock"]);
    let service = root.with("RUNTIME_DIRECTORY", "/run/a:/run/b").with("STATE_DIRECTORY", "/var/lib/a");
    assert_eq!(texts(sockets(&default, &service)), ["/run/a/agent.sock", "/var/lib/a/agent.sock"]);
    let user = user(Path::new("/home/a")).with("XDG_RUNTIME_DIR", "/run/user/1");
    assert_eq!(texts(sockets(&default, &user)), ["/run/user/1/runner-agent/agent.sock", "/home/a/state/agent.sock"]);
    let named = Overrides { socket: Some("/x/y.sock".into()), ..default };
    assert_eq!(texts(sockets(&named, &user)), ["/x/y.sock"]);
}

/// Reads a text as `/etc/x/agent.toml`.
pub(super) fn loaded(text: &str) -> Settings {
    read_text(text, &Environment::default()).unwrap()
}

pub(super) fn diagnostics(text: &str) -> String {
    read_text(text, &Environment::default()).unwrap_err().to_string()
}

pub(super) fn read_text(text: &str, environment: &Environment) -> Result<Settings, Errors> {
    let mut paths = paths(&Overrides::default(), environment);
    paths.agent_config = "/etc/x/agent.toml".into();
    assemble(&paths, Some(text.to_owned()), &Overrides::default(), environment, Scope::Daemon)
}

fn value(token: &str, origin: &str) -> Source {
    Source::Value { token: Token::parse(token).unwrap(), origin: origin.to_owned() }
}

fn user(home: &Path) -> Environment {
    let user = UserDirectories { home: home.to_owned(), config: home.join("config"), state: home.join("state") };
    Environment { user: Some(user), current_dir: home.to_owned(), ..Environment::default() }
}
