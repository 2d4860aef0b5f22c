//! Keeps what config.toml has beside owner and mode: its ACL, its SELinux label, and further extended attributes.

use std::ffi::CStr;
use std::fs::File;
use std::io;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr};

/// The attributes that are kept, by the start of their names. Others are made by the file system or the kernel, which
/// know best.
const KEPT: [&str; 4] = ["system.posix_acl_access", "security.selinux", "security.SMACK64", "user."];

/// The largest list and value that Linux allows, in bytes.
const MAX_BYTES: usize = 65_536;

/// Gives a file the extended attributes of another one. Fails with the name of one that cannot be kept.
pub(super) fn keep(from: &File, to: &File) -> Result<(), (String, io::Error)> {
    for name in names(from) {
        let text = name.to_string_lossy().into_owned();
        if !KEPT.iter().any(|start| text.starts_with(start)) {
            continue;
        }
        let Some(value) = value(from, &name) else { continue };
        if self::value(to, &name).as_ref() != Some(&value)
            && let Err(errno) = fsetxattr(to, name.as_c_str(), &value, XattrFlags::empty())
        {
            return Err((text, errno.into()));
        }
    }
    Ok(())
}

fn names(file: &File) -> Vec<std::ffi::CString> {
    let mut list = vec![0_u8; MAX_BYTES];
    // A file system without attributes has none to keep.
    let length = flistxattr(file, &mut list[..]).unwrap_or(0);
    list[..length]
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
        .map(CStr::to_owned)
        .collect()
}

/// The value; `None` for one that this process may not read, or that is gone.
fn value(file: &File, name: &CStr) -> Option<Vec<u8>> {
    let mut value = vec![0_u8; MAX_BYTES];
    let length = fgetxattr(file, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}
