//! The state directory of one config.toml: `STATE/<hash of its resolved path>/`.
//!
//! A symbolic link on the way to config.toml may lead elsewhere later, as on a switch between releases: it is the same
//! config.toml to its user, and its state follows. So each state directory lists the paths by which its config.toml was
//! opened. A path that another directory lists has been pointed elsewhere since, and that directory is moved.

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::files::{make_directory, read_file, replace_file, resolve};
use super::locks::{LockAttempt, try_lock};
use crate::secret::sha256_hex;

/// Length of the config path's hash in the state directory's name, in hex digits.
const NAME_DIGITS: usize = 12;

/// Lists the paths by which config.toml was opened, one per line.
const PATHS: &str = "config.paths";

/// Finds or creates `STATE/<hash>/runners` with mode 0700, and returns `STATE/<hash>`. `written` is the path that the user
/// gave, and `resolved` the same behind all links.
pub(super) fn open(root: &Path, written: &Path, resolved: &Path) -> Result<PathBuf, Error> {
    let root = std::path::absolute(root).map_err(Error::io("find", root))?;
    let written = std::path::absolute(written).map_err(Error::io("find", written))?;
    let state = root.join(name_of(resolved));
    let is_known = paths_of(&state).contains(&written);
    if !is_known && let Some(former) = former_of(&root, &state, &written) {
        match follow(&former, &state, &written) {
            Followed::Moved => tracing::warn!(
                path = %written.display(), to = %resolved.display(), former = %former.display(), state = %state.display(),
                "config.toml was pointed elsewhere: its state has moved along"
            ),
            // A daemon still uses it.
            Followed::Busy => return Ok(former),
            Followed::NotMoved(why) => tracing::warn!(
                path = %written.display(), to = %resolved.display(), former = %former.display(), state = %state.display(),
                "config.toml was pointed elsewhere, and its former state stays where it is, because {why}: stop the agent, and rename the former directory if its runners belong to this config.toml"
            ),
        }
    }
    make_directory(&state.join("runners"))?;
    fs::set_permissions(&state, Permissions::from_mode(0o700)).map_err(Error::io("set the mode of", &state))?;
    if !is_known {
        note(&state, &written);
    }
    Ok(state)
}

/// What became of a former state directory.
enum Followed {
    Moved,
    Busy,
    NotMoved(&'static str),
}

fn name_of(resolved: &Path) -> String {
    let mut name = sha256_hex(resolved.as_os_str().as_bytes());
    name.truncate(NAME_DIGITS);
    name
}

/// The directory that belonged to this path when config.toml was last opened by it.
fn former_of(root: &Path, state: &Path, written: &Path) -> Option<PathBuf> {
    let directories = fs::read_dir(root).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut formers: Vec<_> = directories
        .filter(|it| it != state && has_runners(it) && paths_of(it).iter().any(|path| path == written))
        .collect();
    formers.sort();
    formers.into_iter().next()
}

/// Moves a former state directory to its new name, unless it is in use or something else is there.
fn follow(former: &Path, state: &Path, written: &Path) -> Followed {
    let lock = match try_lock(&former.join("lock")) {
        Ok(LockAttempt::Locked(file)) => file,
        Ok(LockAttempt::HeldBy(_)) => return Followed::Busy,
        Err(_) => return Followed::NotMoved("it cannot be locked"),
    };
    let leads_there = |path: &PathBuf| {
        path != written && path.exists() && resolve(path).is_ok_and(|path| former.ends_with(name_of(&path)))
    };
    if paths_of(former).iter().any(leads_there) {
        return Followed::NotMoved("another path still leads to its config.toml");
    }
    if has_runners(state) {
        return Followed::NotMoved("the new one has runners of its own");
    }
    let new_lock = state.join("lock");
    if new_lock.exists() && !matches!(try_lock(&new_lock), Ok(LockAttempt::Locked(_))) {
        return Followed::NotMoved("another daemon uses the new one");
    }
    // What an earlier start without runners has left.
    for leftover in ["lock", PATHS] {
        let _absent = fs::remove_file(state.join(leftover));
    }
    let _absent = fs::remove_dir(state.join("runners"));
    let moved = fs::rename(former, state);
    drop(lock);
    match moved {
        Ok(()) => Followed::Moved,
        Err(error) => {
            tracing::debug!(%error, former = %former.display(), "cannot rename a state directory");
            Followed::NotMoved("it cannot be renamed")
        }
    }
}

/// Whether a state directory holds anything about runners.
fn has_runners(state: &Path) -> bool {
    let suffixes = ["json", "held", "pending"];
    let is_about_runner = |path: PathBuf| path.extension().is_some_and(|end| suffixes.iter().any(|it| end == *it));
    fs::read_dir(state.join("runners"))
        .is_ok_and(|files| files.filter_map(Result::ok).any(|file| is_about_runner(file.path())))
}

fn paths_of(state: &Path) -> Vec<PathBuf> {
    let content = read_file(&state.join(PATHS)).ok().flatten().unwrap_or_default();
    let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| PathBuf::from(std::ffi::OsStr::from_bytes(line))).collect()
}

