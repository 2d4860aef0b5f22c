//! Log entries for systemd's journal, in its native protocol.
//!
//! The message ends with all fields, because plain `journalctl` shows nothing else; each field is also searchable by
//! its own name (`journalctl RUNNER=build-1`). The crate `tracing-journald` is not used: it sends on the thread that logs,
//! so a stuck journal would stop the daemon, and its messages lack the fields.
//!
//! Source: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::queue::{Queue, is_waited_for};
use crate::secret::without_tokens;

/// The journal's socket.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// The identifier for `journalctl -t`.
const IDENTIFIER: &str = "runner-agent";

/// The journal.
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// Checks by an empty datagram, which the journal discards, that it listens at `path`.
    ///
    /// # Errors
    /// The error of the socket.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        match socket.send_to(&[], path) {
            // It listens, though it is behind.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => sent.map(drop)?,
        }
        socket.set_nonblocking(false)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Sends an entry, however long a stuck journal takes.
    pub(super) fn log(&self, entry: &[u8]) {
        // A failure to log cannot be logged.
        let _lost = self.send(entry);
    }

    /// The address is resolved for each entry, so sending works again once the journal has restarted.
    fn send(&self, entry: &[u8]) -> io::Result<()> {
        match self.socket.send_to(entry, &self.path) {
            Err(error) if is_too_large(&error) => self.send_memfd(entry),
            result => result.map(drop),
        }
    }

    /// Sends an entry that exceeds the size of a datagram, in a sealed memory file.
    fn send_memfd(&self, entry: &[u8]) -> io::Result<()> {
        let mut file = File::from(memfd_create(IDENTIFIER, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.write_all(entry)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [file.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let address = SocketAddrUnix::new(&self.path)?;
        sendmsg_addr(&self.socket, &address, &[], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

fn is_too_large(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MSGSIZE | Errno::NOBUFS))
}

/// Makes an entry of each event.
pub(super) struct JournalLayer {
    pub(super) entries: Queue,
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for JournalLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.named.extend_from_slice(&of_span.named);
            }
        }
        event.record(&mut fields);
        let entry = entry(event.metadata(), &fields);
        if is_waited_for(event.metadata()) { self.entries.write(&entry) } else { self.entries.push(&entry) }
    }
}

/// The recorded fields of an event or span.
#[derive(Default)]
struct Fields {
    message: String,
    named: Vec<(&'static str, String)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => self.named.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

fn entry(metadata: &Metadata<'_>, fields: &Fields) -> Vec<u8> {
    let named: Vec<_> = fields.named.iter().map(|(name, value)| (name, without_tokens(value))).collect();
    let mut message = without_tokens(&fields.message);
    for (name, value) in &named {
        // Writing to a string cannot fail.
        let _written = match value.contains([' ', '"', '=']) {
            true => write!(message, " {name}={value:?}"),
            false => write!(message, " {name}={value}"),
        };
    }
    let mut entry = Vec::new();
    put(&mut entry, "PRIORITY", priority(*metadata.level()));
    put(&mut entry, "SYSLOG_IDENTIFIER", IDENTIFIER);
    put(&mut entry, "MESSAGE", &message);
    put(&mut entry, "TARGET", metadata.target());
    for (name, value) in &named {
        put(&mut entry, &field_name(name), value);
    }
    entry
}

/// The syslog priority of a level.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// The journal's name of a field: capitals, digits and underscores, with a letter first. A leading underscore is
/// reserved for the journal's own fields.
fn field_name(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    plain.trim_start_matches(|c: char| !c.is_ascii_uppercase()).to_owned()
}

/// Appends a field. A value with a line break is preceded by its length, so it cannot start another field.
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
    use std::io::{IoSliceMut, Read as _, Seek as _};

    use rustix::fs::fcntl_get_seals;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use tempfile::TempDir;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// A socket that receives entries as the journal does.
    struct Receiver {
        directory: TempDir,
        socket: UnixDatagram,
    }

    impl Receiver {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let socket = UnixDatagram::bind(directory.path().join("socket")).unwrap();
            Self { directory, socket }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("socket")
        }

        /// Connects a journal and consumes its empty datagram.
        fn connect(&self) -> Journal {
            let journal = Journal::connect(&self.path()).unwrap();
            assert_eq!(self.socket.recv(&mut [0; 1]).unwrap(), 0);
            journal
        }

        fn receive(&self) -> String {
            let mut buffer = [0; 1024];
            let length = self.socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        }
    }

