//! The end of the daemon: what is under way may finish, then the runners are unregistered, all within the
//! grace time.

use std::rc::Rc;

use tokio::time::{Instant, timeout_at};

use super::super::shutdown::Farewell;
use super::super::worker::{DrainMode, RunnerCommand};
use super::super::{Notice, Notices};
use super::{ShutdownOutcome, StopMode, Supervisor};
use crate::clock::Clock;
use crate::engine::OnReboot;
use crate::ops::{Disk, Server};

impl<S, D, C> Supervisor<S, D, C>
where
    S: Server + 'static,
    D: Disk + 'static,
    C: Clock + 'static,
{
    pub(super) fn ending_at_reboot(&self) -> StopMode {
        match self.config.shutdown.on_reboot {
            OnReboot::Keep => StopMode::Keep,
            OnReboot::Unregister => StopMode::ByPolicy,
        }
    }

    /// Stops planning, lets what is under way finish, and unregisters each runner as its worker ends.
    pub(super) async fn stop(mut self, mode: StopMode, notices: &mut Notices) -> ShutdownOutcome {
        let deadline = Instant::now() + self.config.shutdown.grace;
        tracing::info!(unregister = mode == StopMode::ByPolicy, "stopping");
        self.tell(&RunnerCommand::Stop);
        if mode == StopMode::Keep {
            self.drain_mode.send_replace(DrainMode::GiveUpVerify);
        }
        let heartbeat = self.heartbeat.clone();
        tokio::select! {
            biased;
            outcome = self.wind_up(mode, deadline) => outcome,
            () = heartbeat.keep_beating() => ShutdownOutcome::Unfinished,
            () = second(notices) => {
                tracing::warn!("told to stop a second time: the next start finishes what was begun");
                ShutdownOutcome::Unfinished
            }
        }
    }

    /// Half of the grace time is for everything that is under way, the rest only for what changes something.
    async fn wind_up(&mut self, mode: StopMode, deadline: Instant) -> ShutdownOutcome {
        let mut farewell = Farewell::new(Rc::clone(&self.shared), Rc::clone(&self.config));
        let patient_until = deadline - self.config.shutdown.grace / 2;
        for until in [patient_until, deadline] {
            while let Ok(Some(ended)) = timeout_at(until, self.workers.join_next()).await {
                match ended {
                    Ok(exit) if mode == StopMode::ByPolicy => farewell.bid(exit),
                    Ok(_) | Err(_) => {}
                }
            }
            self.drain_mode.send_replace(DrainMode::GiveUpVerify);
        }
        let is_late = timeout_at(deadline, farewell.finish()).await.is_err();
        if is_late || !self.workers.is_empty() {
            tracing::error!(
                unfinished = self.workers.len() + farewell.under_way(),
                "the grace time is over while requests were under way: the next start finishes what was begun"
            );
            return ShutdownOutcome::Unfinished;
        }
        if farewell.failures() > 0 { ShutdownOutcome::Unfinished } else { ShutdownOutcome::Done }
    }
}

/// Completes with the next notice to stop.
async fn second(notices: &mut Notices) {
    loop {
        match notices.recv().await {
            Some(Notice::Stop | Notice::StopAndKeep | Notice::StopForReboot) => return,
            Some(Notice::Reload) => {}
            None => std::future::pending().await,
        }
    }
}
