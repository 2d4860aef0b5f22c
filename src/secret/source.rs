//! Sources of secrets, read at each use, so a replaced file takes effect.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use zeroize::Zeroizing;

use super::{MAX_TOKEN_BYTES, Password, Token, TokenError, TokenPurpose, WrongTokenClass, without_tokens};
use crate::files::{Access, Exposure, FileUse, Place, explain, how_to_hide, read_within_limit};

/// The source of one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file; white space around the secret is ignored.
    File(PathBuf),
    /// A systemd credential: the file of this name in `$CREDENTIALS_DIRECTORY`, resolved by settings.
    Credential {
        /// The name in the unit's `LoadCredential=`.
        name: String,
        /// `$CREDENTIALS_DIRECTORY/name`; `None` if systemd passed no credentials.
        path: Option<PathBuf>,
    },
    /// A value that was already read, with its origin (`REGISTRATION_TOKEN`, `stdin`).
    Value {
        /// The secret.
        token: Token,
        /// Its origin, for messages.
        origin: String,
    },
}

/// Why a secret could not be read; never contains it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file is missing, unreadable or not a regular file.
    #[error("cannot read the token file `{}`", shown(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another user could have written the secret.
    #[error("the token file `{}` is refused: {exposure}", shown(path))]
    Exposed {
        /// The file.
        path: PathBuf,
        /// How.
        exposure: Exposure,
    },
    /// systemd passed no credentials to this process.
    #[error("systemd credential `{0}` is missing: it is there in the unit alone, by LoadCredential={0}:PATH")]
    NoCredential(String),
    /// The content is not a token.
    #[error("{origin} does not hold a token")]
    Invalid {
        /// The source.
        origin: String,
        /// Why it is invalid.
        source: TokenError,
    },
    /// The token is of another class than its place takes.
    #[error("{origin}: {wrong}")]
    WrongClass {
        /// The source.
        origin: String,
        /// The class, and what is needed.
        wrong: WrongTokenClass,
    },
    /// The content is not a password.
    #[error("{origin} does not hold a password: it is empty, or has a control character")]
    NoPassword {
        /// The source.
        origin: String,
    },
}

/// A path for messages: a person may have given a token in its place.
fn shown(path: &Path) -> String {
    without_tokens(&path.to_string_lossy())
}

impl Source {
    /// Returns a warning about a usable file that all users can read. None about a file that does not answer.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let path = match self {
            Self::File(path) | Self::Credential { path: Some(path), .. } => path,
            Self::Credential { path: None, .. } | Self::Value { .. } => return None,
        };
        let file = path.clone();
        let metadata = read_within_limit(path, move || metadata_of_file(&file));
        let found = metadata.ok()?.ok().flatten()?;
        let mode = found.mode() & 0o7777;
        (mode & 0o004 != 0).then(|| {
            let remedy = how_to_hide(path, found.uid(), found.gid(), mode);
            format!("all users can read the token file `{}` (mode {mode:04o}): {remedy}", path.display())
        })
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// [`SourceError`] naming the source, never its content. A file that does not answer is one in the daemon.
    pub fn read(&self) -> Result<Token, SourceError> {
        match self {
            Self::Value { token, .. } => Ok(token.clone()),
            Self::File(_) | Self::Credential { .. } => parse(&self.read_text()?, self.origin()),
        }
    }

    /// Reads a token that must serve a purpose.
    ///
    /// # Errors
    /// As [`Source::read`], and [`SourceError::WrongClass`].
    pub fn read_for(&self, purpose: TokenPurpose) -> Result<Token, SourceError> {
        let token = self.read()?;
        match purpose.check(&token) {
            Ok(()) => Ok(token),
            Err(wrong) => Err(SourceError::WrongClass { origin: self.origin(), wrong }),
        }
    }

    /// Reads a password, which may have other characters than a token, white space within it too.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn read_password(&self) -> Result<Password, SourceError> {
        let text = self.read_text()?;
        Password::parse(text.trim()).ok_or_else(|| SourceError::NoPassword { origin: self.origin() })
    }

    fn read_text(&self) -> Result<Zeroizing<String>, SourceError> {
        match self {
            Self::File(path) | Self::Credential { path: Some(path), .. } => read_limited(path),
            Self::Credential { name, path: None } => Err(SourceError::NoCredential(name.clone())),
            Self::Value { token, .. } => Ok(Zeroizing::new(token.expose().to_owned())),
        }
    }

    /// The path of its file, or the name of its credential or variable.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::File(path) => shown(path),
            Self::Credential { name, .. } => name.clone(),
            Self::Value { origin, .. } => origin.rsplit(' ').next().unwrap_or_default().to_owned(),
        }
    }

    /// What it is, for messages: "the file `…`".
    #[must_use]
    pub fn origin(&self) -> String {
        match self {
            Self::File(path) => format!("the file `{}`", shown(path)),
            Self::Credential { name, .. } => format!("the systemd credential `{name}`"),
            Self::Value { origin, .. } => origin.clone(),
        }
    }
}

/// The metadata of a regular file.
fn metadata_of_file(path: &Path) -> io::Result<Option<Metadata>> {
    let metadata = Place::find(path)?.metadata()?;
    Ok(metadata.is_file().then_some(metadata))
}

