//! Paged lists, also from misbehaving servers.

use serde_json::json;

use super::*;

fn rows(ids: impl IntoIterator<Item = u64>) -> String {
    json!(ids.into_iter().map(|id| json!({ "id": id })).collect::<Vec<_>>()).to_string()
}

fn page(ids: impl IntoIterator<Item = u64>, next: &str) -> Reply {
    Reply::new(200, &[("content-type", "application/json"), ("x-next-page", next)], &rows(ids))
}

/// Reads a list to its end: the ids of its rows page by page, and the error that ended it.
async fn read(server: &ScriptedServer) -> (Vec<Vec<u64>>, Option<Error>) {
    let fleet = client().fleet(server.site(), token(ACCESS_TOKEN));
    let mut pages = fleet.runners(&RunnerScope::Owned, &RunnerFilters::default()).of_length(2);
    let mut read = Vec::new();
    loop {
        match pages.next_page().await {
            Ok(Some(rows)) => read.push(rows.iter().map(|row| row.id.number()).collect()),
            Ok(None) => return (read, None),
            Err(error) => return (read, Some(error)),
        }
    }
}

fn targets(server: &ScriptedServer) -> Vec<String> {
    server.requests().iter().map(|request| request.line.replace("GET /api/v4/", "")).collect()
}

#[tokio::test]
async fn pages_follow_the_next_page_number() {
    let server = ScriptedServer::start([page([1, 2], "2"), page([3, 4], "3"), page([5], "")]).await;
    let (pages, error) = read(&server).await;
    assert_eq!((pages, error.is_none()), (vec![vec![1, 2], vec![3, 4], vec![5]], true));
    let expected = [1, 2, 3].map(|page| format!("runners?per_page=2&page={page}"));
    assert_eq!(targets(&server), expected);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_link_to_another_server_is_not_followed() {
    let elsewhere = ScriptedServer::start([]).await;
    let link = format!("<http://{}/api/v4/runners?page=2&private_token=x>; rel=\"next\"", elsewhere.authority);
    let first =
        Reply::new(200, &[("content-type", "application/json"), ("x-next-page", "2"), ("link", &link)], &rows([1, 2]));
    let server = ScriptedServer::start([first, page([3], "")]).await;
    assert_eq!(read(&server).await.0, [vec![1, 2], vec![3]]);
    assert_eq!((server.requests().len(), elsewhere.requests().len()), (2, 0));
}

#[tokio::test]
async fn rows_that_moved_to_a_later_page_are_returned_once() {
    let server = ScriptedServer::start([page([1, 2], "2"), page([2, 3], "3"), page([1, 4], "")]).await;
    assert_eq!(read(&server).await.0, [vec![1, 2], vec![3], vec![4]]);
}

#[tokio::test]
async fn an_empty_page_is_always_the_end() {
    for last in [page([], ""), page([], "3"), Reply::json(200, "[]")] {
        let server = ScriptedServer::start([page([1, 2], "2"), last]).await;
        let (pages, error) = read(&server).await;
        assert_eq!((pages, error.is_none()), (vec![vec![1, 2]], true));
    }
}

#[tokio::test]
async fn a_repeated_page_is_an_error() {
    let server = ScriptedServer::start([page([1, 2], "2"), page([2, 1], "3")]).await;
    let (pages, error) = read(&server).await;
    assert_eq!(pages, [[1, 2]]);
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::UnexpectedAnswer);
    assert!(error.to_string().contains("repeats rows of earlier pages"), "{error}");
}

#[tokio::test]
async fn an_earlier_next_page_is_an_error() {
    for next in ["1", "2", "0", "-1", "x", "3.5"] {
        let server = ScriptedServer::start([page([1, 2], "2"), page([3, 4], next)]).await;
        let (pages, error) = read(&server).await;
        assert_eq!(pages, [[1, 2]], "{next}");
        assert_eq!(error.unwrap().kind(), ErrorKind::UnexpectedAnswer, "{next}");
    }
}

#[tokio::test]
async fn an_impossible_page_number_is_an_error() {
    let first = |next| [page([1, 2], next), Reply::json(200, &rows([3, 4]))];
    for (next, detail) in [
        ("18446744073709551615", "page 1 names page 18446744073709551615 as the next one"),
        ("9223372036854775807", "page 9223372036854775807 must be the last one, but is full"),
    ] {
        let error = read(&ScriptedServer::start(first(next)).await).await.1.unwrap();
        assert_eq!(error.kind(), ErrorKind::UnexpectedAnswer);
        assert!(error.to_string().contains(detail), "{error}");
    }
}

