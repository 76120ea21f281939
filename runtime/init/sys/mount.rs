// SPDX-License-Identifier: Apache-2.0
//! Mounts, without paths where there is a choice.

use core::ffi::CStr;

use super::*;

const AT_RECURSIVE: u32 = 0x8000;
const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

pub fn propagate(flags: u64) -> Result<()> {
    sys!(MOUNT, 0usize, c"/", 0usize, flags, 0usize).map(drop)
}

pub fn fsopen(kind: &CStr) -> Result<i32> {
    const FSOPEN_CLOEXEC: u32 = 1;
    sys!(FSOPEN, kind, FSOPEN_CLOEXEC).map(|fd| fd as i32)
}

/// Sets a string, or a flag where `value` is none.
pub fn fsconfig(context: i32, key: &CStr, value: Option<&CStr>) -> Result<()> {
    const FSCONFIG_SET_FLAG: u32 = 0;
    const FSCONFIG_SET_STRING: u32 = 1;
    match value {
        Some(value) => sys!(FSCONFIG, context, FSCONFIG_SET_STRING, key, value, 0u32),
        None => sys!(FSCONFIG, context, FSCONFIG_SET_FLAG, key, 0usize, 0u32),
    }
    .map(drop)
}

/// Makes the superblock of a context and a detached mount of it.
pub fn fsmount(context: i32, attributes: u64) -> Result<i32> {
    const FSCONFIG_CMD_CREATE: u32 = 6;
    const FSMOUNT_CLOEXEC: u32 = 1;
    sys!(FSCONFIG, context, FSCONFIG_CMD_CREATE, 0usize, 0usize, 0u32)?;
    sys!(FSMOUNT, context, FSMOUNT_CLOEXEC, attributes).map(|fd| fd as i32)
}

/// A detached copy of the mount at `path` below `dir` (of `dir` itself where the path is empty).
pub fn open_tree(dir: i32, path: &CStr, recursive: bool) -> Result<i32> {
    let depth = if recursive { AT_RECURSIVE } else { 0 };
    sys!(OPEN_TREE, dir, path, OPEN_TREE_CLONE | O_CLOEXEC as u32 | AT_EMPTY_PATH | depth).map(|fd| fd as i32)
}

pub fn mount_setattr(mount: i32, set: u64, propagation: u64, recursive: bool) -> Result<()> {
    let attributes = [set, 0, propagation, 0];
    let depth = if recursive { AT_RECURSIVE } else { 0 };
    sys!(MOUNT_SETATTR, mount, c"", AT_EMPTY_PATH | depth, attributes.as_ptr(), size_of_val(&attributes)).map(drop)
}

pub fn move_mount(from: i32, to: i32) -> Result<()> {
    sys!(MOVE_MOUNT, from, c"", to, c"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH).map(drop)
}

pub fn move_mount_to_root(from: i32) -> Result<()> {
    sys!(MOVE_MOUNT, from, c"", AT_FDCWD, c"/", MOVE_MOUNT_F_EMPTY_PATH).map(drop)
}

pub fn pivot_root_here() -> Result<()> {
    sys!(PIVOT_ROOT, c".", c".").map(drop)
}

pub fn detach_here() -> Result<()> {
    const MNT_DETACH: u32 = 2;
    sys!(UMOUNT2, c".", MNT_DETACH).map(drop)
}
