//! Runs a program, bounded in time and output, without the agent's environment.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::HookError;
use super::file_work::file_work;
use super::limit::TimeLimit;
use super::orphans;
use super::output::Output;
use crate::files::trusted_program;
use crate::secret::Token;

/// The program's PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The number of the descriptor that a program reads a token from.
const DESCRIPTOR: i32 = 3;

/// How long its output is read after its end: a process that it has left behind may have the pipe.
const AFTER_EXIT: Duration = Duration::from_secs(1);

/// A program to run.
pub(super) struct Program<'a> {
    /// Its absolute path.
    pub(super) path: &'a Path,
    pub(super) arguments: &'a [String],
    /// Its variables besides `PATH`.
    pub(super) variables: Vec<(&'static str, String)>,
}

/// What a program can read.
#[derive(Clone, Copy, Default)]
pub(super) struct Input<'a> {
    /// Its stdin.
    pub(super) stdin: &'a [u8],
    /// Its file descriptor 3, if it has one.
    pub(super) descriptor: Option<&'a [u8]>,
    /// What is hidden in its output.
    pub(super) secret: Option<&'a Token>,
}

impl Program<'_> {
    /// Runs it. Returns its output, for a message.
    pub(super) async fn run(&self, input: Input<'_>, limit: TimeLimit) -> Result<String, HookError> {
        let (mut child, group) = self.start(input, limit).await?;
        let mut output = Output::default();
        let ended = ended(&mut child, &mut output, limit).await;
        let said = output.shown(input.secret);
        let Some(status) = ended else {
            let message = format!("the command was killed after {} s{said}", limit.seconds());
            return Err(HookError::Passing(message));
        };
        group.has_ended();
        match status.map_err(|error| HookError::Passing(format!("cannot wait for the command: {error}")))? {
            status if status.success() => Ok(said),
            status => Err(HookError::Passing(format!("the command has failed ({status}){said}"))),
        }
    }

    /// Checks the program, and starts it. Both wait for its disk.
    async fn start(&self, input: Input<'_>, limit: TimeLimit) -> Result<(Child, ProcessGroup), HookError> {
        let path = self.path.to_owned();
        let launch = Launch::new(self, input).map_err(|error| cannot_start(self.path, &error))?;
        let started = file_work(limit, self.path, move || {
            let program = trusted_program(&path).map_err(|error| HookError::of_file(&path, &error))?;
            let child = orphans::start(|| launch.spawn(program, &path)).map_err(|error| cannot_start(&path, &error))?;
            let group = ProcessGroup::of(&child);
            Ok((child, group))
        });
        started.await?
    }
}

/// What a program gets.
struct Launch {
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    stdin: File,
    descriptor: Option<File>,
}

impl Launch {
    fn new(program: &Program<'_>, input: Input<'_>) -> io::Result<Self> {
        Ok(Self {
            arguments: program.arguments.to_vec(),
            variables: program.variables.clone(),
            stdin: in_memory(input.stdin)?,
            descriptor: input.descriptor.map(in_memory).transpose()?,
        })
    }

    fn spawn(self, program: PathBuf, name: &Path) -> io::Result<Child> {
        let mut command = Command::new(program);
        command.arg0(name).args(self.arguments).current_dir("/");
        command.env_clear().env("PATH", PATH).envs(self.variables);
        if let Some(descriptor) = self.descriptor {
            let mapping = FdMapping { parent_fd: descriptor.into(), child_fd: DESCRIPTOR };
            command.fd_mappings(vec![mapping]).map_err(io::Error::other)?;
        }
        command.stdin(Stdio::from(self.stdin)).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true).spawn()
    }
}

/// The error for a program that passes the check, and that the kernel does not execute.
fn cannot_start(path: &Path, error: &io::Error) -> HookError {
    let cause = match Errno::from_io_error(error) {
        Some(Errno::NOENT) => {
            ": the program is there, so the interpreter that its first line (`#!`) or its binary names is missing: install it, or correct the line"
        }
        Some(Errno::ACCESS) => {
            ": its file system is mounted with `noexec`, its interpreter is no program, or SELinux or AppArmor forbids it: use a program elsewhere, or the interpreter as the program"
        }
        Some(Errno::NOEXEC) => {
            ": it is no program for this machine, and its first line does not name an interpreter, such as `#!/bin/sh`"
        }
        Some(_) | None => "",
    };
    HookError::Passing(format!("`{}`: cannot start the command: {error}{cause}", path.display()))
}

/// A file in memory, which nothing has to write while the command reads it.
fn in_memory(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("runner-agent-hook", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// Waits for the end of a program, and collects its output. Once it has ended, its exit counts: what is left of its output is
/// no part of the time limit.
async fn ended(child: &mut Child, output: &mut Output, limit: TimeLimit) -> Option<io::Result<ExitStatus>> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (exited, has_exited) = oneshot::channel();
    let waited = async {
        let status = limit.bound(child.wait()).await;
        // The receiver is gone if the output has ended.
        let _ended = exited.send(status.is_some());
        status
    };
    let read = async {
        let late = async {
            if has_exited.await == Ok(true) {
                sleep(AFTER_EXIT).await;
            }
        };
        tokio::select! {
            biased;
            () = output.collect(stdout, stderr) => {}
            () = late => {}
        }
    };
    let (status, ()) = tokio::join!(waited, read);
    status
}

/// The processes of a command, which end with it unless it has ended by itself.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    /// Its leader was waited for: the number may be another group's.
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(errno) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(error = %errno, "cannot kill the processes of a hook");
        }
    }
}
