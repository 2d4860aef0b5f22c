//! The attacker holds a lock that root's processes take, and never releases it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use fake_gitlab::Endpoint;

use crate::attacker::Attacker;
use crate::scene::Scene;

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

/// A config.toml that is mounted over itself, until it is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(file: &'a Path) -> Self {
        let mounted = Command::new("mount").arg("--bind").args([file, file]).status().unwrap();
        assert!(mounted.success());
        Self(file)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg(self.0).status();
    }
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