/// Parses the content of a file or stdin.
///
/// # Errors
/// [`SourceError::Invalid`] naming `origin`.
fn parse(text: &str, origin: String) -> Result<Token, SourceError> {
    Token::parse(text.trim()).map_err(|source| SourceError::Invalid { origin, source })
}

/// Reads a file. The thread that serves all runners does not wait for a disk or network share.
fn read_limited(path: &Path) -> Result<Zeroizing<String>, SourceError> {
    let file = path.to_owned();
    let read = read_within_limit(path, move || read_file(&file));
    read.unwrap_or_else(|source| Err(SourceError::Unreadable { path: path.to_owned(), source }))
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, SourceError> {
    let unreadable = |error| {
        // What a person gave in the place of the path is not repeated.
        let has_token = shown(path) != path.to_string_lossy();
        let source = if has_token { error } else { explain(path, FileUse::Secret, error) };
        SourceError::Unreadable { path: path.to_owned(), source }
    };
    // A descriptor from the shell may be a pipe, which has a writer.
    let is_descriptor = ["/dev/fd/", "/dev/stdin", "/proc/self/fd/"].iter().any(|place| path.starts_with(place));
    if is_descriptor {
        #[expect(clippy::disallowed_methods, reason = "it is open already")]
        let file = File::open(path).map_err(unreadable)?;
        return read_text(file).map_err(unreadable);
    }
    let opened = Place::find(path).and_then(|place| place.open(Access::Read)).map_err(unreadable)?;
    if let Some(exposure) = opened.exposure() {
        return Err(SourceError::Exposed { path: path.to_owned(), exposure });
    }
    read_text(opened.file).map_err(unreadable)
}

/// Reads a text that may have white space around a token, but not much more.
fn read_text(stream: impl io::Read) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let bound = u64::try_from(MAX_TOKEN_BYTES * 2).unwrap_or(u64::MAX);
    stream.take(bound).read_to_string(&mut text)?;
    Ok(text)
}

/// Reads a secret from an open stream, such as stdin or an inherited descriptor.
///
/// # Errors
/// [`SourceError`] naming `origin`.
pub fn read_stream(stream: impl io::Read, origin: &str) -> Result<Token, SourceError> {
    let unreadable = |source| SourceError::Unreadable { path: PathBuf::from(origin), source };
    parse(&read_text(stream).map_err(unreadable)?, origin.to_owned())
}

/// Reads a secret from an inherited descriptor.
///
/// The descriptor stays open; a command that reads one starts no children that could inherit it.
///
/// # Errors
/// [`SourceError`] naming the descriptor, also for one that this process opened itself.
pub fn read_descriptor(number: RawFd) -> Result<Token, SourceError> {
    let origin = format!("fd:{number}");
    let file = inherited(number).map_err(|source| SourceError::Unreadable { path: PathBuf::from(&origin), source })?;
    read_stream(file, &origin)
}

/// Copies an inherited descriptor. A descriptor that this process opened itself has the close-on-exec flag.
#[expect(clippy::disallowed_methods, reason = "files of the kernel about this process")]
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
        // Old kernels and some containers lack pidfd; opening the file again needs permission to.
        Err(_) => File::open(format!("/proc/self/fd/{number}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file_with(content: &str, mode: u32) -> (tempfile::TempDir, Source) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, Source::File(path))
    }

    #[test]
    fn white_space_in_a_token_file_is_ignored() {
        let (_directory, source) = file_with("  glrt-abc\r\n", 0o600);
        assert_eq!(source.read().unwrap().expose(), "glrt-abc");
    }

    #[test]
    fn password_keeps_the_characters_that_no_token_has() {
        for password in ["pa$$word", "two words", "'single' \"double\" \\ `back`", "pässwörd ✓", "glrt-abc"] {
            let (_directory, source) = file_with(&format!("{password}\n"), 0o600);
            let read = source.read_password().unwrap();
            assert_eq!(read.expose(), password);
            assert!(!format!("{read:?}").contains(password));
        }
        for wrong in ["", "\n", "two\nlines", "a\u{0}b"] {
            let (_directory, source) = file_with(wrong, 0o600);
            let error = source.read_password().unwrap_err();
            assert!(error.to_string().contains("does not hold a password"), "{error}");
        }
    }

    #[test]
    fn a_file_writable_by_others_is_refused() {
        for mode in [0o620, 0o602, 0o666] {
            let (_directory, source) = file_with("glrt-abc", mode);
            assert!(
                matches!(source.read(), Err(SourceError::Exposed { exposure: Exposure::Writable { .. }, .. })),
                "{mode:o}"
            );
        }
    }

    #[test]
    fn a_token_in_the_place_of_a_files_name_is_not_shown() {
        let error = Source::File("/etc/runner-agent/glrt-0123456789abcdefghij".into()).read().unwrap_err();
        assert_eq!(error.to_string(), "cannot read the token file `/etc/runner-agent/[token]`");
    }

    #[test]
    fn a_file_readable_by_all_users_causes_a_warning() {
        let (_directory, source) = file_with("glrt-abc", 0o644);
        assert!(source.warning().unwrap().contains("0644"));
        let (_directory, source) = file_with("glrt-abc", 0o640);
        assert_eq!(source.warning(), None);
    }

    #[test]
    fn a_descriptor_that_was_not_inherited_is_refused() {
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
    fn an_error_never_contains_the_content() {
        let (_directory, source) = file_with("two words", 0o600);
        let error = source.read().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("words"));
    }
}
