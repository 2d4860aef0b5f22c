//! The calls of this process with the access token of each server: a rotation lets those under way end first, and later
//! ones are sent with the new token.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::rc::Rc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::ServerUrl;
use crate::ops::AccessToken;
use crate::secret::{Digest, Token};

/// Counts the calls with access tokens, and holds new ones back during a rotation. Clones share one count.
#[derive(Clone, Debug)]
pub struct AccessUses(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    servers: RefCell<BTreeMap<ServerUrl, ServerUses>>,
    /// Sent when a call or a rotation ends.
    ends: watch::Sender<()>,
    /// Sent when a call ends.
    uses: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct ServerUses {
    under_way: usize,
    is_rotating: bool,
    last: Option<Instant>,
    /// By the token that was rotated.
    successors: BTreeMap<Digest, Token>,
}

/// A call under way. It derefs to the token to send.
#[derive(Debug)]
#[must_use = "the call counts as ended on drop"]
pub(in crate::ops) struct AccessUse {
    uses: AccessUses,
    url: ServerUrl,
    access: AccessToken,
}

/// A rotation under way: no call begins until it is dropped.
#[derive(Debug)]
#[must_use = "calls go on on drop"]
pub(super) struct UsePause {
    uses: AccessUses,
    url: ServerUrl,
}

impl AccessUses {
    /// Begins a call. Waits while a rotation is under way, then takes the newest token in place of a rotated one.
    pub(in crate::ops) async fn begin(&self, url: &ServerUrl, access: &AccessToken) -> AccessUse {
        self.wait_until(url, |server| !server.is_rotating).await;
        let mut servers = self.0.servers.borrow_mut();
        let server = servers.entry(url.clone()).or_default();
        server.under_way += 1;
        let mut token = &access.token;
        while let Some(successor) = server.successors.get(&token.digest()) {
            token = successor;
        }
        let access = AccessToken { token: token.clone(), tls: access.tls.clone() };
        AccessUse { uses: self.clone(), url: url.clone(), access }
    }

    /// Lets no call begin at a server, and waits for those under way.
    pub(super) async fn pause(&self, url: &ServerUrl) -> UsePause {
        self.with(url, |server| server.is_rotating = true);
        let pause = UsePause { uses: self.clone(), url: url.clone() };
        self.wait_until(url, |server| server.under_way == 0).await;
        pause
    }

    /// A token counts again that was rotated before: calls are sent with it.
    pub(super) fn take(&self, url: &ServerUrl, token: Digest) {
        self.with(url, |server| server.successors.remove(&token));
    }

    /// When the last call ended; `None` if there was none.
    #[must_use]
    pub fn last(&self, url: &ServerUrl) -> Option<Instant> {
        self.0.servers.borrow().get(url)?.last
    }

    /// Completes when a call has ended after this one was called. Cancel safe.
    pub async fn used(&self) {
        // The sender is in `self`, so the wait cannot fail.
        let _used = self.0.uses.subscribe().changed().await;
    }

    /// Replaces a token as a rotation does, by a new one that `rotate` makes once no call is under way.
    #[cfg(test)]
    pub(crate) async fn rotated(&self, url: &ServerUrl, rotate: impl FnOnce() -> (Digest, Token)) {
        let pause = self.pause(url).await;
        let (old, new) = rotate();
        pause.changes_over(old, &new);
    }

    async fn wait_until(&self, url: &ServerUrl, is_reached: impl Fn(&ServerUses) -> bool) {
        let mut ends = self.0.ends.subscribe();
        while !self.with(url, |server| is_reached(server)) {
            // The sender is in `self`, so the wait cannot fail.
            let _ended = ends.changed().await;
        }
    }

    fn with<T>(&self, url: &ServerUrl, look: impl FnOnce(&mut ServerUses) -> T) -> T {
        look(self.0.servers.borrow_mut().entry(url.clone()).or_default())
    }
}

impl UsePause {
    /// The new token is stored: calls that were to be sent with the old one are sent with it.
    pub(super) fn changes_over(&self, old: Digest, new: &Token) {
        self.uses.with(&self.url, |server| {
            // A person may have put the old one back at some time: no token leads to itself.
            server.successors.remove(&new.digest());
            server.successors.insert(old, new.clone());
        });
    }
}

impl Deref for AccessUse {
    type Target = AccessToken;

    fn deref(&self) -> &AccessToken {
        &self.access
    }
}

impl Default for AccessUses {
    fn default() -> Self {
        let (ends, uses) = (watch::channel(()).0, watch::channel(()).0);
        Self(Rc::new(Inner { servers: RefCell::default(), ends, uses }))
    }
}

impl Drop for AccessUse {
    fn drop(&mut self) {
        self.uses.with(&self.url, |server| {
            server.under_way -= 1;
            server.last = Some(Instant::now());
        });
        self.uses.0.ends.send_replace(());
        self.uses.0.uses.send_replace(());
    }
}

impl Drop for UsePause {
    fn drop(&mut self) {
        self.uses.with(&self.url, |server| server.is_rotating = false);
        self.uses.0.ends.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;
    use crate::model::TlsFiles;

    fn access(token: &str) -> AccessToken {
        AccessToken { token: Token::parse(token).unwrap(), tls: TlsFiles::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotation_waits_for_the_calls_under_way_and_those_that_wait_for_it_get_the_new_token() {
        let (uses, url): (_, ServerUrl) = (AccessUses::default(), "https://gitlab.example.com".parse().unwrap());
        let (old, new) = (access("glpat-old"), access("glpat-new"));
        let steps = RefCell::new(Vec::new());
        let step = |name: &'static str| steps.borrow_mut().push(name);
        let first = uses.begin(&url, &old).await;
        assert_eq!(*first, old);
        let rotation = async {
            let pause = uses.pause(&url).await;
            step("rotating");
            tokio::time::sleep(Duration::from_secs(1)).await;
            pause.changes_over(old.token.digest(), &new.token);
            step("rotated");
        };
        let second = async {
            tokio::task::yield_now().await;
            let second = uses.begin(&url, &old).await;
            step("second call");
            assert_eq!(*second, new);
        };
        let elsewhere = async {
            tokio::task::yield_now().await;
            let url = "https://gitlab.example.org".parse().unwrap();
            assert_eq!(*uses.begin(&url, &old).await, old);
            step("call at another server");
            tokio::time::sleep(Duration::from_secs(5)).await;
            step("first call ends");
            drop(first);
        };
        tokio::join!(rotation, second, elsewhere);
        let expected = ["call at another server", "first call ends", "rotating", "rotated", "second call"];
        assert_eq!(*steps.borrow(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_rotation_holds_up_no_call() {
        let (uses, url): (_, ServerUrl) = (AccessUses::default(), "https://gitlab.example.com".parse().unwrap());
        let call = uses.begin(&url, &access("glpat-old")).await;
        assert!(tokio::time::timeout(Duration::from_secs(1), uses.pause(&url)).await.is_err());
        let _second = uses.begin(&url, &access("glpat-old")).await;
        drop(call);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_call_is_told_and_its_time_is_kept() {
        let (uses, url): (_, ServerUrl) = (AccessUses::default(), "https://gitlab.example.com".parse().unwrap());
        assert_eq!(uses.last(&url), None);
        let is_told = Cell::new(false);
        let told = async {
            uses.used().await;
            is_told.set(true);
        };
        let call = async {
            drop(uses.begin(&url, &access("glpat-old")).await);
            tokio::time::sleep(Duration::from_secs(7)).await;
        };
        tokio::join!(told, call);
        assert!(is_told.get());
        assert_eq!(uses.last(&url).unwrap().elapsed(), Duration::from_secs(7));
    }
}
