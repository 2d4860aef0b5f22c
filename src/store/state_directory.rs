//! The state directory of one config.toml: `STATE/<hash of its resolved path>/`.
//!
//! A symbolic link on the way to config.toml may lead elsewhere later, as on a switch between releases: it is the same
//! config.toml to its user, and its state follows. So each state directory lists the paths by which its config.toml was
//! last opened. A path that another directory lists has been pointed elsewhere since, and that directory is moved.
//!
//! One process at a time looks for its directory: it locks `STATE` meanwhile. Each process locks its state directory,
//! shared with others, as long as it works. So a directory that is locked as a whole is used by no process, and none can
//! begin to use it while it is moved.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::error::Error;
use super::files::{make_directory, names_in, read_file, replace_file, resolve};
use super::locks::{LockAttempt, lock_directory, share_directory, try_lock, try_lock_directory};
use crate::files::{Place, is_there, is_trusted, refused};
use crate::secret::sha256_hex;

/// Length of the config path's hash in the state directory's name, in hex digits.
const NAME_DIGITS: usize = 12;

/// Lists the paths by which config.toml was opened, one per line.
const PATHS: &str = "config.paths";

/// A state directory that this process uses; it is not moved before this is dropped.
pub(super) struct StateDirectory {
    /// `STATE/<hash>`.
    pub(super) path: PathBuf,
    _lock: Option<File>,
}

/// Finds or creates `STATE/<hash>/runners` with mode 0700, and returns `STATE/<hash>`. `written` is the path that the user
/// gave, and `resolved` the same behind all links.
pub(super) fn open(root: &Path, written: &Path, resolved: &Path) -> Result<StateDirectory, Error> {
    let written = std::path::absolute(written).map_err(Error::io("find", written))?;
    make_directory(root)?;
    // Without links, each of its files is found in one step.
    let root = resolve(root)?;
    check_root(&root)?;
    let turn = lock_directory(&root)?;
    let state = root.join(name_of(resolved));
    let former = if paths_of(&state).contains(&written) { None } else { former_of(&root, &state, &written) };
    let mut is_settled = true;
    if let Some(former) = former {
        let switch = Switch { former: &former, state: &state, written: &written, resolved };
        let followed =
            if turn.is_some() { switch.follow() } else { Followed::NotYet("no directory can be locked there") };
        let why = match followed {
            // That process has opened config.toml by a path that leads to the same file.
            Followed::InUse => return Ok(StateDirectory { _lock: share_directory(&former), path: former }),
            Followed::Moved => {
                tracing::warn!(
                    path = %written.display(), to = %resolved.display(), former = %former.display(), state = %state.display(),
                    "config.toml was pointed elsewhere: its state has moved along"
                );
                None
            }
            Followed::Stays(why) => Some(why),
            Followed::NotYet(why) => {
                is_settled = false;
                Some(why)
            }
        };
        if let Some(why) = why {
            tracing::warn!(
                path = %written.display(), to = %resolved.display(), former = %former.display(), state = %state.display(),
                "config.toml was pointed elsewhere, and its former state stays where it is, because {why}: stop the agent, and rename the former directory if its runners belong to this config.toml"
            );
        }
    }
    make_own(&state)?;
    make_own(&state.join("runners"))?;
    if is_settled {
        note(&root, &state, &written);
    }
    Ok(StateDirectory { _lock: share_directory(&state), path: state })
}

