//! Faults, as a client sees them on the wire.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use fake_gitlab::{Answer, Endpoint, Fault, Gitlab, NewRunner};
use serde_json::{Value, json};
use test_support::http::{exchange, read_some, receive, send, send_on, try_send};

const RESET: &str = "/runners/reset_authentication_token";
const VERIFY: &str = "/runners/verify";
/// Longer than any operation here.
const PATIENCE: Duration = Duration::from_secs(20);

fn with_runner() -> (Gitlab, u64, Value) {
    let gitlab = Gitlab::start();
    let (id, token) = gitlab.add_runner(NewRunner::instance());
    (gitlab, id, json!({ "token": token }))
}

fn rotations(gitlab: &Gitlab, id: u64) -> usize {
    gitlab.runner(id).unwrap().rotations
}

#[test]
fn cut_before_acting_changes_nothing() {
    let (gitlab, id, token) = with_runner();
    gitlab.order(Endpoint::Reset, Fault::cut());
    assert!(try_send(&gitlab, "POST", RESET, token.clone()).is_none());
    assert_eq!(rotations(&gitlab, id), 0);
    assert_eq!(gitlab.requests_to(Endpoint::Reset)[0].status, None);
    assert_eq!(send(&gitlab, "POST", RESET, token).status, 201);
}

#[test]
fn cut_after_acting_loses_the_new_token() {
    let (gitlab, id, token) = with_runner();
    gitlab.order(Endpoint::Reset, Fault::cut().after_acting());
    assert!(try_send(&gitlab, "POST", RESET, token.clone()).is_none());
    assert_eq!(rotations(&gitlab, id), 1);
    assert_eq!(send(&gitlab, "POST", VERIFY, token).status, 403);
}

#[test]
fn status_fault_can_come_before_or_after_acting() {
    let (gitlab, id, token) = with_runner();
    gitlab.order(Endpoint::Reset, Fault::status(500));
    gitlab.order(Endpoint::Reset, Fault::html(504).after_acting());
    let reply = send(&gitlab, "POST", RESET, token.clone());
    assert_eq!((reply.status, reply.json()), (500, json!({ "message": "500 Internal Server Error" })));
    assert_eq!(rotations(&gitlab, id), 0);
    let reply = send(&gitlab, "POST", RESET, token);
    assert_eq!((reply.status, reply.header("content-type")), (504, Some("text/html; charset=utf-8")));
    assert_eq!(rotations(&gitlab, id), 1);
}

#[test]
fn order_injects_the_requested_number_of_faults() {
    let (gitlab, _, token) = with_runner();
    let statuses =
        |count: usize| (0..count).map(|_| send(&gitlab, "POST", VERIFY, token.clone()).status).collect::<Vec<_>>();
    let order = gitlab.order(Endpoint::Verify, Fault::status(502));
    order.after(1).times(2);
    assert_eq!(statuses(4), [200, 502, 502, 200]);
    assert_eq!(order.injected(), 2);
    gitlab.order(Endpoint::Verify, Fault::status(502)).every(3);
    assert_eq!(statuses(7), [200, 200, 502, 200, 200, 502, 200]);
    gitlab.clear_faults();
    gitlab.order(Endpoint::Any, Fault::status(503)).always();
    assert_eq!(statuses(3), [503, 503, 503]);
    gitlab.clear_faults();
    assert_eq!(statuses(1), [200]);
    gitlab.order(Endpoint::Reset, Fault::status(503)).always();
    assert_eq!(statuses(1), [200]);
}

#[test]
fn orders_for_one_endpoint_run_in_sequence() {
    let (gitlab, _, token) = with_runner();
    gitlab.order(Endpoint::Verify, Fault::status(500));
    gitlab.order(Endpoint::Verify, Fault::status(502)).times(2);
    gitlab.order(Endpoint::Verify, Fault::status(504)).cancel();
    let statuses: Vec<u16> = (0..4).map(|_| send(&gitlab, "POST", VERIFY, token.clone()).status).collect();
    assert_eq!(statuses, [500, 502, 502, 200]);
}

#[test]
fn order_can_be_limited_to_one_runner() {
    let (gitlab, id, token) = with_runner();
    let (_, other) = gitlab.add_runner(NewRunner::instance());
    gitlab.order(Endpoint::Verify, Fault::status(500)).for_runner(id).always();
    assert_eq!(send(&gitlab, "POST", VERIFY, json!({ "token": other })).status, 200);
    assert_eq!(send(&gitlab, "POST", VERIFY, token).status, 500);
}

