//! Watches over the work on files: one that takes long is told, and one that does not end is a reason for a new process,
//! unless that would lose a token.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use crate::clock::{Clock as _, SystemClock};
use crate::files::{FileTask, oldest_file_task};
use crate::ops::SoleCopies;
use crate::status::{FileWork, StatusRegistry};
use crate::store::Store;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// From when on the daemon is not ready.
const SLOW: Duration = Duration::from_secs(5);

/// From when on the work is taken for one that does not end: network shares need up to a minute to find a server again.
const STUCK: Duration = Duration::from_secs(90);

/// Reports how the work on files goes, until the daemon has ended.
pub(super) async fn watch_disk(store: &Store, sole_copies: &SoleCopies, registry: &StatusRegistry) -> Infallible {
    let mut told = None;
    loop {
        sleep(PAUSE).await;
        let of_store = Finding::of(store.work_under_way(), sole_copies.exposed());
        let found = of_store.or_else(|| Finding::on_other_file(oldest_file_task()));
        if found != told {
            found.as_ref().or(told.as_ref()).into_iter().for_each(|finding| finding.log(found.is_none()));
            registry.report_file_work(found.as_ref().map(Finding::report).unwrap_or_default());
            told = found;
        }
    }
}

/// Work on a file that takes long.
#[derive(Clone, Debug)]
struct Finding {
    work: FileTask,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Slow,
    /// It does not end, and a token is in memory alone.
    Exposed,
    Stuck,
    /// It does not end, and only what needs the file waits for it. A new process would wait for it at its start.
    OtherFile,
}

impl PartialEq for Finding {
    /// Whether nothing new is to be told.
    fn eq(&self, other: &Self) -> bool {
        (self.work.number, self.verdict) == (other.work.number, other.verdict)
    }
}

impl Finding {
    fn of(work: Option<FileTask>, exposed: usize) -> Option<Self> {
        let work = work.filter(|work| work.age >= SLOW)?;
        let verdict = match (work.age >= STUCK, exposed) {
            (false, _) => Verdict::Slow,
            (true, 0) => Verdict::Stuck,
            (true, _) => Verdict::Exposed,
        };
        Some(Self { work, verdict })
    }

    /// About work that neither config.toml nor the state waits for: settings, templates, tokens, TLS files.
    fn on_other_file(work: Option<FileTask>) -> Option<Self> {
        let work = work.filter(|work| work.age >= SLOW)?;
        let verdict = if work.age >= STUCK { Verdict::OtherFile } else { Verdict::Slow };
        Some(Self { work, verdict })
    }

    fn report(&self) -> FileWork {
        let began = SystemClock.read().wall.minus(self.work.age);
        let (file, since) = (self.work.file.display(), began.whole_seconds());
        let why = format!("the work on `{file}` that began at {since} has not ended");
        match self.verdict {
            Verdict::Slow | Verdict::OtherFile => FileWork::Slow(why),
            Verdict::Exposed => FileWork::Slow(format!("{why}, and a new token is in memory alone")),
            Verdict::Stuck => FileWork::Stuck(why),
        }
    }

    fn log(&self, has_ended: bool) {
        let (file, seconds) = (self.work.file.display(), self.work.age.as_secs());
        if has_ended {
            return tracing::info!(%file, "the work on a file that took long has ended");
        }
        match self.verdict {
            Verdict::Slow => tracing::warn!(%file, seconds, "the work on a file takes long: look at its disk or share"),
            Verdict::Exposed => tracing::error!(
                %file,
                seconds,
                "the work on a file does not end, and a new token is in memory alone: do not end this process, look at the disk or share"
            ),
            Verdict::OtherFile => tracing::error!(
                %file,
                seconds,
                "the work on a file does not end: look at its disk or share; only what needs the file waits for it"
            ),
            Verdict::Stuck => tracing::error!(
                %file,
                seconds,
                "the work on a file does not end: look at its disk or share; no token is lost by a restart"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(seconds: u64) -> Option<FileTask> {
        Some(FileTask { number: 1, age: Duration::from_secs(seconds), file: "/x/config.toml".into() })
    }

    #[test]
    fn work_that_does_not_end_calls_for_a_new_process_unless_a_token_would_be_lost() {
        for (found, exposed, expected) in [
            (None, 0, None),
            (None, 1, None),
            (work(0), 1, None),
            (work(4), 0, None),
            (work(5), 0, Some(Verdict::Slow)),
            (work(5), 1, Some(Verdict::Slow)),
            (work(89), 0, Some(Verdict::Slow)),
            (work(90), 0, Some(Verdict::Stuck)),
            (work(9000), 2, Some(Verdict::Exposed)),
        ] {
            assert_eq!(Finding::of(found.clone(), exposed).map(|finding| finding.verdict), expected, "{found:?}");
        }
        let report = |seconds, exposed| Finding::of(work(seconds), exposed).unwrap().report();
        let is_named = |why: &str| why.starts_with("the work on `/x/config.toml` that began at 20");
        assert!(matches!(report(5, 0), FileWork::Slow(why) if is_named(&why)));
        assert!(matches!(report(90, 0), FileWork::Stuck(why) if is_named(&why)));
        assert!(matches!(report(90, 1), FileWork::Slow(why) if is_named(&why) && why.contains("new token")));
    }

    #[test]
    fn work_on_other_files_that_does_not_end_calls_for_no_new_process() {
        let verdict = |seconds| Finding::on_other_file(work(seconds)).map(|finding| finding.verdict);
        let expected = [None, Some(Verdict::Slow), Some(Verdict::Slow), Some(Verdict::OtherFile)];
        assert_eq!([4, 5, 89, 90].map(verdict), expected);
        assert!(matches!(Finding::on_other_file(work(90)).unwrap().report(), FileWork::Slow(_)));
    }

    #[test]
    fn each_change_is_told_once() {
        let finding = |seconds, exposed| Finding::of(work(seconds), exposed).unwrap();
        assert_eq!(finding(5, 0), finding(80, 0));
        assert_ne!(finding(80, 0), finding(90, 0));
        assert_ne!(finding(90, 1), finding(90, 0));
    }
}
