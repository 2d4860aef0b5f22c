//! Writes a runner's token into a file, for a runner of another program.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::file_work::file_work;
use super::limit::TimeLimit;
use super::{Delivery, HookError};
use crate::files::{Access, FileUse, Place, explain, read_trusted_text};
use crate::secret::Token;

const MAX_FILE_BYTES: u64 = 4096;

/// Maximum size of the lists of users and groups, in bytes.
const MAX_LIST_BYTES: u64 = 4 * 1024 * 1024;

/// Ends the name of the temporary file beside the file.
const TEMPORARY: &str = "runner-agent.tmp";

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteTokenAction {
    /// Its path.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Whose it is; the agent's own user's if it is absent.
    pub owner: Option<FileOwner>,
}

/// The owner of a file: a user and a group, by name or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOwner {
    /// The user.
    pub user: String,
    /// The group; the user's own if it is absent.
    pub group: Option<String>,
}

impl WriteTokenAction {
    pub(super) async fn run(&self, delivery: Delivery<'_>, limit: TimeLimit) -> Result<String, HookError> {
        let Some(token) = delivery.token.cloned() else {
            return Err(HookError::Lasting("the runner has no token any more".to_owned()));
        };
        if !delivery.is_own {
            let message = "the runner is only found in config.toml, and another program uses its token from there: `write_token` is for the runners that agent.toml enrolls";
            return Err(HookError::Lasting(message.to_owned()));
        }
        let action = self.clone();
        let written = file_work(limit, &self.path, move || {
            action.write(&token).map_err(|error| explain(&action.path, FileUse::Write, error))
        })
        .await?;
        let is_written = written.map_err(|error| HookError::of_file(&self.path, &error))?;
        let path = self.path.display();
        Ok(if is_written { format!("`{path}` has the token") } else { format!("`{path}` has the token already") })
    }

    /// Writes the file unless it is as it should be. Returns whether it was written.
    fn write(&self, token: &Token) -> io::Result<bool> {
        let place = Place::own(&self.path)?;
        if place.is_mount_point() {
            return Err(io::Error::other("it is a mount point, which cannot be replaced: mount its directory"));
        }
        let owner = self.owner.as_ref().map(FileOwner::numbers).transpose()?;
        let content = Zeroizing::new(format!("{}\n", token.expose()));
        if self.is_there(&place, content.as_bytes(), owner)? {
            return Ok(false);
        }
        let temporary = place.beside(TEMPORARY);
        // A crash can leave one.
        temporary.remove()?;
        let replaced = self.replace(&place, &temporary, content.as_bytes(), owner);
        if replaced.is_err() {
            let _removed = temporary.remove();
        }
        replaced.map(|()| true)
    }

    fn is_there(&self, place: &Place, content: &[u8], owner: Option<(u32, u32)>) -> io::Result<bool> {
        let mut opened = match place.open(Access::Read) {
            // The file of another user cannot be read without a capability, and can be replaced.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                return Ok(false);
            }
            opened => opened?,
        };
        let (mode, user, group) = (opened.metadata.mode() & 0o7777, opened.metadata.uid(), opened.metadata.gid());
        let is_as_wanted = mode == self.mode && owner.is_none_or(|owner| owner == (user, group));
        Ok(is_as_wanted && Zeroizing::new(opened.read(MAX_FILE_BYTES)?).as_slice() == content)
    }

    /// The new file has its owner and mode before it takes the place of the former one.
    fn replace(&self, place: &Place, temporary: &Place, content: &[u8], owner: Option<(u32, u32)>) -> io::Result<()> {
        let mut file = temporary.create()?;
        file.write_all(content)?;
        // The mode of a file of another user cannot be set without a further capability.
        file.set_permissions(Permissions::from_mode(self.mode))?;
        if let Some((user, group)) = owner {
            fchown(&file, Some(user), Some(group)).map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => io::Error::new(
                    error.kind(),
                    "its owner cannot be set without the capability CAP_CHOWN; see hooks.md",
                ),
                _ => error,
            })?;
        }
        file.sync_all()?;
        temporary.rename(place)?;
        place.sync_directory()
    }
}

impl FileOwner {
    pub(super) fn numbers(&self) -> io::Result<(u32, u32)> {
        self.numbers_by(Path::new("/etc/passwd"), Path::new("/etc/group"))
    }

