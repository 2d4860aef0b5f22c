//! Commands at a terminal: questions, a hidden secret, Ctrl-C, and a status that is drawn anew.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use test_support::{Process, Sandbox};

use super::sandbox;

/// The byte that Ctrl-C sends.
const CTRL_C: &str = "\u{3}";

/// A process at a terminal of its own, and the person there.
struct Person {
    process: Process,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl Person {
    /// Starts the binary with these arguments in a session with a new terminal. Its leader ends a second later: with it goes
    /// what the terminal has not passed on.
    fn at(sandbox: &Sandbox, args: &[&str]) -> Self {
        let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&own).unwrap();
        unlockpt(&own).unwrap();
        let name = ptsname(&own, Vec::new()).unwrap().into_string().unwrap();
        let script = r#"exec setsid --ctty sh -c 'trap : INT; "$0" "$@"; code=$?; sleep 1; exit $code' "$0" "$@" <"$TERMINAL" >"$TERMINAL" 2>&1"#;
        let mut command = sandbox.shell(script, args);
        command.env("TERMINAL", name).env("PATH", "/usr/bin:/bin");
        let keyboard = File::from(own);
        let (mut reader, screen) = (keyboard.try_clone().unwrap(), Arc::new(Mutex::new(String::new())));
        let process = Process::start(command);
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal that its last process has left cannot be read.
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Self { process, keyboard, screen }
    }

    fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    #[track_caller]
    fn reads(&self, text: &str) {
        let is_shown = self.process.wait_for(test_support::PATIENCE, |_| self.screen().contains(text));
        assert!(is_shown, "{text:?} in {:?}", self.screen());
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Reads a question and types the answer.
    #[track_caller]
    fn answers(&mut self, question: &str, answer: &str) {
        self.reads(question);
        self.types(&format!("{answer}\n"));
    }

    fn is_echo_on(&self) -> bool {
        tcgetattr(&self.keyboard).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    #[track_caller]
    fn waits_until_input_is_hidden(&self) {
        assert!(self.process.wait_for(test_support::PATIENCE, |_| !self.is_echo_on()), "{:?}", self.screen());
    }
}

#[test]
fn register_asks_at_a_terminal_and_does_not_show_the_token() {
    let sandbox = sandbox();
    let token = sandbox.gitlab.instance_registration_token();
    let mut person = Person::at(&sandbox, &["register"]);
    person.answers("Enter the GitLab instance URL", "gitlab");
    person.reads("not a URL");
    person.types(&format!("{}\n", sandbox.gitlab.url()));
    person.reads("Enter the registration token:");
    person.waits_until_input_is_hidden();
    person.types(&format!("{token}\n"));
    person.answers("Enter a description for the runner:", "at-a-terminal");
    person.answers("Enter tags for the runner", "linux, docker");
    person.answers("Enter optional maintenance note", "");
    person.answers("Enter an executor:", "shell");
    person.reads("runner `at-a-terminal` (id 1): registered");
    let screen = person.screen();
    person.process.end().exits(0);
    assert!(!screen.contains(&token), "{screen}");
    assert_eq!(sandbox.gitlab.runners()[0].tags, ["linux", "docker"]);
    assert!(sandbox.config().contains("executor = \"shell\""));
}

#[test]
fn interrupt_at_a_hidden_question_ends_the_command_and_shows_input_again() {
    let sandbox = sandbox();
    let mut person = Person::at(&sandbox, &["register", "--url", &sandbox.gitlab.url()]);
    person.reads("Enter the registration token:");
    person.waits_until_input_is_hidden();
    person.types(CTRL_C);
    person.reads("nothing was registered");
    assert!(person.process.wait_for(test_support::PATIENCE, |_| person.is_echo_on()));
    person.process.end().exits(1);
    assert!(sandbox.gitlab.runners().is_empty());
}

#[test]
fn init_asks_at_a_terminal_and_writes_what_check_accepts() {
    let sandbox = sandbox();
    std::fs::remove_file(sandbox.path("agent.toml")).unwrap();
    let (_, token) = sandbox.gitlab.add_runner(fake_gitlab::NewRunner::instance());
    sandbox.write_with_mode("runner-token", &token, 0o600);
    let mut person = Person::at(&sandbox, &["init"]);
    person.answers("Enter the GitLab instance URL", &sandbox.gitlab.url());
    person.answers("Enter 1, 2 or 3:", "2");
    person.answers("Enter the file with the runner's token", "");
    person.answers("Enter a name for the runner", "at-a-terminal");
    person.answers("Enter an executor:", "shell");
    person.reads("runner-agent run");
    person.process.end().exits(0);
    sandbox.run(&["check"]).exits(0);
    sandbox.run(&["run", "--once"]).exits(0);
    assert!(sandbox.config().contains(&token) && sandbox.config().contains("at-a-terminal"));
}

#[test]
fn watched_status_is_drawn_anew_from_the_top_of_the_terminal() {
    let sandbox = sandbox();
    sandbox.add_created("first");
    let daemon = sandbox.start_serving();
    let mut person = Person::at(&sandbox, &["status", "--watch"]);
    person.reads("first");
    sandbox.add_created("second");
    person.reads("second");
    person.types(CTRL_C);
    let screen = person.screen();
    person.process.end().exits(0);
    let frames: Vec<_> = screen.split("\u{1b}[H\u{1b}[J").collect();
    assert!(frames.len() > 2 && frames[0].is_empty(), "{screen:?}");
    assert!(frames[1..].iter().all(|frame| frame.is_empty() || frame.starts_with("NAME")), "{screen:?}");
    assert!(frames.iter().any(|frame| frame.contains("first") && frame.contains("second")), "{screen:?}");
    daemon.stop(Signal::QUIT).exits(0);
}