#[test]
fn throttling_redirects_and_headers_can_be_injected() {
    let (gitlab, _, token) = with_runner();
    gitlab.order(Endpoint::Verify, Fault::throttled(7));
    gitlab.order(Endpoint::Verify, Fault::redirect(302, "https://elsewhere.test/"));
    gitlab.order(Endpoint::Verify, Fault::status(503).retry_after(900));
    gitlab.order(Endpoint::Verify, Fault::header("Date", "Thu, 01 Jan 1970 00:00:00 GMT"));
    gitlab.order(Endpoint::Verify, Fault::without_header("Date"));
    gitlab.order(Endpoint::Verify, Fault::answer(Answer::text(200, "text/plain", "hello")));
    let verify = || send(&gitlab, "POST", VERIFY, token.clone());
    let throttled = verify();
    assert_eq!((throttled.status, throttled.text().as_str()), (429, "Retry later\n"));
    assert_eq!(throttled.header("retry-after"), Some("7"));
    assert_eq!(verify().header("location"), Some("https://elsewhere.test/"));
    assert_eq!(verify().header("retry-after"), Some("900"));
    let dated = verify();
    assert_eq!((dated.status, dated.header("date")), (200, Some("Thu, 01 Jan 1970 00:00:00 GMT")));
    assert_eq!(verify().header("date"), None);
    assert_eq!(verify().text(), "hello");
}

#[test]
fn response_can_be_amended() {
    let (gitlab, id, token) = with_runner();
    let hostile = "a\nb".repeat(200);
    let value = hostile.clone();
    gitlab.order(
        Endpoint::Reset,
        Fault::amended(move |answer| {
            answer["token"] = json!(value);
            answer["id"] = json!(1_u64 << 63);
        }),
    );
    let reply = send(&gitlab, "POST", RESET, token);
    assert_eq!((&reply.json()["token"], &reply.json()["id"]), (&json!(hostile), &json!(1_u64 << 63)));
    assert_eq!((reply.status, rotations(&gitlab, id)), (201, 1));
}

#[test]
fn broken_json_is_valid_http() {
    let (gitlab, id, token) = with_runner();
    gitlab.order(Endpoint::Reset, Fault::broken_json());
    let reply = send(&gitlab, "POST", RESET, token);
    assert_eq!((reply.status, reply.body.len()), (201, reply.promised()));
    assert!(serde_json::from_slice::<Value>(&reply.body).is_err());
    assert_eq!((rotations(&gitlab, id), gitlab.requests()[0].status), (1, Some(201)));
}

#[test]
fn truncated_body_is_shorter_than_its_length() {
    let (gitlab, id, token) = with_runner();
    gitlab.order(Endpoint::Reset, Fault::truncated());
    let reply = send(&gitlab, "POST", RESET, token);
    assert!(reply.body.len() < reply.promised());
    assert_eq!((reply.status, rotations(&gitlab, id)), (201, 1));
}

#[test]
fn huge_body_is_sent_until_the_client_disconnects() {
    let (gitlab, _, token) = with_runner();
    gitlab.order(Endpoint::Verify, Fault::huge(1 << 40));
    gitlab.order(Endpoint::Verify, Fault::huge(3 << 16));
    let mut stream = TcpStream::connect(gitlab.address()).unwrap();
    let headers = [("Content-Type", "application/json")];
    send_on(&mut stream, "POST", "/api/v4/runners/verify", &headers, token.to_string().as_bytes());
    let mut bytes = Vec::new();
    while bytes.len() < 1 << 20 {
        assert!(read_some(&mut stream, &mut bytes));
    }
    drop(stream);
    assert_eq!(send(&gitlab, "POST", VERIFY, token).body.len(), 3 << 16);
}

#[test]
fn response_can_be_slow() {
    let (gitlab, _, token) = with_runner();
    gitlab.order(Endpoint::Verify, Fault::drip(Duration::from_micros(10)));
    gitlab.order(Endpoint::Verify, Fault::drip_body(Duration::from_micros(10)));
    gitlab.order(Endpoint::Verify, Fault::drip_body(Duration::from_secs(3600)));
    for _ in 0..2 {
        let reply = send(&gitlab, "POST", VERIFY, token.clone());
        assert_eq!((reply.status, &reply.json()["token"]), (200, &token["token"]));
    }
    let mut stream = TcpStream::connect(gitlab.address()).unwrap();
    let headers = [("Content-Type", "application/json")];
    send_on(&mut stream, "POST", "/api/v4/runners/verify", &headers, token.to_string().as_bytes());
    let mut bytes = Vec::new();
    assert!(read_some(&mut stream, &mut bytes));
    assert!(bytes.ends_with(b"\r\n\r\n"));
}

