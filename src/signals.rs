//! Signals as values to await.
//!
//! Installed first, because the default action of these signals ends the process (QUIT even dumps core). They are
//! blocked until [`Signals::release`]. The block survives the second execution of the program, so no signal is lost
//! and none ends the process in between. `signal-hook` and `nix` are used only here.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use nix::sys::signal::{SigSet, Signal as Number};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::low_level::pipe;
use tokio::io::{AsyncRead as _, ReadBuf};

/// A signal and its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM: stop, and unregister by policy.
    Terminate,
    /// INT, as from Ctrl-C: the same.
    Interrupt,
    /// QUIT: stop, and keep every registration.
    Quit,
    /// HUP: reload the files and verify now.
    Hangup,
}

/// The signals since [`Signals::install`], each as often as it arrived.
///
/// A second TERM or INT is delivered like the first; the caller decides what it means. Pending signals of different
/// kinds are delivered TERM first and HUP last.
#[derive(Debug)]
pub struct Signals {
    arrivals: [Arrivals; 4],
    /// Received before, and to be received again.
    again: VecDeque<Signal>,
}

/// One kind of signal; its handler writes a byte into the socket for each.
#[derive(Debug)]
struct Arrivals {
    signal: Signal,
    socket: SignalSocket,
}

/// A socket that is registered with the runtime at the first wait, because signals are installed before the runtime
/// starts.
#[derive(Debug)]
enum SignalSocket {
    Unattached(Option<UnixStream>),
    Attached(tokio::net::UnixStream),
}

impl Signals {
    /// Installs handlers for the rest of the process and blocks the signals until they are released. Call while the
    /// process has one thread.
    ///
    /// # Errors
    /// A handler or its socket cannot be created.
    pub fn install() -> io::Result<Self> {
        handled_signals().thread_block()?;
        // Handled by nothing: a write beyond the size limit of files is an error to report, not the end of the process.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        ARRIVED.install()?;
        Ok(Self {
            arrivals: [
                Arrivals::install(Signal::Terminate, SIGTERM)?,
                Arrivals::install(Signal::Interrupt, SIGINT)?,
                Arrivals::install(Signal::Quit, SIGQUIT)?,
                Arrivals::install(Signal::Hangup, SIGHUP)?,
            ],
            again: VecDeque::new(),
        })
    }

    /// Unblocks the signals, even if the parent process had blocked them.
    ///
    /// # Errors
    /// The system refuses.
    pub fn release(&self) -> io::Result<()> {
        Ok(handled_signals().thread_unblock()?)
    }

    /// Waits for the next signal, which may have arrived before the call. Cancel safe: a dropped wait loses none.
    ///
    /// Stays pending forever if the runtime has no IO driver to watch the sockets.
    pub async fn next(&mut self) -> Signal {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Puts signals back: the next calls of [`next`](Self::next) receive them first.
    pub fn put_back(&mut self, signals: impl IntoIterator<Item = Signal>) {
        self.again.extend(signals);
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Signal> {
        if let Some(signal) = self.again.pop_front() {
            return Poll::Ready(signal);
        }
        self.arrivals
            .iter_mut()
            .find_map(|arrivals| arrivals.poll(context).is_ready().then_some(arrivals.signal))
            .map_or(Poll::Pending, Poll::Ready)
    }
}

/// Which signals have come since [`Signals::install`].
static ARRIVED: Arrived = Arrived { end: OnceLock::new(), any: OnceLock::new() };

struct Arrived {
    end: OnceLock<Arc<AtomicBool>>,
    any: OnceLock<Arc<AtomicBool>>,
}

impl Arrived {
    fn install(&self) -> io::Result<()> {
        for number in [SIGTERM, SIGINT, SIGQUIT] {
            signal_hook::flag::register(number, Arc::clone(self.end.get_or_init(Arc::default)))?;
        }
        for number in [SIGTERM, SIGINT, SIGQUIT, SIGHUP] {
            signal_hook::flag::register(number, Arc::clone(self.any.get_or_init(Arc::default)))?;
        }
        Ok(())
    }
}

/// Whether a signal that asks for an end has arrived since [`Signals::release`], also if nothing has received it yet.
#[must_use]
pub fn has_end_arrived() -> bool {
    ARRIVED.end.get().is_some_and(|end| end.load(Ordering::Relaxed))
}

/// Whether any signal has arrived since [`Signals::release`], also if nothing has received it yet.
#[must_use]
pub fn has_any_arrived() -> bool {
    ARRIVED.any.get().is_some_and(|any| any.load(Ordering::Relaxed))
}

/// Whether a signal that asks for an end has come since [`Signals::install`], and waits for [`Signals::release`].
#[must_use]
pub fn is_end_pending() -> bool {
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel about this process")]
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let pending = pending.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or_default();
    [SIGTERM, SIGINT, SIGQUIT].into_iter().any(|number| pending & (1 << (number - 1)) != 0)
}

fn handled_signals() -> SigSet {
    [Number::SIGTERM, Number::SIGINT, Number::SIGQUIT, Number::SIGHUP].into_iter().collect()
}

impl Arrivals {
    fn install(signal: Signal, number: i32) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        pipe::register(number, write)?;
        Ok(Self { signal, socket: SignalSocket::Unattached(Some(read)) })
    }

    /// Reads one byte, which is one signal.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = self.socket.attached() else { return Poll::Pending };
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        match Pin::new(stream).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Poll::Ready(()),
            Poll::Ready(_) | Poll::Pending => Poll::Pending,
        }
    }
}

impl SignalSocket {
    fn attached(&mut self) -> Option<&mut tokio::net::UnixStream> {
        if let Self::Unattached(stream) = self {
            let stream = tokio::net::UnixStream::from_std(stream.take()?);
            *self =
                Self::Attached(stream.inspect_err(|error| tracing::error!(%error, "cannot wait for signals")).ok()?);
        }
        match self {
            Self::Attached(stream) => Some(stream),
            Self::Unattached(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;

    /// One test, because signals are global to the process.
    #[tokio::test(flavor = "current_thread")]
    async fn signals_before_the_first_wait_are_delivered() {
        let mut signals = Signals::install().unwrap();
        raise(SIGQUIT).unwrap();
        assert!(!has_any_arrived());
        signals.release().unwrap();
        assert!(has_any_arrived() && has_end_arrived());
        for number in [SIGHUP, SIGTERM, SIGTERM] {
            raise(number).unwrap();
        }
        let expected = [Signal::Terminate, Signal::Terminate, Signal::Quit, Signal::Hangup];
        for signal in expected {
            assert_eq!(signals.next().await, signal);
        }
        signals.put_back(expected);
        for signal in expected {
            assert_eq!(signals.next().await, signal);
        }
        let (signal, ()) = tokio::join!(signals.next(), async { raise(SIGINT).unwrap() });
        assert_eq!(signal, Signal::Interrupt);
    }
}
