//! The real binary as a child process.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The longest that one process may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const NAP: Duration = Duration::from_millis(10);

/// A child process that logs into a file; killed with -9 when it is dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Self { child: command.spawn().unwrap(), log }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Not to one that has ended: its id may be another process's by now.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if !self.has_ended() {
            kill_process(Pid::from_child(&self.child), signal).unwrap();
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for something, or for the end of the process; says whether it came.
    pub(crate) fn wait_for(&mut self, patience: Duration, mut is_there: impl FnMut(&Self) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !self.has_ended() && Instant::now() < deadline {
            if is_there(self) {
                return true;
            }
            thread::sleep(NAP);
        }
        is_there(self)
    }

    pub(crate) fn end(mut self) -> Result<ExitStatus, String> {
        if !self.wait_for(PATIENCE, |_| false) && !self.has_ended() {
            return Err("the process hangs".to_owned());
        }
        Ok(self.child.wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
