//! The JSON form of a shared runner.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Error, Value};
use crate::model::{
    Credential, Expiry, Lineage, Link, Member, Origin, RunnerId, Sender, ServerUrl, ShareName, SharedChange,
    SharedPending, SharedRunner, SharedToken, SystemId, Timestamp,
};
use crate::secret::{Digest, Fingerprint, SealingError, SealingKey, Token, random_bits};

/// Incremented with every change of the fields; other schemas are rejected. A version that does not know a field would
/// write the value without it.
const SCHEMA: u32 = 1;

/// The value that a store holds.
#[derive(Serialize, Deserialize)]
pub(super) struct Wire {
    schema: u32,
    /// Drawn for each write: no two writes have the same bytes, and a swap finds out about each.
    write: String,
    share_as: String,
    url: ServerUrl,
    id: Option<RunnerId>,
    origin: Origin,
    token: Option<WireToken>,
    #[serde(default)]
    changed_by: Option<String>,
    pending: Option<WirePending>,
    members: Vec<WireMember>,
    recoveries: Vec<Timestamp>,
    leaving: Option<WireSender>,
}

#[derive(Serialize, Deserialize)]
struct WireToken {
    #[serde(flatten)]
    text: WireText,
    obtained_at: Option<Timestamp>,
    /// Absent if it is unknown, null if the token never expires.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    expires_at: Option<Option<Timestamp>>,
    /// Oldest first; the last one is that of the token.
    links: Vec<(u64, Digest)>,
}

/// A missing field is `None`, null is `Some(None)`.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Timestamp>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireText {
    Plain(Zeroizing<String>),
    Sealed { key: Fingerprint, text: String },
}

#[derive(Serialize, Deserialize)]
struct WireSender {
    machine: String,
    boot: String,
}

#[derive(Serialize, Deserialize)]
struct WirePending {
    change: SharedChange,
    #[serde(flatten)]
    sender: WireSender,
    token: Option<Digest>,
    number: u64,
}

#[derive(Serialize, Deserialize)]
struct WireMember {
    machine: String,
    host: String,
    joined_at: Timestamp,
}

/// Why a value cannot be read.
pub(super) enum Problem {
    Foreign(String),
    Sealed { with: Fingerprint, own: Option<Fingerprint> },
    Unsealed,
}

impl Problem {
    pub(super) fn of(self, object: String) -> Error {
        match self {
            Self::Foreign(detail) => Error::Foreign { object, detail },
            Self::Sealed { with, own } => Error::Sealed {
                object,
                sealed_with: with,
                own: own.map_or_else(|| "none".to_owned(), |own| format!("the key {own}")),
            },
            Self::Unsealed => Error::Unsealed { object },
        }
    }
}

fn foreign(detail: impl ToString) -> Problem {
    Problem::Foreign(detail.to_string())
}

impl Wire {
    /// The value of a runner.
    pub(super) fn of(runner: &SharedRunner, name: &ShareName, key: Option<&SealingKey>) -> Result<Value, String> {
        let token = runner.token.as_ref().map(|token| WireToken::of(token, &About { runner, name }, key)).transpose();
        let wire = Self {
            schema: SCHEMA,
            write: format!("{:08x}{:08x}", random_bits(), random_bits()),
            share_as: name.to_string(),
            url: runner.url.clone(),
            id: runner.id,
            origin: runner.origin,
            token: token.map_err(|error| error.to_string())?,
            changed_by: runner.changed_by.as_ref().map(ToString::to_string),
            pending: runner.pending.as_ref().map(WirePending::of),
            members: runner.members.iter().map(WireMember::of).collect(),
            recoveries: runner.recoveries.clone(),
            leaving: runner.leaving.as_ref().map(WireSender::of),
        };
        serde_json::to_vec(&wire).map(Value::new).map_err(|error| error.to_string())
    }

    /// The runner in a value.
    pub(super) fn read(value: &Value, name: &ShareName, key: Option<&SealingKey>) -> Result<SharedRunner, Problem> {
        #[derive(Deserialize)]
        struct Schema {
            schema: u32,
        }
        // The text of an error of serde can hold a part of the value.
        let unreadable = |error: serde_json::Error| {
            foreign(format_args!("it is not in the agent's form (line {}, column {})", error.line(), error.column()))
        };
        let Schema { schema } = serde_json::from_slice(value.expose()).map_err(unreadable)?;
        if schema != SCHEMA {
            return Err(foreign(format_args!("its schema is {schema}, and this version knows {SCHEMA}")));
        }
        let wire: Self = serde_json::from_slice(value.expose()).map_err(unreadable)?;
        if wire.share_as != name.as_str() {
            return Err(foreign("it was written for another name"));
        }
        let Self { url, origin, id, recoveries, .. } = wire;
        let mut runner = SharedRunner { id, recoveries, ..SharedRunner::new(url, origin) };
        runner.members = wire.members.into_iter().map(WireMember::read).collect::<Result<_, _>>()?;
        runner.changed_by = wire.changed_by.as_deref().map(machine).transpose()?;
        runner.pending = wire.pending.map(WirePending::read).transpose()?;
        runner.leaving = wire.leaving.map(WireSender::read).transpose()?;
        runner.token = match wire.token {
            Some(token) => Some(token.read(&About { runner: &runner, name }, key)?),
            None => None,
        };
        Ok(runner)
    }
}

