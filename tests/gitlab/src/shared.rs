//! What the server's thread and the tests share.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::order::Orders;
use crate::outage::Outage;
use crate::request::{Log, Request};
use crate::state::State;

/// Called with each request once it is answered.
pub(crate) type Observer = Box<dyn Fn(&Request) + Send + Sync>;

/// Everything behind locks; none is held while another is taken, nor across an await.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) orders: Mutex<Orders>,
    pub(crate) log: Mutex<Log>,
    /// Told whenever the log grows or changes.
    pub(crate) log_changed: Condvar,
    pub(crate) outage: Mutex<Option<Outage>>,
    pub(crate) observer: Option<Observer>,
    /// The relative URL root, `""` or like `/gitlab`.
    pub(crate) base_path: String,
}

/// Locks, also where another test thread panicked with the lock held.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
