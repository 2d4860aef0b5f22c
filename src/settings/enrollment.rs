//! From what was written about a runner to an enrollment that can be carried out.
//!
//! agent.toml, the environment and the flags of `register` all become a [`Draft`] first, so that they
//! have the same meaning and the same mistakes.

use std::path::PathBuf;
use std::time::Duration;

use super::diagnostics::{Mistake, Mistakes, Place, Placed};
use super::paths::read_text;
use super::{Environment, Errors};
use crate::gitlab::fleet::NewRunnerOwner;
use crate::gitlab::{AccessLevel, Info, ParameterError, RegisterParameters};
use crate::model::{RunnerKey, ServerUrl, Site, Timestamp, TlsFiles};
use crate::ops::{Creation, Enrollment, RegistrationSource, ServerAccess};
use crate::secret::{Source, sha256_hex};
use crate::store::{ComposeError, EntryText, NewEntry};

/// A runner as somebody described it, not yet validated. Paths are absolute, lists are taken apart.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Where it stands as a whole.
    pub place: Place,
    /// What was wrong with it when it was read.
    pub(super) diagnostics: Mistakes,
    /// What ties it to its state; unless given, the name, or else `default`.
    pub key: Option<Placed<String>>,
    /// The local name; unless given, the one it has already, or else the machine's.
    pub name: Option<Placed<String>>,
    /// The server's address; `None` inside for one that was given wrong.
    pub url: Option<Placed<Option<String>>>,
    /// Whether the registration token is for the API of 2016.
    pub is_v1: bool,
    /// Where the registration token is; `None` inside for a place that was given wrong.
    pub registration_token: Option<Placed<Option<Source>>>,
    /// Where a created runner's own token is; `None` inside for a place that was given wrong.
    pub token: Option<Placed<Option<Source>>>,
    /// How it is created with an access token; `None` inside for what was given wrong.
    pub create: Option<Placed<Option<DraftCreation>>>,
    /// The description in GitLab; the name unless given.
    pub description: Option<Placed<String>>,
    /// Its tags.
    pub tag_list: Option<Placed<Vec<String>>>,
    /// Whether it takes jobs without tags; unless given, only if it has no tags.
    pub run_untagged: Option<Placed<bool>>,
    /// Whether it is tied to its project; yes unless given.
    pub locked: Option<Placed<bool>>,
    /// `not_protected` or `ref_protected`.
    pub access_level: Option<Placed<String>>,
    /// The longest a job may take; zero for no limit.
    pub maximum_timeout: Option<Placed<Duration>>,
    /// Whether it starts paused.
    pub paused: Option<Placed<bool>>,
    /// A note for administrators.
    pub maintenance_note: Option<Placed<String>>,
    /// The executor's name.
    pub executor: Option<Placed<String>>,
    /// The shell's name.
    pub shell: Option<Placed<String>>,
    /// Jobs at the same time.
    pub limit: Option<Placed<u32>>,
    /// Requests for jobs at the same time.
    pub request_concurrency: Option<Placed<u32>>,
    /// Longest job log, in KiB.
    pub output_limit: Option<Placed<u32>>,
    /// `tls-ca-file`.
    pub tls_ca_file: Option<Placed<PathBuf>>,
    /// `tls-cert-file`.
    pub tls_cert_file: Option<Placed<PathBuf>>,
    /// `tls-key-file`.
    pub tls_key_file: Option<Placed<PathBuf>>,
    /// A file with exactly one `[[runners]]`.
    pub template: Option<Placed<PathBuf>>,
    /// Other keys of the entry, dotted, with their values as TOML text.
    pub settings: Vec<Placed<(String, String)>>,
}

/// What the API of 2016 can be told about a runner.
const V1_PARAMETERS: [&str; 4] = ["description", "tag_list", "run_untagged", "locked"];

/// How a runner is created with an access token, before it is known which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftCreation {
    /// Whom it belongs to.
    pub owner: NewRunnerOwner,
    /// The access token; that of the server's `[[server]]` unless given.
    pub access_token: Option<Source>,
    /// When its first token ends, where that is wished for.
    pub token_expires_at: Option<Timestamp>,
    /// Until when that token can be rotated, where that is wished for.
    pub token_rotation_deadline: Option<Timestamp>,
}

/// The key of the enrollment that the environment describes.
pub const ENVIRONMENT_KEY: &str = "env";

/// The key of an enrollment in agent.toml that has neither a key nor a name: not the machine's name, because
/// that changes from container to container.
const UNNAMED_KEY: &str = "default";

/// What is collected while drafts are validated.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) diagnostics: Mistakes,
    pub(super) warnings: Vec<String>,
}

