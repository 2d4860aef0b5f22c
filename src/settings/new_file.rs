//! The text of a new agent.toml.

use std::path::{Path, PathBuf};

use toml::Value;

use super::{Environment, Errors, Overrides, Scope, assemble, paths};
use crate::gitlab::fleet::NewRunnerOwner;
use crate::model::{RunnerId, RunnerKey, ServerUrl};

/// A new agent.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// What it is to do.
    pub duty: NewDuty,
    /// The unit whose main process reads config.toml, and gets a signal after each change of a token.
    pub signal_unit: Option<String>,
}

/// What a new agent.toml is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewDuty {
    /// Enroll a runner.
    Enrolls(NewEnrollment),
    /// Keep the tokens of these runners in config.toml valid.
    Serves(Vec<ServedRunner>),
}

/// A runner that a new agent.toml enrolls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEnrollment {
    /// The instance.
    pub url: ServerUrl,
    /// The local name.
    pub name: String,
    /// How it comes to its token.
    pub source: NewSource,
    /// The executor.
    pub executor: Option<String>,
    /// Its tags; those of a created runner are set in GitLab.
    pub tag_list: Vec<String>,
    /// A file with exactly one `[[runners]]`.
    pub template: Option<PathBuf>,
}

/// How a runner comes to its token. Secrets are in files, absolute or beside agent.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewSource {
    /// The agent creates the runner.
    Create {
        /// For whom.
        owner: NewRunnerOwner,
        /// The file with the access token.
        access_token: PathBuf,
    },
    /// The file with the token (glrt-) of a runner that was created in GitLab.
    Created(PathBuf),
    /// The file with a registration token.
    Registration(PathBuf),
}

/// A runner in config.toml, for comments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedRunner {
    /// Its name.
    pub name: Option<String>,
    /// Its id.
    pub id: Option<RunnerId>,
    /// The instance.
    pub url: Option<ServerUrl>,
}

impl NewSource {
    /// The file with the secret.
    #[must_use]
    pub fn file(&self) -> &Path {
        match self {
            Self::Create { access_token: file, .. } | Self::Created(file) | Self::Registration(file) => file,
        }
    }
}

const HEAD: &str = "\
# Settings of runner-agent, written by `runner-agent init`. See `man runner-agent`.
#
# Lines that begin with `#` and no space are settings with their defaults; remove the `#` to use them. Changes take
# effect when the file is saved. Secrets are never written here, only where they are:
#   { file = \"name\" }        a file next to this one, of the user that runs the agent, with mode 0600
#   { credential = \"name\" }  a credential of the systemd unit (LoadCredential=)
#   { env = \"NAME\" }         an environment variable
";

const TAIL: &str = "
[verify]
# How often to verify tokens: of enrolled runners, and of other runners found in config.toml.
#interval = \"1h\"
#found_interval = \"24h\"

[shutdown]
# Runners to unregister at a stop: \"never\", \"enrolled\" or \"all\". A restart unregisters none.
#unregister = \"enrolled\"
";

impl NewFile {
    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        let body = match &self.duty {
            NewDuty::Enrolls(enrollment) => enrollment.text(),
            NewDuty::Serves(runners) => served(runners),
        };
        format!("{HEAD}\n{body}{TAIL}{}", hook(self.signal_unit.as_deref()))
    }
}

/// The hook that lets a program beside the agent read a new token at once.
fn hook(unit: Option<&str>) -> String {
    let comment = "
# gitlab-runner looks at config.toml every three seconds, and at once when it gets a HUP. Without the signal it asks for
# jobs with the former token once or twice after a rotation.
";
    let (mark, unit) = unit.map_or(("#", "gitlab-runner.service"), |unit| ("", unit));
    let unit = quoted(unit);
    format!("{comment}{mark}[[hook]]\n{mark}name = \"reload\"\n{mark}signal = {{ unit = {unit} }}\n")
}