/// What became of a former state directory.
enum Followed {
    Moved,
    /// Another process uses it for the same config.toml.
    InUse,
    /// It is not that of this path any more.
    Stays(&'static str),
    /// It could not be moved now; the next start tries again.
    NotYet(&'static str),
}

/// A path that leads elsewhere than before.
struct Switch<'a> {
    /// The state directory of the file that it led to.
    former: &'a Path,
    /// That of the file that it leads to.
    state: &'a Path,
    written: &'a Path,
    resolved: &'a Path,
}

impl Switch<'_> {
    /// Moves the former state directory to its new name, unless it is in use or has to stay.
    fn follow(&self) -> Followed {
        // This comes first: a process that uses the former directory may have opened it by that other path.
        if paths_of(self.former).iter().any(|path| self.leads_elsewhere(path)) {
            return Followed::Stays("another path to its config.toml does not lead here");
        }
        let _former = match claim(self.former) {
            Claim::Free(lock) => lock,
            Claim::InUse => return Followed::InUse,
            Claim::Unknown => return Followed::NotYet("it cannot be locked"),
        };
        if has_runners(self.state) {
            return Followed::Stays("the new one has runners of its own");
        }
        if is_there(&self.state.join("config.copy")) {
            return Followed::NotYet("a write of the new config.toml was interrupted");
        }
        let moved = if is_there(self.state) {
            match claim(self.state) {
                Claim::Free(_state) => self.rename_over_unused(),
                Claim::InUse => return Followed::NotYet("another process uses the new one"),
                Claim::Unknown => return Followed::NotYet("the new one cannot be locked"),
            }
        } else {
            rename(self.former, self.state)
        };
        let synced = moved.and_then(|()| Place::find(self.state)?.sync_directory());
        match synced {
            Ok(()) => Followed::Moved,
            Err(error) => {
                tracing::debug!(%error, former = %self.former.display(), "cannot rename a state directory");
                Followed::NotYet("it cannot be renamed")
            }
        }
    }

    /// Whether another path by which the former file was opened leads to that or to a third file.
    fn leads_elsewhere(&self, path: &Path) -> bool {
        path != self.written && is_there(path) && resolve(path).is_ok_and(|path| path != self.resolved)
    }

    /// Keeps what is in the way, such as dropped entries, under another name.
    fn rename_over_unused(&self) -> io::Result<()> {
        let kept = (1u32..).map(|number| self.state.with_extension(number.to_string())).find(|path| !is_there(path));
        let kept = kept.ok_or(io::ErrorKind::AlreadyExists)?;
        rename(self.state, &kept)?;
        rename(self.former, self.state).inspect_err(|_| {
            let _left = rename(&kept, self.state);
        })
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    Place::find(from)?.rename(&Place::find(to)?)
}

/// Fails if the directory belongs to another user, who could replace what is made in it.
fn check_root(root: &Path) -> Result<(), Error> {
    let check = || {
        let user = Place::find(root)?.metadata()?.uid();
        if is_trusted(user) {
            return Ok(());
        }
        Err(refused(format!(
            "it belongs to user {user}, who could replace what is in it: choose a directory of this process's user"
        )))
    };
    check().map_err(Error::io("use the state directory", root))
}

/// Makes a directory that only this process's user can use, or checks that it is one.
fn make_own(path: &Path) -> Result<(), Error> {
    make_directory(path)?;
    let open = || Place::find(path)?.open_directory();
    let opened = open().map_err(Error::io("open", path))?;
    let found = opened.metadata().map_err(Error::io("read", path))?;
    let user = found.uid();
    if !is_trusted(user) {
        let reason = format!("it belongs to user {user}: remove it, or choose another state directory");
        return Err(Error::io("use", path)(refused(reason)));
    }
    if found.mode() & 0o7777 == 0o700 {
        return Ok(());
    }
    opened.set_permissions(Permissions::from_mode(0o700)).map_err(Error::io("set the mode of", path))
}

/// The result of an attempt to lock a state directory as a whole.
enum Claim {
    Free(File),
    InUse,
    /// It cannot be locked.
    Unknown,
}

/// Locks a state directory that no process uses.
fn claim(directory: &Path) -> Claim {
    let lock = match try_lock_directory(directory) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Claim::InUse,
        Err(error) => {
            tracing::debug!(%error, "cannot lock a state directory");
            return Claim::Unknown;
        }
    };
    // A daemon of an earlier version locks only this file.
    let daemon = directory.join("lock");
    if !is_there(&daemon) {
        return Claim::Free(lock);
    }
    match try_lock(&daemon) {
        Ok(LockAttempt::Locked(_)) => Claim::Free(lock),
        Ok(LockAttempt::HeldBy(_)) => Claim::InUse,
        Err(error) => {
            tracing::debug!(%error, "cannot lock a state directory");
            Claim::Unknown
        }
    }
}

