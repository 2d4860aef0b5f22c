//! Checks of TLS files before a request, on blocking threads: their disk or network share may not answer.
//!
//! At most one check of a set of files is under way, so files that do not answer hold one thread, however many requests
//! need them. Sites with other files are not delayed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::error::CallFailure;
use super::http_clients::{ClientCache, HttpClients};
use super::tls::FileTrust;
use super::{Config, ErrorKind};
use crate::files::{CurrentFile, spawn_file_task_in};
use crate::model::{Site, TlsFiles};

/// How many checks may hang at a time. Beyond that no check is begun: the runtime's blocking threads serve other files too.
const MAX_HANGING: usize = 128;

/// The TLS files that a connection may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FileSet {
    named: TlsFiles,
    /// The host whose files in `certs_dir` are used unless a site names its own.
    host: Option<String>,
    trust: FileTrust,
}

/// The checks of all sets of files.
pub(super) struct TlsChecks {
    config: Arc<Config>,
    clients: Arc<ClientCache>,
    sets: Mutex<HashMap<FileSet, Arc<Checked>>>,
}

/// The checks of one set of files, one after the other.
struct Checked {
    turn: Arc<Semaphore>,
    /// The file that the check under way has come to.
    file: CurrentFile,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the check under way began.
    began: Option<Instant>,
    /// The clients that the last check has found.
    last: Option<HttpClients>,
}

/// A check under way.
struct UnderWay(Arc<Checked>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state().began = None;
    }
}

impl TlsChecks {
    pub(super) fn new(config: Arc<Config>) -> Self {
        let clients = Arc::new(ClientCache::new(Arc::clone(&config)));
        Self { config, clients, sets: Mutex::default() }
    }

    /// Drops everything built from TLS files and the system's authorities.
    pub(super) fn forget(&self) {
        self.clients.forget();
        self.sets().values().for_each(|checked| checked.state().last = None);
    }

    /// Returns the clients of a site, after a check of its TLS files.
    ///
    /// # Errors
    /// Unusable files, and such as do not answer within the time for a connection: at once if an earlier check still waits.
    pub(super) async fn clients(&self, site: &Site, trust: FileTrust) -> Result<HttpClients, CallFailure> {
        if !self.config.is_encrypted(site) {
            return self.clients.of(site, trust);
        }
        let checked = self.checked(site, trust);
        if self.is_hanging(&checked) {
            return Err(checked.unanswered());
        }
        let deadline = Instant::now() + self.config.connect_timeout;
        let Ok(turn) = timeout_at(deadline, Arc::clone(&checked.turn).acquire_owned()).await else {
            return Err(checked.unanswered());
        };
        if self.hanging() >= MAX_HANGING {
            let last = checked.state().last.clone();
            return last.ok_or_else(|| failure("too many TLS files do not answer"));
        }
        checked.state().began = Some(Instant::now());
        let under_way = UnderWay(Arc::clone(&checked));
        let (clients, checked_site) = (Arc::clone(&self.clients), site.clone());
        let check = spawn_file_task_in(&checked.file, self.first_file(site), move || {
            let _turn = turn;
            let under_way = under_way;
            let found = clients.of(&checked_site, trust);
            under_way.0.state().last = found.as_ref().ok().cloned();
            found
        });
        match timeout_at(deadline, check).await {
            Ok(found) => found.unwrap_or_else(|_| Err(failure("the thread that reads the TLS files has panicked"))),
            Err(_) => Err(checked.unanswered()),
        }
    }

    fn checked(&self, site: &Site, trust: FileTrust) -> Arc<Checked> {
        let named = &site.tls;
        let names_all = named.ca_file.is_some() && (named.cert_file.is_some() || named.key_file.is_some());
        let is_of_host = self.config.certs_dir.is_some() && !names_all;
        let host = is_of_host.then(|| site.url.host().to_string());
        let set = FileSet { named: named.clone(), host, trust };
        Arc::clone(self.sets().entry(set).or_insert_with(Checked::new))
    }

