//! Which requests get a fault, and how often.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::shared::{Shared, locked};
use crate::{Endpoint, Fault};

/// A handle to a placed fault, which selects the requests that get it.
///
/// An order injects its fault once by default. Several orders for one endpoint apply in the sequence in which they
/// were placed. Dropping this handle leaves the order in place.
pub struct Order {
    pub(crate) number: usize,
    pub(crate) shared: Arc<Shared>,
}

impl Order {
    /// Injects the fault this many times.
    pub fn times(&self, times: usize) -> &Self {
        self.change(|placed| placed.left = Some(times))
    }

    /// Injects the fault until [`Order::cancel`] or [`crate::Gitlab::clear_faults`].
    pub fn always(&self) -> &Self {
        self.change(|placed| placed.left = None)
    }

    /// Lets this many requests pass first.
    pub fn after(&self, requests: usize) -> &Self {
        self.change(|placed| placed.passes = requests)
    }

    /// Injects the fault into every so-manieth request, the first time into the last of so many.
    pub fn every(&self, requests: usize) -> &Self {
        self.change(|placed| {
            placed.left = None;
            placed.between = requests.saturating_sub(1);
            placed.passes = placed.between;
        })
    }

    /// Injects the fault only into requests of one runner, found by its id in the path or its token in the parameters.
    pub fn for_runner(&self, id: u64) -> &Self {
        self.change(|placed| placed.runner = Some(id))
    }

    /// Releases all requests that this order holds or would hold.
    pub fn release(&self) -> &Self {
        self.change(|placed| {
            placed.released.send_replace(true);
        })
    }

    /// Cancels the order.
    pub fn cancel(&self) {
        locked(&self.shared.orders).placed.retain(|placed| placed.number != self.number);
    }

    /// How often the fault was injected; 0 after [`Order::cancel`].
    #[must_use]
    pub fn injected(&self) -> usize {
        let orders = locked(&self.shared.orders);
        orders.placed.iter().find(|placed| placed.number == self.number).map_or(0, |placed| placed.injected)
    }

    fn change(&self, change: impl FnOnce(&mut Placed)) -> &Self {
        let mut orders = locked(&self.shared.orders);
        if let Some(placed) = orders.placed.iter_mut().find(|placed| placed.number == self.number) {
            change(placed);
        }
        drop(orders);
        self
    }
}

/// All orders that were placed and not cleared.
#[derive(Default)]
pub(crate) struct Orders {
    placed: Vec<Placed>,
    given: usize,
}

impl Orders {
    /// Places an order that injects its fault once and returns its number.
    pub(crate) fn place(&mut self, endpoint: Endpoint, fault: Fault) -> usize {
        self.given += 1;
        self.placed.push(Placed {
            number: self.given,
            endpoint,
            fault,
            left: Some(1),
            passes: 0,
            between: 0,
            runner: None,
            injected: 0,
            released: watch::Sender::new(false),
        });
        self.given
    }

    /// Takes the fault for a request, if there is one.
    pub(crate) fn claim(&mut self, endpoint: Endpoint, runner: Option<u64>) -> Option<Claim> {
        self.placed.iter_mut().find_map(|placed| placed.claim(endpoint, runner))
    }

    /// Removes all orders; held requests continue.
    pub(crate) fn clear(&mut self) {
        self.placed.clear();
    }
}

/// A fault for the current request.
pub(crate) struct Claim {
    pub(crate) fault: Fault,
    released: watch::Receiver<bool>,
}

impl Claim {
    /// Waits as the fault requires.
    pub(crate) async fn wait(&mut self) {
        if !self.fault.delay.is_zero() {
            sleep(self.fault.delay).await;
        }
        if self.fault.is_held {
            // An error means that the order is gone, which also releases the request.
            let _gone = self.released.wait_for(|released| *released).await;
        }
    }
}

/// Sleeps as long as it says. A timer of tokio counts milliseconds and rounds up twice: many requests at a time would be
/// answered late, and all at once.
async fn sleep(delay: Duration) {
    if precisely(delay).await.is_err() {
        tokio::time::sleep(delay).await;
    }
}

/// Fails at once if no descriptor is left for a timer.
#[allow(deprecated, reason = "what replaces it is unsafe; nothing closes this descriptor while it is registered")]
async fn precisely(delay: Duration) -> io::Result<()> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let it_value = Timespec::try_from(delay).map_err(io::Error::other)?;
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: never, it_value })?;
    let _ended = AsyncFd::with_interest(timer, Interest::READABLE)?.readable().await?;
    Ok(())
}

struct Placed {
    number: usize,
    endpoint: Endpoint,
    fault: Fault,
    /// How many injections are left; `None` for no limit.
    left: Option<usize>,
    /// How many requests pass before the first injection.
    passes: usize,
    /// How many pass between two injections.
    between: usize,
    runner: Option<u64>,
    injected: usize,
    released: watch::Sender<bool>,
}

impl Placed {
    fn claim(&mut self, endpoint: Endpoint, runner: Option<u64>) -> Option<Claim> {
        let concerns = self.endpoint.covers(endpoint) && (self.runner.is_none() || self.runner == runner);
        if !concerns || self.left == Some(0) {
            return None;
        }
        if self.passes > 0 {
            self.passes -= 1;
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        self.injected += 1;
        self.passes = self.between;
        Some(Claim { fault: self.fault.clone(), released: self.released.subscribe() })
    }
}