fn name_of(resolved: &Path) -> String {
    let mut name = sha256_hex(resolved.as_os_str().as_bytes());
    name.truncate(NAME_DIGITS);
    name
}

/// The other directories below `STATE` that list a path.
fn others_that_list(root: &Path, state: &Path, written: &Path) -> Vec<PathBuf> {
    let files = directories_in(root).into_iter();
    files.filter(|it| it != state && paths_of(it).iter().any(|path| path == written)).collect()
}

/// The directory that belonged to this path when config.toml was last opened by it. A crash can leave the path in the
/// lists of several ones: the list that was written last is right.
fn former_of(root: &Path, state: &Path, written: &Path) -> Option<PathBuf> {
    let formers = others_that_list(root, state, written).into_iter().filter(|it| has_runners(it));
    let written_at = |it: &PathBuf| Place::own(&it.join(PATHS))?.metadata()?.modified();
    formers.max_by_key(|it| written_at(it).ok())
}

/// Whether a state directory holds anything about runners.
fn has_runners(state: &Path) -> bool {
    let suffixes = ["json", "held", "pending"];
    let is_about_runner = |path: PathBuf| path.extension().is_some_and(|end| suffixes.iter().any(|it| end == *it));
    let names = names_in(&state.join("runners"));
    names.is_ok_and(|names| names.into_iter().any(|name| is_about_runner(PathBuf::from(name))))
}

fn directories_in(root: &Path) -> Vec<PathBuf> {
    // The root may be writable by others, unlike what is in it.
    let names = Place::find(&root.join("-")).and_then(|place| place.names_beside());
    names.unwrap_or_default().into_iter().map(|name| root.join(name)).collect()
}

fn paths_of(state: &Path) -> Vec<PathBuf> {
    let content = read_file(&state.join(PATHS)).ok().flatten().unwrap_or_default();
    let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| PathBuf::from(std::ffi::OsStr::from_bytes(line))).collect()
}

/// Notes that a path leads to the config.toml of this directory, and to no other one. If that fails, the state would only
/// not follow a link.
fn note(root: &Path, state: &Path, written: &Path) {
    if written.as_os_str().as_bytes().contains(&b'\n') {
        return;
    }
    let mut paths = paths_of(state);
    let mut noted = Ok(());
    if !paths.iter().any(|path| path == written) {
        paths.push(written.to_owned());
        noted = write_paths(state, &paths);
    }
    // In this order, a crash forgets no path.
    for other in others_that_list(root, state, written) {
        paths = paths_of(&other);
        paths.retain(|path| path != written);
        noted = noted.and_then(|()| write_paths(&other, &paths));
    }
    if let Err(error) = noted {
        tracing::debug!(%error, "cannot note the path of config.toml");
    }
}

