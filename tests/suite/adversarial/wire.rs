//! Broken HTTP responses.

use super::limited::{IMPATIENT, LimitedSandbox};
use std::io::Write as _;
use std::thread;
use std::time::Duration;

use super::server::{Answer, Server, drip, flood, json, silence};

const JSON: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

/// Runs each command against a server with this response: each fails, and none changes config.toml.
#[track_caller]
fn assert_rejected(answer: Answer) {
    let sandbox = LimitedSandbox::new();
    sandbox.write_fast_settings(IMPATIENT);
    // The registration itself comes after a probe that a GitLab has answered.
    for (server, requests) in [(Server::start(answer), 1), (Server::start_as_gitlab(answer), 2)] {
        sandbox.register(&server.url(), &[]).exits(5).says("error: ");
        assert!(sandbox.entries().is_empty());
        assert_eq!(server.requests(), requests, "requests of register");
    }

    let server = Server::start(answer);
    let url = server.url();
    let token = "glrt-0123456789abcdefghij";
    sandbox.write_entry(&url, 7, token);
    let config = sandbox.config();
    for command in ["verify", "unregister", "rotate"] {
        let before = server.requests();
        let done = sandbox.run(&[command, "--name", "a", "--log-level", "trace"]);
        done.exits(5).says("error: runner `a` (id 7)");
        assert!(!done.text().contains(token), "{done:#?}");
        assert_eq!(sandbox.config(), config, "{command}");
        let requests = server.requests() - before;
        assert!((1..=5).contains(&requests), "{requests} requests to {command}");
    }
}

#[test]
fn huge_content_length_is_survived() {
    assert_rejected(|stream| {
        write!(stream, "{JSON}Content-Length: {}\r\n\r\n", 1 << 30)?;
        flood(stream, b" ")
    });
}

#[test]
fn huge_body_without_a_length_is_survived() {
    assert_rejected(|stream| {
        write!(stream, "{JSON}Connection: close\r\n\r\n")?;
        flood(stream, b" ")
    });
}

#[test]
fn huge_refusal_body_is_survived() {
    assert_rejected(|stream| {
        write!(
            stream,
            "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n\r\n{{\"message\":\"403 Forbidden"
        )?;
        flood(stream, b"x")
    });
}

#[test]
fn endless_chunks_are_survived() {
    assert_rejected(|stream| {
        write!(stream, "{JSON}Transfer-Encoding: chunked\r\n\r\n")?;
        flood(stream, b"1\r\n \r\n")
    });
}

#[test]
fn chunk_of_maximum_size_is_survived() {
    assert_rejected(|stream| {
        write!(stream, "{JSON}Transfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n")?;
        flood(stream, b" ")
    });
}

#[test]
fn endless_trailers_are_survived() {
    assert_rejected(|stream| {
        write!(stream, "{JSON}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n")?;
        flood(stream, b"x-trailer: more of the same\r\n")
    });
}

#[test]
fn endless_headers_are_survived() {
    assert_rejected(|stream| {
        write!(stream, "{JSON}")?;
        flood(stream, b"x-endless: more of the same\r\n")
    });
}

#[test]
fn endless_header_value_is_survived() {
    assert_rejected(|stream| {
        write!(stream, "{JSON}x-endless: ")?;
        flood(stream, b"x")
    });
}

#[test]
fn endless_status_line_is_survived() {
    assert_rejected(|stream| {
        write!(stream, "HTTP/1.1 200 ")?;
        flood(stream, b"OK")
    });
}

#[test]
fn endless_interim_responses_are_survived() {
    // Throttled, because the deadline must not depend on how fast the client parses.
    assert_rejected(|stream| {
        loop {
            stream.write_all(&b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n".repeat(100))?;
            thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn slow_headers_time_out() {
    assert_rejected(|stream| drip(stream, JSON.as_bytes()));
}

#[test]
fn slow_body_times_out() {
    assert_rejected(|stream| {
        write!(stream, "{JSON}Content-Length: 1000\r\n\r\n")?;
        drip(stream, b" ")
    });
}

#[test]
fn silent_server_times_out() {
    assert_rejected(silence);
}

#[test]
fn truncated_response_is_an_error() {
    assert_rejected(|stream| write!(stream, "{JSON}Content-Length: 100\r\n\r\n{{\"id\":7,"));
}

#[test]
fn response_without_a_status_is_an_error() {
    assert_rejected(|stream| stream.write_all(b"{\"id\":7,\"token\":\"glrt-x\",\"token_expires_at\":null}\r\n\r\n"));
}

#[test]
fn binary_noise_is_an_error() {
    assert_rejected(|stream| flood(stream, b"\x00\x1b]0;owned\x07\xff\r\n"));
}

#[test]
fn conflicting_content_lengths_are_an_error() {
    assert_rejected(|stream| write!(stream, "{JSON}Content-Length: 2\r\nContent-Length: 9\r\n\r\n{{}}"));
}

#[test]
fn control_characters_in_headers_are_an_error() {
    assert_rejected(|stream| {
        write!(stream, "HTTP/1.1 302 \x1b[31mFound\r\nLocation: https://x/\x1b[2J\0\r\nx\0y: z\r\n\r\n")
    });
}

#[test]
fn deeply_nested_arrays_are_an_error() {
    assert_rejected(|stream| json(stream, "201 Created", &"[".repeat(100_000)));
}

#[test]
fn deep_nesting_in_an_unused_field_is_accepted() {
    let server = Server::start_as_gitlab(|stream| {
        let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
        json(stream, "201 Created", &format!("{{\"novel\":{open}{close},\"id\":7,\"token\":\"glrtr-new\"}}"))
    });
    let sandbox = LimitedSandbox::new();
    sandbox.register(&server.url(), &[]).exits(0);
    assert_eq!(sandbox.entries()[0]["token"].as_str(), Some("glrtr-new"));
}

#[test]
fn deeply_nested_refusal_is_an_error() {
    assert_rejected(|stream| json(stream, "403 Forbidden", &"{\"message\":".repeat(90_000)));
}

#[test]
fn refusal_of_two_mebibytes_is_an_error() {
    assert_rejected(|stream| {
        json(stream, "403 Forbidden", &format!("{{\"message\":\"403 Forbidden - {}\"}}", "x".repeat(1 << 21)))
    });
}

#[test]
fn empty_json_is_an_error() {
    for answer in [
        (|stream| json(stream, "201 Created", "")) as Answer,
        |stream| json(stream, "201 Created", "null"),
        |stream| json(stream, "200 OK", "{}"),
        |stream| json(stream, "403 Forbidden", "{\"message\":7}"),
        |stream| json(stream, "403 Forbidden", "\"403 Forbidden\""),
    ] {
        assert_rejected(answer);
    }
}

#[test]
fn html_page_is_an_error() {
    for answer in [
        (|stream| write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>200</html>")) as Answer,
        |stream| {
            write!(stream, "HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\n\r\n{{\"message\":\"403 Forbidden\"}}")
        },
    ] {
        assert_rejected(answer);
    }
}
