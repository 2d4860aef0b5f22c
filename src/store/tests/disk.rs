use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::files::Exposure;

fn one_entry(number: u64) -> String {
    format!("[[runners]]\n  url = \"{URL}\"\n  id = {number}\n  token = \"old\"\n")
}

fn insert(number: u64) -> Edit {
    let text = EntryText::parse(&format!("[[runners]]\n  name = \"n\"\n  url = \"{URL}\"\n")).unwrap();
    Edit::Insert { text, id: Some(id(number)), credential: credential("new") }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether permission bits keep this process from writing.
fn is_bound_by_modes(directory: &Path) -> bool {
    std::fs::write(directory.join("try"), "").is_err()
}

#[test]
fn a_missing_file_has_no_entries_and_is_created_for_the_owner_alone() {
    let home = Home::new();
    let store = home.open();
    let snapshot = block_on(store.read()).unwrap();
    assert!(!snapshot.exists && snapshot.entries.is_empty());

    block_on(store.edit(insert(1))).unwrap();
    assert_eq!(mode(&home.config_path()), 0o600);
    assert_eq!(mode(home.config_path().parent().unwrap()), 0o700);
    assert_eq!(block_on(store.read()).unwrap().entries[0].id, Some(id(1)));
}

#[test]
fn a_missing_file_is_not_created_for_a_runner_it_cannot_have() {
    let home = Home::new();
    let error = block_on(home.open().edit(renew(1, "new"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSuchEntry);
    assert!(!home.config_path().exists());
}

#[test]
fn a_file_keeps_its_group_bits_and_loses_those_of_others() {
    for (before, after) in [(0o644, 0o640), (0o600, 0o600), (0o660, 0o660), (0o400, 0o400)] {
        let home = Home::with(&one_entry(1));
        set_mode(&home.config_path(), before);
        block_on(home.open().edit(renew(1, "new"))).unwrap();
        assert_eq!(mode(&home.config_path()), after, "{before:o}");
    }
}

#[test]
fn state_is_for_the_owner_alone() {
    let home = Home::new();
    let store = home.open();
    assert!(store.has_state());
    assert_eq!((mode(&home.state()), mode(&home.state().join("runners"))), (0o700, 0o700));
    assert_eq!(names(&home.state().join("runners")), [""; 0]);
}

#[test]
fn a_symbolic_link_stays_and_its_file_is_edited() {
    let home = Home::with(&one_entry(1));
    let real = home.directory.path().join("real.toml");
    std::fs::rename(home.config_path(), &real).unwrap();
    symlink("../real.toml", home.config_path()).unwrap();
    let store = home.open();
    block_on(store.edit(renew(1, "new"))).unwrap();
    assert!(home.config_path().is_symlink());
    assert_eq!(store.config_path(), real.canonicalize().unwrap());
    assert!(std::fs::read_to_string(&real).unwrap().contains("\"new\""));
}

#[test]
fn an_outside_change_just_before_the_rename_survives() {
    let mut home = Home::with(&one_entry(1));
    let path = home.config_path();
    let mut is_first = true;
    home.hooks.before_rename = Some(Arc::new(Mutex::new(move |_: &Path| {
        if std::mem::take(&mut is_first) {
            std::fs::write(&path, format!("concurrent = 7\n{}", one_entry(1))).unwrap();
        }
    })));
    block_on(home.open().edit(renew(1, "new"))).unwrap();
    assert!(home.read().starts_with("concurrent = 7\n"));
    assert!(home.read().contains("token = \"new\""));
    assert_eq!(home.hooks.renames.load(Ordering::SeqCst), 1);
}

#[test]
fn a_file_that_never_stands_still_is_left_alone() {
    let mut home = Home::with(&one_entry(1));
    let path = home.config_path();
    let mut count = 0;
    home.hooks.before_rename = Some(Arc::new(Mutex::new(move |_: &Path| {
        count += 1;
        std::fs::write(&path, format!("concurrent = {count}\n{}", one_entry(1))).unwrap();
    })));
    let error = block_on(home.open().edit(renew(1, "new"))).unwrap_err();
    assert!(matches!(error, Error::ChangedMeanwhile { tries: 5, .. }), "{error}");
    assert!(home.read().contains("\"old\""));
    assert_eq!(names(home.config_path().parent().unwrap()), [".config.toml.lock", "config.toml"]);
}

#[test]
fn changes_that_wait_together_share_one_replace_and_fail_alone() {
    let home = Home::with(&(1..=20).map(one_entry).collect::<String>());
    let store = home.open();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let results = block_on(async {
        let busy = store.work(move |_| {
            released.recv().unwrap();
            Ok(())
        });
        let (first, second) = (store.edit(renew(1, "new-1")), store.edit(renew(99, "none")));
        let edits: Vec<_> = (2..=20).map(|number| store.edit(renew(number, &format!("new-{number}")))).collect();
        let release = async {
            release.send(()).unwrap();
        };
        // `join!` polls in this order, so everything waits before the thread is released.
        let (_, first, second, rest, ()) = tokio::join!(busy, first, second, all(edits), release);
        (first, second, rest)
    });
    assert!(results.0.is_ok());
    assert_eq!(results.1.unwrap_err().kind(), ErrorKind::NoSuchEntry);
    assert!(results.2.iter().all(Result::is_ok));
    assert_eq!(home.hooks.renames.load(Ordering::SeqCst), 1);
    assert_eq!(home.read().matches("token = \"new-").count(), 20);
}

/// A task that puts the next one into the queue before it ends, until so many were done.
fn endless(sender: Sender<DiskTask>, done: Arc<AtomicUsize>, most: usize) -> DiskTask {
    DiskTask::Work(Box::new(move |_| {
        if done.fetch_add(1, Ordering::SeqCst) < most {
            sender.send(endless(sender.clone(), done, most)).unwrap();
            std::thread::sleep(Duration::from_micros(200));
        }
        Box::new(|| ())
    }))
}

#[test]
fn a_change_is_made_although_other_tasks_come_without_a_pause() {
    const MOST: usize = 20_000;
    let home = Home::with(&[one_entry(1), one_entry(2)].concat());
    let store = home.open();
    let done = Arc::new(AtomicUsize::new(0));
    block_on(async {
        // After it, the next change waits a while for others.
        store.edit(renew(1, "new-1")).await.unwrap();
        store.sender.send(endless(store.sender.clone(), Arc::clone(&done), MOST)).unwrap();
        store.edit(renew(2, "new-2")).await.unwrap();
    });
    assert!(done.swap(MOST, Ordering::SeqCst) < MOST);
}

/// Waits for futures at the same time.
async fn all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *result = Some(value);
            }
        }
        if results.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}