fn write_paths(state: &Path, paths: &[PathBuf]) -> Result<(), Error> {
    let lines = paths.iter().flat_map(|path| path.as_os_str().as_bytes().iter().chain(b"\n"));
    replace_file(&state.join(PATHS), &lines.copied().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Links {
        directory: tempfile::TempDir,
    }

    impl Links {
        /// `config.toml` leads to `1/config.toml`, and its state has a runner.
        fn new() -> Self {
            let links = Self { directory: tempfile::tempdir().unwrap() };
            for release in ["1", "2", "3"] {
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

        /// Opens it by a path, as a process that still works.
        fn used(&self, written: &str) -> StateDirectory {
            let written = self.path(written);
            open(&self.path("state"), &written, &resolve(&written).unwrap()).unwrap()
        }

        /// The same for a process that ends at once.
        fn open(&self, written: &str) -> PathBuf {
            self.used(written).path
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
    fn state_stays_while_a_process_uses_it_and_is_used_there() {
        let links = Links::new();
        let former = links.used("config.toml");
        links.point_to("2");
        let beside = links.used("config.toml");
        assert_eq!(beside.path, former.path);
        drop(former);
        assert_eq!(links.open("config.toml"), beside.path, "the second one uses it");
        drop(beside);
        assert!(has_runners(&links.open("config.toml")));
        assert_eq!(links.names(), [name_of(&links.release("2"))]);
    }

    #[test]
    fn state_stays_while_a_daemon_of_an_earlier_version_uses_it() {
        let links = Links::new();
        let former = links.open("config.toml");
        let daemon = File::create(former.join("lock")).unwrap();
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

    #[test]
    fn state_that_a_process_uses_by_another_path_is_not_used_for_another_file() {
        let links = Links::new();
        let daemon = links.used("1/config.toml");
        links.point_to("2");
        assert_ne!(links.open("config.toml"), daemon.path);

        // The same if that path leads to a third file by now.
        let links = Links::new();
        std::os::unix::fs::symlink(links.release("1"), links.path("other.toml")).unwrap();
        let daemon = links.used("other.toml");
        fs::remove_file(links.path("other.toml")).unwrap();
        std::os::unix::fs::symlink(links.release("3"), links.path("other.toml")).unwrap();
        links.point_to("2");
        assert_ne!(links.open("config.toml"), daemon.path);
        assert_eq!(links.open("other.toml"), daemon.path);
    }

    #[test]
    fn state_that_was_used_last_follows_a_link_that_has_led_to_several_files() {
        // The order of a directory is that of hashes: with other paths, another one comes first.
        for _ in 0..8 {
            let links = Links::new();
            fs::write(links.open("2/config.toml").join("runners/present.json"), "{}").unwrap();
            links.point_to("2");
            let second = links.open("config.toml");
            assert!(paths_of(&links.path("state").join(name_of(&links.release("1")))).is_empty());
            for release in ["1", "2"] {
                fs::remove_dir_all(links.path(release)).unwrap();
            }
            links.point_to("3");
            assert!(links.open("config.toml").join("runners/present.json").exists());
            assert!(!second.exists());
        }
    }

    #[test]
    fn state_that_a_crash_has_left_in_two_lists_is_the_one_noted_last() {
        for _ in 0..8 {
            let links = Links::new();
            let first = links.open("config.toml");
            let second = links.open("2/config.toml");
            fs::write(second.join("runners/present.json"), "{}").unwrap();
            let path = [links.path("config.toml")];
            for (state, seconds) in [(&first, 1), (&second, 2)] {
                write_paths(state, &path).unwrap();
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
                File::open(state.join(PATHS)).unwrap().set_modified(time).unwrap();
            }
            links.point_to("3");
            assert!(links.open("config.toml").join("runners/present.json").exists());
        }
    }

    #[test]
    fn what_a_directory_without_runners_holds_is_kept_and_does_not_block_the_move() {
        let links = Links::new();
        let unused = links.open("2/config.toml");
        fs::write(unused.join("runners/build.lock"), "").unwrap();
        fs::create_dir(unused.join("dropped")).unwrap();
        fs::write(unused.join("dropped/kept.toml"), "text").unwrap();
        fs::create_dir(unused.with_extension("1")).unwrap();
        links.point_to("2");
        assert_eq!(links.open("config.toml"), unused);
        assert!(has_runners(&unused) && !unused.join("dropped").exists());
        assert!(unused.with_extension("2").join("dropped/kept.toml").exists());
        // The same for the next opening by the path that was used before.
        assert!(has_runners(&links.open("2/config.toml")));
    }

    #[test]
    fn move_that_failed_is_tried_again() {
        for obstacle in ["lock of the former one", "use of the new one", "write of the new one"] {
            let links = Links::new();
            let former = links.open("config.toml");
            let new = links.used("2/config.toml");
            links.point_to("2");
            match obstacle {
                "lock of the former one" => fs::create_dir(former.join("lock")).unwrap(),
                "write of the new one" => fs::write(new.path.join("config.copy"), "").unwrap(),
                _ => {}
            }
            let in_use = (obstacle == "use of the new one").then_some(new);
            for _ in 0..2 {
                assert!(!has_runners(&links.open("config.toml")), "{obstacle}");
            }
            drop(in_use);
            let _absent = fs::remove_dir(former.join("lock"));
            let _absent = fs::remove_file(links.path("state").join(name_of(&links.release("2"))).join("config.copy"));
            assert!(has_runners(&links.open("config.toml")), "{obstacle}");
            assert!(!former.exists());
        }
    }

    #[test]
    fn state_follows_the_links_of_a_kubernetes_volume() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let swap = |version: &str| {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("config.toml"), "").unwrap();
            std::os::unix::fs::symlink(version, path("..new")).unwrap();
            let former = fs::read_link(path("..data"));
            fs::rename(path("..new"), path("..data")).unwrap();
            if let Ok(former) = former {
                fs::remove_dir_all(path(former.to_str().unwrap())).unwrap();
            }
        };
        let written = path("config.toml");
        std::os::unix::fs::symlink("..data/config.toml", &written).unwrap();
        let used = || open(&path("state"), &written, &resolve(&written).unwrap()).unwrap();
        swap("..1");
        let mut daemon = used();
        fs::write(daemon.path.join("runners/build.json"), "{}").unwrap();
        for version in 2..6 {
            swap(&format!("..{version}"));
            assert_eq!(used().path, daemon.path, "a command beside the daemon");
            if version % 2 == 0 {
                drop(daemon);
                daemon = used();
                assert!(daemon.path.ends_with(name_of(&resolve(&written).unwrap())), "a restart");
            }
            assert!(has_runners(&daemon.path));
            assert_eq!(super::super::tests::names(&path("state")).len(), 1);
        }
    }

    #[test]
    fn each_of_several_files_with_one_state_root_has_its_own_state() {
        let links = Links::new();
        let others: Vec<_> = ["2/config.toml", "3/config.toml"].map(|file| links.used(file)).into();
        for (other, name) in others.iter().zip(["second", "third"]) {
            fs::write(other.path.join("runners").join(name).with_extension("json"), "{}").unwrap();
        }
        fs::create_dir(links.path("4")).unwrap();
        fs::write(links.release("4"), "").unwrap();
        links.point_to("4");
        assert!(links.open("config.toml").join("runners/build.json").exists());
        assert!(links.open("2/config.toml").join("runners/second.json").exists());
        assert!(links.open("3/config.toml").join("runners/third.json").exists());
        assert_eq!(links.names().len(), 3);
    }

    #[test]
    fn state_below_a_directory_that_cannot_be_written_is_used() {
        let links = Links::new();
        let root = links.path("state");
        fs::set_permissions(&root, Permissions::from_mode(0o500)).unwrap();
        assert!(has_runners(&links.open("config.toml")));
        fs::set_permissions(&root, Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn process_that_starts_during_a_move_waits_for_it_and_has_the_state() {
        let links = Links::new();
        let former = links.path("state").join(name_of(&links.release("1")));
        links.point_to("2");
        // What another process does meanwhile.
        let turn = lock_directory(&links.path("state")).unwrap();
        let moved = claim(&former);
        assert!(matches!(moved, Claim::Free(_)));
        std::thread::scope(|scope| {
            let (opened, is_open) = std::sync::mpsc::channel();
            let links = &links;
            scope.spawn(move || opened.send(links.used("config.toml")));
            assert!(is_open.recv_timeout(std::time::Duration::from_millis(100)).is_err());
            fs::rename(&former, links.path("state").join(name_of(&links.release("2")))).unwrap();
            drop((moved, turn));
            assert!(has_runners(&is_open.recv().unwrap().path));
        });
        assert_eq!(links.names(), [name_of(&links.release("2"))]);
    }

    #[test]
    fn processes_that_start_together_after_a_switch_all_have_the_state() {
        for _ in 0..20 {
            let links = Links::new();
            links.point_to("2");
            let opened = std::thread::scope(|scope| {
                let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| links.used("config.toml"))).collect();
                starts.into_iter().map(|start| start.join().unwrap()).collect::<Vec<_>>()
            });
            assert!(opened.iter().all(|state| state.path.ends_with(name_of(&links.release("2")))));
            assert!(opened.iter().all(|state| has_runners(&state.path)));
        }
    }
}
