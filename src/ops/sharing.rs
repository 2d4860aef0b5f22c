//! A runner that many machines share: the store is read before a token is asked about, and told of each new one.
//!
//! Every machine runs the same operations. What is done about a difference between store and machine is decided in
//! `lifecycle::sharing`; here it is done, under the runner's lock. A token in the store is a candidate like any other one:
//! a verification follows it once GitLab accepts it. In detail:
//!
//! - **before a verification**: read the store · write what GitLab has given us and the store lacks · keep the store's token.
//! - **after it**: write our token if the store's is dead · clear a pending change that has no effect any more · join.
//! - **rotate**: swap the pending change in · the reset, as for any other runner · swap the new token in.
//! - **register**: the same, unless the store has a token: then that one is taken, as one that a person has given.
//!
//! A store that cannot be reached stops no verification. It stops resets, registrations and recoveries.

mod change;
mod compare;
mod examine;
mod heal;
mod join;
mod memory;
mod report;
mod written;

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Disk, Enrollment, Error, Ops, Runner, Server};
use crate::lifecycle::sharing as rules;
use crate::model::{Origin, Sender, ShareName, SharedRunner};
use crate::sharing::{self, AnyEngine, Shares, Swapped};

pub(super) use memory::StoreMemory;
pub use written::Written;

/// How often a write is tried that other machines get before.
const CONTESTED_WRITES: u32 = 5;

/// Whether a change can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The store says that this machine sends it.
    Done,
    /// Store and machine are to be compared first, or another machine changes the runner.
    NotNow,
    /// No known token is accepted, and the store does not show why.
    NoReason,
}

/// How a machine comes to a shared runner.
#[derive(Debug)]
pub enum SharedStart {
    /// The store has it: it is taken like a given one.
    Take {
        /// The enrollment with the store's token.
        enrollment: Box<Enrollment>,
        /// Whether the token is rotated before it is used: the machine that was the last one may be deleting the runner.
        must_rotate: bool,
    },
    /// This machine makes it.
    Register,
    /// Another machine makes it.
    Wait,
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Sets the store of shared runners.
    pub fn share_in(&self, shares: Option<Shares<AnyEngine>>) {
        *self.sharing.borrow_mut() = shares.map(Rc::new);
    }

    /// The store of shared runners, if there is one.
    #[must_use]
    pub fn shares(&self) -> Option<Rc<Shares<AnyEngine>>> {
        self.sharing.borrow().clone()
    }

    fn store_of(&self, runner: &Runner) -> Result<Rc<Shares<AnyEngine>>, Error> {
        self.shares().ok_or_else(|| Error::NoStore(runner.label().to_owned()))
    }

    fn sender(&self) -> Sender {
        Sender { machine: self.identity.system_id.clone(), boot: self.boot }
    }

    /// Reads the store.
    async fn look(&self, name: &ShareName, runner: &mut Runner) -> Result<(), Error> {
        let shares = self.store_of(runner)?;
        runner.memory().name = Some(name.clone());
        let asked = Instant::now();
        match shares.read(name).await {
            Ok(stored) => {
                runner.see(stored.map(Box::new), asked);
                self.check_share(name, runner)
            }
            Err(error) => Err(self.trouble(runner, error)),
        }
    }

    /// Reads the store before something is done that no swap fences. Returns whether it has answered.
    pub async fn read_again(&self, name: &ShareName, runner: &mut Runner) -> bool {
        // A value of another runner is an answer.
        matches!(self.look(name, runner).await, Ok(()) | Err(Error::OtherShare { .. }))
    }

    /// Reads the store, unless its watch has reported a value just now: then a rotation costs no machine a read. A swap tells
    /// whether that is still the value.
    async fn look_if_old(&self, name: &ShareName, runner: &mut Runner) -> Result<(), Error> {
        let is_new = |memory: &StoreMemory| {
            memory.problem.is_none() && memory.as_of.is_some_and(|as_of| as_of.elapsed() < rules::FRESH)
        };
        let is_known = runner.store.as_ref().is_some_and(|memory| memory.name.as_ref() == Some(name) && is_new(memory));
        if is_known { self.check_share(name, runner) } else { self.look(name, runner).await }
    }

    fn pending_wait(&self, left: Option<Duration>) -> Duration {
        rules::pending_wait(self.server.request_timeout(), left)
    }

    /// A value that is of another runner or server is neither used nor overwritten.
    fn check_share(&self, name: &ShareName, runner: &mut Runner) -> Result<(), Error> {
        let Some(stored) = runner.stored_runner() else { return Ok(()) };
        if !runner.is_of_another_share(stored) {
            return Ok(());
        }
        let (url, id) = (stored.url.clone(), stored.id);
        let error = Error::OtherShare { runner: runner.label().to_owned(), name: name.clone(), url, id };
        let text = error.to_string();
        runner.memory().is_lasting = true;
        if runner.memory().problem.replace(text.clone()).as_ref() != Some(&text) {
            let hint = error.hint();
            tracing::error!(runner = runner.label(), share = %name, hint, "{text}");
        }
        Err(error)
    }

    fn trouble(&self, runner: &mut Runner, error: sharing::Error) -> Error {
        runner.note_store_failure(&error);
        Error::Sharing { runner: runner.label().to_owned(), error }
    }

    /// Puts a changed value into the store. Returns whether it is there; the store is read again otherwise.
    async fn swap_shared(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        change: impl FnOnce(&mut SharedRunner),
    ) -> Result<bool, Error> {
        let shares = self.store_of(runner)?;
        let expected = runner.stored().cloned();
        // A value that was lost comes back as it was.
        let origin = runner.record.shared.as_ref().and_then(|shared| shared.origin).unwrap_or(Origin::Given);
        let none = || SharedRunner::new(runner.record.url.clone(), origin);
        let mut next = expected.as_ref().map_or_else(none, |stored| stored.runner.clone());
        change(&mut next);
        let former = expected.as_ref().map(|stored| &stored.runner);
        let written = Written::between(former, &next, self.system_id());
        if written.is_some() {
            next.changed_by = Some(self.system_id().clone());
        }
        let asked = Instant::now();
        match shares.swap(name, expected.as_ref(), next).await {
            Ok(Swapped::Done(stored)) => {
                let memory = runner.memory();
                memory.is_about_writes = false;
                memory.written = written.or(memory.written.take());
                runner.see(Some(stored), asked);
                Ok(true)
            }
            Ok(Swapped::Lost) => {
                self.look(name, runner).await?;
                Ok(false)
            }
            Err(error) => {
                let is_about_writes = !error.is_passing();
                let error = self.trouble(runner, error);
                runner.memory().is_about_writes = is_about_writes;
                Err(error)
            }
        }
    }
}
