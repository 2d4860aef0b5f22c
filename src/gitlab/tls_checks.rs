//! Checks of TLS files before a request, on blocking threads: their disk or network share may not answer.
//!
//! At most one check of a set of files is under way, so files that do not answer hold one thread, however many requests
//! need them. Sites with other files are not delayed. The checks of all sets together hold a bounded number of threads: the
//! runtime's blocking threads serve other files too.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::error::CallFailure;
use super::http_clients::{ClientCache, HttpClients};
use super::tls::FileTrust;
use super::{Config, ErrorKind};
use crate::files::{CurrentFile, spawn_file_task_in};
use crate::model::{Site, TlsFiles};

/// How many checks may be under way at a time, also such as hang.
const MAX_CHECKS: usize = 128;

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
    /// One place per check, until its thread has ended.
    places: Arc<Semaphore>,
    /// The last check that needed a place got none in its time. Until there is one, no other check waits for it.
    is_crowded: AtomicBool,
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
    /// What the check under way finds is out of date.
    is_forgotten: bool,
}

/// A check under way.
struct UnderWay(Arc<Checked>);

impl UnderWay {
    fn begin(checked: &Arc<Checked>) -> Self {
        let mut state = checked.state();
        (state.began, state.is_forgotten) = (Some(Instant::now()), false);
        Self(Arc::clone(checked))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state().began = None;
    }
}

impl TlsChecks {
    pub(super) fn new(config: Arc<Config>) -> Self {
        let clients = Arc::new(ClientCache::new(Arc::clone(&config)));
        let places = Arc::new(Semaphore::new(MAX_CHECKS));
        Self { config, clients, sets: Mutex::default(), places, is_crowded: AtomicBool::new(false) }
    }

    /// Drops everything built from TLS files and the system's authorities.
    ///
    /// Files that hang are read anew too: they may have been moved, or their share mounted again. The former check keeps its
    /// place as long as it hangs, so this ends once half of the places are taken.
    pub(super) fn forget(&self) {
        self.clients.forget();
        let is_room_left = self.places.available_permits() > MAX_CHECKS / 2;
        self.sets().retain(|_, checked| !is_room_left && checked.forget());
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
        if checked.is_hanging(self.config.connect_timeout) {
            return Err(checked.unanswered());
        }
        let deadline = Instant::now() + self.config.connect_timeout;
        let Some((turn, place)) = self.turn_and_place(&checked, deadline).await else {
            return checked.without_check();
        };
        let under_way = UnderWay::begin(&checked);
        let (clients, checked_site) = (Arc::clone(&self.clients), site.clone());
        let check = spawn_file_task_in(&checked.file, self.first_file(site), move || {
            let (_turn, _place) = (turn, place);
            let under_way = under_way;
            let found = clients.of(&checked_site, trust);
            under_way.0.keep(found.as_ref().ok());
            found
        });
        match timeout_at(deadline, check).await {
            Ok(found) => found.unwrap_or_else(|_| Err(failure("the thread that reads the TLS files has panicked"))),
            Err(_) => Err(checked.unanswered()),
        }
    }

    /// Waits until no other check of the set is under way, and for a place; `None` if that takes too long.
    async fn turn_and_place(
        &self,
        checked: &Checked,
        deadline: Instant,
    ) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let turn = timeout_at(deadline, Arc::clone(&checked.turn).acquire_owned()).await.ok()?.ok()?;
        let deadline = if self.is_crowded.load(Ordering::Relaxed) { Instant::now() } else { deadline };
        let place = timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await.ok().and_then(Result::ok);
        self.is_crowded.store(place.is_none(), Ordering::Relaxed);
        Some((turn, place?))
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

    fn is_hanging(&self, limit: Duration) -> bool {
        self.state().began.is_some_and(|began| began.elapsed() >= limit)
    }

    /// Keeps what a check has found, unless that was forgotten while the check was under way.
    fn keep(&self, found: Option<&HttpClients>) {
        let mut state = self.state();
        state.last = found.filter(|_| !state.is_forgotten).cloned();
    }

    /// Drops what was found. Returns whether a check is under way.
    fn forget(&self) -> bool {
        let mut state = self.state();
        (state.last, state.is_forgotten) = (None, true);
        state.began.is_some()
    }

    /// The clients of the last check, because no other can be begun.
    fn without_check(&self) -> Result<HttpClients, CallFailure> {
        let State { began, last, .. } = &*self.state();
        match began {
            Some(_) => Err(self.unanswered()),
            None => last.clone().ok_or_else(|| failure("too many TLS files do not answer")),
        }
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
    use futures_util::future::join_all;
    use tokio::runtime::Builder;
    use tokio::task::spawn_blocking;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::model::TlsPaths;

    const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

    /// How long a test waits for what has to happen.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn checks() -> TlsChecks {
        TlsChecks::new(Arc::new(Config { connect_timeout: CONNECT_TIMEOUT, certs_dir: None, ..Config::default() }))
    }

    fn site(url: &str, ca_file: Option<&str>) -> Site {
        let tls = TlsPaths { ca_file: ca_file.map(Into::into), ..TlsPaths::default() }.into();
        Site { url: url.parse().unwrap(), tls }
    }

