//! The log: text or JSON on stderr, or entries in systemd's journal.
//!
//! `tracing-subscriber` is used here and nowhere else.

mod journal;
mod one_line;
mod panics;
mod queue;

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::str::FromStr;
use std::sync::{LazyLock, OnceLock};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::set_global_default;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{Layer, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;

use self::journal::{Journal, JournalLayer};
use self::one_line::{OneLine, Syntax};
pub use self::panics::log_panics;
use self::queue::Queue;
use crate::clock::{Clock, SystemClock};

/// The format and level of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The format, which also selects stderr or the journal.
    pub format: LogFormat,
    /// The minimum level.
    pub level: LogLevel,
    /// Whether text is coloured.
    pub is_coloured: bool,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One short line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
    /// Entries in systemd's journal, instead of stderr.
    Journald,
}

/// The minimum level of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures that need action.
    Error,
    /// Problems that do not stop the work.
    Warn,
    /// State changes.
    #[default]
    Info,
    /// Decisions with their reasons.
    Debug,
    /// Details of the libraries too, except those that might log a secret.
    Trace,
}

/// An unknown name of a format or level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of {0}")]
pub struct UnknownLogName(&'static str);

/// Libraries that log headers or bodies below the level `warn`.
const WARN_ONLY_TARGETS: [&str; 4] = ["reqwest", "hyper", "h2", "rustls"];

/// A library that logs every failed request as an error. The engine of the store reports each failure itself, once.
const SILENT_TARGET: &str = "kube_client";

/// What goes to stderr: the log, unless the journal has it, and remarks.
static STDERR: LazyLock<Queue> = LazyLock::new(|| Queue::new(write_to_stderr));

/// What goes to the journal.
static JOURNAL: OnceLock<Queue> = OnceLock::new();

/// Starts the log of this process. A second call does nothing.
///
/// If the journal is unavailable, the log goes to stderr as text, and its first line is a warning.
pub fn start_log(config: LogConfig) {
    let mut unavailable = None;
    let journal = match config.format {
        LogFormat::Text | LogFormat::Json => None,
        LogFormat::Journald => {
            Journal::connect(Path::new(journal::SOCKET)).map_err(|error| unavailable = Some(error)).ok()
        }
    };
    let result = match (journal, config.format) {
        (Some(journal), _) => {
            let entries = JOURNAL.get_or_init(|| Queue::new(move |entry| journal.log(entry)));
            set_global_default(journald(config, entries.clone()))
        }
        (None, LogFormat::Json) => set_global_default(json(config, STDERR.clone())),
        (None, _) => set_global_default(text(config, STDERR.clone())),
    };
    if result.is_err() {
        tracing::debug!("the log is already started");
    }
    if let Some(error) = unavailable {
        tracing::warn!(%error, socket = journal::SOCKET, "cannot write to the journal: logging to stderr");
    }
}

/// Writes a line to stderr, behind what was logged there. As a warning, it is waited for only shortly.
pub fn remark(line: &str) {
    STDERR.write(format!("{line}\n").as_bytes());
}

/// Draws on the terminal at stderr, behind what was logged there. Never waits: a frame is dropped while much waits.
pub fn draw(frame: &str) {
    STDERR.offer(frame.as_bytes());
}

/// Waits until what was logged is written, before something is written to stdout. A log that is not read is waited for only
/// shortly.
pub fn flush() {
    STDERR.flush();
    JOURNAL.get().into_iter().for_each(Queue::flush);
}

/// Flushes the log when it is dropped, after a panic too: the last thing that a process does.
#[derive(Debug)]
pub struct FlushAtEnd;

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        flush();
    }
}

fn write_to_stderr(line: &[u8]) {
    // A failure to log cannot be logged.
    let _lost = std::io::stderr().write_all(line);
}

/// Whether stderr is connected to systemd's journal. `journal_stream` is the variable `JOURNAL_STREAM`: the device and
/// inode of the stream. A child process inherits the variable even if its stderr is redirected.
#[must_use]
pub fn is_stderr_journal(journal_stream: Option<&str>) -> bool {
    let Some((device, inode)) = journal_stream.and_then(|stream| stream.split_once(':')) else { return false };
    rustix::fs::fstat(rustix::stdio::stderr())
        .is_ok_and(|stderr| device.parse() == Ok(stderr.st_dev) && inode.parse() == Ok(stderr.st_ino))
}

