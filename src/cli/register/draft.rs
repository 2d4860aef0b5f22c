//! What the flags of `register` say about the runner, before it is validated.

use std::path::{Path, PathBuf};

use crate::cli::Error;
use crate::cli::arguments::{
    Api, EntryArguments, RegisterArguments, RegisterParameterArguments, SecretArgument, TlsArguments,
};
use crate::cli::selection::file_source;
use crate::secret::Source;
use crate::settings::{Draft, Environment, Place, Placed, parse_boolean};

type Setting = Placed<(String, String)>;

/// Puts flags and environment together; a flag wins.
///
/// # Errors
/// [`Error::Secret`] if a token cannot be read from stdin. What else is wrong is in the draft.
pub(super) fn draft(arguments: RegisterArguments, environment: &Environment) -> Result<Draft, Error> {
    let mut draft = Draft::at(Place::Flag("register"));
    draft.token = source(
        &mut draft,
        ("--token", arguments.token.as_ref()),
        ("--token-file", arguments.token_file.as_deref()),
        environment,
    )?;
    draft.registration_token = source(
        &mut draft,
        ("--registration-token", arguments.registration_token.as_ref()),
        ("--registration-token-file", arguments.registration_token_file.as_deref()),
        environment,
    )?;
    draft.is_v1 = arguments.api == Api::V1;
    draft.url = given("--url", arguments.url.map(Some));
    take_tls(&mut draft, arguments.tls, environment);
    take_parameters(&mut draft, arguments.parameters);
    take_entry(&mut draft, arguments.entry, environment);
    Ok(with_environment(draft, environment))
}

/// Adds what the official variables say, which flags outweigh.
pub(in crate::cli) fn with_environment(draft: Draft, environment: &Environment) -> Draft {
    let mut others = Draft::of_environment(environment);
    take_settings(&mut others, environment);
    draft.or(others)
}

/// A secret from one of two flags.
fn source(
    draft: &mut Draft,
    (flag, argument): (&'static str, Option<&SecretArgument>),
    (file_flag, path): (&'static str, Option<&Path>),
    environment: &Environment,
) -> Result<Option<Placed<Option<Source>>>, Error> {
    if let Some(argument) = argument {
        let place = Place::Flag(flag);
        let token = argument.token().inspect_err(|error| draft.add_mistake(&place, error.to_string())).ok();
        let source = token.map(|token| Source::Value { token, origin: flag.to_owned() });
        return Ok(Some(Placed::new(source, place)));
    }
    let Some(path) = path else { return Ok(None) };
    Ok(Some(Placed::new(Some(file_source(path, environment)?), Place::Flag(file_flag))))
}

fn take_parameters(draft: &mut Draft, parameters: RegisterParameterArguments) {
    draft.description = given("--description", parameters.description);
    draft.tag_list = given("--tag-list", parameters.tag_list.map(|list| tags(&list)));
    draft.run_untagged = given("--run-untagged", parameters.run_untagged);
    draft.locked = given("--locked", parameters.locked);
    draft.access_level = given("--access-level", parameters.access_level);
    draft.maximum_timeout = given("--maximum-timeout", parameters.maximum_timeout);
    draft.paused = given("--paused", parameters.paused);
    draft.maintenance_note = given("--maintenance-note", parameters.maintenance_note);
}

/// The official flags know one name only, which is the description too: a description without a name is
/// both, and with a created runner's token it can only be meant as the local name.
/// Takes what the entry gets.
pub(in crate::cli) fn take_entry(draft: &mut Draft, entry: EntryArguments, environment: &Environment) {
    let (name, description) = match (given("--name", entry.name), draft.description.take()) {
        (None, Some(description)) => (Some(description), None),
        both => both,
    };
    let set = entry.set.into_iter().map(|setting| Placed::new(setting, Place::Flag("--set")));
    let number = |number: u32| number.to_string();
    let official = [
        setting(
            "--strict-check-interval",
            "strict_check_interval",
            entry.strict_check_interval.map(|is| is.to_string()),
        ),
        setting("--unhealthy-requests-limit", "unhealthy_requests_limit", entry.unhealthy_requests_limit.map(number)),
        // gitlab-runner reads Go's form, which has no days and no spaces.
        setting(
            "--unhealthy-interval",
            "unhealthy_interval",
            entry.unhealthy_interval.map(|interval| format!("\"{}s\"", interval.as_secs())),
        ),
        setting(
            "--job-status-final-update-retry-limit",
            "job_status_final_update_retry_limit",
            entry.job_status_final_update_retry_limit.map(number),
        ),
    ];
    draft.name = name;
    draft.description = description;
    draft.executor = given("--executor", entry.executor);
    draft.shell = given("--shell", entry.shell);
    draft.limit = given("--limit", entry.limit);
    draft.request_concurrency = given("--request-concurrency", entry.request_concurrency);
    draft.output_limit = given("--output-limit", entry.output_limit);
    draft.template = given("--template-config", entry.template_config.map(|path| environment.absolute(&path)));
    draft.settings = official.into_iter().flatten().chain(set).collect();
}

fn take_tls(draft: &mut Draft, tls: TlsArguments, environment: &Environment) {
    let file = |flag, path: Option<PathBuf>| given(flag, path.map(|path| environment.absolute(&path)));
    draft.tls_ca_file = file("--tls-ca-file", tls.tls_ca_file);
    draft.tls_cert_file = file("--tls-cert-file", tls.tls_cert_file);
    draft.tls_key_file = file("--tls-key-file", tls.tls_key_file);
}

/// The variables of those flags that become plain settings of the entry.
fn take_settings(draft: &mut Draft, environment: &Environment) {
    let number = |text: &str| {
        let number = text.trim().parse::<u32>();
        number.map(|number| number.to_string()).map_err(|_| format!("`{text}` is not a whole number"))
    };
    let boolean = |text: &str| parse_boolean(text).map(|is| is.to_string());
    let mut take = |variable: &'static str, key: &str, parse: &dyn Fn(&str) -> Result<String, String>| {
        let Some(text) = environment.text(variable) else { return };
        let place = Place::Variable(variable);
        match parse(&text) {
            Ok(value) => draft.settings.push(Placed::new((key.to_owned(), value), place)),
            Err(message) => draft.add_mistake(&place, message),
        }
    };
    take("RUNNER_STRICT_CHECK_INTERVAL", "strict_check_interval", &boolean);
    take("RUNNER_UNHEALTHY_REQUESTS_LIMIT", "unhealthy_requests_limit", &number);
    take("RUNNER_JOB_STATUS_FINAL_UPDATE_RETRY_LIMIT", "job_status_final_update_retry_limit", &number);
}

fn setting(flag: &'static str, key: &str, value: Option<String>) -> Option<Setting> {
    Some(Placed::new((key.to_owned(), value?), Place::Flag(flag)))
}

/// What a flag says, if it was given.
pub(in crate::cli) fn given<T>(flag: &'static str, value: Option<T>) -> Option<Placed<T>> {
    Some(Placed::new(value?, Place::Flag(flag)))
}

/// Takes a list apart at its commas.
pub(in crate::cli) fn tags(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}
