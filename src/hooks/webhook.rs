//! Sends an event to a web server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::file_work::file_work;
use super::limit::TimeLimit;
use super::{Delivery, Hook, HookError};
use crate::gitlab::{JsonClient, Proxies};
use crate::model::{TlsPaths, WebhookUrl};
use crate::secret::{MAX_TOKEN_BYTES, Password, Source, SourceError, hmac_sha256_hex, without_tokens};

/// Time limit of name lookup, connection and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A source of secrets is read as far as this: the rest of a longer one would be ignored.
const MAX_SECRET_BYTES: usize = 2 * MAX_TOKEN_BYTES;

/// A web server that gets events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookAction {
    /// Its address.
    pub url: WebhookUrl,
    /// The key of the signature.
    pub secret: Option<Source>,
    /// Certificates to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// The proxies, of which one may lead to it.
    pub proxies: Proxies,
}

impl WebhookAction {
    pub(super) async fn run(&self, hook: &Hook, delivery: Delivery<'_>, limit: TimeLimit) -> Result<String, HookError> {
        let body = hook.body(delivery.event)?;
        let secret = self.read_secret(limit).await?;
        let client = self.client(limit).await?;
        let mut headers = vec![
            ("x-runner-agent-event", delivery.event.event.to_string()),
            ("x-runner-agent-event-id", delivery.event.event_id.clone()),
        ];
        if let Some(secret) = secret {
            let signature = hmac_sha256_hex(secret.expose().as_bytes(), &body);
            headers.push(("x-runner-agent-signature", format!("sha256={signature}")));
        }
        let url = self.url.as_str().to_owned();
        let sent = client.post_for_status(url, Zeroizing::new(body), &headers, limit.left()).await;
        outcome(sent.map_err(|error| HookError::Passing(format!("no answer: {error}")))?)
    }

    async fn read_secret(&self, limit: TimeLimit) -> Result<Option<Password>, HookError> {
        let Some(secret) = self.secret.clone() else { return Ok(None) };
        let (path, origin) = (PathBuf::from(secret.label()), secret.origin());
        let read =
            file_work(limit, &path, move || secret.read_password().map_err(|error| about_secret(&error))).await?;
        let secret = read.map_err(HookError::Passing)?;
        if secret.expose().len() >= MAX_SECRET_BYTES {
            let message =
                format!("`secret` of the hook: {origin} has {MAX_SECRET_BYTES} bytes or more: use a shorter secret");
            return Err(HookError::Passing(message));
        }
        Ok(Some(secret))
    }

    /// Makes a client. It reads the CA certificates.
    async fn client(&self, limit: TimeLimit) -> Result<JsonClient, HookError> {
        let Self { url, ca_file, proxies, .. } = self.clone();
        let path = ca_file.clone().unwrap_or_else(|| PathBuf::from("the system's CA certificates"));
        let made = file_work(limit, &path, move || {
            let tls = TlsPaths { ca_file, ..TlsPaths::default() }.into();
            JsonClient::for_site(url.site(), &proxies, &tls, CONNECT_TIMEOUT)
        });
        made.await?.map_err(HookError::Passing)
    }
}

/// What a status means. The answer is not shown: it can have a secret, and so can the address that it leads to.
fn outcome(status: u16) -> Result<String, HookError> {
    let passing = |what: &str| Err(HookError::Passing(format!("{what} (status {status})")));
    let lasting = |what: &str| Err(HookError::Lasting(format!("{what} (status {status})")));
    match status {
        200..=299 => Ok(format!("the server has taken it (status {status})")),
        300..=399 => lasting(
            "the server redirects to another address, which is not followed: set `webhook` to the final address",
        ),
        408 | 429 => passing("the server is busy"),
        400..=499 => lasting("the server has refused it"),
        ..=199 => {
            passing("the server wants to go on in another protocol: `webhook` may be the address of something else")
        }
        500.. => passing("the server has failed"),
    }
}