    fn with_journal(journal: Journal, log: impl FnOnce()) {
        // With a single subscriber, the first thread to reach a log line decides for all threads whether it is
        // enabled, and the other tests' threads have no subscriber.
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        let entries = Queue::new(move |entry| journal.log(entry));
        let layer = JournalLayer { entries: entries.clone() };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        entries.flush();
    }

    #[test]
    fn an_entry_has_the_fields_in_its_message_and_beside_it() {
        let receiver = Receiver::new();
        with_journal(receiver.connect(), || {
            let span = tracing::info_span!("runner", runner = "build-1", attempt = tracing::field::Empty);
            span.record("attempt", 2);
            let _entered = span.entered();
            let error = io::Error::other("connection refused");
            tracing::warn!(target: "runner_agent::daemon", %error, status = 503, retry = ?Some("5 s"), "cannot verify");
        });
        assert_eq!(
            receiver.receive(),
            "PRIORITY=4\n\
             SYSLOG_IDENTIFIER=runner-agent\n\
             MESSAGE=cannot verify runner=build-1 attempt=2 error=\"connection refused\" status=503 retry=\"Some(\\\"5 s\\\")\"\n\
             TARGET=runner_agent::daemon\n\
             RUNNER=build-1\n\
             ATTEMPT=2\n\
             ERROR=connection refused\n\
             STATUS=503\n\
             RETRY=Some(\"5 s\")\n"
        );
    }

    #[test]
    fn each_level_has_its_priority() {
        let receiver = Receiver::new();
        with_journal(receiver.connect(), || {
            tracing::error!("");
            tracing::warn!("");
            tracing::info!("");
            tracing::debug!("");
            tracing::trace!("");
        });
        for priority in [3, 4, 6, 7, 7] {
            let entry = receiver.receive();
            assert!(entry.starts_with(&format!("PRIORITY={priority}\n")), "{entry}");
        }
    }

    #[test]
    fn a_line_break_starts_no_field() {
        let mut entry = Vec::new();
        put(&mut entry, "ERROR", "a\nPRIORITY=0");
        assert_eq!(entry, b"ERROR\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n");
    }

    #[test]
    fn no_field_has_a_reserved_name() {
        assert_eq!(field_name("_pid"), "PID");
        assert_eq!(field_name("log.target"), "LOG_TARGET");
        assert_eq!(field_name("2fa"), "FA");
    }

    #[test]
    fn a_missing_journal_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Journal::connect(&directory.path().join("socket")).is_err());
    }

    #[test]
    fn a_journal_that_is_behind_holds_up_no_start() {
        let receiver = Receiver::new();
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        while filler.send_to(b"x", receiver.path()).is_ok() {}
        Journal::connect(&receiver.path()).unwrap();
    }

    #[test]
    fn a_restarted_journal_receives_entries() {
        let mut receiver = Receiver::new();
        let journal = receiver.connect();
        std::fs::remove_file(receiver.path()).unwrap();
        assert!(journal.send(b"MESSAGE=1\n").is_err());
        receiver.socket = UnixDatagram::bind(receiver.path()).unwrap();
        journal.send(b"MESSAGE=2\n").unwrap();
        assert_eq!(receiver.receive(), "MESSAGE=2\n");
    }

    #[test]
    fn an_entry_larger_than_a_datagram_arrives_in_a_sealed_file() {
        let receiver = Receiver::new();
        let long = "x".repeat(1024 * 1024);
        with_journal(receiver.connect(), || tracing::info!(long, "large"));

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0; 16];
        let received =
            recvmsg(&receiver.socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::empty()).unwrap();
        assert_eq!(received.bytes, 0);
        let Some(RecvAncillaryMessage::ScmRights(mut descriptors)) = control.drain().next() else { panic!() };
        let mut file = File::from(descriptors.next().unwrap());
        let seals = fcntl_get_seals(&file).unwrap();
        assert!(seals.contains(SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL));
        let mut entry = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut entry).unwrap();
        assert!(entry.starts_with("PRIORITY=6\n") && entry.ends_with(&format!("\nLONG={long}\n")));
        assert!(entry.contains(&format!("\nMESSAGE=large long={long}\n")));
    }
}
