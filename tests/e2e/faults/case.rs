//! The cases: which fault is injected into which operation, and how a case runs.

use std::sync::Mutex;
use std::time::Instant;
use std::{env, thread};

use fake_gitlab::Fault;
use rustix::process::Signal;
use test_support::{Output, PATIENCE};

use super::access_token;
use super::hooks;
use super::oracle::check;
use super::sandbox::FaultSandbox;
use super::strace::{self, Call, Injection};
use super::work::{Work, is_settled};

/// How many times the calls of an operation are recorded. Only a call that every recording has becomes a case.
const RECORDINGS: usize = 3;

/// How many times that is repeated if a busy machine makes the recordings too different.
const RECORDING_ROUNDS: usize = 6;

/// How many attempts a fault gets to be injected.
const ATTEMPTS: u32 = 4;

/// What a daemon logs that does not register a runner again by itself.
const REGISTRATION_LOST: &str = "then reload the agent: it registers then";

/// The prefix of the error if a fault was not injected.
pub(crate) const NOT_INJECTED: &str = "the fault was not injected";

/// One case of the matrix.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    work: Work,
    cut: Option<Cut>,
    fault: Trouble,
}

/// When the connection is cut, relative to the server's action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Before,
    After,
}

/// What happens to the disk or the process.
#[derive(Clone, Debug)]
enum Trouble {
    None,
    Injection(Call, Injection),
    Full { directory: &'static str, takes_names: bool, is_during: bool },
}

/// All cases of the operations that one of the wanted names can select.
pub(crate) fn all(wanted: &[String]) -> Vec<Case> {
    let variants: Vec<(Work, Option<Cut>)> = Work::ALL
        .into_iter()
        .flat_map(|work| {
            let cuts = [Some(Cut::Before), Some(Cut::After)].into_iter().filter(move |_| work.endpoint().is_some());
            std::iter::once(None).chain(cuts).map(move |cut| (work, cut))
        })
        .filter(|(work, cut)| {
            let name = prefix(*work, *cut);
            wanted.is_empty() || wanted.iter().any(|wanted| wanted.starts_with(&name) || name.starts_with(wanted))
        })
        .collect();
    let found: Mutex<Vec<(usize, Vec<Case>)>> = Mutex::default();
    thread::scope(|scope| {
        for (position, (work, cut)) in variants.iter().enumerate() {
            let found = &found;
            scope.spawn(move || {
                let mut calls = strace::common(&record_often(*work, *cut));
                for _ in 1..RECORDING_ROUNDS {
                    calls = calls.or_else(|_| strace::common(&record_often(*work, *cut)));
                }
                let calls = calls.unwrap();
                found.lock().unwrap().push((position, cases(*work, *cut, &calls)));
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|(position, _)| *position);
    found.into_iter().flat_map(|(_, cases)| cases).collect()
}

fn prefix(work: Work, cut: Option<Cut>) -> String {
    let cut = match cut {
        None => "",
        Some(Cut::Before) => "+cut-before",
        Some(Cut::After) => "+cut-after",
    };
    format!("{}{cut}/", work.name())
}

fn record_often(work: Work, cut: Option<Cut>) -> Vec<Vec<Call>> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..RECORDINGS).map(|_| scope.spawn(|| record(work, cut).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn record(work: Work, cut: Option<Cut>) -> Result<Vec<Call>, String> {
    let sandbox = FaultSandbox::new(work, None);
    work.prepare(&sandbox)?;
    order(&sandbox, work, cut);
    work.act(&sandbox, &strace::recording(&sandbox))?;
    Ok(strace::recorded(&sandbox, work.begins_with()))
}

fn order(sandbox: &FaultSandbox, work: Work, cut: Option<Cut>) {
    let Some(endpoint) = work.endpoint() else { return };
    match cut {
        None => {}
        Some(Cut::Before) => drop(sandbox.gitlab.order(endpoint, Fault::cut())),
        Some(Cut::After) => drop(sandbox.gitlab.order(endpoint, Fault::cut().after_acting())),
    }
}

fn cases(work: Work, cut: Option<Cut>, calls: &[Call]) -> Vec<Case> {
    let case = |fault| Case { work, cut, fault };
    let mut cases = Vec::new();
    if cut.is_some() {
        cases.push(case(Trouble::None));
    } else {
        for call in calls {
            let errors = call.errors().iter().map(|error| Injection::Error(error));
            cases.extend(errors.map(|injection| case(Trouble::Injection(call.clone(), injection))));
        }
        for (directory, takes_names) in [("config", false), ("config", true), ("state", false), ("state", true)] {
            for is_during in [false, true].into_iter().take(1 + usize::from(work.endpoint().is_some())) {
                cases.push(case(Trouble::Full { directory, takes_names, is_during }));
            }
        }
    }
    // Opening a file for reading changes nothing, so a kill there equals a kill at the next change.
    let changes = calls.iter().filter(|call| !call.is_reading);
    cases.extend(changes.map(|call| case(Trouble::Injection(call.clone(), Injection::Kill))));
    cases
}

impl Case {
    pub(crate) fn name(&self) -> String {
        let prefix = prefix(self.work, self.cut);
        match &self.fault {
            Trouble::None => format!("{prefix}alone"),
            Trouble::Injection(call, Injection::Kill) => format!("{prefix}{}/{}/kill", call.syscall, call.number),
            Trouble::Injection(call, Injection::Error(error)) => {
                format!("{prefix}{}/{}/{error}", call.syscall, call.number)
            }
            Trouble::Full { directory, takes_names, is_during } => {
                let what = if *takes_names { "inodes" } else { "space" };
                format!("{prefix}full/{directory}/{what}/{}", if *is_during { "during" } else { "before" })
            }
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match (&self.fault, self.cut) {
            (Trouble::None, _) => "cut",
            (Trouble::Injection(_, Injection::Kill), None) => "kill",
            (Trouble::Injection(_, Injection::Kill), Some(_)) => "cut and kill",
            (Trouble::Injection(_, Injection::Error(_)), _) => "error",
            (Trouble::Full { .. }, _) => "full disk",
        }
    }

    /// Runs the case.
    ///
    /// Every recording had the call, but threads may share the calls differently in a run, so a fault that was not
    /// injected gets further attempts.
    ///
    /// # Errors
    /// What was lost, or that the fault was not injected.
    pub(crate) fn run(&self) -> Result<(), String> {
        for _ in 1..ATTEMPTS {
            match self.run_once() {
                Err(lost) if lost.starts_with(NOT_INJECTED) => {}
                result => return result,
            }
        }
        self.run_once()
    }

    fn run_once(&self) -> Result<(), String> {
        let mounted = match self.fault {
            Trouble::Full { directory, .. } => Some(directory),
            Trouble::None | Trouble::Injection(..) => None,
        };
        let mut sandbox = FaultSandbox::new(self.work, mounted);
        let result = self.run_in(&sandbox);
        if result.is_err() && env::var_os("RUNNER_AGENT_E2E_KEEP").is_some() {
            println!("{} is kept in {}:\n{}", self.name(), sandbox.root().display(), sandbox.logs());
            sandbox.keep();
        }
        result
    }

    fn run_in(&self, sandbox: &FaultSandbox) -> Result<(), String> {
        self.work.prepare(sandbox)?;
        order(sandbox, self.work, self.cut);
        let status = match &self.fault {
            Trouble::None => self.work.act(sandbox, &[])?,
            Trouble::Injection(call, injection) => {
                let status = self.work.act(sandbox, &call.strace_args(sandbox, *injection))?;
                if !strace::is_injected(sandbox) {
                    return Err(format!("{NOT_INJECTED}: {call:?}"));
                }
                status
            }
            Trouble::Full { takes_names, is_during: false, .. } => {
                sandbox.fill(*takes_names);
                self.work.act(sandbox, &[])?
            }
            Trouble::Full { takes_names, is_during: true, .. } => self.fill_during(sandbox, *takes_names)?,
        };
        sandbox.make_room();
        sandbox.gitlab.clear_faults();
        if self.work.has_succeeded(&status)
            && let Some(goal) = self.work.promise()
        {
            check(sandbox, goal).map_err(|lost| format!("it reported success, but {lost}"))?;
        }
        if self.work == Work::AccessToken {
            return access_token::recover(sandbox);
        }
        if self.work == Work::Hooks {
            return hooks::recover(sandbox);
        }
        self.recover(sandbox)?;
        self.work.repeat(sandbox).map_err(|lost| format!("after a repetition: {lost}"))
    }

    /// Fills the disk while the server holds the answer.
    fn fill_during(&self, sandbox: &FaultSandbox, takes_names: bool) -> Result<Output, String> {
        let endpoint = self.work.endpoint().unwrap();
        let held = sandbox.gitlab.order(endpoint, Fault::hold().after_acting());
        thread::scope(|scope| {
            scope.spawn(|| {
                let _came = sandbox.gitlab.wait_for_requests(endpoint, 1, PATIENCE);
                sandbox.fill(takes_names);
                held.release();
            });
            self.work.act(sandbox, &[])
        })
    }

    /// Starts the daemon without the fault and waits until it settles.
    fn recover(&self, sandbox: &FaultSandbox) -> Result<(), String> {
        let goal = self.work.goal();
        let daemon = sandbox.start(&["run"], &[]);
        let began = Instant::now();
        // A registration whose answer was lost is repeated only for a person who has looked for the orphan.
        let is_person_needed = daemon.wait_for(PATIENCE, |daemon| {
            is_settled(sandbox, daemon, goal) || (self.work.is_enrolling() && daemon.log().contains(REGISTRATION_LOST))
        }) && !is_settled(sandbox, &daemon, goal);
        if is_person_needed {
            daemon.signal(Signal::HUP);
        }
        let is_settled = daemon.wait_for(PATIENCE, |daemon| is_settled(sandbox, daemon, goal));
        if !is_settled {
            let lost = check(sandbox, goal).err().unwrap_or_else(|| "the daemon does not serve".to_owned());
            return Err(format!("{lost}, {:?} after the start", began.elapsed()));
        }
        daemon.signal(Signal::QUIT);
        if !daemon.try_end()?.is_success() {
            return Err("the daemon exits with an error".to_owned());
        }
        check(sandbox, goal).map_err(|lost| format!("after it had settled: {lost}"))
    }
}
