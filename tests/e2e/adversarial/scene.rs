//! A directory of the attacker's, and one of root's that he is after.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, Permissions};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fake_gitlab::{Builder, Gitlab};
use test_support::{Output, Sandbox};

use crate::attacker::USER;

/// A word in root's files, which no output may show.
pub(crate) const SECRET: &str = "secret-of-root";

/// A sandbox whose `config/` is the attacker's, and whose `safe/` is root's alone.
pub(crate) struct Scene {
    sandbox: Sandbox,
    before: BTreeMap<PathBuf, State>,
}

/// What must not change about a file of root's.
#[derive(Debug, PartialEq, Eq)]
struct State {
    owner: (u32, u32),
    mode: u32,
    content: Option<Vec<u8>>,
}

impl Deref for Scene {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Scene {
    /// With one runner in config.toml, and a file of root's that holds an entry of the same runner.
    pub(crate) fn new() -> Self {
        Self::of(Gitlab::builder())
    }

    /// The same for a race: a command that could not write config.toml tries again soon.
    pub(crate) fn of_race() -> Self {
        let scene = Self::new();
        scene.write_fast_settings("backoff_first = \"10ms\"\n");
        scene
    }

    /// The same with another server.
    pub(crate) fn of(gitlab: Builder) -> Self {
        let binary = env::var("ADVERSARIAL_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_runner-agent").to_owned());
        let sandbox = Sandbox::new(binary, gitlab);
        fs::set_permissions(sandbox.root(), Permissions::from_mode(0o755)).unwrap();
        let (id, token) = sandbox.add_created("found");
        sandbox.write("token", &sandbox.gitlab.instance_registration_token());
        sandbox.write_fast_settings("");
        let entry = sandbox.entry("found", id, &token);
        sandbox.write("safe/config.toml", &format!("# {SECRET}\n{entry}"));
        sandbox.write("safe/plain", &format!("{SECRET}\n"));
        fs::set_permissions(sandbox.path("safe"), Permissions::from_mode(0o700)).unwrap();
        let mut scene = Self { sandbox, before: BTreeMap::new() };
        scene.give("config");
        scene.give("config/config.toml");
        scene.before = states(&scene.path("safe"));
        scene
    }

    /// Gives a file or directory to the attacker.
    pub(crate) fn give(&self, name: &str) {
        lchown(self.path(name), Some(USER), Some(USER)).unwrap();
    }

    /// Gives it back to root.
    pub(crate) fn take(&self, name: &str) {
        chown(self.path(name), Some(0), Some(0)).unwrap();
    }

    /// A symbolic link of the attacker's.
    pub(crate) fn link(&self, target: impl AsRef<Path>, name: &str) -> PathBuf {
        let path = self.path(name);
        let _absent = fs::remove_file(&path);
        symlink(target, &path).unwrap();
        self.give(name);
        path
    }

    /// Runs commands that read and write config.toml.
    pub(crate) fn run_each(&self) -> Result<(), String> {
        let token = self.path("token");
        for args in [
            &["list"][..],
            &["verify"],
            &["rotate", "--all"],
            &[
                "register",
                "--url",
                &self.gitlab.url(),
                "--registration-token-file",
                token.to_str().unwrap(),
                "--name",
                "new",
            ],
            &["run", "--once"],
        ] {
            self.check(args, &self.run(args))?;
        }
        Ok(())
    }

    /// Checks that a command has shown and changed nothing of root's.
    pub(crate) fn check(&self, args: &[&str], output: &Output) -> Result<(), String> {
        if output.text().contains(SECRET) {
            return Err(format!("{args:?} has shown a file of root's"));
        }
        self.is_safe().map_err(|how| format!("{how} after {args:?}: {}", output.text()))
    }

    /// Checks that nothing of root's has changed.
    pub(crate) fn is_safe(&self) -> Result<(), String> {
        let now = states(&self.path("safe"));
        for (path, state) in &now {
            match self.before.get(path) {
                None => return Err(format!("{} was made", path.display())),
                Some(before) if before != state => return Err(format!("{} has changed", path.display())),
                Some(_) => {}
            }
        }
        if now.len() == self.before.len() { Ok(()) } else { Err("a file of root's is gone".to_owned()) }
    }
}

/// A file or directory that is mounted over itself, until it is dropped.
pub(crate) struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    pub(crate) fn new(path: &'a Path) -> Self {
        Self::with("bind", path)
    }

    pub(crate) fn read_only(path: &'a Path) -> Self {
        Self::with("bind,ro", path)
    }

    fn with(options: &str, path: &'a Path) -> Self {
        let mounted = Command::new("mount").args(["-o", options]).args([path, path]).status().unwrap();
        assert!(mounted.success());
        Self(path)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg(self.0).status();
    }
}

fn states(directory: &Path) -> BTreeMap<PathBuf, State> {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let of = |path: PathBuf| {
        let found = fs::symlink_metadata(&path).unwrap();
        let content = found.is_file().then(|| fs::read(&path).unwrap());
        let state = State { owner: (found.uid(), found.gid()), mode: found.mode(), content };
        (path, state)
    };
    files.chain([directory.to_owned()]).map(of).collect()
}

/// Says how many rounds of a race are played.
pub(crate) const ROUNDS: &str = "ADVERSARIAL_ROUNDS";

/// How many rounds are played in one scene: the agent keeps the former tokens of a runner for a month, so each round takes
/// longer than the one before.
const ROUNDS_OF_SCENE: u32 = 200;

/// Plays the rounds of a race, in as many scenes as they need.
pub(crate) fn in_scenes(play: fn(&Scene, u32) -> Result<(), String>) -> Result<(), String> {
    let mut left = env::var(ROUNDS).ok().map_or(ROUNDS_OF_SCENE, |rounds| rounds.parse().unwrap());
    while left > 0 {
        let rounds = left.min(ROUNDS_OF_SCENE);
        play(&Scene::of_race(), rounds)?;
        left -= rounds;
    }
    Ok(())
}
