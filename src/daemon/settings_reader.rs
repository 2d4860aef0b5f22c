//! Reads the settings again while the daemon goes on: one of their files may be on a network share that does not answer.

use std::pin::Pin;

use tokio::time::Instant;

use crate::engine::Config;

/// Reads the settings. The future waits for another thread.
pub type Reload = Box<dyn FnMut() -> Reading>;

/// Settings that are being read.
pub type Reading = Pin<Box<dyn Future<Output = SettingsResult>>>;

/// The settings, or why they are invalid, one sentence per line, after it was logged.
pub type SettingsResult = Result<Config, String>;

/// Why the settings are read. A request counts for more than a change, and a later one for more than an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// One of their files has changed.
    Changed,
    /// A person has asked for it, at this time.
    Asked(Instant),
}

pub(super) struct SettingsReader {
    reload: Reload,
    reading: Option<(Cause, Reading)>,
    /// Another read is due, because something has changed while this one is under way.
    next: Option<Cause>,
}

impl SettingsReader {
    pub(super) fn new(reload: Reload) -> Self {
        Self { reload, reading: None, next: None }
    }

    /// Reads the settings, now or after the read that is under way.
    pub(super) fn read(&mut self, cause: Cause) {
        if self.reading.is_some() {
            self.next = self.next.max(Some(cause));
        } else {
            self.reading = Some((cause, (self.reload)()));
        }
    }

    /// Waits for the settings of the last [`read`](Self::read). Cancellation safe.
    pub(super) async fn finished(&mut self) -> (Cause, SettingsResult) {
        loop {
            let Some((cause, reading)) = &mut self.reading else { std::future::pending().await };
            let (cause, config) = (*cause, reading.await);
            self.reading = None;
            let Some(next) = self.next.take() else { return (cause, config) };
            // They are out of date.
            self.read(next.max(cause));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_change_during_a_read_causes_another_one_and_a_request_is_kept() {
        let (answers, reads): (Vec<_>, VecDeque<_>) = (0..3).map(|_| oneshot::channel()).unzip();
        let reads = RefCell::new(reads);
        let mut reader = SettingsReader::new(Box::new(move || {
            let read = reads.borrow_mut().pop_front().unwrap();
            Box::pin(async move { read.await.unwrap() })
        }));
        let mut answers = answers.into_iter();
        let mut answer = |config| answers.next().unwrap().send(config).unwrap();
        assert_eq!(reader.finished().now_or_never(), None);
        let asked = Cause::Asked(Instant::now());
        reader.read(asked);
        reader.read(Cause::Changed);
        assert_eq!(reader.finished().now_or_never(), None);
        answer(Err("first".to_owned()));
        assert_eq!(reader.finished().now_or_never(), None, "out of date");
        answer(Ok(Config::default()));
        assert_eq!(reader.finished().now_or_never(), Some((asked, Ok(Config::default()))));
        reader.read(Cause::Changed);
        answer(Err("second".to_owned()));
        assert_eq!(reader.finished().now_or_never(), Some((Cause::Changed, Err("second".to_owned()))));
    }
}
