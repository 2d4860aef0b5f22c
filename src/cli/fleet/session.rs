//! The session of a `fleet` command: a server, an access token, and how long to retry.

use std::time::Duration;

use super::arguments::{AccessArguments, GivenServer};
use crate::cli::context::Context;
use crate::cli::interrupt::Interrupt;
use crate::cli::report::Reporter;
use crate::cli::selection::file_source;
use crate::cli::{Error, Exit};
use crate::clock::{Clock as _, SystemClock};
use crate::error_chain::chain;
use crate::gitlab::fleet::Fleet;
use crate::gitlab::{self, Answer, Client, Disposition, ErrorKind};
use crate::model::{ServerUrl, Site, Timestamp, TlsFiles, format_span};
use crate::retry::Delays;
use crate::secret::{Source, TokenPurpose};
use crate::settings::{self, Settings};

/// A server, an access token, and how to call the one with the other.
pub(super) struct FleetSession {
    /// The management API.
    pub(super) fleet: Fleet,
    /// The server.
    pub(super) site: Site,
    /// Writes results and remarks.
    pub(super) reporter: Reporter,
    /// The signals that ask the command to end.
    pub(super) interrupt: Interrupt,
    /// The source of the access token.
    pub(super) access_token: Source,
    /// Whether tables may be coloured.
    pub(super) is_coloured: bool,
    /// How long to retry each call.
    pub(super) wait: Duration,
    /// Describes the source of the access token, with its fingerprint.
    origin: String,
}

/// A server without an access token.
pub(super) struct Address {
    /// The server.
    pub(super) site: Site,
    /// The client for its calls.
    pub(super) client: Client,
    settings: Settings,
}

impl Address {
    /// Finds the server's URL and TLS files.
    pub(super) fn of(context: &Context<'_>, arguments: &AccessArguments) -> Result<Self, Error> {
        let settings = context.command_settings()?;
        settings.log_warnings();
        let given = arguments.tls.clone().files(&context.environment);
        let url = server_url(context, arguments.url.clone(), &settings)?;
        let tls = match settings.engine.access_to(&url) {
            Some(server) if given == TlsFiles::default() => server.tls.clone(),
            Some(_) | None => given,
        };
        let client = Client::new(settings.gitlab.clone());
        Ok(Self { site: Site { url, tls }, client, settings })
    }
}

impl FleetSession {
    /// Finds the server and the access token; sends no request.
    ///
    /// # Errors
    /// As [`Address::of`], and if the access token is missing or unreadable.
    pub(super) fn open(
        context: &Context<'_>,
        arguments: &AccessArguments,
        interrupt: Interrupt,
    ) -> Result<Self, Error> {
        let Address { site, client, settings } = Address::of(context, arguments)?;
        let source = access_token(context, arguments, &settings, &site.url)?;
        if let Some(remark) = source.warning() {
            tracing::warn!("{remark}");
        }
        let token = source.read_for(TokenPurpose::Access)?;
        let origin = format!("from {}, with the fingerprint {}", source_text(&source), token.fingerprint());
        Ok(Self {
            fleet: client.fleet(site.clone(), token),
            access_token: source,
            site,
            reporter: *context.reporter,
            interrupt,
            is_coloured: context.reporter.is_stdout_terminal() && context.environment.text("NO_COLOR").is_none(),
            wait: arguments.wait.unwrap_or_default(),
            origin,
        })
    }

    /// This machine's wall clock.
    pub(super) fn now(&self) -> Timestamp {
        SystemClock.read().wall
    }

    /// Makes a read-only call, and retries it while the server is unreachable or busy, for up to `wait`.
    pub(super) async fn ask<T>(&self, call: impl AsyncFnMut() -> Result<T, gitlab::Error>) -> Result<T, Error> {
        self.retried(call, |error| match error.disposition() {
            Disposition::NotExecuted { retry_after } | Disposition::Unknown { retry_after } => {
                Some(retry_after.unwrap_or_default())
            }
            _ => None,
        })
        .await
    }

    /// Makes a changing call, and retries it for up to `wait` while the server certainly did not execute it.
    pub(super) async fn change<T>(
        &self,
        mut call: impl AsyncFnMut() -> Result<Answer<T>, gitlab::Error>,
    ) -> Result<T, Error> {
        let call = async || Ok(call().await?.value);
        self.retried(call, |error| match (error.disposition(), error.kind()) {
            // Something in front of the server refuses this very request.
            (_, ErrorKind::NotGitlab | ErrorKind::UnexpectedStatus) => None,
            (Disposition::NotExecuted { retry_after }, _) => Some(retry_after.unwrap_or_default()),
            _ => None,
        })
        .await
    }

