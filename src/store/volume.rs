//! Whether a directory outlives its container.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FsWord, StatxFlags, statfs, statx};

/// File systems in memory: tmpfs and ramfs.
///
/// Source: `linux/magic.h`.
const IN_MEMORY: [FsWord; 2] = [0x0102_1994, 0x8584_58f6];

/// Whether a directory is lost with its container: it is in memory, or on the container's root file system.
pub(super) fn is_gone_with_container(directory: &Path) -> io::Result<bool> {
    Ok(is_gone(statfs(directory)?.f_type, mount(directory)?, mount(Path::new("/"))?))
}

/// Decides by the directory's file system type, its mount, and the mount of `/`.
fn is_gone(file_system: FsWord, mount: u64, root: u64) -> bool {
    IN_MEMORY.contains(&file_system) || mount == root
}

/// The mount id of a path; the same for all mounts on kernels before 5.8.
fn mount(path: &Path) -> io::Result<u64> {
    Ok(statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXT4: FsWord = 0xef53;
    const OVERLAY: FsWord = 0x794c_7630;
    const TMPFS: FsWord = IN_MEMORY[0];
    const RAMFS: FsWord = IN_MEMORY[1];

    #[test]
    fn only_what_is_mounted_from_a_disk_outlives_a_container() {
        for (file_system, mount, root, expected) in [
            (EXT4, 7, 3, false),
            (OVERLAY, 7, 3, false),
            (EXT4, 3, 3, true),
            (OVERLAY, 3, 3, true),
            (TMPFS, 7, 3, true),
            (RAMFS, 7, 3, true),
            (EXT4, 0, 0, true),
        ] {
            assert_eq!(is_gone(file_system, mount, root), expected, "{file_system:#x} on {mount}, / on {root}");
        }
    }

    #[test]
    fn a_directory_of_the_machine_is_looked_at() {
        assert!(is_gone_with_container(Path::new("/")).unwrap());
        assert!(is_gone_with_container(Path::new("/nowhere")).is_err());
    }
}
