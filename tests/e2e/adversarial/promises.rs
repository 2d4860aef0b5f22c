//! What the agent has to go on with: nothing that the documentation promises is lost by the defence.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use fake_gitlab::{Endpoint, Gitlab, Tls};
use rustix::process::Signal;
use test_support::Process;

use crate::attacker::USER;
use crate::scene::{Mounted, Scene};

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

/// The user of a container, who is neither root nor the owner of what is mounted.
const USER_OF_CONTAINER: u32 = 1600;

/// A directory of certificates that belongs to another user does not count for a registration token, and the warning says
/// what to do; each of its remedies does it. What belongs to root counts for all users.
pub(crate) fn certificates_of_another_user() -> Result<(), String> {
    for user in [0, USER_OF_CONTAINER] {
        register_by_certificates(user).map_err(|how| format!("user {user}: {how}"))?;
    }
    Ok(())
}

fn register_by_certificates(user: u32) -> Result<(), String> {
    let scene = Scene::of(Gitlab::builder().tls(Tls::self_signed(["127.0.0.1"])));
    let of_host = scene.write("config/certs/127.0.0.1.crt", &scene.gitlab.ca_pem());
    fs::set_permissions(&of_host, fs::Permissions::from_mode(0o644)).unwrap();
    let certificates = scene.path("config/certs");
    for name in [".", "token", "agent.toml", "config", "config/config.toml"] {
        chown(scene.path(name), Some(user), Some(user)).unwrap();
    }
    let own = |user| [&certificates, &of_host].map(|path| chown(path, Some(user), Some(user)).unwrap());
    let (url, token) = (scene.gitlab.url(), scene.path("token"));
    let register = |name: &str| {
        let mut command = scene.command(&[
            "register",
            "-n",
            "--url",
            &url,
            "--registration-token-file",
            token.to_str().unwrap(),
            "--name",
            name,
        ]);
        command.uid(user).gid(user);
        Process::start(command).end()
    };
    own(USER);
    let refused = register("refused");
    let warning = refused.stderr.lines().find(|line| line.contains("not used to send a registration token"));
    let is_helpful = warning.is_some_and(|line| {
        [of_host.to_str().unwrap(), "user 1500", "`chown root`", "mount it read-only", "`tls_ca_file`"]
            .iter()
            .all(|part| line.contains(part))
    });
    if refused.is_success() || !is_helpful {
        return Err(format!("no helpful warning: {}", refused.text()));
    }
    {
        let _mounted = Mounted::read_only(&certificates);
        let mounted = register("mounted");
        if !mounted.is_success() || mounted.stderr.contains("WARN") {
            return Err(format!("what is mounted read-only does not count: {}", mounted.text()));
        }
    }
    own(0);
    let given = register("given-to-root");
    if !given.is_success() || given.stderr.contains("WARN") {
        return Err(format!("what belongs to root does not count: {}", given.text()));
    }
    Ok(())
}

/// Writes the calls that open and lock files into the file of the first argument.
const TRACED: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin; trace=$1; shift; exec strace -D -f -y -qq -o \"$trace\" --trace=openat,flock \"$0\" \"$@\"";

/// A config.toml that is mounted itself is written in place. It is locked by a descriptor that can write, because NFS locks
/// no other one; a read-only mount is found before a token is spent.
pub(crate) fn mounted_file() -> Result<(), String> {
    let scene = Scene::new();
    let config = scene.path("config/config.toml");
    scene.run(&["verify"]).exits(0);
    let resets = || scene.gitlab.requests_to(Endpoint::Reset).len();
    {
        let _mounted = Mounted::read_only(&config);
        let (refused, verified) = (scene.run(&["rotate", "--all"]), scene.run(&["verify"]));
        if refused.is_success() || resets() != 0 || !verified.is_success() {
            return Err(format!("mounted read-only, {} resets: {}{}", resets(), refused.text(), verified.text()));
        }
    }
    let _mounted = Mounted::new(&config);
    let (inode, trace) = (fs::metadata(&config).unwrap().ino(), scene.path("trace"));
    let rotated = Process::start(scene.shell(TRACED, &[trace.to_str().unwrap(), "rotate", "--all"])).end();
    let is_in_place = fs::metadata(&config).unwrap().ino() == inode;
    if !rotated.is_success() || resets() != 1 || !scene.is_in_step() || !is_in_place {
        return Err(format!("not written in place, {} resets: {}", resets(), rotated.text()));
    }
    let trace = fs::read_to_string(trace).unwrap();
    let lines: Vec<&str> = trace.lines().collect();
    let mut locks = 0;
    for (at, line) in lines.iter().enumerate() {
        let Some((_, call)) = line.split_once("flock(") else { continue };
        let Some((descriptor, _)) = call.split_once(&format!("<{}>", config.display())) else { continue };
        let opened = format!("= {descriptor}<{}>", config.display());
        let opening = lines[..at].iter().rev().find(|line| line.contains(&opened));
        if !opening.is_some_and(|line| line.contains("O_RDWR")) {
            return Err(format!("locked by a descriptor that cannot write: {line}, opened by {opening:?}"));
        }
        locks += 1;
    }
    if locks == 0 { Err(format!("config.toml was not locked: {trace}")) } else { Ok(()) }
}
