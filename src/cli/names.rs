//! `names`: the names of the runners in config.toml, one per line. Completions of shells call it.

use super::context::Context;
use super::list::open;
use super::{Error, Exit};
use crate::settings;

/// Prints the names, without those that a shell could not read from a line. Reads config.toml only.
pub(super) async fn names(context: &Context<'_>) -> Result<Exit, Error> {
    let store = open(settings::paths(&context.overrides, &context.environment).store())?;
    let snapshot = store.read().await?;
    let names = snapshot.entries.iter().filter_map(|entry| entry.name.as_deref());
    let names: String = names.filter(|name| is_one_line(name)).map(|name| format!("{name}\n")).collect();
    context.reporter.answer(&names);
    Ok(Exit::Done)
}

fn is_one_line(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::is_control)
}
