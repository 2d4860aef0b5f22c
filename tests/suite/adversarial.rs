//! Servers with broken and malicious responses: errors are clear, memory and time are bounded, and config.toml stays
//! intact.

mod contents;
mod daemon;
mod limited;
mod messages;
mod server;
mod wire;
