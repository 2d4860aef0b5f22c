//! Each runner's token: its kind, whether the server accepts it, and whether it can be rotated.

use std::borrow::Cow;

use tokio::task::JoinSet;

use super::super::context::Context;
use super::super::error::of_class;
use super::super::text::{expiry_text, label};
use super::super::{Error, Exit};
use super::row::Row;
use super::servers::is_reachable;
use crate::engine::{Config, Inventory, ManagedRunner, expired_text, planned_report, record_report, rules};
use crate::error_chain::chain;
use crate::gitlab::{self, Answer, Client, Disposition, Info, Verified};
use crate::limits::operations_at_once;
use crate::model::{Report, RotationRule, RunnerReport, ServerUrl, Site, StateName, SystemId, Timestamp, format_span};
use crate::secret::{Token, TokenPurpose};
use crate::store::Store;

/// What the runners are examined with.
pub(super) struct Patient<'a> {
    pub(super) config: &'a Config,
    pub(super) store: Option<&'a Store>,
    /// The servers at which a GitLab answers.
    pub(super) reachable: &'a [Site],
    pub(super) info: Info,
    /// What the daemon says, if it runs.
    pub(super) daemon: Option<&'a Report>,
}

impl Patient<'_> {
    /// Why the daemon has not registered a runner that it wants to.
    fn failure_of(&self, managed: &ManagedRunner) -> Option<&str> {
        let wanted = &managed.enrollment.as_deref()?.entry.name;
        let url = &managed.runner.record.url;
        let is_it = |runner: &&RunnerReport| runner.name.as_ref() == Some(wanted) && runner.url.as_ref() == Some(url);
        self.daemon?.runners.iter().find(is_it)?.error.as_deref()
    }
}

/// The server's answer about a token; `None` if it was not asked, for this reason.
enum Asked {
    Answered(Result<Answer<Verified>, gitlab::Error>),
    NotAsked(NotAsked),
}

impl Asked {
    /// The server's time, by which its tokens expire; else this machine's.
    fn now(&self, local: Timestamp) -> Timestamp {
        let date = match self {
            Self::Answered(Ok(answer)) => answer.date,
            Self::Answered(Err(error)) => error.date(),
            Self::NotAsked(_) => None,
        };
        date.unwrap_or(local)
    }
}

/// Why the server was not asked.
struct NotAsked {
    why: Cow<'static, str>,
    /// How to have it asked; `None` if the reason says it.
    remedy: Option<&'static str>,
    exit: Exit,
}

impl NotAsked {
    fn new(why: impl Into<Cow<'static, str>>, exit: Exit) -> Self {
        Self { why: why.into(), remedy: None, exit }
    }
}

/// What was found about the runners.
pub(super) struct Examined {
    pub(super) rows: Vec<Row>,
    /// The servers that have accepted a token, and whether in the way of a release before 15.9.
    pub(super) releases: Vec<(ServerUrl, bool)>,
}

/// Verifies each token once, as gitlab-runner does. The answer is reported and not stored: it changes nothing.
pub(super) async fn examine(
    context: &Context<'_>,
    client: &Client,
    patient: &Patient<'_>,
    inventory: &Inventory,
) -> Result<Examined, Error> {
    let system_id = match patient.store {
        Some(store) => store.expected_system_id().await?,
        None => None,
    };
    let mut waiting = inventory.runners.iter().enumerate();
    let (mut tasks, mut answers) = (JoinSet::new(), Vec::new());
    answers.resize_with(inventory.runners.len(), || None);
    loop {
        while tasks.len() < operations_at_once()
            && let Some((position, managed)) = waiting.next()
        {
            let request = match request(managed, patient, system_id.as_ref()) {
                Ok(request) => request,
                Err(reason) => {
                    answers[position] = Some(Asked::NotAsked(reason));
                    continue;
                }
            };
            let (client, info) = (client.clone(), patient.info.clone());
            tasks.spawn_local(async move {
                let (site, token, system_id) = request;
                (position, client.verify(&site, &token, &system_id, Some(&info)).await)
            });
        }
        match tasks.join_next().await {
            Some(Ok((position, answer))) => answers[position] = Some(Asked::Answered(answer)),
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => break,
        }
    }
    let now = context.now();
    let mut examined = Examined { rows: Vec::new(), releases: Vec::new() };
    for (managed, asked) in inventory.runners.iter().zip(answers) {
        let asked = asked.unwrap_or(Asked::NotAsked(NotAsked::new("it was not asked about", Exit::Failed)));
        let rows = rows(managed, &asked, patient.config, system_id.as_ref(), now);
        examined.rows.extend(rows.into_iter().map(Row::of_runner));
        if let Asked::Answered(Ok(answer)) = &asked {
            let release = (managed.runner.site.url.clone(), answer.value.legacy);
            if !examined.releases.contains(&release) {
                examined.releases.push(release);
            }
        }
    }
    Ok(examined)
}

