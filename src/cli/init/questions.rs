//! The questions of `init`.

use std::io;
use std::path::PathBuf;

use crate::cli::terminal::{Terminal, required, valid};
use crate::gitlab::fleet::NewRunnerOwner;
use crate::model::ServerUrl;
use crate::secret::TokenClass;
use crate::settings::{EXECUTORS, NewSource, split_list, unknown_executor};

/// What flags have said, and then answers.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) url: Option<ServerUrl>,
    pub(super) name: Option<String>,
    pub(super) source: Option<NewSource>,
    pub(super) executor: Option<String>,
    pub(super) tag_list: Option<Vec<String>>,
    /// Whether a template can say the executor.
    pub(super) has_template: bool,
    /// The unit that gets a signal after each change of a token.
    pub(super) signal_unit: Option<String>,
    /// Whether gitlab-runner is here, which could get one.
    pub(super) may_signal: bool,
}

/// The unit of gitlab-runner.
const GITLAB_RUNNER: &str = "gitlab-runner.service";

const SOURCES: &str = "How does the runner get its token?
  1  the agent creates the runner in GitLab, with an access token
  2  from a runner that was created in GitLab (glrt-)
  3  with a registration token, which GitLab is to remove
Enter 1, 2 or 3:";

impl Draft {
    /// The draft with what needs no answer.
    pub(super) fn with_defaults(mut self, hostname: &str) -> Self {
        self.name = self.name.or_else(|| (!hostname.is_empty()).then(|| hostname.to_owned()));
        self
    }

    /// Asks for what is missing.
    ///
    /// # Errors
    /// As [`Terminal::line`].
    pub(super) fn ask(mut self, hostname: &str, terminal: &mut impl Terminal) -> io::Result<Self> {
        if self.url.is_none() {
            let question = "Enter the GitLab instance URL (for example, https://gitlab.com/):";
            self.url = Some(valid(terminal, question, |text| text.parse().map_err(|error| format!("{error}")))?);
        }
        let source = match self.source.take() {
            Some(source) => source,
            None => ask_source(terminal)?,
        };
        if self.name.is_none() {
            let default = (!hostname.is_empty()).then_some(hostname);
            let question = "Enter a name for the runner. It is that of its entry in config.toml:";
            self.name = Some(required(terminal, question, default)?);
        }
        if self.tag_list.is_none() && !matches!(source, NewSource::Created(_)) {
            let tags = terminal.line("Enter tags for the runner (comma-separated, may be empty):")?;
            self.tag_list = Some(split_list(&tags));
        }
        self.source = Some(source);
        if self.executor.is_none() && !self.has_template {
            let question = format!("Enter an executor: {} (may be empty):", EXECUTORS.join(", "));
            self.executor = valid(terminal, &question, |text| match text {
                "" => Ok(None),
                name => unknown_executor(name).map_or_else(|| Ok(Some(name.to_owned())), Err),
            })?;
        }
        if self.signal_unit.is_none() && self.may_signal {
            self.signal_unit = ask_signal(terminal)?;
        }
        Ok(self)
    }
}

/// Asks for the unit that gets a signal after each change of a token.
///
/// # Errors
/// As [`Terminal::line`].
pub(super) fn ask_signal<T: Terminal>(terminal: &mut T) -> io::Result<Option<String>> {
    let question = "gitlab-runner reads a new token within 3 seconds, or at once at a signal. Send one to gitlab-runner.service after each change? Enter yes or no (no):";
    valid(terminal, question, |text| match text {
        "yes" | "y" => Ok(Some(GITLAB_RUNNER.to_owned())),
        "no" | "n" | "" => Ok(None),
        _ => Err("enter yes or no".to_owned()),
    })
}

fn ask_source(terminal: &mut impl Terminal) -> io::Result<NewSource> {
    let choice = valid(terminal, SOURCES, |text| match text {
        "1" | "2" | "3" => Ok(text.to_owned()),
        _ => Err("enter 1, 2 or 3".to_owned()),
    })?;
    let mut file = |what: &str, default: &str| {
        let question = format!("Enter the file with the {what}; a name alone is that of a file beside agent.toml:");
        let question = format!("{question}\n[{default}]:");
        valid(terminal, &question, |text| match refused_as_file(text) {
            Some(refusal) => Err(refusal),
            None => Ok(PathBuf::from(if text.is_empty() { default } else { text })),
        })
    };
    Ok(match choice.as_str() {
        "1" => {
            let access_token = file("access token", "access-token")?;
            let question = "For whom is the runner? Enter instance, group ID or project ID:";
            NewSource::Create { owner: valid(terminal, question, owner)?, access_token }
        }
        "2" => NewSource::Created(file("runner's token", "runner-token")?),
        _ => NewSource::Registration(file("registration token", "registration-token")?),
    })
}

