//! Whether the store of a shared runner can be used, for the commands and passes that end with that.

use crate::model::ShareName;
use crate::ops::{Disk, Error, Ops, Runner, Server};
use crate::sharing;

impl<S: Server, D: Disk> Ops<S, D> {
    /// Reads the store's value, and checks that it is of this runner.
    ///
    /// # Errors
    /// [`Error::NoStore`], [`Error::Sharing`], [`Error::OtherShare`].
    pub async fn check_store(&self, name: &ShareName, runner: &mut Runner) -> Result<(), Error> {
        self.look(name, runner).await
    }

    /// Why the store cannot be used until a person acts. The right to write is tried, too, which the next new token needs. A
    /// command does not wait for a second refusal: a person reads what is missing, and can repeat it. A store that cannot be
    /// reached is no reason.
    pub async fn store_refusal(&self, name: &ShareName, runner: &mut Runner) -> Option<Error> {
        let shares = self.shares()?;
        if !runner.has_asked_store() {
            // What goes wrong is noted.
            let _looked = self.look(name, runner).await;
        }
        if let Some(refusal) = runner.noted_refusal(name, || shares.object(name)) {
            return Some(refusal);
        }
        let is_usable = runner.store.as_ref().is_some_and(|memory| memory.problem.is_none());
        let failed = if is_usable { shares.probe(name).await.err() } else { None };
        failed.filter(|error| !error.is_passing()).map(|error| {
            let refusal = self.trouble(runner, error);
            runner.memory().is_about_writes = true;
            refusal
        })
    }
}

impl Runner {
    /// Whether the log has an error about the present trouble with the store.
    #[must_use]
    pub fn is_store_trouble_said(&self) -> bool {
        self.store.as_ref().is_some_and(|memory| memory.problem.is_some() && memory.is_lasting)
    }

    fn has_asked_store(&self) -> bool {
        self.store.as_ref().is_some_and(|memory| memory.seen.is_some() || memory.problem.is_some())
    }

    fn noted_refusal(&self, name: &ShareName, object: impl FnOnce() -> String) -> Option<Error> {
        let memory = self.store.as_deref()?;
        let label = || self.label().to_owned();
        if let Some(error) = memory.refusal.clone() {
            return Some(Error::Sharing { runner: label(), error });
        }
        let stored = memory.runner()?;
        if self.is_of_another_share(stored) {
            return Some(Error::OtherShare {
                runner: label(),
                name: name.clone(),
                url: stored.url.clone(),
                id: stored.id,
            });
        }
        let detail = "GitLab accepts its token as that of another runner".to_owned();
        let foreign = || sharing::Error::Foreign { object: object(), detail };
        memory.is_anothers.then(|| Error::Sharing { runner: label(), error: foreign() })
    }
}
