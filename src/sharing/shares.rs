//! Shared runners in a store.

use super::closed::Closed;
use super::wire::Wire;
use super::{AnyEngine, Engine, Error, MAX_VALUE_BYTES, Value, Watch};
use crate::model::{ShareName, SharedRunner};
use crate::secret::{Digest, SealingKey};

/// The shared runners of a store.
#[derive(Debug)]
pub struct Shares<E> {
    engine: E,
    key: Option<SealingKey>,
    /// The secrets that it was opened with.
    secrets: Option<Digest>,
}

/// A shared runner as it was read or written, with what it takes to replace it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The runner.
    pub runner: SharedRunner,
    value: Value,
}

/// What stands under a name.
#[derive(Debug)]
pub struct Found {
    /// The runner, or why it is none that this machine can read.
    pub runner: Result<SharedRunner, Error>,
    value: Value,
}

impl Found {
    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.value.expose().len()
    }
}

#[cfg(test)]
impl Stored {
    pub(super) fn value(&self) -> Value {
        self.value.clone()
    }
}

/// What came of a swap.
#[derive(Debug)]
pub enum Swapped {
    /// The store has the new value.
    Done(Box<Stored>),
    /// It has another value than expected: it is to be read again.
    Lost,
}

impl Shares<AnyEngine> {
    pub(super) fn opened(engine: AnyEngine, key: Option<SealingKey>, secrets: Digest) -> Self {
        Self { engine, key, secrets: Some(secrets) }
    }

    /// What stands for a store whose secrets cannot be read yet, by the error of [`open`](super::open). Every act fails with
    /// that.
    ///
    /// # Errors
    /// Any other error, which does not end by itself.
    pub fn closed(error: Error) -> Result<Self, Error> {
        match Closed::by(&error) {
            Some(closed) => Ok(Self::new(AnyEngine::Closed(closed), None)),
            None => Err(error),
        }
    }

    /// Why it cannot be used, if it stands for a store that is not open.
    #[must_use]
    pub fn closed_by(&self) -> Option<Error> {
        match &self.engine {
            AnyEngine::Closed(closed) => Some(closed.error()),
            #[cfg(feature = "etcd")]
            AnyEngine::Etcd(_) => None,
            #[cfg(feature = "kubernetes")]
            AnyEngine::Kubernetes(_) => None,
            #[cfg(test)]
            AnyEngine::Memory(_) => None,
        }
    }

    /// Whether it was opened with these secrets.
    pub(super) fn has(&self, secrets: Digest) -> bool {
        self.secrets == Some(secrets)
    }
}

impl<E: Engine> Shares<E> {
    /// The runners in this store. Their tokens are sealed with the key.
    pub fn new(engine: E, key: Option<SealingKey>) -> Self {
        Self { engine, key, secrets: None }
    }

    /// Whether tokens are sealed: a value that can be read was written by a machine that has the key.
    pub fn is_sealed(&self) -> bool {
        self.key.is_some()
    }

    /// The object that holds a runner, for messages.
    pub fn object(&self, name: &ShareName) -> String {
        self.engine.object(name)
    }

    /// Reads a runner; `None` if the store has none by that name.
    ///
    /// # Errors
    /// As [`Engine::get`], and [`Error::Foreign`], [`Error::Sealed`] and [`Error::Unsealed`].
    pub async fn read(&self, name: &ShareName) -> Result<Option<Stored>, Error> {
        let value = self.engine.get(name).await?;
        value.map(|value| self.stored(name, value)).transpose()
    }

