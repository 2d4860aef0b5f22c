//! `shared`, in a build without a store.

use test_support::Sandbox;

const SHARED: &str = "\
[sharing]
engine = \"etcd\"
endpoints = [\"https://127.0.0.1:1\"]

[[enroll]]
name = \"docker\"
url = \"https://gitlab.example.com\"
token = { file = \"token\" }
share_as = \"docker-fleet\"
";

const COMMANDS: [&[&str]; 4] = [
    &["shared", "list"],
    &["shared", "show", "docker-fleet"],
    &["shared", "heal", "docker-fleet"],
    &["shared", "forget", "docker-fleet", "--yes"],
];

fn sandbox(settings: &str) -> Sandbox {
    let sandbox = super::sandbox();
    sandbox.write("token", "glrt-secret");
    sandbox.write_fast_settings(settings);
    sandbox
}

#[test]
fn store_that_is_not_compiled_in_is_said_with_the_package_that_has_it() {
    let sandbox = sandbox(SHARED);
    for command in COMMANDS {
        sandbox
            .run(command)
            .exits(4)
            .says("this build of runner-agent cannot use etcd")
            .says("deb, rpm, the tarball with the static binary, and the container image");
    }
    assert_eq!(sandbox.gitlab.requests().len(), 0);
}

#[test]
fn check_finds_a_store_that_cannot_be_used_here_with_its_line_and_remedy() {
    let kubernetes =
        SHARED.replace("engine = \"etcd\"\nendpoints = [\"https://127.0.0.1:1\"]", "engine = \"kubernetes\"");
    let (message, remedy) = if cfg!(feature = "kubernetes") {
        ("this is no pod with a service account", "set `kubeconfig` in [sharing]")
    } else {
        ("this build of runner-agent cannot use Kubernetes", "the packages of runner-agent have it")
    };
    let sandbox = sandbox(&kubernetes);
    let line = sandbox.read("agent.toml").lines().position(|line| line.starts_with("engine")).unwrap() + 1;
    let rows = sandbox.run(&["check", "--output", "json"]).exits(4).rows("findings");
    let row = rows.iter().find(|row| row["severity"] == "error").unwrap();
    assert_eq!((&row["line"], &row["stops_start"]), (&line.into(), &true.into()), "{row}");
    assert!(row["message"].as_str().unwrap().contains(message), "{row}");
    assert!(row["remedy"].as_str().unwrap().contains(remedy), "{row}");
    let doctor = sandbox.run(&["doctor"]);
    assert!(doctor.exits(4).stdout.contains("connection: not tested: the settings in [sharing]"), "{doctor:?}");
}

#[test]
fn settings_without_a_store_name_what_is_missing() {
    let sandbox = sandbox("");
    assert_eq!(sandbox.run(COMMANDS[0]).exits(0).stdout, "no shared runners in agent.toml\n");
    let json = sandbox.run(&["shared", "list", "--output", "json"]);
    assert_eq!(json.exits(0).stdout, "{\n  \"schema\": 1,\n  \"shared\": []\n}\n");
    for command in [COMMANDS[1], COMMANDS[3]] {
        sandbox.run(command).exits(4).says("agent.toml has no [sharing]").says("or set SHARING_ENGINE");
    }
    sandbox.run(COMMANDS[2]).exits(4).says("no [[enroll]] in agent.toml has `share_as = \"docker-fleet\"`");
}

#[test]
fn name_of_a_shared_runner_is_checked_before_anything_is_read() {
    let sandbox = sandbox("nonsense");
    for command in ["show", "heal", "forget"] {
        sandbox.run(&["shared", command, "Docker"]).exits(2).says("lower-case letters, digits and dashes");
        sandbox.run(&["shared", command]).exits(2);
    }
    sandbox.run(&["shared", "forget", "docker-fleet", "--member", "two words"]).exits(2);
    sandbox.run(&["shared"]).exits(2);
}
