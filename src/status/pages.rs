//! Response bodies that are made in pages, each when the one before is on its way.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame};
use serde::Serialize;
use tokio::task::yield_now;

use crate::model::PrettyRows;

/// How many runners a page has: some milliseconds of work at most.
pub(super) const PAGE: usize = 128;

pub(super) type PageError = Box<dyn std::error::Error + Send + Sync>;

/// A part of a text. An empty one was work that has no text yet.
pub(super) type Page = Result<String, PageError>;

/// A body of pages. Every task of the runtime gets its turn between two of them, whether or not the reader is fast.
pub(super) struct PagedBody {
    pages: Box<dyn Iterator<Item = Page> + Send>,
    pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl PagedBody {
    pub(super) fn new(pages: impl Iterator<Item = Page> + Send + 'static) -> Self {
        Self { pages: Box::new(pages), pause: None }
    }
}

impl Body for PagedBody {
    type Data = Bytes;
    type Error = PageError;

    fn poll_frame(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PageError>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(task));
            }
            // Not a wake-up of its own task: that would leave sockets and timers unheard for many pages.
            self.pause = Some(Box::pin(yield_now()));
            match self.pages.next() {
                Some(Ok(text)) if text.is_empty() => {}
                page => return Poll::Ready(page.map(|page| page.map(|text| Frame::data(text.into())))),
            }
        }
    }
}

