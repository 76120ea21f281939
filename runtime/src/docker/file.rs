// SPDX-License-Identifier: Apache-2.0
//! The file that dockerd reads: where it is, and its text.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::geteuid;

use crate::error::{Context, Error, Result};

/// Links are followed, also one to a file that is not there yet: it is somebody's settings for where the file is to be.
pub fn followed(config: &Path) -> Result<PathBuf> {
    let context = || config.display().to_string();
    let mut path = std::path::absolute(config).context(context)?;
    // As many as the kernel follows (path_resolution(7)).
    for _ in 0..40 {
        let Ok(next) = fs::read_link(&path) else {
            return in_a_folder(config, path);
        };
        must_be_ours(&path)?;
        path = path.parent().unwrap_or(Path::new("/")).join(next);
    }
    Err(Error::system(context(), Errno::ELOOP))
}

/// As the kernel's fs.protected_symlinks has it in a folder of everybody's (proc_sys_fs(5)): else its owner chooses what root writes.
fn must_be_ours(link: &Path) -> Result<()> {
    let owner = fs::symlink_metadata(link).context(|| link.display().to_string())?.uid();
    if owner == 0 || owner == geteuid().as_raw() {
        return Ok(());
    }
    Err(Error::invalid(link.display().to_string(), format!("is a link of user {owner}'s, not root's or the caller's")))
}

/// What a link leads to may be of a file system that is not mounted yet: only the folder of a plain file is made.
fn in_a_folder(config: &Path, path: PathBuf) -> Result<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !config.is_symlink() || folder.is_dir() {
        return Ok(path);
    }
    let why = format!("is a link to {}, whose folder is not there", path.display());
    Err(Error::invalid(config.display().to_string(), why)
        .hint(format!("mount it, or mkdir -p {}; nothing was changed", quoted(folder))))
}

/// The text, None where there is no file.
pub fn read(path: &Path) -> Result<Option<String>> {
    let context = || path.display().to_string();
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        result => result.context(context)?,
    };
    if bytes.starts_with(b"\xef\xbb\xbf") {
        let why = "begins with a byte order mark (the bytes EF BB BF), which Docker before 23 refuses";
        return Err(
            Error::invalid(context(), why).hint(format!("remove it: sed -i '1s/^\\xef\\xbb\\xbf//' {}", quoted(path)))
        );
    }
    let text = String::from_utf8(bytes).map_err(|_| Error::invalid(context(), "is no UTF-8, as JSON has to be"))?;
    Ok(Some(text))
}

/// As a shell takes it.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
