// SPDX-License-Identifier: Apache-2.0
//! What the payload has as stdin, stdout and stderr from outside, by criu's names: a restore has the caller's in their place.

use std::io::{ErrorKind, IsTerminal};
use std::os::fd::BorrowedFd;

use nix::fcntl::readlink;
use nix::sys::stat::{SFlag, major, stat};
use nix::unistd::Pid;

use crate::error::{Context, Error, Result};
use crate::mountinfo;

/// Their fields, by number.
const FIELDS: [&str; 3] = ["stdin", "stdout", "stderr"];
/// linux/major.h: virtual terminals, serial lines and consoles, pseudo-terminals.
const TERMINALS: [std::ops::RangeInclusive<u64>; 2] = [4..=5, 136..=143];

/// Those of `pid`, whose mounts are given.
///
/// # Errors
/// If it is gone.
pub fn of(pid: Pid, mounts: &[mountinfo::Mount]) -> Result<[Option<String>; 3]> {
    let mut names = [None, None, None];
    for (number, name) in names.iter_mut().enumerate() {
        *name = named(pid, number, mounts)?;
    }
    Ok(once(names))
}

/// criu's name for a descriptor that leads out of the container: a pipe or a socket, or a file of a mount that it does not have.
fn named(pid: Pid, number: usize, mounts: &[mountinfo::Mount]) -> Result<Option<String>> {
    let path = format!("/proc/{pid}/fd/{number}");
    let Ok(link) = readlink(path.as_str()) else { return Ok(None) };
    let link = link.to_string_lossy().into_owned();
    if link.starts_with("pipe:[") || link.starts_with("socket:[") {
        return Ok(Some(link));
    }
    let info = format!("/proc/{pid}/fdinfo/{number}");
    let text = std::fs::read_to_string(&info).context(|| info)?;
    let mount = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u32>().ok());
    let Some(mount) = mount.filter(|id| !mounts.iter().any(|mount| mount.id == *id)) else { return Ok(None) };
    // Of a memfd criu keeps the content.
    if link.starts_with("/memfd:") {
        return Ok(None);
    }
    let found = stat(path.as_str()).context(|| path)?;
    let is_device = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    if is_device && TERMINALS.iter().any(|majors| majors.contains(&major(found.st_rdev))) {
        return Ok(Some(format!("tty[{:x}:{:x}]", found.st_rdev, found.st_dev)));
    }
    Ok(Some(format!("file[{mount:x}:{:x}]", found.st_ino)))
}

/// One that is there twice is named once: criu copies it.
fn once(mut names: [Option<String>; 3]) -> [Option<String>; 3] {
    for at in (1..3).rev() {
        if names[..at].contains(&names[at]) {
            names[at] = None;
        }
    }
    names
}

/// Whether criu has to be told at the dump that it is from outside.
pub fn is_external(name: &str) -> bool {
    name.starts_with("file[") || name.starts_with("tty[")
}

/// What criu could not dump, or only when it is asked to.
///
/// # Errors
/// A terminal without --shell-job, or a socket that criu does not find: it looks in the container's network namespace alone.
pub fn check(names: &[Option<String>], flags: &[&str], pid: Pid) -> Result<()> {
    for (field, name) in FIELDS.iter().zip(names) {
        let Some(name) = name else { continue };
        if name.starts_with("tty[") && !flags.contains(&"--shell-job") {
            return Err(Error::invalid(*field, "is the terminal of who ran the container: criu could not restore it")
                .hint("use --shell-job, here and at the restore, which has its own terminal in its place"));
        }
        if name.starts_with("socket:[") && !in_network(pid, name)? {
            let why = "is a socket of another network namespace than the container's: criu could not find it";
            return Err(Error::invalid(*field, why).hint("run the container with a pipe or a file there"));
        }
    }
    Ok(())
}

/// Whether a socket is one of the network namespace of `pid`.
fn in_network(pid: Pid, name: &str) -> Result<bool> {
    let inode = name.trim_start_matches("socket:[").trim_end_matches(']');
    for (kind, column) in [("unix", 6), ("tcp", 9), ("tcp6", 9), ("udp", 9), ("udp6", 9)] {
        let file = format!("/proc/{pid}/net/{kind}");
        match std::fs::read_to_string(&file) {
            Ok(text) if text.lines().any(|line| line.split_whitespace().nth(column) == Some(inode)) => return Ok(true),
            // A kernel without IPv6.
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context(|| file),
            _ => {}
        }
    }
    Ok(false)
}

/// Whether the caller's descriptor `number` can stand for the one that had this name.
///
/// # Errors
/// A terminal's settings are restored, which nothing else has.
pub fn check_given(number: usize, name: &str, given: BorrowedFd<'_>) -> Result<()> {
    if !name.starts_with("tty[") || given.is_terminal() {
        return Ok(());
    }
    Err(Error::invalid(FIELDS[number], "is no terminal, and the container was checkpointed with one there")
        .hint("restore it on a terminal"))
}

/// criu's names for descriptors, and nothing else, go into its arguments.
pub fn is_name(name: &str) -> bool {
    let inside = |kind: &str| name.strip_prefix(kind)?.strip_prefix('[')?.strip_suffix(']');
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let pair = |text: &str| text.split_once(':').is_some_and(|(one, other)| hex(one) && hex(other));
    inside("pipe:").or_else(|| inside("socket:")).is_some_and(number)
        || inside("file").or_else(|| inside("tty")).is_some_and(pair)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;

    #[test]
    fn only_criu_s_names() {
        for name in ["pipe:[1]", "socket:[22]", "file[1f:a0]", "tty[880:1]"] {
            assert!(is_name(name), "{name}");
        }
        for name in
            ["", "pipe:[]", "pipe:[1", "pipe:[1]x", "file[1]", "file[1:]", "/etc/shadow", "extRootNetNS", "pipe:[-1]"]
        {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn twice_is_once() {
        let twice = once([Some("pipe:[1]".into()), Some("pipe:[2]".into()), Some("pipe:[2]".into())]);
        assert_eq!(twice, [Some("pipe:[1]".into()), Some("pipe:[2]".into()), None]);
    }

    #[test]
    fn files_and_terminals_are_external() {
        assert!(is_external("file[1:2]") && is_external("tty[1:2]"));
        assert!(!is_external("pipe:[1]") && !is_external("socket:[1]"));
    }

    #[test]
    fn what_criu_could_not_dump() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let own = readlink(format!("/proc/self/fd/{}", socket.as_raw_fd()).as_str()).unwrap();
        let own = Some(own.to_string_lossy().into_owned());
        assert!(check(&[own, None, Some("pipe:[1]".into())], &[], Pid::this()).is_ok());
        let error = |name: &str| check(&[None, Some(name.into())], &[], Pid::this()).unwrap_err().to_string();
        assert!(error("socket:[1]").starts_with("stdout: is a socket of another network namespace"));
        assert!(error("tty[8801:18]").contains("use --shell-job"));
        assert!(check(&[Some("tty[8801:18]".into())], &["--shell-job"], Pid::this()).is_ok());
    }

    #[test]
    fn a_terminal_by_its_device() {
        let pair = nix::pty::openpty(None, None).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let error = check_given(1, "tty[1:2]", null.as_fd()).unwrap_err().to_string();
        assert!(error.starts_with("stdout: is no terminal"), "{error}");
        assert!(
            check_given(1, "tty[1:2]", pair.slave.as_fd()).is_ok() && check_given(1, "file[1:2]", null.as_fd()).is_ok()
        );
    }
}
