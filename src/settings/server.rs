//! Reads the `[[server]]` tables: the access token of each instance, and how it is kept.

use std::path::Path;
use std::time::Duration;

use super::diagnostics::{Diagnostics, Place, Placed};
use super::draft::check_client_pair;
use super::secret_source::GivenSource;
use super::table::TableReader;
use super::{Environment, Paths};
use crate::engine;
use crate::lifecycle::{AccessKeeping, UsedElsewhere};
use crate::model::{AccessTokenOwner, TlsPaths};
use crate::ops::ServerAccess;
use crate::secret::{Source, TokenPurpose};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest and the longest life of a new access token. GitLab counts in days, and no release takes more than 400.
const LIFE: (Duration, Duration) = (DAY, Duration::from_secs(400 * 24 * 60 * 60));

/// The name that a remedy suggests for the file of an access token in the state directory.
const FILE_NAME: &str = "access-token";

const USED_ELSEWHERE: [(&str, UsedElsewhere); 2] =
    [("report", UsedElsewhere::Report), ("rotate", UsedElsewhere::Rotate)];

/// Whether an access token can be asked to live this long.
#[must_use]
pub fn is_access_token_life(life: Duration) -> bool {
    let (shortest, longest) = LIFE;
    (shortest..=longest).contains(&life)
}

/// Reads all `[[server]]` tables.
pub(super) fn servers(
    root: &mut TableReader<'_>,
    paths: &Paths,
    environment: &Environment,
    diagnostics: &mut Diagnostics,
) -> Vec<ServerAccess> {
    let mut servers: Vec<ServerAccess> = Vec::new();
    for table in root.tables("server", diagnostics) {
        let place = table.place().clone();
        let Some(server) = server(table, paths, environment, diagnostics) else { continue };
        if servers.iter().any(|known| known.url == server.url) {
            diagnostics.add(&place, format!("{} has two [[server]] tables: remove one", server.url));
        } else if let Some(known) = servers.iter().find(|known| shares_rotated_file(known, &server)) {
            let message = format!(
                "{} and {} have one access token file, and it would be rotated: give each server a file of its own",
                known.url, server.url
            );
            diagnostics.add(&place, message);
        }
        servers.push(server);
    }
    servers
}

/// Warns of machines that share a runner and may have copies of one access token, which each of them would rotate.
pub(super) fn copies_warnings(config: &engine::Config) -> impl Iterator<Item = String> {
    let is_shared = |server: &&ServerAccess| {
        let mut enrollments = config.enrollments.iter();
        server.keeping.rotate
            && enrollments.any(|enrollment| enrollment.share_as.is_some() && enrollment.site.url == server.url)
    };
    config.servers.iter().filter(is_shared).map(|ServerAccess { url, .. }| {
        format!(
            "machines share a runner of {url}, and this one rotates its access token, which ends all copies of it: give every machine an access token of its own, or set `rotate` on one machine alone"
        )
    })
}

/// Whether a rotation for one of two servers would overwrite the access token of the other one.
fn shares_rotated_file(one: &ServerAccess, other: &ServerAccess) -> bool {
    let is_file = matches!(one.access_token, Source::File(_));
    is_file && one.access_token == other.access_token && (one.keeping.rotate || other.keeping.rotate)
}

fn server(
    mut table: TableReader<'_>,
    paths: &Paths,
    environment: &Environment,
    diagnostics: &mut Diagnostics,
) -> Option<ServerAccess> {
    for key in ["url", "access_token"].into_iter().filter(|key| table.place_of(key).is_none()) {
        diagnostics.add(table.place(), format!("[[server]] needs `{key}`"));
    }
    let url = table.parsed("url", diagnostics);
    let kept = access_token(&mut table, paths, environment, diagnostics);
    let mut files = ["tls_ca_file", "tls_cert_file", "tls_key_file"].map(|key| table.path(key, diagnostics));
    check_client_pair(&files[1], &files[2], diagnostics);
    let [ca_file, cert_file, key_file] = files.each_mut().map(|path| path.take().map(|path| path.value));
    table.finish(diagnostics);
    let tls = TlsPaths { ca_file, cert_file, key_file }.into();
    let (access_token, keeping) = kept?;
    Some(ServerAccess { url: url?.value, access_token, tls, keeping })
}

