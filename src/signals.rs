//! Signals as values that can be waited for.
//!
//! Installed before anything else in the process, because the default action of most of them ends it
//! (of QUIT even with a core dump). Until [`Signals::release`] they are held back by the system, which
//! outlasts that the process executes itself again: none is lost and none ends it in between.
//! `signal-hook` and `nix` are used here and nowhere else.

use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::sys::signal::{SigSet, Signal as Number};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::low_level::pipe;
use tokio::io::{AsyncRead as _, ReadBuf};

/// What the process was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM: stop, and unregister by policy.
    Terminate,
    /// INT, as from Ctrl-C: the same.
    Interrupt,
    /// QUIT: stop, and keep every registration.
    Quit,
    /// HUP: read the files again and verify now.
    Hangup,
}

/// The signals that arrived since [`Signals::install`], each one as often as it arrived.
///
/// A second TERM or INT is delivered like the first; what it means is the caller's decision. Those of
/// different kinds that wait together are delivered TERM first and HUP last.
#[derive(Debug)]
pub struct Signals {
    arrivals: [Arrivals; 4],
}

/// One kind of signal: its handler writes a byte into the other end for each.
#[derive(Debug)]
struct Arrivals {
    signal: Signal,
    stream: Stream,
}

/// A stream that joins the runtime when it is first waited for, because signals are installed before
/// there is a runtime.
#[derive(Debug)]
enum Stream {
    Unattached(Option<UnixStream>),
    Attached(tokio::net::UnixStream),
}

impl Signals {
    /// Takes the signals over from their default actions, for the rest of the process, and holds them back
    /// until they are released. Meant for a process that has one thread still.
    ///
    /// # Errors
    /// What the system said, if a handler or its socket cannot be made.
    pub fn install() -> io::Result<Self> {
        validity().thread_block()?;
        Ok(Self {
            arrivals: [
                Arrivals::install(Signal::Terminate, SIGTERM)?,
                Arrivals::install(Signal::Interrupt, SIGINT)?,
                Arrivals::install(Signal::Quit, SIGQUIT)?,
                Arrivals::install(Signal::Hangup, SIGHUP)?,
            ],
        })
    }

    /// Lets those that were held back arrive, also where whoever started the process held them back.
    ///
    /// # Errors
    /// What the system said.
    pub fn release(&self) -> io::Result<()> {
        Ok(validity().thread_unblock()?)
    }

    /// The next signal, which may have arrived before the call. Cancel safe: a dropped wait loses none.
    ///
    /// Ready never again if the runtime cannot watch the sockets, which only happens without its IO driver.
    pub async fn next(&mut self) -> Signal {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Signal> {
        self.arrivals
            .iter_mut()
            .find_map(|arrivals| arrivals.poll(context).is_ready().then_some(arrivals.signal))
            .map_or(Poll::Pending, Poll::Ready)
    }
}

fn validity() -> SigSet {
    [Number::SIGTERM, Number::SIGINT, Number::SIGQUIT, Number::SIGHUP].into_iter().collect()
}

impl Arrivals {
    fn install(signal: Signal, number: i32) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        pipe::register(number, write)?;
        Ok(Self { signal, stream: Stream::Unattached(Some(read)) })
    }

    /// Takes one byte, which is one signal.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = self.stream.attached() else { return Poll::Pending };
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        match Pin::new(stream).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Poll::Ready(()),
            Poll::Ready(_) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Stream {
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

    /// One test, because signals belong to the whole process.
    #[tokio::test(flavor = "current_thread")]
    async fn every_signal_is_delivered_even_if_it_came_before_the_first_wait() {
        let mut signals = Signals::install().unwrap();
        raise(SIGQUIT).unwrap();
        signals.release().unwrap();
        for number in [SIGHUP, SIGTERM, SIGTERM] {
            raise(number).unwrap();
        }
        let expected = [Signal::Terminate, Signal::Terminate, Signal::Quit, Signal::Hangup];
        for signal in expected {
            assert_eq!(signals.next().await, signal);
        }
        let (signal, ()) = tokio::join!(signals.next(), async { raise(SIGINT).unwrap() });
        assert_eq!(signal, Signal::Interrupt);
    }
}
