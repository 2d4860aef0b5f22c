//! A directory of the agent's own that is opened once for many files.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, statat};

use super::Place;
use super::current::note;
use super::place::check_own;

/// An open directory, which is opened again once its path leads to another one, or others can write in it.
#[derive(Debug)]
pub struct OwnDirectory {
    path: PathBuf,
    opened: RefCell<Option<OpenedDirectory>>,
    /// Whether the path was compared with what is open.
    is_compared: Cell<bool>,
}

#[derive(Debug)]
struct OpenedDirectory {
    /// Any file in it.
    place: Place,
    /// Device and inode.
    id: (u64, u64),
}

impl OwnDirectory {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, opened: RefCell::default(), is_compared: Cell::new(false) }
    }

    /// Its path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A task begins, however many files it needs: for the first one, the path is compared with what is open.
    pub fn begin_task(&self) {
        self.is_compared.set(false);
    }

    /// The place of a file in it, as [`Place::own`] finds it.
    ///
    /// # Errors
    /// As [`Place::own`].
    pub fn place(&self, name: impl AsRef<OsStr>) -> io::Result<Place> {
        let mut opened = self.opened.borrow_mut();
        if let Some(opened) = &*opened {
            let place = opened.place.sibling(name.as_ref());
            note(place.path());
            if self.is_compared.get() || self.leads_to(opened) {
                self.is_compared.set(true);
                return Ok(place);
            }
        }
        *opened = None;
        let place = Place::own(&self.path.join(name.as_ref()))?;
        *opened = Some(OpenedDirectory { id: place.id_of_directory()?, place: place.clone() });
        self.is_compared.set(true);
        Ok(place)
    }

    /// Whether the path leads to the open directory, and no other user can write in that.
    fn leads_to(&self, opened: &OpenedDirectory) -> bool {
        statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| (found.st_dev, found.st_ino) == opened.id && check_own(&found, &self.path).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Directory {
        above: tempfile::TempDir,
        own: OwnDirectory,
    }

    impl Directory {
        /// A first file has opened it.
        fn new() -> Self {
            let above = tempfile::tempdir().unwrap();
            let own = OwnDirectory::new(above.path().join("own"));
            fs::create_dir(own.path()).unwrap();
            own.place("first").unwrap().create().unwrap();
            Self { above, own }
        }

        fn make(&self, name: &str) -> io::Result<()> {
            self.own.begin_task();
            self.own.place(name)?.create().map(drop)
        }

        fn has(&self, name: &str) -> bool {
            self.own.path().join(name).exists()
        }
    }

    #[test]
    fn a_directory_that_was_removed_and_made_again_is_used_at_once() {
        let directory = Directory::new();
        fs::remove_dir_all(directory.own.path()).unwrap();
        assert_eq!(directory.make("second").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir(directory.own.path()).unwrap();
        directory.make("second").unwrap();
        assert!(directory.has("second"));
    }

    #[test]
    fn another_directory_in_place_of_the_open_one_is_used_by_the_next_task() {
        let directory = Directory::new();
        fs::rename(directory.own.path(), directory.above.path().join("elsewhere")).unwrap();
        fs::create_dir(directory.own.path()).unwrap();
        directory.make("second").unwrap();
        assert!(directory.has("second"));
    }

    #[test]
    fn an_open_directory_that_others_can_write_in_is_refused() {
        let directory = Directory::new();
        fs::set_permissions(directory.own.path(), Permissions::from_mode(0o777)).unwrap();
        assert_eq!(directory.make("second").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
