//! The log of a service: entries of systemd's journal, in its native protocol.
//!
//! Whoever reads the journal sees the message with everything that belongs to it; whoever searches it finds
//! the runner, the error and the rest as fields of their own (`journalctl RUNNER=build-1`).
//!
//! Source: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::fmt::Write as _;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tracing_subscriber::fmt::MakeWriter;

/// Where systemd's journal takes entries.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// The name under which `journalctl -t` finds the entries.
const IDENTIFIER: &str = "runner-agent";

/// How long a journal that is stuck may hold up the daemon for an entry, which is then lost.
const PATIENCE: Duration = Duration::from_millis(100);

/// Turns each line of the log for machines into an entry of the journal.
#[derive(Clone)]
pub(super) struct Journal {
    socket: Arc<UnixDatagram>,
    path: PathBuf,
}

impl Journal {
    /// Finds out whether the journal listens, by an empty entry, which it discards.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.send_to(&[], path)?;
        Ok(Self { socket: Arc::new(socket), path: path.to_owned() })
    }
}

impl MakeWriter<'_> for Journal {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl io::Write for Journal {
    /// Takes a whole line, as the log hands them over.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let event: Map<String, Value> = serde_json::from_slice(line)?;
        // Addressed anew each time, so that a restart of the journal loses nothing but what it missed.
        self.socket.send_to(&entry(event), &self.path)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One event as an entry.
fn entry(mut event: Map<String, Value>) -> Vec<u8> {
    let mut taken = |key: &str| event.remove(key).map(|value| text(&value)).unwrap_or_default();
    // The journal has its own time.
    let (_time, level, message) = (taken("timestamp"), taken("level"), taken("message"));
    let target = taken("target");
    let span = match event.remove("span") {
        Some(Value::Object(span)) => span,
        _ => Map::new(),
    };
    let named = span.into_iter().filter(|(name, _)| name != "name");
    let fields: Vec<(String, String)> = named.chain(event).map(|(name, value)| (name, text(&value))).collect();

    let mut entry = Vec::new();
    put(&mut entry, "PRIORITY", priority(&level));
    put(&mut entry, "SYSLOG_IDENTIFIER", IDENTIFIER);
    put(&mut entry, "MESSAGE", &sentence(message, &fields));
    put(&mut entry, "TARGET", &target);
    for (name, value) in &fields {
        put(&mut entry, &field_name(name), value);
    }
    entry
}

/// The message with all that belongs to it: `journalctl` shows nothing else unless it is told to.
fn sentence(mut message: String, fields: &[(String, String)]) -> String {
    for (name, value) in fields {
        // Writing to a text cannot fail.
        let _written = match value.contains([' ', '"', '=']) {
            true => write!(message, " {name}={value:?}"),
            false => write!(message, " {name}={value}"),
        };
    }
    message
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The priorities of syslog that the journal uses.
fn priority(level: &str) -> &'static str {
    match level {
        "ERROR" => "3",
        "WARN" => "4",
        "INFO" => "6",
        _ => "7",
    }
}

/// A field's name as the journal takes it: capitals, digits and underscores, a letter first. Those that begin
/// with an underscore are the journal's own.
fn field_name(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    plain.trim_start_matches(|c: char| !c.is_ascii_uppercase()).to_owned()
}

/// A value with a line break comes with its length, so that it cannot pass for the next field.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_reads_as_a_sentence_and_has_its_fields() {
        let event = json!({
            "timestamp": "2026-01-01T00:00:00.000Z", "level": "WARN", "target": "runner_agent::agent",
            "message": "cannot verify", "error": "connection refused", "status": 503,
            "span": {"name": "runner", "runner": "build-1"},
        });
        let Value::Object(event) = event else { panic!() };
        assert_eq!(
            String::from_utf8(entry(event)).unwrap(),
            "PRIORITY=4\n\
             SYSLOG_IDENTIFIER=runner-agent\n\
             MESSAGE=cannot verify runner=build-1 error=\"connection refused\" status=503\n\
             TARGET=runner_agent::agent\n\
             RUNNER=build-1\n\
             ERROR=connection refused\n\
             STATUS=503\n"
        );
    }

    #[test]
    fn a_line_break_makes_no_field_of_its_own() {
        let mut entry = Vec::new();
        put(&mut entry, "ERROR", "a\nPRIORITY=0");
        assert_eq!(entry, b"ERROR\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n");
    }

    #[test]
    fn a_field_is_never_one_of_the_journals_own() {
        assert_eq!(field_name("_pid"), "PID");
        assert_eq!(field_name("log.target"), "LOG_TARGET");
        assert_eq!(field_name("2fa"), "FA");
    }

    #[test]
    fn a_journal_that_is_not_there_is_an_error_and_one_that_is_takes_entries() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        assert!(Journal::connect(&path).is_err());
        let there = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::connect(&path).unwrap();
        io::Write::write_all(&mut journal, br#"{"level":"INFO","message":"serving","runners":2}"#).unwrap();
        let mut buffer = [0; 512];
        assert_eq!(there.recv(&mut buffer).unwrap(), 0);
        let length = there.recv(&mut buffer).unwrap();
        let entry = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(entry.starts_with("PRIORITY=6\n") && entry.contains("\nMESSAGE=serving runners=2\n"), "{entry}");
    }
}