#[test]
fn syntax_error_has_a_position_and_changes_nothing() {
    let broken = format!("{}\nbroken = = 1\n", one_entry(1));
    let home = Home::with(&broken);
    let store = home.open();
    for error in [block_on(store.read()).unwrap_err(), block_on(store.edit(renew(1, "new"))).unwrap_err()] {
        assert!(matches!(error, Error::Syntax { line: 6, column: 10, .. }), "{error:?}");
    }
    assert_eq!(home.read(), broken);
}

#[test]
fn what_is_no_text_file_is_unusable_and_not_missing() {
    let home = Home::new();
    std::fs::create_dir_all(home.config_path()).unwrap();
    let store = home.open();
    assert!(matches!(block_on(store.read()), Err(Error::Io { act: "read", .. })));
    std::fs::remove_dir(home.config_path()).unwrap();
    std::fs::write(home.config_path(), b"a = \"\xff\"\n").unwrap();
    assert!(matches!(block_on(store.read()), Err(Error::NotText { .. })));
}

#[test]
fn a_left_over_temporary_file_is_replaced() {
    let home = Home::with(&one_entry(1));
    let left_over = home.config_path().with_file_name(".config.toml.runner-agent.tmp");
    let victim = home.directory.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    symlink(&victim, &left_over).unwrap();
    block_on(home.open().edit(renew(1, "new"))).unwrap();
    assert!(home.read().contains("\"new\"") && !left_over.exists());
    assert_eq!(std::fs::read_to_string(victim).unwrap(), "precious");
}

