//! Tests of the room, by subject.

mod access;
mod completion;
mod compose;
mod config_lock;
mod descriptors;
mod digests;
mod disk;
mod entries;
mod held;
mod journal;
mod properties;
mod records;
mod snapshot;
mod splice;
mod state_index;
mod system_id;
mod version_0_1;

use std::path::{Path, PathBuf};

use super::test_hooks::TestHooks;
use super::*;
use crate::model::{Credential, Expiry, RunnerId, ServerUrl};
use crate::secret::{Digest, Token};

const URL: &str = "https://gitlab.example.com";

/// What `$RUNNER_TOKEN` is in every test.
fn variables(name: &str) -> Option<String> {
    (name == "RUNNER_TOKEN").then(|| "glrt-from-variable".to_owned())
}

fn reading() -> config_file::ParseContext<'static> {
    config_file::ParseContext { path: Path::new("config.toml"), variables, exposure: None }
}

fn url() -> ServerUrl {
    URL.parse().unwrap()
}

fn id(number: u64) -> RunnerId {
    RunnerId::try_new(number).unwrap()
}

fn token(text: &str) -> Token {
    Token::parse(text).unwrap()
}

fn fingerprint(text: &str) -> Fingerprint {
    token(text).fingerprint()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A credential obtained and expiring at fixed times.
fn credential(text: &str) -> Credential {
    Credential {
        token: token(text),
        obtained_at: Some(time("2026-02-01T00:00:00Z")),
        expiry: Expiry::At(time("2026-03-01T00:00:00Z")),
    }
}

fn target(number: u64) -> EntrySelector {
    EntrySelector { id: Some(id(number)), ..by_token(&[]) }
}

/// Selects by id, and knows the tokens of these tests' files.
fn knowing(number: u64) -> EntrySelector {
    EntrySelector { digests: known(), ..target(number) }
}

/// Selects by tokens alone.
fn by_token(tokens: &[&str]) -> EntrySelector {
    let digests = tokens.iter().map(|text| token(text).digest()).collect();
    EntrySelector { url: url(), id: None, digests, name: None }
}

/// Digests of the tokens in these tests' files, which may all be overwritten.
fn known() -> Vec<Digest> {
    let numbered =
        (0..200).flat_map(|number| ["t", "token-", "new-"].map(|word| token(&format!("{word}{number}")).digest()));
    let repeated = "old".repeat(40);
    let worded = [
        "old",
        "older",
        &repeated,
        "a",
        "b",
        "c",
        "same",
        "first",
        "second",
        "one",
        "two",
        "tok",
        "glrt-old",
        "outside",
        "new",
        "newer",
        "inserted",
        "a-longer-token",
    ];
    worded.iter().map(|text| token(text).digest()).chain(numbered).collect()
}

fn renew(number: u64, text: &str) -> Edit {
    Edit::Renew { target: target(number), id: None, credential: credential(text), over: known() }
}

/// A config.toml and a state directory of its own.
struct Home {
    directory: tempfile::TempDir,
    hooks: TestHooks,
}

impl Home {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), hooks: TestHooks::default() }
    }

    fn with(content: &str) -> Self {
        let home = Self::new();
        home.write(content);
        home
    }

    fn config_path(&self) -> PathBuf {
        self.directory.path().join("etc/config.toml")
    }

    fn config(&self) -> Config {
        Config {
            config_path: self.config_path(),
            state_root: Some(self.directory.path().join("state")),
            machine_id_path: self.directory.path().join("machine-id"),
            root_locks: Some(self.directory.path().join("run")),
            variables,
        }
    }

    fn open(&self) -> Store {
        Store::open_with(self.config(), self.hooks.clone()).unwrap()
    }

    fn write(&self, content: &str) {
        std::fs::create_dir_all(self.config_path().parent().unwrap()).unwrap();
        std::fs::write(self.config_path(), content).unwrap();
    }

    fn read(&self) -> String {
        std::fs::read_to_string(self.config_path()).unwrap()
    }

    /// `STATE/<hash>`.
    fn state(&self) -> PathBuf {
        let mut found = std::fs::read_dir(self.directory.path().join("state")).unwrap();
        found.next().unwrap().unwrap().path()
    }

    /// What a write in place is finished from.
    fn copy(&self) -> PathBuf {
        self.state().join("config.copy")
    }
}

pub(super) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}
