//! Hands secrets over to the same program, executed once more by the same process.
//!
//! What a process was started with can be read in `/proc/PID/environ` and `/proc/PID/cmdline` as long as it
//! lives; removing a variable changes nothing there. So the process executes itself again without its
//! secrets and sends them ahead through a socket that takes the place of stdin. The real stdin travels in
//! the same message and is put back by [`take`], so that nothing of the socket is left.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use zeroize::Zeroizing;

use super::Token;

/// What a process is started with.
#[derive(Clone, Default)]
pub struct Launch {
    /// The command line, the program's name first.
    pub words: Vec<OsString>,
    /// The environment.
    pub variables: BTreeMap<OsString, OsString>,
}

/// What shall be shown neither by the command line nor by the environment.
#[derive(Clone, Debug, Default)]
pub struct Hidden {
    /// Secrets that stand in words, alone or as a part.
    pub secrets: Vec<Token>,
    /// The names of variables that are secret.
    pub variables: Vec<OsString>,
}

/// The variable that says that something was handed over: to the process of this number, which executing
/// keeps. So it means nothing to another process that inherits it.
const MARKER: &str = "RUNNER_AGENT_HANDED_OVER_TO";

/// Stands in the command line in place of a secret.
const PLACEHOLDER: &str = "[hidden]";

/// The program that this process executes, whatever became of its file and whatever it was called as.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What the process is called in lists of processes, which would be `exe` after executing [`THIS_PROGRAM`].
const PROCESS_NAME: &std::ffi::CStr = c"runner-agent";

/// Takes back what was handed over, and says whether that was the case. Called once, before anything reads
/// stdin.
///
/// # Errors
/// What the system said, if something was handed over and cannot be had. Then words are missing that the
/// process cannot do without.
pub fn take(launch: &mut Launch) -> io::Result<bool> {
    let marker = launch.variables.remove(OsStr::new(MARKER));
    if marker != Some(own_number()) {
        return Ok(false);
    }
    let (stdin, message) = receive()?;
    rustix::stdio::dup2_stdin(stdin)?;
    let entries = read(&message).ok_or(io::ErrorKind::InvalidData)?;
    for entry in entries {
        entry.put_back(launch).ok_or(io::ErrorKind::InvalidData)?;
    }
    // Only what it is called: everything else works under any name.
    let _unnamed = rustix::thread::set_name(PROCESS_NAME);
    Ok(true)
}

/// Executes this program again without what is to be hidden, and hands that over. Does nothing if nothing
/// is to be hidden.
///
/// # Errors
/// What the system said, if it cannot be done; then everything is as before.
pub fn execute_again(launch: &Launch, hidden: &Hidden) -> io::Result<()> {
    let (shown, entries) = hide(launch, hidden);
    if entries.is_empty() {
        return Ok(());
    }
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let socket = send(&stdin, &write(&entries))?;
    rustix::stdio::dup2_stdin(&socket)?;
    let mut words = shown.words.into_iter();
    let mut command = Command::new(THIS_PROGRAM);
    command.arg0(words.next().unwrap_or_default()).args(words);
    command.env_clear().envs(shown.variables).env(MARKER, own_number());
    let error = command.exec();
    rustix::stdio::dup2_stdin(stdin)?;
    Err(error)
}

fn own_number() -> OsString {
    std::process::id().to_string().into()
}

/// One thing that is handed over.
#[cfg_attr(test, derive(Debug, PartialEq, Eq))]
enum Entry<'a> {
    Word { position: usize, word: &'a OsStr },
    Variable { name: &'a OsStr, value: &'a OsStr },
}

impl Entry<'_> {
    fn put_back(&self, launch: &mut Launch) -> Option<()> {
        match self {
            Self::Word { position, word } => *launch.words.get_mut(*position)? = (*word).to_owned(),
            Self::Variable { name, value } => {
                launch.variables.insert((*name).to_owned(), (*value).to_owned());
            }
        }
        Some(())
    }
}

/// Parts what can be shown from what cannot.
fn hide<'a>(launch: &'a Launch, hidden: &Hidden) -> (Launch, Vec<Entry<'a>>) {
    let mut shown = launch.clone();
    let mut entries = Vec::new();
    // The first word is what the process is called.
    for (position, word) in launch.words.iter().enumerate().skip(1) {
        let bytes = hidden.secrets.iter().fold(word.as_bytes().to_vec(), |bytes, secret| without(&bytes, secret));
        if bytes != word.as_bytes() {
            shown.words[position] = OsString::from_vec(bytes);
            entries.push(Entry::Word { position, word });
        }
    }
    for (name, value) in &launch.variables {
        let is_secret = |secret: &Token| value.as_bytes().trim_ascii() == secret.expose().as_bytes();
        if hidden.variables.contains(name) || hidden.secrets.iter().any(is_secret) {
            shown.variables.remove(name);
            entries.push(Entry::Variable { name, value });
        }
    }
    (shown, entries)
}