/// An error about the key of the signature, which is no token.
#[must_use]
pub fn about_secret(error: &SourceError) -> String {
    let shown = |path: &Path| without_tokens(&path.to_string_lossy());
    match error {
        SourceError::Unreadable { path, source } => {
            format!("`secret` of the hook cannot be read: the file `{}`: {source}", shown(path))
        }
        SourceError::Exposed { path, exposure } => {
            format!("`secret` of the hook: the file `{}` is refused: {exposure}", shown(path))
        }
        SourceError::NoPassword { origin } | SourceError::Invalid { origin, .. } => {
            format!(
                "`secret` of the hook: {origin} is empty, or has a control character or line break within the secret"
            )
        }
        SourceError::NoCredential(_) | SourceError::WrongClass { .. } => {
            format!("`secret` of the hook: {error}")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;
    use crate::hooks::Action;
    use crate::hooks::file_work::hang;
    use crate::model::HookKind;

    /// What a server does after its answer.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Then {
        Close,
        /// Waits for the end of the connection.
        Hold,
    }

    /// A hook, and the server that answers its one request. Returns the request.
    fn server(answer: &'static str, then: Then) -> (Hook, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/planted", listener.local_addr().unwrap()).parse().unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut request = String::new();
            while !request.ends_with("}") {
                let available = reader.fill_buf().unwrap();
                request.push_str(std::str::from_utf8(available).unwrap());
                let count = available.len();
                reader.consume(count);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            if then == Then::Hold {
                let _end = reader.read_to_end(&mut Vec::new());
            }
            request
        });
        (hook(WebhookAction { url, secret: None, ca_file: None, proxies: Proxies::default() }), serving)
    }

    fn hook(action: WebhookAction) -> Hook {
        let (action, timeout) = (Action::Webhook(action), Duration::from_secs(60));
        Hook { name: "a".to_owned(), on: HookKind::ALL.to_vec(), runners: Vec::new(), action, timeout, retries: 0 }
    }

    async fn run(hook: &Hook) -> Result<String, HookError> {
        let event = crate::model::HookEvent::sample();
        hook.run(Delivery { event: &event, token: None, token_path: None, is_own: true }).await
    }

    #[tokio::test]
    async fn a_success_counts_whatever_comes_after_the_status() {
        for (answer, then) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\na", Then::Close),
            ("HTTP/1.1 200 OK\r\n\r\nendless", Then::Hold),
            ("HTTP/1.1 202 Accepted\r\ncontent-length: 99999999999\r\n\r\na", Then::Hold),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno chunk", Then::Close),
            ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Then::Close),
        ] {
            let (hook, serving) = server(answer, then);
            let result = run(&hook).await;
            assert!(result.as_ref().is_ok_and(|said| said.starts_with("the server has taken it")), "{result:?}");
            // The client closes the connection on this thread.
            let request = tokio::task::spawn_blocking(|| serving.join().unwrap()).await.unwrap();
            assert!(request.starts_with("POST /planted HTTP/1.1\r\n"), "{request}");
        }
    }

    #[tokio::test]
    async fn each_other_answer_is_tried_again_or_dropped_with_its_reason() {
        let (passing, lasting) = (HookError::Passing as fn(_) -> _, HookError::Lasting as fn(_) -> _);
        let redirect =
            "the server redirects to another address, which is not followed: set `webhook` to the final address";
        let protocol = "the server wants to go on in another protocol: `webhook` may be the address of something else";
        for (answer, expected, what) in [
            ("302 Found\r\nlocation: https://other.example.com/planted", lasting, redirect),
            ("308 Permanent Redirect", lasting, redirect),
            ("304 Not Modified", lasting, redirect),
            ("101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x", passing, protocol),
            ("429 Too Many Requests", passing, "the server is busy"),
            ("410 Gone", lasting, "the server has refused it"),
            ("999 Odd", passing, "the server has failed"),
        ] {
            let (hook, serving) = server(format!("HTTP/1.1 {answer}\r\n\r\n").leak(), Then::Close);
            let message = format!("{what} (status {})", &answer[..3]);
            assert_eq!(run(&hook).await, Err(expected(message)), "{answer}");
            serving.join().unwrap();
        }
        let (hook, _serving) = server("HTTP/1.1 103 Early Hints\r\n\r\n", Then::Close);
        let error = run(&hook).await.unwrap_err();
        assert!(matches!(&error, HookError::Passing(text) if text.starts_with("no answer: ")), "{error}");
    }

    /// Why a file of this content and mode is no secret.
    async fn refusal_of_secret(content: &str, mode: u32) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let action = with_secret(&path);
        let error = action.read_secret(TimeLimit::begin(Duration::from_secs(60))).await.unwrap_err().to_string();
        error.replace(directory.path().to_str().unwrap(), "")
    }

    fn with_secret(path: &Path) -> WebhookAction {
        let (url, secret) = ("https://hooks.example.com".parse().unwrap(), Some(Source::File(path.to_owned())));
        WebhookAction { url, secret, ca_file: None, proxies: Proxies::default() }
    }

    #[tokio::test]
    async fn a_secret_is_any_text_of_one_line_and_its_errors_do_not_call_it_a_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for secret in ["käse", "glrt-short", "two words", "$\"'`\\"] {
            std::fs::write(&path, format!("{secret}\n")).unwrap();
            let read = with_secret(&path).read_secret(TimeLimit::begin(Duration::from_secs(60))).await.unwrap();
            assert_eq!(read.unwrap().expose(), secret);
        }
        let empty = "`secret` of the hook: the file `/key` is empty, or has a control character or line break within the secret";
        assert_eq!(refusal_of_secret("\n", 0o600).await, empty);
        assert_eq!(refusal_of_secret("a\nb", 0o600).await, empty);
        let writable = refusal_of_secret("a", 0o622).await;
        assert!(writable.starts_with("`secret` of the hook: the file `/key` is refused: it can be"), "{writable}");
        let long = refusal_of_secret(&"a".repeat(2000), 0o600).await;
        assert!(long.ends_with("the file `/key` has 1024 bytes or more: use a shorter secret"), "{long}");
        let missing =
            with_secret(Path::new("/missing/key")).read_secret(TimeLimit::begin(Duration::from_secs(60))).await;
        let missing = missing.unwrap_err().to_string();
        assert!(missing.starts_with("`secret` of the hook cannot be read: the file `/missing/key`: "), "{missing}");
    }

    #[tokio::test]
    async fn nothing_is_sent_while_the_file_of_the_secret_or_of_the_certificates_hangs() {
        for name in ["secret", "ca"] {
            let path = PathBuf::from(format!("/frozen/webhook/{name}"));
            let _end = hang(&path).await;
            let action = match name {
                "secret" => with_secret(&path),
                _ => WebhookAction { secret: None, ca_file: Some(path), ..with_secret(Path::new("/")) },
            };
            let error = run(&hook(action)).await.unwrap_err().to_string();
            assert!(error.contains("its disk or network share does not answer"), "{error}");
        }
    }
}
