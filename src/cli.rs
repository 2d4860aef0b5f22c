//! The command line.
//!
//! `arguments` is its grammar and `report` the only writer to stdout and stderr; every command is one
//! file. Nobody imports this room but main. `clap`, `clap_complete`, `indicatif` and `rpassword` are used
//! here and nowhere else.

pub mod arguments;
