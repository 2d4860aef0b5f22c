//! The GitLab of a test: its state and its controls.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use jiff::civil::Date;
use jiff::{SignedDuration, Span, Timestamp};

use crate::http::server::Server;
use crate::http::tls::Tls;
use crate::shared::{Shared, locked};
use crate::state::State;
use crate::state::access::day_of;
use crate::{
    AccessToken, Backup, Builder, Endpoint, Fault, Group, IntoLife, Job, Lag, NewAccessToken, NewRunner, Order, Outage,
    Project, Request, Role, Runner, RunnerType, Scope, Version,
};

/// How long ago [`Gitlab::expire`] lets a token expire.
const AGO: SignedDuration = SignedDuration::from_secs(1);

/// A running GitLab; it stops when this is dropped.
pub struct Gitlab {
    pub(crate) server: Server,
    pub(crate) shared: Arc<Shared>,
    pub(crate) tls: Option<Tls>,
}

impl Gitlab {
    /// Sets up a GitLab.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Starts a GitLab with the builder's defaults.
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// The instance's address, without a slash at its end: `http://127.0.0.1:40123/gitlab`.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.server.address, self.shared.base_path)
    }

    /// The listening address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The certificates; `None` with plain HTTP.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The authority's certificate as PEM.
    ///
    /// # Panics
    /// When plain HTTP is served.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.tls.as_ref().expect("a GitLab that serves HTTPS").ca_pem()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.shared.state)
    }
}

/// Runners.
impl Gitlab {
    /// Creates a runner and returns its id and its token.
    pub fn add_runner(&self, new: NewRunner) -> (u64, String) {
        let mut state = self.state();
        let runner = state.create_runner(new);
        let added = (runner.id, runner.token.clone());
        state.note_change();
        added
    }

    /// All runners by their id.
    #[must_use]
    pub fn runners(&self) -> Vec<Runner> {
        self.state().runners.values().cloned().collect()
    }

    /// The runner with this id.
    #[must_use]
    pub fn runner(&self, id: u64) -> Option<Runner> {
        self.state().runners.get(&id).cloned()
    }

    /// The runner with this token, even an expired one.
    #[must_use]
    pub fn runner_by_token(&self, token: &str) -> Option<Runner> {
        self.state().runner_by_token(token).cloned()
    }

    /// Expires a runner's token, as of a second ago.
    pub fn expire(&self, id: u64) {
        let now = self.state().clock.now();
        self.change(id, |runner| runner.token_expires_at = Some(now - AGO));
    }

    /// Sets the expiry of a runner's token by the server's clock; `None` for never.
    pub fn expire_at(&self, id: u64, expires_at: Option<Timestamp>) {
        self.change(id, |runner| runner.token_expires_at = expires_at);
    }

    /// Rotates a runner's token as another client would, and returns the new token.
    ///
    /// # Panics
    /// When there is no such runner.
    pub fn revoke(&self, id: u64) -> String {
        let mut state = self.state();
        let token = state.rotate(id).expect("a runner with this id").token.clone();
        state.note_change();
        token
    }

    /// Deletes a runner as another client would.
    pub fn delete(&self, id: u64) {
        let mut state = self.state();
        state.runners.remove(&id);
        state.note_change();
    }

    /// Removes a runner's projects and groups.
    pub fn orphan(&self, id: u64) {
        self.change(id, |runner| {
            runner.is_orphaned = true;
            runner.projects.clear();
            runner.groups.clear();
        });
    }

    /// Pauses or resumes a runner.
    pub fn set_paused(&self, id: u64, paused: bool) {
        self.change(id, |runner| runner.paused = paused);
    }

    /// Sets a runner's rotation deadline (since 18.10).
    pub fn set_rotation_deadline(&self, id: u64, deadline: Option<Timestamp>) {
        self.change(id, |runner| runner.rotation_deadline = deadline);
    }

    /// Removes a runner's managers, as GitLab does after a week without contact.
    pub fn purge_managers(&self, id: u64) {
        self.change(id, |runner| runner.managers.clear());
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Runner)) {
        let mut state = self.state();
        let now = state.clock.now();
        let runner = state.runners.get_mut(&id).expect("a runner with this id");
        change(runner);
        runner.updated_at = now;
        state.note_change();
    }
}

/// Settings.
impl Gitlab {
    /// The imitated release.
    #[must_use]
    pub fn version(&self) -> Version {
        self.state().version
    }

    /// Lets a replica answer verify, and the look of an access token at itself, that lags behind the database; `None`
    /// ends it. Contacts of such a verify are lost.
    pub fn set_replica_lag(&self, lag: Option<Lag>) {
        let mut state = self.state();
        let State { replica, clock, runners, access, .. } = &mut *state;
        replica.set(lag, clock.now(), runners, access);
    }

    /// Backs the database up: runners, owners and jobs.
    #[must_use]
    pub fn backup(&self) -> Backup {
        self.state().backup()
    }

