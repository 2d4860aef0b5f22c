//! A disk, or a network share, that does not answer.

use std::path::PathBuf;

use rustix::process::Signal;
use test_support::Process;

use crate::scene::Scene;

/// Delays the second removal in a directory by twenty seconds.
const HANGING: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin; at=$1; shift; exec strace -D -f -o /dev/null --trace=unlinkat --inject=unlinkat:delay_enter=20000000:when=2 -P \"$at\" \"$0\" \"$@\"";

/// The daemon is alive and answers, and says which file it waits for.
pub(crate) fn disk_that_hangs() -> Result<(), String> {
    let scene = Scene::new();
    // Makes the state directory.
    let verified = scene.run(&["verify"]);
    let directory = std::fs::read_dir(scene.path("state")).unwrap().next().unwrap().unwrap().path().join("runners");
    if verified.code != Some(0) || !directory.is_dir() {
        return Err(format!("no state directory: {}", verified.text()));
    }
    // The first one is at the start, which waits for the disk.
    let daemon = Process::start(scene.shell(HANGING, &[directory.to_str().unwrap(), "run"]));
    let probe: PathBuf = directory.join(".probe");
    scene.wait("the daemon to say what it waits for", |_| daemon.log().contains("takes long"));
    let ready = scene.run(&["health", "--ready"]);
    if ready.code == Some(0) || !ready.text().contains(&format!("the work on `{}`", probe.display())) {
        return Err(format!("it is ready, or does not say why: {}", ready.text()));
    }
    if scene.run(&["health"]).code != Some(0) {
        return Err("a slow disk ends the daemon".to_owned());
    }
    scene.wait("the daemon to go on", |_| daemon.log().contains("that took long has ended"));
    scene.wait("the daemon to be ready", |scene| scene.run(&["health", "--ready"]).code == Some(0));
    match daemon.stop(Signal::TERM).code {
        Some(0) => Ok(()),
        code => Err(format!("the daemon ended with {code:?}")),
    }
}
