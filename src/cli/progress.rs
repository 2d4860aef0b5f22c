//! The progress bar of commands that work on several runners.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::report::Reporter;
use crate::log;
use crate::settings::variable;

/// How often the bar is drawn at most, per second.
const FRAMES_PER_SECOND: u8 = 20;

/// A bar on stderr that counts to `total`; hidden unless a person watches more than one item.
pub(super) fn bar(reporter: &Reporter, total: usize, unit: &str) -> ProgressBar {
    let can_draw = || reporter.is_stderr_terminal() && variable("TERM").is_some_and(|name| name != "dumb");
    if total < 2 || reporter.is_json() || !can_draw() {
        return ProgressBar::hidden();
    }
    let screen = Screen { width: reporter.stderr_width(), frame: Mutex::default() };
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen), FRAMES_PER_SECOND);
    let bar = ProgressBar::with_draw_target(u64::try_from(total).ok(), target);
    match ProgressStyle::with_template(&format!("{{bar:30}} {{pos}} of {{len}} {unit}")) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Draws on stderr behind the log, and never waits: a person may have stopped the terminal.
#[derive(Debug)]
struct Screen {
    width: u16,
    /// What is drawn with the next flush.
    frame: Mutex<String>,
}

impl Screen {
    fn frame(&self) -> MutexGuard<'_, String> {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, text: &str) -> io::Result<()> {
        self.frame().push_str(text);
        Ok(())
    }

    fn move_cursor(&self, by: usize, direction: char) -> io::Result<()> {
        if by > 0 { self.add(&format!("\x1b[{by}{direction}")) } else { Ok(()) }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.width
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.move_cursor(lines, 'A')
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.move_cursor(lines, 'B')
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.move_cursor(columns, 'C')
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.move_cursor(columns, 'D')
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.add(line)?;
        self.add("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let frame = std::mem::take(&mut *self.frame());
        if !frame.is_empty() {
            log::draw(&frame);
        }
        Ok(())
    }
}
