//! The routes of the page: `/`, `/events` and `/open`, and who may use them.
//!
//! Every local user, and each site that their browsers show, reaches a loopback address. So the page needs a cookie there.
//! The owner of the socket gets a code from it (`POST /open`), and their browser exchanges that for the cookie
//! (`GET /open?code=…`).

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::header::{ALLOW, CONTENT_SECURITY_POLICY, HeaderValue, LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::body::ResponseBody;
use super::event_stream::{self, EventStream, Follower, ReaderSlots};
use super::page;
use super::routes::{Asked, JSON, Listener, PagedResponse, Sources, TEXT, paged, respond, response};
use super::session::{CODE_LIFE, SESSION_LIFE, Sessions};
use crate::clock::{Clock as _, SystemClock};
use crate::model::query_parameters;

/// Who may see the page over HTTP, and at which addresses. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct PageAccess {
    sessions: Arc<Sessions>,
    readers: ReaderSlots,
    addresses: Arc<[SocketAddr]>,
}

impl PageAccess {
    /// The same for a server that listens at these addresses.
    pub(super) fn at(self, addresses: Vec<SocketAddr>) -> Self {
        Self { addresses: addresses.into(), ..self }
    }
}

/// The answer to `POST /open`.
#[derive(Clone, Serialize, Deserialize)]
pub struct OpenedPage {
    /// The code for the page; null if no address is listened on.
    pub code: Option<String>,
    /// How long it can be used, in seconds.
    pub seconds: u64,
    /// Where the daemon listens for HTTP.
    pub addresses: Vec<SocketAddr>,
}

/// How a request is allowed to see the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    /// It came over the socket.
    Owner,
    /// Its cookie is that of the session of this number.
    Session(u64),
}

impl Sources {
    pub(super) fn page(&self, asked: &Asked<'_>) -> PagedResponse {
        let response = if self.admission(asked).is_some() {
            let pages = page::pages(&self.registry, asked.query, SystemClock.read());
            paged(StatusCode::OK, page::CONTENT_TYPE, self.registry.count(), pages)
        } else {
            let (status, health) = self.health_text();
            respond(status, page::CONTENT_TYPE, page::closed_page(&health))
        };
        as_document(response)
    }

    pub(super) fn events(&self, asked: &Asked<'_>) -> PagedResponse {
        let session = match self.admission(asked) {
            None => return respond(StatusCode::FORBIDDEN, TEXT, "open the page with `runner-agent open`\n"),
            Some(Admission::Owner) => None,
            Some(Admission::Session(number)) => Some((Arc::clone(&self.access.sessions), number)),
        };
        let Some(slot) = self.access.readers.take() else {
            let mut response = respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "too many readers of /events\n");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
            return response;
        };
        let after = query_parameters(asked.query).into_iter().find(|(name, _)| name == "after");
        let after = after.and_then(|(_, id)| id.parse().ok());
        let follower = Follower::new(&self.registry, after, session, slot);
        let stream = ResponseBody::Events(EventStream::new(follower, asked.progress.clone()));
        response(StatusCode::OK, event_stream::CONTENT_TYPE, stream)
    }

    /// Issues a code over the socket, and exchanges it elsewhere.
    pub(super) fn open(&self, asked: &Asked<'_>) -> PagedResponse {
        let (allowed, is_allowed) = match asked.listener {
            Listener::Socket => ("POST", *asked.method == Method::POST),
            Listener::Loopback | Listener::Remote => ("GET", *asked.method == Method::GET),
        };
        if !is_allowed {
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("only {allowed} is allowed\n"));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return response;
        }
        match asked.listener {
            Listener::Socket => self.issue_code(),
            Listener::Loopback | Listener::Remote => self.redeem_code(asked.query),
        }
    }

    fn issue_code(&self) -> PagedResponse {
        let addresses = self.access.addresses.to_vec();
        let code = match addresses.as_slice() {
            [] => Ok(None),
            _ => self.access.sessions.issue(SystemClock.read()).map(Some),
        };
        // Streams of the session that has ended notice it.
        self.registry.notify();
        let opened = code.map(|code| OpenedPage { code, seconds: CODE_LIFE.as_secs(), addresses });
        match opened
            .map_err(|error| error.to_string())
            .and_then(|opened| serde_json::to_string(&opened).map_err(|error| error.to_string()))
        {
            Ok(json) => respond(StatusCode::OK, JSON, json + "\n"),
            Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error + "\n"),
        }
    }

    fn redeem_code(&self, query: &str) -> PagedResponse {
        let code = query_parameters(query).into_iter().find(|(name, _)| name == "code").map(|(_, code)| code);
        let session = code.and_then(|code| self.access.sessions.redeem(&code, SystemClock.read()));
        let cookie = session.map(|session| {
            let (name, seconds) = (self.cookie_name(), SESSION_LIFE.as_secs());
            format!("{name}={session}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict")
        });
        let Some(Ok(mut cookie)) = cookie.map(|cookie| HeaderValue::from_str(&cookie)) else {
            return as_document(respond(StatusCode::FORBIDDEN, page::CONTENT_TYPE, page::refused_page()));
        };
        cookie.set_sensitive(true);
        let mut response = respond(StatusCode::SEE_OTHER, TEXT, "see /\n");
        response.headers_mut().insert(SET_COOKIE, cookie);
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
        as_document(response)
    }

    fn admission(&self, asked: &Asked<'_>) -> Option<Admission> {
        if asked.listener == Listener::Socket {
            return Some(Admission::Owner);
        }
        let (name, reading) = (self.cookie_name(), SystemClock.read());
        let cookies = asked.cookies.iter().flat_map(|cookies| cookies.split(';'));
        let mut ours = cookies.filter_map(|cookie| cookie.trim().strip_prefix(&name)?.strip_prefix('='));
        ours.find_map(|secret| self.access.sessions.find(secret, reading)).map(Admission::Session)
    }

    /// A browser sends a cookie to every port of a host, so each daemon has its own name for it.
    fn cookie_name(&self) -> String {
        format!("runner-agent-{}", self.instance_id)
    }
}

