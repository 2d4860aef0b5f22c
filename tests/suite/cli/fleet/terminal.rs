//! Output on a terminal: table width, colours, and confirmation.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Stdio;

use fake_gitlab::{Endpoint, NewRunner};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use unicode_width::UnicodeWidthStr as _;

use super::Site;

/// The width of the terminal, in columns.
const COLUMNS: u16 = 60;

/// Runs `fleet` on a terminal, types an answer to the confirmation, and returns everything printed.
fn at_terminal(site: &Site, args: &[&str], answer: &str, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&own).unwrap();
    unlockpt(&own).unwrap();
    let size = Winsize { ws_row: 24, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&own, size).unwrap();
    let name = ptsname(&own, Vec::new()).unwrap().into_string().unwrap();
    let theirs = || File::options().read(true).write(true).open(&name).unwrap();
    let url = site.gitlab().url();
    let mut command = site.sandbox.command(&[&["fleet", "--url", &url], args].concat());
    command.env("TERM", "xterm").env("GITLAB_TOKEN", &site.access_token).envs(variables.iter().copied());
    command.stdin(Stdio::from(theirs())).stdout(Stdio::from(theirs())).stderr(Stdio::from(theirs()));
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut terminal = File::from(own);
    let mut shown = Vec::new();
    let mut buffer = [0; 4096];
    let mut is_answered = answer.is_empty();
    // On Linux the read fails once the last writer has closed the terminal.
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..count]);
        if !is_answered && String::from_utf8_lossy(&shown).contains("[y/N]") {
            terminal.write_all(answer.as_bytes()).unwrap();
            is_answered = true;
        }
    }
    let code = child.wait().unwrap().code();
    (code, String::from_utf8(shown).unwrap())
}

#[test]
fn table_fits_the_terminal_and_respects_no_color() {
    let site = Site::new();
    let long = "a description of a runner that is wider than any terminal";
    site.gitlab().add_runner(NewRunner::instance().description(long));
    let (code, shown) = at_terminal(&site, &["list", "--all"], "", &[]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("\u{1b}[33mnever contacted\u{1b}[0m") && shown.contains('…'), "{shown}");
    let plain = shown.replace("\u{1b}[33m", "").replace("\u{1b}[0m", "");
    assert!(plain.lines().all(|line| line.width() <= usize::from(COLUMNS)), "{plain}");

    let (_, shown) = at_terminal(&site, &["list", "--all"], "", &[("NO_COLOR", "1")]);
    assert!(!shown.contains('\u{1b}') && shown.contains("never contacted"), "{shown}");
}

#[test]
fn confirmation_is_asked_on_a_terminal() {
    let site = Site::new();
    site.add_runners(3);
    for refusal in ["n\n", "\n", "no\n"] {
        let (code, shown) = at_terminal(&site, &["delete", "--all"], refusal, &[]);
        assert_eq!(code, Some(1), "{shown}");
        assert!(shown.contains("This will delete these 3 runners") && shown.contains("nothing was changed"), "{shown}");
    }
    assert_eq!((site.gitlab().runners().len(), site.gitlab().requests_to(Endpoint::DeleteById).len()), (3, 0));
    let (code, shown) = at_terminal(&site, &["delete", "--all"], "y\n", &[]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains(" of 3 runners"), "{shown}");
    assert!(site.gitlab().runners().is_empty());
}
