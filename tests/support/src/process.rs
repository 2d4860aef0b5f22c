use std::cell::RefCell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Output, PATIENCE, POLL_INTERVAL};

/// A child process and its output; killed with SIGKILL on drop.
#[derive(Debug)]
pub struct Process {
    child: RefCell<Child>,
    stdout: Capture,
    stderr: Capture,
}

/// The captured output of one stream: an unnamed file.
#[derive(Clone, Debug)]
pub struct Capture(Arc<File>);

impl Process {
    /// Starts a command and captures its output.
    pub fn start(command: Command) -> Self {
        let (stdout, stderr) = (Capture::new(), Capture::new());
        let (out, err) = (stdout.file(), stderr.file());
        Self::spawn(command, out, err, (stdout, stderr))
    }

    /// Starts a command that writes its stdout to this file or pipe.
    pub fn start_writing_to(command: Command, stdout: impl Into<OwnedFd>) -> Self {
        let stderr = Capture::new();
        let err = stderr.file();
        Self::spawn(command, stdout.into(), err, (Capture::new(), stderr))
    }

    /// Starts a command that writes its stderr to this file or pipe.
    pub fn start_logging_to(command: Command, stderr: impl Into<OwnedFd>) -> Self {
        let stdout = Capture::new();
        let out = stdout.file();
        Self::spawn(command, out, stderr.into(), (stdout, Capture::new()))
    }

    fn spawn(mut command: Command, out: OwnedFd, err: OwnedFd, (stdout, stderr): (Capture, Capture)) -> Self {
        command.stdout(out).stderr(err);
        Self { child: RefCell::new(command.spawn().unwrap()), stdout, stderr }
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child.borrow())
    }

    /// A file of the process below `/proc`.
    pub fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.borrow().id()))
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// A handle to the log that outlives the process.
    pub fn log_capture(&self) -> Capture {
        self.stderr.clone()
    }

    /// Whether the process still runs.
    pub fn is_running(&self) -> bool {
        self.child.borrow_mut().try_wait().unwrap().is_none()
    }

    /// Sends a signal, unless the process has already been seen to end: another one may have its id by now.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            kill_process(self.pid(), signal).unwrap();
        }
    }

    /// Waits for a condition or the end of the process; returns whether the condition holds.
    pub fn wait_for(&self, patience: Duration, mut is_met: impl FnMut(&Self) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_running() && Instant::now() < deadline {
            if is_met(self) {
                return true;
            }
            thread::sleep(POLL_INTERVAL);
        }
        is_met(self)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The process still runs after [`PATIENCE`].
    pub fn try_end(self) -> Result<Output, String> {
        self.wait_for(PATIENCE, |_| false);
        match self.child.borrow_mut().try_wait().unwrap() {
            Some(status) => Ok(self.output(status.code())),
            None => Err(format!("the process hangs:\n{}", self.log())),
        }
    }

    /// Waits for the end; panics if the process still runs after [`PATIENCE`].
    #[track_caller]
    pub fn end(self) -> Output {
        self.try_end().unwrap()
    }

    /// Sends a signal and waits for the end.
    #[track_caller]
    pub fn stop(self, signal: Signal) -> Output {
        self.signal(signal);
        self.end()
    }

    /// Ends the process with SIGKILL.
    pub fn kill(self) -> Output {
        self.child.borrow_mut().kill().unwrap();
        let status = self.child.borrow_mut().wait().unwrap();
        self.output(status.code())
    }

    fn output(&self, code: Option<i32>) -> Output {
        Output { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if the process has already ended.
        let _killed = self.child.borrow_mut().kill();
        let _reaped = self.child.borrow_mut().wait();
    }
}

impl Capture {
    fn file(&self) -> OwnedFd {
        self.0.try_clone().unwrap().into()
    }

    fn new() -> Self {
        Self(Arc::new(tempfile::tempfile().unwrap()))
    }

    /// The whole text so far. Reads by position, because the process shares the file's offset.
    pub fn text(&self) -> String {
        let mut bytes = vec![0; usize::try_from(self.0.metadata().unwrap().len()).unwrap()];
        self.0.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
