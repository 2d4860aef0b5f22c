//! The requests whose answer is the only copy of a secret: registrations and resets.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::watch;

/// Counts the registrations and resets that are under way, and lets no more of them begin once the process stops.
///
/// One that is under way must not be cut: the answer is the only place that ever shows the new token. Clones share one
/// count.
#[derive(Clone, Debug)]
pub struct SoleCopies(Rc<watch::Sender<Count>>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    under_way: usize,
    /// Those whose request was sent and whose token is not stored.
    exposed: usize,
    is_closed: bool,
}

/// A registration or reset that is under way, from before its request until its token is stored.
#[derive(Debug)]
pub(super) struct SoleCopy {
    copies: SoleCopies,
    is_exposed: Cell<bool>,
}

impl SoleCopies {
    /// Lets no more of them begin.
    pub fn close(&self) {
        self.0.send_modify(|count| count.is_closed = true);
    }

    /// Completes once no more of them may begin. Cancel safe.
    pub async fn closed(&self) {
        let mut count = self.0.subscribe();
        // The sender is in `self`, so the wait cannot fail.
        let _closed = count.wait_for(|count| count.is_closed).await;
    }

    /// How many are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.0.borrow().under_way
    }

    /// How many tokens would be lost if the process was killed now: the request for each was sent, and its answer, if there
    /// is one, is in memory alone.
    #[must_use]
    pub fn exposed(&self) -> usize {
        self.0.borrow().exposed
    }

    /// Waits until none is under way. Cancel safe.
    pub async fn finished(&self) {
        let mut count = self.0.subscribe();
        // The sender is in `self`, so the wait cannot fail.
        let _none = count.wait_for(|count| count.under_way == 0).await;
    }

    /// Begins one; `None` once the process stops.
    pub(super) fn begin(&self) -> Option<SoleCopy> {
        let is_open = !self.0.borrow().is_closed;
        is_open.then(|| {
            self.0.send_modify(|count| count.under_way += 1);
            SoleCopy { copies: self.clone(), is_exposed: Cell::new(false) }
        })
    }
}

impl SoleCopy {
    /// Its request is about to be sent.
    pub(super) fn sends(&self) {
        self.set_exposed(true);
    }

    /// Its token is stored, though perhaps not yet where it belongs.
    pub(super) fn is_safe(&self) {
        self.set_exposed(false);
    }

    fn set_exposed(&self, is_exposed: bool) {
        match (self.is_exposed.replace(is_exposed), is_exposed) {
            (false, true) => self.copies.0.send_modify(|count| count.exposed += 1),
            (true, false) => self.copies.0.send_modify(|count| count.exposed -= 1),
            (true, true) | (false, false) => {}
        }
    }
}

impl Default for SoleCopies {
    fn default() -> Self {
        Self(Rc::new(watch::channel(Count::default()).0))
    }
}

impl Drop for SoleCopy {
    fn drop(&mut self) {
        self.set_exposed(false);
        self.copies.0.send_modify(|count| count.under_way -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn none_begins_after_the_end_and_those_under_way_are_awaited() {
        let copies = SoleCopies::default();
        let (first, second) = (copies.begin().unwrap(), copies.begin().unwrap());
        copies.close();
        assert!(copies.begin().is_none());
        drop(first);
        assert_eq!(copies.under_way(), 1);
        let (_, ()) = tokio::join!(async { drop(second) }, copies.finished());
        assert_eq!(copies.under_way(), 0);
    }
}
