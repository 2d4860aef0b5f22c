//! Panics in the log.

use std::any::Any;
use std::io::Write as _;
use std::panic::{PanicHookInfo, set_hook};

/// Logs every panic with its place. Its text is only logged if it is part of the program: one that was put together at
/// run time may contain a secret, as that of a string that was cut within a character does.
pub fn log_panics() {
    set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let reason = reason(panic.payload());
    if tracing::dispatcher::has_been_set() {
        tracing::error!(place, reason, "internal error: please report it");
    } else {
        // There is no place left to report that to.
        let _ = writeln!(std::io::stderr(), "internal error at {place}: {reason}; please report it");
    }
}

fn reason(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("its text may contain a secret and is not shown")
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, take_hook};
    use std::thread::current;

    use super::*;
    use crate::log::Captured;

    #[test]
    fn the_log_shows_file_and_line_of_a_panic() {
        let captured = Captured::start();
        let (former, thread) = (take_hook(), current().id());
        // The other tests' panics go where they went.
        set_hook(Box::new(move |panic| if current().id() == thread { log_panic(panic) } else { former(panic) }));
        let line = line!() + 1;
        catch_unwind(|| panic!("unreachable")).unwrap_err();
        let log = captured.text();
        assert!(log.contains("ERROR") && log.contains(&format!("src/log/panics.rs:{line}:")), "{log}");
    }

    #[test]
    fn only_a_text_that_is_part_of_the_program_is_shown() {
        assert_eq!(reason(&"unreachable"), "unreachable");
        assert!(!reason(&format!("`{}` is no boundary", "glrt-secret")).contains("glrt"));
    }
}
