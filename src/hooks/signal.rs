//! Sends a signal to a process that reads config.toml again then.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::program::{Input, Program};
use super::{Hook, HookError};
use crate::files::{Access, Exposure, Place, is_trusted, refused, spawn_file_task};
use crate::model::named_enum;

/// Tells systemd to send a signal.
pub(super) const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// How much later than its pid file a process may have begun: the times of files and of processes are rounded.
const TOLERANCE: Duration = Duration::from_secs(2);

/// Ticks in a second of the times in `/proc/PID/stat`. The kernel shows them so on every machine.
const TICKS_PER_SECOND: u64 = 100;

const MAX_PID_FILE_BYTES: u64 = 64;

const NO_PERMISSION: &str = "this process may not send a signal to it: it belongs to another user, and the capability CAP_KILL is missing; see the drop-in for signals in hooks.md";

/// A signal to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalAction {
    /// To which process.
    pub target: SignalTarget,
    /// Which signal.
    pub signal: SignalName,
}

/// The process that gets a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignalTarget {
    /// That of a pid file.
    PidFile(PathBuf),
    /// The main process of a unit of systemd.
    Unit(String),
}

named_enum! {
    /// A signal that services act on.
    pub enum SignalName {
        /// Read the files again.
        Hup = "HUP",
        /// A signal of the program's own.
        Usr1 = "USR1",
        /// Another one.
        Usr2 = "USR2",
        /// End.
        Term = "TERM",
        /// As from a terminal.
        Int = "INT",
        /// End, and for gitlab-runner: after the jobs.
        Quit = "QUIT",
    }
}

impl SignalName {
    const fn signal(self) -> Signal {
        match self {
            Self::Hup => Signal::HUP,
            Self::Usr1 => Signal::USR1,
            Self::Usr2 => Signal::USR2,
            Self::Term => Signal::TERM,
            Self::Int => Signal::INT,
            Self::Quit => Signal::QUIT,
        }
    }
}

impl SignalAction {
    pub(super) async fn run(&self, hook: &Hook) -> Result<String, HookError> {
        match &self.target {
            SignalTarget::PidFile(path) => {
                let (file, signal) = (path.clone(), self.signal.signal());
                let sent = spawn_file_task(path, move || send(&file, signal)).await;
                let sent = sent.map_err(|error| HookError::Passing(error.to_string()))?;
                let pid = sent.map_err(|error| HookError::of_file(path, &error))?;
                Ok(format!("process {pid} has got the signal {}", self.signal))
            }
            SignalTarget::Unit(unit) => self.tell_systemd(unit, hook.timeout).await,
        }
    }

    async fn tell_systemd(&self, unit: &str, timeout: Duration) -> Result<String, HookError> {
        let signal = format!("--signal=SIG{}", self.signal);
        let arguments = ["kill", "--kill-whom=main", &signal, "--", unit].map(str::to_owned);
        let program = Program { path: Path::new(SYSTEMCTL), arguments: &arguments, variables: Vec::new() };
        program.run(Input::default(), timeout).await?;
        Ok(format!("the main process of {unit} has got the signal {}", self.signal))
    }
}

/// Sends a signal to the process of a pid file, and to no other one that has its number by now.
///
/// A trusted user's file may name any process: a service that root starts writes it before it becomes another user. Any
/// other user's file names a process of that user.
fn send(path: &Path, signal: Signal) -> io::Result<i32> {
    let mut opened = Place::find(path)?.open(Access::Read)?;
    let (owner, mode) = (opened.metadata.uid(), opened.metadata.mode() & 0o7777);
    if mode & 0o022 != 0 {
        return Err(refused(Exposure::Writable { mode }.to_string()));
    }
    let content = opened.read(MAX_PID_FILE_BYTES)?;
    let number = std::str::from_utf8(&content).ok().and_then(|text| text.trim().parse().ok());
    let number: i32 =
        number.filter(|number| *number > 1).ok_or_else(|| other("it does not hold the number of a process"))?;
    let pid = Pid::from_raw(number).ok_or_else(|| other("it does not hold the number of a process"))?;
    // From here on, the number may become another process's: the descriptor stays this one's.
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| about(number, errno))?;
    let found = ProcessFacts::read(number)?;
    if !is_trusted(owner) && found.user != owner {
        return Err(refused(format!(
            "it belongs to user {owner}, and process {number} to user {}: no signal is sent",
            found.user
        )));
    }
    let written_at = Duration::new(u64::try_from(opened.metadata.mtime()).unwrap_or_default(), 0);
    if found.began_at() > written_at + TOLERANCE {
        return Err(other(&format!(
            "process {number} has begun after the file was written, so it is another one: no signal is sent"
        )));
    }
    pidfd_send_signal(process, signal).map_err(|errno| about(number, errno))?;
    Ok(number)
}

