//! The trials: how a clock is wrong, and what must still hold.

use std::path::Path;
use std::time::Duration;

use fake_gitlab::{Endpoint, Request};
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use test_support::Process;

use super::sandbox::{ClockSandbox, INTERVAL, LIFE, NOTICED, first_time};

/// The earliest rotation as a share of the token's lifetime: half of it less 4 %.
const LEAST_SHARE: f64 = 0.46;

/// The tolerance for the fraction of a second that the server's `Date` omits.
const UNKNOWN_TIME: Duration = Duration::from_secs(2);

/// The shortest time between verifications, as a share of their interval.
const MOST_OFTEN: f64 = 0.9;

/// How many additional verifications each start and each jump may cause.
const EXTRA: usize = 2;

/// How long the daemon may settle after a rotation. It does not notice a jump during a request, because the response
/// has the server's time.
const REST: Duration = Duration::from_secs(2);

/// One way for a clock to be wrong.
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    /// The offset of the wall clock from the server's when the daemon starts, in seconds.
    begins_at: i64,
    /// The later offsets, in seconds, one after the other.
    jumps: &'static [i64],
    /// Whether the server is unreachable during a jump.
    is_server_away: bool,
}

const HOUR: i64 = 3600;

pub(crate) const TRIALS: [Trial; 5] = [
    Trial { name: "an-hour-ahead", begins_at: HOUR, jumps: &[], is_server_away: false },
    Trial { name: "an-hour-behind", begins_at: -HOUR, jumps: &[], is_server_away: false },
    Trial { name: "jumps-a-day-ahead", begins_at: 0, jumps: &[24 * HOUR], is_server_away: false },
    Trial { name: "jumps-two-hours-back", begins_at: 0, jumps: &[-2 * HOUR], is_server_away: false },
    Trial { name: "jumps-unheard", begins_at: 0, jumps: &[24 * HOUR, -2 * HOUR], is_server_away: true },
];

impl Trial {
    /// Runs the trial.
    ///
    /// # Errors
    /// What went wrong.
    pub(crate) fn run(&self, library: &Path) -> Result<(), String> {
        let sandbox = ClockSandbox::new(library);
        self.run_in(&sandbox).map_err(|wrong| format!("{wrong}\n{}", sandbox.logs()))
    }

    fn run_in(&self, sandbox: &ClockSandbox) -> Result<(), String> {
        sandbox.set_clock(self.begins_at);
        let mut daemon = sandbox.start();
        wait_for_rotation(sandbox, &daemon)?;
        check_clock(sandbox, &daemon, self.begins_at)?;
        if self.jumps.is_empty() {
            sandbox.stop(daemon, Signal::QUIT)?;
            daemon = sandbox.start();
            wait_for_rotation(sandbox, &daemon)?;
        }
        for jump in self.jumps {
            self.jump(sandbox, &daemon, *jump)?;
            wait_for_rotation(sandbox, &daemon)?;
        }
        check_entry(sandbox)?;
        check_requests(sandbox)?;
        sandbox.stop(daemon, Signal::TERM)?;
        let remaining = sandbox.gitlab.runners().len();
        if remaining == 0 { Ok(()) } else { Err("the runner was not unregistered".to_owned()) }
    }

    fn jump(&self, sandbox: &ClockSandbox, daemon: &Process, seconds: i64) -> Result<(), String> {
        daemon.wait_for(REST, |_| false);
        if self.is_server_away {
            sandbox.gitlab.refuse_connections();
        }
        let count = |text: &str| sandbox.logs().matches(text).count();
        let (noticed, failed) = (count(NOTICED), count("failed, trying again"));
        sandbox.set_clock(seconds);
        sandbox.wait_for(daemon, "the daemon to notice the jump", |_, _| count(NOTICED) > noticed)?;
        if self.is_server_away {
            sandbox.wait_for(daemon, "the daemon to fail a request", |_, _| count("failed, trying again") > failed)?;
            sandbox.gitlab.accept_connections();
        }
        Ok(())
    }
}

