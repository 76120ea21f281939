// SPDX-License-Identifier: Apache-2.0
//! The cgroups below one, which its payload may have made: however many and however deep they are, one is open at a time.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

/// The processes of `top` and of all below it.
pub fn procs(top: &OwnedFd) -> nix::Result<Vec<Pid>> {
    let mut found = Vec::new();
    let mut dir = open(top, c".")?;
    let mut left = vec![enter(&dir, &mut found)?];
    while let Some(names) = left.last_mut() {
        let next = match names.pop() {
            Some(name) => open(&dir, &name).map(|below| (below, true)),
            None => {
                left.pop();
                if left.is_empty() {
                    break;
                }
                open(&dir, c"..").map(|above| (above, false))
            }
        };
        match next {
            // It was removed meanwhile.
            Err(Errno::ENOENT | Errno::ENODEV) => {}
            Err(errno) => return Err(errno),
            Ok((now, false)) => dir = now,
            Ok((now, true)) => {
                left.push(enter(&now, &mut found)?);
                dir = now;
            }
        }
    }
    Ok(found)
}

/// The processes of `top` alone.
pub fn direct(top: &OwnedFd) -> nix::Result<Vec<Pid>> {
    let mut found = Vec::new();
    enter(&open(top, c".")?, &mut found).map(|_| found)
}

fn enter(dir: &OwnedFd, found: &mut Vec<Pid>) -> nix::Result<Vec<CString>> {
    let procs = match openat(dir, "cgroup.procs", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        Err(Errno::ENODEV | Errno::ENOENT) => return Ok(Vec::new()),
        result => result?,
    };
    let mut text = String::new();
    if File::from(procs).read_to_string(&mut text).is_ok() {
        found.extend(text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw));
    }
    below(dir)
}

/// Removes all that is below `top`, the deepest first.
pub fn remove_below(top: &OwnedFd) -> nix::Result<()> {
    let mut dir = open(top, c".")?;
    let mut way: Vec<CString> = Vec::new();
    loop {
        if let Some(name) = below(&dir)?.pop() {
            match open(&dir, &name) {
                Ok(now) => {
                    dir = now;
                    way.push(name);
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        } else {
            let Some(name) = way.pop() else { return Ok(()) };
            dir = open(&dir, c"..")?;
            match unlinkat(&dir, name.as_c_str(), UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

fn open(dir: &OwnedFd, name: &CStr) -> nix::Result<OwnedFd> {
    openat(dir, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
}

/// The names of the cgroups right below `dir`.
pub fn below(dir: &OwnedFd) -> nix::Result<Vec<CString>> {
    let mut entries = match open(dir, c".") {
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(Vec::new()),
        copy => Dir::from_fd(copy?)?,
    };
    let is_group = |entry: &nix::dir::Entry| {
        entry.file_type() == Some(Type::Directory) && entry.file_name() != c"." && entry.file_name() != c".."
    };
    Ok(entries.iter().flatten().filter(is_group).map(|entry| entry.file_name().to_owned()).collect())
}