#[tokio::test]
async fn without_the_header_a_full_page_has_a_next_one() {
    let bare = |ids: &[u64]| Reply::json(200, &rows(ids.iter().copied()));
    let server = ScriptedServer::start([bare(&[1, 2]), bare(&[3, 4]), bare(&[5])]).await;
    assert_eq!(read(&server).await.0, [vec![1, 2], vec![3, 4], vec![5]]);
}

#[tokio::test]
async fn a_failed_page_can_be_requested_again() {
    let server = ScriptedServer::start([page([1, 2], "2"), Reply::html(502), page([3], "")]).await;
    let fleet = client().fleet(server.site(), token(ACCESS_TOKEN));
    let mut pages = fleet.runners(&RunnerScope::Owned, &RunnerFilters::default()).of_length(2);
    assert_eq!(pages.next_page().await.unwrap().unwrap().len(), 2);
    assert_eq!(pages.next_page().await.unwrap_err().class(), ErrorClass::Unreachable);
    assert_eq!(pages.next_page().await.unwrap().unwrap()[0].id.number(), 3);
    assert!(pages.next_page().await.unwrap().is_none());
}

#[tokio::test]
async fn jobs_use_cursors_from_header_or_link() {
    let json = ("content-type", "application/json");
    let by_header = Reply::new(200, &[json, ("x-next-cursor", "a=b&c")], &rows([4, 3]));
    let link = "<https://gitlab.internal/api/v4/runners/42/jobs?cursor=second%3D&per_page=100>; rel=\"next\"";
    let by_link = Reply::new(200, &[json, ("link", link)], &rows([2]));
    let last = Reply::new(200, &[json, ("x-next-cursor", "")], &rows([1]));
    let server = ScriptedServer::start([by_header, by_link, last]).await;
    let fleet = client().fleet(server.site(), token(ACCESS_TOKEN));
    let mut jobs = fleet.jobs(id(), &JobFilters::default());
    let mut read = Vec::new();
    while let Some(page) = jobs.next_page().await.unwrap() {
        read.extend(page.iter().map(|job| job.id));
    }
    assert_eq!(read, [4, 3, 2, 1]);
    let common = "runners/42/jobs?order_by=id&sort=desc&per_page=100&pagination=keyset";
    let expected = ["", "&cursor=a%3Db%26c", "&cursor=second%3D"].map(|cursor| format!("{common}{cursor}"));
    assert_eq!(targets(&server), expected);
}

#[tokio::test]
async fn jobs_without_cursors_use_page_numbers() {
    let refused = Reply::json(405, r#"{"error":"Keyset pagination is not yet available for this type of request"}"#);
    for first in [vec![refused, page([4, 3], "2")], vec![page([4, 3], "2")]] {
        let count = first.len();
        let server = ScriptedServer::start(first.into_iter().chain([page([2], "")])).await;
        let fleet = client().fleet(server.site(), token(ACCESS_TOKEN));
        let mut jobs = fleet.jobs(id(), &JobFilters::default());
        assert_eq!(jobs.next_page().await.unwrap().unwrap().len(), 2);
        assert_eq!(jobs.next_page().await.unwrap().unwrap()[0].id, 2);
        assert!(jobs.next_page().await.unwrap().is_none());
        assert_eq!(server.requests().len(), count + 1);
        assert!(targets(&server).last().unwrap().ends_with("per_page=100&page=2"));
    }
}

#[tokio::test]
async fn a_cursor_to_its_own_page_is_an_error() {
    let reply =
        |ids: [u64; 1]| Reply::new(200, &[("content-type", "application/json"), ("x-next-cursor", "same")], &rows(ids));
    let server = ScriptedServer::start([reply([2]), reply([1])]).await;
    let fleet = client().fleet(server.site(), token(ACCESS_TOKEN));
    let mut jobs = fleet.jobs(id(), &JobFilters::default());
    jobs.next_page().await.unwrap();
    assert_eq!(jobs.next_page().await.unwrap_err().kind(), ErrorKind::UnexpectedAnswer);
}
