//! Prompts for missing values, as the official `register` does.

use std::io::{self, BufRead as _, Write as _};
use std::str::FromStr as _;

use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

use crate::cli::Error;
use crate::cli::interrupt::Interrupt;
use crate::model::ServerUrl;
use crate::secret::{Source, Token};
use crate::settings::{Draft, Place, Placed, split_list};

/// The executors of gitlab-runner, in the order of its prompt.
pub(in crate::cli) const EXECUTORS: [&str; 11] = [
    "custom",
    "ssh",
    "parallels",
    "docker-windows",
    "docker+machine",
    "docker-autoscaler",
    "shell",
    "virtualbox",
    "docker",
    "kubernetes",
    "instance",
];

/// Asks questions and reads answers.
pub(super) trait Terminal {
    /// Asks and reads one line, without its line end.
    ///
    /// # Errors
    /// `UnexpectedEof` at the end of the input.
    fn line(&mut self, question: &str) -> io::Result<String>;

    /// The same without echo.
    ///
    /// # Errors
    /// As [`Terminal::line`].
    fn secret(&mut self, question: &str) -> io::Result<String>;

    /// Reports an invalid answer.
    fn report_invalid(&mut self, line: &str);
}

/// A terminal on stdin and stderr; stdout is for results.
struct StdioTerminal;

impl Terminal for StdioTerminal {
    fn line(&mut self, question: &str) -> io::Result<String> {
        write!(io::stderr(), "{question}\n> ")?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim().to_owned())
    }

    fn secret(&mut self, question: &str) -> io::Result<String> {
        write!(io::stderr(), "{question}\n> ")?;
        rpassword::read_password()
    }

    fn report_invalid(&mut self, line: &str) {
        let _closed = writeln!(io::stderr(), "{line}");
    }
}

/// Prompts for missing values until a signal interrupts.
///
/// # Errors
/// [`Error::Usage`] at the end of the input, [`Error::Interrupted`].
pub(super) async fn complete(draft: Draft, hostname: String, interrupt: &Interrupt) -> Result<Draft, Error> {
    // A signal may come while echo is off.
    let terminal = tcgetattr(io::stdin()).ok();
    let (answer, answered) = oneshot::channel();
    // A detached thread, so that the process can exit while it reads.
    std::thread::spawn(move || answer.send(ask(draft, &hostname, &mut StdioTerminal)).ok());
    let asked = tokio::select! {
        biased;
        () = interrupt.asked() => {
            let _restored = terminal.map(|terminal| tcsetattr(io::stdin(), OptionalActions::Now, &terminal));
            return Err(interrupted());
        }
        asked = answered => asked.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())),
    };
    asked.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Usage(
            "the input ended before all questions were answered: use flags, and --non-interactive to disable questions"
                .to_owned(),
        ),
        io::ErrorKind::Interrupted => interrupted(),
        _ => Error::System(error),
    })
}

fn interrupted() -> Error {
    Error::Interrupted("nothing was registered".to_owned())
}

