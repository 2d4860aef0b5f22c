//! Entry point of `runner-agent`.

use std::process::ExitCode;

use runner_agent::cli;
use runner_agent::limits;
use runner_agent::log;
use runner_agent::secret;
use runner_agent::settings::Start;
use runner_agent::signals::Signals;

fn main() -> ExitCode {
    let _log = log::FlushAtEnd;
    // First, because the default action of some signals is a core dump.
    let signals = Signals::install();
    // Before the process reads any secret.
    let core_dumps = secret::disable_core_dumps();
    // Without it the work goes on, with fewer runners at a time.
    let _raised = limits::raise_open_files();
    cli::run(Start::of_process(), signals, core_dumps).into()
}
