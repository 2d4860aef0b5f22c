//! Keeps entries that were removed from config.toml.

use std::path::{Path, PathBuf};

use super::entry_text::EntryText;
use super::error::Error;
use super::files::{make_directory, own, replace};
use super::locks::lock_own_directory;
use crate::model::Timestamp;

/// Maximum length of a runner's name in a file name, in characters.
const MAX_LABEL_CHARS: usize = 64;

/// One temporary name for all: a crash leaves at most one such file, and the next write replaces it.
const TEMPORARY: &str = ".entry.runner-agent.tmp";

/// Writes a text durably under an unused name and returns the path.
pub(super) fn keep(directory: &Path, label: &str, text: &EntryText, at: Timestamp) -> Result<Option<PathBuf>, Error> {
    make_directory(directory)?;
    let _lock = lock_own_directory(directory)?;
    for path in names(directory, label, at) {
        let place = own("create", &path)?;
        if !place.exists().map_err(Error::io("read", &path))? {
            replace(&place, place.sibling(TEMPORARY), text.expose().as_bytes())?;
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// `20260101T000000Z-NAME.toml`, then `-2`, `-3` and so on.
fn names(directory: &Path, label: &str, at: Timestamp) -> impl Iterator<Item = PathBuf> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    let label: String = label.chars().map(plain).take(MAX_LABEL_CHARS).collect();
    let at = at.whole_seconds().to_string().replace([':', '-'], "");
    (1..).map(move |number: u32| match number {
        1 => directory.join(format!("{at}-{label}.toml")),
        number => directory.join(format!("{at}-{label}-{number}.toml")),
    })
}