impl NewEnrollment {
    fn text(&self) -> String {
        let url = quoted(self.url.as_str());
        let mut text = format!(
            "# The runner that this machine registers. Its name is that in config.toml.\n[[enroll]]\nname = {}\nurl = {url}\n",
            quoted(&self.name)
        );
        if RunnerKey::enrollment(&self.name).is_err() {
            text += &format!("# Names the runner's files.\nkey = {}\n", quoted(&key_of(&self.name)));
        }
        text += &match &self.source {
            NewSource::Create { owner, .. } => format!(
                "# The agent creates the runner, with the access token of its [[server]] below.\ncreate = {{ {} }}\n",
                owner_text(owner)
            ),
            NewSource::Created(file) => format!(
                "# The authentication token (glrt-) of a runner that was created in GitLab, where its tags are set.\ntoken = {}\n",
                file_text(file)
            ),
            NewSource::Registration(file) => format!(
                "# A registration token. GitLab is to remove them: `create`, or a runner created in GitLab, lasts.\nregistration_token = {}\n",
                file_text(file)
            ),
        };
        text += &match (&self.source, self.tag_list.is_empty()) {
            (NewSource::Created(_), _) => String::new(),
            (_, true) => "#tag_list = [\"linux\"]\n".to_owned(),
            (_, false) => {
                let tags = self.tag_list.iter().cloned().map(Value::String).collect();
                format!("tag_list = {}\n", Value::Array(tags))
            }
        };
        text += &self.executor.as_ref().map_or_else(
            || "#executor = \"shell\"\n".to_owned(),
            |executor| format!("executor = {}\n", quoted(executor)),
        );
        text += "# A file with exactly one [[runners]], for further keys of the entry, such as docker's image.\n";
        text += &self.template.as_ref().map_or_else(
            || "#template = \"template.toml\"\n".to_owned(),
            |template| format!("template = {}\n", quoted(&template.to_string_lossy())),
        );
        text + &match &self.source {
            NewSource::Create { access_token, .. } => format!(
                "\n# Its access token needs the scope `create_runner`. With `manage_runner` too, or with `api`, the agent can renew a token\n# that has expired.\n[[server]]\nurl = {url}\naccess_token = {}\n",
                file_text(access_token)
            ),
            NewSource::Created(_) | NewSource::Registration(_) => format!(
                "\n# With an access token (scope `manage_runner` or `api`), the agent can renew a token that has expired.\n#[[server]]\n#url = {url}\n#access_token = {{ file = \"access-token\" }}\n"
            ),
        } + "\n[rotate]\n# Share of a token's life after which to rotate it; \"off\" disables rotation.\n#at = \"66%\"\n"
    }
}

/// A key that looks like a name.
fn key_of(name: &str) -> String {
    let plain =
        |character: char| if character.is_ascii_alphanumeric() || "._-".contains(character) { character } else { '-' };
    let key: String = name.chars().map(plain).skip_while(|character| *character == '.').take(MAX_KEY_CHARS).collect();
    if RunnerKey::enrollment(&key).is_ok() { key } else { "default".to_owned() }
}

/// The longest key.
const MAX_KEY_CHARS: usize = 64;

fn served(runners: &[ServedRunner]) -> String {
    let mut text = "# The runners in config.toml when this file was written. They need no setting: the agent verifies their tokens.\n"
        .to_owned();
    for ServedRunner { name, id, url } in runners {
        let name = name.as_deref().map_or_else(|| "(without a name)".to_owned(), quoted);
        let id = id.map(|id| format!(", id {id}")).unwrap_or_default();
        let url = url.as_ref().map(|url| format!(", {url}")).unwrap_or_default();
        text += &format!("#   {name}{id}{url}\n");
    }
    text += "
[rotate]
# Entries that this agent has not made: \"last_resort\" rotates their tokens only if gitlab-runner has not done it at
# 90 % of their life; \"always\" at the share of `at`; \"never\".
found = \"last_resort\"
#at = \"66%\"

# An exception for a runner, selected by id, name and url. Set `shared` if other machines use the same token.
#[[runner]]
";
    if let Some(ServedRunner { name, id, .. }) = runners.first() {
        let key = id.map(|id| format!("#id = {id}\n"));
        text += &key.or_else(|| Some(format!("#name = {}\n", quoted(name.as_ref()?)))).unwrap_or_default();
    }
    text += "#rotate = \"always\"\n#shared = true\n";
    let mut urls: Vec<_> = runners.iter().filter_map(|runner| runner.url.as_ref()).collect();
    urls.sort();
    urls.dedup();
    for url in urls {
        text += &format!(
            "\n# With an access token (scope `manage_runner` or `api`), the agent can renew a token that has expired.\n#[[server]]\n#url = {}\n#access_token = {{ file = \"access-token\" }}\n",
            quoted(url.as_str())
        );
    }
    text
}

