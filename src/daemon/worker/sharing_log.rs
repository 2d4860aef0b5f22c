//! What the log says about the token of a shared runner: a line for each that is new here or in the store.

use super::Worker;
use crate::clock::Clock;
use crate::engine::StepReport;
use crate::lifecycle::{Outcome, Step};
use crate::model::{Link, RunnerId, SharedChange, SharingReport, SystemId};
use crate::ops::{Disk, Server, Written};

/// Where a token has come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// This machine has registered the runner for all.
    Registered,
    /// It has found the runner in the store.
    Taken,
    /// It has reset the token.
    Rotated,
    /// It has reset the token by the runner's id.
    Recovered,
    /// Another machine has brought the token, and this one follows.
    Followed,
    /// It has written its token over another one, or into a store that had none.
    Replaced(Option<Link>),
}

impl News {
    /// The news of a step. `link` is the token on this machine, `said` the one that the log has, and `is_stored` whether the
    /// store has the former.
    fn of(
        report: &StepReport,
        link: Link,
        said: Option<Link>,
        is_stored: bool,
        written: Option<Written>,
    ) -> Option<Self> {
        let is_new = said != Some(link);
        let change = written.and_then(|written| written.change);
        let is_registration =
            report.outcomes.iter().any(|it| matches!(it, Outcome::Registered(_) | Outcome::Adopted(_)));
        let is_reset = report.outcomes.iter().any(|it| matches!(it, Outcome::Rotated(_)));
        match (change, written) {
            _ if is_new && is_reset && report.step == Step::ResetById => Some(Self::Recovered),
            _ if is_new && is_reset => Some(Self::Rotated),
            (Some(SharedChange::Register), _) if is_new => Some(Self::Registered),
            // The store was told late: of a registration or reset that the log has.
            (Some(_), _) if !is_new => None,
            (Some(SharedChange::ResetById), _) => Some(Self::Recovered),
            (Some(_), _) => Some(Self::Rotated),
            (None, Some(Written { former, .. })) => Some(Self::Replaced(former)),
            (None, None) if !is_new => None,
            (None, None) if report.step == Step::Register && is_registration => {
                Some(if is_stored { Self::Taken } else { Self::Registered })
            }
            (None, None) if is_stored => Some(Self::Followed),
            // One that was found elsewhere is not in the store yet.
            (None, None) => None,
        }
    }
}

impl<S: Server, D: Disk, C: Clock> Worker<S, D, C> {
    /// Logs what a step has changed of a shared runner's token. Returns whether it did; nothing else is to be said then.
    pub(super) fn log_sharing(&mut self, report: &StepReport) -> bool {
        let written = self.driver.runner.take_written();
        let said = self.said;
        let Some(link) = self.driver.runner.shared_link() else { return false };
        let is_stored = self.driver.runner.is_link_in_store();
        let Some(news) = News::of(report, link, said, is_stored, written) else { return false };
        self.said = Some(link);
        let Some(SharingReport { share, engine, generation, members, .. }) = self.driver.sharing() else {
            return false;
        };
        let driver = &self.driver;
        let record = &driver.runner.record;
        let (runner, id) = (driver.runner.label(), record.id.map(RunnerId::number));
        let (share, engine) = (share.as_str(), engine.as_deref());
        let ops = &self.shared.engine.ops;
        let own = (ops.system_id().as_str(), Some(ops.host()));
        let stored = driver.runner.changed_by().map(|(machine, host): (&SystemId, _)| (machine.as_str(), host));
        let (machine, host) = match news {
            News::Taken | News::Followed => stored.map_or((None, None), |(machine, host)| (Some(machine), host)),
            News::Registered | News::Rotated | News::Recovered | News::Replaced(_) => (Some(own.0), own.1),
        };
        let id = id.filter(|_| matches!(news, News::Registered | News::Taken));
        let credential = record.credential.as_ref();
        let expires_at = credential
            .filter(|_| matches!(news, News::Rotated | News::Recovered | News::Followed))
            .and_then(|it| it.expiry.at())
            .map(|at| at.to_string());
        let token = credential
            .filter(|_| matches!(news, News::Followed | News::Replaced(_)))
            .map(|credential| credential.token.fingerprint().to_string());
        let (text, former) = match news {
            News::Registered => ("registered the shared runner", None),
            News::Taken => ("took the shared runner from the store", None),
            News::Rotated => ("rotated the token of the shared runner", None),
            News::Recovered => ("recovered: the token of the shared runner was reset with the access token", None),
            News::Followed => ("following the store's token of the shared runner", None),
            News::Replaced(Some(former)) => (
                "wrote this machine's token over the store's, which the server does not accept",
                Some(former.generation),
            ),
            News::Replaced(None) => ("wrote this machine's token into the store, which had none", None),
        };
        macro_rules! say {
            ($level:ident) => {
                tracing::$level!(
                    runner, id, share, engine, generation, former, machine, host, members, token, expires_at, "{text}"
                )
            };
        }
        if matches!(news, News::Recovered) {
            say!(warn)
        } else {
            say!(info)
        }
        true
    }
}
