//! Sockets, TLS, parameters, and the delivery of answers whole or broken.

mod connection;
mod delivery;
mod reception;
pub(crate) mod server;
pub(crate) mod tls;
