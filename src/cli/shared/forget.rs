//! `shared forget`: removes a shared runner from the store, or one of its members.

use serde_json::{Value, json};

use super::arguments::ForgetArguments;
use super::rows::{ShareDetails, write};
use super::session::StoreSession;
use crate::cli::confirm::ask_to_confirm;
use crate::cli::context::Context;
use crate::cli::interrupt::Interrupt;
use crate::cli::{Error, Exit};
use crate::error_chain::chain;
use crate::model::{Member, ShareName, SharedRunner, SystemId, Timestamp};
use crate::sharing::{Engine, Found, Shares, Stored, Swapped};

/// How often a removal is tried that other machines' writes get before.
const ATTEMPTS: u32 = 5;

/// Removes it, once the user has seen it and confirmed that.
pub(super) async fn forget(
    context: &Context<'_>,
    arguments: &ForgetArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    let settings = context.command_settings()?;
    settings.log_warnings();
    let session = StoreSession::open(context, &settings, interrupt).await?;
    let (shares, name) = (&session.shares, &arguments.name);
    let removed = match &arguments.member {
        Some(machine) => {
            let Some((stored, member)) = session.ask(member(shares, name, machine)).await? else {
                return Ok(answer(&session, name, &Removed::nothing(format!("{machine} is no member"))));
            };
            if !arguments.yes {
                let Member { machine, host, joined_at } = &member;
                session.reporter.remark(&format!(
                    "This will remove the machine {machine} ({host}, since {}) from the members of the shared runner `{name}`. If it still runs, it joins again.",
                    joined_at.whole_seconds()
                ));
                ask_to_confirm(session.interrupt(), "confirm with --yes").await?;
            }
            session.ask(remove_member(shares, name, machine, stored)).await?
        }
        None => {
            let Some(found) = session.ask(async { Ok(shares.find(name).await?) }).await? else {
                return Ok(answer(&session, name, &Removed::nothing("was already gone".to_owned())));
            };
            if !arguments.yes {
                let shown = shown(&found, name, (session.engine, shares.object(name)), context.now());
                shown.lines().for_each(|line| session.reporter.remark(line));
                ask_to_confirm(session.interrupt(), "confirm with --yes").await?;
            }
            session.ask(remove(shares, name, &found)).await?
        }
    };
    Ok(answer(&session, name, &removed))
}

/// What was removed.
#[derive(Debug)]
struct Removed {
    /// The result for people.
    line: String,
    /// The `action` in JSON.
    action: &'static str,
    runner: Option<SharedRunner>,
    member: Option<SystemId>,
}

impl Removed {
    fn nothing(line: String) -> Self {
        Self { line, action: "unchanged", runner: None, member: None }
    }
}

