//! A server that sends the same bytes to every request, or to all but the probe before a registration.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Writes the response to a request; an error means that the client has disconnected.
pub(crate) type Answer = fn(&mut TcpStream) -> io::Result<()>;

/// Serves connections on threads until the test program ends.
pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn start(answer: Answer) -> Self {
        Self::start_with(answer, false)
    }

    /// A server that says to a probe what a GitLab says.
    pub(crate) fn start_as_gitlab(answer: Answer) -> Self {
        Self::start_with(answer, true)
    }

    fn start_with(answer: Answer, knows_probe: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let requests = Arc::clone(&server.requests);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let requests = Arc::clone(&requests);
                thread::spawn(move || {
                    // An error means that the client has disconnected.
                    let _left = serve(stream, answer, knows_probe, &requests);
                });
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, answer: Answer, knows_probe: bool, requests: &AtomicUsize) -> io::Result<()> {
    // Longer than any timeout of the client.
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    let mut line = String::new();
    let mut is_verification = false;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        is_verification |= line.starts_with("POST /api/v4/runners/verify ");
        let lower = line.trim_end().to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if lower.is_empty() {
            break;
        }
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    requests.fetch_add(1, Ordering::SeqCst);
    if knows_probe && is_verification && body == b"{}" {
        json(&mut stream, "400 Bad Request", "{\"error\":\"token is missing\"}")?;
    } else {
        answer(&mut stream)?;
    }
    stream.shutdown(std::net::Shutdown::Write)
}

/// Sends a valid response with this JSON body.
pub(crate) fn json(stream: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Repeats these bytes until the client disconnects, up to 1 GiB.
pub(crate) fn flood(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let block = bytes.repeat((64 * 1024_usize).div_ceil(bytes.len()));
    for _ in 0..(1 << 30) / block.len() {
        stream.write_all(&block)?;
    }
    Ok(())
}

/// Sends one byte at a time, slower than the client's timeout.
pub(crate) fn drip(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes.iter().cycle() {
        stream.write_all(&[*byte])?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sends nothing until the client disconnects.
pub(crate) fn silence(stream: &mut TcpStream) -> io::Result<()> {
    io::copy(stream, &mut io::sink()).map(|_| ())
}
