//! strace: records the calls below our directories, and injects a fault at one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use runner_agent::model::{RunnerKey, ServerUrl};
use runner_agent::secret::sha256_hex;
use test_support::PATIENCE;

use super::sandbox::FaultSandbox;

/// Every call that opens a file or changes the disk.
const CALLS: &str =
    "openat,openat2,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,ftruncate,unlink,unlinkat,mkdir,mkdirat";

/// How long a case may take until it creates its last file with the time in its name, in seconds.
const NAMES_AHEAD: i64 = 60;

/// At most one recorded call in this many may be absent from another recording.
const MAX_UNCOMMON_RATIO: usize = 10;

/// A recorded call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) syscall: String,
    /// Its path, with placeholders for the parts that differ between runs.
    path: String,
    /// The path by which strace finds it, with the same placeholders: that of an open directory, if its own path is
    /// relative to one.
    found_by: String,
    /// Its position among the calls of its thread with this name that strace finds so, from 1.
    nth: usize,
    /// Its position among all calls with this name, from 1.
    pub(crate) number: usize,
    pub(crate) is_reading: bool,
}

/// The fault at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Injection {
    Error(&'static str),
    Kill,
}

impl Call {
    /// Whether a fault at one of them hits the other one in its run.
    fn is_same(&self, other: &Self) -> bool {
        (&self.syscall, &self.path, self.nth) == (&other.syscall, &other.path, other.nth)
    }

    /// The errors that it can fail with.
    pub(crate) fn errors(&self) -> &'static [&'static str] {
        match (self.syscall.as_str(), self.is_reading) {
            ("openat" | "openat2", true) => &["EIO"],
            ("openat" | "openat2", false) => &["ENOSPC", "EROFS"],
            ("write" | "pwrite64", _) => &["EIO", "ENOSPC"],
            ("rename" | "renameat" | "renameat2", _) => &["EIO", "ENOSPC", "EROFS"],
            ("unlink" | "unlinkat", _) => &["EIO", "EROFS"],
            ("mkdir" | "mkdirat", _) => &["ENOSPC", "EROFS"],
            _ => &["EIO"],
        }
    }

    /// The first call with this name about a file in this directory.
    pub(crate) fn first(syscall: &str, directory: &str) -> Self {
        let (syscall, path) = (syscall.to_owned(), directory.to_owned());
        Self { syscall, found_by: path.clone(), path, nth: 1, number: 1, is_reading: false }
    }

    /// The arguments with which strace injects a fault at this call.
    pub(crate) fn strace_args(&self, sandbox: &FaultSandbox, injection: Injection) -> Vec<String> {
        let what = match injection {
            Injection::Error(error) => format!("error={error}"),
            Injection::Kill => "signal=KILL".to_owned(),
        };
        let mut args = vec!["-o".to_owned(), sandbox.path("injected").display().to_string()];
        args.push(format!("--inject={}:{what}:when={}", self.syscall, self.nth));
        args.push(format!("--trace={}", self.syscall));
        for path in paths(sandbox, &self.found_by) {
            args.extend(["-P".to_owned(), path]);
        }
        args
    }
}

/// The arguments with which strace records all calls.
pub(crate) fn recording(sandbox: &FaultSandbox) -> Vec<String> {
    let output = sandbox.path("recording").display().to_string();
    ["-o", &output, "--seccomp-bpf", "-y", "-s", "0", &format!("--trace={CALLS}")].map(str::to_owned).to_vec()
}

/// The recorded calls, starting with the last signal of this name.
pub(crate) fn recorded(sandbox: &FaultSandbox, signal: Option<&str>) -> Vec<Call> {
    let text = whole(sandbox);
    let (mut nths, mut numbers) = (BTreeMap::new(), BTreeMap::new());
    let mut calls = Vec::new();
    let marker = signal.map(|signal| format!("--- {signal} "));
    let mut has_begun = marker.is_none();
    for line in text.lines() {
        has_begun |= marker.as_ref().is_some_and(|marker| line.contains(marker));
        let Some((thread, syscall, Target { path, found_by }, is_reading)) = parsed(line) else { continue };
        let Some((path, found_by)) = template(sandbox, &path).zip(template(sandbox, &found_by)) else { continue };
        let nth: &mut usize = nths.entry((thread.to_owned(), syscall.to_owned(), found_by.clone())).or_default();
        *nth += 1;
        if has_begun {
            let number: &mut usize = numbers.entry(syscall.to_owned()).or_default();
            *number += 1;
            calls.push(Call { syscall: syscall.to_owned(), path, found_by, nth: *nth, number: *number, is_reading });
        }
    }
    calls
}

/// The calls that every recording has, as the first has them. The rest depends on how threads are scheduled, so a fault
/// there could not be injected reliably.
///
/// # Errors
/// If the recordings have different paths: a part of a path that differs between runs needs a placeholder, since no
/// fault would be injected there. Or if too few calls are common, as on a busy machine.
pub(crate) fn common(recordings: &[Vec<Call>]) -> Result<Vec<Call>, String> {
    let (first, others) = recordings.split_first().unwrap();
    for other in others {
        let (one, other) = (paths_of(first), paths_of(other));
        if one != other {
            return Err(format!("two recordings have different paths: {one:?} and {other:?}"));
        }
    }
    let is_common = |call: &&Call| others.iter().all(|other| other.iter().any(|there| there.is_same(call)));
    let common: Vec<Call> = first.iter().filter(is_common).cloned().collect();
    let most = recordings.iter().map(Vec::len).max().unwrap();
    if (most - common.len()) * MAX_UNCOMMON_RATIO > most {
        return Err(format!("only {} of {most} recorded calls are common", common.len()));
    }
    Ok(common)
}