#[test]
fn headers_can_be_endless() {
    let (gitlab, _, token) = with_runner();
    gitlab.order(Endpoint::Verify, Fault::endless_headers());
    let mut stream = TcpStream::connect(gitlab.address()).unwrap();
    let headers = [("Content-Type", "application/json")];
    send_on(&mut stream, "POST", "/api/v4/runners/verify", &headers, token.to_string().as_bytes());
    let mut bytes = Vec::new();
    while bytes.len() < 1 << 20 {
        assert!(read_some(&mut stream, &mut bytes));
    }
    assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(!bytes.windows(4).any(|window| window == b"\r\n\r\n"));
}

#[test]
fn held_request_continues_after_release() {
    let (gitlab, id, token) = with_runner();
    let order = gitlab.order(Endpoint::Reset, Fault::hold());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| send(&gitlab, "POST", RESET, token.clone()));
        assert!(gitlab.wait_for_requests(Endpoint::Reset, 1, PATIENCE));
        assert_eq!((rotations(&gitlab, id), gitlab.requests()[0].status), (0, None));
        order.release();
        assert_eq!(waiting.join().unwrap().status, 201);
    });
}

#[test]
fn held_request_acts_after_the_client_disconnects() {
    let (gitlab, id, token) = with_runner();
    let order = gitlab.order(Endpoint::Reset, Fault::hold());
    let mut stream = TcpStream::connect(gitlab.address()).unwrap();
    let headers = [("Content-Type", "application/json")];
    let path = "/api/v4/runners/reset_authentication_token";
    send_on(&mut stream, "POST", path, &headers, token.to_string().as_bytes());
    assert!(gitlab.wait_for_requests(Endpoint::Reset, 1, PATIENCE));
    drop(stream);
    order.release();
    assert!(gitlab.wait_until(PATIENCE, |gitlab| rotations(gitlab, id) == 1));
}

#[test]
fn delay_postpones_the_act_or_only_the_response() {
    let (gitlab, id, token) = with_runner();
    gitlab.order(Endpoint::Reset, Fault::hold().after_acting());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| send(&gitlab, "POST", RESET, token.clone()));
        assert!(gitlab.wait_until(PATIENCE, |gitlab| rotations(gitlab, id) == 1));
        assert!(!waiting.is_finished());
        gitlab.clear_faults();
        assert_eq!(waiting.join().unwrap().status, 201);
    });
    gitlab.order(Endpoint::Verify, Fault::delay(Duration::from_millis(5)));
    assert_eq!(send(&gitlab, "POST", VERIFY, token).status, 403);
}

