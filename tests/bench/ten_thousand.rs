//! What work on ten thousand runners costs: `cargo bench`. config.toml is a real file in the temporary directory.
//!
//! `cargo bench -- NAME…` measures the work whose name contains one of the given names.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "this is a benchmark from its first line to its last"
)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use divan::Bencher;
use runner_agent::engine::{self, Inventory};
use runner_agent::model::{Credential, Expiry};
use runner_agent::ops::Runner;
use runner_agent::secret::Token;
use runner_agent::store::{Config, Edit, Entry, EntrySelector, Record, Snapshot, Store};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

const RUNNERS: u64 = 10_000;

/// The tokens that are replaced together.
const EDITS: usize = 64;

const URL: &str = "https://gitlab.example.com";

fn main() {
    divan::main();
}

/// The first read of config.toml: it is parsed and indexed.
#[divan::bench(sample_count = 20)]
fn parse_and_index(bencher: Bencher) {
    bencher.with_inputs(Disk::new).bench_values(|disk| {
        let snapshot = disk.snapshot();
        (disk, snapshot)
    });
}

/// All have an entry and a record.
#[divan::bench(sample_count = 20)]
fn inventory(bencher: Bencher) {
    let (runtime, snapshot) = (runtime(), Disk::new().snapshot());
    let config = engine::Config::default();
    let record = |entry: &Entry| Runner::found(entry).unwrap().record;
    let records: Vec<Record> = snapshot.entries.iter().map(record).collect();
    let take = |records| -> Inventory { runtime.block_on(engine::inventory(&config, records, &snapshot)) };
    assert_eq!(take(records.clone()).runners.len(), snapshot.entries.len());
    bencher.with_inputs(|| records.clone()).bench_values(take);
}

/// One entry in the middle has another token.
#[divan::bench]
fn difference(bencher: Bencher) {
    let disk = Disk::new();
    let before = disk.snapshot();
    let middle = before.entries.len() / 2;
    let former = before.entries[middle].token.token().unwrap().expose();
    let text = fs::read_to_string(disk.config_path()).unwrap().replace(former, "glrt-another");
    fs::write(disk.config_path(), text).unwrap();
    let after = disk.snapshot();
    assert_eq!(after.difference(&before).entries.entries.len(), 2);
    bencher.bench(|| after.difference(&before));
}

/// Tokens all over the file are replaced together: one replace of config.toml on the disk.
#[divan::bench(sample_count = 20)]
fn replace_64_tokens(bencher: Bencher) {
    let prepared = || {
        let disk = Disk::new();
        let edits = renewals(&disk.snapshot());
        (disk, edits)
    };
    bencher.with_inputs(prepared).bench_values(|(disk, edits)| {
        disk.edit(edits);
        disk
    });
}

/// A new token for each of [`EDITS`] entries.
fn renewals(snapshot: &Snapshot) -> Vec<Edit> {
    let entries = snapshot.entries.iter().step_by(snapshot.entries.len() / EDITS).take(EDITS);
    let renewal = |entry: &Entry| {
        let (url, token) = (entry.url.clone().unwrap(), entry.token.token().unwrap());
        let target = EntrySelector { url, id: entry.id, digests: vec![token.digest()], name: None };
        let token = Token::parse(&format!("{}-renewed", token.expose())).unwrap();
        let credential = Credential { token, obtained_at: None, expiry: Expiry::Never };
        Edit::Renew { target, id: entry.id, credential, over: Vec::new() }
    };
    entries.map(renewal).collect()
}

/// A directory with a config.toml of [`RUNNERS`] entries, and the store that works on it.
struct Disk {
    directory: TempDir,
    store: Store,
    runtime: Runtime,
}

impl Disk {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let token = |id: u64| (id, format!("glrt-t3_{id:020}"));
        let config_path = directory.path().join("config.toml");
        fs::write(&config_path, test_support::config_of(URL, &(1..=RUNNERS).map(token).collect::<Vec<_>>())).unwrap();
        let machine_id_path = directory.path().join("machine-id");
        let config = Config { config_path, state_root: None, machine_id_path, root_locks: None, variables: |_| None };
        Self { store: Store::open(config).unwrap(), directory, runtime: runtime() }
    }

    fn config_path(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.runtime.block_on(self.store.read()).unwrap()
    }

    fn edit(&self, edits: Vec<Edit>) {
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for edit in edits {
                let store = self.store.clone();
                tasks.spawn(async move { store.edit(edit).await });
            }
            while let Some(edited) = tasks.join_next().await {
                assert_eq!(edited.unwrap().unwrap().entries, 1);
            }
        });
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}
