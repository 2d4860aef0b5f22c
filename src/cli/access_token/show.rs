//! `access-token show`: what GitLab says about access tokens.

use super::arguments::ShowArguments;
use super::kept::KeptSession;
use super::row::{TokenRow, report_rows};
use crate::cli::context::Context;
use crate::cli::interrupt::Interrupt;
use crate::cli::{Error, Exit};
use crate::ops::AccessWish;

/// Asks about each token, one after the other: there are few.
pub(super) async fn show(context: &Context<'_>, arguments: ShowArguments, interrupt: Interrupt) -> Result<Exit, Error> {
    let wait = arguments.token.wait.unwrap_or_default();
    let session = KeptSession::open(context, arguments.token, interrupt)?;
    let mut rows = Vec::new();
    for token in &session.tokens {
        let keeper = session.keeper(token, token.access.keeping.clone());
        let pass = session.pass(&keeper, AccessWish::Ask, wait).await?;
        rows.push(TokenRow::of(&session, token, &pass));
    }
    Ok(report_rows(&session.reporter, &rows))
}
