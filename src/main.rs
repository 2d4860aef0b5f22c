//! Parse, run, exit.

use std::process::ExitCode;

use runner_agent::cli;
use runner_agent::settings::Environment;
use runner_agent::signals::Signals;

fn main() -> ExitCode {
    // Before anything else: the default action of some signals is a core dump.
    let signals = Signals::install();
    runner_agent::secret::forbid_core_dumps();
    cli::run(std::env::args_os(), Environment::of_process(), signals).into()
}
