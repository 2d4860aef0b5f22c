//! Servers that send broken and malicious answers: errors are clear, memory and time are bounded, and config.toml
//! stays whole.

mod contents;
mod daemon;
mod limited;
mod messages;
mod server;
mod wire;
