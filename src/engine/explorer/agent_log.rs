//! The agent's log, to be shown between the lines of a trace.

use std::cell::RefCell;
use std::io::{self, Write};

use tracing::Level;
use tracing::subscriber::DefaultGuard;

thread_local! {
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Sink;

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Collects the log of this thread until the guard is dropped, if `EXPLORER_LOG` is set.
pub(super) fn collect() -> Option<DefaultGuard> {
    std::env::var_os("EXPLORER_LOG")?;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::DEBUG)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_writer(|| Sink)
        .finish();
    Some(tracing::subscriber::set_default(subscriber))
}

/// The lines since the last call.
pub(super) fn take() -> Vec<String> {
    let lines = LINES.with_borrow_mut(std::mem::take);
    String::from_utf8_lossy(&lines).lines().map(|line| format!("          {line}")).collect()
}
