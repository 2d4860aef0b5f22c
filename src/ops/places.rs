//! How much is under way at one host: an operation waits for its turn, locks and reads its runner, waits for a place
//! among the requests, and asks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Disk, Error, Ops, Runner, Server};
use crate::model::Site;
use crate::store::{self, OnDisk};

/// How long an operation waits for the lock of a runner that another process works on.
pub const LOCK_WAIT: Duration = Duration::from_secs(15);

/// The pause between attempts to lock a runner.
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// How long a lock is held for a request that has no place yet. A command may want that runner.
const AHEAD: Duration = Duration::from_secs(1);

/// What bounds the work at one host.
#[derive(Debug)]
pub(super) struct Places {
    /// The operations that are under way.
    turns: Arc<Semaphore>,
    /// Those of them that may ask the server.
    requests: Arc<Semaphore>,
}

impl Places {
    fn new(requests: usize) -> Self {
        let turns = turns_for(requests).min(Semaphore::MAX_PERMITS);
        Self { turns: Arc::new(Semaphore::new(turns)), requests: Arc::new(Semaphore::new(requests)) }
    }
}

/// The operations beside so many requests. A few more: a runner is locked and read while the requests of others are
/// answered, so that the server does not wait for the disk.
pub(super) fn turns_for(requests: usize) -> usize {
    requests.saturating_add(requests.div_ceil(8))
}

/// A lock, and the places at the host, all until the operation ends.
#[expect(dead_code, reason = "held until the operation ends")]
#[derive(Debug)]
pub struct Locked<L> {
    lock: L,
    turn: Option<OwnedSemaphorePermit>,
    place: Option<OwnedSemaphorePermit>,
}

impl<L> Locked<L> {
    /// A lock for which no server is asked.
    pub(super) fn without_request((lock, turn): (L, Option<OwnedSemaphorePermit>)) -> Self {
        Self { lock, turn, place: None }
    }

    /// The server is not asked any more.
    pub(super) fn give_place_back(&mut self) {
        (self.turn, self.place) = (None, None);
    }
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Locks a runner, and reads its files in the same step. If the requests of others take long, it is locked and read
    /// once more when it has its place.
    pub(super) async fn queue(&self, runner: &Runner) -> Result<(Locked<D::RunnerLock>, OnDisk), Error> {
        let lock = async || self.disk.lock_and_read(&runner.record.key).await;
        let host = runner.site.url.authority();
        let ((locked, found), turn) = self.queue_at(self.turns_at(host.clone()), lock).await?;
        if let Ok(place) = tokio::time::timeout(AHEAD, self.place_at(host.clone())).await {
            return Ok((Locked { lock: locked, turn, place }, found));
        }
        drop(locked);
        let ((lock, found), place) = self.queue_at(self.requests_at(host), lock).await?;
        Ok((Locked { lock, turn, place }, found))
    }

    /// Waits in this queue first, and then tries the lock without waiting: neither a lock nor a file descriptor is held in
    /// the queue. If the lock is held, the place in the queue is given back until it is free.
    pub(super) async fn queue_at<L>(
        &self,
        queue: Arc<Semaphore>,
        lock: impl AsyncFn() -> Result<L, store::Error>,
    ) -> Result<(L, Option<OwnedSemaphorePermit>), Error> {
        let mut waited = Duration::ZERO;
        loop {
            // The semaphore is never closed.
            let place = Arc::clone(&queue).acquire_owned().await.ok();
            match lock().await {
                Ok(lock) => return Ok((lock, place)),
                Err(error @ store::Error::RunnerLocked { .. }) if waited >= LOCK_WAIT => return Err(error.into()),
                Err(store::Error::RunnerLocked { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            drop(place);
            tokio::time::sleep(LOCK_RETRY).await;
            waited += LOCK_RETRY;
        }
    }

    /// A place towards the host, for one request at a time. Every request has one, so the client, which bounds the
    /// requests of a host too, never lets a reset wait that is journaled already.
    pub(super) async fn place(&self, site: &Site) -> Option<OwnedSemaphorePermit> {
        self.place_at(site.url.authority()).await
    }

    async fn place_at(&self, host: String) -> Option<OwnedSemaphorePermit> {
        self.requests_at(host).acquire_owned().await.ok()
    }

    /// The queue of the operations at a host.
    pub(super) fn turns_at(&self, host: String) -> Arc<Semaphore> {
        self.places_at(host, |places| Arc::clone(&places.turns))
    }

    fn requests_at(&self, host: String) -> Arc<Semaphore> {
        self.places_at(host, |places| Arc::clone(&places.requests))
    }

    fn places_at<T>(&self, host: String, select: impl FnOnce(&Places) -> T) -> T {
        let mut places = self.places.borrow_mut();
        select(places.entry(host).or_insert_with(|| Places::new(self.server.in_flight_per_host())))
    }
}
