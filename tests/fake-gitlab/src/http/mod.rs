//! Sockets, TLS, parameters, and the delivery of answers, complete or broken.

mod connection;
mod delivery;
mod reception;
pub(crate) mod server;
pub(crate) mod tls;
