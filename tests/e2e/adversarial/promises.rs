//! What the agent has to go on with: nothing that the README promises is lost by the defence.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use fake_gitlab::Endpoint;
use rustix::process::Signal;
use test_support::Process;

use crate::attacker::USER;
use crate::scene::Scene;

/// No file can be locked, as on NFS without a lock daemon.
const WITHOUT_LOCKS: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin; error=$1; shift; exec strace -D -f -qq -o /dev/null --trace=flock --inject=flock:error=$error \"$0\" \"$@\"";

/// What the agent says of files that cannot be locked.
const WARNING: &str = "cannot be locked";

/// Runners are registered, verified and rotated, by the daemon and by commands. One warning says what is not excluded.
pub(crate) fn files_that_cannot_be_locked() -> Result<(), String> {
    for error in ["ENOLCK", "EOPNOTSUPP", "ENOSYS"] {
        for is_foreign in [true, false] {
            work_without_locks(error, is_foreign)
                .map_err(|how| format!("{error}, another owner: {is_foreign}: {how}"))?;
        }
    }
    Ok(())
}

fn work_without_locks(error: &str, is_foreign: bool) -> Result<(), String> {
    let scene = Scene::new();
    if !is_foreign {
        scene.take("config");
        scene.take("config/config.toml");
    }
    let run = |args: &[&str]| scene.shell(WITHOUT_LOCKS, &[&[error][..], args].concat());
    let (url, token) = (scene.gitlab.url(), scene.path("token"));
    let register =
        ["register", "-n", "--url", &url, "--registration-token-file", token.to_str().unwrap(), "--name", "new"];
    for args in [&["verify"][..], &["rotate", "--all"], &register, &["list"]] {
        let output = Process::start(run(args)).end();
        let warnings = output.stderr.lines().filter(|line| line.contains(WARNING)).count();
        if !output.is_success() || !scene.is_in_step() || warnings > 1 {
            return Err(format!("{args:?}, {warnings} warnings: {}", output.text()));
        }
    }
    scene.gitlab.clear_requests();
    let daemon = Process::start(run(&["run"]));
    let are_verified = |_: &Process| scene.gitlab.requests_to(Endpoint::Verify).len() >= 2;
    if !daemon.wait_for(Duration::from_secs(20), are_verified) {
        return Err(format!("the daemon does not verify both runners: {}", daemon.log()));
    }
    let output = daemon.stop(Signal::TERM);
    let warnings = output.stderr.lines().filter(|line| line.contains(WARNING)).count();
    if output.code == Some(0) && warnings == 1 {
        return Ok(());
    }
    Err(format!("the daemon ended with {:?}, {warnings} warnings: {}", output.code, output.text()))
}

/// An agent of its own user over a directory and files that the group of that user may write, as configuration management
/// leaves them.
pub(crate) fn files_of_a_group() -> Result<(), String> {
    let scene = Scene::new();
    fs::set_permissions(scene.path("config"), fs::Permissions::from_mode(0o2775)).unwrap();
    fs::set_permissions(scene.path("config/config.toml"), fs::Permissions::from_mode(0o660)).unwrap();
    for name in [".", "token", "agent.toml"] {
        scene.give(name);
    }
    let (url, token) = (scene.gitlab.url(), scene.path("token"));
    let register =
        ["register", "-n", "--url", &url, "--registration-token-file", token.to_str().unwrap(), "--name", "new"];
    for args in [&["verify"][..], &["rotate", "--all"], &register, &["list"], &["run", "--once"]] {
        let mut command = scene.command(args);
        command.uid(USER).gid(USER);
        let output = Process::start(command).end();
        if !output.is_success() || !scene.is_in_step() || output.stderr.contains("WARN") {
            return Err(format!("{args:?} of the directory's owner: {}", output.text()));
        }
        check_rights(&scene)?;
    }
    // Root's processes, with settings and state of their own, keep what the group may do.
    scene.take("agent.toml");
    let state = scene.path("state-of-root");
    for args in [&["rotate", "--all"][..], &["run", "--once"]] {
        let output = scene.run_with(args, &[("STATE_DIRECTORY", state.to_str().unwrap())]);
        if !output.is_success() || !scene.is_in_step() {
            return Err(format!("{args:?} of root's: {}", output.text()));
        }
        check_rights(&scene)?;
    }
    Ok(())
}

fn check_rights(scene: &Scene) -> Result<(), String> {
    let found = fs::metadata(scene.path("config/config.toml")).unwrap();
    let rights = (found.uid(), found.gid(), found.mode() & 0o7777);
    if rights == (USER, USER, 0o660) { Ok(()) } else { Err(format!("config.toml has other rights: {rights:?}")) }
}
