//! A wall clock of its own for a process, by libfaketime.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The library for programs with threads, below the directory of an architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The library, if it is installed.
pub fn library() -> Option<PathBuf> {
    let architectures = fs::read_dir("/usr/lib").into_iter().flatten().map_while(Result::ok);
    let mut places = architectures.map(|architecture| architecture.path().join(LIBRARY));
    places.find(|library| library.is_file())
}

/// The environment of a process whose wall clock is ahead of the machine's by the offset in a file, whenever the file
/// is written. The other clocks and the times of files stay true.
pub fn environment(library: &Path, offset: &Path) -> [(&'static str, OsString); 5] {
    [
        ("LD_PRELOAD", library.into()),
        ("FAKETIME_TIMESTAMP_FILE", offset.into()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
        ("NO_FAKE_STAT", "1".into()),
    ]
}

/// Sets the offset in such a file, in seconds. A process that reads it meanwhile finds the former one or this one.
pub fn set_offset(offset: &Path, seconds: i64) {
    let new = offset.with_extension("new");
    fs::write(&new, format!("{seconds:+}\n")).unwrap();
    fs::rename(new, offset).unwrap();
}
