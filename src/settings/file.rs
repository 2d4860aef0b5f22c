//! Reads agent.toml, table by table.

use std::io;
use std::sync::Arc;

use super::diagnostics::{Diagnostic, Diagnostics, Place, Placed};
use super::draft::{Draft, DraftCreation};
use super::http::HttpSection;
use super::paths::read_text;
use super::secret_source::source;
use super::sharing::SharingSection;
use super::table::{Document, TableReader};
use super::{Environment, Errors, Paths};
use crate::engine::{self, OnReboot, Policy, PolicySelector, RotateFound, RotatePolicy, Unregister, UnregisterShared};
use crate::gitlab;
use crate::gitlab::fleet::{NewRunnerOwner, RunnerType};
use crate::lifecycle::{RegisterAgain, Timing};
use crate::model::RunnerId;

/// What agent.toml fills in: the configurations, and the drafts of its enrollments.
pub(super) struct FileTargets<'target> {
    pub(super) engine: &'target mut engine::Config,
    pub(super) gitlab: &'target mut gitlab::Config,
    pub(super) drafts: &'target mut Vec<Draft>,
    pub(super) http: &'target mut HttpSection,
    pub(super) sharing: &'target mut SharingSection,
}

const UNREGISTER: [(&str, Unregister); 3] =
    [("never", Unregister::Never), ("enrolled", Unregister::Enrolled), ("all", Unregister::All)];

const UNREGISTER_SHARED: [(&str, UnregisterShared); 2] =
    [("never", UnregisterShared::Never), ("last", UnregisterShared::Last)];

const ON_REBOOT: [(&str, OnReboot); 2] = [("keep", OnReboot::Keep), ("unregister", OnReboot::Unregister)];

const REGISTER_AGAIN: [(&str, RegisterAgain); 3] =
    [("never", RegisterAgain::Never), ("expired", RegisterAgain::Expired), ("always", RegisterAgain::Always)];

const ROTATE_FOUND: [(&str, RotateFound); 3] =
    [("never", RotateFound::Never), ("last_resort", RotateFound::LastResort), ("always", RotateFound::Always)];

const ROTATE: [(&str, RotatePolicy); 3] =
    [("auto", RotatePolicy::Auto), ("always", RotatePolicy::Always), ("off", RotatePolicy::Off)];

/// Reads the text of agent.toml; `None` if the file is missing and the user did not name it.
pub(super) fn text(paths: &Paths) -> Result<Option<String>, Errors> {
    match read_text(&paths.agent_config) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !paths.agent_config_is_named => Ok(None),
        Err(error) => {
            let place = Place::File(paths.agent_config.clone());
            let remedy = (error.kind() == io::ErrorKind::NotFound).then(|| {
                "correct the path (--agent-config, or the variable RUNNER_AGENT_CONFIG), or write the file with `runner-agent init`".to_owned()
            });
            Err(Diagnostic { remedy, ..Diagnostic::new(place, format!("cannot read agent.toml: {error}")) }.into())
        }
    }
}

/// Reads the text of agent.toml into `target`.
pub(super) fn read(
    paths: &Paths,
    text: &str,
    environment: &Environment,
    target: FileTargets<'_>,
    diagnostics: &mut Diagnostics,
) {
    let document = Document::new(&paths.agent_config, text);
    let Some(tree) = document.parse(diagnostics) else { return };
    let mut root = document.root(&tree);
    verify(&mut root, target.engine, diagnostics);
    rotate(&mut root, target.engine, diagnostics);
    recover(&mut root, target.engine, diagnostics);
    shutdown(&mut root, target.engine, diagnostics);
    timing(&mut root, Arc::make_mut(&mut target.engine.timing), diagnostics);
    gitlab(&mut root, target.gitlab, diagnostics);
    http(&mut root, target.http, diagnostics);
    sharing(&mut root, environment, target.sharing, diagnostics);
    target
        .drafts
        .extend(root.tables("enroll", diagnostics).into_iter().map(|table| enroll(table, environment, diagnostics)));
    target.engine.servers = super::server::servers(&mut root, paths, environment, diagnostics);
    target.engine.policies =
        root.tables("runner", diagnostics).into_iter().filter_map(|table| policy(table, diagnostics)).collect();
    target.engine.hooks = super::hooks::hooks(&mut root, paths, environment, diagnostics);
    root.finish(diagnostics);
}