/// How to find out whether a token registers a runner.
const REGISTER: &str = "whether its token is good shows when it registers: start the daemon, then `runner-agent status --wait ready`; or `runner-agent run --once`";

/// The same while a daemon runs.
const WAIT: &str = "`runner-agent status --wait ready` waits until the daemon has registered it";

/// What to ask about a runner, or why nothing is asked.
fn request(
    managed: &ManagedRunner,
    patient: &Patient<'_>,
    system_id: Option<&SystemId>,
) -> Result<(Site, Token, SystemId), NotAsked> {
    let runner = &managed.runner;
    if runner.is_unregistered() {
        let remedy = managed.enrollment.is_some().then_some("the next start of the daemon registers it anew");
        return Err(NotAsked { remedy, ..NotAsked::new("it was unregistered here", Exit::Done) });
    }
    // A verification would make this machine's manager again.
    if runner.record.state == Some(StateName::Retired) {
        let why = "it was unregistered here, and a verification would make its manager again";
        return Err(NotAsked {
            remedy: Some("the next start of the daemon takes it up again"),
            ..NotAsked::new(why, Exit::Done)
        });
    }
    let Some(credential) = &runner.record.credential else {
        if let Some(failure) = patient.failure_of(managed) {
            let exit = if is_reachable(patient.reachable, &runner.site) { Exit::Refused } else { Exit::Unreachable };
            return Err(NotAsked::new(format!("the daemon cannot register it: {failure}"), exit));
        }
        let remedy = if patient.daemon.is_some() { WAIT } else { REGISTER };
        return Err(NotAsked { remedy: Some(remedy), ..NotAsked::new("it is not registered yet", Exit::Done) });
    };
    if let Err(wrong) = TokenPurpose::Runner.check(&credential.token) {
        return Err(NotAsked::new(format!("its token is of another kind, and is not sent: {wrong}"), Exit::Usage));
    }
    if !is_reachable(patient.reachable, &runner.site) {
        return Err(NotAsked::new("its server could not be asked", Exit::Unreachable));
    }
    let Some(system_id) = system_id else {
        return Err(NotAsked::new("this machine has no system_id yet: `runner-agent verify` makes one", Exit::Done));
    };
    Ok((runner.site.clone(), credential.token.clone(), system_id.clone()))
}