/// The pages of a JSON document: its opening, the rows of each page up to `None`, and its end.
pub(super) fn json_pages<R: Serialize>(
    opening: String,
    mut next: impl FnMut() -> Option<Vec<R>>,
) -> impl Iterator<Item = Page> {
    let mut opening = Some(opening);
    let mut document = Some(PrettyRows::default());
    std::iter::from_fn(move || {
        let rows = document.as_mut()?;
        let mut text = opening.take().unwrap_or_default();
        let Some(page) = next() else {
            text.push_str(rows.closing());
            document = None;
            return Some(Ok(text));
        };
        let added = page.iter().try_for_each(|row| rows.add(row, &mut text));
        if added.is_err() {
            document = None;
        }
        Some(added.map(|()| text).map_err(PageError::from))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt as _;
    use hyper::Method;

    use crate::status::routes::Listener;

    use super::*;
    use crate::model::{Report, StateName};
    use crate::status::tests::{key, sources, status};
    use crate::status::{NotReadyReason, Readiness, RunnerStatus, Sources};

    const MANY: usize = 10_000;

    fn of_many(why: Option<&str>) -> Sources {
        let sources = sources(true);
        sources.registry.remove(&key("a"));
        for number in 0..MANY {
            let name = format!("runner-{number:05}");
            let id = u64::try_from(number + 1).unwrap();
            let not_ready_because = why.map(str::to_owned);
            let status = RunnerStatus { not_ready_because, ..status(&name, Some(id), StateName::Active) };
            sources.registry.update(status);
        }
        sources
    }

    /// Reads a body frame by frame, beside a task that counts its turns; calls `between` after each frame. Returns the
    /// body, the number of frames, and the fewest turns of the other task between two of them.
    async fn read(sources: &Sources, path: &str, mut between: impl FnMut(usize)) -> (String, usize, usize) {
        let turns = Arc::new(AtomicUsize::new(0));
        let other = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move {
                loop {
                    turns.fetch_add(1, Ordering::Relaxed);
                    yield_now().await;
                }
            }
        });
        let mut body = sources.respond_to(&Method::GET, path, &[], Listener::Socket).into_body();
        let (mut text, mut frames, mut fewest, mut before) = (String::new(), 0, usize::MAX, 0);
        while let Some(frame) = body.frame().await {
            let now = turns.load(Ordering::Relaxed);
            if frames > 0 {
                fewest = fewest.min(now - before);
            }
            before = now;
            frames += 1;
            text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
            between(frames);
        }
        other.abort();
        (text, frames, fewest)
    }

    #[tokio::test]
    async fn ten_thousand_runners_arrive_in_pages_between_which_other_tasks_have_their_turns() {
        let sources = of_many(Some("its token is being verified"));
        for (path, pages) in [("/status", 78), ("/readyz", 78), ("/metrics", 5 * 78)] {
            let (text, frames, turns) = read(&sources, path, |_| {}).await;
            assert!(frames >= pages && turns > 0, "{path}: {frames} frames, {turns} turns");
            match path {
                "/metrics" => {
                    let states = text.lines().filter(|line| line.starts_with("runner_agent_state{"));
                    assert_eq!(states.count(), 7 * MANY);
                }
                "/status" => {
                    let runners: Vec<_> = sources.registry.runners().into_iter().map(|status| status.report).collect();
                    let whole = Report { daemon: Some(sources.registry.daemon()), ..Report::new(runners) };
                    assert!(text == serde_json::to_string_pretty(&whole).unwrap() + "\n");
                }
                _ => {
                    let readiness: Readiness = serde_json::from_str(&text).unwrap();
                    assert_eq!(readiness, sources.registry.readiness());
                    assert!(text == serde_json::to_string_pretty(&readiness).unwrap() + "\n");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_runner_that_comes_or_goes_while_a_page_is_written_breaks_no_document() {
        let sources = of_many(None);
        let change = |frame: usize| {
            let (last, next) = (format!("runner-{:05}", MANY - frame), format!("runner-{:05}", 2 * frame * PAGE));
            sources.registry.remove(&key(&last));
            sources.registry.remove(&key(&next));
            let new = status("new", None, StateName::Unregistered);
            sources.registry.update(RunnerStatus { key: key(&format!("new-{frame}")), ..new });
        };
        let (text, frames, _) = read(&sources, "/status", change).await;
        let report: Report = serde_json::from_str(&text).unwrap();
        let names: std::collections::BTreeSet<_> = report.runners.iter().map(|runner| runner.name.clone()).collect();
        assert_eq!(names.len(), report.runners.len(), "none comes twice");
        assert!(report.runners.len() < MANY && report.runners.len() > MANY - 3 * frames, "{}", report.runners.len());
        let sources = of_many(None);
        let change = |frame: usize| {
            sources.registry.remove(&key(&format!("runner-{:05}", frame * 17)));
            let new = status("new", None, StateName::Unregistered);
            sources.registry.update(RunnerStatus { key: key(&format!("new-{frame}")), ..new });
        };
        let (text, _, _) = read(&sources, "/metrics", change).await;
        let is_whole = |line: &str| line.starts_with("# ") || line.starts_with("runner_agent_") && line.contains(' ');
        assert!(text.ends_with('\n') && text.lines().all(is_whole));
        let types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        let distinct: std::collections::BTreeSet<_> = types.iter().collect();
        assert_eq!(types.len(), distinct.len(), "the samples of a metric are together");
        let sources = of_many(None);
        let vanish = |_| (0..MANY).for_each(|number| sources.registry.remove(&key(&format!("runner-{number:05}"))));
        let (text, _, _) = read(&sources, "/status", vanish).await;
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap().runners.len(), PAGE);
    }

    #[tokio::test]
    async fn few_runners_are_a_body_of_known_length() {
        let sources = sources(true);
        for path in ["/status", "/readyz", "/metrics", "/healthz"] {
            let body = sources.respond_to(&Method::GET, path, &[], Listener::Socket).into_body();
            assert!(body.size_hint().exact().is_some(), "{path}");
        }
    }

    #[test]
    fn a_reason_has_the_shape_of_a_row() {
        let reason =
            |name: Option<&str>| NotReadyReason { name: name.map(str::to_owned), id: None, why: "w".to_owned() };
        let rows = vec![reason(None), reason(Some("a"))];
        let mut pages = vec![rows.clone()].into_iter();
        let text: Result<String, _> =
            json_pages(PrettyRows::opening("ready", false, "waiting_for"), move || pages.next()).collect();
        let whole = Readiness { ready: false, waiting_for: rows };
        assert_eq!(text.unwrap(), serde_json::to_string_pretty(&whole).unwrap() + "\n");
    }
}
