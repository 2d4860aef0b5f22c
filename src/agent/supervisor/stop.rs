//! The end of the daemon: what is under way may finish, then the runners are unregistered, all within the
//! grace time.

use std::rc::Rc;

use tokio::time::{Instant, timeout_at};

use super::super::shutdown::Farewell;
use super::super::worker::{Mail, Patience};
use super::super::{Notice, Notices, OnReboot};
use super::{Ending, Farewells, Supervisor};
use crate::clock::Clock;
use crate::ops::{Disk, Server};

impl<S, D, C> Supervisor<S, D, C>
where
    S: Server + 'static,
    D: Disk + 'static,
    C: Clock + 'static,
{
    pub(super) fn ending_at_reboot(&self) -> Ending {
        match self.config.shutdown.on_reboot {
            OnReboot::Keep => Ending::Keep,
            OnReboot::Unregister => Ending::ByPolicy,
        }
    }

    /// Stops planning, lets what is under way finish, and unregisters each runner as its worker ends.
    pub(super) async fn stop(mut self, ending: Ending, notices: &mut Notices) -> Farewells {
        let deadline = Instant::now() + self.config.shutdown.grace;
        tracing::info!(unregister = ending == Ending::ByPolicy, "stopping");
        self.tell(&Mail::Stop);
        if ending == Ending::Keep {
            self.patience.send_replace(Patience::GiveUpVerify);
        }
        let pulse = self.pulse.clone();
        tokio::select! {
            biased;
            farewells = self.wind_up(ending, deadline) => farewells,
            () = pulse.keep_beating() => Farewells::Unfinished,
            () = second(notices) => {
                tracing::warn!("told to stop a second time: the next start finishes what was begun");
                Farewells::Unfinished
            }
        }
    }

    /// Half of the grace time is for everything that is under way, the rest only for what changes something.
    async fn wind_up(&mut self, ending: Ending, deadline: Instant) -> Farewells {
        let mut farewell = Farewell::new(Rc::clone(&self.shared), Rc::clone(&self.config));
        let patient_until = deadline - self.config.shutdown.grace / 2;
        for until in [patient_until, deadline] {
            while let Ok(Some(ended)) = timeout_at(until, self.workers.join_next()).await {
                match ended {
                    Ok(leftover) if ending == Ending::ByPolicy => farewell.bid(leftover),
                    Ok(_) | Err(_) => {}
                }
            }
            self.patience.send_replace(Patience::GiveUpVerify);
        }
        let is_late = timeout_at(deadline, farewell.finish()).await.is_err();
        if is_late || !self.workers.is_empty() {
            tracing::error!(
                unfinished = self.workers.len() + farewell.under_way(),
                "the grace time is over while requests were under way: the next start finishes what was begun"
            );
            return Farewells::Unfinished;
        }
        if farewell.failures() > 0 { Farewells::Unfinished } else { Farewells::Done }
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
