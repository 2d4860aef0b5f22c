//! The settings of the engine.

use std::sync::Arc;
use std::time::Duration;

use crate::hooks::Hook;
use crate::lifecycle::{RegisterAgain, Share, Timing};
use crate::model::{RunnerId, ServerUrl, named_enum};
use crate::ops::{Enrollment, Runner, ServerAccess};
use crate::sharing::{self, AnyEngine, Shares};

/// The settings of the engine; built by `settings`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The interval between verifications of an accepted credential of an enrollment (`[verify] interval`).
    pub verify_enrolled: Duration,
    /// The same for entries without an enrollment (`[verify] found_interval`). Each verification keeps a runner
    /// "online" in GitLab.
    pub verify_found: Duration,
    /// The share of a token's life after which it is rotated; `None` for never (`[rotate] at`).
    pub rotate: Option<Share>,
    /// Whether the tokens of entries are rotated that were only found in config.toml (`[rotate] found`).
    pub rotate_found: RotateFound,
    /// When a runner with a refused token is registered again (`[recover] register`).
    pub register_again: RegisterAgain,
    /// The shutdown settings (`[shutdown]`).
    pub shutdown: Shutdown,
    /// The delays and limits of the schedule (`[timing]`).
    pub timing: Arc<Timing>,
    /// The runners that should exist (`[[enroll]]` and the environment).
    pub enrollments: Vec<Enrollment>,
    /// Access tokens by instance (`[[server]]`).
    pub servers: Vec<ServerAccess>,
    /// Exceptions for single entries (`[[runner]]`).
    pub policies: Vec<Policy>,
    /// The store of shared runners (`[sharing]`). Used only if an enrollment is shared.
    pub sharing: Option<sharing::Settings>,
    /// What is done after an event (`[[hook]]`).
    pub hooks: Vec<Hook>,
}

/// What happens at shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Which runners are unregistered.
    pub unregister: Unregister,
    /// Whether runners in the store are unregistered too (`unregister_shared`).
    pub unregister_shared: UnregisterShared,
    /// What happens instead if the machine reboots (`on_reboot`).
    pub on_reboot: OnReboot,
    /// Time limit for the whole shutdown, but for an answer that is the only copy of a token.
    pub grace: Duration,
}

/// What happens to the runners if the machine reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReboot {
    /// They stay registered: the daemon starts again with the machine.
    Keep,
    /// The same as at any other shutdown.
    Unregister,
}

/// Which runners are unregistered at shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unregister {
    /// None.
    Never,
    /// Those that an enrollment can register again.
    Enrolled,
    /// All managed runners.
    All,
}

/// Whether a runner in the store is unregistered at shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnregisterShared {
    /// No: only this machine's manager is deleted.
    Never,
    /// By the last of its machines.
    Last,
}

/// An exception for the runners that its selector matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which runners.
    pub selector: PolicySelector,
    /// Whether their tokens are rotated; `None` means [`RotatePolicy::Auto`].
    pub rotate: Option<RotatePolicy>,
    /// Whether they are unregistered at shutdown; `None` means as in [`Shutdown`].
    pub unregister: Option<Unregister>,
    /// Whether other machines use the same token.
    pub shared: Option<bool>,
}

impl Config {
    /// The policy for a runner. Of several that match, the first one that sets a field decides it.
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

    /// The settings of the store of shared runners; `None` if no enrollment is shared.
    #[must_use]
    pub fn needed_store(&self) -> Option<&sharing::Settings> {
        self.sharing.as_ref().filter(|_| self.enrollments.iter().any(|enrollment| enrollment.share_as.is_some()))
    }

    /// Opens that store; sends nothing.
    ///
    /// # Errors
    /// As [`sharing::open`].
    pub async fn open_store(&self) -> Result<Option<Shares<AnyEngine>>, sharing::Error> {
        match self.needed_store() {
            Some(settings) => sharing::open(settings).await.map(Some),
            None => Ok(None),
        }
    }

    /// The access token for a server, if one is configured.
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

/// Selects runners: all fields that are set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySelector {
    /// The runner's id.
    pub id: Option<RunnerId>,
    /// The name of its entry.
    pub name: Option<String>,
    /// Its GitLab instance.
    pub url: Option<ServerUrl>,
}

/// Whether a runner's token is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotatePolicy {
    /// Yes, unless the token is shared, a variable or from the API v1, or the entry's feature flag disables it.
    Auto,
    /// Yes, regardless of the reasons against it.
    Always,
    /// Never.
    Off,
}

named_enum! {
    /// Whether the token of an entry is rotated that was only found in config.toml.
    pub enum RotateFound {
        /// No.
        Never = "never",
        /// Once most of its life has passed: gitlab-runner evidently does not do it.
        LastResort = "last_resort",
        /// Like every other.
        Always = "always",
    }
}

/// The default of `[verify] interval`.
pub const VERIFY_ENROLLED: Duration = Duration::from_secs(3600);

/// The default of `[verify] found_interval`.
pub const VERIFY_FOUND: Duration = Duration::from_secs(24 * 3600);

/// The default of `[shutdown] grace`: fits into the ten seconds of `docker stop`.
pub const GRACE: Duration = Duration::from_secs(8);

impl Default for Config {
    fn default() -> Self {
        Self {
            verify_enrolled: VERIFY_ENROLLED,
            verify_found: VERIFY_FOUND,
            rotate: Some(Share::DEFAULT),
            rotate_found: RotateFound::LastResort,
            register_again: RegisterAgain::Expired,
            shutdown: Shutdown {
                unregister: Unregister::Enrolled,
                unregister_shared: UnregisterShared::Never,
                on_reboot: OnReboot::Keep,
                grace: GRACE,
            },
            timing: Arc::default(),
            enrollments: Vec::new(),
            servers: Vec::new(),
            policies: Vec::new(),
            sharing: None,
            hooks: Vec::new(),
        }
    }
}
