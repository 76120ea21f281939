// SPDX-License-Identifier: Apache-2.0
//! Rules of what is in files.

use std::fs::File;
use std::io::Read;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::files::ends_with;
use super::{Entry, Rules, tree};
use crate::check::{rules, tokens};
use crate::error::Result;

/// A file of at most so many bytes is read whole.
const WHOLE: u64 = 1 << 20;
/// Of a longer one so many at its beginning are.
const HEAD: u64 = 64 << 10;

/// Files that hold logins: their ends, and what is in one that does.
const LOGINS: [(&str, &str); 10] = [
    ("/.docker/config.json", "\"auth\":"),
    ("/.dockercfg", "\"auth\":"),
    ("/containers/auth.json", "\"auth\":"),
    ("/.npmrc", "_authToken="),
    ("/.npmrc", "_password="),
    ("/.pypirc", "password"),
    ("/.netrc", "password"),
    ("/.git-credentials", "://"),
    ("/.aws/credentials", "aws_secret_access_key"),
    ("/.kube/config", "token:"),
];

impl Rules<'_> {
    /// A regular file.
    pub(super) fn content(&mut self, entry: &Entry<'_>) -> Result<()> {
        let size = u64::try_from(entry.stat.st_size).unwrap_or_default();
        let again = !self.read.insert((entry.stat.st_dev, entry.stat.st_ino));
        if size == 0 || again {
            return Ok(());
        }
        let text = match read(entry) {
            Ok(text) => text,
            // It has become something else, or nothing.
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(()),
            Err(errno) => {
                self.not_looked_at(entry.path, tree::why(errno)?);
                return Ok(());
            }
        };
        self.count(text.len() as u64)?;
        if tokens::private_key_in(&text) {
            self.add(&rules::PRIVATE_KEY, entry.path, self.depth(""));
        }
        if let Some(kind) = tokens::token_in(&text).or_else(|| login(entry, &text)) {
            self.add(&rules::TOKEN, entry.path, self.depth(kind));
        }
        if entry.path == "/etc/shadow" && !self.hidden {
            self.accounts(entry, &text);
        }
        Ok(())
    }

    /// What was found, and whether it can still be seen.
    fn depth(&self, what: &str) -> String {
        let hidden = if self.hidden { "in a layer below: hidden in the container, but still in the image" } else { "" };
        [what, hidden].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }

    /// shadow(5).
    fn accounts(&mut self, entry: &Entry<'_>, text: &[u8]) {
        for line in String::from_utf8_lossy(text).lines() {
            let mut fields = line.split(':');
            let (name, password) = (fields.next().unwrap_or_default(), fields.next());
            match password {
                Some("") => self.add(&rules::PASSWORD, entry.path, format!("{name} needs none")),
                Some(hash) if hash.starts_with('$') => {
                    self.add(&rules::PASSWORD, entry.path, format!("{name} has one"));
                }
                _ => {}
            }
        }
    }
}

fn login(entry: &Entry<'_>, text: &[u8]) -> Option<&'static str> {
    let has = |what: &str| text.windows(what.len()).any(|part| part == what.as_bytes());
    LOGINS.iter().any(|(end, what)| ends_with(entry.path, end) && has(what)).then_some("login in a settings file")
}

fn read(entry: &Entry<'_>) -> nix::Result<Vec<u8>> {
    let file = tree::open_at(entry.folder, entry.name(), OFlag::O_RDONLY)?;
    let Some(size) = tree::regular(&file)? else { return Err(Errno::ENXIO) };
    let mut text = Vec::new();
    let limit = if size > WHOLE { HEAD } else { WHOLE };
    File::from(file)
        .take(limit)
        .read_to_end(&mut text)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(text)
}
