//! What the daemon shall do.

use std::time::Duration;

use crate::lifecycle::{RegisterAgain, Share, Timing};
use crate::model::{RunnerId, ServerUrl};
use crate::ops::{Enrollment, Runner, ServerAccess};

/// Everything the daemon needs to know besides its files; built by `settings`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How often an accepted credential of an enrollment is checked (`[verify] interval`).
    pub verify_enrolled: Duration,
    /// The same for entries that were only found in config.toml, each check of which keeps a runner
    /// "online" in GitLab (`[verify] found_interval`).
    pub verify_found: Duration,
    /// The share of a token's life after which it is replaced; `None` for never (`[rotate] at`).
    pub rotate: Option<Share>,
    /// When a runner whose token is refused is registered anew (`[recover] register`).
    pub register_again: RegisterAgain,
    /// What happens at the end (`[shutdown]`).
    pub shutdown: Shutdown,
    /// The numbers of the schedule (`[timing]`).
    pub timing: Timing,
    /// The runners that shall exist (`[[enroll]]` and the environment).
    pub enrollments: Vec<Enrollment>,
    /// Access tokens by instance (`[[server]]`).
    pub servers: Vec<ServerAccess>,
    /// Exceptions for single entries (`[[runner]]`).
    pub policies: Vec<Policy>,
}

/// What happens when the daemon is told to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Which runners are unregistered.
    pub unregister: Unregister,
    /// What a reboot of the machine does instead (`on_reboot`).
    pub on_reboot: OnReboot,
    /// How long everything may take.
    pub grace: Duration,
}

/// What becomes of the runners when the machine starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReboot {
    /// They stay registered: the daemon comes back with the machine.
    Keep,
    /// The same as when the daemon is stopped for any other reason.
    Unregister,
}

/// Which runners are unregistered at shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unregister {
    /// None.
    Never,
    /// Those that an enrollment can make again.
    Enrolled,
    /// All that the agent serves.
    All,
}

/// An exception for the entries that its selector matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which entries.
    pub selector: PolicySelector,
    /// Whether their tokens are rotated; absent means [`RotatePolicy::Auto`].
    pub rotate: Option<RotatePolicy>,
    /// Whether they are unregistered at shutdown; absent means as all others.
    pub unregister: Option<Unregister>,
    /// Whether other machines use the same token.
    pub shared: Option<bool>,
}

impl Config {
    /// What the policies say about a runner; of several that match, the first that says something.
    #[must_use]
    pub fn policy_of(&self, runner: &Runner) -> Policy {
        let mut matching = self.policies.iter().filter(|policy| policy.selector.matches(runner)).cloned();
        let none = Policy { selector: PolicySelector::default(), rotate: None, unregister: None, shared: None };
        let first = matching.next().unwrap_or(none);
        matching.fold(first, |known, next| Policy {
            rotate: known.rotate.or(next.rotate),
            unregister: known.unregister.or(next.unregister),
            shared: known.shared.or(next.shared),
            ..known
        })
    }
}

impl Config {
    /// The access token for a server, where there is one.
    #[must_use]
    pub fn access_to(&self, url: &ServerUrl) -> Option<&ServerAccess> {
        self.servers.iter().find(|server| server.url == *url)
    }
}

impl PolicySelector {
    fn matches(&self, runner: &Runner) -> bool {
        let record = &runner.record;
        self.id.is_none_or(|id| record.id == Some(id))
            && self.name.as_ref().is_none_or(|name| record.name.as_ref() == Some(name))
            && self.url.as_ref().is_none_or(|url| record.url == *url)
    }
}

/// Which entries a policy is about: all given parts must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySelector {
    /// By GitLab's number.
    pub id: Option<RunnerId>,
    /// By the entry's name.
    pub name: Option<String>,
    /// By instance.
    pub url: Option<ServerUrl>,
}

/// Whether a runner's token is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotatePolicy {
    /// Registered runners always; given ones unless they are shared or their entry's feature flag says no.
    Auto,
    /// Whatever else speaks against it.
    Always,
    /// Never.
    Off,
}

/// The default of `[verify] interval`.
pub const VERIFY_ENROLLED: Duration = Duration::from_secs(3600);

/// The default of `[verify] found_interval`.
pub const VERIFY_FOUND: Duration = Duration::from_secs(24 * 3600);

/// The default of `[shutdown] grace`: fits the ten seconds that `docker stop` gives.
pub const GRACE: Duration = Duration::from_secs(8);

impl Default for Config {
    fn default() -> Self {
        Self {
            verify_enrolled: VERIFY_ENROLLED,
            verify_found: VERIFY_FOUND,
            rotate: Some(Share::DEFAULT),
            register_again: RegisterAgain::Expired,
            shutdown: Shutdown { unregister: Unregister::Enrolled, on_reboot: OnReboot::Keep, grace: GRACE },
            timing: Timing::default(),
            enrollments: Vec::new(),
            servers: Vec::new(),
            policies: Vec::new(),
        }
    }
}
