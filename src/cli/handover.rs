//! Removes secrets from the command line and the environment of the process.

use std::io;

use super::arguments::{Arguments, Command};
use crate::secret::{Hidden, execute_again};
use crate::settings::{Start, secret_variables};

/// Executes the program again without the secrets in its arguments and environment, unless this is that second
/// execution already.
///
/// # Errors
/// The error of the system; the process can continue as it is.
pub(super) fn hand_over(start: &Start, arguments: &Arguments) -> io::Result<()> {
    if start.is_second || matches!(arguments.command, Command::Completions(_) | Command::Manual(_)) {
        return Ok(());
    }
    let variables = secret_variables(&arguments.overrides(), &start.environment);
    execute_again(&start.launch, &Hidden { secrets: arguments.secrets(), variables })
}