/// Adds a path to the list. Without it, the state would only not follow a link.
fn note(state: &Path, written: &Path) {
    let bytes = written.as_os_str().as_bytes();
    if bytes.contains(&b'\n') {
        return;
    }
    let known = paths_of(state);
    let lines = known.iter().map(|path| path.as_os_str().as_bytes()).chain([bytes]);
    let content = lines.flat_map(|line| line.iter().chain(b"\n")).copied().collect::<Vec<_>>();
    if let Err(error) = replace_file(&state.join(PATHS), &content) {
        tracing::debug!(%error, "cannot note the path of config.toml");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Links {
        directory: tempfile::TempDir,
    }

    impl Links {
        /// `config.toml` leads to `1/config.toml`, and its state has a runner.
        fn new() -> Self {
            let links = Self { directory: tempfile::tempdir().unwrap() };
            for release in ["1", "2"] {
                fs::create_dir(links.path(release)).unwrap();
                fs::write(links.release(release), "").unwrap();
            }
            links.point_to("1");
            fs::write(links.open("config.toml").join("runners/build.json"), "{}").unwrap();
            links
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn release(&self, name: &str) -> PathBuf {
            self.path(name).join("config.toml")
        }

        fn point_to(&self, release: &str) {
            let link = self.path("config.toml");
            let _absent = fs::remove_file(&link);
            std::os::unix::fs::symlink(self.release(release), link).unwrap();
        }

        fn open(&self, written: &str) -> PathBuf {
            let written = self.path(written);
            open(&self.path("state"), &written, &resolve(&written).unwrap()).unwrap()
        }

        fn names(&self) -> Vec<String> {
            super::super::tests::names(&self.path("state"))
        }
    }

    #[test]
    fn state_follows_a_link_that_was_pointed_elsewhere_and_back() {
        let links = Links::new();
        for release in ["2", "1", "2"] {
            links.point_to(release);
            let state = links.open("config.toml");
            assert!(has_runners(&state), "{release}");
            assert_eq!(links.names().len(), 1);
            // The same by the path behind the link, and again.
            assert_eq!(links.open("config.toml"), state);
        }
        assert!(has_runners(&links.open("2/config.toml")), "by the path behind the link");
    }

    #[test]
    fn state_follows_a_link_that_became_a_file() {
        let links = Links::new();
        fs::remove_file(links.path("config.toml")).unwrap();
        fs::write(links.path("config.toml"), "").unwrap();
        assert!(has_runners(&links.open("config.toml")));
        assert_eq!(links.names().len(), 1);
    }

    #[test]
    fn state_stays_while_a_daemon_uses_it_and_is_used_there() {
        let links = Links::new();
        let former = links.open("config.toml");
        let daemon = fs::File::create(former.join("lock")).unwrap();
        daemon.lock().unwrap();
        links.point_to("2");
        assert_eq!(links.open("config.toml"), former);
        drop(daemon);
        assert_ne!(links.open("config.toml"), former);
        assert!(has_runners(&links.open("config.toml")));
    }

    #[test]
    fn state_stays_if_another_path_leads_to_it_or_the_new_one_has_runners() {
        let links = Links::new();
        let former = links.open("1/config.toml");
        links.point_to("2");
        let state = links.open("config.toml");
        assert!(has_runners(&former) && !has_runners(&state));

        let links = Links::new();
        let former = links.open("config.toml");
        fs::write(links.open("2/config.toml").join("runners/other.json"), "{}").unwrap();
        links.point_to("2");
        let state = links.open("config.toml");
        assert!(has_runners(&former) && state != former);
        assert!(!state.join("runners/build.json").exists());
    }
}
