// SPDX-License-Identifier: Apache-2.0
//! The payload's terminal.

use core::ffi::CStr;

use crate::Init;
use crate::program::{ROOT, Report, SLOTS};
use crate::steps::{INSIDE, attach_and_close};
use crate::sys::{self, *};

const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

impl Init {
    pub fn console(&self, devpts: u32, uid: u32, bind: bool, size: u32) -> Result<()> {
        let master = self.open_ptmx(devpts)?;
        let slave = open_peer(master)?;
        sys::chown(slave, uid)?;
        if size != 0 {
            set_window_size(master, size)?;
        }
        self.report(Report::Console, 0, 0, Some(master))?;
        if bind {
            self.bind_console(self.fd(devpts)?, master)?;
        }
        sys::close(master);
        take_terminal(slave)
    }

    /// Slot SLOTS stands for the devpts that a running container has at /dev/pts: it is checked, for it may be anything
    /// by now (CVE-2025-52565).
    fn open_ptmx(&self, devpts: u32) -> Result<i32> {
        const PTMX: u64 = 5 << 8 | 2;
        let flags = O_RDWR | O_NOCTTY | O_NOFOLLOW;
        let master = if devpts as usize == SLOTS {
            sys::openat2(AT_FDCWD, c"/dev/pts/ptmx", flags, 0, RESOLVE_NO_MAGICLINKS)?
        } else {
            sys::openat2(self.fd(devpts)?, c"ptmx", flags, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)?
        };
        let stat = sys::fstat(master)?;
        if sys::fs_type(master)? != DEVPTS_SUPER_MAGIC || stat.ino != 2 || stat.rdev != PTMX {
            return Err(EINVAL);
        }
        Ok(master)
    }

    fn bind_console(&self, devpts: i32, master: i32) -> Result<()> {
        const TIOCGPTN: u32 = 0x8004_5430;
        let mut number = [0u32];
        sys::ioctl_buffer(master, TIOCGPTN, &mut number)?;
        let mut name = [0u8; 12];
        let tree = sys::open_tree(devpts, decimal(number[0], &mut name)?, false)?;
        let target =
            sys::openat2(self.fd(ROOT)?, c"dev/console", O_PATH | O_NOFOLLOW, 0, INSIDE | RESOLVE_NO_SYMLINKS)?;
        attach_and_close(tree, target)
    }
}

/// The slave by its master, never by name (ioctl_tty(2), TIOCGPTPEER).
fn open_peer(master: i32) -> Result<i32> {
    const TIOCSPTLCK: u32 = 0x4004_5431;
    const TIOCGPTPEER: u32 = 0x5441;
    sys::ioctl_buffer(master, TIOCSPTLCK, &mut [0])?;
    sys::ioctl(master, TIOCGPTPEER, (O_RDWR | O_NOCTTY | O_CLOEXEC) as usize)
}

fn set_window_size(master: i32, size: u32) -> Result<()> {
    const TIOCSWINSZ: u32 = 0x5414;
    // struct winsize: rows and columns, 16 bits each, then the pixels.
    let words = if cfg!(target_endian = "little") { [size >> 16 | size << 16, 0] } else { [size, 0] };
    sys::ioctl_buffer(master, TIOCSWINSZ, &mut { words })
}

fn take_terminal(slave: i32) -> Result<()> {
    const TIOCSCTTY: u32 = 0x540e;
    sys::ioctl(slave, TIOCSCTTY, 0)?;
    for stdio in 0..3 {
        sys::dup_onto(slave, stdio)?;
    }
    sys::close(slave);
    Ok(())
}

/// `number` in decimal, in `buffer`.
fn decimal(mut number: u32, buffer: &mut [u8; 12]) -> Result<&CStr> {
    let mut at = buffer.len() - 1;
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return CStr::from_bytes_with_nul(&buffer[at..]).map_err(|_| EBADMSG);
        }
    }
}
