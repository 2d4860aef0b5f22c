//! Whether the runner that is to be registered is there already.

use crate::cli::selection::Candidate;
use crate::cli::session::CommandSession;
use crate::cli::{Error, Exit};
use crate::engine::ManagedRunner;
use crate::ops::{Enrollment, RegistrationSource, Runner};
use crate::secret::{Fingerprint, Token};
use crate::store::Record;

/// What is known of a runner of this server and name.
#[derive(Debug)]
pub(super) enum Existing {
    /// Nothing.
    None,
    /// It came of this token.
    Same(Runner),
    /// It came of this token, but its entry is gone from config.toml.
    Gone(Runner),
    /// It came of another token.
    Other(Runner),
    /// An entry that holds the given token itself.
    Given(Runner),
    /// An entry whose origin no record tells.
    Unknown(Runner),
}

impl Existing {
    /// Looks it up in state and config.toml.
    ///
    /// # Errors
    /// [`Error::Usage`] for several runners of this name, and what keeps files from being read.
    pub(super) async fn find(session: &CommandSession, enrollment: &Enrollment) -> Result<Self, Error> {
        let seed = enrollment.source.secret().read()?;
        let mut candidates = session.candidates().await?;
        if matches!(enrollment.source, RegistrationSource::Given(_))
            && let Some(position) = candidates.iter().position(|candidate| holds(candidate, enrollment, &seed))
        {
            let Candidate { runner, .. } = candidates.swap_remove(position);
            let Ok(ManagedRunner { runner, .. }) = runner else { return Ok(Self::None) };
            let is_known = runner.record.seed == Some(seed.fingerprint());
            return Ok(if is_known { Self::Same(runner) } else { Self::Given(runner) });
        }
        candidates.retain(|candidate| is_named_so(candidate, enrollment));
        match (candidates.pop(), candidates.len()) {
            (None, _) => {
                let record = session.ops().disk().record(&enrollment.key).await.map_err(crate::ops::Error::from)?;
                Ok(record.and_then(|record| gone(record, enrollment, &seed)).unwrap_or(Self::None))
            }
            (Some(candidate), 0) => of_candidate(candidate, &seed.fingerprint()),
            (Some(_), others) => Err(Error::Usage(format!(
                "config.toml has {} runners of the name `{}` at {} already: use --name",
                others + 1,
                enrollment.entry.name,
                enrollment.site.url
            ))),
        }
    }

    /// The runner, if there is one.
    pub(super) fn into_runner(self, otherwise: Runner) -> Runner {
        match self {
            Self::None => otherwise,
            Self::Same(runner)
            | Self::Gone(runner)
            | Self::Other(runner)
            | Self::Given(runner)
            | Self::Unknown(runner) => runner,
        }
    }
}

/// Whether this is the given runner, under whatever name.
fn holds(candidate: &Candidate, enrollment: &Enrollment, seed: &Token) -> bool {
    let url = Some(&enrollment.site.url);
    let has_entry =
        candidate.entries.iter().any(|entry| entry.url.as_ref() == url && entry.token.token() == Some(seed));
    let record = candidate.record();
    let is_recorded = record.is_some_and(|record| {
        Some(&record.url) == url
            && (record.seed == Some(seed.fingerprint())
                || record.credential.as_ref().is_some_and(|credential| credential.token == *seed))
    });
    has_entry || is_recorded
}

fn is_named_so(candidate: &Candidate, enrollment: &Enrollment) -> bool {
    let (url, name) = (&enrollment.site.url, &enrollment.entry.name);
    let mut entries = candidate.entries.iter();
    let record = candidate.record();
    entries.any(|entry| entry.url.as_ref() == Some(url) && entry.name.as_ref() == Some(name))
        || candidate.entries.is_empty()
            && record.is_some_and(|record| record.url == *url && record.name.as_ref() == Some(name))
}

fn of_candidate(candidate: Candidate, seed: &Fingerprint) -> Result<Existing, Error> {
    let has_entry = !candidate.entries.is_empty();
    let line = candidate.entries.first().map(|entry| entry.line).unwrap_or_default();
    let ManagedRunner { runner, .. } = candidate.runner.map_err(|problem| Error::Verdict {
        exit: Exit::LocalFile,
        message: format!("config.toml has a runner of this server and name already, in line {line}: {problem}"),
        hint: Some("or use another --name".to_owned()),
    })?;
    Ok(match &runner.record.seed {
        Some(known) if known == seed && !has_entry => Existing::Gone(runner),
        Some(known) if known == seed => Existing::Same(runner),
        Some(_) => Existing::Other(runner),
        None => Existing::Unknown(runner),
    })
}

/// A record that still holds a token although there is no entry; of another token it does not count.
fn gone(record: Record, enrollment: &Enrollment, seed: &Token) -> Option<Existing> {
    record.credential.as_ref()?;
    (record.seed == Some(seed.fingerprint())).then(|| Existing::Gone(Runner::recorded(record, enrollment.site.clone())))
}
