//! The service manager, which is systemd where there is one: what it is told of the daemon, and what it is
//! asked about the machine.
//!
//! Without a service manager everything here does nothing. `sd-notify` is used here and nowhere else.

use std::convert::Infallible;
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::model::is_unprintable;

/// How much longer the end may take, asked for again every half of it.
const EXTENSION: Duration = Duration::from_secs(10);

/// How often the watchdog is fed within the time after which it strikes.
const MEALS: u32 = 3;

/// The shortest time between two of them, so that a limit which no process could keep is not a busy loop.
const BETWEEN_MEALS: Duration = Duration::from_millis(50);

/// How long the answer to a question may take; it comes in milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// The targets that bring the machine back up, as they are named in the list of jobs.
const REBOOTS: [&str; 3] = ["reboot.target", "kexec.target", "soft-reboot.target"];

/// Tells the service manager that the daemon does its work.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Tells it that files are read again, until it is [`notify_ready`].
pub fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Tells it in one sentence how the daemon is doing.
pub fn notify_status(sentence: &str) {
    // A line break would begin a message of its own.
    notify(&[NotifyState::Status(&sentence.replace(is_unprintable, " "))]);
}

/// Feeds its watchdog for as long as the daemon is well; does nothing if none watches. Never ends.
pub async fn ping_watchdog(is_alive: impl Fn() -> bool) -> Infallible {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return std::future::pending().await;
    };
    loop {
        if is_alive() {
            notify(&[NotifyState::Watchdog]);
        }
        sleep((limit / MEALS).max(BETWEEN_MEALS)).await;
    }
}

/// Tells it that the daemon ends, and keeps asking for time until the end is there.
pub async fn notify_stopping_during<T>(end: impl Future<Output = T>) -> T {
    notify(&[NotifyState::Stopping]);
    let ask_for_time = async {
        // Never ends by itself.
        loop {
            let micros = u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX);
            notify(&[NotifyState::ExtendTimeoutUsec(micros)]);
            sleep(EXTENSION / 2).await;
        }
    };
    tokio::select! {
        biased;
        ended = end => ended,
        never = ask_for_time => never,
    }
}

/// Whether the machine is about to start anew, as opposed to being switched off, or to only this service being
/// stopped. No where nobody can tell.
pub async fn is_rebooting() -> bool {
    if !sd_notify::booted().unwrap_or(false) {
        return false;
    }
    let (answer, asked) = oneshot::channel();
    // A thread of its own, which an end of the process need not wait for.
    let asking = std::thread::Builder::new().name("systemctl".to_owned()).spawn(move || {
        // Nobody may be waiting for it any more.
        let _late = answer.send(jobs());
    });
    let jobs = match asking {
        Err(error) => Err(error),
        Ok(_detached) => match timeout(PATIENCE, asked).await {
            Ok(Ok(jobs)) => jobs,
            Ok(Err(_)) | Err(_) => Err(io::ErrorKind::TimedOut.into()),
        },
    };
    match jobs {
        Ok(jobs) => has_reboot(&jobs),
        Err(error) => {
            tracing::warn!(%error, "cannot find out whether the machine starts anew: stopping as on any other day");
            false
        }
    }
}

fn jobs() -> io::Result<String> {
    let mut command = Command::new("systemctl");
    command.args(["list-jobs", "--plain", "--no-legend", "--no-pager"]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("systemctl list-jobs: {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// RunnerChannels such as `123 reboot.target start waiting`.
fn has_reboot(jobs: &str) -> bool {
    jobs.lines().any(|job| {
        let mut words = job.split_whitespace().skip(1);
        words.next().is_some_and(|unit| REBOOTS.contains(&unit)) && words.next() == Some("start")
    })
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_start_of_a_reboot_is_one() {
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
