//! Reads the flags and variables of `register` into a draft.

use std::path::Path;

use crate::cli::Error;
use crate::cli::arguments::{Api, EntryArguments, RegisterArguments, SecretArgument};
use crate::cli::selection::file_source;
use crate::secret::Source;
use crate::settings::{Draft, DraftFlags, Environment, Place, Placed, split_list};

/// Merges flags and environment; a flag wins.
///
/// # Errors
/// [`Error::Secret`] if a token cannot be read from stdin. The draft contains all other errors.
pub(super) fn draft(arguments: RegisterArguments, environment: &Environment) -> Result<Draft, Error> {
    let RegisterArguments { tls, parameters, .. } = arguments;
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
    let flags = DraftFlags {
        description: parameters.description,
        tag_list: parameters.tag_list.as_deref().map(split_list),
        run_untagged: parameters.run_untagged,
        locked: parameters.locked,
        access_level: parameters.access_level,
        maximum_timeout: parameters.maximum_timeout,
        paused: parameters.paused,
        maintenance_note: parameters.maintenance_note,
        tls_ca_file: tls.tls_ca_file,
        tls_cert_file: tls.tls_cert_file,
        tls_key_file: tls.tls_key_file,
        share_as: arguments.share_as,
        ..DraftFlags::default()
    };
    draft.set_flags(flags, environment);
    take_entry(&mut draft, arguments.entry, environment);
    Ok(draft.or(Draft::of_environment(environment)))
}

/// Takes a secret from one of two flags.
fn source(
    draft: &mut Draft,
    (flag, argument): (&'static str, Option<&SecretArgument>),
    (file_flag, path): (&'static str, Option<&Path>),
    environment: &Environment,
) -> Result<Option<Placed<Option<Source>>>, Error> {
    if let Some(argument) = argument {
        let place = Place::Flag(flag);
        let token = argument.token().inspect_err(|error| draft.add_diagnostic(&place, error.to_string())).ok();
        let source = token.map(|token| Source::Value { token, origin: flag.to_owned() });
        return Ok(Some(Placed::new(source, place)));
    }
    let Some(path) = path else { return Ok(None) };
    Ok(Some(Placed::new(Some(file_source(path, environment)?), Place::Flag(file_flag))))
}

/// Takes the flags for the entry in config.toml.
pub(in crate::cli) fn take_entry(draft: &mut Draft, entry: EntryArguments, environment: &Environment) {
    // gitlab-runner has one flag for both: without --name, the description is the name too. A created runner's
    // token allows no description, only the name.
    if entry.name.is_none() {
        draft.name = draft.description.take();
    }
    let flags = DraftFlags {
        name: entry.name,
        executor: entry.executor,
        shell: entry.shell,
        limit: entry.limit,
        request_concurrency: entry.request_concurrency,
        output_limit: entry.output_limit,
        template: entry.template_config,
        ..DraftFlags::default()
    };
    draft.set_flags(flags, environment);
    let mut set = |flag, key: &str, value: Option<String>| {
        draft.settings.extend(given(flag, value.map(|value| (key.to_owned(), value))));
    };
    let number = |number: u32| number.to_string();
    // gitlab-runner reads Go's format, which has no days and no spaces.
    let interval = entry.unhealthy_interval.map(|interval| format!("\"{}s\"", interval.as_secs()));
    set("--strict-check-interval", "strict_check_interval", entry.strict_check_interval.map(|is| is.to_string()));
    set("--unhealthy-requests-limit", "unhealthy_requests_limit", entry.unhealthy_requests_limit.map(number));
    set("--unhealthy-interval", "unhealthy_interval", interval);
    set(
        "--job-status-final-update-retry-limit",
        "job_status_final_update_retry_limit",
        entry.job_status_final_update_retry_limit.map(number),
    );
    entry.keys.add_to(draft);
    draft.allows_unknown |= entry.allow_unknown;
    draft.settings.extend(entry.set.into_iter().map(|setting| Placed::new(setting, Place::Flag("--set"))));
}

/// Attaches the flag to its value.
pub(in crate::cli) fn given<T>(flag: &'static str, value: Option<T>) -> Option<Placed<T>> {
    Some(Placed::new(value?, Place::Flag(flag)))
}
