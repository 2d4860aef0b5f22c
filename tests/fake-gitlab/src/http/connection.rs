//! One connection: reads requests, applies faults, and sends answers.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

use super::delivery::{Delivery, send_deformed};
use super::reception::Received;
use crate::answer::{META, meta};
use crate::api::{self, Call, Target};
use crate::fault::{Deformation, Effect, Fault, Moment};
use crate::shared::{Shared, locked};
use crate::state::clock::http_date;
use crate::{Answer, Request};

/// The shared data of a connection.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: SocketAddr,
    /// The server's own address, such as `https://127.0.0.1:4443`.
    pub(super) origin: Arc<str>,
}

/// A broken answer for the owner of the socket to send.
type Deformed = Arc<Mutex<Option<(Answer, Deformation)>>>;

/// Serves a connection until either side closes it.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, context: Context) {
    let deformed = Deformed::default();
    let left_behind = Arc::clone(&deformed);
    let service = service_fn(move |request| respond(context.clone(), Arc::clone(&left_behind), request));
    let mut builder = hyper::server::conn::http1::Builder::new();
    let mut connection = builder.auto_date_header(false).serve_connection(TokioIo::new(stream), service);
    let ended = std::future::poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let taken = locked(&deformed).take();
    let mut stream = connection.into_parts().io.into_inner();
    if let Some((answer, deformation)) = taken {
        send_deformed(&mut stream, &answer, deformation).await;
    } else if ended.is_ok() {
        let _gone = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
    }
}

/// The end of a connection without an answer from hyper.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the connection is closed on purpose")
    }
}

impl std::error::Error for Closed {}

type Response = Pin<Box<dyn Future<Output = Result<hyper::Response<Full<Bytes>>, Closed>> + Send>>;

/// Answers a request in a separate task, because GitLab finishes it even if the client disconnects.
fn respond(context: Context, deformed: Deformed, request: hyper::Request<Incoming>) -> Response {
    Box::pin(async move {
        let received = Received::read(request).await.map_err(|_| Closed)?;
        let delivery = tokio::spawn(handle(context, received)).await.map_err(|_| Closed)?;
        match delivery {
            Delivery::Whole(answer) => Ok(whole(answer)),
            Delivery::Deformed(answer, deformation) => {
                *locked(&deformed) = Some((answer, deformation));
                Err(Closed)
            }
            Delivery::Cut => Err(Closed),
        }
    })
}

fn whole(answer: Answer) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response.body(Full::new(answer.body.into())).expect("answers are made of valid statuses and headers")
}

async fn handle(context: Context, received: Received) -> Delivery {
    let shared = &context.shared;
    let path = received.uri.path();
    let target = Target::of(&received.method, below_root(path, &shared.base_path));
    let number = begin(&context, &received, &target);
    let runner = concerned_runner(shared, &received, &target);
    let claim = locked(&shared.orders).claim(target.endpoint, runner);
    let delivery = match claim {
        None => Delivery::Whole(genuine(&context, finished(&context, &received, act(&context, &received, &target)))),
        Some(mut claim) => {
            if claim.fault.moment == Moment::BeforeActing {
                claim.wait().await;
            }
            let real = claim.fault.lets_act().then(|| act(&context, &received, &target));
            if claim.fault.moment == Moment::AfterActing {
                shared.changes.announce();
                claim.wait().await;
            }
            injected(&context, &received, &claim.fault, real)
        }
    };
    end(shared, number, &delivery);
    delivery
}

/// The path below the relative URL root, `None` if it is outside.
fn below_root<'a>(path: &'a str, base_path: &str) -> Option<&'a str> {
    path.strip_prefix(base_path).filter(|below| below.is_empty() || below.starts_with('/'))
}

fn begin(context: &Context, received: &Received, target: &Target) -> usize {
    let headers = received
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let number = locked(&context.shared.log).begin(Request {
        method: received.method.as_str().to_owned(),
        path: received.uri.path_and_query().map(|path| path.as_str().to_owned()).unwrap_or_default(),
        headers,
        parameters: received.parameters.0.clone(),
        body: String::from_utf8_lossy(&received.body).into_owned(),
        endpoint: target.endpoint,
        peer: context.peer,
        received_at: Timestamp::now(),
        status: None,
    });
    context.shared.changes.announce();
    number
}

