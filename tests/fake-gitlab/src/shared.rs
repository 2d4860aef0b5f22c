//! The state that the server's thread and the tests share.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::order::Orders;
use crate::outage::Outage;
use crate::request::{Log, Request};
use crate::state::State;

/// Called with each request once it is answered.
pub(crate) type Observer = Box<dyn Fn(&Request) + Send + Sync>;

/// Shared state behind locks. No lock is held while another is taken, nor across an await.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) orders: Mutex<Orders>,
    pub(crate) log: Mutex<Log>,
    pub(crate) changes: Changes,
    pub(crate) outage: Mutex<Option<Outage>>,
    pub(crate) observer: Option<Observer>,
    /// The relative URL root, `""` or like `/gitlab`.
    pub(crate) base_path: String,
}

/// Locks, even if a test thread has panicked with the lock held.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts events on the server, so tests can wait for them.
#[derive(Default)]
pub(crate) struct Changes {
    count: Mutex<u64>,
    grown: Condvar,
}

impl Changes {
    /// The number of changes.
    pub(crate) fn count(&self) -> u64 {
        *locked(&self.count)
    }

    /// Counts a change and wakes the waiting tests.
    pub(crate) fn announce(&self) {
        *locked(&self.count) += 1;
        self.grown.notify_all();
    }

    /// Blocks until there are more changes than this, or until the timeout.
    pub(crate) fn wait_for_more_than(&self, seen: u64, timeout: Duration) {
        let waited = self.grown.wait_timeout_while(locked(&self.count), timeout, |count| *count <= seen);
        drop(waited);
    }
}
