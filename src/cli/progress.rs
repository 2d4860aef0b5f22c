//! The progress bar of commands that work on several runners.

use std::time::Duration;

use tokio::time::Instant;

use super::report::Reporter;
use crate::log;
use crate::settings::variable;

/// The pause between two frames.
const PAUSE: Duration = Duration::from_millis(50);

/// The columns of the bar itself.
const COLUMNS: usize = 30;

const CLEAR_LINE: &str = "\r\x1b[2K";

/// A bar on stderr that counts finished items. It is drawn behind the log, and never waits: a person may have stopped the
/// terminal.
#[derive(Debug)]
pub(super) struct Bar {
    total: usize,
    done: usize,
    unit: &'static str,
    /// Columns of the terminal; `None` hides the bar.
    width: Option<usize>,
    drawn_at: Option<Instant>,
}

impl Bar {
    /// A bar that counts to `total`; hidden unless a person watches more than one item.
    pub(super) fn new(reporter: &Reporter, total: usize, unit: &'static str) -> Self {
        let can_draw = || reporter.is_stderr_terminal() && variable("TERM").is_some_and(|name| name != "dumb");
        let is_shown = total > 1 && !reporter.is_json() && can_draw();
        let width = is_shown.then(|| usize::from(reporter.stderr_width()));
        Self { total, done: 0, unit, width, drawn_at: None }
    }

    /// Counts further items, and draws unless it has just done so.
    pub(super) fn add(&mut self, items: usize) {
        self.done += items;
        if let Some(width) = self.width
            && self.drawn_at.is_none_or(|drawn_at| drawn_at.elapsed() >= PAUSE)
        {
            log::draw(&format!("{CLEAR_LINE}{}", self.line(width)));
            self.drawn_at = Some(Instant::now());
        }
    }

    /// Removes the bar until the next item, for other text on the terminal.
    pub(super) fn clear(&mut self) {
        if self.drawn_at.take().is_some() {
            log::draw(CLEAR_LINE);
        }
    }

    fn line(&self, width: usize) -> String {
        let filled = self.done.min(self.total) * COLUMNS / self.total.max(1);
        let bar = "█".repeat(filled) + &"░".repeat(COLUMNS - filled);
        let line = format!("{bar} {} of {} {}", self.done, self.total, self.unit);
        line.chars().take(width).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_shows_the_share_that_is_done_and_fits_the_terminal() {
        let line = |done, total, width| Bar { total, done, unit: "runners", width: None, drawn_at: None }.line(width);
        assert_eq!(line(0, 3, 80), format!("{} 0 of 3 runners", "░".repeat(30)));
        assert_eq!(line(1, 3, 80), format!("{}{} 1 of 3 runners", "█".repeat(10), "░".repeat(20)));
        assert_eq!(line(3, 3, 80), format!("{} 3 of 3 runners", "█".repeat(30)));
        assert_eq!(line(1, 3, 12), format!("{}{}", "█".repeat(10), "░".repeat(2)));
    }
}