    fn first_file<'a>(&'a self, site: &'a Site) -> &'a Path {
        site.tls.ca_file.as_deref().or(self.config.certs_dir.as_deref()).unwrap_or(Path::new("/"))
    }

    fn is_hanging(&self, checked: &Checked) -> bool {
        checked.state().began.is_some_and(|began| began.elapsed() >= self.config.connect_timeout)
    }

    fn hanging(&self) -> usize {
        self.sets().values().filter(|checked| self.is_hanging(checked)).count()
    }

    fn sets(&self) -> MutexGuard<'_, HashMap<FileSet, Arc<Checked>>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checked {
    fn new() -> Arc<Self> {
        let (turn, file, state) = (Arc::new(Semaphore::new(1)), CurrentFile::default(), Mutex::default());
        Arc::new(Self { turn, file, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unanswered(&self) -> CallFailure {
        let file = self.file.path();
        failure(&format!("the TLS file `{}` does not answer: look at its disk or network share", file.display()))
    }
}

fn failure(detail: &str) -> CallFailure {
    CallFailure::new(ErrorKind::LocalFile).with_detail(detail)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::TlsPaths;

    fn checks(certs_dir: Option<&Path>) -> TlsChecks {
        let connect_timeout = Duration::from_millis(50);
        TlsChecks::new(Arc::new(Config {
            connect_timeout,
            certs_dir: certs_dir.map(Path::to_owned),
            ..Config::default()
        }))
    }

    fn site(url: &str, ca_file: Option<&str>) -> Site {
        let tls = TlsPaths { ca_file: ca_file.map(Into::into), ..TlsPaths::default() }.into();
        Site { url: url.parse().unwrap(), tls }
    }

    /// A check that hangs until the permit is dropped.
    async fn hang(checks: &TlsChecks, site: &Site) -> tokio::sync::OwnedSemaphorePermit {
        let checked = checks.checked(site, FileTrust::AnyUser);
        let turn = Arc::clone(&checked.turn).acquire_owned().await.unwrap();
        checked.state().began = Some(Instant::now());
        turn
    }

    #[tokio::test]
    async fn tls_files_that_do_not_answer_delay_no_site_with_others() {
        let checks = checks(None);
        let hung = site("https://a.example.com", Some("/share/ca.crt"));
        let _turn = hang(&checks, &hung).await;
        let clients = |site: Site| {
            let checks = &checks;
            async move { checks.clients(&site, FileTrust::AnyUser).await.map(drop) }
        };
        for _ in 0..40 {
            let error = format!("{:?}", clients(hung.clone()).await.unwrap_err());
            assert!(error.contains("does not answer"), "{error}");
        }
        assert!(checks.is_hanging(&checks.checked(&hung, FileTrust::AnyUser)));
        clients(site("https://b.example.com", None)).await.unwrap();
        clients(site("https://a.example.com", None)).await.unwrap();
        clients(site("http://a.example.com", Some("/share/ca.crt"))).await.unwrap();
    }

    #[tokio::test]
    async fn sites_go_on_with_their_last_clients_while_too_many_tls_files_hang() {
        let checks = checks(None);
        let known = site("https://known.example.com", None);
        checks.clients(&known, FileTrust::AnyUser).await.map(drop).unwrap();
        let mut turns = Vec::new();
        for number in 0..MAX_HANGING {
            turns.push(hang(&checks, &site("https://a.example.com", Some(&format!("/share/{number}")))).await);
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
        checks.clients(&known, FileTrust::AnyUser).await.map(drop).unwrap();
        let new = site("https://new.example.com", Some("/etc/new.crt"));
        let error = format!("{:?}", checks.clients(&new, FileTrust::AnyUser).await.map(drop).unwrap_err());
        assert!(error.contains("too many"), "{error}");
    }
}