/// Validates what the flags of `register` describe; warnings come along.
///
/// Without a key of its own the runner gets one that is the same for the same server and name, so that a
/// second `register` finds the first one's state.
///
/// # Errors
/// [`Errors`] with every mistake that was found.
pub fn enrollment(draft: Draft, environment: &Environment) -> Result<(Enrollment, Vec<String>), Errors> {
    let mut findings = Findings::default();
    let place = draft.place.clone();
    let enrollment = draft.validate(Keyed::ByServerAndName, environment, &[], &mut findings);
    match findings.diagnostics.into_result(enrollment)? {
        Some(enrollment) => Ok((enrollment, findings.warnings)),
        None => Err(Mistake { place, message: "not enough to make a runner of".to_owned() }.into()),
    }
}

/// Validates the runners that the daemon makes exist; no two of them may have the same key.
///
/// `servers` has the access tokens to create runners with.
pub(super) fn enrollments(
    drafts: Vec<Draft>,
    environment: &Environment,
    servers: &[ServerAccess],
    findings: &mut Findings,
) -> Vec<Enrollment> {
    let mut seen: Vec<(String, Place)> = Vec::new();
    let mut enrollments = Vec::new();
    for draft in drafts {
        let (key, place) = (draft.key_word(), draft.key_place());
        match seen.iter().find(|(other, _)| *other == key) {
            Some((_, other)) => findings.diagnostics.add(
                &place,
                format!("the key `{key}` is already that of the enrollment at {other}: set `key` or another `name`"),
            ),
            None => seen.push((key, place)),
        }
        enrollments.extend(draft.validate(Keyed::ByWord, environment, servers, findings));
    }
    enrollments
}

/// How an enrollment without a `key` gets one.
#[derive(Clone, Copy)]
enum Keyed {
    /// Its name is the key.
    ByWord,
    /// Its server and name are hashed.
    ByServerAndName,
}

impl Draft {
    /// A draft in which nothing is given.
    #[must_use]
    pub fn at(place: Place) -> Self {
        Self {
            place,
            diagnostics: Mistakes::default(),
            key: None,
            name: None,
            url: None,
            is_v1: false,
            registration_token: None,
            token: None,
            create: None,
            description: None,
            tag_list: None,
            run_untagged: None,
            locked: None,
            access_level: None,
            maximum_timeout: None,
            paused: None,
            maintenance_note: None,
            executor: None,
            shell: None,
            limit: None,
            request_concurrency: None,
            output_limit: None,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            template: None,
            settings: Vec::new(),
        }
    }

    /// Adds a mistake that was found while it was put together, such as a text that is no token.
    pub fn add_mistake(&mut self, place: &Place, message: impl Into<String>) {
        self.diagnostics.add(place, message);
    }

