//! What a store has to offer.

use std::fmt;

use zeroize::Zeroizing;

use super::Error;
use crate::model::ShareName;

/// A value as the store has it. It may contain a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Zeroizing<Vec<u8>>);

impl Value {
    /// A value of these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes; for the store only.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Value({} bytes)", self.0.len())
    }
}

/// A store of one value per name.
#[expect(async_fn_in_trait, reason = "one thread runs everything")]
pub trait Engine {
    /// Changes of one value.
    type Watch: Watch;

    /// The object that holds the value, for messages: its kind and name.
    fn object(&self, name: &ShareName) -> String;

    /// Reads a value as a majority of the store has it. `None` if there is no object, or one without data.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Unauthenticated`], [`Error::Denied`], [`Error::Answer`].
    async fn get(&self, name: &ShareName) -> Result<Option<Value>, Error>;

    /// Replaces a value if the store has `expected`; `None` is no value. Returns whether it did.
    ///
    /// A swap whose answer was lost can be executed later, but never after another swap: no two values have the same bytes,
    /// and a value that was removed leaves its object, with the revision of the removal. A swap from no value is compared with
    /// that revision, so a late one fails after another machine has created and removed a value. Only a person who deletes
    /// the object itself, or restores the store, can undo that; GitLab is asked about each token in the store before it is
    /// used.
    ///
    /// # Errors
    /// As [`Engine::get`], and [`Error::Unknown`] if it may have been replaced, now or later.
    async fn swap(&self, name: &ShareName, expected: Option<&Value>, value: Option<&Value>) -> Result<bool, Error>;

    /// Tries whether [`Engine::swap`] would be allowed. Changes nothing.
    ///
    /// # Errors
    /// As [`Engine::get`].
    async fn probe(&self, name: &ShareName) -> Result<(), Error>;

    /// Watches a value from now on. A change that comes after this call has returned is reported.
    ///
    /// # Errors
    /// As [`Engine::get`].
    async fn watch(&self, name: &ShareName) -> Result<Self::Watch, Error>;
}

/// Changes of one value, in the order in which they were made; some may be left out.
///
/// A server that is paused reports nothing and ends nothing: the value is to be read now and then all the same.
#[expect(async_fn_in_trait, reason = "one thread runs everything")]
pub trait Watch {
    /// Waits for the next value. `None` says that the value was removed.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    /// The watch has ended: the value is to be read again, and watched anew.
    async fn next(&mut self) -> Result<Option<Value>, Error>;
}
