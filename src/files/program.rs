//! Programs that this process executes.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Exposure, Place, is_trusted, refused};

/// In a directory with this bit, users rename and remove their own files alone.
const STICKY: u32 = 0o1000;

const EXECUTABLE: u32 = 0o111;

/// Checks that no user but root and this process's own could have written a program, or could put another one in its
/// place. Returns its path behind all links. What is mounted read-only is the choice of those who mounted it.
///
/// # Errors
/// `PermissionDenied` with the file or directory and the remedy, and those of the system calls.
pub fn trusted_program(path: &Path) -> io::Result<PathBuf> {
    let place = Place::find(path)?;
    let found = place.metadata()?;
    let mode = found.mode() & 0o7777;
    if !found.is_file() || mode & EXECUTABLE == 0 {
        return Err(io::Error::other("it is no program: it must be a regular file that may be executed"));
    }
    if !is_trusted(found.uid()) {
        return Err(refused(Exposure::Foreign { user: found.uid() }.cause()));
    }
    if mode & 0o022 != 0 {
        return Err(refused(Exposure::Writable { mode }.to_string()));
    }
    for directory in place.path().ancestors().skip(1) {
        let exposure = match Place::find(&directory.join("-"))?.exposure_of_directory()? {
            Some(Exposure::Writable { mode }) if mode & STICKY != 0 => None,
            exposure => exposure,
        };
        if let Some(exposure) = exposure {
            return Err(refused(format!("its directory `{}` is refused: {}", directory.display(), exposure.cause())));
        }
    }
    Ok(place.path().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    struct Program {
        directory: tempfile::TempDir,
        path: PathBuf,
    }

    impl Program {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("bin")).unwrap();
            let path = directory.path().join("bin/program");
            fs::write(&path, "#!/bin/sh\n").unwrap();
            let program = Self { directory, path };
            program.set_mode(0o755);
            program
        }

        fn set_mode(&self, mode: u32) {
            fs::set_permissions(&self.path, Permissions::from_mode(mode)).unwrap();
        }

        fn refusal(&self) -> String {
            trusted_program(&self.path).unwrap_err().to_string()
        }
    }

    #[test]
    fn a_program_of_ones_own_is_returned_behind_its_links() {
        let program = Program::new();
        let link = program.directory.path().join("link");
        symlink(&program.path, &link).unwrap();
        assert_eq!(trusted_program(&link).unwrap(), program.path.canonicalize().unwrap());
    }

    #[test]
    fn a_program_that_others_could_change_or_replace_is_refused() {
        let program = Program::new();
        program.set_mode(0o775);
        assert!(program.refusal().contains("mode 0775"), "{}", program.refusal());
        program.set_mode(0o755);
        let bin = program.directory.path().join("bin");
        fs::set_permissions(&bin, Permissions::from_mode(0o777)).unwrap();
        assert!(program.refusal().contains("bin` is refused"), "{}", program.refusal());
        fs::set_permissions(&bin, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(program.directory.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(program.refusal().contains("mode 0777"), "also further up: {}", program.refusal());
        fs::set_permissions(program.directory.path(), Permissions::from_mode(0o1777)).unwrap();
        assert!(trusted_program(&program.path).is_ok(), "others cannot replace what is in a sticky directory");
    }

    #[test]
    fn what_cannot_be_executed_is_no_program() {
        let program = Program::new();
        program.set_mode(0o644);
        assert!(program.refusal().contains("no program"));
        assert!(trusted_program(program.directory.path()).is_err());
    }
}