    /// Restores a backup: later runners are gone, later rotations undone, and new ids repeat later ones.
    pub fn restore(&self, backup: &Backup) {
        self.state().restore(backup);
    }

    /// Lets lists ignore all filters, as a release does that does not know them.
    pub fn ignore_filters(&self, ignores: bool) {
        self.state().ignores_filters = ignores;
    }

    /// Strips `X-Gitlab-Meta` from GitLab's own answers, as some proxies do.
    pub fn strip_meta(&self, strips: bool) {
        self.state().strips_meta = strips;
    }

    /// Imitates another release from now on; existing tokens keep their format.
    pub fn upgrade_to(&self, version: impl Into<Version>) {
        self.state().version = version.into();
    }

    /// Changes the lifetime of new tokens.
    pub fn set_token_life(&self, life: impl IntoLife) {
        self.state().token_life = life.into_life();
    }

    /// Switches registration tokens off for the whole instance.
    pub fn disallow_registration(&self) {
        self.state().registration.is_allowed = false;
    }

    /// Switches registration tokens on again for the whole instance.
    pub fn allow_registration(&self) {
        self.state().registration.is_allowed = true;
    }

    /// Switches the registration token of one project off.
    pub fn disallow_registration_in_project(&self, id: u64) {
        let mut state = self.state();
        state.projects.get_mut(&id).expect("a project with this id").allows_registration = false;
    }

    /// Switches the registration token of one group off.
    pub fn disallow_registration_in_group(&self, id: u64) {
        let mut state = self.state();
        state.groups.get_mut(&id).expect("a group with this id").allows_registration = false;
    }

    /// Refuses to register runners of one type.
    pub fn refuse_to_register(&self, runner_type: RunnerType) {
        self.state().registration.refused_types.push(runner_type);
    }

    /// Puts the server's whole clock ahead, or back by a negative span: the `Date` header as well as every expiry.
    pub fn set_clock_skew(&self, skew: SignedDuration) {
        self.state().clock.skew = skew;
    }

    /// Advances the server's clock.
    pub fn advance(&self, span: Duration) {
        let span = SignedDuration::try_from(span).expect("a span of time that a test can mean");
        let mut state = self.state();
        state.clock.skew = state.clock.skew.saturating_add(span);
    }

    /// The time on the server's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.state().clock.now()
    }
}

/// Owners, jobs and tokens.
impl Gitlab {
    /// The registration token of the instance.
    #[must_use]
    pub fn instance_registration_token(&self) -> String {
        self.state().registration.instance_token.clone()
    }

    /// Creates a project by its full path, such as `gitlab-org/gitlab`.
    pub fn add_project(&self, path: &str) -> Project {
        let mut state = self.state();
        let id = state.next_id();
        let version = state.version;
        let registration_token = state.tokens.registration(version, false);
        let project = Project { id, path: path.to_owned(), registration_token, allows_registration: true };
        state.projects.insert(id, project.clone());
        project
    }

    /// Creates a group by its full path, such as `gitlab-org`.
    pub fn add_group(&self, path: &str) -> Group {
        let mut state = self.state();
        let id = state.next_id();
        let version = state.version;
        let registration_token = state.tokens.registration(version, false);
        let group = Group { id, path: path.to_owned(), registration_token, allows_registration: true };
        state.groups.insert(id, group.clone());
        group
    }

    /// The project with this id, with the registration token that it has now.
    #[must_use]
    pub fn project(&self, id: u64) -> Option<Project> {
        self.state().projects.get(&id).cloned()
    }

    /// The group with this id, with the registration token that it has now.
    #[must_use]
    pub fn group(&self, id: u64) -> Option<Group> {
        self.state().groups.get(&id).cloned()
    }

    /// Lets a runner take a job, and returns the job's id.
    pub fn add_job(&self, runner_id: u64, project_id: u64, system_id: Option<&str>, status: &str) -> u64 {
        let mut state = self.state();
        let id = state.next_id();
        let created_at = state.clock.now();
        let (system_id, status) = (system_id.map(str::to_owned), status.to_owned());
        state.jobs.insert(id, Job { id, runner_id, project_id, system_id, status, created_at });
        id
    }

    /// Creates an admin's access token with these scopes.
    pub fn add_access_token<const N: usize>(&self, scopes: [Scope; N]) -> String {
        self.add_access_token_of(Role::Admin, scopes)
    }

    /// Creates an access token of a user with this role.
    pub fn add_access_token_of<const N: usize>(&self, role: Role, scopes: [Scope; N]) -> String {
        self.create_access_token(NewAccessToken::personal().role(role).scopes(scopes))
    }

    /// Creates an access token and returns its text.
    pub fn create_access_token(&self, new: NewAccessToken) -> String {
        self.state().create_access_token(new)
    }

