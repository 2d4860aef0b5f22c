//! `health`: checks the daemon's health, for a container's HEALTHCHECK.

use super::arguments::HealthArguments;
use super::context::Context;
use super::text::printable;
use super::{Exit, status};
use crate::error_chain::chain;
use crate::settings;

/// Prints the daemon's health in one line. Exits with 0 or 1, nothing else.
pub(super) async fn health(context: &Context<'_>, arguments: &HealthArguments) -> Exit {
    let daemon = settings::paths(&context.overrides, &context.environment).status_client();
    let (question, yes) = if arguments.ready { ("/readyz", "ready") } else { ("/healthz", "healthy") };
    let (line, exit) = match daemon.get(question).await {
        Ok(reply) if reply.is_ok => (yes.to_owned(), Exit::Done),
        Ok(reply) if arguments.ready => {
            (format!("not ready: {}", status::reasons(&reply.body).join("; ")), Exit::Failed)
        }
        Ok(reply) => (format!("unhealthy: {}", String::from_utf8_lossy(&reply.body).trim()), Exit::Failed),
        Err(error) => (format!("unhealthy: {}", chain(&error)), Exit::Failed),
    };
    context.reporter.answer(&format!("{}\n", printable(&line)));
    exit
}
