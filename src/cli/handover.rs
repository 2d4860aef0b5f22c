//! Which secrets the process does not keep in what it was started with.

use std::io;

use super::arguments::{Arguments, Command};
use crate::secret::{Hidden, execute_again};
use crate::settings::{Start, secret_variables};

/// Executes the program again without the secrets on its command line and in its environment, if there are
/// any and this has not been done.
///
/// # Errors
/// What the system said; the process can go on as it is.
pub(super) fn hand_over(start: &Start, arguments: &Arguments) -> io::Result<()> {
    if start.is_second || matches!(arguments.command, Command::Completions(_) | Command::Manual(_)) {
        return Ok(());
    }
    let variables = secret_variables(&arguments.overrides(), &start.environment);
    execute_again(&start.launch, &Hidden { secrets: arguments.secrets(), variables })
}
