//! Where tests reach into a replace; empty otherwise.

use std::path::Path;

#[cfg(test)]
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

/// Something that a test does to config.toml behind the agent's back.
#[cfg(test)]
pub(super) type Hook = dyn FnMut(&Path) + Send;

/// What a test wants to happen, or to know, in the middle of a replace.
#[derive(Clone, Default)]
pub(super) struct TestHooks {
    /// Called when the replacement is on the disk and the original is about to be compared.
    #[cfg(test)]
    pub(super) before_rename: Option<Arc<Mutex<Hook>>>,
    /// Counts the replaces that happened.
    #[cfg(test)]
    pub(super) renames: Arc<AtomicU32>,
    /// Takes config.toml for a mount point.
    #[cfg(test)]
    pub(super) mount_point: bool,
    /// Refuses the space for a write in place.
    #[cfg(test)]
    pub(super) no_space: bool,
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
}