#[test]
fn a_probe_leaves_nothing_behind_but_the_lock_file() {
    let home = Home::with(&one_entry(1));
    let before = home.config_path().metadata().unwrap();
    let store = home.open();
    block_on(store.probe(Urgency::CanWait)).unwrap();
    assert_eq!(names(home.config_path().parent().unwrap()), [".config.toml.lock", "config.toml"]);
    assert_eq!(names(&home.state().join("runners")), [""; 0]);
    assert_eq!(home.config_path().metadata().unwrap().ino(), before.ino());
}

#[test]
fn a_probe_makes_a_missing_directory_and_refuses_one_that_cannot_be_written() {
    let home = Home::new();
    let store = home.open();
    block_on(store.probe(Urgency::CanWait)).unwrap();
    let directory = home.config_path().parent().unwrap().to_owned();
    assert_eq!(mode(&directory), 0o700);
    std::fs::remove_file(directory.join(".config.toml.lock")).unwrap();

    set_mode(&directory, 0o500);
    if is_bound_by_modes(&directory) {
        assert!(matches!(block_on(store.probe(Urgency::CanWait)), Err(Error::Io { .. })));
        assert!(matches!(block_on(store.edit(insert(1))), Err(Error::Io { .. })));
    }
    set_mode(&directory, 0o700);
}

#[test]
fn a_probe_refuses_a_directory_that_is_a_file() {
    let home = Home::new();
    std::fs::write(home.directory.path().join("etc"), "").unwrap();
    assert!(matches!(block_on(home.open().probe(Urgency::CanWait)), Err(Error::Io { .. })));
}

#[test]
fn a_mount_point_is_overwritten_in_place() {
    let mut home = Home::with(&format!("{}# the end\n", one_entry(1)));
    set_mode(&home.config_path(), 0o644);
    home.hooks.mount_point = true;
    let inode = home.config_path().metadata().unwrap().ino();
    let store = home.open();
    block_on(store.probe(Urgency::CanWait)).unwrap();
    block_on(store.edit(renew(1, "a-longer-token"))).unwrap();
    block_on(store.edit(Edit::Remove { target: knowing(1) })).unwrap();
    assert_eq!(home.config_path().metadata().unwrap().ino(), inode);
    assert_eq!((home.read().as_str(), mode(&home.config_path())), ("", 0o640));
    assert_eq!(names(&home.state()), ["config.paths", "runners"]);
    assert_eq!(names(home.config_path().parent().unwrap()), ["config.toml"]);
}

/// Renews the token of the one entry of a mount point, and brings the content before, the content after, and
/// the copy as it was in the middle.
fn overwritten(home: &mut Home) -> (String, String, Vec<u8>) {
    home.hooks.mount_point = true;
    let (before, copied) = (home.read(), Arc::new(Mutex::new(Vec::new())));
    drop(home.open());
    let (seen, copy) = (Arc::clone(&copied), home.copy());
    home.hooks.before_rename =
        Some(Arc::new(Mutex::new(move |_: &Path| *seen.lock().unwrap() = std::fs::read(&copy).unwrap())));
    block_on(home.open().edit(renew(1, "new"))).unwrap();
    home.hooks.before_rename = None;
    let copied = copied.lock().unwrap().clone();
    (before, home.read(), copied)
}

