//! Questions on a terminal.

use std::io::{self, BufRead as _, Write as _};

use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

use super::Error;
use super::interrupt::Interrupt;

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
pub(super) struct StdioTerminal;

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

/// Asks until all questions are answered or a signal interrupts; `undone` says what was not done then.
///
/// # Errors
/// [`Error::Usage`] at the end of the input, [`Error::Interrupted`].
pub(super) async fn converse<T: Send + 'static>(
    interrupt: &Interrupt,
    undone: &str,
    ask: impl FnOnce(&mut StdioTerminal) -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    // A signal may come while echo is off.
    let terminal = tcgetattr(io::stdin()).ok();
    let (answer, answered) = oneshot::channel();
    // A detached thread, so that the process can exit while it reads.
    std::thread::spawn(move || answer.send(ask(&mut StdioTerminal)).ok());
    let asked = tokio::select! {
        biased;
        () = interrupt.asked() => {
            let _restored = terminal.map(|terminal| tcsetattr(io::stdin(), OptionalActions::Now, &terminal));
            return Err(Error::Interrupted(undone.to_owned()));
        }
        asked = answered => asked.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())),
    };
    asked.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Usage(
            "the input ended before all questions were answered: use flags, and --non-interactive to disable questions"
                .to_owned(),
        ),
        io::ErrorKind::Interrupted => Error::Interrupted(undone.to_owned()),
        _ => Error::System(error),
    })
}

/// Asks until there is an answer; an empty one selects the default.
pub(super) fn required(terminal: &mut impl Terminal, question: &str, default: Option<&str>) -> io::Result<String> {
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
pub(super) fn valid<T>(
    terminal: &mut impl Terminal,
    question: &str,
    check: impl Fn(&str) -> Result<T, String>,
) -> io::Result<T> {
    loop {
        match check(&terminal.line(question)?) {
            Ok(value) => return Ok(value),
            Err(message) => terminal.report_invalid(&message),
        }
    }
}

/// Answers that were written down before, for tests.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Script {
    /// The answers that are left.
    pub(super) answers: std::collections::VecDeque<&'static str>,
    /// What was asked and reported.
    pub(super) heard: Vec<String>,
}

#[cfg(test)]
impl Script {
    /// A terminal with these answers.
    pub(super) fn new(answers: &[&'static str]) -> Self {
        Self { answers: answers.iter().copied().collect(), heard: Vec::new() }
    }
}

#[cfg(test)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_default_is_required() {
        let mut script = Script::new(&["", "", "b"]);
        assert_eq!(required(&mut script, "Name:", None).unwrap(), "b");
        assert_eq!(script.heard.len(), 3);
    }
}
