// SPDX-License-Identifier: Apache-2.0
//! The mounts of a process, as the kernel has them (proc_pid_mountinfo(5)).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::unistd::Pid;

use crate::error::{Context, Result};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its id, as fdinfo has it
    pub id: u32,
    /// What of the file system is mounted
    pub root: String,
    /// Where
    pub place: String,
    /// The mount's own options
    pub options: String,
    /// The file system
    pub kind: String,
}

/// All mounts of `pid`.
///
/// # Errors
/// If it is gone.
pub fn of(pid: Pid) -> Result<Vec<Mount>> {
    let file = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read_to_string(&file).context(|| file)?;
    Ok(text.lines().filter_map(parse).collect())
}

/// The id of the mount that a descriptor of ours lies on (proc_pid_fdinfo(5)).
pub fn id(of: BorrowedFd<'_>) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", of.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

fn parse(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let id = fields.next()?.parse().ok()?;
    let (root, place, options) = (fields.nth(2)?, fields.next()?, fields.next()?.to_owned());
    let kind = fields.skip_while(|field| *field != "-").nth(1)?.to_owned();
    Some(Mount { id, root: unescape(root), place: unescape(place), options, kind })
}

/// Blanks, line breaks and backslashes are \ooo there.
fn unescape(text: &str) -> String {
    let mut plain = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        let (byte, after) = match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => (byte, &after[3..]),
            None => (*first, after),
        };
        plain.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let mount = parse("36 35 98:0 /a\\040b /c\\134d rw,noatime master:1 - ext3 /dev/root rw").unwrap();
        assert_eq!((mount.id, mount.root.as_str(), mount.place.as_str()), (36, "/a b", "/c\\d"));
        assert_eq!((mount.options.as_str(), mount.kind.as_str()), ("rw,noatime", "ext3"));
        assert_eq!(parse("36 35"), None);
    }
}
