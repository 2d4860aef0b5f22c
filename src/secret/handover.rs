//! Removes secrets from the command line and environment by executing the program again.
//!
//! `/proc/PID/environ` and `/proc/PID/cmdline` show the initial values for the whole life of a process, even after
//! a variable is removed. So the process executes itself again without its secrets and sends them ahead, in a file in
//! memory, through a socket in place of stdin. The same message carries the real stdin, which [`take`] restores.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use zeroize::Zeroizing;

use super::Token;

/// Command line and environment of a process.
#[derive(Clone, Default)]
pub struct Launch {
    /// The command line, starting with the program name.
    pub arguments: Vec<OsString>,
    /// The environment.
    pub variables: BTreeMap<OsString, OsString>,
}

/// Secrets to remove from command line and environment.
#[derive(Clone, Debug, Default)]
pub struct Hidden {
    /// Secrets in arguments, as a whole or a part.
    pub secrets: Vec<Token>,
    /// Names of variables that hold secrets.
    pub variables: Vec<OsString>,
}

/// Variable that announces secrets on stdin. It holds the id of this process, which stays the same across the
/// execution, so child processes that inherit the variable ignore it.
const MARKER: &str = "RUNNER_AGENT_HANDED_OVER_TO";

/// Replaces a secret in the command line.
const PLACEHOLDER: &str = "[hidden]";

/// The length from which a secret within a variable counts as a copy: a shorter one may be an ordinary word.
const MIN_COPIED_LENGTH: usize = 12;

/// The running program, even if its file was moved or replaced.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Name of the process in process lists. Without it, executing [`THIS_PROGRAM`] would make it `exe`.
const PROCESS_NAME: &std::ffi::CStr = c"runner-agent";

/// Receives the secrets of the first execution and restores `launch`; returns whether there was one. Call once,
/// before stdin is read.
///
/// # Errors
/// The announced secrets cannot be received; the process cannot continue without them.
pub fn take(launch: &mut Launch) -> io::Result<bool> {
    let marker = launch.variables.remove(OsStr::new(MARKER));
    if marker != Some(process_id()) {
        return Ok(false);
    }
    let (stdin, message) = receive()?;
    rustix::stdio::dup2_stdin(stdin)?;
    for item in read(&message).ok_or(io::ErrorKind::InvalidData)? {
        item.restore(launch).ok_or(io::ErrorKind::InvalidData)?;
    }
    // A failure only affects process lists.
    let _unnamed = rustix::thread::set_name(PROCESS_NAME);
    Ok(true)
}

/// Executes this program again without its secrets and passes them on. Returns if there are none.
///
/// # Errors
/// The system refuses; command line, environment and stdin are unchanged.
pub fn execute_again(launch: &Launch, hidden: &Hidden) -> io::Result<()> {
    let (shown, items) = hide(launch, hidden);
    if items.is_empty() {
        return Ok(());
    }
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let socket = send(&stdin, &write(&items))?;
    rustix::stdio::dup2_stdin(&socket)?;
    let mut arguments = shown.arguments.into_iter();
    let mut command = Command::new(THIS_PROGRAM);
    command.arg0(arguments.next().unwrap_or_default()).args(arguments);
    command.env_clear().envs(shown.variables).env(MARKER, process_id());
    let error = command.exec();
    rustix::stdio::dup2_stdin(stdin)?;
    Err(error)
}

fn process_id() -> OsString {
    std::process::id().to_string().into()
}

/// One argument or variable with a secret.
#[cfg_attr(test, derive(Debug, PartialEq, Eq))]
enum HiddenItem<'a> {
    Argument { position: usize, argument: &'a OsStr },
    Variable { name: &'a OsStr, value: &'a OsStr },
}

impl HiddenItem<'_> {
    fn restore(&self, launch: &mut Launch) -> Option<()> {
        match self {
            Self::Argument { position, argument } => *launch.arguments.get_mut(*position)? = (*argument).to_owned(),
            Self::Variable { name, value } => {
                launch.variables.insert((*name).to_owned(), (*value).to_owned());
            }
        }
        Some(())
    }
}

/// Splits a launch into what can be shown and the items with secrets.
fn hide<'a>(launch: &'a Launch, hidden: &Hidden) -> (Launch, Vec<HiddenItem<'a>>) {
    let mut shown = launch.clone();
    let mut items = Vec::new();
    // The first argument is the program name.
    for (position, argument) in launch.arguments.iter().enumerate().skip(1) {
        let bytes = hidden.secrets.iter().fold(argument.as_bytes().to_vec(), |bytes, secret| without(&bytes, secret));
        if bytes != argument.as_bytes() {
            shown.arguments[position] = OsString::from_vec(bytes);
            items.push(HiddenItem::Argument { position, argument });
        }
    }
    for (name, value) in &launch.variables {
        let is_secret = |secret: &Token| has_copy(value.as_bytes(), secret.expose().as_bytes());
        if hidden.variables.contains(name) || hidden.secrets.iter().any(is_secret) {
            shown.variables.remove(name);
            items.push(HiddenItem::Variable { name, value });
        }
    }
    (shown, items)
}

/// Whether a value is a secret, or has a copy of one that is too long for an ordinary word.
#[must_use]
pub fn has_copy(value: &[u8], secret: &[u8]) -> bool {
    let is_long = secret.len() >= MIN_COPIED_LENGTH;
    value.trim_ascii() == secret || is_long && value.windows(secret.len()).any(|part| part == secret)
}

/// Replaces each occurrence of a secret.
fn without(mut bytes: &[u8], secret: &Token) -> Vec<u8> {
    let secret = secret.expose().as_bytes();
    let mut shown = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        match bytes.strip_prefix(secret) {
            Some(rest) => {
                shown.extend(PLACEHOLDER.as_bytes());
                bytes = rest;
            }
            None => {
                shown.push(*first);
                bytes = rest;
            }
        }
    }
    shown
}

