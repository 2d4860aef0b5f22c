//! The disk: config.toml, the state directory, locks.
