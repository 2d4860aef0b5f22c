//! Parse, run, exit.

use std::process::ExitCode;

use runner_agent::cli;
use runner_agent::secret;
use runner_agent::settings::Start;
use runner_agent::signals::Signals;

fn main() -> ExitCode {
    // Before anything else: the default action of some signals is a core dump.
    let signals = Signals::install();
    // Before any secret is in memory that can be kept out of what a process was started with.
    let core_dumps = secret::forbid_core_dumps();
    cli::run(Start::of_process(), signals, core_dumps).into()
}
