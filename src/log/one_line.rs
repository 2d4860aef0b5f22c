//! Keeps each event of the text format on one line.

use std::io;

use tracing_subscriber::fmt::MakeWriter;

use crate::model::is_unprintable;

/// The sequences with which the formatter colours a line: reset, bold, dimmed, italic, and the colours of the levels.
const COLOURS: [&str; 9] = [
    "\u{1b}[0m",
    "\u{1b}[1m",
    "\u{1b}[2m",
    "\u{1b}[3m",
    "\u{1b}[31m",
    "\u{1b}[32m",
    "\u{1b}[33m",
    "\u{1b}[34m",
    "\u{1b}[35m",
];

/// A writer, or what makes one, that gets each event in one call and escapes what could forge a line or move the cursor.
pub(super) struct OneLine<W> {
    pub(super) writer: W,
    /// Whether the formatter writes colours.
    pub(super) is_coloured: bool,
}

impl<W: io::Write> io::Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut escaped = String::with_capacity(text.len());
        for (at, character) in line.char_indices() {
            let is_colour = || self.is_coloured && COLOURS.iter().any(|colour| line[at..].starts_with(colour));
            if is_unprintable(character) && !is_colour() {
                escaped.extend(character.escape_default());
            } else {
                escaped.push(character);
            }
        }
        escaped.push('\n');
        self.writer.write_all(escaped.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl<'writer, M: MakeWriter<'writer>> MakeWriter<'writer> for OneLine<M> {
    type Writer = OneLine<M::Writer>;

    fn make_writer(&'writer self) -> Self::Writer {
        OneLine { writer: self.writer.make_writer(), is_coloured: self.is_coloured }
    }
}