    async fn retried<T>(
        &self,
        mut call: impl AsyncFnMut() -> Result<T, gitlab::Error>,
        wish: impl Fn(&gitlab::Error) -> Option<Duration>,
    ) -> Result<T, Error> {
        let mut delays = Delays::within(self.wait);
        let mut is_first = true;
        loop {
            let error = match call().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let repeatable =
                wish(&error).filter(|_| !matches!(error.kind(), ErrorKind::LocalFile | ErrorKind::ProxySetting));
            // The server may have closed an idle connection; one new connection is tried at once.
            if is_first && repeatable.is_some() && error.kind() == ErrorKind::ConnectionLost {
                is_first = false;
                continue;
            }
            let (Some(wish), Some(delay)) = (repeatable, delays.next()) else { return Err(self.explained(error)) };
            is_first = false;
            let nap = delay.max(wish);
            delays.spent(nap.saturating_sub(delay));
            if wish > self.wait {
                return Err(self.explained(error));
            }
            self.reporter.remark(&format!("retrying in {}: {}", format_span(nap), chain(&error)));
            tokio::select! {
                biased;
                () = self.interrupt.asked() => return Err(Error::Interrupted("waiting for the server".to_owned())),
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    /// Adds the access token's source to an error about that token.
    pub(super) fn explained(&self, error: gitlab::Error) -> Error {
        match error.kind() {
            ErrorKind::AccessTokenRefused | ErrorKind::AccessTokenRights => {
                Error::AccessToken { error, origin: self.origin.clone() }
            }
            _ => error.into(),
        }
    }
}

/// The server of a command: the given one, that of CI_SERVER_URL, or the only one of the settings.
pub(in crate::cli) fn server_url(
    context: &Context<'_>,
    given: Option<GivenServer>,
    settings: &Settings,
) -> Result<ServerUrl, Error> {
    let variable = context.environment.text("CI_SERVER_URL").filter(|_| given.is_none());
    let of_variable = variable.map(|text| text.parse::<GivenServer>()).transpose();
    let of_variable = of_variable.map_err(|error| Error::Usage(format!("CI_SERVER_URL: not a server URL: {error}")))?;
    let place = if of_variable.is_some() { "CI_SERVER_URL" } else { "--url" };
    if let Some(GivenServer { url, is_of_api }) = given.or(of_variable) {
        if is_of_api {
            tracing::warn!("{place}: `/api/v4` is not part of the server URL; {url} is used");
        }
        return Ok(url);
    }
    match settings.engine.servers.as_slice() {
        [only] => Ok(only.url.clone()),
        servers => Err(Error::Usage(format!(
            "no server given: use --url or CI_SERVER_URL; agent.toml has {} [[server]], so none is the default",
            servers.len()
        ))),
    }
}

fn access_token(
    context: &Context<'_>,
    arguments: &AccessArguments,
    settings: &Settings,
    url: &ServerUrl,
) -> Result<Source, Error> {
    if let Some(path) = &arguments.access_token_file {
        return file_source(path, &context.environment);
    }
    if let Some(name) = &arguments.access_token_credential {
        return Ok(settings::credential(name, &context.environment));
    }
    if let Some(source) = settings::access_token(&context.environment)? {
        return Ok(source);
    }
    match settings.engine.access_to(url) {
        Some(access) => Ok(access.access_token.clone()),
        None => Err(Error::Verdict {
            exit: Exit::Usage,
            message: format!("no access token for {url}"),
            hint: Some(
                "use --access-token-file FILE (`-` for stdin, fd:N for a descriptor), --access-token-credential NAME, GITLAB_TOKEN or PRIVATE_TOKEN (or GITLAB_TOKEN_FILE, PRIVATE_TOKEN_FILE), or a [[server]] in agent.toml"
                    .to_owned(),
            ),
        }),
    }
}

/// Describes the source of a token.
fn source_text(source: &Source) -> String {
    match source {
        Source::File(path) => format!("the file `{}`", path.display()),
        Source::Credential { name, .. } => format!("the systemd credential `{name}`"),
        Source::Value { origin, .. } => origin.clone(),
    }
}
