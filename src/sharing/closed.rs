//! A store that cannot be opened yet.

use std::convert::Infallible;

use super::{Engine, Error, Value, Watch};
use crate::model::ShareName;

/// Stands for a store until its secrets can be read. Every act fails with the reason.
#[derive(Debug)]
pub struct Closed {
    engine: &'static str,
    detail: String,
}

impl Closed {
    /// The store that this error is about; `None` if it is not one that may end by itself.
    pub(super) fn by(error: &Error) -> Option<Self> {
        match error {
            Error::Unreadable { engine, detail } => Some(Self { engine, detail: detail.clone() }),
            _ => None,
        }
    }

    pub(super) fn error(&self) -> Error {
        Error::Unreadable { engine: self.engine, detail: self.detail.clone() }
    }
}

impl Engine for Closed {
    type Watch = Infallible;

    fn object(&self, name: &ShareName) -> String {
        format!("the value of `{name}` in {}", self.engine)
    }

    async fn get(&self, _: &ShareName) -> Result<Option<Value>, Error> {
        Err(self.error())
    }

    async fn swap(&self, _: &ShareName, _: Option<&Value>, _: Option<&Value>) -> Result<bool, Error> {
        Err(self.error())
    }

    async fn probe(&self, _: &ShareName) -> Result<(), Error> {
        Err(self.error())
    }

    async fn watch(&self, _: &ShareName) -> Result<Infallible, Error> {
        Err(self.error())
    }
}

impl Watch for Infallible {
    async fn next(&mut self) -> Result<Option<Value>, Error> {
        match *self {}
    }
}
