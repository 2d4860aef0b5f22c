//! Checks for any response of any server.
//!
//! Compiled for fuzzing, and for tests, which run the corpus.

#![allow(clippy::unwrap_used, reason = "a failed check stops the run")]

use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{
    Answer, CallFailure, Endpoint, Error, Incoming, Registered, Reset, Verified, deleted, headers, refused, success,
    wire,
};
use crate::gitlab::fleet;
use crate::model::Expiry;
use crate::secret::Token;

/// The token of every request: what no error may tell. In lower case, so that it can also be a host.
const SECRET: &str = "glrt-0secret1of2the3request";

/// Reads an answer: a line with the call and the status, lines of headers, an empty line, the body.
pub fn answer(input: &[u8]) {
    let Some((endpoint, incoming)) = parse(input) else { return };
    let secret = Token::parse(SECRET).unwrap();
    let trouble = if (200..=299).contains(&incoming.status) {
        match accepted(endpoint, &incoming, &secret) {
            Ok(()) => return,
            Err(trouble) => CallFailure { status: Some(incoming.status), ..trouble },
        }
    } else {
        refused(endpoint, &incoming, &secret)
    };
    let error = Error::new(endpoint, "gitlab.example.com".to_owned(), "0123456789abcdef".to_owned(), trouble);
    // With everything that it shows, its causes included.
    let shown = format!("{error} {} {:?}", error.hint().unwrap_or_default(), error.disposition());
    assert!(!shown.contains(SECRET) && !format!("{error:?}").contains(SECRET), "a secret is shown");
    assert!(!shown.contains(char::is_control) && shown.len() < 2000, "{shown:?}");
    assert!(headers::retry_after(&incoming.headers, true).is_none_or(|wait| wait <= Duration::from_secs(86_400)));
    let _class = (error.class(), headers::date(&incoming.headers));
}

/// An answer as it comes from the wire.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// Reads an answer to a verification of this token.
///
/// # Errors
/// As [`Client::verify`](super::Client::verify).
pub fn read_verify(raw: &RawAnswer, token: &Token) -> Result<Answer<Verified>, Error> {
    read(Endpoint::Verify, raw, token, |incoming| {
        if incoming.status == 200 && wire::is_plain_acceptance(&incoming.body) {
            return Ok(Verified { id: None, expiry: Expiry::Unknown, legacy: true });
        }
        success(incoming, |body| wire::verified(body, token))
    })
}

/// Reads an answer to a reset.
///
/// # Errors
/// As [`Client::reset`](super::Client::reset).
pub fn read_reset(endpoint: Endpoint, raw: &RawAnswer, token: &Token) -> Result<Answer<Reset>, Error> {
    read(endpoint, raw, token, |incoming| success(incoming, wire::reset))
}

/// Reads an answer to a registration.
///
/// # Errors
/// As [`Client::register`](super::Client::register).
pub fn read_registered(endpoint: Endpoint, raw: &RawAnswer, token: &Token) -> Result<Answer<Registered>, Error> {
    read(endpoint, raw, token, |incoming| success(incoming, wire::registered))
}

/// Reads an answer to a deletion.
///
/// # Errors
/// As [`Client::delete_runner`](super::Client::delete_runner).
pub fn read_deleted(endpoint: Endpoint, raw: &RawAnswer, token: &Token) -> Result<Answer<()>, Error> {
    read(endpoint, raw, token, deleted)
}

fn read<T>(
    endpoint: Endpoint,
    raw: &RawAnswer,
    secret: &Token,
    read: impl FnOnce(&Incoming) -> Result<T, CallFailure>,
) -> Result<Answer<T>, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in &raw.headers {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let url = Url::parse("https://gitlab.example.com/api/v4/runners").unwrap();
    let incoming = Incoming { status: raw.status, url, headers, body: Zeroizing::new(raw.body.clone()) };
    let value = if (200..=299).contains(&incoming.status) {
        read(&incoming).map_err(|failure| CallFailure { status: Some(incoming.status), ..failure })
    } else {
        Err(refused(endpoint, &incoming, secret))
    };
    match value {
        Ok(value) => Ok(Answer { value, date: headers::date(&incoming.headers), request_id: String::new() }),
        Err(failure) => Err(Error::new(endpoint, "gitlab.example.com".to_owned(), String::new(), failure)),
    }
}

