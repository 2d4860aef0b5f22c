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
            .says("install the Debian package or the container image");
    }
    assert_eq!(sandbox.gitlab.requests().len(), 0);
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
