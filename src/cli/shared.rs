//! `shared`: the runners that machines share over a store; one file per command.

pub mod arguments;
mod forget;
mod heal;
mod list;
mod rows;
mod session;
mod show;

use arguments::{SharedArguments, SharedCommand};

use super::context::Context;
use super::interrupt::Interrupt;
use super::{Error, Exit};

/// Runs a command of `shared`.
pub(super) async fn shared(
    context: &Context<'_>,
    arguments: SharedArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    match arguments.command {
        SharedCommand::List => list::list(context, interrupt).await,
        SharedCommand::Show(arguments) => show::show(context, &arguments, interrupt).await,
        SharedCommand::Heal(arguments) => heal::heal(context, arguments, interrupt).await,
        SharedCommand::Forget(arguments) => forget::forget(context, &arguments, interrupt).await,
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{
        Credential, Expiry, Lineage, Member, Origin, Sender, ShareName, SharedChange, SharedPending, SharedRunner,
        SharedToken, Timestamp,
    };
    use crate::secret::Token;

    pub(super) fn name(text: &str) -> ShareName {
        text.parse().unwrap()
    }

    pub(super) fn now() -> Timestamp {
        at("2027-01-01T00:00:00Z")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    pub(super) fn token(text: &str) -> Token {
        Token::parse(text).unwrap()
    }

    /// A runner in its second generation that two machines share, while a third one rotates it.
    pub(super) fn runner() -> SharedRunner {
        let member = |machine: &str, host: &str| Member {
            machine: machine.parse().unwrap(),
            host: host.to_owned(),
            joined_at: at("2026-12-31T00:00:00Z"),
        };
        let former = token("glrt-first").digest();
        let credential = Credential {
            token: token("glrt-second"),
            obtained_at: Some(at("2026-12-31T20:00:00Z")),
            expiry: Expiry::At(at("2027-01-01T04:00:00Z")),
        };
        let lineage = Lineage::first(former).with_next(credential.token.digest());
        let sender = Sender { machine: "s_cccccccccccc".parse().unwrap(), boot: 3 };
        SharedRunner {
            id: crate::model::RunnerId::try_new(42).ok(),
            token: Some(SharedToken { credential, lineage }),
            pending: Some(SharedPending {
                change: SharedChange::Reset,
                sender: sender.clone(),
                token: Some(former),
                number: 1,
            }),
            members: vec![member("s_aaaaaaaaaaaa", "host-a"), member("s_bbbbbbbbbbbb", "host-b\u{1b}[2J")],
            recoveries: vec![at("2026-12-30T00:00:00Z")],
            leaving: Some(sender),
            ..SharedRunner::new("https://gitlab.example.com".parse().unwrap(), Origin::Registered)
        }
    }
}