/// Replaces a secret wherever it stands.
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

/// Two texts for each entry, each ended by a NUL, which neither words nor variables can hold.
fn write(entries: &[Entry<'_>]) -> Zeroizing<Vec<u8>> {
    let mut message = Zeroizing::new(Vec::new());
    for entry in entries {
        match entry {
            Entry::Word { position, word } => {
                message.extend(position.to_string().as_bytes());
                message.push(0);
                message.extend(word.as_bytes());
            }
            Entry::Variable { name, value } => {
                message.push(b'$');
                message.extend(name.as_bytes());
                message.push(0);
                message.extend(value.as_bytes());
            }
        }
        message.push(0);
    }
    message
}

fn read(message: &[u8]) -> Option<Vec<Entry<'_>>> {
    let texts: Vec<_> = message.strip_suffix(b"\0")?.split(|byte| *byte == 0).collect();
    let pairs = texts.chunks(2).map(|pair| match pair {
        [name, value] => entry(name, value),
        _ => None,
    });
    pairs.collect()
}

fn entry<'a>(name: &'a [u8], text: &'a [u8]) -> Option<Entry<'a>> {
    match name.strip_prefix(b"$") {
        Some(name) => Some(Entry::Variable { name: OsStr::from_bytes(name), value: OsStr::from_bytes(text) }),
        None => {
            let position = std::str::from_utf8(name).ok()?.parse().ok()?;
            Some(Entry::Word { position, word: OsStr::from_bytes(text) })
        }
    }
}

/// The end of a socket at which a message and a file wait.
fn send(file: &OwnedFd, message: &[u8]) -> io::Result<UnixStream> {
    let (near, far) = UnixStream::pair()?;
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&files));
    // Nobody reads before all is sent, so that waiting for room would be for ever.
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = rustix::net::sendmsg(&near, &[IoSlice::new(message)], &mut ancillary, flags)?;
    if sent == message.len() { Ok(far) } else { Err(io::ErrorKind::FileTooLarge.into()) }
}

/// Takes file and message from the socket that stands in place of stdin.
fn receive() -> io::Result<(OwnedFd, Zeroizing<Vec<u8>>)> {
    let socket = io::stdin();
    let mut file = None;
    let mut message = Zeroizing::new(Vec::new());
    let mut buffer = Zeroizing::new([0; 4096]);
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut *buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let count = rustix::net::recvmsg(&socket, &mut parts, &mut ancillary, flags)?.bytes;
        for received in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = received {
                file = file.or(files.last());
            }
        }
        if count == 0 {
            break;
        }
        message.extend(&buffer[..count]);
    }
    Ok((file.ok_or(io::ErrorKind::UnexpectedEof)?, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(words: &[&str], variables: &[(&str, &str)]) -> Launch {
        Launch {
            words: words.iter().map(OsString::from).collect(),
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
    fn what_is_hidden_is_not_shown_and_comes_back_as_it_was() {
        let before = launch(
            &["agent", "verify", "--token", "glrt-abc", "-tglrt-abc", "--token=glrt-abc", "--set", "x=\"glrt-abc\""],
            &[("CI_SERVER_TOKEN", "  glrt-def\n"), ("COPY", "glrt-abc"), ("HOME", "/home/glrt-abc"), ("EMPTY", "")],
        );
        let (mut shown, entries) = hide(&before, &hidden(&["glrt-abc"], &["CI_SERVER_TOKEN"]));
        assert_eq!(
            shown.words,
            ["agent", "verify", "--token", "[hidden]", "-t[hidden]", "--token=[hidden]", "--set", "x=\"[hidden]\""]
        );
        assert_eq!(shown.variables.keys().collect::<Vec<_>>(), ["EMPTY", "HOME"]);
        for entry in read(&write(&entries)).unwrap() {
            entry.put_back(&mut shown).unwrap();
        }
        assert!(shown.words == before.words && shown.variables == before.variables);
    }

    #[test]
    fn nothing_to_hide_is_nothing_to_do() {
        let launch = launch(&["glrt-abc", "list"], &[("HOME", "/")]);
        assert!(hide(&launch, &hidden(&["glrt-abc"], &["CI_SERVER_TOKEN"])).1.is_empty());
    }

    #[test]
    fn a_message_that_is_none_is_refused() {
        for message in [&b""[..], b"1\0", b"1\0a", b"x\0a\0", b"\0", b"1\0a\0b\0"] {
            assert_eq!(read(message), None, "{message:?}");
        }
        let outside = Entry::Word { position: 7, word: OsStr::new("a") };
        assert_eq!(outside.put_back(&mut launch(&["agent"], &[])), None);
    }

    #[test]
    fn a_marker_for_another_process_means_nothing() {
        let mut launch = launch(&["agent"], &[(MARKER, "0")]);
        assert!(!take(&mut launch).unwrap());
        assert!(launch.variables.is_empty());
    }
}
