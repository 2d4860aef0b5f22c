//! gitlab-runner's flags and variables for keys of an entry, and keys and executors that it does not know.

use super::sandbox;
use fake_gitlab::Gitlab;
use test_support::Sandbox;

/// Registers with these arguments after the usual ones, and more variables.
#[track_caller]
fn register_with(sandbox: &Sandbox, args: &[&str], variables: &[(&str, &str)]) -> test_support::Output {
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let usual = ["register", "-n", "--url", &url, "--registration-token", &token, "--name", "a"];
    sandbox.run_with(&[&usual[..], args].concat(), variables)
}

#[test]
fn flags_of_gitlab_runner_write_typed_keys() {
    let sandbox = sandbox();
    let words = "--executor docker --docker-image alpine:3.22 --docker-privileged --docker-volumes /a:/b:ro,z \
        --docker-shm-size 300 --docker-pull-policy always --docker-pull-policy if-not-present \
        --docker-sysctls net.core.somaxconn:1024 --docker-services_privileged false --docker-tlsverify=false \
        --cache-dir /var/cache/ci --cache-type s3 --cache-s3-bucket-name bucket --cache-s3-insecure=true \
        --env A=1 --env B=2 --builds-dir /builds --feature-flags FF_A:true --pre-build-script ls \
        --limit 3 --output-limit 4096 --request-concurrency 2 --clone-url https://mirror --docker-oom-score-adjust -5";
    let words: Vec<_> = words.split_whitespace().collect();
    register_with(&sandbox, &words, &[]).exits(0);
    insta::assert_snapshot!("entry-keys-docker", sandbox.scrub(&sandbox.config()));
}

#[test]
fn variables_of_gitlab_runner_write_keys_of_the_executor_alone() {
    let sandbox = sandbox();
    let variables = [
        ("RUNNER_EXECUTOR", "kubernetes"),
        ("KUBERNETES_NAMESPACE", "ci"),
        ("KUBERNETES_POLL_TIMEOUT", "600"),
        ("KUBERNETES_NODE_SELECTOR", "disk:ssd"),
        ("KUBERNETES_BUILD_CONTAINER_SECURITY_CONTEXT_RUN_AS_USER", "1000"),
        ("DOCKER_HOST", "tcp://of-another-program"),
        ("RUNNER_CACHE_DIR", "/cache"),
        ("CACHE_TYPE", "gcs"),
        ("RUNNER_UNHEALTHY_REQUESTS_LIMIT", "9"),
    ];
    register_with(&sandbox, &["--kubernetes-namespace", "ci-flag"], &variables).exits(0);
    insta::assert_snapshot!("entry-keys-kubernetes", sandbox.scrub(&sandbox.config()));
}

#[test]
fn flag_of_another_executor_is_ignored_with_a_warning() {
    let sandbox = sandbox();
    let done = register_with(&sandbox, &["--executor", "shell", "--docker-image", "alpine"], &[]);
    done.exits(0).says("warning: ignored, because the executor `shell` has no use for them: --docker-image");
    assert!(!sandbox.config().contains("alpine"), "{}", sandbox.config());
}

#[test]
fn invalid_value_of_a_flag_or_variable_is_named() {
    let sandbox = sandbox();
    register_with(&sandbox, &["--executor", "docker", "--docker-image", "a", "--docker-shm-size", "much"], &[])
        .exits(2)
        .says("--docker-shm-size: `much` is not an integer");
    register_with(&sandbox, &["--executor", "docker"], &[("DOCKER_IMAGE", "a"), ("DOCKER_PRIVILEGED", "yes")])
        .exits(4)
        .says("DOCKER_PRIVILEGED: `yes` is neither true nor false");
    assert_nothing_was_sent(&sandbox);
}

#[test]
fn typo_in_a_flag_names_the_flag() {
    sandbox().register(&["--docker-imgae", "a"]).exits(2).says("'--docker-image'");
}

#[test]
fn executor_without_what_it_needs_is_a_usage_error() {
    let sandbox = sandbox();
    register_with(&sandbox, &["--executor", "docker"], &[])
        .exits(2)
        .says("the executor `docker` needs a default image: set --docker-image or DOCKER_IMAGE");
    register_with(&sandbox, &["--executor", "ssh", "--ssh-host", "h"], &[])
        .exits(2)
        .says("the executor `ssh` needs an SSH user: set --ssh-user or SSH_USER");
    assert_nothing_was_sent(&sandbox);
    let template = sandbox.write("template.toml", "[[runners]]\nexecutor = 'docker'\n[runners.docker]\nimage = 'a'\n");
    register_with(&sandbox, &["--template-config", template.to_str().unwrap()], &[]).exits(0);
}

