//! Sends a signal to a process that reads config.toml again then.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::HookError;
use super::file_work::file_work;
use super::limit::TimeLimit;
use super::program::{Input, Program};
use crate::files::{Access, Exposure, FileUse, Place, explain, is_trusted, refused};
use crate::model::named_enum;

/// Tells systemd to send a signal.
pub(super) const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// How much later than its pid file a process may have begun: the times of files and of processes are rounded.
const TOLERANCE: Duration = Duration::from_secs(2);

/// Ticks in a second of the times in `/proc/PID/stat`. The kernel shows them so on every machine.
const TICKS_PER_SECOND: u64 = 100;

/// The flag of a thread of the kernel. Source: `linux/sched.h`.
const PF_KTHREAD: u64 = 0x0020_0000;

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
    pub(super) async fn run(&self, limit: TimeLimit) -> Result<String, HookError> {
        match &self.target {
            SignalTarget::PidFile(path) => {
                let (file, signal) = (path.clone(), self.signal.signal());
                let sent = file_work(limit, path, move || {
                    send(&file, signal).map_err(|error| explain(&file, FileUse::Read, error))
                })
                .await?;
                let pid = sent.map_err(|error| HookError::of_file(path, &error))?;
                Ok(format!("process {pid} has got the signal {}", self.signal))
            }
            SignalTarget::Unit(unit) => self.tell_systemd(unit, limit).await,
        }
    }

    async fn tell_systemd(&self, unit: &str, limit: TimeLimit) -> Result<String, HookError> {
        let signal = format!("--signal=SIG{}", self.signal);
        let arguments = ["kill", "--kill-whom=main", &signal, "--", unit].map(str::to_owned);
        let program = Program { path: Path::new(SYSTEMCTL), arguments: &arguments, variables: Vec::new() };
        program.run(Input::default(), limit).await?;
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
    if found.is_of_kernel {
        return Err(refused(format!(
            "process {number} is a thread of the kernel, so it is another one: no signal is sent"
        )));
    }
    if found.is_in_other_namespace {
        return Err(refused(format!(
            "process {number} is in a container of its own (another pid namespace), and the number may be one of that container: no signal is sent; use a `command` that signals the container"
        )));
    }
    let written_at = Duration::new(u64::try_from(opened.metadata.mtime()).unwrap_or_default(), 0);
    if found.began_at() > written_at + TOLERANCE {
        return Err(other(&format!(
            "process {number} has begun after the file was written: it is another one, or the clock was set since: no signal is sent; restart the program, so that it writes the file anew, or use `unit`"
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
    /// Whether it is a thread of the kernel.
    is_of_kernel: bool,
    /// Whether it is in a pid namespace below this process's: it has another number there.
    is_in_other_namespace: bool,
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
        Self::parse(&status, &stat).ok_or_else(|| other("the kernel describes the process in an unknown way"))
    }

    /// Parses the files `status` and `stat` of `/proc/PID`.
    fn parse(status: &str, stat: &str) -> Option<Self> {
        let values = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::split_whitespace);
        // The name of the program, in parentheses, may have anything in it.
        let (_, fields) = stat.rsplit_once(") ")?;
        // The first one after the name is the third of all.
        let field = |number: usize| fields.split(' ').nth(number - 3)?.parse::<u64>().ok();
        Some(Self {
            user: values("Uid:")?.next()?.parse().ok()?,
            began_ticks: field(22)?,
            is_of_kernel: field(9)? & PF_KTHREAD != 0,
            // Its number in this process's namespace, and in each one below. Absent before Linux 4.1.
            is_in_other_namespace: values("NSpid:").is_some_and(|numbers| numbers.count() > 1),
        })
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
    use crate::hooks::file_work::hang;

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
    fn threads_of_the_kernel_and_processes_of_containers_are_recognized() {
        let facts = |numbers: &str, flags: u64| {
            let stat = format!("7 (a) b) S 2 0 0 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 12 0 0");
            let facts = ProcessFacts::parse(&format!("Name:\ta\nUid:\t5\t6\t6\t6\n{numbers}"), &stat).unwrap();
            assert_eq!((facts.user, facts.began_ticks), (5, 12));
            (facts.is_of_kernel, facts.is_in_other_namespace)
        };
        assert_eq!(facts("NSpid:\t7\n", 0x0040_4040), (false, false));
        assert_eq!(facts("NSpid:\t7\t1\n", 0x0020_8040), (true, true));
        assert_eq!(facts("", 0), (false, false));
    }

    #[test]
    fn a_process_of_another_pid_namespace_gets_no_signal() {
        let unshared = Command::new("unshare")
            .args(["-pf", "--kill-child", "sleep", "1000"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut unshared) = unshared.map(Victim) else { return };
        let id = unshared.0.id();
        let child = || fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        while unshared.is_alive() && child().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Only root may make a namespace.
        if unshared.is_alive() {
            let (_directory, path) = pid_file(&child(), Duration::ZERO);
            let error = send(&path, Signal::HUP).unwrap_err().to_string();
            assert!(error.contains("is in a container of its own (another pid namespace)"), "{error}");
            assert!(unshared.is_alive());
        }
    }

    #[tokio::test]
    async fn a_pid_file_that_hangs_sends_nothing_within_the_time_limit() {
        let path = PathBuf::from("/frozen/pid");
        let _end = hang(&path).await;
        let action = SignalAction { target: SignalTarget::PidFile(path), signal: SignalName::Hup };
        let error = action.run(TimeLimit::begin(Duration::from_secs(60))).await.unwrap_err().to_string();
        assert!(error.contains("its disk or network share does not answer"), "{error}");
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
