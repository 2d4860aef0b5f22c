//! Validates a [`Draft`] into an [`Enrollment`].

use std::path::PathBuf;

use super::diagnostics::{Diagnostic, Diagnostics, Place, Placed};
use super::draft::{Draft, DraftCreation, check_client_pair};
use super::entry::EntryStrictness;
use super::sharing::{SharingRules, check_names};
use super::{Environment, Errors};
use crate::gitlab::{AccessLevel, Info, ParameterError, RegisterParameters};
use crate::model::{RunnerKey, ServerUrl, ShareName, Site, TlsFiles};
use crate::ops::{Creation, Enrollment, RegistrationSource, ServerAccess};
use crate::secret::{Source, sha256_hex};
use crate::store::NewEntry;

/// The parameters that API v1 accepts.
const V1_PARAMETERS: [&str; 4] = ["description", "tag_list", "run_untagged", "locked"];

/// Key of the enrollment from the environment.
pub const ENVIRONMENT_KEY: &str = "env";

/// Key of an enrollment in agent.toml without key and name. Not the hostname, which differs in each container.
const UNNAMED_KEY: &str = "default";

/// Errors and warnings collected during validation.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) diagnostics: Diagnostics,
    pub(super) warnings: Vec<String>,
    /// The template files that enrollments name.
    pub(super) templates: Vec<PathBuf>,
    /// The lines of the enrollments in agent.toml.
    pub(super) lines: Vec<(RunnerKey, usize)>,
}

/// Validates the draft of a `register` command; returns warnings too.
///
/// A draft without a key gets one derived from server and name, so a second `register` finds the state of the
/// first.
///
/// # Errors
/// [`Errors`] with all errors in the draft.
pub fn enrollment(draft: Draft, environment: &Environment) -> Result<(Enrollment, Vec<String>), Errors> {
    let mut findings = Findings::default();
    let place = draft.place.clone();
    let enrollment = draft.validate(KeyRule::ServerAndName, environment, &[], &mut findings);
    match findings.diagnostics.into_result(enrollment)? {
        Some(enrollment) => Ok((enrollment, findings.warnings)),
        None => Err(Diagnostic::new(place, "the description of the runner is incomplete").into()),
    }
}

/// Validates the daemon's enrollments, and checks that no two of them mean the same state or the same runner.
///
/// `servers` provides the access tokens for creating runners.
pub(super) fn enrollments(
    drafts: Vec<Draft>,
    environment: &Environment,
    servers: &[ServerAccess],
    sharing: &SharingRules<'_>,
    findings: &mut Findings,
) -> Vec<Enrollment> {
    let mut shared = Vec::new();
    let mut keys: Vec<(String, Place)> = Vec::new();
    let mut enrollments: Vec<(Enrollment, Place)> = Vec::new();
    for draft in drafts {
        let (key, place) = (draft.key_or_name(), draft.key_place());
        let is_new = match keys.iter().find(|(other, _)| *other == key) {
            Some((_, other)) => {
                findings.diagnostics.add(
                    &place,
                    format!("the enrollment at {other} has the key `{key}` too: set `key`, or another `name`"),
                );
                false
            }
            None => true,
        };
        let name_place = draft.name.as_ref().map_or(&draft.place, |name| &name.place).clone();
        let share_place = draft.share_as.as_ref().map(|name| name.place.clone());
        let line = match &draft.place {
            Place::Line { line, .. } => Some(*line),
            Place::File(_) | Place::Variable(_) | Place::Flag(_) => None,
        };
        let Some(enrollment) = draft.validate(KeyRule::Name, environment, servers, findings) else {
            keys.push((key, place));
            continue;
        };
        if is_new {
            check_runner(&enrollment, &name_place, &enrollments, &mut findings.diagnostics);
            keys.push((key, place));
        }
        if let (Some(name), Some(place)) = (&enrollment.share_as, share_place) {
            sharing.check(&enrollment, &place, &mut findings.diagnostics);
            shared.push((name.clone(), place));
        }
        findings.lines.extend(line.map(|line| (enrollment.key.clone(), line)));
        enrollments.push((enrollment, name_place));
    }
    check_names(&shared, &mut findings.diagnostics);
    enrollments.into_iter().map(|(enrollment, _)| enrollment).collect()
}