#[test]
fn an_interrupted_write_in_place_is_finished_at_the_next_start() {
    let shrinking = one_entry(1).replace("old", &"old".repeat(40));
    for original in [one_entry(1), shrinking] {
        let mut home = Home::with(&original);
        let (before, after, copied) = overwritten(&mut home);
        for written in 1..=after.len() {
            let unwritten = before.get(written..).unwrap_or_default();
            let torn = format!("{}{unwritten}", &after[..written]);
            home.write(&torn);
            std::fs::write(home.copy(), &copied).unwrap();
            drop(home.open());
            let expected = if torn == before { &before } else { &after };
            assert_eq!(&home.read(), expected, "torn at {written}");
            assert!(!home.copy().exists());
        }
    }
}

#[test]
fn edit_after_an_interrupted_in_place_write_is_kept() {
    let mut home = Home::with(&one_entry(1));
    let (before, after, copied) = overwritten(&mut home);
    let reverted_and_edited = format!("concurrent = 4\n{before}");
    let later = [reverted_and_edited, before.replace("old", "else"), after.replace("id = 1", "id = 7"), String::new()];
    for later in later {
        home.write(&later);
        std::fs::write(home.copy(), &copied).unwrap();
        drop(home.open());
        assert_eq!(home.read(), later);
        assert!(!home.copy().exists());
    }
}

#[test]
fn what_is_left_of_neither_and_no_toml_is_repaired() {
    let mut home = Home::with(&one_entry(1));
    let (_, after, copied) = overwritten(&mut home);
    let with_a_hole = format!("{}\0\0\0", &after[..after.len() - 3]);
    for broken in [&after[..10], &with_a_hole] {
        home.write(broken);
        std::fs::write(home.copy(), &copied).unwrap();
        drop(home.open());
        assert_eq!(home.read(), after);
    }
}

#[test]
fn a_write_in_place_that_found_no_space_leaves_nothing_to_be_finished() {
    let mut home = Home::with(&one_entry(1));
    home.hooks.mount_point = true;
    home.hooks.no_space = true;
    let store = home.open();
    assert!(matches!(block_on(store.edit(renew(1, "new"))), Err(Error::Io { act: "overwrite", .. })));
    assert_eq!(
        (home.read(), names(&home.state())),
        (one_entry(1), vec!["config.paths".to_owned(), "runners".to_owned()])
    );
}

#[test]
fn a_damaged_copy_is_never_replayed() {
    let mut home = Home::with(&one_entry(1));
    home.hooks.mount_point = true;
    drop(home.open());
    std::fs::write(home.state().join("config.copy"), "runner-agent copy 1 00\nx").unwrap();
    let error = block_on(home.open().edit(renew(1, "new"))).unwrap_err();
    assert!(matches!(error, Error::DamagedCopy { .. }));
    assert_eq!(home.read(), one_entry(1));
}

#[test]
fn a_mount_point_without_a_state_directory_is_refused_before_anything_is_spent() {
    let mut home = Home::with(&one_entry(1));
    home.hooks.mount_point = true;
    let config = Config { state_root: None, ..home.config() };
    let store = Store::open_with(config, home.hooks.clone()).unwrap();
    assert!(matches!(block_on(store.probe(Urgency::CanWait)), Err(Error::MountPoint { .. })));
    assert!(matches!(block_on(store.edit(renew(1, "new"))), Err(Error::MountPoint { .. })));
    assert_eq!(home.read(), one_entry(1));
}

#[test]
fn a_snapshot_says_how_another_user_could_have_written_the_file() {
    let home = Home::with(&one_entry(1));
    let store = home.open();
    for (mode, expected) in [
        (0o640, None),
        (0o664, Some(Exposure::Writable { mode: 0o664 })),
        (0o666, Some(Exposure::Writable { mode: 0o666 })),
        (0o600, None),
    ] {
        set_mode(&home.config_path(), mode);
        assert_eq!(block_on(store.read()).unwrap().exposure, expected, "{mode:o}");
    }
}

