//! Lets a thread of its own write the log.
//!
//! A reader of stderr that does not read, or a journal that is stuck, then stops nothing but the log. What waits for it is
//! bounded; what does not fit is counted, and the log says how much it was once it is read again.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How many bytes of entries wait at most.
const CAPACITY: usize = 1024 * 1024;

/// How long a thread waits for room: one that logs much at once may just be faster than the one that writes.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long the end of the process waits for the next entry to be written.
const LONGEST_WRITE: Duration = Duration::from_secs(1);

/// Entries of the log on their way. Clones share it.
#[derive(Clone)]
pub(super) struct Queue(Arc<Shared>);

type Write = dyn Fn(&[u8]) + Send + Sync;

struct Shared {
    state: Mutex<State>,
    /// Notified when the state has changed.
    changed: Condvar,
    write: Box<Write>,
    capacity: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    /// The size of what waits.
    bytes: usize,
    has_thread: bool,
    is_writing: bool,
    /// How many entries were written.
    written: u64,
    /// Whether a thread has waited for room in vain since nothing waited. No other waits then.
    is_stuck: bool,
    /// How many entries did not fit.
    lost: u64,
}

impl State {
    fn has_room(&self, bytes: usize, capacity: usize) -> bool {
        self.waiting.is_empty() || self.bytes + bytes <= capacity
    }

    fn is_done(&self) -> bool {
        self.waiting.is_empty() && !self.is_writing
    }
}

impl Queue {
    /// A queue for a destination; a failure to write to it is lost. The thread starts with the first entry.
    pub(super) fn new(write: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self::with_capacity(CAPACITY, write)
    }

    fn with_capacity(capacity: usize, write: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { state, changed, write: Box::new(write), capacity }))
    }

    /// Takes an entry. Waits for room at most once, and shortly, until everything is written.
    pub(super) fn push(&self, entry: &[u8]) {
        let shared = &*self.0;
        let mut state = shared.state();
        if !state.has_thread {
            let queue = self.clone();
            if Builder::new().name("log".to_owned()).spawn(move || queue.0.run()).is_err() {
                drop(state);
                return (shared.write)(entry);
            }
            state.has_thread = true;
        }
        let is_full = |state: &mut State| !state.has_room(entry.len(), shared.capacity);
        if is_full(&mut state) && !state.is_stuck {
            let waited = shared.changed.wait_timeout_while(state, PATIENCE, is_full);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.is_stuck = is_full(&mut state);
        }
        if is_full(&mut state) {
            state.lost += 1;
            return;
        }
        state.bytes += entry.len();
        state.waiting.push_back(entry.to_owned());
        shared.changed.notify_all();
    }

    /// Waits until everything is written, for as long as it goes on.
    pub(super) fn flush(&self) {
        let shared = &*self.0;
        let mut state = shared.state();
        while !state.is_done() {
            let before = state.written;
            let is_the_same = |state: &mut State| !state.is_done() && state.written == before;
            let waited = shared.changed.wait_timeout_while(state, LONGEST_WRITE, is_the_same);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if is_the_same(&mut state) {
                return;
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No panic under the lock can leave a partial update.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let mut state = self.state();
            let entry = loop {
                if let Some(entry) = state.waiting.pop_front() {
                    break entry;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            state.bytes -= entry.len();
            state.is_writing = true;
            drop(state);
            (self.write)(&entry);
            let mut state = self.state();
            state.is_writing = false;
            state.written += 1;
            let mut lost = 0;
            if state.waiting.is_empty() {
                state.is_stuck = false;
                lost = std::mem::take(&mut state.lost);
            }
            drop(state);
            self.changed.notify_all();
            if lost > 0 {
                tracing::warn!(lost, "the log was not read for a while: some of its entries were dropped");
            }
        }
    }
}

impl io::Write for Queue {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        self.push(entry);
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Queue {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// A destination that takes an entry only when it is read.
    fn unread() -> (impl Fn(&[u8]) + Send + Sync, Receiver<String>) {
        let (sender, receiver): (SyncSender<String>, _) = sync_channel(0);
        let write = move |entry: &[u8]| drop(sender.send(String::from_utf8_lossy(entry).into_owned()));
        (write, receiver)
    }

    #[test]
    fn entries_arrive_in_their_order() {
        let (write, written) = unread();
        let queue = Queue::new(write);
        let reader = std::thread::spawn(move || written.iter().take(3).collect::<Vec<_>>());
        for entry in ["a", "b", "c"] {
            queue.push(entry.as_bytes());
        }
        queue.flush();
        assert_eq!(reader.join().unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn a_log_that_is_not_read_stops_nothing_and_what_did_not_fit_is_counted() {
        let (write, written) = unread();
        let queue = Queue::with_capacity(4, write);
        for _ in 0..1000 {
            queue.push(b"ab");
        }
        // Neither does the end of the process.
        queue.flush();
        let lost = queue.0.state().lost;
        assert!((1000 - 4..1000).contains(&lost), "{lost}");
        let left = usize::try_from(1000 - lost).unwrap();
        assert_eq!(written.iter().take(left).count(), left);
        queue.flush();
        assert_eq!(queue.0.state().lost, 0, "it was told");
        queue.push(b"ab");
        assert_eq!(written.recv().unwrap(), "ab");
    }

    #[test]
    fn a_burst_waits_for_a_slower_reader_and_loses_nothing() {
        let (write, written) = unread();
        let queue = Queue::with_capacity(4, write);
        let reader = std::thread::spawn(move || written.iter().take(1000).count());
        for _ in 0..1000 {
            queue.push(b"ab");
        }
        assert_eq!(reader.join().unwrap(), 1000);
    }

    #[test]
    fn an_entry_larger_than_the_queue_is_written() {
        let (write, written) = unread();
        let queue = Queue::with_capacity(4, write);
        queue.push(b"abcdefgh");
        assert_eq!(written.recv().unwrap(), "abcdefgh");
    }
}
