//! `unregister`: removes runners from the server and from config.toml.

use std::rc::Rc;

use super::arguments::{Api, UnregisterArguments};
use super::context::Context;
use super::interrupt::Interrupt;
use super::outcome::{RunnerOutcome, of_runner};
use super::selection::RunnerSelector;
use super::session::CommandSession;
use super::{Error, Exit};
use crate::model::{Action, Credential, Expiry, Origin, RunnerKey, RunnerReport, ServerUrl, Site, StateName, TlsFiles};
use crate::ops::{EntryFate, Runner, Unfinished, Unregistration};
use crate::secret::Token;

/// Unregisters those that are selected. What is under way is finished before an interrupt ends it; a second
/// one ends it at once, and the journal lets the next command or start finish.
pub(super) async fn unregister(
    context: &Context<'_>,
    arguments: UnregisterArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    if arguments.selection.is_empty() && !arguments.all_runners {
        return Err(Error::Usage("say which runners: --name, --url, --id, --token, or --all-runners".to_owned()));
    }
    let tls = tls_files(context, &arguments);
    let api = arguments.api;
    let wanted = RunnerSelector::new(arguments.selection, &context.environment)?;
    let work = async {
        let session = CommandSession::open(context, interrupt.clone()).await?;
        if let Some((url, token)) = wanted.without_entry()
            && wanted.choose(session.candidates().await?).is_err()
        {
            let reporter = session.reporter;
            let told = unregister_one(Rc::new(session), through(api, stranger(url, token, tls)), None).await;
            return Ok(reporter.report_outcomes(vec![told]));
        }
        session
            .for_all(&wanted, |session, runner, unfinished| unregister_one(session, through(api, runner), unfinished))
            .await
    };
    tokio::select! {
        biased;
        () = interrupt.insisted() => Err(Error::Interrupted("what was begun is finished by the next command".to_owned())),
        result = work => result,
    }
}

/// A runner that has no entry.
fn stranger(url: ServerUrl, token: Token, tls: TlsFiles) -> Runner {
    let key = RunnerKey::found(&url, None, &token.fingerprint());
    let origin = if token.looks_created() { Origin::Given } else { Origin::Registered };
    let mut runner = Runner::blank(key, origin, Site { url, tls });
    runner.record.credential = Some(Credential { token, obtained_at: None, expiry: Expiry::Unknown });
    runner
}

/// The same runner, made through the API that the user names.
fn through(api: Option<Api>, mut runner: Runner) -> Runner {
    runner.record.origin = match (api, runner.record.origin) {
        (Some(Api::V1), Origin::Registered) => Origin::V1,
        (Some(Api::V4), Origin::V1) => Origin::Registered,
        (_, origin) => origin,
    };
    runner
}

fn tls_files(context: &Context<'_>, arguments: &UnregisterArguments) -> TlsFiles {
    let file = |flag: &Option<std::path::PathBuf>, variable: &str| {
        let path = flag.clone().or_else(|| context.environment.text(variable).map(Into::into));
        path.map(|path| context.environment.absolute(&path))
    };
    TlsFiles {
        ca_file: file(&arguments.tls.tls_ca_file, "CI_SERVER_TLS_CA_FILE"),
        cert_file: file(&arguments.tls.tls_cert_file, "CI_SERVER_TLS_CERT_FILE"),
        key_file: file(&arguments.tls.tls_key_file, "CI_SERVER_TLS_KEY_FILE"),
    }
}

async fn unregister_one(
    session: Rc<CommandSession>,
    mut runner: Runner,
    unfinished: Option<Unfinished>,
) -> RunnerOutcome {
    if session.interrupt.is_asked() {
        let error = Error::Interrupted("not begun".to_owned());
        return RunnerOutcome::failed(of_runner(&runner, session.now()), Action::Failed, "not unregistered", &error);
    }
    if unfinished == Some(Unfinished::Unsaved) {
        // The record holds the token that counts; the journal would keep the deletion from beginning.
        if let Err(error) = session.ops.settle(&mut runner).await {
            return RunnerOutcome::failed(
                of_runner(&runner, session.now()),
                Action::Failed,
                "not unregistered",
                &error.into(),
            );
        }
    }
    let before = of_runner(&runner, session.now());
    let is_enrolled = session.config.enrollments.iter().any(|enrollment| enrollment.key == runner.record.key);
    match session.ops.unregister(&mut runner, EntryFate::Drop, session.now()).await {
        Ok(found) => {
            // Whose reset was lost is refused for that reason.
            let is_doubtful = unfinished == Some(Unfinished::LostReset) && found == Unregistration::AlreadyGone;
            let found = if is_doubtful { Unregistration::MayRemain } else { found };
            let report = RunnerReport { state: StateName::Retired, ..before };
            done(&runner, report, found, is_enrolled)
        }
        Err(error) => {
            let error = Error::from(error);
            let action = if error.exit() == Exit::Refused { Action::Refused } else { Action::Failed };
            RunnerOutcome::failed(before, action, "not unregistered", &error)
        }
    }
}

fn done(runner: &Runner, report: RunnerReport, found: Unregistration, is_enrolled: bool) -> RunnerOutcome {
    let kept = match &runner.dropped_to {
        Some(path) => format!("; its entry is kept in {}", path.display()),
        None => String::new(),
    };
    let (action, line) = match (found, runner.record.origin) {
        (Unregistration::Deleted, Origin::Given) => {
            (Action::Unregistered, "this machine's runner manager is deleted, the runner itself remains in GitLab")
        }
        (Unregistration::Deleted, Origin::Registered | Origin::V1) => (Action::Unregistered, "unregistered"),
        (Unregistration::AlreadyGone, _) => (Action::AlreadyGone, "was already gone"),
        (Unregistration::MayRemain, _) => (Action::MayRemain, "its token is not accepted any more"),
    };
    let mut told = RunnerOutcome::done(report, action, format!("{line}{kept}"));
    told.hint = match found {
        Unregistration::MayRemain => Some("the runner may remain in GitLab: delete it there".to_owned()),
        Unregistration::Deleted | Unregistration::AlreadyGone if is_enrolled => {
            Some("agent.toml enrolls it: the daemon registers it again at its next start".to_owned())
        }
        Unregistration::Deleted | Unregistration::AlreadyGone => None,
    };
    told
}