fn text<W>(config: LogConfig, writer: W) -> impl Subscriber
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = Layer::default()
        .compact()
        .log_internal_errors(false)
        .with_target(false)
        .with_timer(WholeSeconds)
        .with_ansi(config.is_coloured)
        .with_writer(OneLine { writer, syntax: Syntax::Text { is_coloured: config.is_coloured } });
    tracing_subscriber::registry().with(layer.with_filter(filter(config.level)))
}

fn json<W>(config: LogConfig, writer: W) -> impl Subscriber
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = Layer::default()
        .json()
        .log_internal_errors(false)
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_timer(Milliseconds)
        .with_writer(OneLine { writer, syntax: Syntax::Json });
    tracing_subscriber::registry().with(layer.with_filter(filter(config.level)))
}

fn journald(config: LogConfig, entries: Queue) -> impl Subscriber {
    tracing_subscriber::registry().with(JournalLayer { entries }.with_filter(filter(config.level)))
}

/// Applies the level to this crate. Libraries log at most warnings below the level `trace`.
fn filter(level: LogLevel) -> Targets {
    let ours = level.filter();
    let libraries = if ours == LevelFilter::TRACE { ours } else { ours.min(LevelFilter::WARN) };
    let warn_only = WARN_ONLY_TARGETS.map(|target| (target, ours.min(LevelFilter::WARN)));
    Targets::new()
        .with_default(libraries)
        .with_target("runner_agent", ours)
        .with_targets(warn_only)
        .with_target(SILENT_TARGET, LevelFilter::OFF)
}

impl LogLevel {
    fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

impl FromStr for LogLevel {
    type Err = UnknownLogName;

    /// Accepts gitlab-runner's levels too, because both programs read the same variable.
    fn from_str(name: &str) -> Result<Self, UnknownLogName> {
        match name.to_ascii_lowercase().as_str() {
            "error" | "fatal" | "panic" => Ok(Self::Error),
            "warn" | "warning" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(UnknownLogName("error, warn, info, debug, trace")),
        }
    }
}

impl FromStr for LogFormat {
    type Err = UnknownLogName;

    /// Accepts gitlab-runner's `runner` as text, because both programs read the same variable.
    fn from_str(name: &str) -> Result<Self, UnknownLogName> {
        match name.to_ascii_lowercase().as_str() {
            "text" | "runner" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "journald" => Ok(Self::Journald),
            _ => Err(UnknownLogName("text, json, journald")),
        }
    }
}

/// Wall time of a text line, in whole seconds.
struct WholeSeconds;

impl FormatTime for WholeSeconds {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", SystemClock.read().wall.whole_seconds())
    }
}

/// Wall time of a JSON line, in milliseconds.
struct Milliseconds;

impl FormatTime for Milliseconds {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", SystemClock.read().wall)
    }
}

