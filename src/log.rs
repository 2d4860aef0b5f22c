//! The log: to stderr for people or for machines, or to systemd's journal.

mod journal;

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::set_global_default;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{Layer, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;

use self::journal::Journal;
use crate::clock::{Clock, SystemClock};

/// How the log looks and how much of it there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// For whom it is written.
    pub format: LogFormat,
    /// The least weight of a line.
    pub level: LogLevel,
    /// Whether text may be coloured: on a terminal whose user did not refuse it.
    pub is_coloured: bool,
}

/// For whom the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One short line an event, for people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
    /// Entries of systemd's journal with priorities and fields, instead of stderr.
    Journald,
}

/// The least weight of a line in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// A human must act.
    Error,
    /// It still works, but look.
    Warn,
    /// Something became different.
    #[default]
    Info,
    /// Decisions with their reasons.
    Debug,
    /// The libraries too, save those that could print a secret.
    Trace,
}

/// A word that names no format or level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of {0}")]
pub struct UnknownLogName(&'static str);

/// Libraries that could print headers or bodies when they are asked for details.
const WARN_ONLY_TARGETS: [&str; 4] = ["reqwest", "hyper", "h2", "rustls"];

/// Starts the log of this process; does nothing if it was started before.
///
/// Without a journal to write to, the log goes to stderr as text, and says so.
pub fn start_log(config: LogConfig) {
    let mut missing = None;
    let result = match config.format {
        LogFormat::Text => set_global_default(text(config, io::stderr)),
        LogFormat::Json => set_global_default(json(config, io::stderr)),
        LogFormat::Journald => match Journal::connect(Path::new(journal::SOCKET)) {
            Ok(journal) => set_global_default(json(config, journal)),
            Err(error) => {
                missing = Some(error);
                set_global_default(text(config, io::stderr))
            }
        },
    };
    if result.is_err() {
        tracing::debug!("the log was started before");
    }
    if let Some(error) = missing {
        tracing::warn!(%error, socket = journal::SOCKET, "cannot write to the journal: the log goes to stderr");
    }
}

/// Whether stderr leads to systemd's journal, which names the device and inode of the stream that it gave the
/// process in `JOURNAL_STREAM`. A process that was started by another with a stderr of its own inherits the
/// variable, but not the stream.
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
        .with_writer(writer);
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
        .with_writer(writer);
    tracing_subscriber::registry().with(layer.with_filter(filter(config.level)))
}

/// Ours at the level that was asked for, the libraries' warnings, and their details at `trace` only.
fn filter(level: LogLevel) -> Targets {
    let ours = level.filter();
    let libraries = if ours == LevelFilter::TRACE { ours } else { ours.min(LevelFilter::WARN) };
    let warn_only = WARN_ONLY_TARGETS.map(|name| (name, ours.min(LevelFilter::WARN)));
    Targets::new().with_default(libraries).with_target("runner_agent", ours).with_targets(warn_only)
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

    /// Takes gitlab-runner's levels too, since both read the same variable.
    fn from_str(word: &str) -> Result<Self, UnknownLogName> {
        match word.to_ascii_lowercase().as_str() {
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

    /// Takes gitlab-runner's own format for text, since both read the same variable.
    fn from_str(word: &str) -> Result<Self, UnknownLogName> {
        match word.to_ascii_lowercase().as_str() {
            "text" | "runner" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "journald" => Ok(Self::Journald),
            _ => Err(UnknownLogName("text, json, journald")),
        }
    }
}

/// Wall time for people.
struct WholeSeconds;

impl FormatTime for WholeSeconds {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", SystemClock.read().wall.whole_seconds())
    }
}

/// Wall time for machines.
struct Milliseconds;

impl FormatTime for Milliseconds {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", SystemClock.read().wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing::subscriber::with_default;

    #[test]
    fn a_line_for_people_has_time_level_message_and_fields() {
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
    fn a_line_for_machines_is_one_json_object() {
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
    fn libraries_that_could_print_headers_only_warn() {
        for level in [LogLevel::Debug, LogLevel::Trace] {
            let filter = filter(level);
            for target in ["reqwest::connect", "hyper_util::client", "h2::codec", "rustls::client"] {
                assert!(!filter.would_enable(target, &tracing::Level::INFO), "{target} at {level:?}");
                assert!(filter.would_enable(target, &tracing::Level::WARN), "{target} at {level:?}");
            }
        }
    }

    #[test]
    fn details_of_other_libraries_come_with_trace_only() {
        assert!(!filter(LogLevel::Debug).would_enable("mio::poll", &tracing::Level::INFO));
        assert!(filter(LogLevel::Trace).would_enable("mio::poll", &tracing::Level::TRACE));
        assert!(filter(LogLevel::Debug).would_enable("runner_agent::ops", &tracing::Level::DEBUG));
        assert!(!filter(LogLevel::Error).would_enable("reqwest", &tracing::Level::WARN));
    }

    #[test]
    fn the_journal_is_known_by_the_stream_that_it_gave() {
        let stderr = rustix::fs::fstat(rustix::stdio::stderr()).unwrap();
        assert!(is_stderr_journal(Some(&format!("{}:{}", stderr.st_dev, stderr.st_ino))));
        for other in
            [None, Some(""), Some("8"), Some("x:y"), Some(&*format!("{}:{}", stderr.st_dev, stderr.st_ino + 1))]
        {
            assert!(!is_stderr_journal(other), "{other:?}");
        }
    }

    #[test]
    fn the_words_of_gitlab_runner_are_understood() {
        assert_eq!("fatal".parse(), Ok(LogLevel::Error));
        assert_eq!("runner".parse(), Ok(LogFormat::Text));
        assert!("loud".parse::<LogLevel>().is_err());
    }

    fn logged(log: impl FnOnce(Buffer)) -> String {
        // With a single subscriber, tracing lets whichever thread comes by first decide for all whether a line
        // is written at all, and the other tests' threads have no subscriber.
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        let buffer = Buffer::default();
        log(buffer.clone());
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
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
