//! What becomes of a directory when the container that it is seen from is thrown away.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FsWord, StatxFlags, statfs, statx};

/// The types of file systems that are in memory: tmpfs and ramfs.
///
/// Source: `linux/magic.h`.
const IN_MEMORY: [FsWord; 2] = [0x0102_1994, 0x8584_58f6];

/// Whether a directory is gone with its container: it is in memory, or on the container's own root file
/// system because nothing is mounted for it.
pub(super) fn is_gone_with_container(directory: &Path) -> io::Result<bool> {
    let is_in_memory = IN_MEMORY.contains(&statfs(directory)?.f_type);
    Ok(is_in_memory || mount(directory)? == mount(Path::new("/"))?)
}

/// The number of the mount that a path is on. Kernels before 5.8 do not tell; there all mounts look alike.
fn mount(path: &Path) -> io::Result<u64> {
    Ok(statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mounted_from_a_disk_outlives_a_container() {
        for (directory, expected) in [("/", true), ("/usr", true), ("/dev/shm", true), ("/proc", false)] {
            assert_eq!(is_gone_with_container(Path::new(directory)).unwrap(), expected, "{directory}");
        }
        assert!(is_gone_with_container(Path::new("/nowhere")).is_err());
    }
}
