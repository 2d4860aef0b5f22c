//! `shared list`: the shared runners that the settings name, as the store has them.

use std::collections::BTreeSet;

use super::rows::{ShareRow, table, write};
use super::session::StoreSession;
use crate::cli::context::Context;
use crate::cli::interrupt::Interrupt;
use crate::cli::{Error, Exit};
use crate::error_chain::chain;
use crate::model::ShareName;
use crate::sharing::{Engine, Shares};

/// Lists them. One that cannot be read fails the command, and hides no other one.
pub(super) async fn list(context: &Context<'_>, interrupt: Interrupt) -> Result<Exit, Error> {
    let settings = context.command_settings()?;
    settings.log_warnings();
    let names = settings.engine.enrollments.iter().filter_map(|it| it.share_as.clone());
    let names: Vec<_> = names.collect::<BTreeSet<_>>().into_iter().collect();
    if names.is_empty() {
        write(context.reporter, &[] as &[ShareRow], || "no shared runners in agent.toml\n".to_owned());
        return Ok(Exit::Done);
    }
    let session = StoreSession::open(context, &settings, interrupt).await?;
    let (rows, errors) = session.ask(async { Ok(read(&session.shares, names).await) }).await?;
    if rows.len() == 1 && !session.reporter.is_json() {
        // Its table would be empty.
        if let Some(error) = errors.into_iter().next() {
            return Err(error);
        }
        write(&session.reporter, &rows, || table(&rows, context.now()));
        return Ok(Exit::Done);
    }
    write(&session.reporter, &rows, || table(&rows, context.now()));
    let mut exits: Vec<_> = errors.iter().map(Error::exit).collect();
    for (error, row) in errors.iter().zip(rows.iter().filter(|row| row.error.is_some())) {
        session.reporter.remark(&format!("error: shared runner `{}`: {}", row.share, chain(error)));
        if let Some(hint) = error.hint() {
            session.reporter.remark(&format!("hint: {hint}"));
        }
    }
    exits.resize(rows.len(), Exit::Done);
    Ok(Exit::of_all(&exits))
}

/// The rows, and the errors of those that have one, in the same order.
async fn read<E: Engine>(shares: &Shares<E>, names: Vec<ShareName>) -> (Vec<ShareRow>, Vec<Error>) {
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match shares.read(&name).await {
            Ok(Some(stored)) => rows.push(ShareRow::of(name, &stored.runner)),
            Ok(None) => rows.push(ShareRow::unknown(name, None)),
            Err(error) => {
                let error = Error::from(error);
                rows.push(ShareRow::unknown(name, Some(chain(&error))));
                errors.push(error);
            }
        }
    }
    (rows, errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::shared::tests::{name, now, runner};
    use crate::model::SharedRunner;
    use crate::sharing::Value;
    use crate::sharing::memory::MemoryEngine;

    #[tokio::test]
    async fn unreadable_runner_hides_no_other_one() {
        let engine = MemoryEngine::default();
        let shares = Shares::new(engine.clone(), None);
        shares.swap(&name("docker-fleet"), None, runner()).await.unwrap();
        let registering = SharedRunner { id: None, token: None, members: Vec::new(), ..runner() };
        shares.swap(&name("new"), None, registering).await.unwrap();
        engine.swap(&name("foreign"), None, Some(&Value::new(b"of another program".to_vec()))).await.unwrap();
        let names = ["docker-fleet", "foreign", "new", "none"].map(name).to_vec();
        let (rows, errors) = read(&shares, names).await;
        insta::assert_snapshot!(table(&rows, now()), @r"
        SHARE         URL                         ID  GENERATION  EXPIRES                       MEMBERS  CHANGE
        docker-fleet  https://gitlab.example.com  42  2           2027-01-01T04:00:00Z (in 4h)  2        being rotated by s_cccccccccccc
        foreign       -                           -   -           -                             -        -
        new           https://gitlab.example.com  -   -           -                             0        being rotated by s_cccccccccccc
        none          -                           -   -           -                             -        -
        ");
        assert_eq!(errors.iter().map(Error::exit).collect::<Vec<_>>(), [Exit::LocalFile]);
        assert_eq!(rows[1].error, Some(chain(&errors[0])));
        insta::assert_snapshot!(serde_json::to_string_pretty(&rows[0]).unwrap(), @r#"
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
          "error": null
        }
        "#);
        engine.stop(true);
        let (_, errors) = read(&shares, vec![name("none")]).await;
        assert_eq!(errors[0].exit(), Exit::Unreachable);
    }
}
