// SPDX-License-Identifier: Apache-2.0
//! Messages over Unix sockets, with descriptors.

use super::*;

#[repr(C)]
struct IoVec {
    base: *mut u8,
    len: usize,
}

#[repr(C)]
struct MsgHdr {
    name: *const u8,
    name_len: u32,
    iov: *mut IoVec,
    iov_len: usize,
    control: *mut u8,
    control_len: usize,
    flags: u32,
}

/// Room for FDS_PER_MESSAGE descriptors: a cmsghdr (length, SOL_SOCKET, SCM_RIGHTS) and the numbers.
#[repr(C, align(8))]
pub struct Rights {
    len: usize,
    level: i32,
    kind: i32,
    pub fds: [i32; 254],
}

impl Rights {
    pub const fn new() -> Self {
        Self { len: 0, level: 1, kind: 1, fds: [-1; 254] }
    }

    /// How many descriptors the kernel put in.
    pub fn count(&self) -> usize {
        if self.level == 1 && self.kind == 1 { self.len.saturating_sub(16) / 4 } else { 0 }
    }
}

/// Receives one message with its descriptors, close-on-exec: the number of bytes, 0 at the end of the stream.
pub fn receive(socket: i32, data: &mut [u8], rights: &mut Rights) -> Result<usize> {
    const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;
    rights.len = 0;
    let mut iov = IoVec { base: data.as_mut_ptr(), len: data.len() };
    let mut header = MsgHdr {
        name: core::ptr::null(),
        name_len: 0,
        iov: &mut iov,
        iov_len: 1,
        control: (rights as *mut Rights).cast(),
        control_len: size_of::<Rights>(),
        flags: 0,
    };
    loop {
        match sys!(RECVMSG, socket, &raw mut header, MSG_CMSG_CLOEXEC) {
            Err(EINTR) => continue,
            result => return result,
        }
    }
}

/// Sends one message, with `fd` if there is one.
pub fn send(socket: i32, data: &[u8], fd: Option<i32>) -> Result<()> {
    const MSG_NOSIGNAL: u32 = 0x4000;
    let mut rights = Rights::new();
    rights.len = 20;
    rights.fds[0] = fd.unwrap_or(-1);
    let mut iov = IoVec { base: data.as_ptr().cast_mut(), len: data.len() };
    let header = MsgHdr {
        name: core::ptr::null(),
        name_len: 0,
        iov: &mut iov,
        iov_len: 1,
        control: (&raw mut rights).cast(),
        control_len: if fd.is_some() { 24 } else { 0 },
        flags: 0,
    };
    sys!(SENDMSG, socket, &raw const header, MSG_NOSIGNAL).map(drop)
}

pub fn accept(socket: i32) -> Result<i32> {
    loop {
        match sys!(ACCEPT4, socket, 0usize, 0usize, O_CLOEXEC) {
            Err(EINTR) => continue,
            result => return result.map(|fd| fd as i32),
        }
    }
}
