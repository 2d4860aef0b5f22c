//! Signals that ask a one-shot command to end.

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::report::Reporter;
use crate::signals::{Signal, Signals};

/// Counts signals. A command decides where it can end: operations in progress finish first, so that no token is
/// lost.
#[derive(Clone, Debug)]
pub(super) struct Interrupt {
    count: watch::Receiver<u32>,
}

/// Stops counting when dropped.
#[derive(Debug)]
pub(super) struct Counting(AbortHandle);

impl Interrupt {
    /// Starts counting in a local task. QUIT and HUP, which a closed terminal sends, count too.
    pub(super) fn count(mut signals: Signals, reporter: Reporter) -> (Self, Counting) {
        let (sender, count) = watch::channel(0);
        let task = tokio::task::spawn_local(async move {
            loop {
                match signals.next().await {
                    Signal::Terminate | Signal::Interrupt | Signal::Quit | Signal::Hangup => {}
                }
                sender.send_modify(|count| *count += 1);
                if *sender.borrow() == 1 {
                    reporter.remark("interrupted: finishing operations in progress; a second signal ends at once");
                }
            }
        });
        (Self { count }, Counting(task.abort_handle()))
    }

    /// Whether a signal has come.
    pub(super) fn is_interrupted(&self) -> bool {
        *self.count.borrow() > 0
    }

    /// Completes at the first signal.
    pub(super) async fn asked(&self) {
        self.reached(1).await;
    }

    /// Completes at the second signal.
    pub(super) async fn interrupted_twice(&self) {
        self.reached(2).await;
    }

    async fn reached(&self, times: u32) {
        if self.count.clone().wait_for(|count| *count >= times).await.is_err() {
            // The counting has stopped: no signal can come.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.abort();
    }
}
