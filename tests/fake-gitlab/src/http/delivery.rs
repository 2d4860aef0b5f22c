//! Sends broken answers, which no library does.

use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::Answer;
use crate::answer::reason;
use crate::fault::Deformation;

/// The chunk size of a huge body.
const CHUNK_BYTES: usize = 64 * 1024;

/// What to do with a connection.
pub(super) enum Delivery {
    /// Send this and keep the connection.
    Whole(Answer),
    /// Send this broken answer, then close the connection.
    Deformed(Answer, Deformation),
    /// Close the connection.
    Cut,
}

/// Sends a broken answer, until it is complete or the client disconnects.
pub(super) async fn send_deformed<S: AsyncWrite + Unpin>(stream: &mut S, answer: &Answer, deformation: Deformation) {
    // An error only means that the client has disconnected.
    let _gone = match deformation {
        Deformation::BrokenJson => send_broken_json(stream, answer).await,
        Deformation::Truncated => send_truncated(stream, answer).await,
        Deformation::Huge(bytes) => send_huge(stream, answer, bytes).await,
        Deformation::DripBody(interval) => {
            let head = head(answer, Some(length(&answer.body)));
            drip_after(stream, head.as_bytes(), &answer.body, interval).await
        }
        Deformation::Drip(interval) => {
            let whole = [head(answer, Some(length(&answer.body))).as_bytes(), &answer.body].concat();
            drip_after(stream, &[], &whole, interval).await
        }
        Deformation::EndlessHeaders => send_endless_headers(stream, answer).await,
    };
    let _gone = stream.shutdown().await;
}

async fn send_broken_json<S: AsyncWrite + Unpin>(stream: &mut S, answer: &Answer) -> std::io::Result<()> {
    let half = &answer.body[..answer.body.len() / 2];
    stream.write_all(head(answer, Some(length(half))).as_bytes()).await?;
    stream.write_all(half).await
}

async fn send_truncated<S: AsyncWrite + Unpin>(stream: &mut S, answer: &Answer) -> std::io::Result<()> {
    // An answer without a body announces one too; otherwise there is nothing to truncate.
    let promised = length(&answer.body).max(1);
    stream.write_all(head(answer, Some(promised)).as_bytes()).await?;
    stream.write_all(&answer.body[..answer.body.len() / 2]).await
}

async fn send_huge<S: AsyncWrite + Unpin>(stream: &mut S, answer: &Answer, bytes: u64) -> std::io::Result<()> {
    stream.write_all(head(answer, Some(bytes)).as_bytes()).await?;
    let chunk = vec![b' '; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        stream.write_all(&chunk[..now]).await?;
        left -= length(&chunk[..now]);
    }
    Ok(())
}

async fn drip_after<S: AsyncWrite + Unpin>(
    stream: &mut S,
    at_once: &[u8],
    dripped: &[u8],
    interval: Duration,
) -> std::io::Result<()> {
    stream.write_all(at_once).await?;
    stream.flush().await?;
    for byte in dripped {
        tokio::time::sleep(interval).await;
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
    }
    Ok(())
}

async fn send_endless_headers<S: AsyncWrite + Unpin>(stream: &mut S, answer: &Answer) -> std::io::Result<()> {
    let head = head(answer, None);
    stream.write_all(head.trim_end().as_bytes()).await?;
    stream.write_all(b"\r\n").await?;
    for number in 0_u64.. {
        stream.write_all(format!("X-Endless-{number}: more of the same\r\n").as_bytes()).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn head(answer: &Answer, content_length: Option<u64>) -> String {
    let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(bytes) = content_length {
        head.push_str(&format!("Content-Length: {bytes}\r\n"));
    }
    head.push_str("Connection: close\r\n\r\n");
    head
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
