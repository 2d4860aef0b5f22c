//! The life of a runner in a minute: `cargo run --example tour`.
//!
//! Starts a test GitLab on loopback whose tokens live twenty seconds, runs the real daemon against it in a
//! temporary directory, and prints each step. It fails if a step does not happen, and cleans up.

#![allow(clippy::print_stdout, reason = "the terminal is the user interface")]
#![allow(clippy::disallowed_methods, reason = "the tour watches real processes in real time")]

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use fake_gitlab::{Endpoint, Gitlab, Request, Runner};
use rustix::process::{Pid, Signal, kill_process};
use test_support::Sandbox;

const TOKEN_LIFE: Duration = Duration::from_secs(20);

/// The timeout of each step: a token's lifetime plus a margin for a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

const CONFIG: &str = "concurrent = 1 # this comment stays\n";

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Shows the life of a runner in a minute: registration, rotations, a crash and unregistration.
///
/// Builds the daemon, and starts it with a test GitLab on loopback, in a temporary directory. Needs no root and no network,
/// and leaves nothing behind. Fails if a step does not happen.
#[derive(Parser)]
#[command(name = "tour")]
struct Arguments {}

fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    match tour() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nThe tour has FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tour() -> Outcome<()> {
    let binary = build()?;
    let began = Instant::now();
    let tour = Tour::prepare(binary);

    say("The daemon starts with one [[enroll]] in its agent.toml.");
    let daemon = tour.start()?;
    let runner = tour.await_registration()?;
    say(&format!("It has registered runner {} and written its entry:", runner.id));
    tour.show_config()?;

    // The first one had no token: it asked whether a GitLab answers.
    tour.await_requests(Endpoint::Verify, 2)?;
    say("It has verified the token, with this machine's system_id.");

    let first = tour.await_rotation(&runner)?;
    say("It has rotated the token before it expired.");
    let second = tour.await_rotation(&first)?;
    say("And once more. The entry holds the third token now:");
    tour.show_config()?;

    say("The daemon is killed with -9 and started again.");
    drop(daemon);
    tour.0.gitlab.clear_requests();
    let daemon = tour.start()?;
    tour.await_requests(Endpoint::Verify, 1)?;
    tour.check_that_nothing_was_made_twice(second.id)?;
    say("It took its runner up again: no second registration, the same id.");

    say("SIGTERM: the daemon unregisters its runner and ends.");
    daemon.terminate()?;
    tour.check_that_nothing_is_left()?;
    say("The runner is gone from GitLab, its entry from config.toml, and the comment is still there.");

    println!(
        "\nDone in {} s: 1 registration, {} rotations in time, 1 crash survived, 1 unregistration.",
        began.elapsed().as_secs(),
        second.rotations
    );
    Ok(())
}

/// Builds the daemon, which cargo does not build for an example.
fn build() -> Outcome<PathBuf> {
    let example = std::env::current_exe()?;
    let directory = example.parent().and_then(Path::parent).ok_or("the tour is run by cargo")?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--locked", "--quiet", "--bin", "runner-agent"]);
        if directory.ends_with("release") {
            build.arg("--release");
        }
        if let Some(target) = directory.parent() {
            build.arg("--target-dir").arg(target);
        }
        if !build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?.success() {
            return Err("the daemon does not build".into());
        }
    }
    Ok(directory.join("runner-agent"))
}

fn say(line: &str) {
    println!("\n=> {line}");
}

/// A GitLab and the files of the daemon.
struct Tour(Sandbox);

impl Tour {
    fn prepare(binary: PathBuf) -> Self {
        let gitlab = Gitlab::builder().token_life(TOKEN_LIFE).on_request(show_request);
        let sandbox = Sandbox::new(binary, gitlab);
        let gitlab = &sandbox.gitlab;
        println!("GitLab {} at {}, with tokens that live {} s", gitlab.version(), gitlab.url(), TOKEN_LIFE.as_secs());
        sandbox.write_config(CONFIG);
        sandbox.write("token", &gitlab.instance_registration_token());
        let enrollment = sandbox.enrollment("tour", "registration_token = { file = \"token\" }");
        sandbox.write("agent.toml", &format!("[verify]\ninterval = \"6s\"\n\n{enrollment}"));
        Self(sandbox)
    }

    fn start(&self) -> Outcome<Daemon> {
        let mut command = self.0.command(&["run"]);
        let started = command.stderr(Stdio::piped()).spawn();
        let mut child = started.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let log = child.stderr.take().ok_or("the daemon has no stderr")?;
        thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                println!("   agent  | {line}");
            }
        });
        Ok(Daemon(child))
    }

    fn await_registration(&self) -> Outcome<Runner> {
        self.wait("the registration", |tour| {
            let runner = tour.0.gitlab.runners().into_iter().next()?;
            tour.config_holds(&runner.token).then_some(runner)
        })
    }

    fn await_requests(&self, endpoint: Endpoint, count: usize) -> Outcome<()> {
        self.wait("a verification", |tour| (tour.0.gitlab.requests_to(endpoint).len() >= count).then_some(()))
    }

    /// Waits for the next token, which must come while the last one is valid.
    fn await_rotation(&self, last: &Runner) -> Outcome<Runner> {
        let runner = self.wait("a rotation", |tour| {
            let runner = tour.0.gitlab.runner(last.id)?;
            (runner.token != last.token && tour.config_holds(&runner.token)).then_some(runner)
        })?;
        match (last.token_expires_at, runner.token_expires_at) {
            (Some(expired_at), Some(expires_at)) if expires_at < expired_at + TOKEN_LIFE => Ok(runner),
            _ => Err("the token was rotated only after it had expired".into()),
        }
    }

    fn check_that_nothing_was_made_twice(&self, id: u64) -> Outcome<()> {
        let ids: Vec<_> = self.0.gitlab.runners().iter().map(|runner| runner.id).collect();
        if ids != [id] || !self.0.gitlab.requests_to(Endpoint::Register).is_empty() {
            return Err(format!("the restart has registered again: runners {ids:?}").into());
        }
        Ok(())
    }

    fn check_that_nothing_is_left(&self) -> Outcome<()> {
        if !self.0.gitlab.runners().is_empty() {
            return Err("the runner is still registered".into());
        }
        let config = self.0.config();
        if config != CONFIG {
            return Err(format!("config.toml is not what it was at the start:\n{config}").into());
        }
        Ok(())
    }

    fn config_holds(&self, token: &str) -> bool {
        self.0.config().contains(token)
    }

    fn show_config(&self) -> Outcome<()> {
        for line in self.0.config().lines() {
            println!("   config | {}", shortened(line));
        }
        Ok(())
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> Outcome<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            if Instant::now() > deadline {
                return Err(format!("{what} did not come within {} s", PATIENCE.as_secs()).into());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A line of config.toml without most of the token: even test tokens are not printed in full.
fn shortened(line: &str) -> String {
    match line.split_once("token = \"") {
        Some((before, token)) => format!("{before}token = \"{}…\"", &token[..token.len().min(12)]),
        None => line.to_owned(),
    }
}

/// The daemon as a child process; killed with -9 when it is dropped.
struct Daemon(Child);

impl Daemon {
    fn terminate(mut self) -> Outcome<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the daemon ended with {status}").into()) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // An error means that it has already ended.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn show_request(request: &Request) {
    let status = request.status.map_or_else(|| "cut".to_owned(), |status| status.to_string());
    println!("   gitlab | {} {} {status}", request.method, request.bare_path());
}
