// SPDX-License-Identifier: Apache-2.0
//! The mount API by file descriptors: open_tree(2), fsopen(2), fsconfig(2), fsmount(2), mount_setattr(2).
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// MOUNT_ATTR_* of mount_setattr(2); nix and libc lack them.
pub mod attr {
    pub const RDONLY: u64 = 0x01;
    pub const NOSUID: u64 = 0x02;
    pub const NODEV: u64 = 0x04;
    pub const NOEXEC: u64 = 0x08;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const ATIME_MASK: u64 = 0x70;
    pub const NODIRATIME: u64 = 0x80;
    pub const IDMAP: u64 = 0x0010_0000;
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

const AT_RECURSIVE: libc::c_int = 0x8000;

fn fd(result: libc::c_long) -> nix::Result<OwnedFd> {
    let raw = Errno::result(result)? as i32;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A detached copy of the mount that `from` lies on (of all below it too, if `recursive`).
pub fn open_tree(from: impl AsFd, recursive: bool) -> nix::Result<OwnedFd> {
    let clone = libc::OPEN_TREE_CLONE as libc::c_int | libc::O_CLOEXEC | libc::AT_EMPTY_PATH;
    let flags = clone | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string; the descriptor is open.
    fd(unsafe { libc::syscall(libc::SYS_open_tree, from.as_fd().as_raw_fd(), c"".as_ptr(), flags) })
}

/// struct mount_attr of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
pub struct MountAttr {
    /// Attributes to set
    pub set: u64,
    /// Attributes to clear
    pub clear: u64,
    /// MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE or 0
    pub propagation: u64,
    /// The user namespace for `attr::IDMAP`
    pub userns_fd: u64,
}

/// Changes the mount at `mount` (and all below it, if `recursive`).
pub fn mount_setattr(mount: impl AsFd, attr: &MountAttr, recursive: bool) -> nix::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let fd = mount.as_fd().as_raw_fd();
    // SAFETY: the path is a C string, attr a struct mount_attr of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// A new file system context.
pub fn fsopen(kind: &CStr) -> nix::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    // SAFETY: kind is a C string.
    fd(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

/// Sets a string option, or a flag where `value` is none.
pub fn fsconfig(context: impl AsFd, key: &CStr, value: Option<&CStr>) -> nix::Result<()> {
    const SET_FLAG: libc::c_uint = 0;
    const SET_STRING: libc::c_uint = 1;
    let command = if value.is_some() { SET_STRING } else { SET_FLAG };
    let value = value.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: key and value are C strings, or NULL with SET_FLAG.
    let result =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_fd().as_raw_fd(), command, key.as_ptr(), value, 0) };
    Errno::result(result).map(drop)
}

/// Sets an option to a file descriptor.
pub fn fsconfig_fd(context: impl AsFd, key: &CStr, value: impl AsFd) -> nix::Result<()> {
    const SET_FD: libc::c_uint = 5;
    let (context, value) = (context.as_fd().as_raw_fd(), value.as_fd().as_raw_fd());
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: key is a C string; both descriptors are open.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, context, SET_FD, key.as_ptr(), null, value) }).map(drop)
}

/// Makes the superblock and a detached mount of it.
pub fn fsmount(context: impl AsFd, attributes: u64) -> nix::Result<OwnedFd> {
    const CMD_CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    let context = context.as_fd().as_raw_fd();
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: CMD_CREATE takes neither key nor value.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, context, CMD_CREATE, null, null, 0) })?;
    // SAFETY: numbers only.
    fd(unsafe { libc::syscall(libc::SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes) })
}

/// Attaches a detached mount at the descriptor `to`.
pub fn attach(mount: impl AsFd, to: impl AsFd) -> nix::Result<()> {
    const FROM_AND_TO_EMPTY: libc::c_uint = 0x04 | 0x40;
    let (mount, to, empty) = (mount.as_fd().as_raw_fd(), to.as_fd().as_raw_fd(), c"".as_ptr());
    // SAFETY: both paths are the empty C string, and both descriptors are open.
    Errno::result(unsafe { libc::syscall(libc::SYS_move_mount, mount, empty, to, empty, FROM_AND_TO_EMPTY) }).map(drop)
}