#[cfg(test)]
pub(crate) use self::tests::Captured;

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use tracing::subscriber::with_default;

    #[test]
    fn a_text_line_has_time_level_message_and_fields() {
        let written = logged(|writer| {
            with_default(text(LogConfig::default(), writer), || {
                let _span = tracing::info_span!("runner", runner = "build-1").entered();
                tracing::info!(expires_in = "2h", "rotated");
            });
        });
        let (time, rest) = written.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && !time.contains('.'), "{written}");
        assert_eq!(rest.trim(), "INFO runner: rotated expires_in=\"2h\" runner=\"build-1\"");
    }

    #[test]
    fn a_value_cannot_forge_a_line_of_text() {
        let trick = "a\n2027-01-01T00:00:00Z  INFO forged\r\u{7f}\u{9b}2J\u{2028}\u{2029}\u{202e}\u{2066}\u{1b}[2J";
        for is_coloured in [false, true] {
            let written = logged(|writer| {
                with_default(text(LogConfig { is_coloured, ..LogConfig::default() }, writer), || {
                    let _span = tracing::info_span!("runner", runner = %trick).entered();
                    tracing::info!(name = %trick, debug = trick, "named {trick}");
                });
            });
            let line = written.strip_suffix('\n').unwrap();
            let unsafe_left =
                line.chars().any(|one| crate::model::is_unprintable(one) && !(is_coloured && one == '\u{1b}'));
            assert!(!unsafe_left && !line.contains("\u{1b}[2J"), "{line:?}");
            assert!(line.contains("a\\n2027"), "{line:?}");
        }
    }

    #[test]
    fn a_value_puts_nothing_into_json_that_a_terminal_acts_on() {
        let trick = "a\u{9b}2J\u{202e}\u{7f}\u{1b}[2J\n";
        let config = LogConfig { format: LogFormat::Json, ..LogConfig::default() };
        let written = logged(|writer| with_default(json(config, writer), || tracing::info!(name = %trick, "named")));
        let line = written.strip_suffix('\n').unwrap();
        assert!(!line.chars().any(crate::model::is_unprintable), "{line:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["name"], trick);
    }

    #[test]
    fn a_json_line_is_one_object() {
        let config = LogConfig { format: LogFormat::Json, ..LogConfig::default() };
        let written = logged(|writer| {
            with_default(json(config, writer), || {
                let _span = tracing::info_span!("runner", runner = "build-1").entered();
                tracing::warn!(status = 503, "busy");
            });
        });
        let line: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"busy".into()));
        assert_eq!((&line["status"], &line["span"]["runner"]), (&503.into(), &"build-1".into()));
    }

    #[test]
    fn libraries_that_log_headers_only_warn() {
        for level in [LogLevel::Debug, LogLevel::Trace] {
            let filter = filter(level);
            for target in ["reqwest::connect", "hyper_util::client", "h2::codec", "rustls::client"] {
                assert!(!filter.would_enable(target, &tracing::Level::INFO), "{target} at {level:?}");
                assert!(filter.would_enable(target, &tracing::Level::WARN), "{target} at {level:?}");
            }
        }
    }

    #[test]
    fn other_libraries_log_details_only_at_trace() {
        assert!(!filter(LogLevel::Debug).would_enable("mio::poll", &tracing::Level::INFO));
        assert!(filter(LogLevel::Trace).would_enable("mio::poll", &tracing::Level::TRACE));
        assert!(filter(LogLevel::Debug).would_enable("runner_agent::ops", &tracing::Level::DEBUG));
        assert!(!filter(LogLevel::Error).would_enable("reqwest", &tracing::Level::WARN));
    }

    #[test]
    fn failures_that_the_engine_reports_are_not_logged_by_its_library() {
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace] {
            let filter = filter(level);
            for target in ["kube_client", "kube_client::client::builder"] {
                assert!(!filter.would_enable(target, &tracing::Level::ERROR), "{target} at {level:?}");
            }
        }
    }

    #[test]
    fn the_journal_is_recognized_by_its_stream() {
        let stderr = rustix::fs::fstat(rustix::stdio::stderr()).unwrap();
        assert!(is_stderr_journal(Some(&format!("{}:{}", stderr.st_dev, stderr.st_ino))));
        for other in
            [None, Some(""), Some("8"), Some("x:y"), Some(&*format!("{}:{}", stderr.st_dev, stderr.st_ino + 1))]
        {
            assert!(!is_stderr_journal(other), "{other:?}");
        }
    }

    #[test]
    fn names_of_gitlab_runner_are_accepted() {
        assert_eq!("fatal".parse(), Ok(LogLevel::Error));
        assert_eq!("runner".parse(), Ok(LogFormat::Text));
        assert!("loud".parse::<LogLevel>().is_err());
    }

    fn logged(log: impl FnOnce(Buffer)) -> String {
        // With a single subscriber, the first thread to reach a log line decides for all threads whether it is
        // enabled, and the other tests' threads have no subscriber.
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        let buffer = Buffer::default();
        log(buffer.clone());
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// The lines that this thread logs, until it is dropped.
    pub(crate) struct Captured {
        buffer: Buffer,
        _guard: tracing::subscriber::DefaultGuard,
        _second: tracing::Dispatch,
    }

    impl Captured {
        pub(crate) fn start() -> Self {
            let buffer = Buffer::default();
            // As in `logged`.
            let second = tracing::Dispatch::new(tracing_subscriber::registry());
            let guard = tracing::subscriber::set_default(text(LogConfig::default(), buffer.clone()));
            Self { buffer, _guard: guard, _second: second }
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.buffer.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Buffer {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }
}
