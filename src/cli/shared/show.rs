//! `shared show`: everything that the store has of a shared runner but its token, beside this machine's token.

use super::arguments::ShowSharedArguments;
use super::rows::{LocalRow, ShareDetails, write};
use super::session::{StoreSession, not_there};
use crate::cli::context::Context;
use crate::cli::interrupt::Interrupt;
use crate::cli::list::open;
use crate::cli::{Error, Exit};
use crate::error_chain::chain;
use crate::lifecycle::sharing::Relation;
use crate::model::{Lineage, RecordedShare, RunnerId, ServerUrl, ShareName};
use crate::ops::OTHER_SHARE_REMEDY;
use crate::settings::Settings;
use crate::sharing::{Engine, Shares};
use crate::store;

/// Shows it.
pub(super) async fn show(
    context: &Context<'_>,
    arguments: &ShowSharedArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    let settings = context.command_settings()?;
    settings.log_warnings();
    let session = StoreSession::open(context, &settings, interrupt).await?;
    let local = match recorded(settings.store.clone(), &arguments.name).await {
        Ok(local) => local,
        Err(error) => {
            tracing::warn!(error = chain(&error), "cannot read this machine's own record of the shared runner");
            None
        }
    };
    let local = local.or_else(|| expected(&settings, &arguments.name));
    let details = details(&session.shares, session.engine, &arguments.name, local.as_ref());
    let details = session.ask(details).await?;
    write(&session.reporter, std::slice::from_ref(&details), || details.page(context.now()));
    if details.is_another {
        session.reporter.remark(&format!("hint: {OTHER_SHARE_REMEDY}"));
    }
    Ok(Exit::Done)
}

/// What this machine knows of the runner.
pub(super) struct Local {
    url: ServerUrl,
    /// That the server has named.
    id: Option<RunnerId>,
    lineage: Option<Lineage>,
    is_untold: bool,
}

/// What the records of this machine say of the runner.
async fn recorded(config: store::Config, name: &ShareName) -> Result<Option<Local>, Error> {
    let records = open(config)?.records().await?.records.into_iter();
    let mut locals = records.filter_map(|record| {
        let id = record.named_id();
        let RecordedShare { lineage, is_untold, .. } = *record.shared.filter(|shared| shared.name == *name)?;
        Some(Local { url: record.url, id, lineage, is_untold })
    });
    Ok(locals.next())
}

/// What the settings of this machine say of it.
fn expected(settings: &Settings, name: &ShareName) -> Option<Local> {
    let enrollment = settings.engine.enrollments.iter().find(|wanted| wanted.share_as.as_ref() == Some(name))?;
    Some(Local { url: enrollment.site.url.clone(), id: None, lineage: None, is_untold: false })
}

