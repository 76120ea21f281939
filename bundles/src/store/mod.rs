// SPDX-License-Identifier: Apache-2.0
//! Layers by digest, unpacked once and shared by bundles:
//!
//! ```text
//! layers/HEX/fs           what the blob sha256:HEX becomes, for overlay's lowerdir
//! layers/HEX/report.json  what was found in it
//! tmp/                    what is being unpacked
//! bundles/HEX.json        where a bundle is, and its layers
//! bundles/HEX.mark        another name of the bundle's own `.wsbox`: while there are two, the bundle is somewhere
//! users/NAME              a link to the state folder of a container that has layers of the store
//! lock                    shared by those who make bundles, and held alone by those who remove
//! ```

mod clean;
mod fill;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use clean::is_gone;
pub use clean::{Bundle, Freed, split};

use crate::error::{Context, Error, Result};
use crate::image::Digest;
use crate::progress::Progress;

/// The annotation of a bundle that has the folders of its layers, the uppermost first, with colons between.
pub const LAYERS: &str = "dev.wsbox.layers";

/// A store.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// The end of the name of a bundle's other mark.
const MARK: &str = "mark";

/// While it lives, nobody else makes or removes anything.
#[derive(Debug)]
pub struct Alone(#[expect(dead_code, reason = "it is held, not read")] Held);

/// While it lives, nothing is removed.
#[derive(Debug)]
pub struct Held {
    _lock: Flock<File>,
}

#[derive(Serialize, Deserialize)]
struct Registration {
    dir: PathBuf,
    /// The folders of its layers
    #[serde(default)]
    layers: Vec<PathBuf>,
}

impl Store {
    /// The store at `root`; without one root's is /var/lib/wsbox, and a user's $XDG_DATA_HOME/wsbox.
    ///
    /// # Errors
    /// If it can not be made, or its path has a colon, which divides layers.
    pub fn open(root: Option<PathBuf>) -> Result<Self> {
        let root = std::path::absolute(root.map_or_else(default, Ok)?).context(|| "the store".into())?;
        let subject = || format!("the store {}", root.display());
        plain(&root)?;
        // What is in layers, set-id files too, is for nobody of the host.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&root);
        made.context(subject)?;
        own(&root.canonicalize().context(subject)?)?;
        for folder in ["layers", "tmp", "bundles", "users"] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(root.join(folder)).context(subject)?;
        }
        // Layers are known by their paths: the store has one, whatever links lead to it.
        let root = root.canonicalize().context(subject)?;
        plain(&root)?;
        for folder in ["layers", "tmp", "bundles", "users"] {
            own(&root.join(folder))?;
        }
        Ok(Self { root })
    }

    /// Keeps others from removing, once none is at it.
    ///
    /// # Errors
    /// If the lock can not be had, or the user had enough of waiting.
    pub fn share(&self, progress: &Progress) -> Result<Held> {
        self.lock(FlockArg::LockSharedNonblock, progress)
    }

    fn lock(&self, how: FlockArg, progress: &Progress) -> Result<Held> {
        let path = self.root.join("lock");
        let context = || path.display().to_string();
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = File::options().create(true).append(true).mode(0o600).custom_flags(flags).open(&path);
        let file = file.context(context)?;
        let lock = progress.lock(file, how).map_err(|error| error.of(context()))?;
        Ok(Held { _lock: lock })
    }

    /// Keeps all others from the store.
    ///
    /// # Errors
    /// If the lock can not be had.
    pub fn alone(&self) -> Result<Alone> {
        self.lock(FlockArg::LockExclusiveNonblock, &Progress::default()).map(Alone)
    }

    /// Says that a bundle with these layers will be at `dir`; `mark` is a file of its own.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn register(&self, dir: &Path, layers: Vec<PathBuf>, mark: &Path) -> Result<()> {
        let dir = placed(dir)?;
        let path = self.registration(&dir);
        let context = || path.display().to_string();
        self.keep_moved(&path).context(context)?;
        let text = serde_json::to_vec(&Registration { dir, layers }).context(context)?;
        match fs::hard_link(mark, path.with_extension(MARK)) {
            // Another file system, or one without second names: then a bundle is known by its place alone.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EXDEV | libc::EPERM | libc::EMLINK)) => {}
            result => result.context(context)?,
        }
        let new = path.with_extension(format!("{}.new", std::process::id()));
        let written =
            File::create(&new).and_then(|mut file| file.write_all(&text)).and_then(|()| fs::rename(&new, &path));
        written.context(context)
    }

    /// A bundle that was at the same place, and is elsewhere now, is known by another name from here on.
    fn keep_moved(&self, path: &Path) -> std::io::Result<()> {
        let mark = path.with_extension(MARK);
        match mark.symlink_metadata() {
            Ok(found) if found.nlink() > 1 => {
                let moved = |file: &Path| file.with_file_name(format!("moved-{}-{}", found.ino(), name(file)));
                // In an order in which a kill leaves each with its mark, to be done again.
                match fs::hard_link(&mark, moved(&mark)) {
                    Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                is_gone(fs::rename(path, moved(path)))?;
                fs::remove_file(&mark)
            }
            Ok(_) => fs::remove_file(&mark),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn registration(&self, dir: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.root.join("bundles").join(format!("{}.json", Digest::of(dir.as_os_str().as_bytes()).hex()))
    }
}

/// A colon divides layers, and overlay reads a backslash as its own.
fn plain(root: &Path) -> Result<()> {
    match root.to_str().is_some_and(|path| !path.contains([':', '\\'])) {
        true => Ok(()),
        false => {
            let why = "has a colon, a backslash or no UTF-8 in its path";
            Err(Error::new(format!("the store {}", root.display()), why).hint("--store takes another"))
        }
    }
}

/// What somebody else laid there is not believed.
fn own(folder: &Path) -> Result<()> {
    let found = folder.symlink_metadata().context(|| folder.display().to_string())?;
    let (me, open) = (nix::unistd::geteuid().as_raw(), found.mode() & 0o022 != 0);
    if found.is_dir() && found.uid() == me && !open {
        return Ok(());
    }
    let why = if found.uid() == me { "can be written by others" } else { "is somebody else's" };
    Err(Error::new(folder.display().to_string(), why).hint("chmod go-w, if it is yours alone; --store takes another"))
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// One name for a bundle: without a slash at its end, and with what its parent really is.
///
/// # Errors
/// If it has no parent that is there.
pub fn placed(dir: &Path) -> Result<PathBuf> {
    let subject = || dir.display().to_string();
    let dir = std::path::absolute(dir).context(subject)?;
    let name = dir.file_name().ok_or_else(|| Error::new(subject(), "is no name for a folder"))?;
    let parent = dir.parent().unwrap_or(Path::new("/"));
    Ok(parent.canonicalize().context(subject)?.join(name))
}

fn default() -> Result<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Ok("/var/lib/wsbox".into());
    }
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
    data.map(|data| data.join("wsbox")).ok_or_else(|| Error::new("the store", "$HOME is not set").hint("--store DIR"))
}