/// Fills in missing values.
fn ask(mut draft: Draft, hostname: &str, terminal: &mut impl Terminal) -> io::Result<Draft> {
    if draft.url.is_none() {
        let url = valid(terminal, "Enter the GitLab instance URL (for example, https://gitlab.com/):", |text| {
            ServerUrl::from_str(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
        })?;
        draft.url = Some(typed(Some(url)));
    }
    if draft.token.is_none() && draft.registration_token.is_none() {
        draft.registration_token = Some(typed(Some(ask_token(terminal)?)));
    }
    let default = (!hostname.is_empty()).then_some(hostname);
    if is_created(&draft) {
        if draft.name.is_none() {
            let question = "Enter a name for the runner. This is stored only in the local config.toml file:";
            draft.name = Some(typed(required(terminal, question, default)?));
        }
    } else {
        if draft.name.is_none() {
            draft.name = Some(typed(required(terminal, "Enter a description for the runner:", default)?));
        }
        if draft.tag_list.is_none() {
            let list = terminal.line("Enter tags for the runner (comma-separated):")?;
            draft.tag_list = Some(typed(split_list(&list)));
        }
        if draft.maintenance_note.is_none() {
            draft.maintenance_note = Some(typed(terminal.line("Enter optional maintenance note for the runner:")?));
        }
    }
    if draft.executor.is_none() && draft.template.is_none() {
        let question = format!("Enter an executor: {} (empty for a runner of your own):", EXECUTORS.join(", "));
        let executor = valid(terminal, &question, |text| match text {
            "" => Ok(None),
            known if EXECUTORS.contains(&known) => Ok(Some(known.to_owned())),
            other => Err(format!("unknown executor `{other}`")),
        })?;
        draft.executor = executor.map(typed);
    }
    Ok(draft)
}

fn ask_token(terminal: &mut impl Terminal) -> io::Result<Source> {
    loop {
        let text = zeroize::Zeroizing::new(terminal.secret("Enter the registration token:")?);
        match Token::parse(text.trim()) {
            Ok(token) => return Ok(Source::Value { token, origin: "the prompt".to_owned() }),
            Err(error) => terminal.report_invalid(&error.to_string()),
        }
    }
}

/// Whether the token is that of a runner created in GitLab.
fn is_created(draft: &Draft) -> bool {
    let seed = draft.registration_token.as_ref().and_then(|placed| placed.value.as_ref());
    draft.token.is_some() || seed.and_then(|source| source.read().ok()).is_some_and(|token| token.looks_created())
}

/// Asks until there is an answer; an empty one selects the default.
fn required(terminal: &mut impl Terminal, question: &str, default: Option<&str>) -> io::Result<String> {
    let question = default.map_or_else(|| question.to_owned(), |default| format!("{question}\n[{default}]:"));
    loop {
        let text = terminal.line(&question)?;
        match (text.is_empty(), default) {
            (false, _) => return Ok(text),
            (true, Some(default)) => return Ok(default.to_owned()),
            (true, None) => {}
        }
    }
}

/// Asks until the answer is valid.
fn valid<T>(terminal: &mut impl Terminal, question: &str, check: impl Fn(&str) -> Result<T, String>) -> io::Result<T> {
    loop {
        match check(&terminal.line(question)?) {
            Ok(value) => return Ok(value),
            Err(message) => terminal.report_invalid(&message),
        }
    }
}

fn typed<T>(value: T) -> Placed<T> {
    Placed::new(value, Place::Flag("the prompt"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[derive(Default)]
    struct Script {
        answers: VecDeque<&'static str>,
        heard: Vec<String>,
    }

    impl Terminal for Script {
        fn line(&mut self, question: &str) -> io::Result<String> {
            self.heard.push(question.to_owned());
            self.answers.pop_front().map(str::to_owned).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        }

        fn secret(&mut self, question: &str) -> io::Result<String> {
            self.line(&format!("(hidden) {question}"))
        }

        fn report_invalid(&mut self, line: &str) {
            self.heard.push(format!("! {line}"));
        }
    }

    fn script(answers: &[&'static str]) -> Script {
        Script { answers: answers.iter().copied().collect(), heard: Vec::new() }
    }

    fn empty() -> Draft {
        Draft::at(Place::Flag("register"))
    }

    #[test]
    fn a_registration_token_asks_the_official_questions() {
        let mut script = script(&["gitlab", "https://gitlab.example.com", "GR13", "", "a, b", "", "dcoker", "docker"]);
        let draft = ask(empty(), "host-1", &mut script).unwrap();
        assert_eq!(draft.name.unwrap().value, "host-1");
        assert_eq!(draft.tag_list.unwrap().value, ["a", "b"]);
        assert_eq!(draft.executor.unwrap().value, "docker");
        insta::assert_snapshot!(script.heard.join("\n"), @r"
        Enter the GitLab instance URL (for example, https://gitlab.com/):
        ! not a URL (relative URL without a base), expected something like https://gitlab.example.com
        Enter the GitLab instance URL (for example, https://gitlab.com/):
        (hidden) Enter the registration token:
        Enter a description for the runner:
        [host-1]:
        Enter tags for the runner (comma-separated):
        Enter optional maintenance note for the runner:
        Enter an executor: custom, ssh, parallels, docker-windows, docker+machine, docker-autoscaler, shell, virtualbox, docker, kubernetes, instance (empty for a runner of your own):
        ! unknown executor `dcoker`
        Enter an executor: custom, ssh, parallels, docker-windows, docker+machine, docker-autoscaler, shell, virtualbox, docker, kubernetes, instance (empty for a runner of your own):
        ");
    }

    #[test]
    fn a_created_runner_asks_only_for_a_name() {
        let mut script = script(&["https://gitlab.example.com", "", "acme-glrt-abc", "mine", ""]);
        let draft = ask(empty(), "host-1", &mut script).unwrap();
        assert_eq!(draft.name.unwrap().value, "mine");
        assert!(draft.tag_list.is_none() && draft.maintenance_note.is_none() && draft.executor.is_none());
    }

    #[test]
    fn given_values_are_not_asked_for() {
        let token = Token::parse("glrt-abc").unwrap();
        let source = Source::Value { token, origin: "a test".to_owned() };
        let mut draft = empty();
        draft.url = Some(typed(Some("https://gitlab.example.com".to_owned())));
        draft.token = Some(typed(Some(source)));
        draft.name = Some(typed("a".to_owned()));
        draft.executor = Some(typed("shell".to_owned()));
        let mut script = script(&[]);
        ask(draft, "host-1", &mut script).unwrap();
        assert!(script.heard.is_empty());
    }

    #[test]
    fn a_name_without_a_default_is_required() {
        let mut script = script(&["", "", "b"]);
        assert_eq!(required(&mut script, "Name:", None).unwrap(), "b");
        assert_eq!(script.heard.len(), 3);
    }

    #[test]
    fn the_end_of_the_input_is_an_error() {
        let error = ask(empty(), "", &mut script(&[])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