fn verify(root: &mut TableReader<'_>, config: &mut engine::Config, diagnostics: &mut Diagnostics) {
    let Some(mut table) = section(root, "verify", diagnostics) else { return };
    set(&mut config.verify_enrolled, table.nonzero_span("interval", diagnostics));
    set(&mut config.verify_found, table.nonzero_span("found_interval", diagnostics));
    table.finish(diagnostics);
}

fn rotate(root: &mut TableReader<'_>, config: &mut engine::Config, diagnostics: &mut Diagnostics) {
    let Some(mut table) = section(root, "rotate", diagnostics) else { return };
    match table.text("at", diagnostics) {
        None => {}
        Some(at) if at.value == "off" => config.rotate = None,
        Some(at) => match at.value.parse() {
            Ok(share) => config.rotate = Some(share),
            Err(error) => diagnostics.add(&at.place, format!("`at`: {error}, or \"off\"")),
        },
    }
    set(&mut config.rotate_found, table.one_of("found", &ROTATE_FOUND, diagnostics));
    table.finish(diagnostics);
}

fn recover(root: &mut TableReader<'_>, config: &mut engine::Config, diagnostics: &mut Diagnostics) {
    let Some(mut table) = section(root, "recover", diagnostics) else { return };
    set(&mut config.register_again, table.one_of("register", &REGISTER_AGAIN, diagnostics));
    table.finish(diagnostics);
}

fn shutdown(root: &mut TableReader<'_>, config: &mut engine::Config, diagnostics: &mut Diagnostics) {
    let Some(mut table) = section(root, "shutdown", diagnostics) else { return };
    set(&mut config.shutdown.unregister, table.one_of("unregister", &UNREGISTER, diagnostics));
    let unregister_shared = table.one_of("unregister_shared", &UNREGISTER_SHARED, diagnostics);
    set(&mut config.shutdown.unregister_shared, unregister_shared);
    set(&mut config.shutdown.on_reboot, table.one_of("on_reboot", &ON_REBOOT, diagnostics));
    set(&mut config.shutdown.grace, table.span("grace", diagnostics));
    table.finish(diagnostics);
}

fn timing(root: &mut TableReader<'_>, timing: &mut Timing, diagnostics: &mut Diagnostics) {
    let Some(mut table) = section(root, "timing", diagnostics) else { return };
    let Timing {
        between_resets,
        between_resets_floor,
        confirm_after,
        settle_after,
        backoff_first,
        backoff_cap,
        floor,
        retry_after_cap,
        look_again,
        longest_nap,
    } = timing;
    set(between_resets, table.nonzero_span("between_resets", diagnostics));
    set(between_resets_floor, table.nonzero_span("between_resets_floor", diagnostics));
    set(confirm_after, table.nonzero_span("confirm_after", diagnostics));
    set(settle_after, table.nonzero_span("settle_after", diagnostics));
    set(backoff_first, table.nonzero_span("backoff_first", diagnostics));
    set(backoff_cap, table.nonzero_span("backoff_cap", diagnostics));
    set(floor, table.nonzero_span("floor", diagnostics));
    set(retry_after_cap, table.nonzero_span("retry_after_cap", diagnostics));
    set(look_again, table.nonzero_span("look_again", diagnostics));
    set(longest_nap, table.nonzero_span("longest_nap", diagnostics));
    table.finish(diagnostics);
}

fn gitlab(root: &mut TableReader<'_>, config: &mut gitlab::Config, diagnostics: &mut Diagnostics) {
    let Some(mut table) = section(root, "gitlab", diagnostics) else { return };
    set(&mut config.connect_timeout, table.nonzero_span("connect_timeout", diagnostics));
    set(&mut config.request_timeout, table.nonzero_span("request_timeout", diagnostics));
    match table.number::<usize>("in_flight_per_host", diagnostics) {
        Some(number) if number.value == 0 => diagnostics.add(&number.place, "`in_flight_per_host` must be at least 1"),
        number => config.in_flight_per_host = number.map(|number| number.value),
    }
    table.finish(diagnostics);
}

fn http(root: &mut TableReader<'_>, http: &mut HttpSection, diagnostics: &mut Diagnostics) {
    let Some(mut table) = section(root, "http", diagnostics) else { return };
    *http = super::http::read(&mut table, diagnostics);
    table.finish(diagnostics);
}

