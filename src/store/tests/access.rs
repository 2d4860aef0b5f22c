//! The file of an access token.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::sync::Mutex;

use super::*;
use crate::model::AccessRecord;

struct AccessHome {
    home: Home,
    path: PathBuf,
}

impl AccessHome {
    /// A file with a token, of a mode that others may read.
    fn new() -> Self {
        let home = Home::with("");
        let path = home.directory.path().join("access-token");
        fs::write(&path, "glpat-old\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        Self { home, path }
    }

    fn file(&self) -> AccessFile {
        AccessFile::new(self.home.open(), self.path.clone(), RunnerKey::access_token(&url()))
    }

    fn content(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }
}

fn intent() -> Intent {
    Intent {
        operation: JournalOperation::Rotate { url: url(), id: None, old: fingerprint("glpat-old"), by_id: false },
        at: time("2026-01-10T15:00:00Z"),
        system_id: None,
        asked_by: Some(AskedBy::Daemon),
        token: Some(token("glpat-old").digest()),
    }
}

fn mark(text: &str) -> AccessMark {
    AccessMark { token: token(text).digest(), at: time("2026-01-10T15:00:00Z") }
}

#[tokio::test]
async fn a_token_file_is_replaced_behind_its_link_with_its_mode() {
    let home = AccessHome::new();
    let link = home.home.directory.path().join("link");
    symlink(&home.path, &link).unwrap();
    let file = AccessFile::new(home.home.open(), link.clone(), RunnerKey::access_token(&url()));
    let _lock = file.lock().await.unwrap();
    file.probe().await.unwrap();
    let held = file.replace(vec![token("glpat-old").digest()], token("glpat-new")).await.unwrap();
    assert_eq!(held, Some(token("glpat-new")));
    assert_eq!(home.content(), "glpat-new\n");
    assert_eq!(fs::metadata(&home.path).unwrap().mode() & 0o7777, 0o644);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[tokio::test]
async fn a_token_that_a_person_has_put_into_the_file_is_not_replaced() {
    let home = AccessHome::new();
    let file = home.file();
    for (content, expected) in
        [("glpat-person\n", Some("glpat-person")), ("two words\n", None), ("\n", Some("glpat-new"))]
    {
        fs::write(&home.path, content).unwrap();
        let held = file.replace(vec![token("glpat-old").digest()], token("glpat-new")).await.unwrap();
        assert_eq!(held, expected.map(token), "{content:?}");
        assert_eq!(home.content() == content, expected != Some("glpat-new"), "{content:?}");
    }
    fs::remove_file(&home.path).unwrap();
    file.replace(Vec::new(), token("glpat-new")).await.unwrap();
    assert_eq!((home.content().as_str(), fs::metadata(&home.path).unwrap().mode() & 0o7777), ("glpat-new\n", 0o600));
}

#[tokio::test]
async fn processes_with_other_state_directories_exclude_each_other_and_share_the_note() {
    let (home, other) = (AccessHome::new(), AccessHome::new());
    let (first, second) =
        (home.file(), AccessFile::new(other.home.open(), home.path.clone(), RunnerKey::access_token(&url())));
    let lock = first.lock().await.unwrap();
    assert!(matches!(second.lock().await, Err(Error::FileLocked { .. })));
    drop(lock);
    let _lock = second.lock().await.unwrap();
    first.add_mark(mark("glpat-old")).await.unwrap();
    first.add_mark(mark("glpat-new")).await.unwrap();
    assert_eq!(second.note().await.unwrap().sent, [mark("glpat-old"), mark("glpat-new")]);
    second.remove_mark(token("glpat-old").digest()).await.unwrap();
    assert_eq!(first.note().await.unwrap().sent, [mark("glpat-new")]);
    let note = fs::read_to_string(home.path.with_file_name(".access-token.rotating")).unwrap();
    assert!(!note.contains("glpat"), "{note}");
    fs::write(home.path.with_file_name(".access-token.rotating"), "{}").unwrap();
    assert!(first.note().await.is_err());
}

#[tokio::test]
async fn what_is_kept_about_an_access_token_survives_a_crash_and_is_the_owners_alone() {
    let home = AccessHome::new();
    let record = AccessRecord {
        token: Some(token("glpat-old")),
        spent: vec![token("glpat-older").digest()],
        rotations: 3,
        ..AccessRecord::default()
    };
    let answer = JournalAnswer {
        id: None,
        token: Some(token("glpat-new")),
        expiry: Expiry::Never,
        obtained_at: None,
        is_documented: true,
    };
    {
        let file = home.file();
        assert_eq!(file.record().await.unwrap(), AccessRecord::default());
        file.save(record.clone()).await.unwrap();
        file.begin(intent()).await.unwrap();
        file.answered(answer.clone()).await.unwrap();
    }
    let file = home.file();
    assert_eq!(file.record().await.unwrap(), record);
    let pending = file.pending().await.unwrap().unwrap();
    assert_eq!((pending.intent, pending.answer), (intent(), Some(answer)));
    let access = home.home.state().join("access");
    for name in ["access-token@gitlab.example.com.json", "access-token@gitlab.example.com.pending"] {
        let found = fs::metadata(access.join(name)).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o600, "{name}");
    }
    file.clear().await.unwrap();
    assert!(file.pending().await.unwrap().is_none());
}

#[tokio::test]
async fn an_interrupted_write_of_one_token_file_is_not_settled_by_another_one() {
    let mut home = AccessHome::new();
    home.home.hooks.mount_point = true;
    drop(home.home.open());
    let state = home.home.state();
    let copies = move || {
        let files = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "copy")).collect::<Vec<_>>()
    };
    let seen = Arc::new(Mutex::new(None));
    let (taken, list) = (Arc::clone(&seen), copies.clone());
    home.home.hooks.before_rename = Some(Arc::new(Mutex::new(move |_: &Path| {
        let [copy] = &list()[..] else { panic!("one copy") };
        *taken.lock().unwrap() = Some((copy.clone(), fs::read(copy).unwrap()));
    })));
    home.file().replace(vec![token("glpat-old").digest()], token("glpat-new")).await.unwrap();
    home.home.hooks.before_rename = None;
    let (copy, content) = seen.lock().unwrap().take().unwrap();
    // The write stops in the middle, and the agent looks at another file first.
    fs::write(&home.path, "glpat-nld\n").unwrap();
    fs::write(&copy, content).unwrap();
    let other = home.home.directory.path().join("other-token");
    fs::write(&other, "glpat-two\n").unwrap();
    drop(AccessFile::new(home.home.open(), other, RunnerKey::access_token(&url())).lock().await.unwrap());
    drop(home.file().lock().await.unwrap());
    assert_eq!(home.content(), "glpat-new\n");
    assert!(copies().is_empty());
}
