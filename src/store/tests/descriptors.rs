//! The disk when no file descriptor is left. The limit holds for a whole process, so the tests run in processes of their
//! own.

use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::journal::{answer, rotate};
use super::*;

/// Set in the process of one test.
const VARIABLE: &str = "RUNNER_AGENT_TEST_OF_DESCRIPTORS";

/// Runs `test` in a process of its own: this program with only the test of this name.
fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os(VARIABLE).is_some() {
        return test();
    }
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", &format!("store::tests::descriptors::{name}"), "--test-threads=1"]).env(VARIABLE, "1");
    let output = program.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Leaves this many descriptors, calls `work`, and removes the limit again.
fn with_left<T>(descriptors: u64, work: impl FnOnce() -> T) -> T {
    use std::os::fd::AsRawFd as _;
    let former = getrlimit(Resource::Nofile);
    // The number of the next descriptor: tests leave no gaps below it.
    let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    let limit = u64::try_from(next).unwrap() + descriptors;
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..former }).unwrap();
    let done = work();
    setrlimit(Resource::Nofile, former).unwrap();
    done
}

fn key(name: &str) -> RunnerKey {
    RunnerKey::enrollment(name).unwrap()
}

#[test]
fn answer_is_journaled_without_a_free_descriptor() {
    alone("answer_is_journaled_without_a_free_descriptor", || {
        let home = Home::new();
        let store = home.open();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(store.begin(&key("a"), rotate())).unwrap();
        with_left(0, || {
            assert!(std::fs::File::open("/dev/null").is_err());
            runtime.block_on(store.answered(&key("a"), answer("new"))).unwrap();
        });
        assert_eq!(runtime.block_on(home.open().pending()).unwrap()[0].answer, Some(answer("new")));
    });
}

#[test]
fn begin_without_enough_descriptors_leaves_the_journal_as_it_was() {
    alone("begin_without_enough_descriptors_leaves_the_journal_as_it_was", || {
        let home = Home::new();
        let store = home.open();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let other = Intent { at: time("2026-01-09T00:00:00Z"), ..rotate() };
        runtime.block_on(store.begin(&key("b"), other.clone())).unwrap();
        let mut has_failed = false;
        for left in 0..6 {
            let begun = with_left(left, || runtime.block_on(store.begin(&key("a"), rotate())));
            let again = with_left(left, || runtime.block_on(store.begin(&key("b"), rotate())));
            has_failed |= begun.is_err();
            assert!(begun.is_ok() || !home.state().join("runners/a.pending").exists(), "{left} left");
            if again.is_err() {
                let pending = runtime.block_on(store.pending_of(&key("b"))).unwrap().unwrap();
                assert_eq!(pending.intent, other, "{left} left");
            }
            let files = names(&home.state().join("runners"));
            assert!(!files.iter().any(|name| name.ends_with(".tmp")), "{files:?}");
            runtime.block_on(store.clear(&key("a"))).unwrap();
            runtime.block_on(store.begin(&key("b"), other.clone())).unwrap();
        }
        assert!(has_failed);
    });
}

#[test]
fn record_and_config_toml_are_kept_or_replaced_whole_without_enough_descriptors() {
    alone("record_and_config_toml_are_kept_or_replaced_whole_without_enough_descriptors", || {
        let home = Home::with(&format!("[[runners]]\nurl = \"{URL}\"\nid = 1\ntoken = \"old\"\n"));
        let store = home.open();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let record = super::records::record("a");
        runtime.block_on(store.save_record(record.clone())).unwrap();
        let mut are_done = false;
        for left in 0..8 {
            let newer = Record { id: RunnerId::try_new(left + 100).ok(), ..record.clone() };
            let text = format!("new-{left}");
            let saved = with_left(left, || runtime.block_on(store.save_record(newer.clone())));
            let edited = with_left(left, || runtime.block_on(store.edit(renew(1, &text))));
            let found = runtime.block_on(store.record(&record.key)).unwrap().unwrap();
            assert_eq!(found == newer, saved.is_ok(), "{left} left");
            assert_eq!(home.read().contains(&text), edited.is_ok(), "{left} left");
            are_done = saved.is_ok() && edited.is_ok();
        }
        assert!(are_done);
    });
}

#[test]
fn lock_of_a_runner_takes_one_descriptor_while_it_is_held() {
    alone("lock_of_a_runner_takes_one_descriptor_while_it_is_held", || {
        let home = Home::new();
        let (store, other) = (home.open(), home.open());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = count();
        let lock = runtime.block_on(store.lock_runner(&key("a"), Duration::ZERO)).unwrap();
        assert_eq!(count(), before + 1);
        assert!(runtime.block_on(other.lock_runner(&key("a"), Duration::ZERO)).is_err());
        assert_eq!(count(), before + 1);
        drop(lock);
        assert_eq!(count(), before);
    });
}
