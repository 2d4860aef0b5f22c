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

use super::{CallFailure, Endpoint, Error, Fields, Incoming, headers, wire};
use super::{deleted, interpreted, new_credential, probed, registered, reset, success, verified};
use crate::gitlab::access_token;
use crate::gitlab::endpoint::TokenKind;
use crate::gitlab::{Answer, Disposition, Registered, Reset, RotatedAccessToken, Shape, Verified, fleet};
use crate::model::{AccessTokenFacts, Expiry};
use crate::secret::Token;

/// The token of every request: what no error may tell. In lower case, so that it can also be a host.
const SECRET: &str = "glrt-0secret1of2the3request";

/// Any answer of any server.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// The HTTP status, 100 to 999.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(&'static str, String)>,
    /// The body, which may be anything.
    pub body: Vec<u8>,
}

/// Reads an answer to [`Client::verify`](super::Client::verify) of `sent` as the client does.
///
/// # Errors
/// [`Error`].
pub fn read_verify(answer: &RawAnswer, sent: &Token) -> Result<Answer<Verified>, Error> {
    answer.read(Endpoint::Verify, Some(sent), |incoming| verified(incoming, sent))
}

/// Reads an answer to a reset by the token `sent`, or by id with the access token `sent`.
///
/// # Errors
/// [`Error`].
pub fn read_reset(endpoint: Endpoint, answer: &RawAnswer, sent: &Token) -> Result<Answer<Reset>, Error> {
    answer.read(endpoint, Some(sent), reset)
}

/// Reads an answer to a registration or creation with the token `sent`.
///
/// # Errors
/// [`Error`].
pub fn read_registered(endpoint: Endpoint, answer: &RawAnswer, sent: &Token) -> Result<Answer<Registered>, Error> {
    let fields = if endpoint == Endpoint::Create { Fields::IdAndExpiry } else { Fields::Id };
    answer.read(endpoint, Some(sent), |incoming| registered(incoming, fields))
}

/// Reads an answer to a deletion with the token `sent`.
///
/// # Errors
/// [`Error`].
pub fn read_deleted(endpoint: Endpoint, answer: &RawAnswer, sent: &Token) -> Result<Answer<()>, Error> {
    answer.read(endpoint, Some(sent), deleted)
}

/// Reads an answer to [`Client::access_token_facts`](super::Client::access_token_facts) of `sent`.
///
/// # Errors
/// [`Error`].
pub fn read_access_token_facts(answer: &RawAnswer, sent: &Token) -> Result<Answer<AccessTokenFacts>, Error> {
    answer.read(Endpoint::ShowAccessToken, Some(sent), access_token::facts)
}

/// Reads an answer to [`Client::rotate_access_token`](super::Client::rotate_access_token) of `sent`, to one of its calls.
///
/// # Errors
/// [`Error`].
pub fn read_rotated_access_token(
    endpoint: Endpoint,
    answer: &RawAnswer,
    sent: &Token,
) -> Result<Answer<RotatedAccessToken>, Error> {
    answer.read(endpoint, Some(sent), |incoming| access_token::rotated(incoming, sent))
}

/// Reads an answer to [`Client::probe`](super::Client::probe).
///
/// # Errors
/// [`Error`].
pub fn read_probe(answer: &RawAnswer) -> Result<Answer<()>, Error> {
    answer.read(Endpoint::Probe, None, probed)
}

