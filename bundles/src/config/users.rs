// SPDX-License-Identifier: Apache-2.0
//! The image's user: numbers, or names in the image's own passwd(5) and group(5), which are read without following its links.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use serde_json::{Value, json};

use crate::error::{Context, Error, Result};
use crate::unpack::OPAQUE_ATTRIBUTE;

/// Bytes of passwd and group that are read.
const MOST: u64 = 1 << 20;

/// Ids of the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Other groups, as the image's group file has them for a named user.
    pub additional: Vec<u32>,
    /// Its home in the image.
    pub home: Option<String>,
}

impl User {
    /// `process.user`.
    pub fn json(&self) -> Value {
        let mut user = json!({ "uid": self.uid, "gid": self.gid });
        if !self.additional.is_empty() {
            user["additionalGids"] = json!(self.additional);
        }
        user
    }
}

/// The image's files, by the folders of its layers, the uppermost first.
#[derive(Clone, Debug, Default)]
pub struct Files {
    layers: Vec<PathBuf>,
}

impl Files {
    /// Of these folders, the uppermost first.
    pub fn new(layers: Vec<PathBuf>) -> Self {
        Self { layers }
    }

    /// `USER[:GROUP]`, each a name or a number; nothing is root.
    ///
    /// # Errors
    /// If the image has no such name, or its files are links.
    pub fn resolve(&self, text: &str) -> Result<User> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let mut found = self.user(user)?;
        if let Some(group) = group.filter(|group| !group.is_empty()) {
            found.gid = self.group(group)?;
            found.additional.clear();
        }
        Ok(found)
    }

    fn user(&self, user: &str) -> Result<User> {
        if user.is_empty() {
            return Ok(User::default());
        }
        let passwd = self.read("etc/passwd")?;
        let lines = || passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|line| line.len() >= 6);
        let number = user.parse::<u32>().ok();
        // A number is one, whatever the image calls its users (CVE-2016-3697).
        let by_name = lines().find(|line| number.is_none() && line[0] == user);
        let Some(line) = by_name.or_else(|| lines().find(|line| number.is_some_and(|uid| line[2] == uid.to_string())))
        else {
            let uid = number.filter(|uid| *uid != u32::MAX);
            let uid = uid.ok_or_else(|| {
                Error::new(format!("user {user:?}"), "is not in the image's /etc/passwd").hint("--user UID:GID")
            })?;
            return Ok(User { uid, ..User::default() });
        };
        let id = |text: &str| text.parse::<u32>().context(|| format!("the image's /etc/passwd: {user}"));
        let (name, home) = (line[0].to_owned(), line[5]);
        Ok(User {
            uid: id(line[2])?,
            gid: id(line[3])?,
            additional: self.groups_of(&name, id(line[3])?)?,
            home: home.starts_with('/').then(|| home.to_owned()),
        })
    }

    fn group(&self, group: &str) -> Result<u32> {
        if let Some(gid) = group.parse::<u32>().ok().filter(|gid| *gid != u32::MAX) {
            return Ok(gid);
        }
        let text = self.read("etc/group")?;
        let found = text
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|line| line.len() >= 3 && line[0] == group);
        let found = found.and_then(|line| line[2].parse().ok());
        found.ok_or_else(|| {
            Error::new(format!("group {group:?}"), "is not in the image's /etc/group").hint("--user UID:GID")
        })
    }

    fn groups_of(&self, name: &str, own: u32) -> Result<Vec<u32>> {
        let text = self.read("etc/group")?;
        let lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let has = |line: &Vec<&str>| line.len() >= 4 && line[3].split(',').any(|member| member == name);
        let mut groups: Vec<u32> =
            lines.filter(has).filter_map(|line| line[2].parse().ok()).filter(|gid| *gid != own).collect();
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }

    /// The uppermost layer that has the file, or says that it is gone. An image may do without it.
    fn read(&self, name: &str) -> Result<String> {
        for layer in &self.layers {
            let context = || format!("the image's /{name}");
            let folder = File::open(layer).context(|| layer.display().to_string())?;
            let how = OpenHow::new()
                .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
                .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
            let file = match openat2(&folder, name, how) {
                Err(Errno::ENOENT | Errno::ENOTDIR) if hides(layer, Path::new(name)) => break,
                Err(Errno::ENOENT) => continue,
                // A whiteout: the node of no device.
                Err(Errno::ENXIO) => break,
                Err(Errno::ELOOP) => {
                    let error = Error::new(context(), "is a link, which is not followed");
                    return Err(error.hint("give the user as a number: --user UID:GID"));
                }
                result => File::from(result.context(context)?),
            };
            if !file.metadata().context(context)?.is_file() {
                break;
            }
            let mut text = Vec::new();
            file.take(MOST).read_to_end(&mut text).context(context)?;
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        Ok(String::new())
    }
}

/// Whether `layer` hides what those below it have at `path`, which it does not have itself: one of the folders that lead there is no folder
/// in it (a whiteout, a file, a link), or is opaque (Documentation/filesystems/overlayfs.rst).
fn hides(layer: &Path, path: &Path) -> bool {
    let mut folders: Vec<_> = path.ancestors().skip(1).collect();
    folders.reverse();
    folders.into_iter().map(|folder| layer.join(folder)).any(|folder| match folder.symlink_metadata() {
        Ok(found) if found.is_dir() => {
            xattr::get(&folder, OPAQUE_ATTRIBUTE).ok().flatten().is_some_and(|value| value == b"y")
        }
        found => found.is_ok(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_hidden_is_not_there() {
        let dir = std::env::temp_dir().join(format!("wsbox-hidden-{}", std::process::id()));
        let (upper, lower) = (dir.join("upper"), dir.join("lower"));
        fs::create_dir_all(lower.join("etc")).unwrap();
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::write(lower.join("etc/passwd"), "app:x:7:8::/app:/bin/sh\n").unwrap();
        let files = Files::new(vec![upper.clone(), lower.clone()]);
        assert!(files.resolve("app").is_ok_and(|user| user.uid == 7));
        // In place of the folder.
        fs::remove_dir(upper.join("etc")).unwrap();
        fs::write(upper.join("etc"), "").unwrap();
        assert!(files.resolve("app").is_err());
        fs::remove_file(upper.join("etc")).unwrap();
        fs::create_dir(upper.join("etc")).unwrap();
        xattr::set(upper.join("etc"), OPAQUE_ATTRIBUTE, b"y").unwrap();
        assert!(files.resolve("app").is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
