//! Which access tokens a command is about, and what it works with.

use std::path::{Path, PathBuf};

use super::arguments::TokenArguments;
use crate::cli::context::{Context, until_signal};
use crate::cli::fleet::server_url;
use crate::cli::interrupt::Interrupt;
use crate::cli::report::Reporter;
use crate::cli::selection::file_source;
use crate::cli::{Error, Exit};
use crate::engine::{self, access_report};
use crate::files::Place;
use crate::gitlab::Client;
use crate::lifecycle::AccessKeeping;
use crate::model::{AccessTokenReport, ServerUrl};
use crate::ops::{AccessKeeper, AccessPass, AccessUses, ServerAccess, SoleCopies, StoredAccessToken};
use crate::secret::Source;
use crate::settings::Settings;
use crate::store::{self, AskedBy, Store};

/// An access token that a command is about.
pub(super) struct KeptToken {
    /// The token, and how the settings let the agent keep it.
    pub(super) access: ServerAccess,
    /// The file without symbolic links if agent.toml does not name it, and none if it is no file.
    apart: Option<Option<PathBuf>>,
}

/// What a command works with.
pub(super) struct KeptSession {
    /// The access tokens of the command.
    pub(super) tokens: Vec<KeptToken>,
    /// Asks for an end.
    pub(super) interrupt: Interrupt,
    /// Where answers and remarks go.
    pub(super) reporter: Reporter,
    /// The answers that must not be cut.
    pub(super) copies: SoleCopies,
    /// The disk.
    pub(super) store: Store,
    config: engine::Config,
    client: Client,
}

/// Keeps a token of this command.
pub(super) type Keeper = AccessKeeper<Client, StoredAccessToken>;

impl KeptSession {
    /// Finds the tokens; sends no request.
    ///
    /// # Errors
    /// [`Error::Usage`] if the settings have no such token, and those of files.
    pub(super) fn open(context: &Context<'_>, arguments: TokenArguments, interrupt: Interrupt) -> Result<Self, Error> {
        let settings = context.command_settings()?;
        settings.log_warnings();
        let tokens = chosen(context, arguments, &settings)?;
        let Settings { mut store, gitlab, engine: config, .. } = settings;
        let is_on_disk = tokens.iter().any(|token| !matches!(token.apart, Some(None)));
        let store = if is_on_disk {
            context.open_store(store)?
        } else {
            // Nothing is kept about a token from a pipe.
            store.state_root = None;
            let path = store.config_path.clone();
            until_signal(&path, move || Store::open(store))??
        };
        let (copies, client) = (SoleCopies::default(), Client::new(gitlab));
        Ok(Self { tokens, interrupt, reporter: *context.reporter, copies, store, config, client })
    }

    /// A keeper of a token, by these rules.
    pub(super) fn keeper(&self, token: &KeptToken, keeping: AccessKeeping) -> Keeper {
        let access = ServerAccess { keeping, ..token.access.clone() };
        let store = self.store.clone();
        let disk = match &token.apart {
            None => StoredAccessToken::of(store, &access),
            Some(path) => StoredAccessToken::apart(store, &access, path.as_deref()),
        };
        let uses = AccessUses::default();
        AccessKeeper::new(self.client.clone(), disk, access, AskedBy::Command, (self.copies.clone(), uses))
    }

    /// The report about a token after a pass.
    pub(super) fn report(&self, token: &KeptToken, pass: &AccessPass) -> AccessTokenReport {
        match token.apart {
            None => self.config.access_report(&token.access, pass),
            // The settings need no scopes of it.
            Some(_) => access_report(&token.access, pass, &[]),
        }
    }
}

/// The tokens that a command line names; all of the settings without a server and a file.
fn chosen(context: &Context<'_>, arguments: TokenArguments, settings: &Settings) -> Result<Vec<KeptToken>, Error> {
    let TokenArguments { server, url, access_token_file, tls, wait: _ } = arguments;
    let (given, servers) = (server.or(url), &settings.engine.servers);
    let of_settings = |access: &ServerAccess| KeptToken { access: access.clone(), apart: None };
    let Some(path) = access_token_file else {
        return match given {
            Some(given) => match settings.engine.access_to(&given.url) {
                Some(access) => Ok(vec![of_settings(access)]),
                None => Err(not_in_settings(&given.url, servers)),
            },
            None if servers.is_empty() => Err(Error::Verdict {
                exit: Exit::Usage,
                message: "agent.toml has no [[server]] with an access token".to_owned(),
                hint: Some("add one, or use --url URL with --access-token-file FILE".to_owned()),
            }),
            None => Ok(servers.iter().map(of_settings).collect()),
        };
    };
    let url = server_url(context, given, settings)?;
    let source = file_source(&path, &context.environment)?;
    let known = settings.engine.access_to(&url);
    let place = match &source {
        Source::File(path) => Some(resolved(path)?),
        Source::Credential { .. } | Source::Value { .. } => None,
    };
    if let Some((known, place)) = known.zip(place.as_ref())
        && let Source::File(path) = &known.access_token
        && resolved(path)? == *place
    {
        return Ok(vec![of_settings(known)]);
    }
    if let Some(remark) = source.warning() {
        tracing::warn!("{remark}");
    }
    let given_tls = tls.files(&context.environment);
    let tls = known.filter(|_| given_tls == Default::default()).map_or(given_tls, |known| known.tls.clone());
    let access = ServerAccess { url, access_token: source, tls, keeping: AccessKeeping::default() };
    Ok(vec![KeptToken { access, apart: Some(place) }])
}

/// The path without symbolic links; as it is if a directory of it is missing, which is reported once the file is used.
pub(super) fn resolved(path: &Path) -> Result<PathBuf, Error> {
    let named = path.to_owned();
    let found = until_signal(path, move || {
        Ok::<_, store::Error>(Place::find(&named).map(|place| place.path().to_owned()).ok())
    })??;
    Ok(found.unwrap_or_else(|| path.to_owned()))
}

fn not_in_settings(url: &ServerUrl, servers: &[ServerAccess]) -> Error {
    let known: Vec<_> = servers.iter().map(|server| server.url.as_str()).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Error::Usage(format!(
        "agent.toml has no [[server]] with the URL {url} (it has: {known}): correct it, or name the token's file with --access-token-file"
    ))
}
