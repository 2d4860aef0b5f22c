//! `fleet`: manages the runners of a server with an access token; one file per command.

pub mod arguments;
mod bulk;
mod cells;
mod change;
mod create;
mod delete;
mod jobs;
mod list;
mod managers;
mod matching;
mod prune;
mod reset;
mod rows;
mod session;
mod show;
mod targets;
mod token_file;

use arguments::{FleetArguments, FleetCommand};
use session::FleetSession;
pub(super) use session::server_url;

use super::context::Context;
use super::interrupt::Interrupt;
use super::{Error, Exit};

/// Runs a command of `fleet`. A second signal ends it at once.
pub(super) async fn fleet(
    context: &Context<'_>,
    arguments: FleetArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    // A registration handles the second signal itself, and reports what it leaves behind.
    if matches!(&arguments.command, FleetCommand::Create(create) if create.enroll) {
        return perform(context, arguments, interrupt).await;
    }
    tokio::select! {
        biased;
        () = interrupt.interrupted_twice() => Err(Error::Interrupted(
            "a change in progress may have been made, and its answer is lost: check with `fleet list` or `fleet show`"
                .to_owned(),
        )),
        result = perform(context, arguments, interrupt.clone()) => result,
    }
}

async fn perform(context: &Context<'_>, arguments: FleetArguments, interrupt: Interrupt) -> Result<Exit, Error> {
    let FleetArguments { access, command } = arguments;
    if let FleetCommand::Delete(arguments) = &command
        && let Some(path) = &arguments.runner_token_file
    {
        return delete::by_token(context, &access, path, arguments.confirm, interrupt).await;
    }
    let session = FleetSession::open(context, &access, interrupt)?;
    match command {
        FleetCommand::List(arguments) => list::list(&session, &arguments).await,
        FleetCommand::Show(arguments) => show::show(&session, &arguments).await,
        FleetCommand::Jobs(arguments) => jobs::jobs(&session, &arguments).await,
        FleetCommand::Managers(arguments) => managers::managers(&session, &arguments).await,
        FleetCommand::Projects(arguments) => managers::projects(&session, &arguments).await,
        FleetCommand::Update(arguments) => change::update(session, &arguments).await,
        FleetCommand::Pause(arguments) => change::set_paused(session, &arguments, true).await,
        FleetCommand::Resume(arguments) => change::set_paused(session, &arguments, false).await,
        FleetCommand::Assign(arguments) => change::assign(session, &arguments).await,
        FleetCommand::Unassign(arguments) => change::unassign(session, &arguments).await,
        FleetCommand::Delete(arguments) => delete::delete(session, &arguments).await,
        FleetCommand::Create(arguments) if arguments.enroll => create::enroll(context, session, *arguments).await,
        FleetCommand::Create(arguments) => create::create(&session, &context.environment, *arguments).await,
        FleetCommand::Prune(arguments) => prune::prune(context, session, &arguments).await,
        FleetCommand::ResetToken(arguments) => reset::token(&session, &context.environment, &arguments).await,
        FleetCommand::ResetRegistrationToken(arguments) => {
            reset::registration_token(&session, &context.environment, &arguments).await
        }
    }
}