    /// Replaces a runner, if the store still has what was read. `None` is no runner: one that was never written, and one
    /// that is removed.
    ///
    /// # Errors
    /// As [`Engine::swap`], and [`Error::TooLarge`]. After [`Error::Unknown`] the store was read again, and still had what
    /// was expected: the write can be executed for as long as it has that, or has it again.
    pub async fn swap(
        &self,
        name: &ShareName,
        expected: Option<&Stored>,
        runner: SharedRunner,
    ) -> Result<Swapped, Error> {
        let object = || self.engine.object(name);
        let value =
            Wire::of(&runner, name, self.key.as_ref()).map_err(|detail| Error::Foreign { object: object(), detail })?;
        let bytes = value.expose().len();
        if bytes > MAX_VALUE_BYTES {
            return Err(Error::TooLarge { object: object(), bytes });
        }
        let expected = expected.map(|stored| &stored.value);
        let done = |value| Swapped::Done(Box::new(Stored { runner, value }));
        match self.engine.swap(name, expected, Some(&value)).await {
            Ok(true) => Ok(done(value)),
            // A proxy may have sent it twice: the first one was executed.
            Ok(false) => match self.engine.get(name).await? {
                Some(found) if found == value => Ok(done(value)),
                Some(_) | None => Ok(Swapped::Lost),
            },
            Err(unknown @ Error::Unknown { .. }) => match self.engine.get(name).await {
                Ok(found) if found.as_ref() == Some(&value) => Ok(done(value)),
                // Whatever is under way now finds another value.
                Ok(found) if found.as_ref() != expected => Ok(Swapped::Lost),
                Ok(_) | Err(_) => Err(unknown),
            },
            Err(error) => Err(error),
        }
    }

    /// Removes a runner that was read. Returns whether the store still had it.
    ///
    /// # Errors
    /// As [`Engine::swap`].
    pub async fn remove(&self, name: &ShareName, expected: &Stored) -> Result<bool, Error> {
        self.remove_value(name, &expected.value).await
    }

    async fn remove_value(&self, name: &ShareName, expected: &Value) -> Result<bool, Error> {
        match self.engine.swap(name, Some(expected), None).await {
            Err(unknown @ Error::Unknown { .. }) => match self.engine.get(name).await {
                Ok(None) => Ok(true),
                Ok(Some(found)) if found != *expected => Ok(false),
                Ok(Some(_)) | Err(_) => Err(unknown),
            },
            // Another member may have removed it by the same request.
            Ok(false) => Ok(self.engine.get(name).await?.is_none()),
            removed => removed,
        }
    }

    /// Reads whatever is there by that name, also what is no runner: for a person, and to remove it.
    ///
    /// # Errors
    /// As [`Engine::get`].
    pub async fn find(&self, name: &ShareName) -> Result<Option<Found>, Error> {
        let Some(value) = self.engine.get(name).await? else { return Ok(None) };
        let runner = self.stored(name, value.clone()).map(|stored| stored.runner);
        Ok(Some(Found { runner, value }))
    }

    /// Removes what was found. Returns whether the store still had it.
    ///
    /// # Errors
    /// As [`Engine::swap`].
    pub async fn remove_found(&self, name: &ShareName, found: &Found) -> Result<bool, Error> {
        self.remove_value(name, &found.value).await
    }

    /// Tries whether a swap would be allowed. Changes nothing.
    ///
    /// # Errors
    /// As [`Engine::get`].
    pub async fn probe(&self, name: &ShareName) -> Result<(), Error> {
        self.engine.probe(name).await
    }

    /// Watches a runner from now on.
    ///
    /// # Errors
    /// As [`Engine::get`].
    pub async fn watch(&self, name: &ShareName) -> Result<E::Watch, Error> {
        self.engine.watch(name).await
    }

    /// Waits for the next change of a watched runner; `None` if it was removed.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    /// As [`Watch::next`] and [`Shares::read`].
    pub async fn next(&self, name: &ShareName, watch: &mut E::Watch) -> Result<Option<Stored>, Error> {
        let value = watch.next().await?;
        value.map(|value| self.stored(name, value)).transpose()
    }

    fn stored(&self, name: &ShareName, value: Value) -> Result<Stored, Error> {
        let runner =
            Wire::read(&value, name, self.key.as_ref()).map_err(|problem| problem.of(self.engine.object(name)))?;
        Ok(Stored { runner, value })
    }
}
