//! Asks the user to confirm a change that was shown.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use tokio::sync::oneshot;

use super::interrupt::Interrupt;
use super::{Error, Exit};

/// Asks whether to continue. `otherwise` says how to confirm without a terminal.
///
/// # Errors
/// [`Error::Usage`] if stdin is no terminal, [`Error::Verdict`] if the user declines, and [`Error::Interrupted`].
pub(super) async fn ask_to_confirm(interrupt: &Interrupt, otherwise: &str) -> Result<(), Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(format!("not a terminal: {otherwise}")));
    }
    let (answer, answered) = oneshot::channel();
    // A detached thread, so that the process can exit while it reads.
    std::thread::spawn(move || answer.send(ask_to_continue()).ok());
    tokio::select! {
        biased;
        () = interrupt.asked() => Err(Error::Interrupted("nothing was changed".to_owned())),
        agreed = answered => match agreed {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Error::Verdict {
                exit: Exit::Failed,
                message: "not confirmed: nothing was changed".to_owned(),
                hint: None,
            }),
        },
    }
}

fn ask_to_continue() -> bool {
    let _closed = write!(io::stderr(), "Continue? [y/N] ");
    let mut line = String::new();
    let is_read = io::stdin().lock().read_line(&mut line).is_ok();
    is_read && matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
