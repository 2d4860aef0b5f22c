//! The page in a browser, from the command that opens it to the end of the daemon.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::enrolled;
use super::status_server::{exchange, port, request};
use fake_gitlab::Gitlab;
use rustix::process::Signal;
use test_support::{Output, PATIENCE};

fn get(port: u16, path: &str, cookie: &str) -> (u16, String, String) {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"))
}

#[test]
fn the_owner_of_the_socket_opens_the_page_in_a_browser() {
    let settings = "[http]\nlisten = [\"127.0.0.1:0\"]\n[timing]\nbetween_resets_floor = \"1s\"\nfloor = \"200ms\"\n";
    let sandbox = enrolled(Gitlab::builder().token_life(Duration::from_secs(5)), settings);
    let daemon = sandbox.start_serving();
    let port = port(&sandbox, &daemon);
    sandbox.wait_for_registration();

    let (status, _, closed) = get(port, "/", "");
    assert!(status == 200 && closed.contains(">ok</p>") && !closed.contains("build-1"), "{closed}");
    assert_eq!(get(port, "/events", "").0, 403);
    let post = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(exchange(post, &request("POST", "/open")).0, 405, "a code is issued over the socket alone");

    let opened = sandbox.run(&["open"]);
    opened.exits(0).says("it can be opened once, within 60 s");
    let url = opened.stdout.trim_end();
    let path = url.strip_prefix(&format!("http://127.0.0.1:{port}")).expect(url);
    let (status, headers, _) = get(port, path, "");
    assert_eq!(status, 303, "{headers}");
    let cookie = headers.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect(&headers);
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(get(port, path, "").0, 403, "a code is used once");
    let (_, headers, html) = get(port, "/", cookie);
    assert!(html.contains("build-1") && html.contains("registered as runner"), "{html}");
    assert!(
        headers.contains("referrer-policy: no-referrer") && headers.contains("cache-control: no-store"),
        "{headers}"
    );

    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream);
    let mut heard = String::new();
    while !heard.contains("\"kind\":\"rotated\"") {
        assert!(lines.read_line(&mut heard).unwrap() > 0, "it ended: {heard}");
    }
    let log = daemon.log();
    for secret in [cookie.split('=').nth(1).unwrap(), path.split('=').nth(1).unwrap()] {
        assert!(!log.contains(secret), "{log}");
    }
    let Output { code, stderr: log, .. } = daemon.stop(Signal::QUIT);
    assert!(code == Some(0), "{log}");
    lines.read_to_string(&mut heard).unwrap();
}

#[test]
fn a_daemon_without_an_address_says_how_to_get_one() {
    let sandbox = enrolled(Gitlab::builder(), "");
    sandbox.run(&["open"]).exits(5).says("no daemon answers");
    let _daemon = sandbox.start_serving();
    let done = sandbox.run(&["open", "-o", "json"]);
    done.exits(1).says("the daemon does not listen for HTTP").says("listen = [\"127.0.0.1:9252\"]");
}
