//! The flags of gitlab-runner's `register` for keys of the entry. They are listed once, with the keys.

use std::fmt;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::secret::Token;
use crate::settings::{Draft, EntryKey, Kind};

/// The values of gitlab-runner's flags, each with its key. They can contain secrets.
///
/// Help texts do not show the flags, which gitlab-runner documents.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EntryKeyArguments(Vec<(&'static EntryKey, Vec<String>)>);

impl EntryKeyArguments {
    /// Adds the keys to a draft.
    pub(super) fn add_to(&self, draft: &mut Draft) {
        for (key, values) in &self.0 {
            draft.add_entry_flag(key, values);
        }
    }

    /// The values that are secrets, so that the command line does not keep them. A password with characters that no token
    /// has is left out.
    pub(super) fn secrets(&self) -> impl Iterator<Item = Token> {
        let secret = self.0.iter().filter(|(key, _)| key.is_secret());
        secret.flat_map(|(_, values)| values).filter_map(|value| Token::parse(value).ok())
    }
}

impl fmt::Debug for EntryKeyArguments {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

impl Args for EntryKeyArguments {
    fn augment_args(command: Command) -> Command {
        command.args(EntryKey::all().filter_map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for EntryKeyArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &'static EntryKey| {
            let values = matches.get_many::<String>(key.flag?)?;
            Some((key, values.cloned().collect()))
        };
        Ok(Self(EntryKey::all().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn argument(key: &'static EntryKey) -> Option<Arg> {
    let flag = key.flag?;
    let argument = Arg::new(flag)
        .long(flag.trim_start_matches('-'))
        .value_name(key.path)
        .action(ArgAction::Append)
        .allow_hyphen_values(key.kind != Kind::Switch)
        .hide(true);
    let is_switch = key.kind == Kind::Switch;
    Some(if is_switch { argument.num_args(0..=1).default_missing_value("true") } else { argument })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        keys: EntryKeyArguments,
        #[arg(long)]
        name: Option<String>,
    }

    fn parse(words: &[&str]) -> Line {
        Line::try_parse_from([&["register"], words].concat()).unwrap()
    }

    #[test]
    fn flags_collect_their_values_in_order() {
        let line = parse(&["--docker-volumes", "/a", "--docker-volumes=/b", "--docker-image", "x"]);
        let given: Vec<_> = line.keys.0.iter().map(|(key, values)| (key.path, values.join(" "))).collect();
        assert_eq!(given, [("docker.image", "x".to_owned()), ("docker.volumes", "/a /b".to_owned())]);
    }

    #[test]
    fn a_boolean_takes_its_value_in_every_way() {
        for words in [
            &["--docker-privileged", "--name", "a"][..],
            &["--docker-privileged=true", "--name", "a"],
            &["--docker-privileged", "true", "--name", "a"],
        ] {
            let line = parse(words);
            assert_eq!((line.keys.0[0].1.join(" "), line.name.as_deref()), ("true".to_owned(), Some("a")), "{words:?}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let line = parse(&["--ssh-password", "hunter2-hunter2", "--ssh-user", "me"]);
        assert_eq!(format!("{:?}", line.keys), "[ssh.user, ssh.password]");
        let secrets: Vec<_> = line.keys.secrets().map(|secret| secret.expose().to_owned()).collect();
        assert_eq!(secrets, ["hunter2-hunter2"]);
    }
}
