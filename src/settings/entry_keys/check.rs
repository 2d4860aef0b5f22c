//! Checks the keys and values of an entry.

use toml::de::{DeTable, DeValue};

use super::{EXECUTORS, EntryKey, Kind, tables_of};
use crate::settings::similar::similar;

/// A key that gitlab-runner does not know, or a value that it cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct Problem {
    /// What is wrong, without the value.
    pub(in crate::settings) message: String,
    /// Whether it is about a name that a newer gitlab-runner may know.
    pub(in crate::settings) is_unknown: bool,
    /// The byte at which the key begins.
    pub(in crate::settings) offset: usize,
}

/// Checks the executor's name.
pub(in crate::settings) fn check_executor(name: &str) -> Option<Problem> {
    if EXECUTORS.contains(&name) {
        return None;
    }
    let known = similar(name, EXECUTORS)
        .map_or_else(|| format!(", known are: {}", EXECUTORS.join(", ")), |meant| format!(": did you mean `{meant}`?"));
    Some(Problem { message: format!("unknown executor `{name}`{known}"), is_unknown: true, offset: 0 })
}

/// Checks every key of the first entry in a TOML text. The table of an executor that gitlab-runner does not have, and that
/// of a custom one, can have any keys. `executor` replaces that of the entry.
pub(in crate::settings) fn check_entry(text: &str, executor: Option<&str>) -> Vec<Problem> {
    let Ok(document) = DeTable::parse(text) else { return Vec::new() };
    let Some(entry) = first_entry(document.get_ref()) else { return Vec::new() };
    let mut problems = Vec::new();
    let own = entry.get_key_value("executor").and_then(|(key, name)| Some((key, name.get_ref().as_str()?)));
    if let (None, Some((key, name))) = (executor, own) {
        problems.extend(check_executor(name).map(|problem| Problem { offset: key.span().start, ..problem }));
    }
    let executor = executor.or(own.map(|(_, name)| name)).unwrap_or_default();
    walk(entry, "", &Scope::of(executor), &mut problems);
    problems.sort_by_key(|problem| problem.offset);
    problems
}

/// The first entry of config.toml or a template.
pub(in crate::settings) fn first_entry<'document, 'text>(
    document: &'document DeTable<'text>,
) -> Option<&'document DeTable<'text>> {
    document.get("runners")?.get_ref().as_array()?.iter().next()?.get_ref().as_table()
}

/// What the executor of an entry means for its keys.
struct Scope<'executor> {
    /// The table that can have any keys.
    own_table: &'executor str,
    /// The tables in which a key that was written outside of them may belong.
    tables: &'static [&'static str],
}

impl<'executor> Scope<'executor> {
    fn of(executor: &'executor str) -> Self {
        let own_table = if executor.is_empty() || EXECUTORS.contains(&executor) { "custom" } else { executor };
        Self { own_table, tables: tables_of(executor) }
    }
}

fn walk(table: &DeTable<'_>, parent: &str, scope: &Scope<'_>, problems: &mut Vec<Problem>) {
    for (key, value) in table {
        let name: &str = key.get_ref();
        let path = if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
        if path == scope.own_table {
            continue;
        }
        let found = EntryKey::all().find(|known| known.path.eq_ignore_ascii_case(&path));
        let offset = key.span().start;
        match (found, value.get_ref().as_table()) {
            (Some(known), _) => problems.extend(wrong_type(known, value.get_ref()).map(|expected| Problem {
                message: format!("`{path}` must be {expected}"),
                is_unknown: false,
                offset,
            })),
            (None, Some(inner)) if is_table(&path) => walk(inner, &path, scope, problems),
            (None, _) => {
                let meant = meant(parent, name, scope).map(|meant| format!(": did you mean `{meant}`?"));
                let message = format!("gitlab-runner has no key `{path}`{}", meant.unwrap_or_default());
                problems.push(Problem { message, is_unknown: true, offset });
            }
        }
    }
}

/// The known key in the same table that a typing error means, or the one of this name in the table of the executor.
fn meant(parent: &str, name: &str, scope: &Scope<'_>) -> Option<&'static str> {
    let siblings: Vec<_> = names().filter(|path| split(path).0.eq_ignore_ascii_case(parent)).collect();
    if let Some(meant) = similar(name, siblings.iter().map(|path| split(path).1)) {
        return siblings.into_iter().find(|path| split(path).1 == meant);
    }
    let is_elsewhere = |path: &&str| split(path).1 == name && scope.tables.contains(&split(path).0);
    names().find(is_elsewhere).filter(|_| parent.is_empty())
}

/// A path as that of its table and the key in it.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// All paths, and those of the tables.
fn names() -> impl Iterator<Item = &'static str> {
    EntryKey::all().flat_map(|key| key.path.match_indices('.').map(|(at, _)| &key.path[..at]).chain([key.path]))
}