/// Reads `access_token`: its source, and how it is kept.
fn access_token(
    table: &mut TableReader<'_>,
    paths: &Paths,
    environment: &Environment,
    diagnostics: &mut Diagnostics,
) -> Option<(Source, AccessKeeping)> {
    const KEY: &str = "access_token";
    let expected = "{ file = \"…\" }, { credential = \"…\" } or { env = \"…\" }";
    let mut table = table.table(KEY, expected, diagnostics)?;
    let before = diagnostics.len();
    let given = GivenSource::read(&mut table, diagnostics);
    let rotate = table.boolean("rotate", diagnostics);
    let keeping = keeping(&mut table, rotate.as_ref(), diagnostics);
    let place = table.place().clone();
    table.finish(diagnostics);
    let source = given.one(KEY, &place, diagnostics.len() == before, environment, diagnostics)?;
    if let Source::Value { token, .. } = &source.value
        && let Err(wrong) = TokenPurpose::Access.check(token)
    {
        diagnostics.add_wrong_class(&source.place, wrong);
    }
    if let Some(rotate) = rotate.filter(|rotate| rotate.value) {
        check_writable(&source.value, &rotate.place, paths, diagnostics);
    }
    Some((source.value, keeping))
}

fn keeping(table: &mut TableReader<'_>, rotate: Option<&Placed<bool>>, diagnostics: &mut Diagnostics) -> AccessKeeping {
    let rotate = rotate.is_some_and(|rotate| rotate.value);
    let life = life(table, diagnostics);
    let owner = owner(table, diagnostics);
    let used_elsewhere = table.one_of("used_elsewhere", &USED_ELSEWHERE, diagnostics);
    let only_rotated = [("life", place(life.as_ref())), ("used_elsewhere", place(used_elsewhere.as_ref()))];
    for (key, place) in only_rotated.into_iter().filter(|_| !rotate) {
        if let Some(place) = place {
            diagnostics.add(place, format!("`{key}` counts only for a token that is rotated: add `rotate = true`"));
        }
    }
    AccessKeeping {
        rotate,
        life: life.map(|life| life.value),
        owner,
        used_elsewhere: used_elsewhere.map(|used| used.value).unwrap_or_default(),
    }
}

fn life(table: &mut TableReader<'_>, diagnostics: &mut Diagnostics) -> Option<Placed<Duration>> {
    let life = table.span("life", diagnostics)?;
    if !is_access_token_life(life.value) {
        diagnostics.add(&life.place, "`life` must be from 1 day to 400 days, such as \"90d\"");
        return None;
    }
    Some(life)
}

/// Reads whose token it is: a group's, a project's, or neither.
fn owner(table: &mut TableReader<'_>, diagnostics: &mut Diagnostics) -> AccessTokenOwner {
    let group = table.id_or_path("group", diagnostics);
    let project = table.id_or_path("project", diagnostics);
    match (group, project) {
        (Some(_), Some(project)) => {
            diagnostics.add(&project.place, "an access token belongs to a `group` or to a `project`: remove one");
            AccessTokenOwner::Personal
        }
        (Some(group), None) => AccessTokenOwner::Group(group.value),
        (None, Some(project)) => AccessTokenOwner::Project(project.value),
        (None, None) => AccessTokenOwner::Personal,
    }
}

/// A rotated token has to be stored where it came from.
fn check_writable(source: &Source, place: &Place, paths: &Paths, diagnostics: &mut Diagnostics) {
    let kind = match source {
        Source::File(_) => return,
        Source::Credential { .. } => "a systemd credential",
        Source::Value { .. } => "an environment variable",
    };
    let file = paths.state_root.as_deref().unwrap_or(Path::new("")).join(FILE_NAME);
    let remedy = format!(
        "copy the token once to a file of mode 0600 that only the agent writes, and set {{ file = \"{}\", rotate = true }}",
        file.display()
    );
    let message = format!("`rotate` needs a file: the new token cannot be written to {kind}");
    diagnostics.add_with_remedy(place, message, Some(remedy));
}

fn place<T>(value: Option<&Placed<T>>) -> Option<&Place> {
    value.map(|value| &value.place)
}
