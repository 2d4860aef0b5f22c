//! What the commands of `shared` say of a runner, for people and for scripts.

use serde::Serialize;

use crate::cli::arguments::Output;
use crate::cli::report::Reporter;
use crate::cli::table::{Cell, Screen, Table};
use crate::cli::text::expiry_text;
use crate::model::{
    Lineage, Link, Member, Origin, RunnerId, Sender, ServerUrl, ShareName, SharedChange, SharedPending, SharedRunner,
    SystemId, Timestamp,
};
use crate::secret::Fingerprint;

/// The name of the rows in a document.
const NAME: &str = "shared";

/// A shared runner in a list.
#[derive(Debug, Serialize)]
pub(super) struct ShareRow {
    pub(super) share: ShareName,
    pub(super) url: Option<ServerUrl>,
    pub(super) id: Option<RunnerId>,
    pub(super) generation: Option<u64>,
    pub(super) token_fingerprint: Option<Fingerprint>,
    pub(super) token_expires_at: Option<Timestamp>,
    pub(super) members: Option<usize>,
    pub(super) pending: Option<PendingRow>,
    pub(super) error: Option<String>,
}

/// A change under way.
#[derive(Debug, Serialize)]
pub(super) struct PendingRow {
    pub(super) change: SharedChange,
    pub(super) machine: SystemId,
}

impl ShareRow {
    /// Nothing is known of it.
    pub(super) fn unknown(share: ShareName, error: Option<String>) -> Self {
        let (url, id, generation, token_fingerprint, token_expires_at, members, pending) = Default::default();
        Self { share, url, id, generation, token_fingerprint, token_expires_at, members, pending, error }
    }

    /// As the store has it.
    pub(super) fn of(share: ShareName, runner: &SharedRunner) -> Self {
        let token = runner.token.as_ref();
        Self {
            url: Some(runner.url.clone()),
            id: runner.id,
            generation: token.map(|token| token.lineage.generation()),
            token_fingerprint: token.map(|token| token.lineage.token().fingerprint()),
            token_expires_at: token.and_then(|token| token.credential.expiry.at()),
            members: Some(runner.members.len()),
            pending: runner.pending.as_ref().map(PendingRow::of),
            ..Self::unknown(share, None)
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let expiry = |at| expiry_text(Some(at), now).trim_start_matches("expires ").to_owned();
        vec![
            Cell::new(Some(self.share.as_str())),
            Cell::new(self.url.as_ref().map(ToString::to_string)),
            Cell::new(self.id.map(|id| id.to_string())),
            Cell::new(self.generation.map(|generation| generation.to_string())),
            Cell::new(self.token_expires_at.map(expiry)),
            Cell::new(self.members.map(|members| members.to_string())),
            Cell::new(self.pending.as_ref().map(PendingRow::text)),
        ]
    }
}

impl PendingRow {
    fn of(pending: &SharedPending) -> Self {
        Self { change: pending.change, machine: pending.sender.machine.clone() }
    }

    fn text(&self) -> String {
        format!("being {} by {}", verb(self.change), self.machine)
    }
}

/// A change for people.
fn verb(change: SharedChange) -> &'static str {
    match change {
        SharedChange::Register => "registered",
        SharedChange::Reset => "rotated",
        SharedChange::ResetById => "recovered by its id",
    }
}

const HEADINGS: [&str; 7] = ["SHARE", "URL", "ID", "GENERATION", "EXPIRES", "MEMBERS", "CHANGE"];

/// The rows as a table.
pub(super) fn table(rows: &[ShareRow], now: Timestamp) -> String {
    let mut table = Table::new(HEADINGS.map(|heading| (heading, false)).to_vec(), Screen::default());
    table.lines(&rows.iter().map(|row| row.cells(now)).collect::<Vec<_>>())
}

/// Everything about a shared runner but its token.
#[derive(Debug, Serialize)]
pub(super) struct ShareDetails {
    #[serde(flatten)]
    pub(super) row: ShareRow,
    engine: &'static str,
    object: String,
    origin: Origin,
    token_obtained_at: Option<Timestamp>,
    /// Oldest first.
    links: Vec<LinkRow>,
    machines: Vec<MemberRow>,
    recoveries: Vec<Timestamp>,
    leaving: Option<SystemId>,
    /// Whether it is another runner than that of this machine, or of another server.
    pub(super) is_another: bool,
    local: Option<LocalRow>,
}

#[derive(Debug, Serialize)]
struct LinkRow {
    generation: u64,
    token_fingerprint: Fingerprint,
}

impl From<Link> for LinkRow {
    fn from(link: Link) -> Self {
        Self { generation: link.generation, token_fingerprint: link.token.fingerprint() }
    }
}

#[derive(Debug, Serialize)]
struct MemberRow {
    machine: SystemId,
    host: String,
    joined_at: Timestamp,
}