/// Why an answer is no name of a file: it is a token, which is repeated nowhere.
pub(super) fn refused_as_file(text: &str) -> Option<String> {
    let class = TokenClass::of_file_name(text)?;
    Some(format!(
        "this is {class} itself, and the name of a file is wanted: agent.toml names the file that the token is in. A file of such a name is written with its directory: ./NAME"
    ))
}

fn owner(text: &str) -> Result<NewRunnerOwner, String> {
    let words: Vec<_> = text.split([' ', ':']).filter(|word| !word.is_empty()).collect();
    let id = |id: &str| {
        id.parse::<u64>().map_err(|_| "the id is a number, which the page of the group or project shows".to_owned())
    };
    match words.as_slice() {
        ["instance"] => Ok(NewRunnerOwner::Instance),
        ["group", number] => id(number).map(NewRunnerOwner::Group),
        ["project", number] => id(number).map(NewRunnerOwner::Project),
        _ => Err("enter `instance`, `group 7` or `project 7`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::Script;

    fn empty() -> Draft {
        Draft {
            url: None,
            name: None,
            source: None,
            executor: None,
            tag_list: None,
            has_template: false,
            signal_unit: None,
            may_signal: false,
        }
    }

    #[test]
    fn a_created_runner_is_the_first_choice() {
        let answers =
            ["gitlab", "https://gitlab.example.com", "x", "1", "", "group x", "group 7", "", "a, b", "dcoker", ""];
        let mut script = Script::new(&answers);
        let draft = empty().ask("host-1", &mut script).unwrap();
        let access_token = PathBuf::from("access-token");
        assert_eq!(draft.source, Some(NewSource::Create { owner: NewRunnerOwner::Group(7), access_token }));
        assert_eq!((draft.name.as_deref(), draft.executor), (Some("host-1"), None));
        assert_eq!(draft.tag_list.unwrap(), ["a", "b"]);
        assert!(script.answers.is_empty());
        assert!(
            script.heard.iter().any(|line| line.starts_with("! unknown executor `dcoker`: did you mean `docker`?"))
        );
    }

    #[test]
    fn a_runner_of_gitlab_has_no_tags_here() {
        let mut script = Script::new(&["https://gitlab.example.com", "2", "/root/token", "a", "shell"]);
        let draft = empty().ask("host-1", &mut script).unwrap();
        assert_eq!(draft.source, Some(NewSource::Created("/root/token".into())));
        assert_eq!((draft.executor.as_deref(), draft.tag_list), (Some("shell"), None));
    }

    #[test]
    fn a_pasted_token_is_refused_as_the_name_of_a_file_and_asked_for_again() {
        for (choice, pasted) in [
            ("1", "glpat-0123456789abcdefghij"),
            ("2", "glrt-0123456789abcdefghij"),
            ("2", "acme-glrt-0123456789abcdefghij"),
            ("3", "GR13489410123456789abcdefghij"),
        ] {
            let answers = ["https://gitlab.example.com", choice, pasted, "", "instance", "a", "", "", "", ""];
            let answers: Vec<_> = answers.into_iter().filter(|answer| choice == "1" || *answer != "instance").collect();
            let mut script = Script::new(&answers);
            let draft = empty().ask("host-1", &mut script).unwrap();
            let default = ["access-token", "runner-token", "registration-token"][choice.parse::<usize>().unwrap() - 1];
            assert_eq!(draft.source.unwrap().file(), std::path::Path::new(default));
            let heard = script.heard.concat();
            assert!(heard.contains("the name of a file is wanted"), "{heard}");
            assert!(!heard.contains("0123456789"), "{heard}");
        }
    }

    #[test]
    fn a_signal_is_offered_where_gitlab_runner_is() {
        let answers = ["https://gitlab.example.com", "2", "/root/token", "a", "shell"];
        let mut script = Script::new(&[&answers[..], &["perhaps", "yes"]].concat());
        let draft = Draft { may_signal: true, ..empty() }.ask("host-1", &mut script).unwrap();
        assert_eq!(draft.signal_unit.as_deref(), Some("gitlab-runner.service"));
        let mut script = Script::new(&[&answers[..], &[""]].concat());
        let draft = Draft { may_signal: true, ..empty() }.ask("host-1", &mut script).unwrap();
        assert_eq!(draft.signal_unit, None);
    }

    #[test]
    fn flags_leave_nothing_to_ask() {
        let given = Draft {
            url: "https://gitlab.example.com".parse().ok(),
            name: Some("a".to_owned()),
            source: Some(NewSource::Registration("t".into())),
            executor: None,
            tag_list: Some(Vec::new()),
            has_template: true,
            ..empty()
        };
        let mut script = Script::new(&[]);
        given.ask("host-1", &mut script).unwrap();
        assert!(script.heard.is_empty());
    }
}
