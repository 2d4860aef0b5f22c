//! The typed client of GitLab's Runners API.
//!
//! One method is one request and one attempt: nothing here repeats a call, follows a redirect or
//! guesses what a lost answer said. What came back is either a genuine answer of GitLab's or an
//! [`Error`], whose [`disposition`](Error::disposition) says whether the request may have taken effect
//! and what its sender can do next.
//!
//! In flow a [`Site`](crate::model::Site), tokens and parameters; out flow typed answers with the
//! server's `Date`. The room knows no file but the TLS material of a site, and imports `model` and
//! `secret` only. `reqwest`, `rustls`, `rustls-native-certs`, `bytes` and `percent-encoding` are used here and
//! nowhere else.

mod answer;
mod client;
mod config;
mod disposition;
mod endpoint;
mod error;
mod error_body;
pub mod fleet;
mod headers;
mod parameters;
mod refusal;
mod rights;
mod tls;
mod transport;
mod trust;
mod v1;
mod wire;

#[cfg(test)]
mod tests;

pub use answer::{Answer, Registered, Reset, Verified};
pub use client::Client;
#[cfg(any(test, fuzzing))]
pub use client::fuzzing;
pub use config::{CONNECT_TIMEOUT, Config, Exchange, IN_FLIGHT_PER_HOST, Observer, Proxies, REQUEST_TIMEOUT};
pub use disposition::{Disposition, ErrorClass, Reason};
pub use endpoint::Endpoint;
pub use error::{Error, ErrorKind};
pub use parameters::{
    AccessLevel, Info, MAX_NAME_CHARS, MAX_TAG_CHARS, MAX_TAGS, MAX_TEXT_CHARS, MIN_MAXIMUM_TIMEOUT, ParameterError,
    RegisterParameters,
};