    /// One of many sites whose files are on a share.
    fn site_on_share(number: usize) -> Site {
        site("https://a.example.com", Some(&format!("/share/{number}")))
    }

    /// The error of a request, if it has one.
    async fn ask(checks: &TlsChecks, site: &Site) -> Result<(), String> {
        let found = checks.clients(site, FileTrust::AnyUser).await;
        found.map(drop).map_err(|error| format!("{error:?}"))
    }

    /// Begins checks that hang until they are dropped.
    async fn hang(checks: &TlsChecks, sites: impl IntoIterator<Item = Site>) -> Vec<Hanging> {
        let mut hanging = Vec::new();
        for site in sites {
            let checked = checks.checked(&site, FileTrust::AnyUser);
            let permits = checks.turn_and_place(&checked, Instant::now() + PATIENCE).await.unwrap();
            hanging.push(Hanging { _permits: permits, _under_way: UnderWay::begin(&checked) });
        }
        sleep(CONNECT_TIMEOUT + Duration::from_millis(10)).await;
        hanging
    }

    /// A check that hangs until this is dropped.
    struct Hanging {
        _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
        _under_way: UnderWay,
    }

    #[tokio::test]
    async fn tls_files_that_do_not_answer_delay_no_site_with_others() {
        let checks = checks();
        let hung = site("https://a.example.com", Some("/share/ca.crt"));
        let _hanging = hang(&checks, [hung.clone()]).await;
        for _ in 0..40 {
            let error = ask(&checks, &hung).await.unwrap_err();
            assert!(error.contains("does not answer"), "{error}");
        }
        ask(&checks, &site("https://b.example.com", None)).await.unwrap();
        ask(&checks, &site("https://a.example.com", None)).await.unwrap();
        ask(&checks, &site("http://a.example.com", Some("/share/ca.crt"))).await.unwrap();
    }

    #[tokio::test]
    async fn sites_go_on_with_their_last_clients_while_too_many_tls_files_hang() {
        let checks = checks();
        let known = site("https://known.example.com", None);
        ask(&checks, &known).await.unwrap();
        let hanging = hang(&checks, (0..MAX_CHECKS).map(site_on_share)).await;
        let new = site("https://new.example.com", Some("/missing/new.crt"));
        for _ in 0..2 {
            ask(&checks, &known).await.unwrap();
            let error = ask(&checks, &new).await.unwrap_err();
            assert!(error.contains("too many"), "{error}");
        }
        drop(hanging);
        let error = ask(&checks, &new).await.unwrap_err();
        assert!(error.contains("cannot read"), "{error}");
    }

    #[test]
    fn checks_that_begin_together_leave_threads_for_other_files() {
        let checks = checks();
        let most = MAX_CHECKS + 1;
        let runtime = Builder::new_current_thread().enable_time().max_blocking_threads(most).build().unwrap();
        // The threads wait for it. It is dropped before the runtime, which waits for them.
        let _hanging = checks.clients.hold();
        runtime.block_on(async {
            let sites: Vec<_> = (0..=most).map(site_on_share).collect();
            let answers = join_all(sites.iter().map(|site| ask(&checks, site))).await;
            assert!(answers.iter().all(Result::is_err), "{answers:?}");
            let other = timeout(PATIENCE, spawn_blocking(|| ())).await;
            other.expect("the checks have taken all threads").unwrap();
        });
    }

    #[tokio::test]
    async fn a_reload_begins_checks_that_hang_anew_while_half_of_the_places_are_free() {
        let checks = checks();
        let hung = site_on_share(0);
        let mut hanging = hang(&checks, [hung.clone()]).await;
        ask(&checks, &hung).await.unwrap_err();
        checks.forget();
        assert!(checks.sets().is_empty());
        let error = ask(&checks, &hung).await.unwrap_err();
        assert!(error.contains("cannot read"), "{error}");
        hanging.extend(hang(&checks, (0..MAX_CHECKS / 2).map(site_on_share)).await);
        ask(&checks, &site("https://b.example.com", None)).await.unwrap();
        checks.forget();
        assert_eq!(checks.sets().len(), MAX_CHECKS / 2);
        let error = ask(&checks, &hung).await.unwrap_err();
        assert!(error.contains("does not answer"), "{error}");
        drop(hanging);
        let error = ask(&checks, &hung).await.unwrap_err();
        assert!(error.contains("cannot read"), "{error}");
    }

    #[tokio::test]
    async fn what_a_check_finds_that_began_before_a_reload_is_not_kept() {
        let checks = checks();
        let site = site("https://b.example.com", None);
        let checked = checks.checked(&site, FileTrust::AnyUser);
        let clients = checks.clients(&site, FileTrust::AnyUser).await.unwrap();
        let under_way = UnderWay::begin(&checked);
        assert!(checked.forget());
        under_way.0.keep(Some(&clients));
        assert!(checked.state().last.is_none());
        let under_way = UnderWay::begin(&checked);
        under_way.0.keep(Some(&clients));
        assert!(checked.state().last.is_some());
    }
}
