use std::fs;
use std::path::{Path, PathBuf};

use tokio::task::LocalSet;

use super::super::*;
use crate::model::TlsFiles;
use crate::ops::Enrollment;
use crate::ops::memory::{enrollment, registration_token};
use crate::secret::Source;

/// A password and a key in files.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        fs::write(files.password(), "a password").unwrap();
        fs::write(files.key(), "k".repeat(32)).unwrap();
        files
    }

    fn password(&self) -> PathBuf {
        self.directory.path().join("password")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key")
    }

    fn config(&self) -> Config {
        let share_as = Some("docker-fleet".parse().unwrap());
        let engine = sharing::EngineSettings::Etcd {
            endpoints: vec!["http://127.0.0.1:1".parse().unwrap()],
            prefix: "/p/".to_owned(),
            tls: TlsFiles::default(),
            user: Some(("agent".to_owned(), Source::File(self.password()))),
        };
        let encryption_key = Some(Source::File(self.key()));
        Config {
            enrollments: vec![Enrollment { share_as, ..enrollment(registration_token()) }],
            sharing: Some(sharing::Settings { engine, encryption_key, recover: false }),
            ..Config::default()
        }
    }
}

const SILENT: &str = "nothing is reported";

async fn opened(watch: &mut StoreWatch) -> Result<Rc<Shares<AnyEngine>>, String> {
    let event = timeout(OPEN_AGAIN * 3, watch.next()).await.map_err(|_| SILENT.to_owned())?;
    match event {
        StoreEvent::Opened(opened) => opened.map(|shares| Rc::new(shares.unwrap())).map_err(|error| error.to_string()),
        StoreEvent::Changed(_) => panic!("nothing is watched"),
    }
}

/// Whether nothing is reported for a long time.
async fn is_silent(watch: &mut StoreWatch) -> bool {
    opened(watch).await.is_err_and(|why| why == SILENT)
}

#[tokio::test(start_paused = true)]
async fn changed_secret_opens_the_store_again() {
    LocalSet::new().run_until(changes_secrets()).await;
}

async fn changes_secrets() {
    let files = Files::new();
    let config = files.config();
    let mut shares = Rc::new(open_at_start(&config).await.unwrap().unwrap());
    let mut watch = StoreWatch::new(&config, Some(&shares));
    let replaced: [(&Path, &str); 2] = [(&files.password(), "another password"), (&files.key(), &"l".repeat(32))];
    for (path, text) in replaced {
        watch.look_at_secrets(Some(&shares));
        assert!(is_silent(&mut watch).await, "nothing has changed");
        // It is gone for a moment while it is replaced.
        fs::remove_file(path).unwrap();
        watch.look_at_secrets(Some(&shares));
        assert!(is_silent(&mut watch).await, "the store goes on with what it has");
        fs::write(path, text).unwrap();
        // The settings are the same.
        watch.open(&config, Some(&shares), false);
        shares = opened(&mut watch).await.unwrap();
    }
    fs::write(files.key(), "tooshort").unwrap();
    watch.look_at_secrets(Some(&shares));
    assert!(opened(&mut watch).await.unwrap_err().contains("an encryption key has at least"));
    watch.look_at_secrets(Some(&shares));
    assert!(is_silent(&mut watch).await, "it was said");
}

#[tokio::test(start_paused = true)]
async fn store_whose_secret_cannot_be_read_is_opened_once_it_can() {
    LocalSet::new().run_until(opens_later()).await;
}

async fn opens_later() {
    let files = Files::new();
    let (config, name) = (files.config(), "docker-fleet".parse().unwrap());
    fs::remove_file(files.password()).unwrap();
    let shares = Rc::new(open_at_start(&config).await.unwrap().unwrap());
    let error = shares.read(&name).await.unwrap_err();
    assert!(matches!(error, sharing::Error::Unreadable { .. }), "{error:?}");
    let mut watch = StoreWatch::new(&config, Some(&shares));
    assert!(is_silent(&mut watch).await, "the runners report it");
    fs::write(files.password(), "a password").unwrap();
    assert!(opened(&mut watch).await.unwrap().closed_by().is_none());
    fs::remove_file(files.key()).unwrap();
    watch.open(&config, Some(&shares), true);
    assert!(opened(&mut watch).await.unwrap_err().contains("`encryption_key` of [sharing]: cannot read"));
    assert!(is_silent(&mut watch).await, "it was said");
    fs::write(files.key(), "k".repeat(32)).unwrap();
    assert!(opened(&mut watch).await.is_ok());
    // An error that no time ends still ends a start.
    fs::write(files.key(), "tooshort").unwrap();
    assert!(matches!(open_at_start(&config).await, Err(sharing::Error::Settings { .. })));
}