fn paths_of(calls: &[Call]) -> BTreeSet<&str> {
    calls.iter().map(|call| call.path.as_str()).collect()
}

/// Whether strace injected the fault.
pub(crate) fn is_injected(sandbox: &FaultSandbox) -> bool {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let text = fs::read_to_string(sandbox.path("injected")).unwrap_or_default();
        if text.contains("INJECTED") || text.contains("killed by SIGKILL") {
            return true;
        }
        if text.contains("+++ exited") || Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The recording, complete once strace has written the end of the process.
fn whole(sandbox: &FaultSandbox) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(sandbox.path("recording")).unwrap_or_default();
        let threads = |end: &str| text.lines().filter(|line| line.contains(end)).count();
        if threads("+++ exited") > 0 && text.ends_with("+++\n") || Instant::now() > deadline {
            return text;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// What a call is about.
struct Target {
    path: String,
    found_by: String,
}

/// Parses thread, call, (first) path, and whether the call only opens for reading.
fn parsed(line: &str) -> Option<(&str, &str, Target, bool)> {
    let (thread, call) = line.split_once(' ')?;
    let (syscall, arguments) = call.trim_start().split_once('(')?;
    let descriptor = || Some(arguments.split_once('<')?.1.split_once('>')?.0.to_owned());
    let target = match syscall {
        "write" | "pwrite64" | "fsync" | "fdatasync" | "ftruncate" => {
            let path = descriptor()?;
            Target { found_by: path.clone(), path }
        }
        _ => {
            let path = arguments.split('"').nth(1)?.to_owned();
            if path.starts_with('/') {
                Target { found_by: path.clone(), path }
            } else {
                let found_by = descriptor()?;
                Target { path: format!("{found_by}/{path}"), found_by }
            }
        }
    };
    let is_reading = syscall.starts_with("openat") && arguments.contains("O_RDONLY");
    Some((thread, syscall, target, is_reading))
}

/// A path below our directories, with placeholders; `None` for any other.
fn template(sandbox: &FaultSandbox, path: &str) -> Option<String> {
    let below = path.strip_prefix(sandbox.root().to_str()?)?;
    if !below.starts_with("/config") && !below.starts_with("/state") {
        return None;
    }
    let below = below.replace(&state_name(sandbox), "{state}").replace(&access_token_copy(sandbox), "{access_copy}");
    // The server's address is a part of the other keys, so they come first.
    let below = below.replace(&registered_key(sandbox), "{registered}").replace(&name_key(sandbox), "{name}");
    let below = below.replace(&server(sandbox), "{server}");
    let dropped =
        below.split_once("/dropped/").and_then(|(directory, name)| Some((directory, name.split_once("Z-")?.1)));
    Some(dropped.map(|(directory, rest)| format!("{directory}/dropped/{{time}}-{rest}")).unwrap_or(below))
}

/// The possible paths in this sandbox for a path with placeholders.
fn paths(sandbox: &FaultSandbox, template: &str) -> Vec<String> {
    let path = format!("{}{template}", sandbox.root().display())
        .replace("{state}", &state_name(sandbox))
        .replace("{access_copy}", &access_token_copy(sandbox))
        .replace("{registered}", &registered_key(sandbox))
        .replace("{name}", &name_key(sandbox))
        .replace("{server}", &server(sandbox));
    if !path.contains("{time}") {
        return vec![path];
    }
    let now = Timestamp::now().as_second();
    let times = (now..now + NAMES_AHEAD).map(|second| Timestamp::from_second(second).unwrap().to_string());
    times.map(|time| path.replace("{time}", &time.replace([':', '-'], ""))).collect()
}

/// The name of the recovery copy of the access token's file, which its path decides.
fn access_token_copy(sandbox: &FaultSandbox) -> String {
    format!("access-token-{}.copy", &sha256_hex(sandbox.access_token().to_str().unwrap().as_bytes())[..16])
}

fn state_name(sandbox: &FaultSandbox) -> String {
    sha256_hex(sandbox.path("config/config.toml").to_str().unwrap().as_bytes())[..12].to_owned()
}

/// The key of a runner that one-shot `register` creates.
fn registered_key(sandbox: &FaultSandbox) -> String {
    let url: ServerUrl = sandbox.gitlab.url().parse().unwrap();
    format!("register-{}", &sha256_hex(format!("{url}\nbuild-1").as_bytes())[..12])
}

/// The key of the lock that registrations of this name share.
fn name_key(sandbox: &FaultSandbox) -> String {
    let url: ServerUrl = sandbox.gitlab.url().parse().unwrap();
    RunnerKey::registration(&url, "build-1").to_string()
}

/// The server's name in the keys of runners found in config.toml.
fn server(sandbox: &FaultSandbox) -> String {
    sandbox.gitlab.url().parse::<ServerUrl>().unwrap().file_name()
}