/// Encodes two strings for each item, each ended by NUL, which arguments and variables cannot contain.
fn write(items: &[HiddenItem<'_>]) -> Zeroizing<Vec<u8>> {
    let mut message = Zeroizing::new(Vec::new());
    for item in items {
        let (name, value) = match item {
            HiddenItem::Argument { position, argument } => (position.to_string().into_bytes(), argument),
            HiddenItem::Variable { name, value } => ([b"$", name.as_bytes()].concat(), value),
        };
        for text in [&name, value.as_bytes()] {
            message.extend(text);
            message.push(0);
        }
    }
    message
}

fn read(message: &[u8]) -> Option<Vec<HiddenItem<'_>>> {
    let texts: Vec<_> = message.strip_suffix(b"\0")?.split(|byte| *byte == 0).collect();
    let pairs = texts.chunks(2).map(|pair| match pair {
        [name, value] => item(name, value),
        _ => None,
    });
    pairs.collect()
}

fn item<'a>(name: &'a [u8], text: &'a [u8]) -> Option<HiddenItem<'a>> {
    match name.strip_prefix(b"$") {
        Some(name) => Some(HiddenItem::Variable { name: OsStr::from_bytes(name), value: OsStr::from_bytes(text) }),
        None => {
            let position = std::str::from_utf8(name).ok()?.parse().ok()?;
            Some(HiddenItem::Argument { position, argument: OsStr::from_bytes(text) })
        }
    }
}

/// Sends a message, however long, and a file; returns the socket to receive them from.
fn send(file: &OwnedFd, message: &[u8]) -> io::Result<UnixStream> {
    let (near, far) = UnixStream::pair()?;
    let mut content = File::from(memfd_create(c"secrets", MemfdFlags::CLOEXEC)?);
    content.write_all(message)?;
    content.rewind()?;
    let files = [file.as_fd(), content.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&files));
    // There is no reader yet, so waiting for buffer space would block forever.
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(&near, &[IoSlice::new(&[0])], &mut ancillary, flags)?;
    Ok(far)
}

/// Receives file and message from the socket in place of stdin.
fn receive() -> io::Result<(OwnedFd, Zeroizing<Vec<u8>>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    rustix::net::recvmsg(io::stdin(), &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)?;
    let files: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|received| match received {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        })
        .flatten()
        .collect();
    let [file, content] = <[OwnedFd; 2]>::try_from(files).map_err(|_| io::ErrorKind::UnexpectedEof)?;
    let mut content = File::from(content);
    // Room for all of it: a buffer that grows leaves copies behind.
    let length = usize::try_from(content.metadata()?.len()).unwrap_or_default();
    let mut message = Zeroizing::new(Vec::with_capacity(length + 1));
    content.read_to_end(&mut message)?;
    Ok((file, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(arguments: &[&str], variables: &[(&str, &str)]) -> Launch {
        Launch {
            arguments: arguments.iter().map(OsString::from).collect(),
            variables: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        }
    }

    fn hidden(secrets: &[&str], variables: &[&str]) -> Hidden {
        Hidden {
            secrets: secrets.iter().map(|secret| Token::parse(secret).unwrap()).collect(),
            variables: variables.iter().map(OsString::from).collect(),
        }
    }

    #[test]
    fn secrets_are_hidden_and_restored() {
        let before = launch(
            &["agent", "verify", "--token", "glrt-abc", "-tglrt-abc", "--token=glrt-abc", "--set", "x=\"glrt-abc\""],
            &[("CI_SERVER_TOKEN", "  glrt-def\n"), ("COPY", "glrt-abc"), ("HOME", "/home/glrt-abc"), ("EMPTY", "")],
        );
        let (mut shown, items) = hide(&before, &hidden(&["glrt-abc"], &["CI_SERVER_TOKEN"]));
        assert_eq!(
            shown.arguments,
            ["agent", "verify", "--token", "[hidden]", "-t[hidden]", "--token=[hidden]", "--set", "x=\"[hidden]\""]
        );
        assert_eq!(shown.variables.keys().collect::<Vec<_>>(), ["EMPTY", "HOME"]);
        let copied = launch(&["agent"], &[("COPY", "x glrt-0123456789 y"), ("HOME", "/home/glrt-012345678")]);
        let (others, _) = hide(&copied, &hidden(&["glrt-0123456789"], &[]));
        assert_eq!(others.variables.keys().collect::<Vec<_>>(), ["HOME"]);
        for item in read(&write(&items)).unwrap() {
            item.restore(&mut shown).unwrap();
        }
        assert!(shown.arguments == before.arguments && shown.variables == before.variables);
    }

    #[test]
    fn a_launch_without_secrets_hides_nothing() {
        let launch = launch(&["glrt-abc", "list"], &[("HOME", "/")]);
        assert!(hide(&launch, &hidden(&["glrt-abc"], &["CI_SERVER_TOKEN"])).1.is_empty());
    }

    #[test]
    fn an_invalid_message_is_refused() {
        for message in [&b""[..], b"1\0", b"1\0a", b"x\0a\0", b"\0", b"1\0a\0b\0"] {
            assert_eq!(read(message), None, "{message:?}");
        }
        let outside = HiddenItem::Argument { position: 7, argument: OsStr::new("a") };
        assert_eq!(outside.restore(&mut launch(&["agent"], &[])), None);
    }

    #[test]
    fn a_marker_for_another_process_is_ignored() {
        let mut launch = launch(&["agent"], &[(MARKER, "0")]);
        assert!(!take(&mut launch).unwrap());
        assert!(launch.variables.is_empty());
    }
}