#[test]
fn cache_volume_is_added_as_gitlab_runner_does_and_not_to_a_described_entry() {
    for (args, expected) in [
        (&["--docker-image", "a"][..], "volumes = [\"/cache\"]"),
        (&["--docker-image", "a", "--docker-volumes", "/x"], "volumes = [\"/x\", \"/cache\"]"),
        (&["--docker-image", "a", "--docker-volumes", "/x:/cache"], "volumes = [\"/x:/cache\"]"),
        (&["--docker-image", "a", "--docker-disable-cache"], "disable_cache = true"),
        (&["--set", "docker.image='a'"], "image = 'a'"),
    ] {
        let sandbox = sandbox();
        register_with(&sandbox, &[&["--executor", "docker"], args].concat(), &[]).exits(0);
        assert!(sandbox.config().contains(expected), "{args:?}: {}", sandbox.config());
        assert_eq!(sandbox.config().contains("volumes"), expected.contains("volumes"), "{args:?}");
    }
}

#[test]
fn secrets_of_executors_leave_the_command_line() {
    let sandbox = super::sandbox_with(Gitlab::builder());
    let (first, second) = ("first-secret-of-the-cache", "second-secret-of-the-cache");
    let args = ["--executor", "shell", "--cache-type", "s3", "--cache-s3-access-key", first, "--log-level", "debug"];
    let done = register_with(&sandbox, &args, &[("CACHE_S3_SECRET_KEY", second)]);
    done.exits(0).hides(&[first, second]);
    assert!(sandbox.config().contains(first) && sandbox.config().contains(second));
}

#[test]
fn unknown_executor_and_keys_are_usage_errors_that_name_what_was_meant() {
    let sandbox = sandbox();
    for (args, message) in [
        (
            &["--executor", "dcoker"][..],
            "--executor: unknown executor `dcoker`: did you mean `docker`?; --allow-unknown accepts it as it is",
        ),
        (&["--set", "dcoker.image='a'"], "--set: gitlab-runner has no key `dcoker`: did you mean `docker`?"),
        (
            &["--set", "docker.imgae='a'"],
            "--set: gitlab-runner has no key `docker.imgae`: did you mean `docker.image`?",
        ),
        (&["--set", "my_own_thing=1"], "--set: gitlab-runner has no key `my_own_thing`; --allow-unknown accepts it"),
        (&["--set", "docker.privileged='yes'"], "--set: `docker.privileged` must be true or false"),
    ] {
        register_with(&sandbox, args, &[]).exits(2).says(message);
    }
    register_with(&sandbox, &[], &[("RUNNER_EXECUTOR", "shel")])
        .exits(2)
        .says("RUNNER_EXECUTOR: unknown executor `shel`");
    assert_nothing_was_sent(&sandbox);
}

#[test]
fn unknown_keys_pass_with_a_flag_with_force_and_for_a_custom_executor() {
    for args in [
        &["--executor", "mine", "--set", "mine.image='a'", "--allow-unknown"][..],
        &["--executor", "mine", "--set", "newer=1", "--force"],
        &["--executor", "custom", "--set", "custom.own='a'"],
    ] {
        let sandbox = sandbox();
        register_with(&sandbox, args, &[]).exits(0);
    }
}

#[test]
fn unknown_key_of_a_template_is_named_with_its_line() {
    let sandbox = sandbox();
    let template =
        sandbox.write("template.toml", "[[runners]]\n  executor = \"docker\"\n  [runners.docker]\n    iamge = \"a\"\n");
    let path = template.to_str().unwrap();
    register_with(&sandbox, &["--template-config", path], &[])
        .exits(2)
        .says("template.toml:4: gitlab-runner has no key `docker.iamge`: did you mean `docker.image`?");
    assert_nothing_was_sent(&sandbox);
}

#[test]
fn unknown_key_of_a_template_does_not_stop_the_daemon() {
    let sandbox = sandbox();
    sandbox.write("template.toml", "[[runners]]\n  executor = \"docker\"\n  [runners.docker]\n    iamge = \"a\"\n");
    let token = sandbox.write_with_mode("token", &sandbox.gitlab.instance_registration_token(), 0o600);
    let enrollment = sandbox.enrollment("a", &format!("registration_token = {{ file = {token:?} }}"));
    sandbox.write_fast_settings(&format!("{enrollment}template = \"template.toml\"\n"));
    let done = sandbox.run(&["run", "--once"]);
    done.exits(0).says("template.toml:4: gitlab-runner has no key `docker.iamge`: did you mean `docker.image`?");
    assert!(sandbox.config().contains("iamge"));
}

#[track_caller]
fn assert_nothing_was_sent(sandbox: &Sandbox) {
    assert!(sandbox.gitlab.requests().is_empty(), "{:?}", sandbox.gitlab.requests());
}
