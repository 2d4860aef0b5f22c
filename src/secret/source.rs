//! Where a secret comes from: read when it is needed, so that a replaced file is noticed.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::RawFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use zeroize::Zeroizing;

use super::{MAX_TOKEN_BYTES, Token, TokenError};

/// A place that holds one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file of the user's; white space around the secret does not count.
    File(PathBuf),
    /// A systemd credential: the file of this name in `$CREDENTIALS_DIRECTORY`, resolved by settings.
    Credential {
        /// The name in the unit's `LoadCredential=`.
        name: String,
        /// `$CREDENTIALS_DIRECTORY/name`; absent when the service manager passed no credentials.
        path: Option<PathBuf>,
    },
    /// A value that settings already hold, and what it came from (`REGISTRATION_TOKEN`, `stdin`).
    Value {
        /// The secret.
        token: Token,
        /// Where it came from, for messages.
        origin: String,
    },
}

/// Why a secret could not be had; never contains it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file is absent, unreadable or not a file.
    #[error("cannot read the token file `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anybody could have put the secret there.
    #[error("the token file `{}` can be written by others (mode {mode:04o}), so its content cannot be trusted: run `chmod go-w`", path.display())]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The service manager gave no credentials to this process.
    #[error("there is no systemd credential `{0}`: set LoadCredential={0}:PATH in the unit")]
    NoCredential(String),
    /// The content is not a token.
    #[error("{origin} does not hold a token")]
    Invalid {
        /// Where it came from.
        origin: String,
        /// What is wrong with it.
        source: TokenError,
    },
}

impl Source {
    /// What should be changed about the place although it can be used: a file that everybody can read, or one
    /// of another user's that root uses.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        let path = match self {
            Self::File(path) | Self::Credential { path: Some(path), .. } => path,
            Self::Credential { path: None, .. } | Self::Value { .. } => return None,
        };
        let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
        exposure(path, metadata.mode() & 0o7777, metadata.uid(), rustix::process::geteuid().as_raw())
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// [`SourceError`] naming the place, never its content.
    pub fn read(&self) -> Result<Token, SourceError> {
        match self {
            Self::File(path) => read_file(path, format!("the file `{}`", path.display())),
            Self::Credential { name, path: Some(path) } => read_file(path, format!("the systemd credential `{name}`")),
            Self::Credential { name, path: None } => Err(SourceError::NoCredential(name.clone())),
            Self::Value { token, .. } => Ok(token.clone()),
        }
    }
}

/// Who can get at a token file besides its user, and what to do about it. Only root has a say in who owns a
/// file; other users, as in a container, take what they are given.
fn exposure(path: &Path, mode: u32, owner: u32, user: u32) -> Option<String> {
    let path = path.display();
    if mode & 0o004 != 0 {
        return Some(format!("everybody can read the token file `{path}` (mode {mode:04o}): run `chmod o-r`"));
    }
    let is_foreign = user == 0 && owner != 0;
    is_foreign.then(|| format!("user {owner} can read and change the token file `{path}`: run `chown root`"))
}

/// Takes the secret out of a text, as a file or stdin has it.
///
/// # Errors
/// [`SourceError::Invalid`] naming `origin`.
fn parse(text: &str, origin: String) -> Result<Token, SourceError> {
    Token::parse(text.trim()).map_err(|source| SourceError::Invalid { origin, source })
}

