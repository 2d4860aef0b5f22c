//! Notifications to the service manager, systemd, and the query whether the machine is rebooting.
//!
//! Without a service manager every function does nothing. A thread of its own sends the notifications, so that a service
//! manager that takes none stops nothing. `sd-notify` is used here and nowhere else.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock};
use std::thread::Builder;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::files::is_there;
use crate::model::is_unprintable;

/// The unit of the daemon, as the package installs it.
const UNIT: &str = "runner-agent.service";

/// The extension of the stop timeout, requested again after half of it.
const EXTENSION: Duration = Duration::from_secs(10);

/// Pings per watchdog timeout.
const PINGS_PER_TIMEOUT: u32 = 3;

/// The shortest ping interval, to avoid a busy loop if the timeout is tiny.
const MIN_PING_INTERVAL: Duration = Duration::from_millis(50);

/// How long `systemctl` may take. It usually answers within milliseconds.
const SYSTEMCTL_TIMEOUT: Duration = Duration::from_secs(2);

/// From how many on no notification waits for the service manager that will be said again.
const MOST_WAITING: usize = 16;

/// How often, and with which pause, the end of the process looks whether its last notification was taken.
const LAST_LOOKS: u32 = 50;
const LAST_PAUSE: Duration = Duration::from_millis(10);

/// The targets that restart the machine.
const REBOOT_TARGETS: [&str; 3] = ["reboot.target", "kexec.target", "soft-reboot.target"];

/// Reports that the daemon is running.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports that the configuration is reloading, until [`notify_ready`] is called.
pub fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Sets the status line of `systemctl status`.
pub fn notify_status(text: &str) {
    // A line break would start another notification.
    notify(&[NotifyState::Status(&text.replace(is_unprintable, " "))]);
}

/// Sets the status line before the process ends. Waits for the service manager to take it, but not for long.
pub fn notify_last_status(text: &str) {
    notify_status(text);
    let is_waiting = || NOTIFICATIONS.iter().any(|it| it.waiting.load(Ordering::Relaxed) > 0);
    for _ in 0..LAST_LOOKS {
        if !is_waiting() {
            return;
        }
        std::thread::sleep(LAST_PAUSE);
    }
}

/// Whether a service manager takes notifications.
#[must_use]
pub fn is_service() -> bool {
    NOTIFICATIONS.is_some()
}

/// Pings the watchdog, if one is enabled, while the daemon is alive. Never returns.
pub async fn ping_watchdog(is_alive: impl Fn() -> bool) -> Infallible {
    let Some(watchdog) = sd_notify::watchdog_enabled().filter(|watchdog| !watchdog.is_zero()) else {
        return std::future::pending().await;
    };
    loop {
        if is_alive() {
            notify(&[NotifyState::Watchdog]);
        }
        sleep((watchdog / PINGS_PER_TIMEOUT).max(MIN_PING_INTERVAL)).await;
    }
}

/// Reports that the daemon is stopping, and extends the stop timeout until `shutdown` completes.
pub async fn notify_stopping_during<T>(shutdown: impl Future<Output = T>) -> T {
    notify(&[NotifyState::Stopping]);
    let extend = async {
        loop {
            let micros = u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX);
            notify(&[NotifyState::ExtendTimeoutUsec(micros)]);
            sleep(EXTENSION / 2).await;
        }
    };
    tokio::select! {
        biased;
        output = shutdown => output,
        never = extend => never,
    }
}

/// Whether the unit of the daemon is installed on this machine, which systemd has booted.
#[must_use]
pub fn is_unit_installed() -> bool {
    let directories = ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"].iter();
    let mut units = directories.map(|root| Path::new(root).join("systemd/system").join(UNIT));
    sd_notify::booted().unwrap_or(false) && units.any(|unit| is_there(&unit))
}