fn rows(
    managed: &ManagedRunner,
    asked: &Asked,
    config: &Config,
    system_id: Option<&SystemId>,
    now: Timestamp,
) -> Vec<Row> {
    let (runner, now) = (&managed.runner, asked.now(now));
    let wanted = managed.enrollment.as_ref().map(|enrollment| enrollment.entry.name.clone());
    let report = record_report(runner, now);
    let report = RunnerReport { name: report.name.clone().or(wanted), ..report };
    let subject = format!("runner {}", label(&report));
    let kind = runner.record.credential.as_ref().map(|credential| kind(&credential.token));
    let with_kind = |text: &str| kind.as_ref().map_or_else(|| text.to_owned(), |kind| format!("{kind}: {text}"));
    let token = match asked {
        Asked::NotAsked(NotAsked { why, remedy, exit: Exit::Done }) => {
            Row::untested(&subject, "token", why).with_remedy(*remedy)
        }
        Asked::NotAsked(NotAsked { why, exit, .. }) => Row::error(&subject, "token", &with_kind(why), *exit),
        Asked::Answered(Err(error)) => {
            let is_refused = error.disposition() == Disposition::Refused;
            let validity = runner.validity(now).filter(|_| is_refused);
            let expired = expired_text(&runner.record, validity.as_ref(), managed.enrollment.as_deref(), now);
            Row::error(&subject, "token", &with_kind(&chain(error).to_string()), of_class(error.class()))
                .with_remedy(expired.as_deref().or(error.hint()))
        }
        Asked::Answered(Ok(answer)) => {
            let Verified { id, expiry, legacy } = answer.value;
            let expires = if legacy {
                "the server does not say when it expires: it is a GitLab before 15.9".to_owned()
            } else {
                expiry_text(expiry.at(), now)
            };
            match (id, runner.record.id) {
                (Some(id), Some(known)) if id != known => {
                    let message = with_kind(&format!("accepted, but for runner {id} instead of {known}"));
                    Row::warning(&subject, "token", &message)
                        .with_remedy(Some("correct the id in config.toml, or put that runner's own token there"))
                }
                _ => Row::ok(&subject, "token", &with_kind(&format!("accepted, {expires}"))),
            }
        }
    };
    let can_be_good =
        matches!(asked, Asked::Answered(Ok(_)) | Asked::NotAsked(NotAsked { exit: Exit::Unreachable, .. }));
    let rotation =
        system_id.filter(|_| can_be_good).map(|system_id| rotation(&subject, managed, asked, config, system_id, now));
    std::iter::once(token).chain(rotation).collect()
}

fn kind(token: &Token) -> String {
    token.class().map_or_else(|| "a token without GitLab's prefix".to_owned(), |class| class.to_string())
}

/// Whether the token can be rotated, by its expiry, its record and the server's release. No reset is sent.
fn rotation(
    subject: &str,
    managed: &ManagedRunner,
    asked: &Asked,
    config: &Config,
    system_id: &SystemId,
    now: Timestamp,
) -> Row {
    let runner = &managed.runner;
    let rules = rules(config, runner, managed.enrollment.as_deref(), system_id);
    let state = runner.initial_state(&config.timing, now);
    let report = planned_report(runner, &state, &rules, now);
    let answered = match asked {
        Asked::Answered(Ok(answer)) => Some(answer.value),
        Asked::Answered(Err(_)) | Asked::NotAsked(_) => None,
    };
    let expires_at = answered.and_then(|verified| verified.expiry.at()).or(report.token_expires_at);
    if runner.record.state == Some(StateName::NotRenewable) || report.state == StateName::NotRenewable {
        return Row::warning(subject, "rotation", "the server has refused to renew the token: it ends with its expiry")
            .with_remedy(Some("create a new runner in GitLab before that, or ask for a later rotation deadline"));
    }
    if runner.variable.is_some() {
        return Row::warning(subject, "rotation", "the token comes from a variable, which cannot be rewritten")
            .with_remedy(Some("write the token itself into config.toml"));
    }
    let Some(expires_at) = expires_at else {
        let why = match answered {
            Some(Verified { legacy: true, .. }) => "no expiry is known from this release of GitLab: it is not rotated",
            _ => "the token does not expire: it need not be rotated",
        };
        return Row::note(subject, "rotation", why);
    };
    if expires_at <= now && answered.is_some() {
        let ago = format_span(now.since(expires_at));
        let message = format!("the server accepts the token, which by the server's clock expired {ago} ago");
        return Row::warning(subject, "rotation", &message)
            .with_remedy(Some("correct the server's clock: the agent goes by the expiry and this machine's clock"));
    }
    if expires_at <= now {
        let remedy = "register the runner again, or rotate it with an access token: `runner-agent rotate --pat-file`";
        return Row::error(subject, "rotation", "the token has expired, and cannot rotate itself", Exit::Refused)
            .with_remedy(Some(remedy));
    }
    match report.rotation {
        Some(planned) if planned.rule == RotationRule::Off => {
            Row::warning(subject, "rotation", "switched off by the settings or by the entry, and the token expires")
        }
        Some(planned) => match planned.at {
            Some(at) if at > now => {
                Row::ok(subject, "rotation", &format!("due {} (in {})", at.whole_seconds(), format_span(at.since(now))))
            }
            Some(_) => Row::note(subject, "rotation", "due now"),
            None => Row::ok(subject, "rotation", "planned once the daemon has verified the token"),
        },
        None => Row::note(subject, "rotation", "not planned"),
    }
}