impl RawAnswer {
    fn read<T>(
        &self,
        endpoint: Endpoint,
        secret: Option<&Token>,
        read: impl FnOnce(&Incoming) -> Result<T, CallFailure>,
    ) -> Result<Answer<T>, Error> {
        let header = |(name, value): &(&'static str, String)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let url = Url::parse("https://gitlab.example.com/api/v4/runners").unwrap();
        let headers = self.headers.iter().map(header).collect();
        let incoming =
            Incoming { status: self.status, url, headers, body: Zeroizing::new(self.body.clone()), cut: None };
        match interpreted(endpoint, &incoming, secret, read) {
            Ok(value) => Ok(Answer { value, date: headers::date(&incoming.headers), request_id: "1f".to_owned() }),
            Err(failure) => Err(Error::new(endpoint, "gitlab.example.com".to_owned(), "1f".to_owned(), failure)),
        }
    }
}

/// Reads an answer: a line with the call and the status, lines of headers, an empty line, the body.
pub fn answer(input: &[u8]) {
    let Some((endpoint, incoming)) = parse(input) else { return };
    let secret = Token::parse(SECRET).unwrap();
    let sent = Some(&secret).filter(|_| endpoint.token_kind() != TokenKind::None);
    let Err(failure) = interpreted(endpoint, &incoming, sent, |incoming| accepted(endpoint, incoming, &secret)) else {
        return;
    };
    let error = Error::new(endpoint, "gitlab.example.com".to_owned(), "0123456789abcdef".to_owned(), failure);
    // With everything that it shows, its causes included.
    let shown = format!(
        "{error} {} {:?} {:?} {:?}",
        error.hint().unwrap_or_default(),
        error.disposition(),
        error.disposition_if_proven(),
        error.unproven()
    );
    assert!(sent.is_none() || !shown.contains(SECRET) && !format!("{error:?}").contains(SECRET), "a secret is shown");
    assert!(!shown.contains(char::is_control) && shown.len() < 4000, "{shown:?}");
    assert!(headers::retry_after(&incoming.headers, true).is_none_or(|wait| wait <= Duration::from_secs(86_400)));
    check_verdict(&error, &incoming);
    let _class = (error.class(), headers::date(&incoming.headers));
}

/// A verdict needs GitLab's own error body, and a status that refuses the request.
fn check_verdict(error: &Error, incoming: &Incoming) {
    let is_verdict = !matches!(error.disposition(), Disposition::NotExecuted { .. } | Disposition::Unknown { .. });
    let is_missing_page = error.endpoint().is_v1() && incoming.status == 404;
    if is_verdict {
        assert!((400..=499).contains(&incoming.status), "a verdict with another status");
        assert!(incoming.error_body().is_some() || is_missing_page, "a verdict without GitLab's error body");
        assert!(error.is_understood() && error.unproven().is_none(), "a verdict that is not understood");
    }
    assert!(error.unproven().is_none() || !incoming.has_gitlab_meta(), "GitLab's own answer needs no proof");
    assert!(error.date().is_none() || error.is_understood(), "the time of an answer that is not GitLab's");
}

fn accepted(endpoint: Endpoint, incoming: &Incoming, secret: &Token) -> Result<(), CallFailure> {
    let (token, expiry) = match endpoint {
        Endpoint::Register | Endpoint::RegisterV1 | Endpoint::Create => {
            let registered =
                registered(incoming, if endpoint == Endpoint::Create { Fields::IdAndExpiry } else { Fields::Id })?;
            assert!(registered.id.is_none_or(|id| i64::try_from(id.number()).is_ok_and(|number| number > 0)));
            assert!(registered.shape != Shape::Documented || registered.id.is_some() && incoming.status == 201);
            (registered.token, registered.expiry)
        }
        Endpoint::Verify => {
            let verified = verified(incoming, secret)?;
            assert!(incoming.status == 200 && verified.id.is_none() == verified.legacy);
            (secret.clone(), verified.expiry)
        }
        Endpoint::Probe => return probed(incoming),
        Endpoint::Reset | Endpoint::ResetById => {
            let reset = reset(incoming)?;
            assert!(reset.shape != Shape::Documented || reset.expiry != Expiry::Unknown && incoming.status == 201);
            (reset.token, reset.expiry)
        }
        Endpoint::ShowAccessToken => {
            let facts = access_token::facts(incoming)?;
            check_facts(&facts);
            return Ok(());
        }
        Endpoint::RotateAccessToken | Endpoint::RotateGroupAccessToken | Endpoint::RotateProjectAccessToken => {
            let rotated = access_token::rotated(incoming, secret)?;
            assert!(rotated.oddity.is_some() || rotated.facts.is_some() && incoming.status == 200);
            assert!(rotated.oddity.is_some() || rotated.token != *secret);
            rotated.facts.iter().for_each(check_facts);
            (rotated.token, Expiry::Unknown)
        }
        Endpoint::ResetInstanceRegistrationToken
        | Endpoint::ResetProjectRegistrationToken
        | Endpoint::ResetGroupRegistrationToken => (new_credential(incoming, Fields::Token)?.token, Expiry::Unknown),
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

/// What is kept of an access token is short and safe to print.
fn check_facts(facts: &AccessTokenFacts) {
    let shown = format!("{} {}", facts.name, facts.scopes.concat());
    assert!(!shown.contains(char::is_control) && shown.len() < 200_000, "{shown:?}");
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
    Some((endpoint, Incoming { status, url, headers, body: Zeroizing::new(body.to_vec()), cut: None }))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_passes_every_check() {
        crate::model::fuzzing::feed("answer", super::answer);
    }
}
