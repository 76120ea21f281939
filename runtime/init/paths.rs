// SPDX-License-Identifier: Apache-2.0
//! Makes what a path needs inside the root.

use core::ffi::CStr;

use crate::sys::{self, *};

/// How many links to nothing one path may lead over.
const LINKS: u32 = 8;

/// Where paths are made, and what their last component is.
pub struct Paths {
    pub root: i32,
    pub resolve: u64,
    pub file: bool,
    /// O_* with which the whole path is opened
    pub how: u64,
}

impl Paths {
    /// Makes the missing components of `path`, each below a directory that was just resolved inside the root: never through a
    /// link that somebody swaps in (CVE-2024-45310).
    pub fn make(&self, path: &CStr) -> Result<i32> {
        self.components(path, LINKS)?;
        sys::openat2(self.root, path, self.how, 0, self.resolve)
    }

    fn open(&self, path: &CStr) -> Result<i32> {
        sys::openat2(self.root, path, O_PATH, 0, self.resolve)
    }

    fn components(&self, path: &CStr, links: u32) -> Result<()> {
        let mut buffer = [0u8; 4096];
        let bytes = path.to_bytes();
        if bytes.len() >= buffer.len() {
            return Err(ENAMETOOLONG);
        }
        let mut parent = self.open(c".")?;
        let mut start = 0;
        while start < bytes.len() {
            let end = bytes.iter().skip(start).position(|&byte| byte == b'/').map_or(bytes.len(), |len| start + len);
            if end > start {
                buffer[..end].copy_from_slice(&bytes[..end]);
                buffer[end] = 0;
                let prefix = CStr::from_bytes_with_nul(&buffer[..=end]).map_err(|_| EBADMSG)?;
                let name = CStr::from_bytes_with_nul(&buffer[start..=end]).map_err(|_| EBADMSG)?;
                let next = self.one(prefix, parent, name, self.file && end == bytes.len(), links);
                sys::close(parent);
                parent = next?;
            }
            start = end + 1;
        }
        sys::close(parent);
        Ok(())
    }

    /// `prefix` ends in `name`, and what is before that is `parent`.
    fn one(&self, prefix: &CStr, parent: i32, name: &CStr, file: bool, links: u32) -> Result<i32> {
        match self.open(prefix) {
            Err(ENOENT) => {}
            result => return result,
        }
        let made = if file {
            sys::openat2(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o644, RESOLVE_BENEATH).map(sys::close)
        } else {
            sys::mkdirat(parent, name, 0o755)
        };
        match made {
            Ok(()) => self.open(prefix),
            Err(EEXIST) => match self.open(prefix) {
                Err(ENOENT) => self.target(prefix, parent, name, file, links),
                result => result,
            },
            Err(errno) => Err(errno),
        }
    }

    /// `name` is a link to nothing. What it names is made, inside the root like all else: images link /var/run to a /run that
    /// they lack.
    fn target(&self, prefix: &CStr, parent: i32, name: &CStr, file: bool, links: u32) -> Result<i32> {
        let links = links.checked_sub(1).ok_or(ELOOP)?;
        let mut link = [0u8; 2048];
        let len = sys::readlinkat(parent, name, &mut link).map_err(|_| ENOENT)?;
        let link = link.get(..len).filter(|link| link.len() < 2048).ok_or(ENAMETOOLONG)?;
        let folder = prefix.to_bytes().strip_suffix(name.to_bytes()).ok_or(EBADMSG)?;
        let folder = if link.first() == Some(&b'/') { &[] } else { folder };
        let mut path = [0u8; 4096];
        let end = folder.len() + link.len();
        if end >= path.len() {
            return Err(ENAMETOOLONG);
        }
        path[..folder.len()].copy_from_slice(folder);
        path[folder.len()..end].copy_from_slice(link);
        let path = CStr::from_bytes_with_nul(&path[..=end]).map_err(|_| EBADMSG)?;
        let at = Paths { file, ..*self };
        at.components(path, links)?;
        at.open(path)
    }
}
