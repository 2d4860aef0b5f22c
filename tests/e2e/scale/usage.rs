//! What a process has used, as the kernel tells it.

use std::fs;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use test_support::{Output, Process};

/// The pause between looks at a running process.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// The kernel counts CPU time in hundredths of a second, whatever it is built for.
const TICKS: f64 = 100.0;

/// The CPU time and memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time in seconds.
    pub(crate) cpu: f64,
    /// Resident memory in MiB: its peak in [`run`], its present value in [`of`].
    pub(crate) memory: f64,
}

/// What a running process has used so far.
pub(crate) fn of(process: &Process) -> Option<Usage> {
    let cpu = cpu(process)?;
    Some(Usage { cpu, memory: memory(process, "VmRSS:")? })
}

/// Runs a process to its end. The memory of its last milliseconds is not seen.
pub(crate) fn run(process: Process) -> (Output, Usage) {
    let mut usage = Usage::default();
    let end = pidfd_open(process.pid(), PidfdFlags::empty()).unwrap();
    loop {
        if let (Some(cpu), Some(memory)) = (cpu(&process), memory(&process, "VmHWM:")) {
            usage = Usage { cpu, memory };
        }
        // The end is not slept over.
        if poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&LOOK)).unwrap() > 0 {
            usage.cpu = cpu(&process).unwrap_or(usage.cpu);
            return (process.end(), usage);
        }
    }
}

/// User and system time of all threads, those that have ended too.
fn cpu(process: &Process) -> Option<f64> {
    let stat = fs::read_to_string(process.proc("stat")).ok()?;
    // The name of the program, in parentheses, can have spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(f64::from(ticks()? + ticks()?) / TICKS)
}

fn memory(process: &Process, line: &str) -> Option<f64> {
    let status = fs::read_to_string(process.proc("status")).ok()?;
    let kib =
        status.lines().find_map(|text| text.strip_prefix(line))?.split_whitespace().next()?.parse::<f64>().ok()?;
    Some(kib / 1024.0)
}