    /// Fills in from `other` what is not given here. A token source of either kind outweighs both of `other`'s.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.diagnostics.append(other.diagnostics);
        let has_seed = self.registration_token.is_some() || self.token.is_some() || self.create.is_some();
        let (registration_token, token) =
            if has_seed { (self.registration_token, self.token) } else { (other.registration_token, other.token) };
        Self {
            place: self.place,
            diagnostics: self.diagnostics,
            key: self.key.or(other.key),
            create: self.create.or(other.create),
            is_v1: self.is_v1 || other.is_v1,
            name: self.name.or(other.name),
            url: self.url.or(other.url),
            registration_token,
            token,
            description: self.description.or(other.description),
            tag_list: self.tag_list.or(other.tag_list),
            run_untagged: self.run_untagged.or(other.run_untagged),
            locked: self.locked.or(other.locked),
            access_level: self.access_level.or(other.access_level),
            maximum_timeout: self.maximum_timeout.or(other.maximum_timeout),
            paused: self.paused.or(other.paused),
            maintenance_note: self.maintenance_note.or(other.maintenance_note),
            executor: self.executor.or(other.executor),
            shell: self.shell.or(other.shell),
            limit: self.limit.or(other.limit),
            request_concurrency: self.request_concurrency.or(other.request_concurrency),
            output_limit: self.output_limit.or(other.output_limit),
            tls_ca_file: self.tls_ca_file.or(other.tls_ca_file),
            tls_cert_file: self.tls_cert_file.or(other.tls_cert_file),
            tls_key_file: self.tls_key_file.or(other.tls_key_file),
            template: self.template.or(other.template),
            settings: [other.settings, self.settings].concat(),
        }
    }

    fn validate(
        self,
        keyed: Keyed,
        environment: &Environment,
        servers: &[ServerAccess],
        findings: &mut Findings,
    ) -> Option<Enrollment> {
        findings.diagnostics.append(self.diagnostics.clone());
        let name = self.name_or(environment);
        if let Some(given) = &self.name
            && (name.trim().is_empty() || name.chars().any(char::is_control))
        {
            findings.diagnostics.add(&given.place, "a name has at least one letter and no control characters");
        }
        let url = self.server_url(&mut findings.diagnostics);
        let source = self.source(url.as_ref(), servers, &mut findings.diagnostics);
        findings.warnings.extend(source.as_ref().and_then(|source| source.secret().remark()));
        let parameters = self.parameters(&name, &mut findings.diagnostics);
        let parameters = self.only_for_registration(parameters, source.as_ref(), findings);
        let key = self.runner_key(keyed, url.as_ref(), environment, &mut findings.diagnostics);
        let tls = self.tls(&mut findings.diagnostics);
        let template = self.template_text(&mut findings.diagnostics);
        let (key, url, source) = (key?, url?, source?);
        let entry = NewEntry {
            template,
            name,
            url: url.clone(),
            executor: value(&self.executor),
            shell: value(&self.shell),
            limit: value(&self.limit),
            request_concurrency: value(&self.request_concurrency),
            output_limit: value(&self.output_limit),
            tls: tls.clone(),
            settings: self.settings.iter().map(|setting| setting.value.clone()).collect(),
        };
        self.check_entry(&entry, &mut findings.diagnostics);
        Some(Enrollment { key, site: Site { url, tls }, source, parameters, entry })
    }

    fn name_or(&self, environment: &Environment) -> String {
        let remembered = || environment.names.get(&self.key_word()).unwrap_or(&environment.hostname);
        value(&self.name).unwrap_or_else(|| remembered().clone())
    }

    fn key_word(&self) -> String {
        value(&self.key).or_else(|| value(&self.name)).unwrap_or_else(|| UNNAMED_KEY.to_owned())
    }

    fn key_place(&self) -> Place {
        self.key.as_ref().or(self.name.as_ref()).map_or(&self.place, |placed| &placed.place).clone()
    }

    fn runner_key(
        &self,
        keyed: Keyed,
        url: Option<&ServerUrl>,
        environment: &Environment,
        diagnostics: &mut Mistakes,
    ) -> Option<RunnerKey> {
        let word = match (keyed, url) {
            (Keyed::ByServerAndName, url) if self.key.is_none() => {
                let identity = format!("{}\n{}", url?, self.name_or(environment));
                format!("register-{}", &sha256_hex(identity.as_bytes())[..12])
            }
            (Keyed::ByServerAndName | Keyed::ByWord, _) => self.key_word(),
        };
        let hint = if self.key.is_none() { ": set `key`, because the name cannot be one" } else { "" };
        RunnerKey::enrollment(&word)
            .inspect_err(|error| diagnostics.add(&self.key_place(), format!("`{word}` is no key: {error}{hint}")))
            .ok()
    }

    fn server_url(&self, diagnostics: &mut Mistakes) -> Option<ServerUrl> {
        let Some(url) = &self.url else {
            diagnostics.add(&self.place, format!("the server's address is missing: set {}", self.words().url));
            return None;
        };
        let parsed = url.value.as_ref()?.parse();
        parsed.inspect_err(|error| diagnostics.add(&url.place, format!("not a server's address: {error}"))).ok()
    }

    fn source(
        &self,
        url: Option<&ServerUrl>,
        servers: &[ServerAccess],
        diagnostics: &mut Mistakes,
    ) -> Option<RegistrationSource> {
        let words = self.words();
        if let Some(create) = &self.create {
            if let Some(other) = place(&self.registration_token).or(place(&self.token)) {
                diagnostics.add(other, "a runner that is created needs no token: set either `create` or a token");
                return None;
            }
            return creation(create, url, servers, diagnostics).map(RegistrationSource::Created);
        }
        match (&self.registration_token, &self.token) {
            (Some(_), Some(token)) => {
                let message = format!("two token sources: set either {} or {}", words.registration_token, words.token);
                diagnostics.add(&token.place, message);
                None
            }
            (None, Some(token)) if self.is_v1 => {
                diagnostics.add(
                    &token.place,
                    format!("the API v1 knows no created runners: set {} instead", words.registration_token),
                );
                None
            }
            (None, Some(token)) => token.value.clone().map(RegistrationSource::Given),
            (Some(token), None) if self.is_v1 => token.value.clone().map(RegistrationSource::V1),
            (Some(token), None) => token.value.clone().map(registration_seed),
            (None, None) => {
                let or_create = if matches!(self.place, Place::Line { .. }) { ", or `create`" } else { "" };
                let message =
                    format!("no token source: set {} or {}{or_create}", words.registration_token, words.token);
                diagnostics.add(&self.place, message);
                None
            }
        }
    }

    fn parameters(&self, name: &str, diagnostics: &mut Mistakes) -> RegisterParameters {
        let tag_list = value(&self.tag_list).unwrap_or_default();
        let parameters = RegisterParameters {
            description: value(&self.description).or_else(|| Some(name.to_owned())),
            maintenance_note: value(&self.maintenance_note).filter(|note| !note.is_empty()),
            run_untagged: Some(value(&self.run_untagged).unwrap_or(tag_list.is_empty())),
            tag_list,
            locked: Some(value(&self.locked).unwrap_or(true)),
            paused: value(&self.paused),
            access_level: self.access_level(diagnostics),
            maximum_timeout: value(&self.maximum_timeout).filter(|timeout| !timeout.is_zero()),
            info: None,
        };
        for error in parameters.validate() {
            diagnostics.add(self.place_of(&error), error.to_string());
        }
        parameters
    }

    fn access_level(&self, diagnostics: &mut Mistakes) -> Option<AccessLevel> {
        let word = self.access_level.as_ref().filter(|word| !word.value.is_empty())?;
        let levels = [AccessLevel::NotProtected, AccessLevel::RefProtected];
        let level = levels.into_iter().find(|level| level.as_str() == word.value);
        if level.is_none() {
            let message = format!("`{}` is no access level: use not_protected or ref_protected", word.value);
            diagnostics.add(&word.place, message);
        }
        level
    }

    fn place_of(&self, error: &ParameterError) -> &Place {
        let place = match error {
            ParameterError::DescriptionTooLong(_) => place(&self.description).or(place(&self.name)),
            ParameterError::MaintenanceNoteTooLong(_) => place(&self.maintenance_note),
            ParameterError::TooManyTags(_)
            | ParameterError::EmptyTag
            | ParameterError::TagTooLong(_)
            | ParameterError::TagWithComma(_) => place(&self.tag_list),
            ParameterError::NoTags => place(&self.run_untagged),
            ParameterError::MaximumTimeoutTooShort(_) => place(&self.maximum_timeout),
            ParameterError::NameTooLong(_) => None,
        };
        place.unwrap_or(&self.place)
    }

    /// A created runner has its parameters from GitLab's page: saying them here is a mistake, or, where a
    /// created runner's token stands in for a registration token as gitlab-runner allows it, for nothing.
    fn only_for_registration(
        &self,
        parameters: RegisterParameters,
        source: Option<&RegistrationSource>,
        findings: &mut Findings,
    ) -> RegisterParameters {
        let given = self.server_parameters();
        match source {
            Some(RegistrationSource::Given(_)) => {}
            Some(RegistrationSource::V1(_)) => {
                for (word, place) in given.into_iter().filter(|(word, _)| !V1_PARAMETERS.contains(word)) {
                    findings.diagnostics.add(place, format!("the API v1 has no `{word}`"));
                }
                return parameters;
            }
            Some(RegistrationSource::Registration(_) | RegistrationSource::Created(_)) | None => return parameters,
        }
        if self.token.is_some() {
            for (word, place) in given {
                findings
                    .diagnostics
                    .add(place, format!("`{word}` is for a registration token: a created runner has it set in GitLab"));
            }
        } else if !given.is_empty() {
            let words: Vec<_> = given.iter().map(|(word, _)| *word).collect();
            let place = place(&self.registration_token).unwrap_or(&self.place);
            findings.warnings.push(format!(
                "{place}: this is a created runner's own token, so {} are set in GitLab and ignored here",
                words.join(", ")
            ));
        }
        RegisterParameters::default()
    }

    fn server_parameters(&self) -> Vec<(&'static str, &Place)> {
        [
            ("description", place(&self.description)),
            ("tag_list", place(&self.tag_list)),
            ("run_untagged", place(&self.run_untagged)),
            ("locked", place(&self.locked)),
            ("access_level", place(&self.access_level)),
            ("maximum_timeout", place(&self.maximum_timeout)),
            ("paused", place(&self.paused)),
            ("maintenance_note", place(&self.maintenance_note)),
        ]
        .into_iter()
        .filter_map(|(word, place)| Some((word, place?)))
        .collect()
    }

    fn tls(&self, diagnostics: &mut Mistakes) -> TlsFiles {
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(certificate), None) => {
                diagnostics.add(&certificate.place, "a client certificate needs its key file too")
            }
            (None, Some(key)) => diagnostics.add(&key.place, "a client key needs its certificate file too"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        TlsFiles {
            ca_file: value(&self.tls_ca_file),
            cert_file: value(&self.tls_cert_file),
            key_file: value(&self.tls_key_file),
        }
    }

    fn template_text(&self, diagnostics: &mut Mistakes) -> Option<String> {
        let template = self.template.as_ref()?;
        let text = read_text(&template.value);
        text.inspect_err(|error| {
            diagnostics
                .add(&template.place, format!("cannot read the template `{}`: {error}", template.value.display()));
        })
        .ok()
    }

    /// Tries each setting alone, the template alone, and only if all are right, both together.
    fn check_entry(&self, entry: &NewEntry, diagnostics: &mut Mistakes) {
        let before = diagnostics.len();
        for setting in &self.settings {
            let alone = NewEntry { template: None, settings: vec![setting.value.clone()], ..entry.clone() };
            self.check_text(&alone, Some(&setting.place), diagnostics);
        }
        if self.template.is_some() && entry.template.is_some() {
            let alone = NewEntry { settings: Vec::new(), ..entry.clone() };
            self.check_text(&alone, place(&self.template), diagnostics);
        }
        if diagnostics.len() == before && !self.settings.is_empty() {
            self.check_text(entry, self.settings.first().map(|setting| &setting.place), diagnostics);
        }
    }

    fn check_text(&self, entry: &NewEntry, place: Option<&Place>, diagnostics: &mut Mistakes) {
        let Err(error) = EntryText::compose(entry) else { return };
        diagnostics.add(place.unwrap_or(&self.place), self.explain(&error));
    }

    fn explain(&self, error: &ComposeError) -> String {
        let template = self.template.as_ref().map(|template| template.value.display());
        match (error, template) {
            (ComposeError::Syntax { .. } | ComposeError::EntryCount(_), Some(template)) => {
                format!("`{template}`: {error}")
            }
            (
                ComposeError::Syntax { .. }
                | ComposeError::EntryCount(_)
                | ComposeError::SettingKey(_)
                | ComposeError::SettingValue(_)
                | ComposeError::SettingReserved(_)
                | ComposeError::SettingConflict(_),
                _,
            ) => error.to_string(),
        }
    }

    fn words(&self) -> Words {
        match self.place {
            Place::Line { .. } | Place::File(_) => {
                Words { url: "`url`", registration_token: "`registration_token`", token: "`token`" }
            }
            Place::Variable(_) => {
                Words { url: "CI_SERVER_URL", registration_token: "REGISTRATION_TOKEN", token: "CI_SERVER_TOKEN" }
            }
            Place::Flag(_) => Words { url: "--url", registration_token: "--registration-token", token: "--token" },
        }
    }
}

