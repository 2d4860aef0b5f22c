//! Lets a thread of its own write the log.
//!
//! A reader of stderr that does not read, or a journal that is stuck, then stops nothing but the log. What waits for it is
//! bounded; what does not fit is counted, and the log says how much it was once it is read again. Warnings and errors are
//! waited for shortly: a process that is killed in its next step has said them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, ThreadId};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How many bytes of entries wait at most.
const CAPACITY: usize = 1024 * 1024;

/// How many bytes wait at most when an entry is offered.
const MOST_OFFERED: usize = 4096;

/// How long a thread waits for room: one that logs much at once may just be faster than the one that writes.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long [`Queue::flush`] waits for the next entry to be written.
const LONGEST_WRITE: Duration = Duration::from_secs(1);

/// How long it waits in all: a slow reader holds up the end of the process no longer.
const LONGEST_FLUSH: Duration = Duration::from_secs(3);

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
    /// The thread that writes.
    writer: Option<ThreadId>,
    /// Whether it is at an entry, or tells how many did not fit.
    is_writing: bool,
    /// How many entries were taken.
    taken: u64,
    /// How many of them were written.
    written: u64,
    /// Whether a thread has waited in vain, and the queue has not been half empty since. No other waits then.
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

    /// Takes an entry, and waits until it is written unless that takes long.
    pub(super) fn write(&self, entry: &[u8]) {
        self.push(entry);
        let mut state = self.0.state();
        let (last, is_writer) = (state.taken, state.writer == Some(std::thread::current().id()));
        let is_awaited = |state: &mut State| state.written < last && !state.is_stuck && !is_writer;
        if is_awaited(&mut state) {
            let waited = self.0.changed.wait_timeout_while(state, PATIENCE, is_awaited);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.is_stuck |= is_awaited(&mut state);
        }
    }

    /// Takes what is soon out of date, unless the reader is slow.
    pub(super) fn offer(&self, entry: &[u8]) {
        let state = self.0.state();
        let is_slow = state.is_stuck || state.bytes > MOST_OFFERED;
        drop(state);
        if !is_slow {
            self.push(entry);
        }
    }

    /// Takes an entry. Waits for room at most once, and shortly, until half of what waits is written.
    pub(super) fn push(&self, entry: &[u8]) {
        let shared = &*self.0;
        let mut state = shared.state();
        if state.writer.is_none() {
            let queue = self.clone();
            match Builder::new().name("log".to_owned()).spawn(move || queue.0.run()) {
                Ok(thread) => state.writer = Some(thread.thread().id()),
                Err(_) => {
                    drop(state);
                    return (shared.write)(entry);
                }
            }
        }
        let is_full = |state: &mut State| !state.has_room(entry.len(), shared.capacity);
        // Only the writer itself makes room.
        let is_bound = state.writer != Some(std::thread::current().id());
        if is_bound && is_full(&mut state) && !state.is_stuck {
            let waited = shared.changed.wait_timeout_while(state, PATIENCE, is_full);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.is_stuck = is_full(&mut state);
        }
        if is_bound && is_full(&mut state) {
            state.lost += 1;
            return;
        }
        state.bytes += entry.len();
        state.taken += 1;
        state.waiting.push_back(entry.to_owned());
        shared.changed.notify_all();
    }

    /// Waits until everything is written, for as long as it goes on, and not for long.
    pub(super) fn flush(&self) {
        let shared = &*self.0;
        let mut state = shared.state();
        let mut left = LONGEST_FLUSH;
        while !state.is_done() && !state.is_stuck {
            let before = state.written;
            let is_the_same = |state: &mut State| !state.is_done() && state.written == before;
            let began = Instant::now();
            let waited = shared.changed.wait_timeout_while(state, left.min(LONGEST_WRITE), is_the_same);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            left = left.saturating_sub(began.elapsed());
            state.is_stuck |= is_the_same(&mut state) || left.is_zero();
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
            let lost = self.wrote();
            self.changed.notify_all();
            if lost > 0 {
                // Nothing else would say so at any level.
                tracing::error!(lost, "the log was not read for a while: some of its entries were dropped");
            }
            self.state().is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Notes that an entry was written; returns how many did not fit, once that can be told.
    fn wrote(&self) -> u64 {
        let mut state = self.state();
        state.written += 1;
        if state.bytes > self.capacity / 2 {
            return 0;
        }
        state.is_stuck = false;
        std::mem::take(&mut state.lost)
    }
}

/// Takes the lines of events.
pub(super) struct Lines {
    queue: Queue,
    /// Whether each is waited for.
    waits: bool,
}

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.waits {
            self.queue.write(line)
        } else {
            self.queue.push(line)
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Queue {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        Lines { queue: self.clone(), waits: false }
    }

    fn make_writer_for(&self, event: &Metadata<'_>) -> Lines {
        Lines { queue: self.clone(), waits: is_waited_for(event) }
    }
}

/// Whether the entry of an event is waited for.
pub(super) fn is_waited_for(event: &Metadata<'_>) -> bool {
    *event.level() <= Level::WARN
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
    fn what_is_offered_to_a_slow_reader_is_dropped_and_not_counted() {
        let (write, written) = unread();
        let queue = Queue::new(write);
        queue.offer(b"first");
        for _ in 0..100 {
            queue.offer(&[b'x'; MOST_OFFERED / 2 + 1]);
        }
        // One may be on its way to the reader, and two wait behind it.
        let state = queue.0.state();
        assert!(state.waiting.len() <= 3 && state.lost == 0, "{}", state.waiting.len());
        drop(state);
        assert_eq!(written.recv().unwrap(), "first");
    }

    #[test]
    fn a_burst_waits_for_a_slower_reader_and_loses_nothing() {
        let (write, written) = unread();
        let queue = Queue::with_capacity(4, write);
        let reader = std::thread::spawn(move || {
            let mut count = 0;
            while written.recv().is_ok_and(|entry| entry == "ab") {
                count += 1;
            }
            count
        });
        for _ in 0..1000 {
            queue.push(b"ab");
        }
        queue.flush();
        queue.push(b"end");
        let read = reader.join().unwrap();
        let waited_in_vain = queue.0.state().lost;
        assert!(read + waited_in_vain == 1000 && read > 900, "{read} arrived: {waited_in_vain} times a busy machine");
    }

    #[test]
    fn a_warning_is_written_before_the_work_goes_on() {
        let (write, written) = unread();
        let queue = Queue::new(write);
        let reader = std::thread::spawn(move || {
            std::thread::sleep(PATIENCE / 10);
            written.recv().unwrap()
        });
        queue.write(b"warning");
        // Unless the machine is so busy that this was given up.
        let state = queue.0.state();
        assert!(state.written == 1 || state.is_stuck);
        drop(state);
        assert_eq!(reader.join().unwrap(), "warning");
    }

    #[test]
    fn warnings_that_are_not_read_are_waited_for_once() {
        let (write, _unread) = unread();
        let queue = Queue::new(write);
        (0..1000).for_each(|_| queue.write(b"warning"));
        assert!(queue.0.state().is_stuck);
    }

    #[test]
    fn an_entry_larger_than_the_queue_is_written() {
        let (write, written) = unread();
        let queue = Queue::with_capacity(4, write);
        queue.push(b"abcdefgh");
        assert_eq!(written.recv().unwrap(), "abcdefgh");
    }
}
