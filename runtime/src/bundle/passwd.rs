// SPDX-License-Identifier: Apache-2.0
//! The home directory of a user, from the container's own /etc/passwd: by number, never by name (CVE-2016-3697).

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};

/// A hostile image may have an /etc/passwd without end.
const MAX_BYTES: u64 = 1 << 20;

/// The home of `uid` in the root file system `root`; None where there is no entry or no readable file.
pub fn home(root: impl AsFd, uid: u32) -> Option<String> {
    // Nothing but a file of the image itself: a link into /proc would be read with the host's rights.
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
    let found: OwnedFd = openat2(root, "etc/passwd", how).ok()?;
    // Looked at before it is opened: to open a device or a FIFO can do things, or hang.
    if SFlag::from_bits_truncate(fstat(&found).ok()?.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return None;
    }
    let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?;
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    find_home(&String::from_utf8_lossy(&text), uid)
}

/// passwd(5): name, password, uid, gid, comment, home, shell.
fn find_home(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|entry| entry.get(2) == Some(&uid.as_str()))?;
    entry.get(5).filter(|home| home.starts_with('/') && !home.contains('\0')).map(|home| (*home).to_owned())
}

#[cfg(test)]
mod tests {
    use super::find_home;

    #[test]
    fn home_is_found_by_number_only() {
        let passwd = "root:x:0:0::/root:/bin/sh\n1000:x:0:0::/evil:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\nbad:x:7\n";
        assert_eq!(find_home(passwd, 1000).as_deref(), Some("/home/u"));
        assert_eq!(find_home(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(find_home(passwd, 7), None);
        assert_eq!(find_home(passwd, 8), None);
    }
}