/// What stands there, and what goes on once it is removed.
fn shown(found: &Found, name: &ShareName, place: (&'static str, String), now: Timestamp) -> String {
    let object = place.1.clone();
    match &found.runner {
        Ok(runner) => {
            let page = ShareDetails::new(name.clone(), runner, place, None).page(now);
            format!("This will remove the shared runner `{name}` from the store:\n{page}{}", consequence(runner))
        }
        Err(error) => format!(
            "This will remove {object} ({} bytes) although it is no shared runner that this machine can read: {}",
            found.bytes(),
            chain(error)
        ),
    }
}

/// What stays.
fn consequence(runner: &SharedRunner) -> String {
    let id = runner.id.map(|id| format!("runner {id}")).unwrap_or_else(|| "the runner".to_owned());
    let machines = match runner.members.len() {
        0 => String::new(),
        1 => "; the machine that shares it keeps its token, and writes it into the store again while its settings name the share".to_owned(),
        number => format!("; the {number} machines that share it keep its token, and write it into the store again while their settings name the share"),
    };
    format!("{id} stays in GitLab ({}){machines}", runner.url)
}

/// Removes what was shown, and nothing else.
async fn remove<E: Engine>(shares: &Shares<E>, name: &ShareName, found: &Found) -> Result<Removed, Error> {
    if !shares.remove_found(name, found).await? {
        return Err(Error::Verdict {
            exit: Exit::Failed,
            message: format!("{} has changed meanwhile, and was not removed", shares.object(name)),
            hint: Some("look at it again with `shared show`, and repeat the command".to_owned()),
        });
    }
    let runner = found.runner.as_ref().ok().cloned();
    let stays = runner.as_ref().map(|runner| format!("; {}", consequence(runner))).unwrap_or_default();
    Ok(Removed { line: format!("removed from the store{stays}"), action: "forgotten", runner, member: None })
}

/// The value, and the member of it; `None` if the machine is none.
async fn member<E: Engine>(
    shares: &Shares<E>,
    name: &ShareName,
    machine: &SystemId,
) -> Result<Option<(Stored, Member)>, Error> {
    let Some(stored) = shares.read(name).await? else { return Ok(None) };
    let member = stored.runner.members.iter().find(|member| member.machine == *machine).cloned();
    Ok(member.map(|member| (stored, member)))
}

/// Takes a machine out of the members, whatever else other machines write meanwhile.
async fn remove_member<E: Engine>(
    shares: &Shares<E>,
    name: &ShareName,
    machine: &SystemId,
    mut stored: Stored,
) -> Result<Removed, Error> {
    for _ in 0..ATTEMPTS {
        let mut next = stored.runner.clone();
        next.members.retain(|member| member.machine != *machine);
        match shares.swap(name, Some(&stored), next).await? {
            Swapped::Done(stored) => {
                let left = stored.runner.members.len();
                let line = format!("the machine {machine} is no member any more; {left} left");
                let (runner, member) = (Some(stored.runner), Some(machine.clone()));
                return Ok(Removed { line, action: "forgotten", runner, member });
            }
            Swapped::Lost => match member(shares, name, machine).await? {
                Some((changed, _)) => stored = changed,
                None => return Ok(Removed::nothing(format!("{machine} is no member"))),
            },
        }
    }
    Err(Error::Verdict {
        exit: Exit::Unreachable,
        message: format!("{} is being changed by other machines all the time", shares.object(name)),
        hint: Some("try again".to_owned()),
    })
}

fn answer(session: &StoreSession, name: &ShareName, removed: &Removed) -> Exit {
    let runner = removed.runner.as_ref();
    let row: Value = json!({
        "share": name,
        "url": runner.map(|runner| &runner.url),
        "id": runner.and_then(|runner| runner.id),
        "member": removed.member.as_ref().map(ToString::to_string),
        "action": removed.action,
        "error": null,
    });
    write(&session.reporter, &[row], || format!("shared runner `{name}`: {}\n", removed.line));
    Exit::Done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::shared::tests::{name, now, runner};
    use crate::sharing::Value;
    use crate::sharing::memory::MemoryEngine;

    async fn stored(runner: SharedRunner) -> (MemoryEngine, Shares<MemoryEngine>, ShareName) {
        let engine = MemoryEngine::default();
        let (shares, name) = (Shares::new(engine.clone(), None), name("docker-fleet"));
        shares.swap(&name, None, runner).await.unwrap();
        (engine, shares, name)
    }

    #[tokio::test]
    async fn removed_is_what_was_shown_and_nothing_else() {
        let (engine, shares, name) = stored(runner()).await;
        let found = shares.find(&name).await.unwrap().unwrap();
        let text = shown(&found, &name, ("etcd", "the key".to_owned()), now());
        assert!(text.contains("host-a") && text.contains("runner 42 stays in GitLab"), "{text}");
        assert!(!text.contains("glrt-"), "{text}");
        let before = shares.read(&name).await.unwrap().unwrap();
        shares.swap(&name, Some(&before), runner()).await.unwrap();
        let error = remove(&shares, &name, &found).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Failed);
        assert!(engine.value_of(&name).is_some());
        let found = shares.find(&name).await.unwrap().unwrap();
        let removed = remove(&shares, &name, &found).await.unwrap();
        assert!(removed.line.contains("the 2 machines that share it keep its token"), "{removed:?}");
        assert_eq!(engine.value_of(&name), None);
    }

    #[tokio::test]
    async fn value_that_cannot_be_read_can_be_removed() {
        let (engine, shares, name) = stored(runner()).await;
        engine.restore(&name, Some(Value::new(b"glrt-of-another-program".to_vec())));
        let found = shares.find(&name).await.unwrap().unwrap();
        let text = shown(&found, &name, ("etcd", "the key".to_owned()), now());
        assert!(text.starts_with("This will remove the key (23 bytes) although"), "{text}");
        assert!(!text.contains("glrt-"), "{text}");
        assert!(remove(&shares, &name, &found).await.unwrap().runner.is_none());
        assert_eq!(engine.value_of(&name), None);
    }

    #[tokio::test]
    async fn one_member_goes_whatever_others_write_meanwhile() {
        let (_, shares, name) = stored(runner()).await;
        let machine = "s_bbbbbbbbbbbb".parse().unwrap();
        let (before, _) = member(&shares, &name, &machine).await.unwrap().unwrap();
        let changed = SharedRunner { pending: None, ..runner() };
        shares.swap(&name, Some(&before), changed).await.unwrap();
        let removed = remove_member(&shares, &name, &machine, before).await.unwrap();
        assert_eq!(removed.line, "the machine s_bbbbbbbbbbbb is no member any more; 1 left");
        let stored = shares.read(&name).await.unwrap().unwrap().runner;
        assert_eq!((stored.members.len(), stored.pending), (1, None));
        assert!(member(&shares, &name, &machine).await.unwrap().is_none());
    }
}