/// Adds the headers of a page for browsers.
fn as_document(mut response: PagedResponse) -> PagedResponse {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::model::EventKind;
    use crate::status::tests::{now, sources};

    /// A daemon that listens on an address, too.
    fn listening() -> Sources {
        let sources = sources(true);
        let access = sources.access.clone().at(vec!["127.0.0.1:9252".parse().unwrap()]);
        Sources { access, ..sources }
    }

    fn ask(sources: &Sources, method: &Method, path: &str, listener: Listener, cookies: &[&str]) -> PagedResponse {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (hosts, cookies) = (vec!["localhost"], cookies.to_vec());
        sources.answer(&Asked { method, path, query, hosts, cookies, listener, progress: &Default::default() })
    }

    async fn text(response: PagedResponse) -> String {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.into()).unwrap()
    }

    async fn code(sources: &Sources) -> String {
        let response = ask(sources, &Method::POST, "/open", Listener::Socket, &[]);
        assert_eq!(response.status(), StatusCode::OK);
        let opened: OpenedPage = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!((opened.seconds, opened.addresses.len()), (60, 1));
        opened.code.unwrap()
    }

    fn redeem(sources: &Sources, code: &str) -> Option<String> {
        let response = ask(sources, &Method::GET, &format!("/open?code={code}"), Listener::Loopback, &[]);
        let cookie = response.headers().get(SET_COOKIE)?.to_str().unwrap().to_owned();
        assert_eq!(
            (response.status(), &response.headers()[LOCATION]),
            (StatusCode::SEE_OTHER, &HeaderValue::from_static("/"))
        );
        assert!(cookie.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"), "{cookie}");
        Some(cookie.split(';').next().unwrap().to_owned())
    }

    #[tokio::test]
    async fn without_its_cookie_the_page_over_http_shows_the_health_alone() {
        let sources = listening();
        let cookie = redeem(&sources, &code(&sources).await).unwrap();
        let page = async |listener, cookies: &[&str]| {
            let response = ask(&sources, &Method::GET, "/", listener, cookies);
            assert!(response.headers().contains_key(CONTENT_SECURITY_POLICY));
            text(response).await
        };
        let is_whole = |html: &str| html.contains("gitlab.example.com") && html.contains("id=\"events\"");
        assert!(is_whole(&page(Listener::Socket, &[]).await));
        assert!(is_whole(&page(Listener::Loopback, &["other=1", &format!("x=y; {cookie}")]).await));
        let other = cookie.replace('=', "=0");
        for cookies in [&[][..], &["runner-agent-a="], &[&other], &["runner-agent-a"]] {
            for listener in [Listener::Loopback, Listener::Remote] {
                let html = page(listener, cookies).await;
                assert!(html.contains(">ok</p>") && !html.contains("gitlab.example.com"), "{html}");
                let response = ask(&sources, &Method::GET, "/events", listener, cookies);
                assert_eq!(response.status(), StatusCode::FORBIDDEN);
            }
        }
        let second = code(&sources).await;
        assert!(!is_whole(&page(Listener::Loopback, &[&cookie]).await), "a new code ends the session");
        assert!(redeem(&sources, &second).is_some());
    }

    #[tokio::test]
    async fn a_code_comes_from_the_socket_and_is_used_elsewhere() {
        let sources = listening();
        for (method, listener, allowed) in [
            (Method::GET, Listener::Socket, "POST"),
            (Method::POST, Listener::Loopback, "GET"),
            (Method::HEAD, Listener::Remote, "GET"),
        ] {
            let response = ask(&sources, &method, "/open", listener, &[]);
            assert_eq!(
                (response.status(), &response.headers()[ALLOW]),
                (StatusCode::METHOD_NOT_ALLOWED, &HeaderValue::from_static(allowed))
            );
        }
        let code = code(&sources).await;
        assert_eq!(redeem(&sources, ""), None);
        assert_eq!(
            ask(&sources, &Method::HEAD, &format!("/open?code={code}"), Listener::Loopback, &[]).status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
        assert!(redeem(&sources, &code).is_some(), "neither a wrong code nor HEAD has used it up");
        assert_eq!(redeem(&sources, &code), None);
        let refused = ask(&sources, &Method::GET, &format!("/open?code={code}"), Listener::Loopback, &[]);
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert!(text(refused).await.contains("can be used once"));
    }

    #[tokio::test]
    async fn without_an_address_there_is_no_code() {
        let response = ask(&sources(true), &Method::POST, "/open", Listener::Socket, &[]);
        let opened: OpenedPage = serde_json::from_str(&text(response).await).unwrap();
        assert!(opened.code.is_none() && opened.addresses.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn events_arrive_as_they_happen_and_changes_of_the_status_too() {
        let sources = sources(true);
        sources.registry.record_event(now().wall, Some("a"), EventKind::Registered, "registered as runner 1");
        let mut new = ask(&sources, &Method::GET, "/events", Listener::Socket, &[]).into_body();
        let mut all = ask(&sources, &Method::GET, "/events?after=0", Listener::Socket, &[]).into_body();
        let next = async |body: &mut ResponseBody| {
            let frame = body.frame().await.unwrap().unwrap();
            String::from_utf8(frame.into_data().unwrap().into()).unwrap()
        };
        let status = "event: status\ndata: {\"ready\":true,\"summary\":\"1 runner ready";
        let (first, whole) = (next(&mut new).await, next(&mut all).await);
        assert!(first.starts_with(status) && first.ends_with("\"}\n\n"), "{first}");
        assert!(whole.starts_with("id: 1\ndata: {\"id\":1,") && whole.contains(status), "{whole}");
        assert_eq!(next(&mut new).await, ":\n\n", "a comment while nothing happens");
        sources.registry.record_event(now().wall, Some("a"), EventKind::Rotated, "two\nlines");
        sources.registry.record_event(now().wall, None, EventKind::ConfigChanged, "changed");
        let text = next(&mut new).await;
        assert!(text.contains("\"kind\":\"rotated\",\"text\":\"two\\nlines\"}\n\nid: 3\n"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_its_session() {
        let sources = listening();
        let cookie = redeem(&sources, &code(&sources).await).unwrap();
        let mut stream = ask(&sources, &Method::GET, "/events", Listener::Loopback, &[&cookie]).into_body();
        assert!(stream.frame().await.is_some());
        code(&sources).await;
        assert!(stream.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_ninth_reader_of_events_is_asked_to_come_later() {
        let sources = sources(true);
        let listen = || ask(&sources, &Method::GET, "/events", Listener::Socket, &[]);
        let mut streams: Vec<_> = (0..event_stream::MAX_READERS).map(|_| listen()).collect();
        assert!(streams.iter().all(|stream| stream.status() == StatusCode::OK));
        let refused = listen();
        assert_eq!(
            (refused.status(), &refused.headers()[RETRY_AFTER]),
            (StatusCode::SERVICE_UNAVAILABLE, &HeaderValue::from_static("10"))
        );
        streams.pop();
        assert_eq!(listen().status(), StatusCode::OK, "one has left");
    }
}
