//! Prompts for missing values, as the official `register` does.

use std::io;
use std::str::FromStr as _;

use crate::cli::Error;
use crate::cli::interrupt::Interrupt;
use crate::cli::terminal::{Terminal, converse, required, valid};
use crate::model::ServerUrl;
use crate::secret::{Source, Token};
use crate::settings::{Draft, EXECUTORS, Place, Placed, split_list, unknown_executor};

/// A question about a key of the entry, as gitlab-runner asks it.
struct EntryQuestion {
    path: &'static str,
    text: &'static str,
    answer: AnswerKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AnswerKind {
    Required,
    Optional,
    /// Optional, and not shown.
    Secret,
}

const IMAGE: EntryQuestion = EntryQuestion {
    path: "docker.image",
    text: "Enter the default Docker image (for example, ruby:3.3):",
    answer: AnswerKind::Required,
};
const SSH_HOST: EntryQuestion = EntryQuestion {
    path: "ssh.host",
    text: "Enter the SSH server address (for example, my.server.com):",
    answer: AnswerKind::Required,
};
const SSH_PORT: EntryQuestion = EntryQuestion {
    path: "ssh.port",
    text: "Enter the SSH server port (for example, 22):",
    answer: AnswerKind::Optional,
};
const SSH_USER: EntryQuestion =
    EntryQuestion { path: "ssh.user", text: "Enter the SSH user (for example, root):", answer: AnswerKind::Required };
const SSH_PASSWORD: EntryQuestion = EntryQuestion {
    path: "ssh.password",
    text: "Enter the SSH password (empty for an identity file):",
    answer: AnswerKind::Secret,
};
const SSH_IDENTITY_FILE: EntryQuestion = EntryQuestion {
    path: "ssh.identity_file",
    text: "Enter the path to the SSH identity file (for example, /home/user/.ssh/id_rsa):",
    answer: AnswerKind::Optional,
};
const PARALLELS_VM: EntryQuestion = EntryQuestion {
    path: "parallels.base_name",
    text: "Enter the Parallels VM (for example, my-vm):",
    answer: AnswerKind::Required,
};
const VIRTUALBOX_VM: EntryQuestion = EntryQuestion {
    path: "virtualbox.base_name",
    text: "Enter the VirtualBox VM (for example, my-vm):",
    answer: AnswerKind::Required,
};

/// The questions about an executor, in gitlab-runner's order.
fn questions_of(executor: &str) -> &'static [EntryQuestion] {
    match executor {
        "docker" | "docker+machine" | "docker-autoscaler" | "docker-windows" => &[IMAGE],
        "ssh" => &[SSH_HOST, SSH_PORT, SSH_USER, SSH_PASSWORD, SSH_IDENTITY_FILE],
        "parallels" => &[PARALLELS_VM, SSH_HOST, SSH_PORT],
        "virtualbox" => &[VIRTUALBOX_VM, SSH_USER, SSH_PASSWORD, SSH_IDENTITY_FILE],
        _ => &[],
    }
}

/// The place of an answer.
const PROMPT: Place = Place::Flag("the prompt");

/// Prompts for missing values until a signal interrupts.
///
/// # Errors
/// [`Error::Usage`] at the end of the input, [`Error::Interrupted`].
pub(super) async fn complete(draft: Draft, hostname: String, interrupt: &Interrupt) -> Result<Draft, Error> {
    converse(interrupt, "nothing was registered", move |terminal| ask(draft, &hostname, terminal)).await
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
            name => unknown_executor(name).map_or_else(|| Ok(Some(name.to_owned())), Err),
        })?;
        draft.executor = executor.map(typed);
    }
    if draft.template.is_none() {
        ask_about_executor(&mut draft, terminal)?;
    }
    Ok(draft)
}

