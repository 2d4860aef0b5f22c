//! TERM and INT while a one-shot command works.

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::report::Reporter;
use crate::signals::{Signal, Signals};

/// Counts the signals that ask for an end. A command decides itself where it can end: what is under way
/// is finished first, so that no token is lost.
#[derive(Clone, Debug)]
pub(super) struct Interrupt {
    count: watch::Receiver<u32>,
}

/// Ends the counting when it is dropped.
#[derive(Debug)]
pub(super) struct Counting(AbortHandle);

impl Interrupt {
    /// Starts counting, on the local tasks of the caller. QUIT asks for an end too; HUP, as from a
    /// terminal that was closed, does.
    pub(super) fn count(mut signals: Signals, reporter: Reporter) -> (Self, Counting) {
        let (sender, count) = watch::channel(0);
        let task = tokio::task::spawn_local(async move {
            loop {
                match signals.next().await {
                    Signal::Terminate | Signal::Interrupt | Signal::Quit | Signal::Hangup => {}
                }
                sender.send_modify(|count| *count += 1);
                if *sender.borrow() == 1 {
                    reporter.remark("interrupted: finishing what is under way, a second signal ends at once");
                }
            }
        });
        (Self { count }, Counting(task.abort_handle()))
    }

    /// Whether an end was asked for.
    pub(super) fn is_asked(&self) -> bool {
        *self.count.borrow() > 0
    }

    /// Completes once an end was asked for.
    pub(super) async fn asked(&self) {
        self.reached(1).await;
    }

    /// Completes once an end was asked for a second time.
    pub(super) async fn insisted(&self) {
        self.reached(2).await;
    }

    async fn reached(&self, times: u32) {
        if self.count.clone().wait_for(|count| *count >= times).await.is_err() {
            // Nobody counts any more, so nobody asks.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.abort();
    }
}
