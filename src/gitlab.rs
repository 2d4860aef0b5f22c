//! The typed client of GitLab's Runners API.
//!
//! One method sends one request, once: no retries, no redirects, no guesses about a lost answer. It returns
//! either a genuine answer of GitLab or an [`Error`], whose [`disposition`](Error::disposition) says whether
//! the request may have taken effect and what the caller can do next.
//!
//! Input: a [`Site`](crate::model::Site), tokens and parameters. Output: typed answers with the server's `Date`.
//! The only files it reads are the TLS files of a site. [`JsonClient`] speaks to other servers by the same TLS rules. Imports only `model` and `secret`; no other room uses
//! `reqwest`, `rustls`, `rustls-native-certs`, `bytes` and `percent-encoding`.

mod access_token;
mod answer;
mod certificate;
mod client;
mod config;
mod diagnosis;
mod disposition;
mod endpoint;
mod error;
mod error_body;
mod error_kind;
mod error_text;
pub mod fleet;
mod headers;
mod http_clients;
mod json_client;
mod lenient;
mod other_address;
mod parameters;
mod proxy;
mod refusal;
mod rights;
mod scheme;
mod tls;
mod tls_checks;
mod transport;
mod trust;
mod v1;
mod wire;

#[cfg(test)]
mod tests;

pub use answer::{Answer, AnswerText, Registered, Reset, RotatedAccessToken, Shape, Verified};
pub use client::Client;
#[cfg(any(test, fuzzing))]
pub use client::fuzzing;
pub use config::{
    CONNECT_TIMEOUT, Config, Exchange, IN_FLIGHT_PER_HOST, Observer, Proxies, ProxySetting, REQUEST_TIMEOUT,
};
pub use diagnosis::{Diagnosis, DiagnosisStep, Obstacle};
pub use disposition::{Disposition, ErrorClass, Reason};
pub use endpoint::Endpoint;
pub use error::Error;
pub use error_kind::ErrorKind;
pub use json_client::{JsonAnswer, JsonClient, JsonFailure, JsonStream};
pub use parameters::{
    AccessLevel, Info, MAX_NAME_CHARS, MAX_TAG_CHARS, MAX_TAGS, MAX_TEXT_CHARS, MIN_MAXIMUM_TIMEOUT, ParameterError,
    RegisterParameters,
};
