//! The configuration of a GitLab before it starts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use crate::http::server::Server;
use crate::http::tls::Tls;
use crate::shared::{Changes, Observer, Shared};
use crate::state::State;
use crate::{Gitlab, IntoLife, Request, Version};

/// Configures a [`Gitlab`]. By default it imitates the newest known release, speaks plain HTTP on a free port of
/// 127.0.0.1, issues tokens that never expire and, unlike new releases by default, allows registration tokens.
pub struct Builder {
    address: SocketAddr,
    base_path: String,
    tls: Option<Tls>,
    state: State,
    observer: Option<Observer>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            base_path: String::new(),
            tls: None,
            state: State::new(Version::default()),
            observer: None,
        }
    }

    /// Imitates this release.
    #[must_use]
    pub fn version(mut self, version: impl Into<Version>) -> Self {
        self.state.version = version.into();
        let token = self.state.tokens.registration(self.state.version, true);
        self.state.registration.instance_token = token;
        self
    }

    /// Sets the lifetime of runner tokens: a span, `None`, or a text such as `"60s"` or `"never"`.
    #[must_use]
    pub fn token_life(mut self, life: impl IntoLife) -> Self {
        self.state.token_life = life.into_life();
        self
    }

    /// Serves below a relative URL root such as `/gitlab`.
    #[must_use]
    pub fn base_path(mut self, base_path: &str) -> Self {
        let trimmed = base_path.trim_matches('/');
        self.base_path = if trimmed.is_empty() { String::new() } else { format!("/{trimmed}") };
        self
    }

    /// Serves HTTPS.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Listens on this port instead of on a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        self
    }

    /// Listens on this address instead of on 127.0.0.1, for example `[::1]`.
    #[must_use]
    pub fn ip(mut self, ip: impl Into<IpAddr>) -> Self {
        self.address.set_ip(ip.into());
        self
    }

    /// Sets the instance's registration token; call it after [`Builder::version`].
    #[must_use]
    pub fn registration_token(mut self, token: impl Into<String>) -> Self {
        self.state.registration.instance_token = token.into();
        self
    }

    /// Also serves the API v1, which releases before 10.0 always do.
    #[must_use]
    pub fn with_v1(mut self) -> Self {
        self.state.serves_v1 = true;
        self
    }

    /// Releases before 15.9 answer verify with the JSON string `"200"` instead of the plain text.
    #[must_use]
    pub fn verify_answers_a_json_string(mut self) -> Self {
        self.state.verify_is_json_string = true;
        self
    }

    /// Calls this with each request once it is answered, on the server's thread.
    #[must_use]
    pub fn on_request(mut self, observer: impl Fn(&Request) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Starts the server; it listens when this returns.
    ///
    /// # Panics
    /// The server cannot listen on the address.
    #[must_use]
    pub fn start(self) -> Gitlab {
        self.try_start().expect("an address to listen on")
    }

    /// Starts the server; it listens when this returns.
    ///
    /// # Errors
    /// The server cannot listen on the address, for example because it is in use.
    pub fn try_start(self) -> io::Result<Gitlab> {
        let shared = Arc::new(Shared {
            state: Mutex::new(self.state),
            orders: Mutex::default(),
            log: Mutex::default(),
            changes: Changes::default(),
            outage: Mutex::default(),
            observer: self.observer,
            base_path: self.base_path,
        });
        let acceptor = self.tls.as_ref().map(Tls::acceptor);
        let server = Server::start(self.address, acceptor, Arc::clone(&shared))?;
        Ok(Gitlab { server, shared, tls: self.tls })
    }
}
