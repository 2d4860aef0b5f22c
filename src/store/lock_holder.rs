//! Which process holds a lock.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;

/// The process that holds a lock of `flock` on this file, if this process may know.
pub(super) fn holder_of(file: &File) -> Option<u32> {
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel, which ends and belongs to root")]
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let found = file.metadata().ok()?;
    holder_in(&locks, (found.dev(), found.ino()))
}

/// Finds the holder in the list of the kernel. On some file systems, `stat` shows another device than the list: there the
/// inode alone counts, if no other file in the list has it.
///
/// Source: proc_locks(5).
fn holder_in(list: &str, (device, inode): (u64, u64)) -> Option<u32> {
    // `1: FLOCK  ADVISORY  WRITE 4711 fd:01:131 0 EOF`; a process that waits has `->` before its kind.
    let parsed = list.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (_, pid) = (words.next().filter(|kind| *kind == "FLOCK")?, words.nth(2)?);
        let [major, minor, found] = words.next()?.split(':').collect::<Vec<_>>()[..] else { return None };
        let number = |text| u32::from_str_radix(text, 16).ok();
        let device = rustix::fs::makedev(number(major)?, number(minor)?);
        (found.parse() == Ok(inode)).then_some((device, pid.parse::<u32>().ok()?))
    });
    let found: Vec<_> = parsed.collect();
    let exact = found.iter().find(|(of, _)| *of == device);
    exact.or(found.first().filter(|_| found.len() == 1)).map(|(_, pid)| *pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_by_device_and_inode() {
        let list = "1: POSIX  ADVISORY  WRITE 11 fd:01:131 0 EOF\n\
                    2: FLOCK  ADVISORY  WRITE 12 fd:01:131 0 EOF\n\
                    2: -> FLOCK  ADVISORY  WRITE 13 fd:01:131 0 EOF\n\
                    3: FLOCK  ADVISORY  READ 14 fd:02:131 0 EOF\n\
                    4: FLOCK  ADVISORY  READ 15 00:2a:7 0 EOF\n\
                    cut";
        for (device, inode, expected) in [
            ((0xfd, 1), 131, Some(12)),
            ((0xfd, 2), 131, Some(14)),
            ((0xfd, 3), 131, None),
            ((0, 0x2b), 7, Some(15)),
            ((0, 0x2a), 8, None),
        ] {
            let device = rustix::fs::makedev(device.0, device.1);
            assert_eq!(holder_in(list, (device, inode)), expected, "{inode}");
        }
    }
}