/// Reports an enrollment that means the same entry, or the same given token, as an earlier one.
fn check_runner(
    enrollment: &Enrollment,
    place: &Place,
    earlier: &[(Enrollment, Place)],
    diagnostics: &mut Diagnostics,
) {
    let is_of_server = |(other, _): &&(Enrollment, Place)| other.site.url == enrollment.site.url;
    for (other, other_place) in earlier.iter().filter(is_of_server) {
        if other.entry.name == enrollment.entry.name {
            let message = format!(
                "the enrollment at {other_place} has the name `{}` at {} too, and both would serve the same entry: set another `name`",
                enrollment.entry.name, enrollment.site.url
            );
            return diagnostics.add(place, message);
        }
        if let (RegistrationSource::Given(source), RegistrationSource::Given(others)) =
            (&enrollment.source, &other.source)
            && source == others
        {
            let message = format!("the enrollment at {other_place} has the same `token` too: remove one of them");
            return diagnostics.add(place, message);
        }
    }
}

/// The key of an enrollment without `key`.
#[derive(Clone, Copy)]
enum KeyRule {
    /// The name.
    Name,
    /// A hash of server and name.
    ServerAndName,
}

impl Draft {
    fn validate(
        self,
        key_rule: KeyRule,
        environment: &Environment,
        servers: &[ServerAccess],
        findings: &mut Findings,
    ) -> Option<Enrollment> {
        findings.diagnostics.append(self.diagnostics.clone());
        let name = self.name_or(environment);
        if let Some(given) = &self.name
            && (name.trim().is_empty() || name.chars().any(char::is_control))
        {
            findings.diagnostics.add(&given.place, "the name is blank or has control characters");
        }
        let url = self.server_url(findings);
        let source = self.source(url.as_ref(), servers, &mut findings.diagnostics);
        let source = source.filter(|source| self.check_class(source, key_rule, &mut findings.diagnostics));
        let parameters = self.parameters(&name, &mut findings.diagnostics);
        let parameters = self.only_for_registration(parameters, source.as_ref(), findings);
        let key = self.runner_key(key_rule, url.as_ref(), environment, &mut findings.diagnostics);
        let share_as = self.share_name(source.as_ref(), &mut findings.diagnostics);
        let tls = self.tls(&mut findings.diagnostics);
        findings.templates.extend(value(&self.template));
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
            settings: Vec::new(),
        };
        let strictness = match key_rule {
            KeyRule::ServerAndName => EntryStrictness::Command,
            KeyRule::Name => EntryStrictness::Daemon,
        };
        let entry = self.complete_entry(entry, strictness, findings);
        Some(Enrollment { key, site: Site { url, tls }, source, parameters, entry, share_as })
    }

    fn name_or(&self, environment: &Environment) -> String {
        let known = || environment.names.get(&self.key_or_name()).unwrap_or(&environment.hostname);
        value(&self.name).unwrap_or_else(|| known().clone())
    }

    fn key_or_name(&self) -> String {
        value(&self.key).or_else(|| value(&self.name)).unwrap_or_else(|| UNNAMED_KEY.to_owned())
    }

    fn key_place(&self) -> Place {
        self.key.as_ref().or(self.name.as_ref()).map_or(&self.place, |placed| &placed.place).clone()
    }

    fn runner_key(
        &self,
        key_rule: KeyRule,
        url: Option<&ServerUrl>,
        environment: &Environment,
        diagnostics: &mut Diagnostics,
    ) -> Option<RunnerKey> {
        let key = match (key_rule, url) {
            (KeyRule::ServerAndName, url) if self.key.is_none() => {
                let identity = format!("{}\n{}", url?, self.name_or(environment));
                format!("register-{}", &sha256_hex(identity.as_bytes())[..12])
            }
            (KeyRule::ServerAndName | KeyRule::Name, _) => self.key_or_name(),
        };
        let hint = if self.key.is_none() { ": set `key`, because the name is no valid key" } else { "" };
        RunnerKey::enrollment(&key)
            .inspect_err(|error| diagnostics.add(&self.key_place(), format!("invalid key `{key}`: {error}{hint}")))
            .ok()
    }

    fn server_url(&self, findings: &mut Findings) -> Option<ServerUrl> {
        let diagnostics = &mut findings.diagnostics;
        let Some(url) = &self.url else {
            diagnostics.add(&self.place, format!("no server URL: set {}", self.field_names().url));
            return None;
        };
        let text = url.value.as_ref()?;
        let parsed = text.parse::<ServerUrl>();
        let parsed =
            parsed.inspect_err(|error| diagnostics.add(&url.place, format!("invalid server URL: {error}"))).ok()?;
        if ServerUrl::is_of_api(text) {
            let place = &url.place;
            findings.warnings.push(format!("{place}: `/api/v4` is not part of the server URL; {parsed} is used"));
        }
        Some(parsed)
    }

    fn source(
        &self,
        url: Option<&ServerUrl>,
        servers: &[ServerAccess],
        diagnostics: &mut Diagnostics,
    ) -> Option<RegistrationSource> {
        let names = self.field_names();
        if let Some(create) = &self.create {
            if let Some(other) = place(&self.registration_token).or(place(&self.token)) {
                diagnostics.add(other, "set either `create` or a token, not both");
                return None;
            }
            return self.creation(create, url, servers, diagnostics).map(RegistrationSource::Created);
        }
        match (&self.registration_token, &self.token) {
            (Some(_), Some(token)) => {
                let message = format!("two token sources: set either {} or {}", names.registration_token, names.token);
                diagnostics.add(&token.place, message);
                None
            }
            (None, Some(token)) if self.is_v1 => {
                diagnostics.add(
                    &token.place,
                    format!("API v1 has no created runners: set {} instead", names.registration_token),
                );
                None
            }
            (None, Some(token)) => token.value.clone().map(RegistrationSource::Given),
            (Some(token), None) if self.is_v1 => token.value.clone().map(RegistrationSource::V1),
            (Some(token), None) => token.value.clone().map(registration_source),
            (None, None) => {
                let or_create = if matches!(self.place, Place::Line { .. }) { ", or `create`" } else { "" };
                let message =
                    format!("no token source: set {} or {}{or_create}", names.registration_token, names.token);
                diagnostics.add(&self.place, message);
                None
            }
        }
    }

    /// Checks that the secret can be what it is used as. The daemon reads files only when it uses them: one with a wrong token
    /// must not keep the other runners from being served.
    fn check_class(&self, source: &RegistrationSource, key_rule: KeyRule, diagnostics: &mut Diagnostics) -> bool {
        match (source.secret(), key_rule) {
            (Source::Value { .. }, _) | (_, KeyRule::ServerAndName) => {}
            (Source::File(_) | Source::Credential { .. }, KeyRule::Name) => return true,
        }
        // An unreadable one is reported when it is used.
        let Ok(token) = source.secret().read() else { return true };
        let Err(wrong) = source.purpose().check(&token) else { return true };
        let place = place(&self.create).or(place(&self.registration_token)).or(place(&self.token));
        diagnostics.add_wrong_class(place.unwrap_or(&self.place), wrong);
        false
    }

    fn parameters(&self, name: &str, diagnostics: &mut Diagnostics) -> RegisterParameters {
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

    fn share_name(&self, source: Option<&RegistrationSource>, diagnostics: &mut Diagnostics) -> Option<ShareName> {
        let given = self.share_as.as_ref()?;
        match source {
            Some(RegistrationSource::V1(_)) => {
                diagnostics.add(&given.place, "API v1 has no rotation, so there is nothing that machines could share");
            }
            Some(
                RegistrationSource::Registration(_) | RegistrationSource::Given(_) | RegistrationSource::Created(_),
            )
            | None => {}
        }
        let invalid = |error: &_| diagnostics.add(&given.place, format!("invalid name `{}`: {error}", given.value));
        given.value.parse().inspect_err(invalid).ok()
    }

    fn access_level(&self, diagnostics: &mut Diagnostics) -> Option<AccessLevel> {
        let given = self.access_level.as_ref().filter(|given| !given.value.is_empty())?;
        let levels = [AccessLevel::NotProtected, AccessLevel::RefProtected];
        let level = levels.into_iter().find(|level| level.as_str() == given.value);
        if level.is_none() {
            let message = format!("invalid access level `{}`: use not_protected or ref_protected", given.value);
            diagnostics.add(&given.place, message);
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

    /// Drops parameters that the source does not take. A created runner's parameters are set in GitLab: giving
    /// them here is an error; or only a warning if its token is given as a registration token, as gitlab-runner
    /// allows.
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
                for (name, place) in given.into_iter().filter(|(name, _)| !V1_PARAMETERS.contains(name)) {
                    findings.diagnostics.add(place, format!("API v1 has no `{name}`"));
                }
                return parameters;
            }
            Some(RegistrationSource::Registration(_) | RegistrationSource::Created(_)) | None => return parameters,
        }
        if self.token.is_some() {
            for (name, place) in given {
                let message = format!("`{name}` needs a registration token: for a created runner, set it in GitLab");
                findings.diagnostics.add(place, message);
            }
        } else if !given.is_empty() {
            let names: Vec<_> = given.iter().map(|(name, _)| *name).collect();
            let place = place(&self.registration_token).unwrap_or(&self.place);
            findings.warnings.push(format!(
                "{place}: this is a created runner's token; ignored, because they are set in GitLab: {}",
                names.join(", ")
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
        .filter_map(|(name, place)| Some((name, place?)))
        .collect()
    }

    fn tls(&self, diagnostics: &mut Diagnostics) -> TlsFiles {
        check_client_pair(&self.tls_cert_file, &self.tls_key_file, diagnostics);
        self.tls_files()
    }

    /// Completes a creation with the access token of its server, and with that server's TLS files unless it has none.
    fn creation(
        &self,
        create: &Placed<Option<DraftCreation>>,
        url: Option<&ServerUrl>,
        servers: &[ServerAccess],
        diagnostics: &mut Diagnostics,
    ) -> Option<Creation> {
        let DraftCreation { owner, access_token, token_expires_at, token_rotation_deadline } = create.value.clone()?;
        let (access_token, tls) = match (access_token, url) {
            (Some(source), _) => (source, TlsFiles::default()),
            (None, url) => match servers.iter().find(|server| Some(&server.url) == url) {
                Some(server) => (server.access_token.clone(), server.tls.clone()),
                None => {
                    let message = format!("`create` needs an access token: add a [[server]] for {}", url?);
                    diagnostics.add(&create.place, message);
                    return None;
                }
            },
        };
        let tls = if tls == TlsFiles::default() { self.tls_files() } else { tls };
        Some(Creation { access_token, tls, owner, token_expires_at, token_rotation_deadline })
    }

    fn field_names(&self) -> FieldNames {
        match self.place {
            Place::Line { .. } | Place::File(_) => {
                FieldNames { url: "`url`", registration_token: "`registration_token`", token: "`token`" }
            }
            Place::Variable(_) => {
                FieldNames { url: "CI_SERVER_URL", registration_token: "REGISTRATION_TOKEN", token: "CI_SERVER_TOKEN" }
            }
            Place::Flag(_) => FieldNames { url: "--url", registration_token: "--registration-token", token: "--token" },
        }
    }
}

/// The names of fields in the source of a draft.
struct FieldNames {
    url: &'static str,
    registration_token: &'static str,
    token: &'static str,
}

/// Distinguishes a registration token from a created runner's token. An unreadable one counts as a registration
/// token; the error is reported when it is used.
fn registration_source(source: Source) -> RegistrationSource {
    match source.read() {
        Ok(token) if token.looks_created() => RegistrationSource::Given(source),
        Ok(_) | Err(_) => RegistrationSource::Registration(source),
    }
}

/// The program information that GitLab shows for a runner manager.
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

/// The architecture by its name in Go, which GitLab shows.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

pub(super) fn value<T: Clone>(field: &Option<Placed<T>>) -> Option<T> {
    field.as_ref().map(|placed| placed.value.clone())
}

pub(super) fn place<T>(field: &Option<Placed<T>>) -> Option<&Place> {
    field.as_ref().map(|placed| &placed.place)
}
