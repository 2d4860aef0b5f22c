//! A network between machines and what they ask: slow, cut, and with proxies that repeat requests.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use test_support::Chance;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

type Packet = Pin<Box<dyn Future<Output = ()>>>;

/// What carries requests: one that was sent goes on after its sender has died.
#[derive(Clone, Debug)]
pub struct Network {
    packets: mpsc::UnboundedSender<Packet>,
    chance: Rc<Chance>,
}

impl Network {
    /// A network, and what delivers its requests while it is polled.
    pub fn new(chance: Rc<Chance>) -> (Self, impl Future<Output = ()>) {
        let (packets, mut inbox) = mpsc::unbounded_channel::<Packet>();
        let deliver = async move {
            let mut under_way = JoinSet::new();
            loop {
                tokio::select! {
                    Some(packet) = inbox.recv() => { under_way.spawn_local(packet); }
                    Some(delivered) = under_way.join_next() => delivered.unwrap(),
                    else => return,
                }
            }
        };
        (Self { packets, chance }, deliver)
    }

    /// A way from a machine to something that it asks.
    pub fn line(&self, timeout: Duration) -> Line {
        Line { network: self.clone(), timeout, way: Rc::default() }
    }
}

/// How a way is at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Whether nothing passes.
    pub is_cut: bool,
    /// Whether a request can take longer than its answer is waited for.
    pub is_slow: bool,
    /// Whether a proxy sends requests twice at times.
    pub repeats: bool,
}

/// How a request was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It was not sent.
    Unsent,
    /// No answer came.
    Unanswered,
}

/// The way from a machine to something that it asks.
#[derive(Clone)]
pub struct Line {
    network: Network,
    timeout: Duration,
    way: Rc<RefCell<Way>>,
}

impl fmt::Debug for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.way().fmt(formatter)
    }
}

impl Line {
    /// How it is.
    pub fn way(&self) -> Way {
        *self.way.borrow()
    }

    /// Changes how it is.
    pub fn change(&self, change: impl FnOnce(&mut Way)) {
        change(&mut self.way.borrow_mut());
    }

    /// How long something takes on its way.
    pub fn delay(&self) -> Duration {
        let chance = &self.network.chance;
        match self.way().is_slow && chance.one_in(3) {
            true => chance.millis(1000, 45_000),
            false => chance.millis(1, 200),
        }
    }

    /// Waits until something can pass.
    pub async fn until_open(&self) {
        while self.way().is_cut {
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Sends a request, which `act` executes where it arrives.
    pub async fn carry<T, F>(&self, act: impl Fn() -> F + 'static) -> Result<T, Lost>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        let chance = &self.network.chance;
        if self.way().is_cut && chance.one_in(2) {
            return Err(Lost::Unsent);
        }
        let (there, back) = (self.delay(), self.delay());
        let again = (self.way().repeats && chance.one_in(8)).then(|| (self.delay(), chance.one_in(2)));
        let (answer, answered) = oneshot::channel();
        let line = self.clone();
        let packet = async move {
            sleep(there).await;
            if line.way().is_cut {
                return;
            }
            let mut result = act().await;
            if let Some((pause, is_answer_of_second)) = again {
                sleep(pause).await;
                let second = act().await;
                if is_answer_of_second {
                    result = second;
                }
            }
            sleep(back).await;
            if !line.way().is_cut {
                // Its sender may have died.
                let _unheard = answer.send(result);
            }
        };
        self.network.packets.send(Box::pin(packet)).unwrap();
        let wait = async {
            match answered.await {
                Ok(result) => result,
                Err(_) => std::future::pending().await,
            }
        };
        timeout(self.timeout, wait).await.map_err(|_| Lost::Unanswered)
    }
}
