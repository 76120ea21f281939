// SPDX-License-Identifier: Apache-2.0
//! Step 1, parse: opens a bundle and turns its config.json into a [`Spec`].

pub mod own;
mod parse;
pub mod passwd;
mod unique;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use oci_spec::runtime::Spec;

pub use parse::{parse, parse_process, parse_resources, parse_seccomp};

use crate::error::{Context, Error, Result};
use crate::notify;

/// A bundle directory and its config (runtime-spec, bundle.md).
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The directory, absolute.
    pub path: PathBuf,
    /// config.json as it is in the file.
    pub config: Vec<u8>,
    /// config.json, parsed.
    pub spec: Spec,
    /// What is odd in it, such as fields that nobody knows: one sentence each.
    pub warnings: Vec<String>,
}

impl Bundle {
    /// The same for a payload that tells its service manager how it is doing.
    ///
    /// # Errors
    /// As [`notify::add`].
    pub(crate) fn notified(&self, state_folder: &Path) -> Result<Self> {
        let mut bundle = self.clone();
        notify::add(&mut bundle.spec, state_folder)?;
        bundle.config =
            serde_json::to_vec(&bundle.spec).map_err(|error| Error::invalid("config.json", error.to_string()))?;
        Ok(bundle)
    }

    /// Opens the bundle in `path`, a directory with a config.json.
    ///
    /// # Errors
    /// If the directory or the file is missing, or the file is no OCI config: the message names the JSON path.
    pub fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).context(|| format!("bundle {}", path.display()))?;
        let file = path.join("config.json");
        let config = read_regular(&file)
            .context(|| file.display().to_string())
            .map_err(|error| error.hint("a bundle is a directory with a config.json; `wsbox spec` writes one"))?;
        Self::from_config(path, config)
    }

    /// A bundle whose config is at hand.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn from_config(path: PathBuf, config: Vec<u8>) -> Result<Self> {
        let (spec, warnings) = parse(&config, &path.join("config.json"))?;
        Ok(Self { path, config, spec, warnings })
    }

    /// The root file system's path, absolute.
    ///
    /// # Errors
    /// If the config has no root.
    pub fn root_path(&self) -> Result<PathBuf> {
        let root = self.spec.root().as_ref().ok_or_else(|| Error::invalid("root", "is missing"))?;
        Ok(self.path.join(root.path()))
    }

    /// The root file system as an O_PATH descriptor.
    ///
    /// # Errors
    /// If it is missing or no directory.
    pub fn open_root(&self) -> Result<OwnedFd> {
        let path = self.root_path()?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(nix::fcntl::AT_FDCWD, &path, flags, Mode::empty())
            .map_err(|errno| Error::system(format!("root.path: {}", path.display()), errno))
    }
}

/// The content of a file that is one: a FIFO would keep us waiting.
pub(crate) fn read_regular(path: impl AsRef<Path>) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
