//! `access-token`: shows and rotates the access tokens that the agent keeps; one file per command.

pub mod arguments;
mod copy_file;
mod kept;
mod pass;
mod rotate;
mod row;
mod show;

use arguments::{AccessTokenArguments, AccessTokenCommand};

pub(super) use row::exit_of;

use super::context::Context;
use super::interrupt::Interrupt;
use super::{Error, Exit};

/// Runs a command of `access-token`.
pub(super) async fn access_token(
    context: &Context<'_>,
    arguments: AccessTokenArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    match arguments.command {
        AccessTokenCommand::Show(arguments) => show::show(context, arguments, interrupt).await,
        AccessTokenCommand::Rotate(arguments) => rotate::rotate(context, arguments, interrupt).await,
    }
}
