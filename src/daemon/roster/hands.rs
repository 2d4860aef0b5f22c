//! Tasks for pieces of work: as many as have ever worked at once, each for one piece after the other.
//!
//! A task for each piece would be made and dropped thousands of times, and what stays of a runner would come to lie between
//! the places of such tasks, which are large: after an outage the places took twice the memory of the runners.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{self, JoinError, JoinSet};

/// A piece of work.
pub(super) trait Job: 'static {
    /// What comes of it.
    type Done: 'static;

    async fn work(self) -> Self::Done;
}

/// All tasks.
pub(super) struct Hands<J, T> {
    tasks: JoinSet<()>,
    idle: Vec<Hand<J>>,
    done: UnboundedSender<T>,
    is_done: UnboundedReceiver<T>,
}

/// A task.
pub(super) struct Hand<J> {
    task: task::Id,
    jobs: UnboundedSender<J>,
}

impl<J: Job> Hands<J, J::Done> {
    pub(super) fn new() -> Self {
        let (done, is_done) = unbounded_channel();
        Self { tasks: JoinSet::new(), idle: Vec::new(), done, is_done }
    }

    /// How many are at work.
    pub(super) fn at_work(&self) -> usize {
        self.tasks.len() - self.idle.len()
    }

    /// Gives the work to a task, which is [released](Self::release) once the work has ended.
    pub(super) fn begin(&mut self, job: J) -> Hand<J> {
        let hand = self.idle.pop().unwrap_or_else(|| {
            let (jobs, given) = unbounded_channel();
            let task = self.tasks.spawn_local(work(given, self.done.clone())).id();
            Hand { task, jobs }
        });
        // It ends by a panic alone, and is not idle then.
        let _given = hand.jobs.send(job);
        hand
    }

    /// Makes a task idle.
    pub(super) fn release(&mut self, hand: Hand<J>) {
        self.idle.push(hand);
    }

    /// Waits for the end of a piece of work, or for a panic, which ends its task too. Cancel safe.
    pub(super) async fn ended(&mut self) -> Result<J::Done, JoinError> {
        tokio::select! {
            biased;
            // Never closed: `self` has a sender.
            Some(done) = self.is_done.recv() => Ok(done),
            Some(Err(panicked)) = self.tasks.join_next() => Err(panicked),
            else => std::future::pending().await,
        }
    }
}

impl<J> Hand<J> {
    /// Whether it is this task.
    pub(super) fn is(&self, task: task::Id) -> bool {
        self.task == task
    }
}

async fn work<J: Job>(mut jobs: UnboundedReceiver<J>, done: UnboundedSender<J::Done>) {
    while let Some(job) = jobs.recv().await {
        // Without a receiver the roster is gone.
        let _taken = done.send(job.work().await);
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    enum Task {
        Id,
        Panic,
    }

    impl Job for Task {
        type Done = task::Id;

        async fn work(self) -> task::Id {
            match self {
                Self::Id => task::id(),
                Self::Panic => panic!("a fault"),
            }
        }
    }

    #[tokio::test]
    async fn one_task_does_one_job_after_the_other() {
        let jobs = async {
            let mut hands = Hands::new();
            let mut ids = Vec::new();
            for _ in 0..3 {
                let hand = hands.begin(Task::Id);
                assert_eq!(hands.at_work(), 1);
                ids.push(hands.ended().await.unwrap());
                assert!(hand.is(ids[0]));
                hands.release(hand);
                assert_eq!(hands.at_work(), 0);
            }
            assert_eq!(hands.tasks.len(), 1);
        };
        LocalSet::new().run_until(jobs).await;
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_and_the_next_job_gets_another() {
        let jobs = async {
            let mut hands = Hands::new();
            let (other, hand) = (hands.begin(Task::Id), hands.begin(Task::Panic));
            let done = hands.ended().await.unwrap();
            assert!(other.is(done));
            assert!(hand.is(hands.ended().await.unwrap_err().id()));
            assert_eq!(hands.at_work(), 1, "the other is not released yet");
            hands.begin(Task::Id);
            assert!(!hand.is(hands.ended().await.unwrap()));
        };
        LocalSet::new().run_until(jobs).await;
    }
}
