// SPDX-License-Identifier: Apache-2.0
//! Files by descriptors and names below them.

use core::ffi::CStr;

use super::*;

const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
const AT_EACCESS: u32 = 0x200;

/// openat2(2); EAGAIN (a rename raced with a `..`) and EINTR are tried again.
pub fn openat2(dir: i32, path: &CStr, flags: u64, mode: u64, resolve: u64) -> Result<i32> {
    let how = [flags | O_CLOEXEC, mode, resolve];
    loop {
        match sys!(OPENAT2, dir, path, how.as_ptr(), size_of_val(&how)) {
            Err(EAGAIN | EINTR) => continue,
            result => return result.map(|fd| fd as i32),
        }
    }
}

pub fn mkdirat(dir: i32, name: &CStr, mode: u32) -> Result<()> {
    sys!(MKDIRAT, dir, name, mode).map(drop)
}

/// The text of a link, without a NUL: its length.
pub fn readlinkat(dir: i32, name: &CStr, buffer: &mut [u8]) -> Result<usize> {
    sys!(READLINKAT, dir, name, buffer.as_mut_ptr(), buffer.len())
}

pub fn chown(fd: i32, uid: u32) -> Result<()> {
    sys!(FCHOWNAT, fd, c"", uid, u32::MAX, AT_EMPTY_PATH).map(drop)
}

/// The mode of the top directory of a mount.
pub fn chmod_top(mount: i32, mode: u32) -> Result<()> {
    sys!(FCHMODAT, mount, c".", mode).map(drop)
}

/// What a file is.
#[derive(Clone, Copy)]
pub struct Stat {
    pub ino: u64,
    pub mode: u32,
    pub rdev: u64,
}

impl Stat {
    pub fn is_dir(&self) -> bool {
        self.mode & 0o170000 == 0o040000
    }

    pub fn is_fifo(&self) -> bool {
        self.mode & 0o170000 == 0o010000
    }

    pub fn is_file(&self) -> bool {
        self.mode & 0o170000 == 0o100000
    }
}

/// struct stat: 144 bytes on x86_64, 128 on aarch64, with the mode in different places (asm/stat.h).
fn decode(raw: &[u64; 18]) -> Stat {
    #[cfg(target_arch = "x86_64")]
    return Stat { ino: raw[1], mode: raw[3] as u32, rdev: raw[5] };
    #[cfg(target_arch = "aarch64")]
    return Stat { ino: raw[1], mode: raw[2] as u32, rdev: raw[4] };
}

pub fn fstat(fd: i32) -> Result<Stat> {
    let mut raw = [0u64; 18];
    sys!(NEWFSTATAT, fd, c"", raw.as_mut_ptr(), AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)?;
    Ok(decode(&raw))
}

pub fn stat(path: &CStr) -> Result<Stat> {
    let mut raw = [0u64; 18];
    sys!(NEWFSTATAT, AT_FDCWD, path, raw.as_mut_ptr(), 0u32)?;
    Ok(decode(&raw))
}

/// The file system's magic number.
pub fn fs_type(fd: i32) -> Result<u64> {
    let mut raw = [0u64; 16];
    sys!(FSTATFS, fd, raw.as_mut_ptr())?;
    Ok(raw[0])
}

pub fn may_execute(path: &CStr) -> Result<()> {
    const X_OK: u32 = 1;
    sys!(FACCESSAT2, AT_FDCWD, path, X_OK, AT_EACCESS).map(drop)
}