#[test]
fn server_returns_on_the_same_port_after_refusing() {
    let (gitlab, _, token) = with_runner();
    let mut kept = TcpStream::connect(gitlab.address()).unwrap();
    let headers = [("Content-Type", "application/json")];
    send_on(&mut kept, "POST", "/api/v4/runners/verify", &headers, token.to_string().as_bytes());
    assert_eq!(receive(&mut kept).unwrap().status, 200);
    gitlab.refuse_connections();
    let refused = TcpStream::connect(gitlab.address()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(!read_some(&mut kept, &mut Vec::new()));
    gitlab.accept_connections();
    assert_eq!(send(&gitlab, "POST", VERIFY, token).status, 200);
}

#[test]
fn connection_is_kept_alive_until_it_is_cut() {
    let (gitlab, _, token) = with_runner();
    let mut kept = TcpStream::connect(gitlab.address()).unwrap();
    for _ in 0..3 {
        let headers = [("Content-Type", "application/json")];
        send_on(&mut kept, "POST", "/api/v4/runners/verify", &headers, token.to_string().as_bytes());
        assert_eq!(receive(&mut kept).unwrap().status, 200);
    }
    let peers: Vec<_> = gitlab.requests().iter().map(|request| request.peer).collect();
    assert_eq!(peers, [kept.local_addr().unwrap(); 3]);
    gitlab.cut_connections();
    assert!(!read_some(&mut kept, &mut Vec::new()));
    assert_eq!(send(&gitlab, "POST", VERIFY, token).status, 200);
}

#[test]
fn log_shows_the_requests_as_sent() {
    let (gitlab, _, token) = with_runner();
    let headers = [("Content-Type", "application/json"), ("User-Agent", "test/1")];
    let path = "/api/v4/runners/verify?a=b";
    let body = json!({ "token": token["token"], "system_id": "s_1" }).to_string();
    exchange(gitlab.address(), "POST", path, &headers, body.as_bytes()).unwrap();
    let requests = gitlab.requests();
    let [request] = requests.as_slice() else { panic!("one request") };
    assert_eq!(
        (request.method.as_str(), request.path.as_str(), request.bare_path()),
        ("POST", path, "/api/v4/runners/verify")
    );
    assert_eq!((request.endpoint, request.status), (Endpoint::Verify, Some(200)));
    assert_eq!((request.header("USER-AGENT"), request.parameter("a")), (Some("test/1"), Some("b")));
    assert_eq!((request.parameter("system_id"), &request.body), (Some("s_1"), &body));
    gitlab.clear_requests();
    assert!(gitlab.requests().is_empty());
    assert!(!gitlab.wait_for_requests(Endpoint::Any, 1, Duration::from_millis(1)));
}

#[test]
fn dropped_server_stops_listening() {
    let gitlab = Gitlab::start();
    let address = gitlab.address();
    let mut half = TcpStream::connect(address).unwrap();
    half.write_all(b"POST /api").unwrap();
    drop(gitlab);
    assert!(TcpStream::connect(address).is_err());
    assert!(Gitlab::builder().port(address.port()).try_start().is_ok());
}

#[test]
fn port_in_use_is_an_error() {
    let gitlab = Gitlab::start();
    assert!(Gitlab::builder().port(gitlab.address().port()).try_start().is_err());
}

#[tokio::test]
async fn server_can_run_in_an_async_test() {
    let (gitlab, _, token) = with_runner();
    assert!(Gitlab::builder().port(gitlab.address().port()).try_start().is_err());
    gitlab.refuse_connections();
    gitlab.accept_connections();
    assert_eq!(send(&gitlab, "POST", VERIFY, token).status, 200);
}

#[test]
fn odd_answer_comes_after_the_rotation() {
    let (gitlab, id, token) = with_runner();
    let fault =
        Fault::field("token_expires_at", json!("0001-01-01T00:00:00Z")).with_header("Content-Type", "text/json");
    gitlab.order(Endpoint::Reset, fault);
    let reply = send(&gitlab, "POST", RESET, token);
    assert_eq!((reply.status, reply.header("content-type")), (201, Some("text/json")));
    assert_eq!(reply.json()["token_expires_at"], "0001-01-01T00:00:00Z");
    assert_eq!(reply.json()["token"], json!(gitlab.runner(id).unwrap().token));
}

#[test]
fn raw_answer_is_sent_as_it_is() {
    let (gitlab, id, token) = with_runner();
    let answer = Answer::raw(599, &[("Content-Type", "application/json"), ("X-Gateway", "1")], r#"{"token":"x"}"#);
    gitlab.order(Endpoint::Any, Fault::answer(answer).after_acting()).always();
    let reply = send(&gitlab, "POST", RESET, token);
    assert_eq!((reply.status, reply.header("x-gateway"), reply.json()), (599, Some("1"), json!({ "token": "x" })));
    assert_eq!(rotations(&gitlab, id), 1);
}

#[test]
fn only_gitlabs_own_answers_carry_its_header() {
    let (gitlab, _, token) = with_runner();
    let has_meta = |fault: Option<Fault>| {
        fault.map(|fault| gitlab.order(Endpoint::Verify, fault));
        send(&gitlab, "POST", VERIFY, token.clone()).header("x-gitlab-meta").is_some()
    };
    assert!(has_meta(None) && has_meta(Some(Fault::field("id", json!(7)))));
    assert!(!has_meta(Some(Fault::status(403))) && has_meta(Some(Fault::status(403).with_meta())));
    gitlab.strip_meta(true);
    assert!(!has_meta(None));
    let probe = send(&gitlab, "POST", VERIFY, json!({}));
    assert_eq!((probe.status, probe.json()), (400, json!({ "error": "token is missing" })));
}