/// Whether known keys are within this table.
fn is_table(path: &str) -> bool {
    let begins = |key: &EntryKey| {
        let start = key.path.get(..path.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(path))
            && key.path.as_bytes().get(path.len()) == Some(&b'.')
    };
    EntryKey::all().any(begins)
}

/// The expected type, if gitlab-runner could not read this value.
fn wrong_type(key: &EntryKey, value: &DeValue<'_>) -> Option<&'static str> {
    let (is_right, expected) = match key.kind {
        Kind::Text | Kind::Secret => (value.is_str(), "text in quotes"),
        Kind::Switch => (value.is_bool(), "true or false"),
        Kind::Integer => (value.is_integer(), "an integer without quotes"),
        Kind::Decimal => (value.is_float() || value.is_integer(), "a number without quotes"),
        Kind::Duration => (value.is_str() || value.is_integer(), "a duration in quotes"),
        Kind::List => (is_list_of(value, DeValue::is_str), "a list of text in quotes, such as [\"a\"]"),
        Kind::TextOrList => (value.is_str() || is_list_of(value, DeValue::is_str), "text in quotes, or a list of them"),
        Kind::Integers => (is_list_of(value, DeValue::is_integer), "a list of integers"),
        Kind::Map => (is_table_of(value, DeValue::is_str), "a table with text in quotes"),
        Kind::Flags => (is_table_of(value, DeValue::is_bool), "a table with true or false"),
        Kind::Numbers => (is_table_of(value, DeValue::is_integer), "a table with integers"),
        Kind::ListMap => (is_table_of(value, DeValue::is_array), "a table with lists"),
        Kind::Services | Kind::Json => (value.is_array(), "a list"),
        Kind::Any => (true, ""),
    };
    (!is_right).then_some(expected)
}

fn is_list_of<'i>(value: &DeValue<'i>, is_item: impl Fn(&DeValue<'i>) -> bool) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(|item| is_item(item.get_ref())))
}

fn is_table_of<'i>(value: &DeValue<'i>, is_item: impl Fn(&DeValue<'i>) -> bool) -> bool {
    value.as_table().is_some_and(|table| table.iter().all(|(_, item)| is_item(item.get_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(entry: &str) -> Vec<String> {
        let problems = check_entry(&format!("[[runners]]\n{entry}"), None);
        problems.into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn known_keys_of_every_depth_pass() {
        let entry = "name = 'a'\nexecutor = 'docker'\nlimit = 2\ntls-ca-file = '/a'\nunhealthy_interval = '60s'
  [runners.feature_flags]\n    FF_ANY = true
  [runners.cache]\n    type = 's3'
    [runners.cache.s3]\n      BucketName = 'b'
  [runners.docker]\n    image = 'alpine'\n    pull_policy = 'always'\n    volumes = ['/cache']
    [[runners.docker.services]]\n      name = 'mysql'\n      anything = 1
    [runners.docker.tmpfs]\n      '/run' = 'rw'
  [runners.kubernetes.build_container_security_context.capabilities]\n    add = ['A']
  [runners.autoscaler.plugin_config]\n    own = 1\n";
        assert_eq!(problems(entry), [] as [&str; 0]);
    }

    #[test]
    fn unknown_keys_name_what_was_meant() {
        assert_eq!(
            problems("[runners.dcoker]\nimage = 'a'"),
            ["gitlab-runner has no key `dcoker`: did you mean `docker`?"]
        );
        assert_eq!(
            problems("[runners.docker]\nimgae = 'a'"),
            ["gitlab-runner has no key `docker.imgae`: did you mean `docker.image`?"]
        );
        assert_eq!(
            problems("executor = 'docker'\nimage = 'a'"),
            ["gitlab-runner has no key `image`: did you mean `docker.image`?"]
        );
        assert_eq!(problems("nonsense_of_mine = 1"), ["gitlab-runner has no key `nonsense_of_mine`"]);
    }

    #[test]
    fn value_that_gitlab_runner_cannot_read_is_named() {
        assert_eq!(
            problems("limit = '2'\n[runners.docker]\nprivileged = 'yes'\nvolumes = '/cache'"),
            [
                "`limit` must be an integer without quotes",
                "`docker.privileged` must be true or false",
                "`docker.volumes` must be a list of text in quotes, such as [\"a\"]",
            ]
        );
    }

    #[test]
    fn own_executor_and_the_custom_one_have_keys_of_their_own() {
        assert_eq!(problems("executor = 'custom'\n[runners.custom]\nmine = 1"), [] as [&str; 0]);
        assert_eq!(
            problems("executor = 'dcoker'\n[runners.dcoker]\nmine = 1"),
            ["unknown executor `dcoker`: did you mean `docker`?"]
        );
    }
}
