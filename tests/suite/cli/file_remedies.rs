//! Errors of files that say what to do: files of other users, read-only and full file systems, and what a sandbox hides.
//! They need root, to be another user and to mount.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use fake_gitlab::{Endpoint, NewAccessToken, Scope};
use rustix::process::geteuid;
use test_support::{Output, Process, Sandbox};

/// The user of the image.
const CONTAINER_USER: u32 = 65534;

/// Runs the binary as the user of a container, whose group is root's.
fn run_in_container(sandbox: &Sandbox, args: &[&str]) -> Output {
    let mut command = sandbox.command(args);
    command.env("container", "podman").uid(CONTAINER_USER).gid(0);
    Process::start(command).end()
}

/// Runs the binary as root without capabilities, after a script in a mount namespace of its own.
fn run_mounted(sandbox: &Sandbox, mounts: &str, args: &[&str]) -> Output {
    let script = format!("{mounts}\nexec setpriv --bounding-set=-all --inh-caps=-all \"$0\" \"$@\"");
    let inner = sandbox.shell(&script, args);
    let mut command = Command::new("unshare");
    command.args(["--mount"]).arg(inner.get_program()).args(inner.get_args()).env_clear();
    command
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.current_dir(sandbox.root());
    Process::start(command).end()
}

fn can_mount() -> bool {
    geteuid().is_root()
        && Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success())
}

/// Lets all users reach the sandbox, whose files stay root's.
fn open_to_all(sandbox: &Sandbox) {
    fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_token_file_of_another_user_in_a_container_comes_with_the_owner_and_mode_that_work() {
    if !geteuid().is_root() {
        return;
    }
    let sandbox = super::sandbox();
    open_to_all(&sandbox);
    let token = sandbox.write_with_mode("token", &sandbox.gitlab.instance_registration_token(), 0o644);
    for name in ["config", "agent.toml", "config/.runner_system_id"] {
        chown(sandbox.path(name), Some(CONTAINER_USER), Some(0)).unwrap();
    }
    fs::create_dir(sandbox.path("state")).unwrap();
    chown(sandbox.path("state"), Some(CONTAINER_USER), Some(0)).unwrap();
    chown(&token, Some(1000), Some(1000)).unwrap();
    let url = sandbox.gitlab.url();
    let token = token.display().to_string();
    let args = ["register", "-n", "--name", "a", "--url", &url, "--registration-token-file", &token];
    let remedy = format!("run `chown 65534 {token}` and `chmod 0400 {token}`");
    run_in_container(&sandbox, &args).exits(0).says("(mode 0644)").says(&remedy);
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    run_in_container(&sandbox, &args).exits(4).says("Permission denied").says(&remedy);
    chown(&token, Some(CONTAINER_USER), Some(0)).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o400)).unwrap();
    run_in_container(&sandbox, &args).exits(0);
}

#[test]
fn a_directory_of_another_user_in_a_container_comes_with_the_owner_that_works() {
    if !geteuid().is_root() {
        return;
    }
    let sandbox = super::sandbox();
    open_to_all(&sandbox);
    chown(sandbox.path("agent.toml"), Some(CONTAINER_USER), Some(0)).unwrap();
    chown(sandbox.path("config/.runner_system_id"), Some(CONTAINER_USER), Some(0)).unwrap();
    fs::create_dir(sandbox.path("state")).unwrap();
    chown(sandbox.path("state"), Some(CONTAINER_USER), Some(0)).unwrap();
    fs::set_permissions(sandbox.path("config"), fs::Permissions::from_mode(0o755)).unwrap();
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let args = ["register", "-n", "--name", "a", "--url", &url, "--registration-token", &token];
    let config = sandbox.path("config").display().to_string();
    let done = run_in_container(&sandbox, &args);
    done.exits(4).says(&format!("run `chown 65534:0 {config}`")).says("`:U`").says("`--user 0`");
    // The same for the state directory, which `run` looks at before it starts.
    fs::create_dir(sandbox.path("closed")).unwrap();
    fs::set_permissions(sandbox.path("closed"), fs::Permissions::from_mode(0o755)).unwrap();
    let closed = sandbox.path("closed").display().to_string();
    let done = run_in_container(&sandbox, &["run", "--once", "--state-dir", &format!("{closed}/state")]);
    done.exits(4)
        .says("the state directory cannot be made")
        .says(&format!("run `chown 65534:0 {closed}`"))
        .says("`:U`");
    // The same for agent.toml.
    chown(sandbox.path("agent.toml"), Some(1000), Some(1000)).unwrap();
    let agent = sandbox.path("agent.toml").display().to_string();
    run_in_container(&sandbox, &args).exits(4).says("cannot read agent.toml").says(&format!("`chown 65534 {agent}`"));
}