    /// Accepts this text as an admin's access token with all rights.
    pub fn accept_access_token(&self, text: &str) {
        self.create_access_token(NewAccessToken::personal().scopes([Scope::Api]).text(text));
    }

    /// The access token with this text.
    #[must_use]
    pub fn access_token(&self, text: &str) -> Option<AccessToken> {
        self.state().access.0.get(text).cloned()
    }

    /// All access tokens by their texts.
    #[must_use]
    pub fn access_tokens(&self) -> BTreeMap<String, AccessToken> {
        self.state().access.0.clone()
    }

    /// Whether this text is an access token that works now.
    #[must_use]
    pub fn accepts_access_token(&self, text: &str) -> bool {
        let state = self.state();
        state.access.0.get(text).is_some_and(|token| token.is_active_at(state.clock.now()))
    }

    /// Rotates an access token as another client would, and returns the new one.
    ///
    /// # Panics
    /// When there is no such token.
    pub fn rotate_access_token(&self, text: &str, expires_on: Option<Date>) -> String {
        let mut state = self.state();
        let new = state.rotate_access_token(text, expires_on).expect("an access token of this server");
        state.note_change();
        new
    }

    /// Expires an access token: as of 00:00 UTC of this day.
    pub fn expire_access_token(&self, text: &str) {
        let today = day_of(self.now());
        self.change_access_token(text, |token| token.expires_on = Some(today));
    }

    /// Sets the day at whose 00:00 UTC an access token ends; `None` for never.
    pub fn expire_access_token_on(&self, text: &str, day: Option<Date>) {
        self.change_access_token(text, |token| token.expires_on = day);
    }

    /// Revokes an access token.
    pub fn revoke_access_token(&self, text: &str) {
        self.change_access_token(text, |token| token.revoked = true);
    }

    /// Uses an access token from elsewhere, now.
    pub fn use_access_token(&self, text: &str) {
        let now = self.now();
        self.change_access_token(text, |token| token.last_used_at = Some(now));
    }

    /// The day that lies this many days ahead.
    #[must_use]
    pub fn day_in(&self, days: i32) -> Date {
        day_of(self.now()).checked_add(Span::new().days(days)).expect("a day of the calendar")
    }

    /// Limits the life of access tokens, in days; `None` for no limit, and then they need no expiry.
    pub fn limit_access_token_days(&self, days: Option<u32>) {
        self.state().access_token_days = days;
    }

    fn change_access_token(&self, text: &str, change: impl FnOnce(&mut AccessToken)) {
        let mut state = self.state();
        change(state.access.0.get_mut(text).expect("an access token of this server"));
        state.note_change();
    }
}

/// Faults.
impl Gitlab {
    /// Orders a fault for the next request to an endpoint; the handle can select more or other requests.
    pub fn order(&self, endpoint: Endpoint, fault: Fault) -> Order {
        let number = locked(&self.shared.orders).place(endpoint, fault);
        Order { number, shared: Arc::clone(&self.shared) }
    }

    /// Removes all orders; held requests continue.
    pub fn clear_faults(&self) {
        locked(&self.shared.orders).clear();
    }

    /// Starts or ends an outage of the whole server.
    pub fn outage(&self, outage: Option<Outage>) {
        *locked(&self.shared.outage) = outage;
    }

    /// Closes all connections and refuses new ones; the port stays reserved.
    pub fn refuse_connections(&self) {
        self.server.refuse_connections();
    }

    /// Accepts connections again, on the same port.
    pub fn accept_connections(&self) {
        self.server.accept_connections();
    }

    /// Closes all connections, as a restarted proxy does, and accepts new ones.
    pub fn cut_connections(&self) {
        self.server.cut_connections();
    }
}

/// The request log.
impl Gitlab {
    /// All requests since the start or the last [`Gitlab::clear_requests`], oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        locked(&self.shared.log).all()
    }

    /// The requests to one endpoint, oldest first.
    #[must_use]
    pub fn requests_to(&self, endpoint: Endpoint) -> Vec<Request> {
        locked(&self.shared.log).to(endpoint)
    }

    /// Clears the log.
    pub fn clear_requests(&self) {
        locked(&self.shared.log).clear();
    }

    /// Blocks until the log has this many requests to an endpoint, answered or not; `false` after the timeout.
    #[must_use]
    pub fn wait_for_requests(&self, endpoint: Endpoint, count: usize, timeout: Duration) -> bool {
        self.wait_until(timeout, |gitlab| locked(&gitlab.shared.log).count(endpoint) >= count)
    }

    /// Blocks until a condition holds, checked at each new and each answered request; `false` after the timeout.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a test waits in real time, whatever clock its subject is given")]
    pub fn wait_until(&self, timeout: Duration, is_true: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let seen = self.shared.changes.count();
            if is_true(self) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.shared.changes.wait_for_more_than(seen, left);
        }
    }
}
