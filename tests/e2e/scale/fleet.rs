//! A sandbox of many entries, and the GitLab that knows their runners.

use std::env;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fake_gitlab::{Builder, Gitlab, NewRunner};
use test_support::{Sandbox, config_of};

/// The pause between two looks at config.toml, which is shorter than a replace of it.
const LOOK: Duration = Duration::from_millis(1);

/// A directory whose files are in memory.
const IN_MEMORY: &str = "/dev/shm";

/// A sandbox with many runners, all of which the agent rotates.
pub(crate) struct Fleet {
    sandbox: Sandbox,
}

impl Fleet {
    /// `settings` are added to agent.toml.
    pub(crate) fn new(count: usize, gitlab: Builder, settings: &str) -> Self {
        let binary = env::var("SCALE_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_runner-agent").to_owned());
        let sandbox = Sandbox::new_in(&directory(), binary, gitlab);
        sandbox.write("agent.toml", settings);
        let tokens: Vec<_> = (0..count).map(|_| sandbox.gitlab.add_runner(NewRunner::instance())).collect();
        sandbox.write_config(&config_of(&sandbox.gitlab.url(), &tokens));
        Self { sandbox }
    }

    /// Counts the replaces of config.toml while `work` goes on: each gives the file another inode.
    pub(crate) fn replaces_during<T>(&self, work: impl FnOnce() -> T) -> (T, usize) {
        let (path, is_over) = (self.path("config/config.toml"), AtomicBool::new(false));
        thread::scope(|scope| {
            let counting = scope.spawn(|| {
                let (mut replaces, mut last) = (0, None);
                while !is_over.load(Ordering::Relaxed) {
                    let inode = fs::metadata(&path).ok().map(|found| found.ino());
                    replaces += usize::from(last.is_some_and(|last| last != inode));
                    last = Some(inode);
                    thread::sleep(LOOK);
                }
                replaces
            });
            let done = work();
            is_over.store(true, Ordering::Relaxed);
            (done, counting.join().unwrap())
        })
    }
}

impl Deref for Fleet {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

/// Where the files are: in memory, unless another place is asked for. On a disk the work of its file system is measured,
/// too, and that depends on what was there before: ext4 without a journal looks at each inode that was freed in the last
/// minutes before it takes another one, and each fleet leaves thousands of them behind.
fn directory() -> PathBuf {
    let in_memory = Path::new(IN_MEMORY);
    if env::var_os("TMPDIR").is_none() && in_memory.is_dir() { in_memory.to_owned() } else { env::temp_dir() }
}

/// A GitLab whose tokens live this long.
pub(crate) fn gitlab(life: Duration) -> Builder {
    Gitlab::builder().token_life(life)
}