/// What a sealed token is bound to: it opens in no other object, at no other place of the succession, and with no other
/// times. A false expiry would keep all machines from the rotation, or have them rotate without end.
struct About<'a> {
    runner: &'a SharedRunner,
    name: &'a ShareName,
}

impl About<'_> {
    fn bytes(&self, lineage: &Lineage, obtained_at: Option<Timestamp>, expiry: Expiry) -> Vec<u8> {
        let Self { runner: SharedRunner { url, id, .. }, name } = self;
        let id = id.map_or(0, RunnerId::number);
        let obtained_at = obtained_at.map_or_else(|| "unknown".to_owned(), |at| at.as_millis().to_string());
        let expiry = match expiry {
            Expiry::Unknown => "unknown".to_owned(),
            Expiry::Never => "never".to_owned(),
            Expiry::At(at) => at.as_millis().to_string(),
        };
        let generation = lineage.generation();
        format!("{url}\n{id}\n{name}\n{generation}\n{obtained_at}\n{expiry}").into_bytes()
    }
}

impl WireToken {
    fn of(token: &SharedToken, about: &About<'_>, key: Option<&SealingKey>) -> Result<Self, SealingError> {
        let SharedToken { credential, lineage } = token;
        let about = about.bytes(lineage, credential.obtained_at, credential.expiry);
        let text = match key {
            None => WireText::Plain(Zeroizing::new(credential.token.expose().to_owned())),
            Some(key) => {
                WireText::Sealed { key: key.fingerprint(), text: BASE64.encode(key.seal(&credential.token, &about)?) }
            }
        };
        let expires_at = match credential.expiry {
            Expiry::Unknown => None,
            Expiry::Never => Some(None),
            Expiry::At(at) => Some(Some(at)),
        };
        let links = lineage.links().map(|link| (link.generation, link.token)).collect();
        Ok(Self { text, obtained_at: credential.obtained_at, expires_at, links })
    }

    fn read(self, about: &About<'_>, key: Option<&SealingKey>) -> Result<SharedToken, Problem> {
        let links = self.links.into_iter().map(|(generation, token)| Link { generation, token }).collect();
        let lineage = Lineage::from_links(links).ok_or_else(|| foreign("its generations are out of order"))?;
        let expiry = match self.expires_at {
            None => Expiry::Unknown,
            Some(None) => Expiry::Never,
            Some(Some(at)) => Expiry::At(at),
        };
        let token = match (self.text, key) {
            (WireText::Plain(text), None) => Token::parse(&text).map_err(foreign)?,
            // A writer of the store without the key must not choose the token.
            (WireText::Plain(_), Some(_)) => return Err(Problem::Unsealed),
            (WireText::Sealed { key: with, .. }, None) => return Err(Problem::Sealed { with, own: None }),
            (WireText::Sealed { key: with, .. }, Some(key)) if with != key.fingerprint() => {
                return Err(Problem::Sealed { with, own: Some(key.fingerprint()) });
            }
            (WireText::Sealed { text, .. }, Some(key)) => {
                let sealed = BASE64.decode(text).map_err(|_| foreign("its sealed token is damaged"))?;
                key.open(&sealed, &about.bytes(&lineage, self.obtained_at, expiry)).map_err(foreign)?
            }
        };
        if token.digest() != lineage.token() {
            return Err(foreign("its token is not the one of its last generation"));
        }
        Ok(SharedToken { credential: Credential { token, obtained_at: self.obtained_at, expiry }, lineage })
    }
}

impl WireSender {
    fn of(sender: &Sender) -> Self {
        Self { machine: sender.machine.to_string(), boot: format!("{:016x}", sender.boot) }
    }

    fn read(self) -> Result<Sender, Problem> {
        let boot = u64::from_str_radix(&self.boot, 16).map_err(|_| foreign("the boot of a machine is no number"))?;
        Ok(Sender { machine: machine(&self.machine)?, boot })
    }
}

fn machine(text: &str) -> Result<SystemId, Problem> {
    text.parse().map_err(foreign)
}

impl WirePending {
    fn of(pending: &SharedPending) -> Self {
        Self {
            change: pending.change,
            sender: WireSender::of(&pending.sender),
            token: pending.token,
            number: pending.number,
        }
    }

    fn read(self) -> Result<SharedPending, Problem> {
        Ok(SharedPending { change: self.change, sender: self.sender.read()?, token: self.token, number: self.number })
    }
}

impl WireMember {
    fn of(member: &Member) -> Self {
        Self { machine: member.machine.to_string(), host: member.host.clone(), joined_at: member.joined_at }
    }

    fn read(self) -> Result<Member, Problem> {
        Ok(Member { machine: machine(&self.machine)?, host: self.host, joined_at: self.joined_at })
    }
}
