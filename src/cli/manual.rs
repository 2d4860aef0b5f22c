//! `manual`: writes a man page for the program and one for each command.

use clap::CommandFactory as _;

use super::arguments::{Arguments, ManualArguments};
use super::{Error, Exit};

/// Writes the pages into an existing directory.
pub(super) fn manual(arguments: &ManualArguments) -> Result<Exit, Error> {
    let directory = &arguments.directory;
    clap_mangen::generate_to(Arguments::command(), directory).map_err(|error| Error::Verdict {
        exit: Exit::LocalFile,
        message: format!("cannot write the manual into `{}`: {error}", directory.display()),
        hint: None,
    })?;
    Ok(Exit::Done)
}
