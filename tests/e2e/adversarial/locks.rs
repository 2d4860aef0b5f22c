//! The attacker holds a lock that root's processes take, and never releases it.

use std::any::Any;
use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::Duration;

use fake_gitlab::{Endpoint, Fault, Gitlab};
use rustix::process::Signal;
use test_support::Process;

use crate::attacker::Attacker;
use crate::scene::{Mounted, Scene};

/// Starts the attacker, and waits until the file is locked.
fn holding(scene: &Scene, path: &Path) -> Attacker {
    let attacker = Attacker::start("hold", &[path]);
    let is_held = || File::open(path).is_ok_and(|file| file.try_lock().is_err());
    scene.wait("the attacker to hold the lock", |_| is_held());
    attacker
}

fn current_token(scene: &Scene) -> String {
    scene.gitlab.runners().into_iter().next().unwrap().token
}

/// Root rotates nevertheless, and says once who holds the lock.
pub(crate) fn lock_held_for_ever() -> Result<(), String> {
    let scene = Scene::new();
    let former = current_token(&scene);
    let attacker = holding(&scene, &scene.path("config/.config.toml.lock"));
    let output = scene.run(&["rotate", "--all"]);
    let present = current_token(&scene);
    if !output.is_success() || present == former || !scene.config().contains(&present) {
        return Err(format!("the rotation did not land: {}", output.text()));
    }
    let warnings: Vec<_> = output.stderr.lines().filter(|line| line.contains("does not release the lock")).collect();
    match warnings[..] {
        [warning] if warning.contains(&format!("pid={}", attacker.pid())) => {}
        _ => return Err(format!("not one warning that names process {}: {}", attacker.pid(), output.text())),
    }
    let register = ["--registration-token-file", "token", "--name", "new"];
    let url = scene.gitlab.url();
    let registered = scene.run(&[&["register", "--url", &url][..], &register].concat());
    if registered.is_success() { Ok(()) } else { Err(format!("no registration: {}", registered.text())) }
}

/// In the place of the lock there is something that cannot be locked.
pub(crate) fn lock_that_is_no_file() -> Result<(), String> {
    let scene = Scene::new();
    let lock = scene.path("config/.config.toml.lock");
    let rotate = |what: &str| {
        let output = scene.run(&["rotate", "--all"]);
        let has_landed = output.is_success() && scene.config().contains(&current_token(&scene));
        if has_landed { Ok(()) } else { Err(format!("{what} stops the rotation: {}", output.text())) }
    };
    fs::create_dir(&lock).unwrap();
    scene.give("config/.config.toml.lock");
    rotate("a directory")?;
    fs::remove_dir(&lock).unwrap();
    scene.link(scene.path("safe/plain"), "config/.config.toml.lock");
    rotate("a link")?;
    scene.is_safe()?;
    fs::remove_file(&lock).unwrap();
    fs::hard_link(scene.path("config/config.toml"), &lock).unwrap();
    rotate("a hard link")
}

/// A bind-mounted config.toml is written in place: nothing is spent while it is locked, since the token lives long.
pub(crate) fn mounted_file_held_for_ever() -> Result<(), String> {
    let scene = Scene::new();
    scene.run(&["verify"]).exits(0);
    let config = scene.path("config/config.toml");
    let _mounted = Mounted::new(&config);
    let attacker = holding(&scene, &config);
    let output = scene.run(&["rotate", "--all"]);
    if output.is_success() || !scene.gitlab.requests_to(Endpoint::Reset).is_empty() {
        return Err(format!("a token was reset: {}", output.text()));
    }
    if !output.text().contains(&format!("process {}", attacker.pid())) {
        return Err(format!("the error does not name process {}: {}", attacker.pid(), output.text()));
    }
    drop(attacker);
    thread::sleep(Duration::from_millis(50));
    let output = scene.run(&["rotate", "--all"]);
    let has_landed = output.is_success() && scene.config().contains(&current_token(&scene));
    if has_landed { Ok(()) } else { Err(format!("the rotation did not land: {}", output.text())) }
}

/// The same while a new token is in force, or has to be soon: it is not lost, whoever holds the locks.
pub(crate) fn mounted_file_held_while_pressing() -> Result<(), String> {
    held_after_the_reset(Holder::Attacker).map_err(|how| format!("locked after the reset: {how}"))?;
    held_after_the_reset(Holder::Root).map_err(|how| format!("locked by root after the reset: {how}"))?;
    held_to_the_end()
}

enum Holder {
    Attacker,
    /// Another process of root's, in root's own directory: nothing is written without its lock.
    Root,
}

fn held_after_the_reset(holder: Holder) -> Result<(), String> {
    let scene = Scene::new();
    let config = scene.path("config/config.toml");
    if matches!(holder, Holder::Root) {
        scene.take("config");
        scene.take("config/config.toml");
    }
    scene.run(&["verify"]).exits(0);
    let _mounted = Mounted::new(&config);
    let held = scene.gitlab.order(Endpoint::Reset, Fault::hold().after_acting());
    let rotation = scene.start(&["rotate", "--all"]);
    scene.wait_for_requests(Endpoint::Reset, 1);
    let sidecar = scene.path("config/.config.toml.lock");
    let locks: Vec<Box<dyn Any>> = match holder {
        Holder::Attacker => vec![Box::new(holding(&scene, &config)), Box::new(holding(&scene, &sidecar))],
        Holder::Root => {
            let file = File::open(&config).unwrap();
            file.lock().unwrap();
            vec![Box::new(file)]
        }
    };
    held.release();
    let output = rotation.end();
    let token = current_token(&scene);
    let is_written = scene.config().contains(&token);
    let is_as_expected = match holder {
        Holder::Attacker => is_written && output.is_success(),
        Holder::Root => !is_written && !output.is_success() && !scene.files_with(&token).is_empty(),
    };
    if !is_as_expected {
        return Err(format!("the new token is in {:?}: {}", scene.files_with(&token), output.text()));
    }
    drop(locks);
    scene.wait("the lock to be free", |_| File::open(&config).is_ok_and(|file| file.try_lock().is_ok()));
    let verified = scene.run(&["run", "--once"]);
    let resets = scene.gitlab.requests_to(Endpoint::Reset).len();
    if verified.is_success() && scene.config().contains(&token) && resets == 1 {
        return Ok(());
    }
    Err(format!("not written later, {resets} resets: {}", verified.text()))
}

/// The lock is held from before the rotation until the token expires.
fn held_to_the_end() -> Result<(), String> {
    // An eighth of it is longer than a lock is waited for.
    let scene = Scene::of(Gitlab::builder().token_life(Duration::from_secs(60)));
    scene.write_fast_settings("[rotate]\nfound = \"always\"\n");
    let config = scene.path("config/config.toml");
    scene.run(&["verify"]).exits(0);
    let _mounted = Mounted::new(&config);
    let _attackers = [holding(&scene, &config), holding(&scene, &scene.path("config/.config.toml.lock"))];
    let daemon = scene.start_serving();
    let former = current_token(&scene);
    let is_rotated = |_: &Process| current_token(&scene) != former && scene.config().contains(&current_token(&scene));
    if !daemon.wait_for(Duration::from_secs(70), is_rotated) {
        return Err(format!("it is not rotated before it expires: {}", daemon.log()));
    }
    let is_refused = daemon.log().contains("refuses");
    daemon.stop(Signal::TERM);
    if is_refused { Err("the token had expired".to_owned()) } else { Ok(()) }
}
