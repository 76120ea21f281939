// SPDX-License-Identifier: Apache-2.0
//! Secrets in a tmpfs of their own: no swap where the kernel can do without, mode 0400, the container's user's. Nothing else of the
//! runtime ever has them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown};

use super::sources::host_id;
use crate::error::{Context, Error, Result};
use crate::plan::{IdMaps, SecretSource, Secrets};
use crate::sys::mount::{attr, fsconfig, fsmount, fsopen};

/// Bytes that a secret may have: a key, a certificate, a token.
const MOST: u64 = 1 << 20;

/// The tmpfs. `maps` are those of the container's user namespace.
pub fn make(wanted: &Secrets, maps: Option<&IdMaps>) -> Result<OwnedFd> {
    let context = || "secrets: tmpfs".to_owned();
    let tmpfs = fsopen(c"tmpfs").context(context)?;
    fsconfig(&tmpfs, c"mode", Some(c"755")).context(context)?;
    // Since Linux 6.3 (tmpfs.rst).
    let _ = fsconfig(&tmpfs, c"noswap", None);
    let mount = fsmount(&tmpfs, attr::NODEV | attr::NOSUID | attr::NOEXEC).context(context)?;
    let top = openat(&mount, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    own(&top.context(context)?, (0, 0), maps, context)?;
    for (name, source) in &wanted.all {
        let secret = read(name, source)?;
        let context = || format!("secret {name:?}");
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&mount, name.as_str(), flags, Mode::empty()).context(context)?);
        file.write_all(&secret).context(context)?;
        own(&file, (wanted.uid, wanted.gid), maps, context)?;
        fchmod(&file, Mode::S_IRUSR).context(context)?;
    }
    Ok(mount)
}

/// Gives a file to a user and a group of the container.
fn own(file: impl AsFd, (uid, gid): (u32, u32), maps: Option<&IdMaps>, context: impl FnOnce() -> String) -> Result<()> {
    let uid = maps.map_or(Ok(uid), |maps| host_id(&maps.uid, uid, "process.user.uid"))?;
    let gid = maps.map_or(Ok(gid), |maps| host_id(&maps.gid, gid, "process.user.gid"))?;
    fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).context(context)
}

fn read(name: &str, source: &SecretSource) -> Result<Vec<u8>> {
    match source {
        SecretSource::File(path) => {
            let context = || format!("secret {name:?}: {}", path.display());
            // A pipe there is not waited for.
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let file = File::from(openat(AT_FDCWD, path, flags, Mode::empty()).context(context)?);
            if !file.metadata().context(context)?.is_file() {
                return Err(Error::invalid(context(), "is not a plain file"));
            }
            let mut secret = Vec::new();
            file.take(MOST + 1).read_to_end(&mut secret).context(context)?;
            within(secret, context)
        }
        SecretSource::Env(variable) => {
            let context = || format!("secret {name:?}: ${variable}");
            let value = std::env::var_os(variable).ok_or_else(|| Error::invalid(context(), "is not set"))?;
            within(OsStr::as_bytes(&value).to_vec(), context)
        }
    }
}

fn within(secret: Vec<u8>, context: impl FnOnce() -> String) -> Result<Vec<u8>> {
    if secret.len() as u64 > MOST {
        return Err(Error::invalid(context(), format!("has more than {MOST} bytes")));
    }
    Ok(secret)
}