#[test]
fn one_daemon_locks_a_config_and_records_its_pid() {
    let home = Home::new();
    let (first, second) = (home.open(), home.open());
    let lock = block_on(first.lock_instance()).unwrap();
    let error = block_on(second.lock_instance()).unwrap_err();
    assert!(matches!(&error, Error::InstanceLocked { holder: Some(holder), .. } if holder.id == std::process::id()));
    assert_eq!(error.kind(), ErrorKind::Locked);
    drop(lock);
    assert!(block_on(second.lock_instance()).is_ok());
}

#[test]
fn daemons_with_different_state_directories_exclude_each_other() {
    let home = Home::new();
    let elsewhere = |name| Some(home.directory.path().join(name));
    for other in [elsewhere("other-state"), None] {
        let first = home.open();
        let second = Store::open(Config { state_root: other, ..home.config() }).unwrap();
        for (one, other) in [(&first, &second), (&second, &first)] {
            let lock = block_on(one.lock_instance()).unwrap();
            let error = block_on(other.lock_instance()).unwrap_err();
            assert!(
                matches!(&error, Error::InstanceLocked { holder: Some(holder), .. } if holder.id == std::process::id())
            );
            drop(lock);
        }
        assert!(block_on(second.lock_instance()).is_ok());
    }
    use std::os::unix::fs::MetadataExt as _;
    let sidecar = home.config_path().with_file_name(".config.toml.daemon");
    assert_eq!(sidecar.metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn config_files_side_by_side_have_daemons_of_their_own() {
    let home = Home::new();
    let second = Config { config_path: home.config_path().with_file_name("other.toml"), ..home.config() };
    let (first, second) = (home.open(), Store::open(second).unwrap());
    let _lock = block_on(first.lock_instance()).unwrap();
    assert!(block_on(second.lock_instance()).is_ok());
}

#[test]
fn directory_that_cannot_be_written_leaves_the_lock_in_the_state_directory() {
    let home = Home::new();
    // No user can create a file there.
    let config = Config { config_path: "/sys/config.toml".into(), ..home.config() };
    let (first, second) = (Store::open(config.clone()).unwrap(), Store::open(config).unwrap());
    let _lock = block_on(first.lock_instance()).unwrap();
    assert!(matches!(block_on(second.lock_instance()), Err(Error::InstanceLocked { .. })));
}

#[test]
fn lock_beside_config_toml_follows_no_link() {
    let home = Home::with("");
    let sidecar = home.config_path().with_file_name(".config.toml.daemon");
    let target = home.directory.path().join("target");
    std::os::unix::fs::symlink(&target, &sidecar).unwrap();
    assert!(matches!(block_on(home.open().lock_instance()), Err(Error::Io { .. })));
    assert!(!target.exists());
}

#[tokio::test(start_paused = true)]
async fn a_runner_is_locked_until_its_lock_is_dropped() {
    let home = Home::new();
    let (first, second) = (home.open(), home.open());
    let key = RunnerKey::enrollment("a").unwrap();
    let lock = first.lock_runner(&key, Duration::ZERO).await.unwrap();
    let refused = second.lock_runner(&key, Duration::from_secs(3)).await;
    assert!(matches!(refused, Err(Error::RunnerLocked { .. })));

    let other = RunnerKey::enrollment("b").unwrap();
    assert!(second.lock_runner(&other, Duration::ZERO).await.is_ok());
    let release = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(lock);
    };
    let (locked, ()) = tokio::join!(second.lock_runner(&key, Duration::from_secs(60)), release);
    assert!(locked.is_ok());
}

#[test]
fn without_a_state_directory_everything_else_works() {
    let home = Home::with(&one_entry(1));
    let store = Store::open(Config { state_root: None, ..home.config() }).unwrap();
    let key = RunnerKey::enrollment("a").unwrap();
    assert!(!store.has_state());
    let _locks = block_on(async {
        (store.lock_instance().await.unwrap(), store.lock_runner(&key, Duration::ZERO).await.unwrap())
    });
    block_on(store.probe(Urgency::CanWait)).unwrap();
    block_on(store.edit(renew(1, "new"))).unwrap();
    assert!(block_on(store.records()).unwrap().records.is_empty());
    assert!(block_on(store.pending()).unwrap().is_empty());
}

#[test]
fn a_state_root_that_cannot_be_made_is_an_error() {
    let home = Home::new();
    std::fs::write(home.directory.path().join("state"), "a file").unwrap();
    let error = Store::open(home.config()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn dropped_entries_are_kept_side_by_side() {
    let home = Home::new();
    let store = home.open();
    let text = EntryText::parse("[[runners]]\nname = \"a\"\n").unwrap();
    let keep = || block_on(store.keep_dropped("a/b", &text, time("2026-01-01T00:00:00Z"))).unwrap().unwrap();
    let (first, second) = (keep(), keep());
    assert_ne!(first, second);
    assert_eq!(std::fs::read_to_string(&first).unwrap(), text.expose());
    assert_eq!(mode(&second), 0o600);
}

#[test]
fn what_a_crash_left_of_a_dropped_entry_goes_with_the_next() {
    let home = Home::new();
    let store = home.open();
    let text = EntryText::parse("[[runners]]\nname = \"a\"\n").unwrap();
    let keep = |at| block_on(store.keep_dropped("a", &text, time(at))).unwrap().unwrap();
    let first = keep("2026-01-01T00:00:00Z");
    let directory = first.parent().unwrap();
    std::fs::write(directory.join(".entry.runner-agent.tmp"), "[[run").unwrap();
    keep("2026-01-01T00:00:07Z");
    let mut names: Vec<_> = directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["20260101T000000Z-a.toml", "20260101T000007Z-a.toml"]);
}

#[test]
fn a_drain_waits_for_work_whose_asker_is_gone() {
    let home = Home::with(&one_entry(1));
    let store = home.open();
    block_on(async {
        let busy = store.work(|_| {
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        });
        let asked = async { tokio::join!(busy, store.edit(renew(1, "new"))) };
        assert!(tokio::time::timeout(Duration::ZERO, asked).await.is_err());
        store.clone().drain().await;
    });
    assert!(home.read().contains("\"new\""));
    drop(store);
}

#[test]
fn a_drain_of_a_store_whose_thread_is_gone_ends() {
    let home = Home::new();
    let store = home.open();
    let _gone: Result<(), Error> = block_on(store.work(|_| panic!("the thread ends here, on purpose")));
    block_on(store.drain());
}

#[test]
fn panic_of_one_task_is_reported_and_the_next_one_is_done() {
    let home = Home::with(&one_entry(1));
    let store = home.open();
    let gone: Result<(), Error> = block_on(store.work(|_| panic!("on purpose")));
    assert!(matches!(gone, Err(Error::Stopped)));
    block_on(store.edit(renew(1, "new"))).unwrap();
    assert_eq!(block_on(store.read()).unwrap().entries[0].token.token(), Some(&token("new")));
}

#[test]
fn a_probe_refuses_a_file_that_cannot_be_edited() {
    let home = Home::with("runners = 5\n");
    assert!(matches!(block_on(home.open().probe(Urgency::CanWait)), Err(Error::RunnersShape { .. })));
}

#[test]
fn a_device_is_never_replaced() {
    let home = Home::new();
    let store = Store::open(Config { config_path: "/dev/null".into(), ..home.config() }).unwrap();
    assert!(matches!(block_on(store.read()), Err(Error::Io { act: "read", .. })));
    assert!(matches!(block_on(store.probe(Urgency::CanWait)), Err(Error::Io { act: "read", .. })));
}

#[test]
fn only_tables_of_their_own_take_another_entry() {
    let takes = |text: &str| block_on(Home::with(text).open().read()).unwrap().takes_entries;
    assert!(takes(&one_entry(1)) && takes(""));
    assert!(!takes(&format!("runners = [{{ url = \"{URL}\" }}]\n")));
}

#[test]
fn two_processes_that_edit_at_once_lose_nothing() {
    let home = Home::new();
    let insert_many = |numbers: std::ops::Range<u64>| {
        let store = home.open();
        for number in numbers {
            let text = EntryText::parse(&format!("[[runners]]\n  url = \"{URL}\"\n")).unwrap();
            let credential = credential(&format!("token-{number}"));
            block_on(store.edit(Edit::Insert { text, id: Some(id(number)), credential })).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| insert_many(1..21));
        scope.spawn(|| insert_many(21..41));
    });
    assert_eq!(block_on(home.open().read()).unwrap().entries.len(), 40);
}

#[test]
fn an_unreadable_file_is_not_taken_for_a_missing_one() {
    let home = Home::with(&one_entry(1));
    let store = home.open();
    let directory = home.config_path().parent().unwrap().to_owned();
    set_mode(&directory, 0o000);
    let results = (block_on(store.read()), block_on(store.edit(renew(1, "new"))));
    let is_bound = std::fs::read(home.config_path()).is_err();
    set_mode(&directory, 0o700);
    if is_bound {
        assert!(matches!(results.0, Err(Error::Io { .. })));
        assert!(matches!(results.1, Err(Error::Io { .. })));
    }
}

#[test]
fn link_that_is_switched_during_an_operation_loses_nothing_of_it() {
    let home = Home::with(&one_entry(1));
    let elsewhere = home.directory.path().join("elsewhere.toml");
    let state_of = |home: &Home| {
        let found = names(&home.directory.path().join("state"));
        assert_eq!(found.len(), 1, "{found:?}");
        home.state()
    };
    let key = RunnerKey::enrollment("a").unwrap();
    let command = home.open();
    block_on(command.save_record(records::record("a"))).unwrap();
    let former = state_of(&home);
    let lock = block_on(command.lock_runner(&key, Duration::ZERO)).unwrap();
    std::fs::copy(home.config_path(), &elsewhere).unwrap();
    std::fs::rename(home.config_path(), home.directory.path().join("former.toml")).unwrap();
    symlink(&elsewhere, home.config_path()).unwrap();

    // Another process starts, and both work with the same state and locks.
    let other = home.open();
    assert_eq!(state_of(&home), former);
    assert!(block_on(other.lock_runner(&key, Duration::ZERO)).is_err());
    let mut record = records::record("a");
    record.name = Some("renamed".to_owned());
    block_on(command.save_record(record.clone())).unwrap();
    block_on(command.edit(renew(1, "new"))).unwrap();
    assert!(std::fs::read_to_string(&elsewhere).unwrap().contains("\"new\""));
    drop((lock, command));
    assert_eq!(block_on(other.record(&key)).unwrap(), Some(record.clone()));

    // The threads of both have to end first.
    drop(other);
    let mut later = home.open();
    for _ in 0..1000 {
        if state_of(&home) != former {
            break;
        }
        drop(later);
        std::thread::sleep(Duration::from_millis(5));
        later = home.open();
    }
    assert_ne!(state_of(&home), former);
    assert_eq!(block_on(later.record(&key)).unwrap(), Some(record));
}

/// Lets the file system's clock go on, so that a version of a file can be told from the next one.
fn wait_for_a_tick() {
    std::thread::sleep(std::time::Duration::from_millis(150));
}

#[test]
fn an_unchanged_file_is_neither_read_nor_parsed_again() {
    let home = Home::with(&one_entry(1));
    let store = home.open();
    let first = block_on(store.read()).unwrap();
    assert!(Arc::ptr_eq(&first, &block_on(store.read()).unwrap()));
    // Neither if it is written again with the same content.
    std::fs::write(home.config_path(), one_entry(1)).unwrap();
    assert!(Arc::ptr_eq(&first, &block_on(store.read()).unwrap()));
    wait_for_a_tick();
    assert!(Arc::ptr_eq(&first, &block_on(store.read()).unwrap()));

    std::fs::write(home.config_path(), one_entry(2)).unwrap();
    assert_eq!(block_on(store.read()).unwrap().entries[0].id, Some(id(2)));
}

#[test]
fn changes_within_one_tick_of_the_file_systems_clock_are_seen() {
    let home = Home::with(&one_entry(1));
    let store = home.open();
    for round in 0..50 {
        for number in 1..=2 {
            std::fs::write(home.config_path(), one_entry(number)).unwrap();
            assert_eq!(block_on(store.read()).unwrap().entries[0].id, Some(id(number)), "round {round}");
        }
    }
}

#[test]
fn own_edits_are_known_and_foreign_changes_of_other_entries_are_kept() {
    let home = Home::with(&(1..=3).map(one_entry).collect::<String>());
    let store = home.open();
    block_on(store.edit(renew(2, "new"))).unwrap();
    let foreign = std::fs::read_to_string(home.config_path()).unwrap().replace("id = 3", "id = 4");
    std::fs::write(home.config_path(), &foreign).unwrap();
    block_on(store.edit(renew(1, "newer"))).unwrap();
    let snapshot = block_on(store.read()).unwrap();
    let ids: Vec<_> = snapshot.entries.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [Some(id(1)), Some(id(2)), Some(id(4))]);
    let tokens: Vec<_> = snapshot.entries.iter().filter_map(|entry| entry.token.token()).cloned().collect();
    assert_eq!(tokens, [token("newer"), token("new"), token("old")]);
    assert_eq!(snapshot.entries.iter().map(|entry| entry.line).collect::<Vec<_>>(), [1, 7, 13]);
    let found: Vec<_> = snapshot.of(&by_token(&["new", "old"])).map(|entry| entry.id).collect();
    assert_eq!(found, [Some(id(2)), Some(id(4))]);
}

