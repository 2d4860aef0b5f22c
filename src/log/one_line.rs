//! Keeps each event on one line, and what a terminal could act on out of it.

use std::io;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use crate::model::{is_unprintable, printable_json};
use crate::secret::without_tokens;

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
    pub(super) syntax: Syntax,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// As text.
    Text {
        /// Whether the formatter writes colours.
        is_coloured: bool,
    },
    /// As JSON.
    Json,
}

impl Syntax {
    fn escape(self, line: &str) -> String {
        let is_coloured = match self {
            Self::Text { is_coloured } => is_coloured,
            Self::Json => return printable_json(line),
        };
        let mut escaped = String::with_capacity(line.len() + 1);
        for (at, character) in line.char_indices() {
            let is_colour = || is_coloured && COLOURS.iter().any(|colour| line[at..].starts_with(colour));
            if is_unprintable(character) && !is_colour() {
                escaped.extend(character.escape_default());
            } else {
                escaped.push(character);
            }
        }
        escaped
    }
}

impl<W: io::Write> io::Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = without_tokens(&String::from_utf8_lossy(event));
        let mut line = self.syntax.escape(text.strip_suffix('\n').unwrap_or(&text));
        line.push('\n');
        self.writer.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl<'writer, M: MakeWriter<'writer>> MakeWriter<'writer> for OneLine<M> {
    type Writer = OneLine<M::Writer>;

    fn make_writer(&'writer self) -> Self::Writer {
        OneLine { writer: self.writer.make_writer(), syntax: self.syntax }
    }

    fn make_writer_for(&'writer self, event: &Metadata<'_>) -> Self::Writer {
        OneLine { writer: self.writer.make_writer_for(event), syntax: self.syntax }
    }
}
