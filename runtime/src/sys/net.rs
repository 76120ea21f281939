// SPDX-License-Identifier: Apache-2.0
//! Network interfaces of the calling thread's namespace.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Each interface's name and whether it is up (getifaddrs(3)).
pub fn interfaces() -> nix::Result<Vec<(String, bool)>> {
    let mut found: Vec<(String, bool)> = Vec::new();
    for address in getifaddrs()? {
        let up = address.flags.contains(InterfaceFlags::IFF_UP);
        if !found.iter().any(|(name, _)| *name == address.interface_name) {
            found.push((address.interface_name, up));
        }
    }
    Ok(found)
}

/// Brings lo up (netdevice(7), SIOCSIFFLAGS).
pub fn lo_up() -> nix::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is plain numbers, zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: request is a struct ifreq that lives through the call.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }).map(drop)
}
