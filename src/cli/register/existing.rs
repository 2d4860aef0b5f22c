//! Whether the runner that is to be registered is there already.

use std::sync::Arc;

use crate::cli::session::CommandSession;
use crate::cli::{Error, Exit};
use crate::engine::{Enrolled, Inventory, ManagedRunner, Related, Relation, relate, taken_keys};
use crate::model::Origin;
use crate::ops::{Enrollment, RegistrationSource, Runner};
use crate::secret::Token;
use crate::store::{Entry, Record, Snapshot};

/// What is known of a runner of this server and name.
#[derive(Debug)]
pub(super) enum Existing {
    /// Nothing.
    None,
    /// An entry without a token, which the registration completes.
    Prepared,
    /// It came of this token.
    Same(Box<ManagedRunner>),
    /// Its entry is gone from config.toml.
    Gone(Box<ManagedRunner>),
    /// It came of another token.
    Other(Box<ManagedRunner>),
    /// It holds the given token itself.
    Given(Box<ManagedRunner>),
    /// Its origin is recorded nowhere.
    Unknown(Box<ManagedRunner>),
}

impl Existing {
    /// Looks it up in state and config.toml, by the same rules as the daemon for an `[[enroll]]`.
    ///
    /// # Errors
    /// [`Error::Usage`] for several runners of this name, and what keeps files from being read.
    pub(super) async fn find(session: &CommandSession, enrollment: &Enrollment) -> Result<Self, Error> {
        let seed = enrollment.source.read()?;
        let (inventory, snapshot) = session.inventory().await?;
        let records = session.ops().disk().records().await.map_err(crate::ops::Error::from)?.records;
        let Related { relation, others } = relate(enrollment, &Enrolled::new(), &records, &snapshot);
        let found = Found { enrollment, seed, inventory, snapshot };
        let runner = match relation {
            Relation::Own(record) | Relation::Recorded(record) => Runner::recorded(record, enrollment.site.clone()),
            Relation::Found(entry) => Runner::found_beside(&entry, |key| taken_keys(&records).contains(key))?,
            Relation::Unusable { line, problem } => {
                return Err(Error::Verdict {
                    exit: Exit::LocalFile,
                    message: format!(
                        "config.toml has a runner of this server and name already, in line {line}: {problem}"
                    ),
                    hint: Some("or use another --name".to_owned()),
                });
            }
            Relation::Taken { .. } | Relation::Nothing(_) => match found.of_given_token(&records) {
                Some(record) => Runner::recorded(record.clone(), enrollment.site.clone()),
                None if found.is_prepared() => return Ok(Self::Prepared),
                None => return Ok(Self::None),
            },
        };
        let runner = found.managed(session, runner).await;
        if others > 0 && !found.holds_token(&runner.runner) {
            return Err(Error::Usage(format!(
                "config.toml has {} runners of the name `{}` at {} already: give each a name of its own in config.toml",
                others + 1,
                enrollment.entry.name,
                enrollment.site.url
            )));
        }
        Ok(found.known(runner))
    }

    /// The runner, if there is one.
    pub(super) fn into_managed(self) -> Option<ManagedRunner> {
        match self {
            Self::None | Self::Prepared => None,
            Self::Same(managed)
            | Self::Gone(managed)
            | Self::Other(managed)
            | Self::Given(managed)
            | Self::Unknown(managed) => Some(*managed),
        }
    }
}

/// What a search works with.
struct Found<'f> {
    enrollment: &'f Enrollment,
    seed: Token,
    inventory: Inventory,
    snapshot: Arc<Snapshot>,
}

impl Found<'_> {
    /// The runner as the inventory has it, or else as it was read: a record without an entry is not managed.
    async fn managed(&self, session: &CommandSession, mut runner: Runner) -> ManagedRunner {
        let is_same = |managed: &&ManagedRunner| {
            managed.runner.record.key == runner.record.key && managed.runner.record.url == runner.record.url
        };
        if let Some(managed) = self.inventory.runners.iter().find(is_same) {
            return ManagedRunner { enrollment: None, ..managed.clone() };
        }
        runner.look_up(&self.snapshot);
        session.ops().load_held(&mut runner).await;
        ManagedRunner { runner, enrollment: None, unfinished: None, twin_of: None }
    }

    /// The record of a runner that was made from this given token and has another one since.
    fn of_given_token<'r>(&self, records: &'r [Record]) -> Option<&'r Record> {
        let is_made_of = |record: &&Record| {
            record.url == self.enrollment.site.url
                && record.origin == Origin::Given
                && record.credential.is_some()
                && record.has_seed(&self.seed)
        };
        records.iter().find(is_made_of).filter(|_| self.is_given())
    }

    /// Whether an entry of this name waits for its token.
    fn is_prepared(&self) -> bool {
        let mut named = self.snapshot.named(&self.enrollment.site.url, &self.enrollment.entry.name);
        named.any(Entry::is_incomplete)
    }

    fn is_given(&self) -> bool {
        matches!(self.enrollment.source, RegistrationSource::Given(_))
    }

    /// Whether a runner holds the given token itself.
    fn holds_token(&self, runner: &Runner) -> bool {
        let target = runner.target();
        let has_token = |token: Option<&Token>| token == Some(&self.seed);
        let mut own = self.snapshot.of(&target);
        self.is_given()
            && (has_token(runner.record.credential.as_ref().map(|credential| &credential.token))
                || own.any(|entry| has_token(entry.token.token())))
    }

    fn known(&self, managed: ManagedRunner) -> Existing {
        let runner = &managed.runner;
        let target = runner.target();
        let has_entry = self.snapshot.of(&target).next().is_some();
        let is_same = runner.record.has_seed(&self.seed);
        let holds_token = self.holds_token(runner);
        let managed = Box::new(managed);
        match managed.runner.record.seed {
            _ if is_same && has_entry => Existing::Same(managed),
            _ if is_same => Existing::Gone(managed),
            _ if holds_token && has_entry => Existing::Given(managed),
            None if !has_entry => Existing::Gone(managed),
            Some(_) if !holds_token => Existing::Other(managed),
            Some(_) | None => Existing::Unknown(managed),
        }
    }
}
