use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use super::*;

struct Here {
    directory: tempfile::TempDir,
}

impl Here {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// The root of this test, behind all links.
    fn root(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name).unwrap();
        path
    }
}

#[test]
fn a_path_is_resolved_through_links_of_ones_own() {
    let here = Here::new();
    let file = here.file("real/config.toml");
    fs::create_dir(here.path("links")).unwrap();
    symlink("../real/config.toml", here.path("links/relative")).unwrap();
    symlink(&file, here.path("links/absolute")).unwrap();
    symlink("../real", here.path("links/directory")).unwrap();
    symlink("directory/../relative", here.path("links/chain")).unwrap();
    symlink("../links/relative", here.path("real/up")).unwrap();
    for path in [
        "real/config.toml",
        "links/relative",
        "links/absolute",
        "links/directory/config.toml",
        "links/directory/up",
        "links/../real/config.toml",
        "real/./config.toml",
    ] {
        let place = Place::find(&here.path(path)).unwrap();
        assert_eq!(place.path(), file, "{path}");
        assert_eq!(place.open(Access::Read).unwrap().read(100).unwrap(), b"real/config.toml", "{path}");
        assert_eq!(resolve(&here.path(path)).unwrap(), file, "{path}");
    }
    // `directory/..` is the directory above the real one.
    assert!(Place::find(&here.path("links/chain")).is_ok_and(|place| place.path() == here.path("relative")));
}

#[test]
fn a_missing_file_has_a_place_and_a_missing_directory_has_none() {
    let here = Here::new();
    here.file("real/other");
    symlink("real/config.toml", here.path("link")).unwrap();
    for path in ["real/config.toml", "link"] {
        let place = Place::find(&here.path(path)).unwrap();
        assert_eq!(place.path(), here.path("real/config.toml"));
        assert!(!place.exists().unwrap());
    }
    let missing = Place::find(&here.path("nowhere/config.toml")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    assert_eq!(resolve(&here.path("nowhere/below/config.toml")).unwrap(), here.path("nowhere/below/config.toml"));
    make_directories(&here.path("nowhere/below")).unwrap();
    make_directories(&here.path("nowhere/below")).unwrap();
    assert_eq!(fs::metadata(here.path("nowhere")).unwrap().permissions().mode() & 0o777, 0o700);
    make_directories(&here.path("real/other")).unwrap_err();
}

#[test]
fn links_in_a_circle_end() {
    let here = Here::new();
    symlink("other", here.path("one")).unwrap();
    symlink("one", here.path("other")).unwrap();
    assert!(Place::find(&here.path("one")).unwrap_err().to_string().contains("too many"));
}

#[test]
fn a_place_stays_where_it_was_although_its_directory_is_replaced() {
    let here = Here::new();
    here.file("real/config.toml");
    here.file("other/config.toml");
    let place = Place::find(&here.path("real/config.toml")).unwrap();
    fs::rename(here.path("real"), here.path("moved")).unwrap();
    symlink("other", here.path("real")).unwrap();
    let made = place.beside("tmp");
    drop(made.create().unwrap());
    made.rename(&place).unwrap();
    assert_eq!(fs::read(here.path("moved/config.toml")).unwrap(), b"");
    assert_eq!(fs::read(here.path("other/config.toml")).unwrap(), b"other/config.toml");
}

#[test]
fn what_takes_the_place_of_a_file_is_neither_followed_nor_waited_for() {
    let here = Here::new();
    let path = here.file("config.toml");
    let place = Place::find(&path).unwrap();
    let replace_by = |make: &dyn Fn()| {
        fs::remove_file(&path).unwrap();
        make();
        let opened =
            [Access::Read, Access::Write, Access::Both].map(|access| place.open(access).unwrap_err().to_string());
        opened.join("; ")
    };
    here.file("secret");
    assert!(replace_by(&|| symlink(here.path("secret"), &path).unwrap()).contains("symbolic link"));
    let pipe = || {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    };
    assert_eq!(replace_by(&pipe).matches("not a regular file").count(), 3);
    fs::remove_file(&path).unwrap();
    symlink("/proc/version", &path).unwrap();
    assert!(read(&path, 1000).unwrap_err().to_string().contains("of the kernel"));
}

#[test]
fn a_file_above_the_limit_is_not_read() {
    let here = Here::new();
    let path = here.file("config.toml");
    let sparse = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for (length, is_read) in [(100, true), (101, false), (1 << 40, false)] {
        sparse.set_len(length).unwrap();
        assert_eq!(read(&path, 100).is_ok(), is_read, "{length}");
    }
}

#[test]
fn the_agents_own_files_are_not_in_a_directory_that_others_can_write() {
    let here = Here::new();
    let path = here.file("state/record.json");
    for (mode, is_own) in [(0o700, true), (0o755, true), (0o770, false), (0o777, false), (0o1777, false)] {
        fs::set_permissions(here.path("state"), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(Place::own(&path).is_ok(), is_own, "{mode:o}");
    }
    fs::set_permissions(here.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink(here.file("elsewhere"), here.path("state/link")).unwrap();
    Place::own(&here.path("state/link")).unwrap().open(Access::Read).unwrap_err();
}