#[test]
fn a_read_only_and_a_full_file_system_come_with_what_to_do() {
    if !can_mount() {
        return;
    }
    let sandbox = super::sandbox();
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let args = ["register", "-n", "--name", "a", "--url", &url, "--registration-token", &token];
    let config = sandbox.path("config").display().to_string();
    let read_only = "mount --bind config config && mount -o remount,bind,ro config";
    // What to do depends on whether the tests run in a container.
    let done = run_mounted(&sandbox, read_only, &args);
    done.exits(4).says("Read-only file system");
    let (mount, volume) =
        (format!("see `findmnt --target {config}`"), format!("mount `{config}` as a writable volume"));
    assert!(done.stderr.contains(&mount) || done.stderr.contains(&volume), "{done:?}");
    let full = "mount -t tmpfs -o size=4k,mode=700 tmpfs config && printf s_0123456789ab >config/.runner_system_id; head -c 9000 /dev/zero >config/fill";
    run_mounted(&sandbox, full, &args).exits(4).says("No space left").says(&format!("df -h {config}"));
    assert_eq!(sandbox.gitlab.requests().len(), 0);
}

/// A sandbox whose agent.toml rotates the access token in a directory of its own.
fn rotating() -> (Sandbox, String) {
    let sandbox = super::sandbox();
    let new = NewAccessToken::personal().scopes([Scope::Api]).expires_on(sandbox.gitlab.day_in(90));
    let token = sandbox.gitlab.create_access_token(new);
    sandbox.write_with_mode("tokens/access", &token, 0o600);
    fs::create_dir(sandbox.path("state")).unwrap();
    sandbox.write_fast_settings(&format!(
        "[[server]]\nurl = \"{}\"\naccess_token = {{ file = \"tokens/access\", rotate = true }}\n",
        sandbox.gitlab.url()
    ));
    (sandbox, token)
}

#[test]
fn an_access_token_that_cannot_be_replaced_is_found_by_check_and_before_its_rotation() {
    if !can_mount() {
        return;
    }
    let (sandbox, token) = rotating();
    let files = |sandbox: &Sandbox| {
        let names = fs::read_dir(sandbox.path("tokens")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name != "access").collect::<Vec<_>>()
    };
    sandbox.run(&["check"]).exits(0);
    assert!(files(&sandbox).iter().all(|name| name.to_string_lossy().ends_with(".lock")), "{:?}", files(&sandbox));
    let subject = format!("the access token for {} cannot be rotated: ", sandbox.gitlab.url());
    let read_only = "mount --bind tokens tokens && mount -o remount,bind,ro tokens";
    let done = run_mounted(&sandbox, read_only, &["check"]);
    assert!(done.exits(4).stdout.contains(&subject) && done.stdout.contains("Read-only file system"), "{done:?}");
    run_mounted(&sandbox, read_only, &["access-token", "rotate"]).exits(4).says("Read-only file system");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 0);
    assert!(sandbox.gitlab.accepts_access_token(&token));
}

#[test]
fn a_token_file_that_a_sandbox_hides_comes_with_load_credential() {
    if !can_mount() {
        return;
    }
    let sandbox = super::sandbox();
    let url = sandbox.gitlab.url();
    fs::create_dir(sandbox.path("closed")).unwrap();
    fs::set_permissions(sandbox.path("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let args = ["register", "-n", "--name", "a", "--url", &url, "--registration-token-file", "/home/me/token"];
    let done = run_mounted(&sandbox, "mount --bind closed /home", &args);
    done.exits(4).says("hides /home (ProtectHome=)").says("`LoadCredential=NAME:/home/me/token`");
}

#[test]
fn status_without_an_answer_points_to_the_unit_and_to_sudo() {
    if !can_mount() {
        return;
    }
    let sandbox = super::sandbox();
    open_to_all(&sandbox);
    let unit =
        "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && touch /run/systemd/system/runner-agent.service";
    run_mounted(&sandbox, unit, &["status"])
        .exits(5)
        .says("systemctl status runner-agent")
        .says("journalctl -u runner-agent");
    let as_user = format!("{unit}\nexec setpriv --reuid=65534 --clear-groups \"$0\" \"$@\"");
    run_mounted(&sandbox, &as_user, &["status"]).exits(5).says("`sudo`").says("systemctl status runner-agent");
}
