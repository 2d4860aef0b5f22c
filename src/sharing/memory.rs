//! A store in memory, with the faults of a real one.

pub mod network;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::ready;
use std::rc::Rc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Engine, Error, Value, Watch};
use crate::model::ShareName;
use network::{Line, Lost};

/// A store in memory. Clones are the connections of several machines to it.
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine {
    state: Rc<RefCell<State>>,
    /// The network between; `None` if it answers at once.
    line: Option<Line>,
}

#[derive(Debug, Default)]
struct State {
    values: BTreeMap<ShareName, watch::Sender<Option<Value>>>,
    /// How many of the next swaps are executed while their answers are lost.
    lost_answers: u32,
    /// How many of the next swaps are lost before they are executed, and how many come through before.
    lost_requests: u32,
    passing: u32,
    /// Whether nothing answers.
    is_stopped: bool,
    /// How many reads there were.
    reads: u32,
    /// How many requests were not answered.
    failures: u32,
    /// Whether this machine lacks a right.
    is_denied: bool,
    /// Whether it may not write.
    is_read_only: bool,
}

impl MemoryEngine {
    /// A connection over a network.
    pub fn over(&self, line: Line) -> Self {
        Self { state: Rc::clone(&self.state), line: Some(line) }
    }

    /// The answers to the next swaps are lost.
    pub fn lose_answers(&self, count: u32) {
        self.state.borrow_mut().lost_answers = count;
    }

    /// The next swaps are lost on their way.
    pub fn lose_requests(&self, count: u32) {
        self.state.borrow_mut().lost_requests = count;
    }

    /// The same, once this many have come through.
    pub fn lose_requests_after(&self, passing: u32, count: u32) {
        let mut state = self.state.borrow_mut();
        (state.passing, state.lost_requests) = (passing, count);
    }

    /// Nothing answers any more, or all does again.
    pub fn stop(&self, is_stopped: bool) {
        self.state.borrow_mut().is_stopped = is_stopped;
    }

    /// How many reads there were.
    pub fn reads(&self) -> u32 {
        self.state.borrow().reads
    }

    /// This machine has no right any more, or has it again.
    pub fn deny(&self, is_denied: bool) {
        self.state.borrow_mut().is_denied = is_denied;
    }

    /// This machine may not write any more.
    pub fn deny_writes(&self) {
        self.state.borrow_mut().is_read_only = true;
    }

    /// How many requests were not answered.
    pub fn failures(&self) -> u32 {
        self.state.borrow().failures
    }

    /// All watches of a value end.
    pub fn end_watches(&self, name: &ShareName) {
        let value = self.value_of(name);
        self.state.borrow_mut().values.insert(name.clone(), watch::Sender::new(value));
    }

    /// The value as it is now.
    pub fn value_of(&self, name: &ShareName) -> Option<Value> {
        self.value(name).borrow().clone()
    }

    /// The store is restored: it has this value again.
    pub fn restore(&self, name: &ShareName, value: Option<Value>) {
        self.value(name).send_replace(value);
    }

    fn check(&self) -> Result<(), Error> {
        let stopped = || Error::Unreachable { engine: "memory", detail: "it is stopped".to_owned() };
        let denied = || {
            let (object, right) = ("a value".to_owned(), "the right to read".to_owned());
            Error::Denied { engine: "memory", act: "read", object, right }
        };
        let mut state = self.state.borrow_mut();
        state.failures += u32::from(state.is_stopped || state.is_denied);
        match &*state {
            State { is_stopped: true, .. } => Err(stopped()),
            State { is_denied: true, .. } => Err(denied()),
            State { .. } => Ok(()),
        }
    }

    fn check_write(&self) -> Result<(), Error> {
        self.check()?;
        let (object, right) = ("a value".to_owned(), "the right to write".to_owned());
        let denied = Error::Denied { engine: "memory", act: "write", object, right };
        if self.state.borrow().is_read_only { Err(denied) } else { Ok(()) }
    }

    fn value(&self, name: &ShareName) -> watch::Sender<Option<Value>> {
        self.state.borrow_mut().values.entry(name.clone()).or_insert_with(|| watch::Sender::new(None)).clone()
    }
}