fn owner_text(owner: &NewRunnerOwner) -> String {
    match owner {
        NewRunnerOwner::Instance => "runner_type = \"instance_type\"".to_owned(),
        NewRunnerOwner::Group(id) => format!("runner_type = \"group_type\", group_id = {id}"),
        NewRunnerOwner::Project(id) => format!("runner_type = \"project_type\", project_id = {id}"),
    }
}

fn file_text(file: &Path) -> String {
    format!("{{ file = {} }}", quoted(&file.to_string_lossy()))
}

/// A TOML string on one line.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => quoted += &format!("\\u{:04X}", u32::from(control)),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

/// Checks a text for agent.toml as the daemon would read it. Reads its templates, and no secret.
///
/// # Errors
/// [`Errors`] with all errors in it.
pub fn check_text(text: &str, overrides: &Overrides, environment: &Environment) -> Result<(), Errors> {
    let paths = paths(overrides, environment);
    assemble(&paths, Some(text.to_owned()), overrides, environment, Scope::Command).map(drop)
}

/// Whether a text for agent.toml has only comments.
#[must_use]
pub fn sets_nothing(text: &str) -> bool {
    text.parse::<toml::Table>().is_ok_and(|table| table.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrollment(source: NewSource) -> NewEnrollment {
        NewEnrollment {
            url: "https://gitlab.example.com".parse().unwrap(),
            name: "build \"1\"".to_owned(),
            source,
            executor: Some("docker".to_owned()),
            tag_list: vec!["linux".to_owned(), "a b".to_owned()],
            template: None,
        }
    }

    /// The text with every commented setting of a table in use.
    fn uncommented(text: &str) -> String {
        let line = |line: &str| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') && !setting.is_empty() => setting.to_owned(),
            _ => line.to_owned(),
        };
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_new_file_is_valid_also_with_its_commented_settings() {
        let file = || PathBuf::from("a-token");
        let served = ServedRunner {
            name: Some("a\n".to_owned()),
            id: RunnerId::try_new(42).ok(),
            url: "https://gitlab.example.com".parse().ok(),
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        std::fs::write(directory.path().join("template.toml"), "[[runners]]\n").unwrap();
        let overrides = Overrides { agent_config: Some(path), ..Overrides::default() };
        for new in [
            NewDuty::Enrolls(enrollment(NewSource::Create { owner: NewRunnerOwner::Group(7), access_token: file() })),
            NewDuty::Enrolls(enrollment(NewSource::Create { owner: NewRunnerOwner::Instance, access_token: file() })),
            NewDuty::Enrolls(enrollment(NewSource::Created(file()))),
            NewDuty::Enrolls(enrollment(NewSource::Registration(file()))),
            NewDuty::Serves(vec![served.clone(), ServedRunner { name: None, id: None, url: None }]),
            NewDuty::Serves(Vec::new()),
        ]
        .into_iter()
        .flat_map(|duty| [None, Some("gitlab-runner.service".to_owned())].map(|unit| (duty.clone(), unit)))
        {
            let (duty, signal_unit) = new;
            let new = NewFile { duty, signal_unit };
            let text = new.text();
            check_text(&text, &overrides, &Environment::default()).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert!(!sets_nothing(&text));
            let all = uncommented(&text).replace("executor = \"shell\"\nexecutor", "executor");
            // An exception needs a selector, which a file without runners cannot give.
            if new.duty != NewDuty::Serves(Vec::new()) {
                check_text(&all, &overrides, &Environment::default()).unwrap_or_else(|error| panic!("{error}\n{all}"));
            }
        }
        assert!(sets_nothing("# nothing\n"));
    }
}