#[test]
fn the_work_under_way_is_known_with_its_file() {
    let mut home = Home::with(&one_entry(1));
    let (reached, is_reached) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    home.hooks.before_rename = Some(Arc::new(Mutex::new(move |_: &Path| {
        reached.send(()).unwrap();
        released.recv().unwrap();
    })));
    let store = home.open();
    assert_eq!(store.work_under_way(), None);
    block_on(async {
        let watched = store.clone();
        let watch = std::thread::spawn(move || {
            is_reached.recv().unwrap();
            let (first, second) = (watched.work_under_way().unwrap(), watched.work_under_way().unwrap());
            release.send(()).unwrap();
            (first, second)
        });
        store.edit(renew(1, "new")).await.unwrap();
        let (first, second) = watch.join().unwrap();
        assert!(first.number == second.number && first.age <= second.age);
        assert!(first.file.starts_with(home.config_path().parent().unwrap()), "{first:?}");
        store.read().await.unwrap();
    });
    // The thread notes the end of its work after the answer.
    while store.work_under_way().is_some() {
        std::thread::yield_now();
    }
}

#[test]
fn each_finished_job_of_the_disk_thread_is_counted_once() {
    let home = Home::with(&one_entry(1));
    let store = home.open();
    let jobs = Arc::new(Mutex::new(Vec::new()));
    let observed = Arc::clone(&jobs);
    store.observe_jobs(move |took| observed.lock().unwrap().push(took));
    block_on(async {
        store.read().await.unwrap();
        store.edit(renew(1, "new")).await.unwrap();
        let _refused = store.edit(renew(2, "new")).await;
        store.drain().await;
    });
    assert_eq!(jobs.lock().unwrap().len(), 3);
}
