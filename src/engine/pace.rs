//! Turns for other tasks within long work.

/// How many runners are looked at in one turn: a millisecond or so.
pub(crate) const RUNNERS_PER_TURN: usize = 128;

/// Lets the other tasks of the thread work now and then, while something is done for each of many runners.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    done: usize,
}

impl Pace {
    /// One more runner is done.
    pub(crate) async fn step(&mut self) {
        self.done += 1;
        if self.done.is_multiple_of(RUNNERS_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
}