impl From<&Member> for MemberRow {
    fn from(member: &Member) -> Self {
        Self { machine: member.machine.clone(), host: member.host.clone(), joined_at: member.joined_at }
    }
}

/// This machine's token of the runner.
#[derive(Debug, Serialize)]
pub(super) struct LocalRow {
    generation: u64,
    token_fingerprint: Fingerprint,
    /// What the store's token is, seen from this one; null if the store has none.
    store_is: Option<&'static str>,
    untold: bool,
}

impl LocalRow {
    pub(super) fn new(ours: &Lineage, relation: Option<&'static str>, untold: bool) -> Self {
        let LinkRow { generation, token_fingerprint } = ours.newest().into();
        Self { generation, token_fingerprint, store_is: relation, untold }
    }
}

impl ShareDetails {
    pub(super) fn new(
        share: ShareName,
        runner: &SharedRunner,
        (engine, object): (&'static str, String),
        local: Option<LocalRow>,
    ) -> Self {
        let token = runner.token.as_ref();
        Self {
            row: ShareRow::of(share, runner),
            engine,
            object,
            origin: runner.origin,
            token_obtained_at: token.and_then(|token| token.credential.obtained_at),
            links: token.map(|token| token.lineage.links().map(LinkRow::from).collect()).unwrap_or_default(),
            machines: runner.members.iter().map(MemberRow::from).collect(),
            recoveries: runner.recoveries.clone(),
            leaving: runner.leaving.as_ref().map(|Sender { machine, .. }| machine.clone()),
            is_another: false,
            local,
        }
    }

    /// One fact per line.
    pub(super) fn page(&self, now: Timestamp) -> String {
        let row = &self.row;
        let lines = |items: Vec<String>| items.join(&format!("\n{:<16}", ""));
        let links = self.links.iter().rev().map(|link| format!("{} ({})", link.generation, link.token_fingerprint));
        let member = |member: &MemberRow| {
            format!("{} on {}, since {}", member.machine, member.host, member.joined_at.whole_seconds())
        };
        let facts = [
            ("share", Some(row.share.to_string())),
            ("store", Some(format!("{}, {}", self.engine, self.object))),
            ("url", row.url.as_ref().map(ToString::to_string)),
            ("id", row.id.map(|id| id.to_string())),
            ("made", Some(origin(self.origin).to_owned())),
            ("generation", Some(row.generation.map_or("none yet".to_owned(), |number| number.to_string()))),
            (
                "token",
                row.token_fingerprint.map(|token| format!("{token}, {}", expiry_text(row.token_expires_at, now))),
            ),
            ("obtained", self.token_obtained_at.map(|at| at.whole_seconds().to_string())),
            ("generations", Some(lines(links.collect()))),
            ("change", row.pending.as_ref().map(PendingRow::text)),
            ("members", Some(lines(self.machines.iter().map(member).collect()))),
            ("recoveries", Some(lines(self.recoveries.iter().map(|at| at.whole_seconds().to_string()).collect()))),
            ("leaving", self.leaving.as_ref().map(ToString::to_string)),
            ("this machine", Some(self.local_text())),
        ];
        let fact = |(name, value): (&str, Option<String>)| {
            let value = value.filter(|value| !value.is_empty())?;
            Some(format!("{:<16}{}\n", format!("{name}:"), printable_lines(&value)))
        };
        facts.into_iter().filter_map(fact).collect()
    }

    fn local_text(&self) -> String {
        let another = "the store's value is of another runner or server, and is neither used nor overwritten";
        let Some(local) = &self.local else {
            return if self.is_another { another } else { "does not hold the runner" }.to_owned();
        };
        let relation = match local.store_is {
            _ if self.is_another => another,
            None => "the store has no token",
            Some("same") => "the same as in the store",
            Some("newer") => "the store's is newer",
            Some("older") => "the store's is older",
            Some(_) => "neither it nor the store's grew from the other",
        };
        let untold = if local.untold { ", and the store does not know of it yet" } else { "" };
        format!("generation {} ({}): {relation}{untold}", local.generation, local.token_fingerprint)
    }
}

/// How the runner was made.
fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Registered => "with a registration token",
        Origin::Given => "in GitLab",
        Origin::V1 => "by the API v1",
    }
}

fn printable_lines(text: &str) -> String {
    text.lines().map(crate::cli::text::printable).collect::<Vec<_>>().join("\n")
}

/// Writes rows in the requested format; `text` makes the one for people.
pub(super) fn write(reporter: &Reporter, rows: &[impl Serialize], text: impl FnOnce() -> String) {
    match reporter.output() {
        Output::Text => reporter.answer(&text()),
        Output::Json => reporter.document(NAME, rows.iter()),
        Output::Jsonl => reporter.lines(rows.iter()),
    }
}
