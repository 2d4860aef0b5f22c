//! `hook test`: a hook is run once, and its result is printed.

use test_support::Sandbox;

fn with_hooks(hooks: &str) -> Sandbox {
    let sandbox = super::sandbox();
    sandbox.write("agent.toml", hooks);
    sandbox
}

const SAY: &str =
    "[[hook]]\nname = \"say\"\ncommand = [\"/bin/sh\", \"-c\", 'echo $RUNNER_AGENT_EVENT_ID $RUNNER_AGENT_RUNNER']\n";

#[test]
fn a_hook_is_run_once_and_its_result_printed() {
    let sandbox = with_hooks(SAY);
    sandbox.add_created("a");
    let done = sandbox.run(&["hook", "test", "say"]);
    assert_eq!(done.exits(0).stdout, "hook `say`, event `registered`: the command has succeeded: test-registered a\n");
    let done = sandbox.run(&["hook", "test", "say", "--event", "settings_rejected", "--output", "json"]);
    let expected = "{\"schema\":1,\"hooks\":[{\"name\":\"say\",\"event\":\"settings_rejected\",\"runner\":null,\"result\":\"the command has succeeded: test-settings_rejected\"}]}\n";
    assert_eq!(done.exits(0).stdout, expected);
}

#[test]
fn a_hook_gets_the_token_of_the_runner_that_was_named() {
    let script = "'wc -c; grep -c . $RUNNER_AGENT_TOKEN_FILE >&2'";
    let sandbox =
        with_hooks(&format!("[[hook]]\nname = \"x\"\ntoken = \"file\"\ncommand = [\"/bin/sh\", \"-c\", {script}]\n"));
    sandbox.add_created("a");
    let (_, token) = sandbox.add_created("b");
    let done = sandbox.run(&["hook", "test", "x"]);
    assert!(done.exits(2).stderr.contains("name its runner with --runner"), "{done:#?}");
    let done = sandbox.run(&["hook", "test", "x", "--runner", "c"]);
    assert!(done.exits(2).stderr.contains("there is no runner `c`"), "{done:#?}");
    let done = sandbox.run(&["hook", "test", "x", "--runner", "b"]);
    assert!(done.exits(0).hides(&[&token]).stdout.ends_with(" 1\n"), "{done:#?}");
    assert_eq!(sandbox.files_with(&token).iter().filter(|name| name.contains("hooks")).count(), 0);
}

#[test]
fn a_hook_is_not_tested_with_a_runner_that_it_is_not_for() {
    let sandbox = with_hooks("[[hook]]\nname = \"x\"\nrunner = \"a\"\nwrite_token = { path = \"out/token\" }\n");
    sandbox.write("out/other", "");
    let done = sandbox.run(&["hook", "test", "x"]);
    assert!(done.exits(2).stderr.contains("there is no runner `a` with a token"), "{done:#?}");
    sandbox.add_created("b");
    let done = sandbox.run(&["hook", "test", "x", "--runner", "b"]);
    assert!(done.exits(2).stderr.contains("the hook `x` is not for the runner `b`: it is for a"), "{done:#?}");
    assert!(!sandbox.path("out/token").exists());
}

#[test]
fn the_token_file_of_a_test_stays_while_others_begin() {
    let script = "'if [ -e go ]; then exit 0; fi; touch begun; while ! [ -e go ]; do sleep 0.1; done; grep -c . $RUNNER_AGENT_TOKEN_FILE'";
    let sandbox =
        with_hooks(&format!("[[hook]]\nname = \"x\"\ntoken = \"file\"\ncommand = [\"/bin/sh\", \"-c\", {script}]\n"));
    let directory = sandbox.root().display().to_string();
    let text = sandbox.read("agent.toml").replace("'if", &format!("'cd {directory}; if"));
    sandbox.write("agent.toml", &text);
    sandbox.add_created("a");
    let first = sandbox.start(&["hook", "test", "x"]);
    sandbox.wait("the first test", |sandbox| sandbox.path("begun").exists());
    sandbox.start_serving().stop(rustix::process::Signal::QUIT);
    sandbox.write("go", "");
    sandbox.run(&["hook", "test", "x"]).exits(0);
    let done = first.end();
    assert!(done.stdout.ends_with(": 1\n"), "{done:#?}");
}

#[test]
fn a_hook_that_fails_ends_with_exit_code_1_and_an_unknown_one_with_2() {
    let sandbox = with_hooks("[[hook]]\nname = \"no\"\ncommand = [\"/bin/sh\", \"-c\", \"echo sorry; exit 3\"]\n");
    let done = sandbox.run(&["hook", "test", "no"]);
    assert!(done.exits(1).stderr.contains("the command has failed (exit status: 3): sorry"), "{done:#?}");
    let done = sandbox.run(&["hook", "test", "nn"]);
    assert!(done.exits(2).stderr.contains("agent.toml has no hook `nn`: it has no"), "{done:#?}");
}
