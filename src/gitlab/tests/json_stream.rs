//! The messages of a stream, however it is cut.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::gitlab::{JsonClient, JsonFailure, JsonStream};
use crate::model::TlsFiles;

/// The parts of a stream, how it ends, and the messages in it.
type Row<'a> = (&'a [&'a [u8]], End, &'a [&'a str]);

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The server ends it.
    Complete,
    /// The connection breaks.
    Broken,
}

/// A stream of these parts, each in a chunk of HTTP of its own.
async fn stream(parts: &[&[u8]], end: End) -> JsonStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut sent = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for part in parts {
        sent.extend(format!("{:x}\r\n", part.len()).into_bytes());
        sent.extend_from_slice(part);
        sent.extend(b"\r\n");
    }
    if end == End::Complete {
        sent.extend(b"0\r\n\r\n");
    }
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n{}") {
            head.push(stream.read_u8().await.unwrap());
        }
        // The client gives up a stream whose message is too large.
        stream.write_all(&sent).await.unwrap_or_default();
        stream.shutdown().await.unwrap_or_default();
    });
    let client = JsonClient::new(&TlsFiles::default(), Duration::from_secs(60)).unwrap();
    let body = b"{}".to_vec().into();
    client.stream(url, body, None, ("x-a", "b"), Duration::from_secs(60)).await.unwrap()
}

/// All messages, without the white space around them, and how it ended.
async fn messages(parts: &[&[u8]], end: End) -> (Vec<String>, End) {
    let (mut stream, mut messages) = (stream(parts, end).await, Vec::new());
    loop {
        match stream.next().await {
            Ok(Some(message)) => messages.push(std::str::from_utf8(&message).unwrap().trim().to_owned()),
            Ok(None) => return (messages, End::Complete),
            Err(JsonFailure::Lost(_)) => return (messages, End::Broken),
            Err(failure @ JsonFailure::NotSent(_)) => panic!("{failure:?}"),
        }
    }
}

#[tokio::test]
async fn messages_are_those_of_the_server_however_they_are_cut() {
    let text = "{\"a\":\"é\"}\n";
    let (before, within) = text.as_bytes().split_at(7);
    assert!(std::str::from_utf8(before).is_err(), "it is cut within a character");
    let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
    let complete = End::Complete;
    let table: &[Row<'_>] = &[
        (&[], complete, &[]),
        (&[b"{}\n"], complete, &["{}"]),
        (&[before, within], complete, &["{\"a\":\"é\"}"]),
        (&bytes, complete, &["{\"a\":\"é\"}"]),
        (&[b"{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n"], complete, &["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]),
        (&[b"{\"a\":1}\n{\"b\"", b":2}\n{\"c\":", b"3}\n"], complete, &["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]),
        (&[b"{\"a\":1}", b"\n"], complete, &["{\"a\":1}"]),
        (&[b"\n\r\n  \n{\"a\":1}\r\n\n", b"\n", b"{\"b\":2}\n\n"], complete, &["{\"a\":1}", "{\"b\":2}"]),
        // Their reader finds out what is no message of its kind.
        (&[b"{\"error\":{\"grpc_code\":14}}\n"], complete, &["{\"error\":{\"grpc_code\":14}}"]),
        (&[b"<html>\n"], complete, &["<html>"]),
        (&[b"{\"a\":1}\n{\"b\""], complete, &["{\"a\":1}", "{\"b\""]),
        (&[b"{\"a\":1}\n", b"{\"b\""], End::Broken, &["{\"a\":1}"]),
        (&[b"{\"a\":1}\n"], End::Broken, &["{\"a\":1}"]),
        (&[], End::Broken, &[]),
    ];
    for (parts, end, expected) in table {
        assert_eq!(
            messages(parts, *end).await,
            (expected.iter().map(ToString::to_string).collect(), *end),
            "{parts:?}"
        );
    }
}

#[tokio::test]
async fn message_beyond_the_limit_ends_the_stream() {
    let mebibyte = vec![b'x'; 1024 * 1024];
    let one = mebibyte.as_slice();
    // Many messages may have more together.
    let (received, end) = messages(&[one, b"\n", one, b"\n", one, b"\n", one, b"\n", one, b"\n"], End::Complete).await;
    assert_eq!((received.len(), end), (5, End::Complete));
    assert!(received.iter().all(|message| message.len() == one.len()));
    let (received, end) = messages(&[b"{}\n", one, one, one, one, b"x\n"], End::Complete).await;
    assert_eq!((received, end), (vec!["{}".to_owned()], End::Broken));
}

#[tokio::test]
async fn wait_for_a_message_that_was_given_up_loses_none() {
    let mut stream = stream(&[b"{\"a\":", b"1}\n{\"b\":2}\n"], End::Complete).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        // Each is polled once, and dropped if it has nothing.
        if let Some(message) = futures_util::FutureExt::now_or_never(stream.next()) {
            seen.push(String::from_utf8(message.unwrap().unwrap().to_vec()).unwrap());
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(seen, ["{\"a\":1}\n", "{\"b\":2}\n"]);
}
