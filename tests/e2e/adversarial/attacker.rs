//! What user 1500 does, in a process of his own.

use std::env;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::getppid;

/// The attacker's user and group.
pub(crate) const USER: u32 = 1500;

/// The first argument of this program when it is the attacker.
pub(crate) const PLAY: &str = "--play";

/// A running attacker; killed on drop.
pub(crate) struct Attacker(Child);

impl Attacker {
    /// Starts the attacker with one of the plays of [`play`].
    pub(crate) fn start(play: &str, paths: &[&Path]) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([PLAY, play]).args(paths).uid(USER).gid(USER);
        Self(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Plays until it is killed, or root's process has ended.
pub(crate) fn play(words: &[String]) {
    let parent = getppid();
    let is_watched = || getppid() == parent;
    let path = |at: usize| Path::new(&words[at]);
    match words[0].as_str() {
        // Two names trade places, again and again.
        "exchange" => {
            while is_watched() {
                if renameat_with(CWD, path(1), CWD, path(2), RenameFlags::EXCHANGE).is_err() {
                    // One of them is missing for a moment.
                    std::thread::yield_now();
                }
            }
        }
        // Two names trade places whenever a file is made or written in a directory.
        "exchange-on-notice" => {
            let notices = inotify::init(CreateFlags::CLOEXEC).unwrap();
            inotify::add_watch(&notices, path(3), WatchFlags::CREATE | WatchFlags::CLOSE_WRITE).unwrap();
            while is_watched() {
                let _notice = rustix::io::read(&notices, &mut [0; 4096]);
                let _exchanged = renameat_with(CWD, path(1), CWD, path(2), RenameFlags::EXCHANGE);
            }
        }
        // A file takes the name of another one that comes and goes, and leaves it again.
        "take-name" => {
            while is_watched() {
                let _removed = fs::remove_file(path(2));
                let _taken = fs::rename(path(1), path(2));
                let _given_back = fs::rename(path(2), path(1));
            }
        }
        // A file is locked for ever.
        "hold" => {
            let file = File::options().create(true).truncate(false).read(true).write(true).open(path(1)).unwrap();
            file.lock().unwrap();
            rest(is_watched);
        }
        // Many connections that send half a request, or nothing. The last word names a file that is made once they are open.
        "half-open" => {
            let connect = |number: usize| {
                let mut stream = TcpStream::connect(&words[1]).unwrap();
                if number.is_multiple_of(2) {
                    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
                }
                stream
            };
            let _open: Vec<TcpStream> = (0..words[2].parse().unwrap()).map(connect).collect();
            File::create(path(3)).unwrap();
            rest(is_watched);
        }
        // The daemon's socket is served by the attacker, as the daemon of the instance that the second word names.
        "serve" => serve(path(1), &words[2]),
        other => panic!("no play is called {other}"),
    }
}

fn rest(is_watched: impl Fn() -> bool) {
    while is_watched() {
        thread::sleep(Duration::from_millis(100));
    }
}

/// What the attacker would have root believe.
pub(crate) const FORGED: &str = "forged-by-the-attacker";

/// Answers every request on a socket with a status of the attacker's. Without an instance, the answer has no mark of one.
pub(crate) fn serve(socket: &Path, instance: &str) {
    let listener = UnixListener::bind(socket).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _request = stream.read(&mut [0; 4096]);
        let body = format!("{{\"schema\":1,\"version\":\"{FORGED}\",\"runners\":[]}}");
        let mark = if instance.is_empty() { String::new() } else { format!("runner-agent-config: {instance}\r\n") };
        let length = body.len();
        let _answered = write!(
            stream,
            "HTTP/1.1 200 OK\r\n{mark}Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
    }
}
