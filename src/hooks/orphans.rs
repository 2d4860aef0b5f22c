//! Processes that commands leave behind in a container.
//!
//! The kernel makes the process with the number 1 the parent of every process whose own one has ended. If that is the agent,
//! it has to ask for their ends: an orphan that has ended stays in the table of processes until then.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::process::Child;

use crate::files::spawn_file_task;

/// Has a directory for each thread of this process.
const THREADS: &str = "/proc/self/task";

static CHILDREN: Mutex<Children> = Mutex::new(Children { starting: 0, own: BTreeSet::new() });

/// The children that others wait for.
struct Children {
    /// How many are being started: their numbers are unknown.
    starting: usize,
    own: BTreeSet<i32>,
}

/// While a child is being started.
struct Starting;

impl Starting {
    fn new() -> Self {
        children().starting += 1;
        Self
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        children().starting -= 1;
    }
}

fn children() -> MutexGuard<'static, Children> {
    // No panic under the lock can leave a partial update.
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child that is not taken for an orphan.
pub(super) fn start(spawn: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
    let _starting = Starting::new();
    let child = spawn()?;
    children().own.extend(child.id().and_then(|id| i32::try_from(id).ok()));
    Ok(child)
}

/// If this is the process with the number 1, asks for the end of each orphan that has ended.
pub(super) async fn reap() {
    if std::process::id() == 1 {
        let _reaped = spawn_file_task(Path::new(THREADS), reap_now).await;
    }
}

fn reap_now() {
    let mut children = children();
    if children.starting > 0 {
        return;
    }
    let Ok(present) = present() else { return };
    // The number of one that was waited for may become an orphan's.
    children.own.retain(|pid| present.contains(pid));
    for pid in present.difference(&children.own).filter_map(|pid| Pid::from_raw(*pid)) {
        if let Err(error) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            tracing::debug!(%error, "cannot ask for the end of an orphan");
        }
    }
}

/// The children of this process, which the kernel lists by thread.
#[expect(clippy::disallowed_methods, reason = "files of the kernel about this process")]
fn present() -> io::Result<BTreeSet<i32>> {
    let mut present = BTreeSet::new();
    for thread in std::fs::read_dir(THREADS)? {
        // A thread may have ended.
        let listed = std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        present.extend(listed.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Ok(present)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::hooks::{Action, CommandAction, Delivery, Hook, HookError, TokenInput};
    use crate::model::{HookEvent, HookKind};

    const NAME: &str = "hooks::orphans::tests::the_first_process_of_a_container_keeps_no_orphan_that_has_ended";

    #[test]
    fn the_first_process_of_a_container_keeps_no_orphan_that_has_ended() {
        let is_possible = || unshared("true").status().is_ok_and(|status| status.success());
        if std::process::id() == 1 {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(run_as_first_process());
        } else if rustix::process::geteuid().is_root() && is_possible() {
            let output = unshared(std::env::current_exe().unwrap()).args(["--exact", NAME]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
        }
    }

    fn unshared(program: impl Into<PathBuf>) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(program.into());
        command
    }

    async fn run_as_first_process() {
        assert_eq!(run("(exit 0) & exit 0").await, Ok("the command has succeeded".to_owned()));
        while present().unwrap().iter().any(|pid| !has_ended(*pid)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        run("exit 0").await.unwrap();
        assert_eq!(present().unwrap(), BTreeSet::new());
        let script = "(exit 0) & exit 3";
        for _ in 0..20 {
            let results = tokio::join!(run(script), run(script), run(script));
            let failed = Err(HookError::Passing("the command has failed (exit status: 3)".to_owned()));
            assert_eq!(results, (failed.clone(), failed.clone(), failed), "the agent waits for its own");
        }
    }

    async fn run(script: &str) -> Result<String, HookError> {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        let action = Action::Command(CommandAction { program: "/bin/sh".into(), arguments, token: TokenInput::None });
        let (on, timeout) = (HookKind::ALL.to_vec(), Duration::from_secs(60));
        let hook = Hook { name: "a".to_owned(), on, runners: Vec::new(), action, timeout, retries: 0 };
        let event = HookEvent::sample();
        hook.run(Delivery { event: &event, token: None, token_path: None, is_own: true }).await
    }

    fn has_ended(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    }
}
