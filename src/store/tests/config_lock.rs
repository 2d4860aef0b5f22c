//! Locks of config.toml that another process does not release.

use std::fs::File;

use super::*;

const ENTRY: &str = "[[runners]]\n  url = \"https://gitlab.example.com\"\n  id = 1\n  token = \"old\"\n";

/// In a directory of another user.
fn of_another_user() -> Home {
    let mut home = Home::with(ENTRY);
    (home.hooks.another_owner, home.hooks.impatient) = (true, true);
    home
}

fn bind_mounted_of_another_user() -> Home {
    let mut home = of_another_user();
    home.hooks.mount_point = true;
    home
}

impl Home {
    fn lock_path(&self) -> PathBuf {
        self.config_path().with_file_name(".config.toml.lock")
    }

    /// The locks of root's processes.
    fn root_locks(&self) -> PathBuf {
        self.directory.path().join("run")
    }
}

/// A lock that is held until it is dropped.
fn held(path: &Path) -> File {
    let file = File::options().create(true).truncate(false).read(true).write(true).open(path).unwrap();
    file.lock().unwrap();
    file
}

fn holder(error: &Error) -> Option<u32> {
    match error {
        Error::FileLocked { holder, .. } => *holder,
        other => panic!("{other}"),
    }
}

#[test]
fn root_goes_on_without_a_lock_that_another_user_holds_for_ever() {
    let home = of_another_user();
    let _held = held(&home.lock_path());
    let store = home.open();
    block_on(store.probe(Urgency::CanWait)).unwrap();
    block_on(store.edit(renew(1, "new"))).unwrap();
    assert!(home.read().contains("\"new\""));
    assert_eq!(names(&home.root_locks()).len(), 1);
}

#[test]
fn root_goes_on_without_a_lock_file_that_is_none() {
    let home = of_another_user();
    std::fs::create_dir(home.lock_path()).unwrap();
    block_on(home.open().edit(renew(1, "new-1"))).unwrap();
    std::fs::remove_dir(home.lock_path()).unwrap();
    std::os::unix::fs::symlink("elsewhere", home.lock_path()).unwrap();
    block_on(home.open().edit(renew(1, "new-2"))).unwrap();
    assert!(home.read().contains("new-2"));
}

#[test]
fn a_lock_of_ones_own_directory_is_never_done_without() {
    let mut home = Home::with(ENTRY);
    home.hooks.impatient = true;
    let _held = held(&home.lock_path());
    let error = block_on(home.open().edit(renew(1, "new"))).unwrap_err();
    assert_eq!(holder(&error), Some(std::process::id()));
    assert!(home.read().contains("\"old\"") && !home.root_locks().exists());
}

#[test]
fn without_a_lock_of_its_own_a_process_does_not_go_on_without_the_common_one() {
    let home = of_another_user();
    let _held = held(&home.lock_path());
    std::fs::write(home.root_locks(), "").unwrap();
    holder(&block_on(home.open().edit(renew(1, "new"))).unwrap_err());
    let other = Config { root_locks: None, ..home.config() };
    let other = Store::open_with(other, home.hooks.clone()).unwrap();
    holder(&block_on(other.edit(renew(1, "new"))).unwrap_err());
    assert!(home.read().contains("\"old\""));
}

#[test]
fn processes_of_root_exclude_each_other_whatever_another_user_holds() {
    let home = of_another_user();
    block_on(home.open().edit(renew(1, "new-1"))).unwrap();
    let [name] = &names(&home.root_locks())[..] else { panic!("no lock") };
    let among_root = held(&home.root_locks().join(name));
    holder(&block_on(home.open().edit(renew(1, "new-2"))).unwrap_err());
    assert!(home.read().contains("new-1"));
    // The lock beside config.toml counts where it can be had, also in a container with another `/run`.
    drop(among_root);
    let elsewhere = Config { root_locks: Some(home.directory.path().join("run-of-a-container")), ..home.config() };
    let elsewhere = Store::open_with(elsewhere, home.hooks.clone()).unwrap();
    block_on(elsewhere.edit(renew(1, "new-3"))).unwrap();
    assert!(home.read().contains("new-3"));
}

#[test]
fn each_config_toml_has_a_lock_of_its_own_among_roots() {
    let home = of_another_user();
    let second = home.config_path().with_file_name("other.toml");
    std::fs::write(&second, ENTRY).unwrap();
    let link = home.directory.path().join("link.toml");
    std::os::unix::fs::symlink(home.config_path(), &link).unwrap();
    for (path, count) in [(home.config_path(), 1), (link, 1), (second, 2)] {
        let store = Store::open_with(Config { config_path: path, ..home.config() }, home.hooks.clone()).unwrap();
        block_on(store.edit(renew(1, "new"))).unwrap();
        assert_eq!(names(&home.root_locks()).len(), count);
    }
}

#[test]
fn a_mount_point_that_stays_locked_is_written_only_if_it_is_pressing() {
    let home = bind_mounted_of_another_user();
    let _held = held(&home.config_path());
    let store = home.open();
    let error = block_on(store.probe(Urgency::CanWait)).unwrap_err();
    assert_eq!(holder(&error), Some(std::process::id()));
    block_on(store.probe(Urgency::Pressing)).unwrap();
    block_on(store.edit(renew(1, "new"))).unwrap();
    assert!(home.read().contains("\"new\"") && !home.copy().exists());
}

#[test]
fn a_mount_point_of_ones_own_that_stays_locked_is_never_written() {
    let mut home = Home::with(ENTRY);
    (home.hooks.mount_point, home.hooks.impatient) = (true, true);
    let _held = held(&home.config_path());
    let store = home.open();
    holder(&block_on(store.probe(Urgency::Pressing)).unwrap_err());
    holder(&block_on(store.edit(renew(1, "new"))).unwrap_err());
}
