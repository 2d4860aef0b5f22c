//! Fault injection for tests; does nothing in other builds.

use std::path::Path;
use std::time::Duration;

#[cfg(test)]
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

/// A concurrent change of config.toml by a test.
#[cfg(test)]
pub(super) type Hook = dyn FnMut(&Path) + Send;

/// Hooks into a replace.
#[derive(Clone, Default)]
pub(super) struct TestHooks {
    /// Called after the replacement is written, before the original is compared.
    #[cfg(test)]
    pub(super) before_rename: Option<Arc<Mutex<Hook>>>,
    /// Counts completed replaces.
    #[cfg(test)]
    pub(super) renames: Arc<AtomicU32>,
    /// Treats config.toml as a mount point.
    #[cfg(test)]
    pub(super) mount_point: bool,
    /// Fails the allocation for a write in place.
    #[cfg(test)]
    pub(super) no_space: bool,
    /// Waits a tenth of the time for a lock.
    #[cfg(test)]
    pub(super) impatient: bool,
    /// Treats config.toml and its directory as another user's.
    #[cfg(test)]
    pub(super) another_owner: bool,
}

#[cfg(not(test))]
impl TestHooks {
    pub(super) fn before_rename(&self, _path: &Path) {}

    pub(super) fn renamed(&self) {}

    pub(super) fn pretends_mount_point(&self) -> bool {
        false
    }

    pub(super) fn has_no_space(&self) -> bool {
        false
    }

    pub(super) fn patience(&self, wait: Duration) -> Duration {
        wait
    }

    pub(super) fn pretends_another_owner(&self) -> bool {
        false
    }
}

#[cfg(test)]
impl TestHooks {
    pub(super) fn before_rename(&self, path: &Path) {
        if let Some(hook) = &self.before_rename {
            hook.lock().unwrap()(path);
        }
    }

    pub(super) fn renamed(&self) {
        self.renames.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn pretends_mount_point(&self) -> bool {
        self.mount_point
    }

    pub(super) fn has_no_space(&self) -> bool {
        self.no_space
    }

    pub(super) fn patience(&self, wait: Duration) -> Duration {
        if self.impatient { wait / 10 } else { wait }
    }

    pub(super) fn pretends_another_owner(&self) -> bool {
        self.another_owner
    }
}
