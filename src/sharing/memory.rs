//! A store in memory, with the faults of a real one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::watch;

use super::{Engine, Error, Value, Watch};
use crate::model::ShareName;

/// A store in memory. Clones are the connections of several machines to it.
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine(Rc<RefCell<State>>);

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
    /// The answers to the next swaps are lost.
    pub fn lose_answers(&self, count: u32) {
        self.0.borrow_mut().lost_answers = count;
    }

    /// The next swaps are lost on their way.
    pub fn lose_requests(&self, count: u32) {
        self.0.borrow_mut().lost_requests = count;
    }

    /// The same, once this many have come through.
    pub fn lose_requests_after(&self, passing: u32, count: u32) {
        let mut state = self.0.borrow_mut();
        (state.passing, state.lost_requests) = (passing, count);
    }

    /// Nothing answers any more, or all does again.
    pub fn stop(&self, is_stopped: bool) {
        self.0.borrow_mut().is_stopped = is_stopped;
    }

    /// How many reads there were.
    pub fn reads(&self) -> u32 {
        self.0.borrow().reads
    }

    /// This machine has no right any more, or has it again.
    pub fn deny(&self, is_denied: bool) {
        self.0.borrow_mut().is_denied = is_denied;
    }

    /// This machine may not write any more.
    pub fn deny_writes(&self) {
        self.0.borrow_mut().is_read_only = true;
    }

    /// How many requests were not answered.
    pub fn failures(&self) -> u32 {
        self.0.borrow().failures
    }

    /// All watches of a value end.
    pub fn end_watches(&self, name: &ShareName) {
        let value = self.value_of(name);
        self.0.borrow_mut().values.insert(name.clone(), watch::Sender::new(value));
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
        let mut state = self.0.borrow_mut();
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
        if self.0.borrow().is_read_only { Err(denied) } else { Ok(()) }
    }

    fn value(&self, name: &ShareName) -> watch::Sender<Option<Value>> {
        self.0.borrow_mut().values.entry(name.clone()).or_insert_with(|| watch::Sender::new(None)).clone()
    }
}

impl Engine for MemoryEngine {
    type Watch = MemoryWatch;

    fn object(&self, name: &ShareName) -> String {
        format!("value `{name}`")
    }

    async fn get(&self, name: &ShareName) -> Result<Option<Value>, Error> {
        self.check()?;
        self.0.borrow_mut().reads += 1;
        Ok(self.value(name).borrow().clone())
    }

    async fn swap(&self, name: &ShareName, expected: Option<&Value>, value: Option<&Value>) -> Result<bool, Error> {
        let unknown =
            || Error::Unknown { engine: "memory", object: self.object(name), detail: "the test says so".to_owned() };
        let take = |count: &mut u32| {
            let is_one = *count > 0;
            *count = count.saturating_sub(1);
            is_one
        };
        self.check_write()?;
        let is_passing = take(&mut self.0.borrow_mut().passing);
        if !is_passing && take(&mut self.0.borrow_mut().lost_requests) {
            return Err(unknown());
        }
        let is_swapped = self.value(name).send_if_modified(|present| {
            let is_expected = present.as_ref() == expected;
            if is_expected {
                *present = value.cloned();
            }
            is_expected
        });
        if take(&mut self.0.borrow_mut().lost_answers) { Err(unknown()) } else { Ok(is_swapped) }
    }

    async fn probe(&self, _: &ShareName) -> Result<(), Error> {
        self.check_write()
    }

    async fn watch(&self, name: &ShareName) -> Result<MemoryWatch, Error> {
        self.check()?;
        Ok(MemoryWatch(self.value(name).subscribe()))
    }
}

/// Changes of a value in memory.
#[derive(Debug)]
pub struct MemoryWatch(watch::Receiver<Option<Value>>);

impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Option<Value>, Error> {
        let ended = |_| Error::Unreachable { engine: "memory", detail: "it is gone".to_owned() };
        self.0.changed().await.map_err(ended)?;
        Ok(self.0.borrow_and_update().clone())
    }
}
