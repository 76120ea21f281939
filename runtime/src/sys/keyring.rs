// SPDX-License-Identifier: Apache-2.0
//! Session keyrings (keyctl(2)).
#![allow(unsafe_code)]

use nix::errno::Errno;

/// Gives this thread, and what it starts, a new session keyring without a name. A kernel without keys has none to lose.
pub fn new_session() -> nix::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: a NULL name asks for a new, anonymous keyring.
    match Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, none) }) {
        Err(Errno::ENOSYS) => Ok(()),
        result => result.map(drop),
    }
}