fn sharing(
    root: &mut TableReader<'_>,
    environment: &Environment,
    sharing: &mut SharingSection,
    diagnostics: &mut Diagnostics,
) {
    let Some(mut table) = section(root, "sharing", diagnostics) else { return };
    *sharing = super::sharing::read(&mut table, environment, diagnostics);
    table.finish(diagnostics);
}

fn enroll(mut table: TableReader<'_>, environment: &Environment, diagnostics: &mut Diagnostics) -> Draft {
    let mut draft = Draft::at(table.place().clone());
    let places = ["url", "registration_token", "token", "create"].map(|key| table.place_of(key));
    let [url, registration_token, token, create] = places;
    draft.key = table.text("key", diagnostics);
    draft.url = even_if_invalid(url, table.text("url", diagnostics));
    draft.registration_token =
        even_if_invalid(registration_token, source(&mut table, "registration_token", environment, diagnostics));
    draft.token = even_if_invalid(token, source(&mut table, "token", environment, diagnostics));
    draft.create = even_if_invalid(create, creation(&mut table, diagnostics));
    draft.read_table(&mut table, diagnostics);
    table.finish(diagnostics);
    draft
}

/// Reads `create`, the owner of the runner to create.
fn creation(table: &mut TableReader<'_>, diagnostics: &mut Diagnostics) -> Option<Placed<DraftCreation>> {
    let expected = "a table such as { runner_type = \"group_type\", group_id = 7 }";
    let mut table = table.table("create", expected, diagnostics)?;
    let place = table.place().clone();
    let before = diagnostics.len();
    let runner_type = table.parsed("runner_type", diagnostics);
    let group = table.number("group_id", diagnostics);
    let project = table.number("project_id", diagnostics);
    table.finish(diagnostics);
    let owner = match (runner_type.map(|placed| placed.value), group, project) {
        (Some(RunnerType::Instance), None, None) => Some(NewRunnerOwner::Instance),
        (Some(RunnerType::Group), Some(group), None) => Some(NewRunnerOwner::Group(group.value)),
        (Some(RunnerType::Project), None, Some(project)) => Some(NewRunnerOwner::Project(project.value)),
        _ => None,
    };
    if owner.is_none() && diagnostics.len() == before {
        diagnostics.add(
            &place,
            "`create` needs `runner_type`, plus `group_id` only for group_type and `project_id` only for project_type",
        );
    }
    let creation =
        |owner| DraftCreation { owner, access_token: None, token_expires_at: None, token_rotation_deadline: None };
    owner.map(|owner| Placed::new(creation(owner), place))
}

/// Marks an invalid value as given, so that it is not reported as missing too.
fn even_if_invalid<T>(place: Option<Place>, value: Option<Placed<T>>) -> Option<Placed<Option<T>>> {
    place.map(|place| Placed::new(value.map(|placed| placed.value), place))
}

fn policy(mut table: TableReader<'_>, diagnostics: &mut Diagnostics) -> Option<Policy> {
    if ["id", "name", "url"].iter().all(|key| table.place_of(key).is_none()) {
        diagnostics.add(table.place(), "[[runner]] needs at least one of `id`, `name`, `url` to select runners");
    }
    let before = diagnostics.len();
    let id = table.number::<u64>("id", diagnostics).and_then(|id| {
        let invalid = |error: &_| diagnostics.add(&id.place, format!("`id`: {error}"));
        RunnerId::try_new(id.value).inspect_err(invalid).ok()
    });
    let name = table.text("name", diagnostics).map(|name| name.value);
    let url = table.parsed("url", diagnostics).map(|url| url.value);
    let policy = Policy {
        selector: PolicySelector { id, name, url },
        rotate: table.one_of("rotate", &ROTATE, diagnostics).map(|rotate| rotate.value),
        unregister: table.one_of("unregister", &UNREGISTER, diagnostics).map(|unregister| unregister.value),
        shared: table.boolean("shared", diagnostics).map(|shared| shared.value),
    };
    table.finish(diagnostics);
    (diagnostics.len() == before).then_some(policy)
}

fn section<'text>(
    root: &mut TableReader<'text>,
    key: &'static str,
    diagnostics: &mut Diagnostics,
) -> Option<TableReader<'text>> {
    root.table(key, "a table", diagnostics)
}

fn set<T>(target: &mut T, value: Option<Placed<T>>) {
    if let Some(value) = value {
        *target = value.value;
    }
}