impl MemoryEngine {
    fn get_now(&self, name: &ShareName) -> Result<Option<Value>, Error> {
        self.check()?;
        self.state.borrow_mut().reads += 1;
        Ok(self.value_of(name))
    }

    fn swap_now(&self, name: &ShareName, expected: Option<&Value>, value: Option<&Value>) -> Result<bool, Error> {
        let take = |count: &mut u32| {
            let is_one = *count > 0;
            *count = count.saturating_sub(1);
            is_one
        };
        self.check_write()?;
        let is_passing = take(&mut self.state.borrow_mut().passing);
        if !is_passing && take(&mut self.state.borrow_mut().lost_requests) {
            return Err(self.unknown(name));
        }
        let is_swapped = self.value(name).send_if_modified(|present| {
            let is_expected = present.as_ref() == expected;
            if is_expected {
                *present = value.cloned();
            }
            is_expected
        });
        if take(&mut self.state.borrow_mut().lost_answers) { Err(self.unknown(name)) } else { Ok(is_swapped) }
    }

    fn unknown(&self, name: &ShareName) -> Error {
        Error::Unknown { engine: "memory", object: self.object(name), detail: "the test says so".to_owned() }
    }

    /// Sends a request over the network, if there is one.
    async fn ask<T: 'static>(&self, act: impl Fn(&Self) -> Result<T, Error> + 'static) -> Result<T, Error> {
        let Some(line) = &self.line else { return act(self) };
        let store = Self { state: Rc::clone(&self.state), line: None };
        line.carry(move || ready(act(&store))).await.unwrap_or_else(|lost| {
            let detail = format!("{lost:?}");
            Err(Error::Unreachable { engine: "memory", detail })
        })
    }
}

impl Engine for MemoryEngine {
    type Watch = MemoryWatch;

    fn object(&self, name: &ShareName) -> String {
        format!("value `{name}`")
    }

    async fn get(&self, name: &ShareName) -> Result<Option<Value>, Error> {
        let name = name.clone();
        self.ask(move |store| store.get_now(&name)).await
    }

    async fn swap(&self, name: &ShareName, expected: Option<&Value>, value: Option<&Value>) -> Result<bool, Error> {
        let Some(line) = &self.line else { return self.swap_now(name, expected, value) };
        let store = Self { state: Rc::clone(&self.state), line: None };
        let sent = (name.clone(), expected.cloned(), value.cloned());
        let swap = move || ready(store.swap_now(&sent.0, sent.1.as_ref(), sent.2.as_ref()));
        match line.carry(swap).await {
            Ok(answer) => answer,
            Err(Lost::Unsent) => Err(Error::Unreachable { engine: "memory", detail: "it was not sent".to_owned() }),
            Err(Lost::Unanswered) => Err(self.unknown(name)),
        }
    }

    async fn probe(&self, _: &ShareName) -> Result<(), Error> {
        self.check_write()
    }

    async fn watch(&self, name: &ShareName) -> Result<MemoryWatch, Error> {
        let name = name.clone();
        let changes = self.ask(move |store| store.check().map(|()| store.value(&name).subscribe())).await?;
        Ok(MemoryWatch { changes, line: self.line.clone(), due: None })
    }
}

/// Changes of a value in memory.
#[derive(Debug)]
pub struct MemoryWatch {
    changes: watch::Receiver<Option<Value>>,
    line: Option<Line>,
    /// When a change arrives that is under way.
    due: Option<Instant>,
}

impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Option<Value>, Error> {
        let ended = |_| Error::Unreachable { engine: "memory", detail: "it is gone".to_owned() };
        if self.due.is_none() {
            self.changes.changed().await.map_err(ended)?;
            self.due = Some(Instant::now() + self.line.as_ref().map(Line::delay).unwrap_or_default());
        }
        if let (Some(line), Some(due)) = (&self.line, self.due) {
            sleep_until(due).await;
            line.until_open().await;
        }
        self.due = None;
        Ok(self.changes.borrow_and_update().clone())
    }
}