/// Asks for the keys that an executor needs and that no flag or variable gives.
fn ask_about_executor(draft: &mut Draft, terminal: &mut impl Terminal) -> io::Result<()> {
    let executor = draft.executor.as_ref().map(|executor| executor.value.clone()).unwrap_or_default();
    let can_log_in = draft.has_entry_key("ssh.password") || draft.has_entry_key("ssh.identity_file");
    for question in questions_of(&executor) {
        let is_answered = question.answer != AnswerKind::Required && can_log_in && question.path != "ssh.port";
        if is_answered || draft.has_entry_key(question.path) {
            continue;
        }
        let answer = match question.answer {
            AnswerKind::Required => required(terminal, question.text, None)?,
            AnswerKind::Optional => terminal.line(question.text)?,
            AnswerKind::Secret => terminal.secret(question.text)?,
        };
        if !answer.is_empty() {
            draft.add_entry_answer(question.path, answer, PROMPT);
        }
    }
    Ok(())
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

fn typed<T>(value: T) -> Placed<T> {
    Placed::new(value, PROMPT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::Script;

    fn script(answers: &[&'static str]) -> Script {
        Script::new(answers)
    }

    fn empty() -> Draft {
        Draft::at(Place::Flag("register"))
    }

    #[test]
    fn a_registration_token_asks_the_official_questions() {
        let mut script = script(&[
            "gitlab",
            "https://gitlab.example.com",
            "GR13",
            "",
            "a, b",
            "",
            "dcoker",
            "docker",
            "",
            "ruby:3.3",
        ]);
        let draft = ask(empty(), "host-1", &mut script).unwrap();
        assert_eq!(draft.name.unwrap().value, "host-1");
        assert_eq!(draft.tag_list.unwrap().value, ["a", "b"]);
        assert_eq!(draft.executor.unwrap().value, "docker");
        assert_eq!(draft.settings[0].value, ("docker.image".to_owned(), "\"ruby:3.3\"".to_owned()));
        insta::assert_snapshot!(script.heard.join("\n"), @r"
        Enter the GitLab instance URL (for example, https://gitlab.com/):
        ! not a URL: it must begin with https:// or http://, such as https://gitlab.example.com
        Enter the GitLab instance URL (for example, https://gitlab.com/):
        (hidden) Enter the registration token:
        Enter a description for the runner:
        [host-1]:
        Enter tags for the runner (comma-separated):
        Enter optional maintenance note for the runner:
        Enter an executor: custom, ssh, parallels, docker-windows, docker+machine, docker-autoscaler, shell, virtualbox, docker, kubernetes, instance (empty for a runner of your own):
        ! unknown executor `dcoker`: did you mean `docker`?
        Enter an executor: custom, ssh, parallels, docker-windows, docker+machine, docker-autoscaler, shell, virtualbox, docker, kubernetes, instance (empty for a runner of your own):
        Enter the default Docker image (for example, ruby:3.3):
        Enter the default Docker image (for example, ruby:3.3):
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
    fn an_executor_with_machines_asks_how_to_reach_them() {
        let mut draft = empty();
        draft.url = Some(typed(Some("https://gitlab.example.com".to_owned())));
        draft.name = Some(typed("a".to_owned()));
        draft.executor = Some(typed("ssh".to_owned()));
        let mut script = script(&["glrt-abc", "vm.example.com", "", "me", "secret", ""]);
        let draft = ask(draft, "", &mut script).unwrap();
        let settings: Vec<_> = draft.settings.iter().map(|setting| setting.value.0.as_str()).collect();
        assert_eq!(settings, ["ssh.host", "ssh.user", "ssh.password"]);
        assert!(script.heard.contains(&"(hidden) Enter the SSH password (empty for an identity file):".to_owned()));
    }

    #[test]
    fn flags_answer_the_questions_about_the_executor() {
        let mut draft = empty();
        draft.executor = Some(typed("ssh".to_owned()));
        for (path, value) in [("ssh.host", "h"), ("ssh.port", "2222"), ("ssh.user", "me"), ("ssh.identity_file", "/k")]
        {
            draft.add_entry_answer(path, value.to_owned(), PROMPT);
        }
        ask_about_executor(&mut draft, &mut script(&[])).unwrap();
    }

    #[test]
    fn the_end_of_the_input_is_an_error() {
        let error = ask(empty(), "", &mut script(&[])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