fn other(message: &str) -> io::Error {
    io::Error::other(message.to_owned())
}

fn about(number: i32, errno: Errno) -> io::Error {
    match errno {
        Errno::SRCH => other(&format!("there is no process {number}")),
        Errno::PERM => refused(NO_PERMISSION.to_owned()),
        errno => io::Error::other(format!("process {number}: {errno}")),
    }
}

/// What the kernel says about a process.
struct ProcessFacts {
    /// Its real user.
    user: u32,
    /// When it began, in ticks after the boot.
    began_ticks: u64,
}

impl ProcessFacts {
    #[expect(clippy::disallowed_methods, reason = "files of the kernel about a process")]
    fn read(number: i32) -> io::Result<Self> {
        let hidden = |_| {
            other(&format!(
                "process {number} cannot be looked at: it has ended, or belongs to another user and `ProtectProc=` of the unit hides it; see the drop-in for signals in hooks.md"
            ))
        };
        let status = fs::read_to_string(format!("/proc/{number}/status")).map_err(hidden)?;
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).map_err(hidden)?;
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
        // The name of the program, in parentheses, may have anything in it.
        let began = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(22 - 3)?.parse().ok());
        user.zip(began)
            .map(|(user, began_ticks)| Self { user, began_ticks })
            .ok_or_else(|| other("the kernel describes the process in an unknown way"))
    }

    /// When it began, by this machine's clock, since 1970.
    fn began_at(&self) -> Duration {
        let since_boot = Duration::from_millis(self.began_ticks.saturating_mul(1000 / TICKS_PER_SECOND));
        let [now, up] = [ClockId::Realtime, ClockId::Boottime].map(|clock| duration(clock_gettime(clock)));
        now.saturating_sub(up.saturating_sub(since_boot))
    }
}

fn duration(time: Timespec) -> Duration {
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that notes a signal by its end.
    struct Victim(Child);

    impl Victim {
        fn new() -> Self {
            Self(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap())
        }

        fn is_alive(&mut self) -> bool {
            self.0.try_wait().unwrap().is_none()
        }
    }

    impl Drop for Victim {
        fn drop(&mut self) {
            let _ended = self.0.kill();
            let _status = self.0.wait();
        }
    }

    fn pid_file(content: &str, age: Duration) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        fs::write(&path, content).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - age).unwrap();
        (directory, path)
    }

    #[test]
    fn the_process_of_a_pid_file_gets_the_signal() {
        let mut victim = Victim::new();
        let (_directory, path) = pid_file(&format!("{}\n", victim.0.id()), Duration::ZERO);
        assert_eq!(send(&path, Signal::TERM).unwrap(), i32::try_from(victim.0.id()).unwrap());
        let status = victim.0.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    }

    #[test]
    fn a_process_that_has_got_the_number_later_gets_no_signal() {
        let mut victim = Victim::new();
        let (_directory, path) = pid_file(&victim.0.id().to_string(), Duration::from_secs(3600));
        let error = send(&path, Signal::TERM).unwrap_err().to_string();
        assert!(error.contains("has begun after the file was written"), "{error}");
        assert!(victim.is_alive());
    }

    #[test]
    fn a_pid_file_that_others_can_write_or_that_holds_no_number_sends_nothing() {
        let mut victim = Victim::new();
        let (_directory, path) = pid_file(&victim.0.id().to_string(), Duration::ZERO);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert!(send(&path, Signal::TERM).unwrap_err().to_string().contains("mode 0666"));
        for content in ["", "1", "0", "-5", "12 13", "x"] {
            let (_directory, path) = pid_file(content, Duration::ZERO);
            let error = send(&path, Signal::TERM).unwrap_err().to_string();
            assert!(error.contains("does not hold the number"), "{content:?}: {error}");
        }
        assert!(victim.is_alive());
    }

    #[test]
    fn a_pid_file_of_another_user_reaches_that_users_processes_alone() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let mut victim = Victim::new();
        let (_directory, path) = pid_file(&victim.0.id().to_string(), Duration::ZERO);
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        let error = send(&path, Signal::TERM).unwrap_err().to_string();
        assert!(error.contains("it belongs to user 12345") && error.contains("to user 0"), "{error}");
        assert!(victim.is_alive());
    }

    #[test]
    fn a_process_that_has_ended_is_named() {
        let mut victim = Victim::new();
        victim.0.kill().unwrap();
        victim.0.wait().unwrap();
        let (_directory, path) = pid_file(&victim.0.id().to_string(), Duration::ZERO);
        assert!(send(&path, Signal::HUP).unwrap_err().to_string().contains("there is no process"));
    }
}