fn wait_for_rotation(sandbox: &ClockSandbox, daemon: &Process) -> Result<(), String> {
    let before = sandbox.rotations();
    sandbox.wait_for(daemon, "a rotation", |sandbox, _| sandbox.rotations() > before)?;
    let is_written = |sandbox: &ClockSandbox, _: &Process| {
        let token = sandbox.entry().ok().and_then(|entry| entry.get("token")?.as_str().map(str::to_owned));
        sandbox.runner().is_ok_and(|runner| token == Some(runner.token))
    };
    sandbox.wait_for(daemon, "the new token in config.toml", is_written)
}

/// Checks that the process had the wrong clock; otherwise the trial proves nothing.
fn check_clock(sandbox: &ClockSandbox, daemon: &Process, seconds: i64) -> Result<(), String> {
    let began = first_time(&daemon.log()).ok_or("the log has no time")?;
    let expected = sandbox.gitlab.now() + SignedDuration::from_secs(seconds);
    if began.duration_until(expected).abs() < SignedDuration::from_mins(10) {
        Ok(())
    } else {
        Err(format!("the daemon's clock is not {seconds} s ahead: it began at {began}"))
    }
}

/// Checks that config.toml holds the server's times.
fn check_entry(sandbox: &ClockSandbox) -> Result<(), String> {
    let (entry, runner) = (sandbox.entry()?, sandbox.runner()?);
    let time = |key: &str| {
        let value = entry.get(key).and_then(toml::Value::as_datetime).ok_or_else(|| format!("no {key}"))?;
        value.to_string().parse::<Timestamp>().map_err(|error| error.to_string())
    };
    let (obtained_at, expires_at) = (time("token_obtained_at")?, time("token_expires_at")?);
    let on_server = runner.token_expires_at.ok_or("the token has no expiry")?;
    if expires_at.as_second() != on_server.as_second() {
        return Err(format!("config.toml has the expiry {expires_at}, the server {on_server}"));
    }
    let life = expires_at.duration_since(obtained_at);
    if (SignedDuration::try_from(LIFE).unwrap() - life).abs() > SignedDuration::from_secs(2) {
        return Err(format!("config.toml has a token of {life:?}, obtained at {obtained_at}"));
    }
    Ok(())
}

/// Whether this is the question before a registration, a verify request without a token, with GitLab's answer to it.
fn is_probe(request: &Request) -> bool {
    request.endpoint == Endpoint::Verify && request.parameter("token").is_none() && request.status == Some(400)
}

/// Checks that every request but the probe was accepted, no token was replaced early, and verifications were rare.
fn check_requests(sandbox: &ClockSandbox) -> Result<(), String> {
    let all = sandbox.gitlab.requests();
    let is_refused = |request: &&Request| request.status.is_some_and(|status| status >= 400) && !is_probe(request);
    if let Some(refused) = all.iter().find(is_refused) {
        return Err(format!("{} {} was answered with {:?}", refused.method, refused.path, refused.status));
    }
    let of = |endpoint| sandbox.gitlab.requests_to(endpoint);
    let births = of(Endpoint::Register).into_iter().chain(of(Endpoint::Reset)).map(|request| request.received_at);
    let births: Vec<Timestamp> = births.collect();
    let least = SignedDuration::try_from(LIFE.mul_f64(LEAST_SHARE) - UNKNOWN_TIME).unwrap();
    if let Some(pair) = births.windows(2).find(|pair| pair[0].duration_until(pair[1]) < least) {
        return Err(format!("a token of {} was replaced at {} already", pair[0], pair[1]));
    }
    if births.len() != 1 + sandbox.rotations() {
        return Err(format!("{} requests made {} tokens", births.len(), 1 + sandbox.rotations()));
    }
    let regular = (sandbox.elapsed().as_secs_f64() / INTERVAL.mul_f64(MOST_OFTEN).as_secs_f64()).ceil();
    let most = regular as usize + EXTRA * sandbox.surprises.get();
    let others = all.len() - births.len();
    if others <= most { Ok(()) } else { Err(format!("{others} checks within {:?}", sandbox.elapsed())) }
}
