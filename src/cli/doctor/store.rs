//! The store of shared runners: the way to it, the credentials for it, each value, and the right to write it.

use std::collections::BTreeMap;

use super::super::Exit;
use super::super::error::of_store;
use super::row::Row;
use crate::error_chain::chain;
use crate::model::{RunnerId, ServerUrl, ShareName, SharedRunner};
use crate::ops::OTHER_SHARE_REMEDY;
use crate::settings::Settings;
use crate::sharing::{self, Engine, Error, Shares};
use crate::store::Record;

/// The subject of the rows.
const SUBJECT: &str = "store of shared runners";

/// Names of the checks.
const CONNECTION: &str = "connection";
const CREDENTIALS: &str = "credentials";
const VALUE: &str = "value";
const RIGHTS: &str = "rights";

/// What this machine says of a shared runner: its server, and its id once the server has named it.
type Expected = (ServerUrl, Option<RunnerId>);

/// Reads each value that this machine uses, and tries whether it may be written. Changes nothing.
pub(super) async fn examine(settings: &Settings, records: &[Record]) -> Vec<Row> {
    let Some(store) = &settings.engine.sharing else { return Vec::new() };
    match sharing::open(store).await {
        Ok(shares) => ask(&shares, &expected(settings, records)).await,
        // `check` has reported it.
        Err(_) => vec![Row::untested(SUBJECT, CONNECTION, "the settings in [sharing] cannot be used here")],
    }
}

fn expected(settings: &Settings, records: &[Record]) -> BTreeMap<ShareName, Expected> {
    let of_enrollments = settings.engine.enrollments.iter().filter_map(|enrollment| {
        let of_record = records.iter().find(|record| record.key == enrollment.key);
        let id = of_record.filter(|record| record.url == enrollment.site.url).and_then(Record::named_id);
        Some((enrollment.share_as.clone()?, (enrollment.site.url.clone(), id)))
    });
    of_enrollments.collect()
}

async fn ask<E: Engine>(shares: &Shares<E>, names: &BTreeMap<ShareName, Expected>) -> Vec<Row> {
    if names.is_empty() {
        return vec![Row::untested(SUBJECT, CONNECTION, "no [[enroll]] has `share_as`")];
    }
    let mut rows = Vec::new();
    for (name, expected) in names {
        let found = shares.find(name).await;
        let is_first = rows.is_empty();
        if is_first {
            rows.extend(way(found.as_ref().err()));
        }
        let found = match found {
            Ok(found) => found,
            // The others would fail in the same way, each after a while.
            Err(error) if error.is_passing() || is_about_credentials(&error) => {
                if !is_first {
                    rows.push(failed(VALUE, &error));
                }
                return rows;
            }
            Err(error) => {
                rows.push(failed(VALUE, &error));
                continue;
            }
        };
        let object = shares.object(name);
        rows.push(match found.map(|found| found.runner) {
            None => Row::ok(SUBJECT, VALUE, &format!("{object} has no runner yet: the first machine registers it")),
            Some(Ok(runner)) => of_value(&object, &runner, expected),
            Some(Err(error)) => failed(VALUE, &error),
        });
        rows.push(match shares.probe(name).await {
            Ok(()) => Row::ok(SUBJECT, RIGHTS, &format!("{object} may be written: tried without a change")),
            Err(error) => failed(RIGHTS, &error),
        });
    }
    rows
}

/// Whether the store answers, and accepts the credentials.
fn way(error: Option<&Error>) -> Vec<Row> {
    let reached = Row::ok(SUBJECT, CONNECTION, "the store answers");
    match error {
        Some(error) if error.is_passing() => vec![failed(CONNECTION, error)],
        Some(error) if is_about_credentials(error) => vec![reached, failed(CREDENTIALS, error)],
        Some(_) | None => vec![reached, Row::ok(SUBJECT, CREDENTIALS, "the store accepts them")],
    }
}

fn is_about_credentials(error: &Error) -> bool {
    matches!(error, Error::Unauthenticated { .. })
}

fn failed(check: &'static str, error: &Error) -> Row {
    Row::error(SUBJECT, check, &chain(error), of_store(error)).with_remedy(error.hint())
}

