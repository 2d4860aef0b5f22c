//! Removes secrets from the command line and the environment of the process.

use std::ffi::OsString;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::arguments::{Arguments, Command};
use crate::secret::{Hidden, execute_again};
use crate::settings::{Environment, Overrides, Start, secret_variables};
use crate::signals::is_end_pending;

/// The pause between two looks for a signal.
const PAUSE: Duration = Duration::from_millis(100);

/// Executes the program again without the secrets in its arguments and environment, unless this is that second
/// execution already.
///
/// # Errors
/// The error of the system; the process can continue as it is.
pub(super) fn hand_over(start: &Start, arguments: &Arguments) -> io::Result<()> {
    if start.is_second || matches!(arguments.command, Command::Version | Command::Completions(_) | Command::Manual(_)) {
        return Ok(());
    }
    let variables = find_variables(&arguments.overrides(), &start.environment)?;
    execute_again(&start.launch, &Hidden { secrets: arguments.secrets(), variables })
}

/// Finds the variables with secrets, which agent.toml and config.toml name. Another thread waits for these files, so that a
/// signal can end the process although a network share does not answer.
fn find_variables(overrides: &Overrides, environment: &Environment) -> io::Result<Vec<OsString>> {
    let (found, finding) = channel();
    let (of_files, of_process) = (overrides.clone(), environment.clone());
    let find = move || {
        // Without a receiver, a signal came first.
        let _late = found.send(secret_variables(&of_files, &of_process));
    };
    if thread::Builder::new().spawn(find).is_err() {
        // No more threads can be had.
        return Ok(secret_variables(overrides, environment));
    }
    loop {
        match finding.recv_timeout(PAUSE) {
            Ok(variables) => return Ok(variables),
            Err(RecvTimeoutError::Timeout) if !is_end_pending() => {}
            Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::Interrupted.into()),
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the thread that reads them panicked")),
        }
    }
}
