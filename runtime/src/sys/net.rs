// SPDX-License-Identifier: Apache-2.0
//! Network interfaces of the calling thread's namespace.

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

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