/// The access token that a runner is created with.
fn creation(
    create: &Placed<Option<DraftCreation>>,
    url: Option<&ServerUrl>,
    servers: &[ServerAccess],
    diagnostics: &mut Mistakes,
) -> Option<Creation> {
    let DraftCreation { owner, access_token, token_expires_at, token_rotation_deadline } = create.value.clone()?;
    let of_server = |url: &ServerUrl| servers.iter().find(|server| server.url == *url);
    let access_token = match (access_token, url) {
        (Some(source), _) => source,
        (None, url) => match of_server(url?) {
            Some(server) => server.access_token.clone(),
            None => {
                let message = format!("`create` needs a [[server]] for {} with an access token", url?);
                diagnostics.add(&create.place, message);
                return None;
            }
        },
    };
    Some(Creation { access_token, owner, token_expires_at, token_rotation_deadline })
}

/// What things are called where a draft was written.
struct Words {
    url: &'static str,
    registration_token: &'static str,
    token: &'static str,
}

/// A registration token, unless it is a created runner's own. What cannot be read now is taken for what
/// it was called; whoever needs it will say why it cannot be read.
fn registration_seed(source: Source) -> RegistrationSource {
    match source.read() {
        Ok(token) if token.looks_created() => RegistrationSource::Given(source),
        Ok(_) | Err(_) => RegistrationSource::Registration(source),
    }
}

/// What runners of this program tell about themselves.
#[must_use]
pub fn this_program() -> Info {
    Info {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: None,
        platform: std::env::consts::OS.to_owned(),
        architecture: architecture().to_owned(),
    }
}

/// The processor in Go's words, which GitLab's pages show.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn value<T: Clone>(field: &Option<Placed<T>>) -> Option<T> {
    field.as_ref().map(|placed| placed.value.clone())
}

fn place<T>(field: &Option<Placed<T>>) -> Option<&Place> {
    field.as_ref().map(|placed| &placed.place)
}