    fn numbers_by(&self, users: &Path, groups: &Path) -> io::Result<(u32, u32)> {
        let unknown = |kind: &str, name: &str| io::Error::other(format!("there is no {kind} `{name}`"));
        let known = |user: &str| -> io::Result<Option<(u32, u32)>> { Ok(found(users, user)?.and_then(user_of)) };
        let numeric = self.user.parse::<u32>().ok();
        let (user, own_group) = match (known(&self.user)?, numeric) {
            (Some((user, group)), _) => (user, Some(group)),
            // Its own group is unknown.
            (None, Some(user)) => (user, None),
            (None, None) => return Err(unknown("user", &self.user)),
        };
        let group = match &self.group {
            Some(group) => match (found(groups, group)?.and_then(|line| number(&line, 2)), group.parse().ok()) {
                (Some(number), _) | (None, Some(number)) => number,
                (None, None) => return Err(unknown("group", group)),
            },
            None => own_group.unwrap_or(user),
        };
        Ok((user, group))
    }
}

/// The line of a name in a list of users or groups.
fn found(list: &Path, name: &str) -> io::Result<Option<String>> {
    let text = read_trusted_text(list, MAX_LIST_BYTES)?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    Ok(line.map(str::to_owned))
}

fn user_of(line: String) -> Option<(u32, u32)> {
    Some((number(&line, 2)?, number(&line, 3)?))
}

fn number(line: &str, field: usize) -> Option<u32> {
    line.split(':').nth(field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::hooks::file_work::hang;
    use crate::model::HookEvent;

    fn action(path: PathBuf) -> WriteTokenAction {
        WriteTokenAction { path, mode: 0o640, owner: None }
    }

    #[test]
    fn the_token_is_written_once_with_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let action = action(directory.path().join("token"));
        let token = Token::parse("glrt-first").unwrap();
        assert!(action.write(&token).unwrap());
        assert_eq!(fs::read_to_string(&action.path).unwrap(), "glrt-first\n");
        assert_eq!(fs::metadata(&action.path).unwrap().mode() & 0o7777, 0o640);
        assert!(!action.write(&token).unwrap(), "it is there");
        fs::set_permissions(&action.path, Permissions::from_mode(0o644)).unwrap();
        assert!(action.write(&token).unwrap(), "with another mode");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[tokio::test]
    async fn a_write_that_hangs_puts_no_older_token_over_a_newer_one() {
        let directory = tempfile::tempdir().unwrap();
        let action = action(directory.path().join("token"));
        let (event, token) = (HookEvent::sample(), Token::parse("glrt-newer").unwrap());
        let delivery = Delivery { event: &event, token: Some(&token), token_path: None, is_own: true };
        let limit = TimeLimit::begin(Duration::from_secs(60));
        let end = hang(&action.path).await;
        let error = action.run(delivery, limit).await.unwrap_err().to_string();
        assert!(error.contains("a former attempt still waits for it"), "{error}");
        assert!(!action.path.exists(), "nothing is written beside it");
        drop(end);
        while action.run(delivery, limit).await.is_err() {}
        assert_eq!(fs::read_to_string(&action.path).unwrap(), "glrt-newer\n");
    }

    #[test]
    fn a_directory_that_others_can_write_in_gets_no_token() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        let action = action(directory.path().join("token"));
        let error = action.write(&Token::parse("glrt-a").unwrap()).unwrap_err().to_string();
        assert!(error.contains("other users can write in its directory"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn owners_are_names_or_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let (users, groups) = (directory.path().join("passwd"), directory.path().join("group"));
        fs::write(&users, "root:x:0:0::/root:/bin/sh\nci:x:990:991::/:/bin/false\n").unwrap();
        fs::write(&groups, "root:x:0:\ndocker:x:995:ci\n").unwrap();
        let numbers = |user: &str, group: Option<&str>| {
            let owner = FileOwner { user: user.to_owned(), group: group.map(str::to_owned) };
            owner.numbers_by(&users, &groups).map_err(|error| error.to_string())
        };
        assert_eq!(numbers("ci", None), Ok((990, 991)));
        assert_eq!(numbers("ci", Some("docker")), Ok((990, 995)));
        assert_eq!(numbers("12", Some("13")), Ok((12, 13)));
        assert_eq!(numbers("12", None), Ok((12, 12)));
        assert_eq!(numbers("nobody-here", None), Err("there is no user `nobody-here`".to_owned()));
        assert_eq!(numbers("ci", Some("none")), Err("there is no group `none`".to_owned()));
    }

    #[test]
    fn the_owner_is_set_before_the_file_is_there() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let owner = Some(FileOwner { user: "12".to_owned(), group: Some("13".to_owned()) });
        let action = WriteTokenAction { owner, ..action(directory.path().join("token")) };
        let token = Token::parse("glrt-a").unwrap();
        assert!(action.write(&token).unwrap() && !action.write(&token).unwrap());
        let found = fs::metadata(&action.path).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (12, 13, 0o640));
    }
}