fn accepted(endpoint: Endpoint, incoming: &Incoming, secret: &Token) -> Result<(), CallFailure> {
    let (token, expiry) = match endpoint {
        Endpoint::Register | Endpoint::RegisterV1 | Endpoint::Create => {
            let registered = success(incoming, wire::registered)?;
            assert!(i64::try_from(registered.id.number()).is_ok_and(|number| number > 0));
            (registered.token, registered.expiry)
        }
        Endpoint::Verify => {
            let verified = success(incoming, |body| wire::verified(body, secret))?;
            assert!(verified.id.is_some());
            (secret.clone(), verified.expiry)
        }
        Endpoint::Reset
        | Endpoint::ResetById
        | Endpoint::ResetInstanceRegistrationToken
        | Endpoint::ResetProjectRegistrationToken
        | Endpoint::ResetGroupRegistrationToken => {
            let reset = success(incoming, wire::reset)?;
            (reset.token, reset.expiry)
        }
        Endpoint::DeleteRunner
        | Endpoint::DeleteManager
        | Endpoint::DeleteById
        | Endpoint::DeleteV1
        | Endpoint::Unassign => {
            return deleted(incoming);
        }
        Endpoint::ListOwned | Endpoint::ListAll | Endpoint::ListOfProject | Endpoint::ListOfGroup => {
            return rows::<fleet::FleetRunner>(incoming);
        }
        Endpoint::ListJobs => return rows::<fleet::CiJob>(incoming),
        Endpoint::ListManagers => return rows::<fleet::Manager>(incoming),
        Endpoint::ListProjects => return rows::<fleet::Project>(incoming),
        Endpoint::Show | Endpoint::Update => return one::<fleet::RunnerDetails>(incoming),
        Endpoint::Assign => return one::<fleet::FleetRunner>(incoming),
        Endpoint::ShowProject => return one::<fleet::Project>(incoming),
        Endpoint::ShowGroup => return one::<fleet::Group>(incoming),
    };
    assert_eq!(Token::parse(token.expose()).as_ref(), Ok(&token));
    if let Expiry::At(at) = expiry {
        assert_eq!(at.to_string().parse(), Ok(at));
    }
    Ok(())
}

fn rows<T: Serialize + DeserializeOwned>(incoming: &Incoming) -> Result<(), CallFailure> {
    one::<Vec<T>>(incoming)
}

/// A parsed answer is written for scripts, and can be parsed again.
fn one<T: Serialize + DeserializeOwned>(incoming: &Incoming) -> Result<(), CallFailure> {
    let read =
        |body: &[u8]| serde_json::from_slice::<T>(body).map_err(|_| wire::Flaw("it is not the JSON that GitLab sends"));
    let understood = success(incoming, read)?;
    let written = serde_json::to_vec(&understood).unwrap();
    drop(serde_json::from_slice::<T>(&written).unwrap());
    Ok(())
}

fn parse(input: &[u8]) -> Option<(Endpoint, Incoming)> {
    let end = input.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, body) = (&input[..end], &input[end + 2..]);
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut first = std::str::from_utf8(lines.next()?).ok()?.split(' ');
    let label = first.next()?;
    let endpoint = Endpoint::from_name(label)?;
    let status = first.next()?.parse().ok().filter(|status| (100..=999).contains(status))?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    let url = Url::parse("https://gitlab.example.com/api/v4/runners").ok()?;
    Some((endpoint, Incoming { status, url, headers, body: Zeroizing::new(body.to_vec()) }))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_passes_every_check() {
        crate::model::fuzzing::feed("answer", super::answer);
    }
}