/// Whether the machine is rebooting, rather than powering off or only stopping this service. Returns false if that
/// cannot be determined.
pub async fn is_rebooting() -> bool {
    if !sd_notify::booted().unwrap_or(false) {
        return false;
    }
    let (sender, receiver) = oneshot::channel();
    // A separate thread does not delay the exit of the process.
    let spawned = std::thread::Builder::new().name("systemctl".to_owned()).spawn(move || {
        // The receiver is gone after the timeout.
        let _late = sender.send(list_jobs());
    });
    let jobs = match spawned {
        Err(error) => Err(error),
        Ok(_detached) => match timeout(SYSTEMCTL_TIMEOUT, receiver).await {
            Ok(Ok(jobs)) => jobs,
            Ok(Err(_)) | Err(_) => Err(io::ErrorKind::TimedOut.into()),
        },
    };
    match jobs {
        Ok(jobs) => has_reboot(&jobs),
        Err(error) => {
            tracing::warn!(%error, "cannot determine whether the machine is rebooting: assuming that it is not");
            false
        }
    }
}

fn list_jobs() -> io::Result<String> {
    let mut command = Command::new("systemctl");
    command.args(["list-jobs", "--plain", "--no-legend", "--no-pager"]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("systemctl list-jobs: {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether one of the jobs, such as `123 reboot.target start waiting`, reboots the machine.
fn has_reboot(jobs: &str) -> bool {
    jobs.lines().any(|job| {
        let mut columns = job.split_whitespace().skip(1);
        columns.next().is_some_and(|unit| REBOOT_TARGETS.contains(&unit)) && columns.next() == Some("start")
    })
}

/// Where notifications wait for the service manager; `None` without one.
static NOTIFICATIONS: LazyLock<Option<Notifications>> = LazyLock::new(|| {
    std::env::var_os("NOTIFY_SOCKET")?;
    Notifications::start(|text| {
        if let Err(error) = sd_notify::notify(&[NotifyState::Custom(text)]) {
            tracing::debug!(%error, "cannot notify the service manager");
        }
    })
});

/// Notifications on their way.
struct Notifications {
    sender: Sender<String>,
    waiting: Arc<AtomicUsize>,
}

impl Notifications {
    /// Starts a thread that sends them.
    fn start(send: impl Fn(&str) + Send + 'static) -> Option<Self> {
        let (sender, notifications) = channel::<String>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        let work = move || {
            for text in notifications {
                send(&text);
                left.fetch_sub(1, Ordering::Relaxed);
            }
        };
        match Builder::new().name("notify".to_owned()).spawn(work) {
            Ok(_detached) => Some(Self { sender, waiting }),
            Err(error) => {
                tracing::warn!(%error, "cannot start the thread that notifies the service manager");
                None
            }
        }
    }

    /// Lets a notification wait, unless too many do and it will be said again.
    fn add(&self, state: &[NotifyState<'_>]) {
        if state.iter().all(is_said_again) && self.waiting.load(Ordering::Relaxed) >= MOST_WAITING {
            return tracing::debug!("the service manager does not take notifications: one is dropped");
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let lines: Vec<_> = state.iter().map(ToString::to_string).collect();
        // The thread never ends.
        let _sent = self.sender.send(lines.join("\n"));
    }
}

fn is_said_again(state: &NotifyState<'_>) -> bool {
    matches!(state, NotifyState::Status(_) | NotifyState::Watchdog | NotifyState::ExtendTimeoutUsec(_))
}

fn notify(state: &[NotifyState<'_>]) {
    NOTIFICATIONS.iter().for_each(|notifications| notifications.add(state));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_that_takes_no_notifications_stops_nothing() {
        let (_never_taken, taken) = std::sync::mpsc::channel::<()>();
        let notifications = Notifications::start(move |_| taken.recv().unwrap_or_default()).unwrap();
        let waiting = || notifications.waiting.load(Ordering::Relaxed);
        (0..100).for_each(|_| notifications.add(&[NotifyState::Watchdog]));
        assert_eq!(waiting(), MOST_WAITING);
        // The end of a reload is said once.
        notifications.add(&[NotifyState::Ready]);
        assert_eq!(waiting(), MOST_WAITING + 1);
    }

    #[test]
    fn only_a_start_job_of_a_reboot_target_is_a_reboot() {
        for (jobs, expected) in [
            ("", false),
            ("12 runner-agent.service stop running", false),
            ("12 poweroff.target start waiting\n13 shutdown.target start waiting", false),
            ("13 runner-agent.service stop running\n12 reboot.target start waiting", true),
            ("12 kexec.target start waiting", true),
            ("12 reboot.target stop waiting", false),
            ("12 not-a-reboot.target start waiting", false),
        ] {
            assert_eq!(has_reboot(jobs), expected, "{jobs}");
        }
    }
}
