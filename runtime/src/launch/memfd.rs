// SPDX-License-Identifier: Apache-2.0
//! Sealed memfds: the init's program file and the program that it runs. A seal is for good: nobody who gets hold of the file
//! (/proc/PID/exe in a container, CVE-2019-5736) can change it.

use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Whence, lseek};

use crate::error::{Context, Result};

/// The embedded init.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// The init, ready to be executed.
pub fn init() -> Result<OwnedFd> {
    executable(c"wsbox-init", INIT)
}

fn executable(name: &CStr, bytes: &[u8]) -> Result<OwnedFd> {
    let flag = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    // Before Linux 6.3 there is no such flag, and every memfd can be executed.
    let fd = create(name, flag)
        .or_else(|errno| if errno == Errno::EINVAL { create(name, MFdFlags::empty()) } else { Err(errno) });
    fd.context(|| format!("memfd {}", name.to_string_lossy()))
        .and_then(|fd| sealed(fd, bytes))
        .map_err(|error| error.hint("does vm.memfd_noexec forbid executable memfds?"))
}

/// A program for it.
pub fn program(bytes: &[u8]) -> Result<OwnedFd> {
    create(c"wsbox-program", MFdFlags::empty())
        .context(|| "memfd of the program".into())
        .and_then(|fd| sealed(fd, bytes))
}

fn create(name: &CStr, kind: MFdFlags) -> nix::Result<OwnedFd> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | kind)
}

fn sealed(fd: OwnedFd, bytes: &[u8]) -> Result<OwnedFd> {
    let context = || "write a memfd".into();
    let mut file = File::from(fd);
    file.write_all(bytes).context(context)?;
    lseek(&file, 0, Whence::SeekSet).context(context)?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).context(context)?;
    Ok(file.into())
}
