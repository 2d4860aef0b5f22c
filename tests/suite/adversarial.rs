//! Servers that send broken and malicious answers: errors are clear, memory and time are bounded, and config.toml
//! stays whole.

mod contents;
mod daemon;
mod limited;
mod server;
mod wire;
mod words;