fn read_file(path: &Path, origin: String) -> Result<Token, SourceError> {
    let unreadable = |source| SourceError::Unreadable { path: path.to_owned(), source };
    // Opening a named pipe would wait for its writer; what the shell hands over as a descriptor has one.
    let is_descriptor = ["/dev/fd/", "/dev/stdin", "/proc/self/fd/"].iter().any(|place| path.starts_with(place));
    if !is_descriptor && !path.metadata().map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it is not a regular file")));
    }
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_file() && mode & 0o022 != 0 {
        return Err(SourceError::WritableByOthers { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    let bound = u64::try_from(MAX_TOKEN_BYTES * 2).unwrap_or(u64::MAX);
    file.take(bound).read_to_string(&mut text).map_err(unreadable)?;
    parse(&text, origin)
}

/// Reads a secret from an open stream, such as stdin or an inherited descriptor.
///
/// # Errors
/// [`SourceError`] naming `origin`.
pub fn read_stream(stream: impl io::Read, origin: &str) -> Result<Token, SourceError> {
    let mut text = Zeroizing::new(String::new());
    let bound = u64::try_from(MAX_TOKEN_BYTES * 2).unwrap_or(u64::MAX);
    stream
        .take(bound)
        .read_to_string(&mut text)
        .map_err(|source| SourceError::Unreadable { path: PathBuf::from(origin), source })?;
    parse(&text, origin.to_owned())
}

/// Reads a secret from a descriptor that whoever started this process left open for it.
///
/// The descriptor itself stays open, since this process starts no others.
///
/// # Errors
/// [`SourceError`] naming the descriptor, also for one that this process has opened itself.
pub fn read_descriptor(number: RawFd) -> Result<Token, SourceError> {
    let origin = format!("fd:{number}");
    let file = inherited(number).map_err(|source| SourceError::Unreadable { path: PathBuf::from(&origin), source })?;
    read_stream(file, &origin)
}

/// A copy of an inherited descriptor. Those that this process opens itself are closed on executing.
fn inherited(number: RawFd) -> io::Result<File> {
    let information = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).map_err(|_| Errno::BADF)?;
    let flags = information.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or_default();
    if OFlags::from_bits_retain(flags).contains(OFlags::CLOEXEC) {
        return Err(Errno::BADF.into());
    }
    let copy = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|process| pidfd_getfd(process, number, PidfdGetfdFlags::empty()));
    match copy {
        Ok(copy) => Ok(copy.into()),
        // Old kernels and containers do not have that; to open it again takes the right to.
        Err(_) => File::open(format!("/proc/self/fd/{number}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(content: &str, mode: u32) -> (tempfile::TempDir, Source) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, Source::File(path))
    }

    #[test]
    fn the_line_end_of_a_token_file_does_not_count() {
        let (_directory, source) = file_with("  glrt-abc\r\n", 0o600);
        assert_eq!(source.read().unwrap().expose(), "glrt-abc");
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        for mode in [0o620, 0o602, 0o666] {
            let (_directory, source) = file_with("glrt-abc", mode);
            assert!(matches!(source.read(), Err(SourceError::WritableByOthers { .. })), "{mode:o}");
        }
    }

    #[test]
    fn a_file_that_everybody_can_read_is_remarked_on() {
        let (_directory, source) = file_with("glrt-abc", 0o644);
        assert!(source.remark().unwrap().contains("0644"));
        let (_directory, source) = file_with("glrt-abc", 0o640);
        assert_eq!(source.remark(), None);
    }

    #[test]
    fn a_file_of_another_user_is_remarked_on_where_root_uses_it() {
        let remark = |owner, user| exposure(Path::new("token"), 0o600, owner, user);
        assert!(remark(1000, 0).unwrap().contains("user 1000"));
        assert_eq!((remark(0, 0), remark(1000, 1000), remark(0, 1000), remark(1000, 65534)), (None, None, None, None));
    }

    #[test]
    fn a_descriptor_that_was_not_inherited_is_none() {
        use std::os::fd::AsRawFd as _;
        let (directory, _) = file_with("glrt-abc", 0o600);
        let own = File::open(directory.path().join("token")).unwrap();
        for number in [own.as_raw_fd(), 1_000_000, -1] {
            assert!(matches!(read_descriptor(number), Err(SourceError::Unreadable { .. })), "{number}");
        }
        rustix::io::fcntl_setfd(&own, rustix::io::FdFlags::empty()).unwrap();
        assert_eq!(read_descriptor(own.as_raw_fd()).unwrap().expose(), "glrt-abc");
    }

    #[test]
    fn an_error_never_shows_the_content() {
        let (_directory, source) = file_with("two words", 0o600);
        let error = source.read().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("words"));
    }
}
