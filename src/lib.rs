//! The life of a GitLab runner's credential, from registration to unregistration.
//!
//! The product is the binary `runner-agent`; this library is all of it but `main`. It is not a stable API.
//! README.md and the pages in `packaging/docs` say what the program does. This page is the floor plan: it says where to look.
//!
//! # Flow
//!
//! Flags, environment and agent.toml become [`settings`]. The [`engine`] takes the inventory of runners and drives each
//! of them: [`lifecycle`] says what is due, when and why; [`ops`] does it, first towards the server ([`gitlab`]) and
//! then on the disk ([`store`]), in an order that survives a crash; the outcome goes into `lifecycle::apply`, the only
//! place where a state changes. The [`daemon`] and the commands ([`cli`]) use the same engine: the daemon waits for
//! what is planned for as long as it runs, a command until its goal is reached.
//!
//! # Rooms
//!
//! - [`cli`]: the command line. The grammar, one file per command, the exit codes (`exit.rs`), and the only writer to
//!   stdout and stderr besides the log (`report.rs`).
//! - [`settings`]: from what the user wrote to validated settings, with every mistake reported at once. The other rooms
//!   own their `Config` and receive it filled in.
//! - [`daemon`]: the composition root, the supervisor, a worker per runner, the file watch, the heartbeat, the shutdown.
//! - [`engine`]: one way to drive a runner, for the daemon and the commands. The driver, the inventory (which runners
//!   exist), the policy (which rules govern each), the runner report.
//! - [`lifecycle`]: pure decisions. The states of a credential; what comes next (`plan.rs`, and `goal.rs` for commands);
//!   what an outcome means for the state (`apply.rs`); which clock to go by (`clocks.rs`); the share
//!   of life at which a token rotates and every delay (`schedule.rs`); which of two tokens of a shared runner counts
//!   (`sharing.rs`); when an access token is asked about and rotated (`access.rs`). No runtime, clock, disk, network or randomness.
//! - [`ops`]: register, verify, rotate, unregister and replay, each in the order of effects that loses no token. Knows
//!   server and disk through two traits (`ports.rs`), so that both can be memory in tests.
//! - [`gitlab`]: the client of the Runners API. One method is one request and one attempt. What an answer proves, such as
//!   a 403 to verify, is in `refusal.rs` and `disposition.rs`. [`gitlab::fleet`] needs an access token.
//! - [`store`]: config.toml, edited by splicing (`splice.rs`) and replaced atomically (`replace.rs`); the state directory
//!   with records, journal and locks. One thread does all of their disk work.
//! - [`sharing`]: the stores of runners that many machines share, etcd and Kubernetes, behind one trait.
//! - [`hooks`]: what is done after an event, one attempt at a time: a command, a webhook, a signal, a file with the
//!   token.
//! - [`status`]: the registry of runner states and events, the HTTP and socket server with its client, the page for
//!   browsers, and the metrics (`metrics.rs` and `counters.rs` name them).
//! - [`log`]: the log on stderr, or as native entries of systemd's journal.
//! - [`systemd`]: notifications to the service manager, and questions to it about the machine.
//! - [`model`]: the values that all rooms share: times, addresses, ids, credentials, the JSON shape and its names.
//! - [`secret`]: tokens that cannot be printed, where they come from, and all hashing.
//! - [`clock`]: the one place where the wall clock is read, and the estimate of the server's time.
//! - [`files`]: files that other users may have put there: resolved once, opened and judged by descriptor. File
//!   tasks on blocking threads (`blocking.rs`).
//! - [`host`]: who this process is on its machine, and which unit or container another one belongs to, for messages.
//! - [`retry`]: the delays of a command that waits for a server.
//! - [`signals`]: signals as values that can be awaited.
//! - [`limits`]: the resource limits of the process.
//! - [`error_chain`]: an error with its causes in one line.
//!
//! # Imports
//!
//! `tests/architecture.rs` fails on an import that this table does not allow.
//!
//! | room | imports |
//! |---|---|
//! | `host`, `signals`, `limits`, `retry`, `error_chain` | nothing of ours |
//! | `files` | `host` |
//! | `secret` | `files` |
//! | `model` | `secret` |
//! | `clock` | `model` |
//! | `systemd` | `files`, `model` |
//! | `lifecycle` | `model`, `secret` |
//! | `log` | `clock`, `model`, `secret` |
//! | `status` | `clock`, `error_chain`, `files`, `host`, `model`, `secret` |
//! | `gitlab` | `files`, `model`, `secret` |
//! | `hooks` | `files`, `gitlab`, `model`, `secret` |
//! | `store` | `files`, `host`, `model`, `secret` |
//! | `sharing` | `files`, `gitlab`, `model`, `secret` |
//! | `ops` | `error_chain`, `gitlab`, `lifecycle`, `model`, `secret`, `sharing`, `store` |
//! | `engine` | `clock`, `error_chain`, `gitlab`, `hooks`, `lifecycle`, `model`, `ops`, `retry`, `secret`, `sharing`, `store` |
//! | `settings` | `engine`, `files`, `gitlab`, `hooks`, `lifecycle`, `model`, `ops`, `secret`, `sharing`, `status`, `store` |
//! | `daemon` | all rooms but `cli` |
//! | `cli` | all rooms |
//!
//! # Crates
//!
//! Each is used in one room, but for what reads the streams of other crates.
//!
//! | crate | room |
//! |---|---|
//! | `reqwest`, `rustls`, `rustls-native-certs`, `bytes`, `percent-encoding` | [`gitlab`] |
//! | `toml_edit` | [`store`] |
//! | `toml_parser` | [`store`] |
//! | `toml`, `directories`, `strsim` | [`settings`] |
//! | `clap`, `clap_complete`, `clap_mangen`, `rpassword`, `unicode-width` | [`cli`] |
//! | `inotify` | [`daemon`] |
//! | `futures-util` | [`daemon`], [`sharing`] |
//! | `prometheus`, `hyper`, `hyper-util`, `http-body-util` | [`status`] |
//! | `tracing-subscriber` | [`log`] |
//! | `sd-notify` | [`systemd`] |
//! | `jiff`, `url` | [`model`] |
//! | `hmac`, `ring`, `sha2` | [`secret`] |
//! | `base64`, `k8s-openapi`, `kube` | [`sharing`] |
//! | `signal-hook`, `nix` | [`signals`] |
//! | `backoff` | [`retry`] |
//! | `command-fds` | [`hooks`] |
//!
//! `tokio`, `tracing`, `serde`, `serde_json`, `thiserror`, `zeroize` and `rustix` (system calls that std lacks) are used
//! wherever they are needed.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests write files and read clocks freely"))]

#[allow(rustdoc::broken_intra_doc_links, reason = "its doc comments are help texts, where [[runners]] is no link")]
pub mod cli;
pub mod clock;
pub mod daemon;
pub mod engine;
pub mod error_chain;
pub mod files;
pub mod gitlab;
pub mod hooks;
pub mod host;
pub mod lifecycle;
pub mod limits;
pub mod log;
pub mod model;
pub mod ops;
pub mod retry;
pub mod secret;
pub mod settings;
pub mod sharing;
pub mod signals;
pub mod status;
pub mod store;
pub mod systemd;