/// Reads the store's value.
pub(super) async fn details<E: Engine>(
    shares: &Shares<E>,
    engine: &'static str,
    name: &ShareName,
    local: Option<&Local>,
) -> Result<ShareDetails, Error> {
    let object = shares.object(name);
    let Some(stored) = shares.read(name).await? else { return Err(not_there(name, &object)) };
    let lineage = stored.runner.token.as_ref().map(|token| &token.lineage);
    let is_another = local.is_some_and(|local| stored.runner.is_other_than(&local.url, local.id));
    let local = local.and_then(|local| Some((local.lineage.as_ref()?, local.is_untold)));
    let relation = |ours: &Lineage| lineage.map(|stored| Relation::of(ours, stored).as_str());
    let local = local.map(|(ours, untold)| LocalRow::new(ours, relation(ours), untold));
    let mut details = ShareDetails::new(name.clone(), &stored.runner, (engine, object), local);
    details.is_another = is_another;
    Ok(details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::shared::tests::{name, now, runner, token};
    use crate::model::SharedRunner;
    use crate::sharing::memory::MemoryEngine;

    fn recorded(lineage: Lineage) -> Local {
        let SharedRunner { url, id, .. } = runner();
        Local { url, id, lineage: Some(lineage), is_untold: false }
    }

    async fn shown(runner: SharedRunner, local: Option<Local>) -> ShareDetails {
        let shares = Shares::new(MemoryEngine::default(), None);
        shares.swap(&name("docker-fleet"), None, runner).await.unwrap();
        details(&shares, "etcd", &name("docker-fleet"), local.as_ref()).await.unwrap()
    }

    #[tokio::test]
    async fn everything_is_shown_but_the_token() {
        let local = Lineage::first(token("glrt-first").digest());
        let details = shown(runner(), Some(recorded(local))).await;
        let (page, json) = (details.page(now()), serde_json::to_string_pretty(&details).unwrap());
        insta::assert_snapshot!(page, @r"
        share:          docker-fleet
        store:          etcd, value `docker-fleet`
        url:            https://gitlab.example.com
        id:             42
        made:           with a registration token
        generation:     2
        token:          197a6d4a, expires 2027-01-01T04:00:00Z (in 4h)
        obtained:       2026-12-31T20:00:00Z
        generations:    2 (197a6d4a)
                        1 (2415b316)
        change:         being rotated by s_cccccccccccc
        members:        s_aaaaaaaaaaaa on host-a, since 2026-12-31T00:00:00Z
                        s_bbbbbbbbbbbb on host-b?[2J, since 2026-12-31T00:00:00Z
        recoveries:     2026-12-30T00:00:00Z
        leaving:        s_cccccccccccc
        this machine:   generation 1 (2415b316): the store's is newer
        ");
        insta::assert_snapshot!(json, @r#"
        {
          "share": "docker-fleet",
          "url": "https://gitlab.example.com",
          "id": 42,
          "generation": 2,
          "token_fingerprint": "197a6d4a",
          "token_expires_at": "2027-01-01T04:00:00Z",
          "members": 2,
          "pending": {
            "change": "reset",
            "machine": "s_cccccccccccc"
          },
          "error": null,
          "engine": "etcd",
          "object": "value `docker-fleet`",
          "origin": "registered",
          "token_obtained_at": "2026-12-31T20:00:00Z",
          "links": [
            {
              "generation": 1,
              "token_fingerprint": "2415b316"
            },
            {
              "generation": 2,
              "token_fingerprint": "197a6d4a"
            }
          ],
          "machines": [
            {
              "machine": "s_aaaaaaaaaaaa",
              "host": "host-a",
              "joined_at": "2026-12-31T00:00:00Z"
            },
            {
              "machine": "s_bbbbbbbbbbbb",
              "host": "host-b\u001b[2J",
              "joined_at": "2026-12-31T00:00:00Z"
            }
          ],
          "recoveries": [
            "2026-12-30T00:00:00Z"
          ],
          "leaving": "s_cccccccccccc",
          "is_another": false,
          "local": {
            "generation": 1,
            "token_fingerprint": "2415b316",
            "store_is": "newer",
            "untold": false
          }
        }
        "#);
        assert!(!format!("{page}{json}{details:?}").contains("glrt-"), "{details:?}");
    }

    #[tokio::test]
    async fn own_token_is_compared_with_the_one_in_the_store() {
        let first = || Lineage::first(token("glrt-first").digest());
        let second = first().with_next(token("glrt-second").digest());
        for (ours, expected) in [
            (second.clone(), "the same as in the store"),
            (first(), "the store's is newer"),
            (second.with_next(token("glrt-third").digest()), "the store's is older"),
            (second.over(&first(), token("glrt-second").digest()), "the store's is older"),
            (first().with_next(token("glrt-other").digest()), "neither it nor the store's grew from the other"),
        ] {
            let page = shown(runner(), Some(recorded(ours))).await.page(now());
            assert!(page.contains(&format!("): {expected}\n")), "{expected}: {page}");
        }
        let page = shown(SharedRunner { token: None, ..runner() }, Some(recorded(first()))).await.page(now());
        assert!(page.contains("the store has no token"), "{page}");
        assert!(shown(runner(), None).await.page(now()).contains("does not hold the runner"));
    }

    #[tokio::test]
    async fn value_of_another_runner_or_server_is_said_to_be_one() {
        let another = "the store's value is of another runner or server, and is neither used nor overwritten";
        let ours = || recorded(Lineage::first(token("glrt-first").digest()));
        let url = || "https://gitlab.example.org".parse().unwrap();
        let id = Some(RunnerId::try_new(43).unwrap());
        for local in
            [Local { id, ..ours() }, Local { url: url(), ..ours() }, Local { url: url(), lineage: None, ..ours() }]
        {
            let details = shown(runner(), Some(local)).await;
            assert!(details.is_another && details.page(now()).contains(another), "{}", details.page(now()));
        }
        // A machine that has not registered yet.
        let details = shown(runner(), Some(Local { id: None, lineage: None, ..ours() })).await;
        assert!(!details.is_another && details.page(now()).contains("does not hold the runner"), "{details:?}");
    }

    #[tokio::test]
    async fn missing_runner_fails_with_the_name_of_its_object() {
        let shares = Shares::new(MemoryEngine::default(), None);
        let error = details(&shares, "etcd", &name("none"), None).await.unwrap_err();
        assert_eq!(
            (error.exit(), chain(&error).as_str()),
            (Exit::Failed, "the store has no shared runner `none`: value `none` has no value")
        );
    }
}