fn end(shared: &Shared, number: usize, delivery: &Delivery) {
    let status = match delivery {
        Delivery::Whole(answer) | Delivery::Deformed(answer, _) => Some(answer.status),
        Delivery::Cut => None,
    };
    let request = locked(&shared.log).end(number, status);
    shared.changes.announce();
    if let (Some(request), Some(observer)) = (request, &shared.observer) {
        observer(&request);
    }
}

/// The runner that a request is about, by its id in the path or by its token, even an expired one.
fn concerned_runner(shared: &Shared, received: &Received, target: &Target) -> Option<u64> {
    if let Some(id) = target.runner_id() {
        return Some(id);
    }
    let token = received.parameters.text("token").ok().flatten()?;
    locked(&shared.state).runner_by_token(&token).map(|runner| runner.id)
}

fn act(context: &Context, received: &Received, target: &Target) -> Answer {
    let outage = *locked(&context.shared.outage);
    let mut state = locked(&context.shared.state);
    let refusal =
        outage.and_then(|outage| outage.refusal(state.version, target.endpoint, &received.method, received.is_json()));
    if let Some(refusal) = refusal {
        return refusal;
    }
    let address = format!("{}{}", context.origin, received.uri.path());
    api::act(&mut Call {
        state: &mut state,
        target,
        method: &received.method,
        headers: &received.headers,
        parameters: &received.parameters,
        address: &address,
    })
}

/// Applies a fault to the real answer.
fn injected(context: &Context, received: &Received, fault: &Fault, real: Option<Answer>) -> Delivery {
    let real = real.unwrap_or_else(|| Answer::empty(500));
    let (answer, deformation) = match &fault.effect {
        Effect::Cut => return Delivery::Cut,
        Effect::None => (real, None),
        Effect::Replace(answer) => (answer.clone(), None),
        Effect::Amend(amendment) => (amended(real, &*amendment.0), None),
        Effect::Deform(deformation) => (real, Some(*deformation)),
    };
    let mut answer = finished(context, received, answer);
    if !matches!(fault.effect, Effect::Replace(_)) {
        answer = genuine(context, answer);
    }
    for (name, value) in &fault.headers {
        match value {
            Some(value) => answer = answer.with_header(name, value.clone()),
            None => answer.headers.retain(|(present, _)| !present.eq_ignore_ascii_case(name)),
        }
    }
    match deformation {
        None => Delivery::Whole(answer),
        Some(deformation) => Delivery::Deformed(answer, deformation),
    }
}

fn amended(mut answer: Answer, change: &dyn Fn(&mut serde_json::Value)) -> Answer {
    if let Ok(mut json) = serde_json::from_slice(&answer.body) {
        change(&mut json);
        answer.body = json.to_string().into_bytes();
    }
    answer
}

/// Adds the header of GitLab's own answers. Pages come from the proxy in front of it.
fn genuine(context: &Context, answer: Answer) -> Answer {
    let is_page = answer.header("content-type").is_some_and(|content_type| content_type.starts_with("text/html"));
    if is_page || locked(&context.shared.state).strips_meta {
        return answer;
    }
    let correlation_id = answer.header("x-request-id").unwrap_or_default().to_owned();
    answer.with_header(META, meta(&correlation_id))
}

/// Adds the headers that every answer has.
fn finished(context: &Context, received: &Received, mut answer: Answer) -> Answer {
    let mut state = locked(&context.shared.state);
    if answer.header("date").is_none() {
        answer = answer.with_header("Date", http_date(state.clock.now()));
    }
    if answer.header("x-request-id").is_none() {
        let sent = received.headers.get("x-request-id").and_then(|id| id.to_str().ok());
        let id = sent.map_or_else(|| state.tokens.request_id(), str::to_owned);
        answer = answer.with_header("X-Request-Id", id);
    }
    answer
}