fn of_value(object: &str, runner: &SharedRunner, (url, id): &Expected) -> Row {
    let shown = runner.id.map_or_else(|| "a runner".to_owned(), |id| format!("the runner {id}"));
    let shown = format!("{object} has {shown} of {}", runner.url);
    if runner.is_other_than(url, *id) {
        let message = format!("{shown}, which is not that of this machine: it is neither used nor overwritten");
        return Row::error(SUBJECT, VALUE, &message, Exit::LocalFile).with_remedy(Some(OTHER_SHARE_REMEDY));
    }
    match &runner.token {
        Some(token) => Row::ok(
            SUBJECT,
            VALUE,
            &format!("{shown} in generation {}, members: {}", token.lineage.generation(), runner.members.len()),
        ),
        None => Row::note(SUBJECT, VALUE, &format!("{shown}, and no token of it yet")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::RowResult;
    use super::*;
    use crate::model::Origin;
    use crate::secret::SealingKey;
    use crate::sharing::Value;
    use crate::sharing::memory::MemoryEngine;

    fn name() -> ShareName {
        "docker-fleet".parse().unwrap()
    }

    fn url() -> ServerUrl {
        "https://gitlab.example.com".parse().unwrap()
    }

    async fn rows(
        store: &MemoryEngine,
        key: Option<SealingKey>,
    ) -> Vec<(&'static str, RowResult, Option<String>, Exit)> {
        let names = BTreeMap::from([(name(), (url(), RunnerId::try_new(42).ok()))]);
        let rows = ask(&Shares::new(store.clone(), key), &names).await;
        rows.into_iter().map(|row| (row.check, row.result, row.remedy, row.exit)).collect()
    }

    async fn write(store: &MemoryEngine, url: ServerUrl, id: u64) {
        let runner = SharedRunner { id: RunnerId::try_new(id).ok(), ..SharedRunner::new(url, Origin::Registered) };
        let shares = Shares::new(store.clone(), None);
        store.restore(&name(), None);
        shares.swap(&name(), None, runner).await.unwrap();
    }

    #[tokio::test]
    async fn store_that_works_has_a_line_for_the_way_the_credentials_the_value_and_the_rights() {
        let store = MemoryEngine::default();
        let checks = |rows: &[(&'static str, RowResult, Option<String>, Exit)]| {
            rows.iter().map(|(check, result, ..)| (*check, *result)).collect::<Vec<_>>()
        };
        let ok = [CONNECTION, CREDENTIALS, VALUE, RIGHTS].map(|check| (check, RowResult::Ok));
        assert_eq!(checks(&rows(&store, None).await), ok, "no value yet");
        write(&store, url(), 42).await;
        let found = checks(&rows(&store, None).await);
        assert_eq!((found[2], found.len()), ((VALUE, RowResult::Note), 4), "a runner without a token");
    }

    #[tokio::test]
    async fn what_keeps_the_store_from_being_used_is_an_error_with_a_remedy() {
        let store = MemoryEngine::default();
        let error = |rows: Vec<(&'static str, RowResult, Option<String>, Exit)>| {
            let mut errors = rows.into_iter().filter(|(_, result, ..)| *result == RowResult::Error);
            let (check, _, remedy, exit) = errors.next().unwrap();
            assert!(errors.next().is_none());
            (check, remedy.unwrap_or_default(), exit)
        };
        let other = "https://gitlab.example.org".parse().unwrap();
        for (url, id) in [(other, 42), (url(), 43)] {
            write(&store, url, id).await;
            assert_eq!(error(rows(&store, None).await), (VALUE, OTHER_SHARE_REMEDY.to_owned(), Exit::LocalFile));
        }
        store.restore(&name(), Some(Value::new(b"of another program".to_vec())));
        let (check, remedy, exit) = error(rows(&store, None).await);
        assert!(check == VALUE && remedy.contains("shared forget") && exit == Exit::LocalFile, "{remedy}");

        write(&store, url(), 42).await;
        store.deny_writes();
        let (check, remedy, exit) = error(rows(&store, None).await);
        assert!(check == RIGHTS && remedy.contains("grant the right") && exit == Exit::LocalFile, "{remedy}");

        store.stop(true);
        let stopped = rows(&store, None).await;
        assert_eq!(stopped.len(), 1, "nothing else is asked: {stopped:?}");
        assert_eq!(error(stopped), (CONNECTION, String::new(), Exit::Unreachable));
    }

    #[test]
    fn credentials_that_the_store_does_not_accept_are_told_from_a_way_that_does_not_lead_there() {
        let attempt = "the user `agent` to read the key `a`".to_owned();
        let refused = Error::Unauthenticated { engine: "etcd", attempt, detail: "no".to_owned() };
        let rows = way(Some(&refused));
        let found: Vec<_> = rows.iter().map(|row| (row.check, row.result, row.remedy.is_some())).collect();
        assert_eq!(found, [(CONNECTION, RowResult::Ok, false), (CREDENTIALS, RowResult::Error, true)]);
        assert!(rows[1].message.contains("the user `agent`") && rows[1].exit == Exit::LocalFile);
    }
}
