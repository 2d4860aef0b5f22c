//! The store of the commands of `shared`.

use crate::cli::context::Context;
use crate::cli::interrupt::Interrupt;
use crate::cli::report::Reporter;
use crate::cli::{Error, Exit};
use crate::model::ShareName;
use crate::settings::Settings;
use crate::sharing::{self, AnyEngine, Shares};

/// An open store.
pub(super) struct StoreSession {
    /// The shared runners in it.
    pub(super) shares: Shares<AnyEngine>,
    /// Its engine, as in `[sharing] engine`.
    pub(super) engine: &'static str,
    /// Writes results and remarks.
    pub(super) reporter: Reporter,
    interrupt: Interrupt,
}

impl StoreSession {
    /// Opens the store in the settings; sends nothing.
    pub(super) async fn open(context: &Context<'_>, settings: &Settings, interrupt: Interrupt) -> Result<Self, Error> {
        let Some(sharing) = &settings.engine.sharing else { return Err(no_store()) };
        let shares = sharing::open(sharing).await?;
        Ok(Self { shares, engine: sharing.engine.as_str(), reporter: *context.reporter, interrupt })
    }

    /// Waits for the store, unless a signal comes.
    pub(super) async fn ask<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.interrupt.asked() => Err(Error::Interrupted("waiting for the store".to_owned())),
        }
    }

    /// The signals that ask the command to end.
    pub(super) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }
}

/// There is no `[sharing]`.
pub(super) fn no_store() -> Error {
    Error::Verdict {
        exit: Exit::LocalFile,
        message: "agent.toml has no [sharing], so there is no store of shared runners".to_owned(),
        hint: Some("add [sharing] with the engine and its address, or set SHARING_ENGINE".to_owned()),
    }
}

/// The store has nothing under a name.
pub(super) fn not_there(name: &ShareName, object: &str) -> Error {
    Error::Verdict {
        exit: Exit::Failed,
        message: format!("the store has no shared runner `{name}`: {object} has no value"),
        hint: None,
    }
}
