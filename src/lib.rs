//! The life of a GitLab runner's credential, from registration to unregistration.
//!
//! The product is the binary `runner-agent`; this library is all of it but `main`. It is not a stable API.
//! What the program does for whom is told in the README; this page is the floor plan.
//!
//! # How it flows
//!
//! Flags, environment and agent.toml become [`settings`], which fill the `Config` of the other rooms. The
//! daemon ([`agent`]) asks [`lifecycle`] what is due for each runner, when and why; [`ops`] does it, first
//! towards the server ([`gitlab`]) and then on the disk ([`store`]), in an order that survives a crash; and
//! the outcome goes back into [`lifecycle`]. One-shot commands ([`cli`]) enter at [`ops`] and decide
//! themselves whether to try again.
//!
//! # The rooms
//!
//! - [`cli`]: the command line. The grammar, one file per command, and the only writer to stdout and stderr
//!   besides the log. Opens everything else; only `main` imports it.
//! - [`settings`]: from what the user wrote to validated settings, with every mistake told at once. Only `main` and
//!   [`cli`] import it: the other rooms own their `Config` and are handed it filled in.
//! - [`agent`]: the daemon. A worker per runner, the census of who is served, live reload, and the end
//!   within the grace time.
//! - [`lifecycle`]: pure decisions. The states of a credential, what comes next, and the arithmetic of times.
//!   No runtime, no clock, no disk, no network, no chance of its own.
//! - [`ops`]: register, verify, rotate, unregister and replay, each in the order of effects that loses no
//!   token. Knows server and disk through two traits only, so that both can be memory in tests.
//! - [`gitlab`]: the client of the Runners API. One method is one request and one attempt; an error says
//!   whether the server may have acted. [`gitlab::fleet`] is the part that an access token opens, with lists as
//!   streams of pages. Knows no disk but TLS files.
//! - [`store`]: config.toml, edited by splicing; the state directory with records, journal and locks. One
//!   thread does all disk work. Knows no server.
//! - [`observe`]: the log, the service manager, and the face that the daemon shows to whoever asks: health,
//!   readiness, status and metrics over a socket and HTTP; and the asking.
//! - [`model`]: the words that all rooms share: times, addresses, ids, credentials, the JSON shape.
//! - [`secret`]: tokens that cannot be printed, where they come from, and all hashing.
//! - [`clock`]: the one place where the wall clock is read, and the estimate of the server's time.
//! - [`retry`]: the delays of a one-shot command that was told to wait.
//! - [`signals`]: signals as values that can be waited for.
//!
//! # Who may import whom
//!
//! | room | imports |
//! |---|---|
//! | `secret`, `signals`, `retry` | nothing of ours |
//! | `model` | `secret` |
//! | `clock`, `lifecycle` | `model` |
//! | `observe` | `clock`, `lifecycle`, `model` |
//! | `gitlab`, `store` | `model`, `secret` |
//! | `ops` | `gitlab`, `store`, `lifecycle`, `model`, `secret`; of `observe` how an error is told in a line |
//! | `agent` | `ops`, `lifecycle`, `clock`, `model`, `observe`, and of `store` the types that `ops` hands out |
//! | `settings` | whose `Config` it fills: `agent`, `ops`, `lifecycle`, `gitlab`, `store`, `observe`; `model`, `secret` |
//! | `cli` | all of them |
//!
//! # Which crate is behind which door
//!
//! | crate | used in |
//! |---|---|
//! | `reqwest`, `rustls`, `rustls-native-certs`, `bytes`, `percent-encoding` | [`gitlab`] |
//! | `toml_edit` | [`store`] |
//! | `toml`, `directories` | [`settings`] |
//! | `clap`, `clap_complete`, `clap_mangen`, `indicatif`, `rpassword`, `unicode-width` | [`cli`] |
//! | `inotify`, `futures-util` | [`agent`] |
//! | `tracing-subscriber`, `sd-notify`, `prometheus`, `hyper`, `hyper-util`, `http-body-util` | [`observe`] |
//! | `jiff`, `url` | [`model`] |
//! | `hmac`, `sha2` | [`secret`] |
//! | `signal-hook`, `nix` | [`signals`] |
//! | `backoff` | [`retry`] |
//!
//! `tokio`, `tracing`, `serde`, `serde_json`, `thiserror`, `zeroize` and `rustix` (the system calls that std
//! lacks) are used wherever they are needed.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests write files and read clocks freely"))]

#[allow(rustdoc::broken_intra_doc_links, reason = "its doc comments are help texts, where [[runners]] is no link")]
pub mod cli;
pub mod clock;
pub mod daemon;
pub mod engine;
pub mod error_chain;
pub mod gitlab;
pub mod lifecycle;
pub mod log;
pub mod model;
pub mod ops;
pub mod retry;
pub mod secret;
pub mod settings;
pub mod signals;
pub mod status;
pub mod store;
pub mod systemd;
