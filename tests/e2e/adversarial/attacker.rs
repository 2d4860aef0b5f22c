//! What user 1500 does, in a process of his own.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::getppid;

/// The attacker's user and group.
pub(crate) const USER: u32 = 1500;

/// The first argument of this program when it is the attacker.
pub(crate) const PLAY: &str = "--play";

/// A running attacker; killed on drop.
pub(crate) struct Attacker(Child);

impl Attacker {
    /// Starts the attacker with one of the plays of [`play`].
    pub(crate) fn start(play: &str, paths: &[&Path]) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([PLAY, play]).args(paths).uid(USER).gid(USER);
        Self(command.spawn().unwrap())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Plays until it is killed, or root's process has ended.
pub(crate) fn play(words: &[String]) {
    let parent = getppid();
    let is_watched = || getppid() == parent;
    let path = |at: usize| Path::new(&words[at]);
    match words[0].as_str() {
        // Two names trade places, again and again.
        "exchange" => {
            while is_watched() {
                if renameat_with(CWD, path(1), CWD, path(2), RenameFlags::EXCHANGE).is_err() {
                    // One of them is missing for a moment.
                    std::thread::yield_now();
                }
            }
        }
        // A file takes the name of another one that comes and goes, and leaves it again.
        "take-name" => {
            while is_watched() {
                let _removed = fs::remove_file(path(2));
                let _taken = fs::rename(path(1), path(2));
                let _given_back = fs::rename(path(2), path(1));
            }
        }
        other => panic!("no play is called {other}"),
    }
}
