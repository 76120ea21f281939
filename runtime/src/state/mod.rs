// SPDX-License-Identifier: Apache-2.0
//! The state of containers: a folder each below `--root`, with state.json, a copy of the config, the compiled filter, and,
//! until `start`, its socket.

pub mod events;
pub mod held;
pub mod ids;
pub mod layers;
pub mod lifecycle;
pub mod met;
pub mod process;
mod record;
pub mod update;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

pub use record::{Process, Record, Seccomp, Status, VERSION, now};

use crate::bundle::read_regular;
use crate::error::{Context, Error, Kind, Result};
use crate::{cgroup, monitor, notify, validate};

/// The file that is renamed into place at each transition.
const RECORD: &str = "state.json";
/// The config as it was when the container was created: `exec` uses it, whatever the bundle says by then.
const CONFIG: &str = "config.json";
/// The compiled filter, for `exec`.
const FILTER: &str = "seccomp.bpf";
/// Where `start` connects.
pub const START_SOCKET: &str = "start.sock";

/// Where all containers have their folders.
#[derive(Clone, Debug)]
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// `path`, or /run/wsbox, or $XDG_RUNTIME_DIR/wsbox for a user.
    pub fn new(path: Option<PathBuf>) -> Self {
        let default = || match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(runtime) if crate::rootless::is_user() => Path::new(&runtime).join("wsbox"),
            _ => "/run/wsbox".into(),
        };
        let path = path.unwrap_or_else(default);
        // Host ids are owned by the path of a folder, which must be the same from every working directory.
        Self { path: std::path::absolute(&path).unwrap_or(path) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of container `id`.
    fn folder(&self, id: &str) -> Result<PathBuf> {
        validate::container_id(id)?;
        Ok(self.path.join(id))
    }

    /// Makes the folder of a new container and locks it.
    ///
    /// # Errors
    /// If there is one, or the root can not be written.
    pub fn create(&self, id: &str) -> Result<Folder> {
        let path = self.folder(id)?;
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        let made = match builder.create(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.path)
                    .context(|| format!("mkdir {}", self.path.display()))?;
                builder.create(&path)
            }
            result => result,
        };
        match made {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists(id)),
            result => result.context(|| format!("state folder {}", path.display())),
        }?;
        let folder = Folder::lock(path).inspect_err(|_| drop(fs::remove_dir(self.path.join(id))))?;
        // It may have been deleted and made anew by others before we had the lock.
        if folder.is_in_place() && folder.record().is_ok_and(|record| record.is_none()) {
            Ok(folder)
        } else {
            Err(exists(id))
        }
    }

    /// Opens and locks the folder of container `id`: waits for a command that is at work on it.
    ///
    /// # Errors
    /// `container does not exist`, in runc's words.
    pub fn open(&self, id: &str) -> Result<Folder> {
        let path = self.folder(id)?;
        let folder = Folder::lock(path.clone()).map_err(|error| absent(error, id))?;
        // It may have been deleted, and even made anew, while we waited.
        if folder.is_in_place() { Ok(folder) } else { Err(does_not_exist(id)) }
    }

    /// The record of container `id`, without waiting for anybody.
    ///
    /// # Errors
    /// `container does not exist`; or the record can not be read.
    pub fn read(&self, id: &str) -> Result<Record> {
        read_record(&self.folder(id)?).and_then(|record| record.ok_or_else(|| does_not_exist(id)))
    }

    /// Whether container `id` is another runtime's, such as runc's: its record is whole, but has no version, which all of ours have.
    pub fn is_foreign(&self, id: &str) -> bool {
        let record = read_regular(self.path.join(id).join(RECORD)).unwrap_or_default();
        serde_json::from_slice::<serde_json::Value>(&record)
            .is_ok_and(|record| record.is_object() && record.get("version").is_none())
    }

    /// The ids of all containers, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.context(|| format!("state root {}", self.path.display()))?,
        };
        let name = |entry: fs::DirEntry| entry.file_name().into_string().ok();
        let mut ids: Vec<String> =
            entries.flatten().filter_map(name).filter(|id| validate::container_id(id).is_ok()).collect();
        // /run/wsbox/ids is the allocator's, not a container's.
        ids.retain(|id| self.path.join(id).join(RECORD).exists());
        ids.sort();
        Ok(ids)
    }

    /// The config that container `id` was created with, and the filter compiled from it.
    pub fn config(&self, id: &str) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
        let path = self.folder(id)?;
        let config = read_regular(path.join(CONFIG)).context(|| path.join(CONFIG).display().to_string())?;
        match read_regular(path.join(FILTER)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((config, None)),
            result => Ok((config, Some(result.context(|| path.join(FILTER).display().to_string())?))),
        }
    }
}

fn exists(id: &str) -> Error {
    let error = Error::new(Kind::Exists, "", format!("container with id {id} already exists"));
    error.hint(format!("`wsbox delete {id}` removes it"))
}

fn does_not_exist(id: &str) -> Error {
    Error::new(Kind::NotFound, "", format!("container {id} does not exist")).hint("`wsbox list` shows those that do")
}

fn absent(error: Error, id: &str) -> Error {
    match error.errno() {
        Some(Errno::ENOENT | Errno::ENOTDIR) => does_not_exist(id),
        _ => error,
    }
}

/// Waits for a lock that others hold, until `end`; `how` is one that does not wait.
///
/// # Errors
/// EWOULDBLOCK if they still have it then.
pub(crate) fn lock_until(mut file: File, how: FlockArg, end: Instant) -> nix::Result<Flock<File>> {
    loop {
        match Flock::lock(file, how) {
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < end => file = back,
            result => return result.map_err(|(_, errno)| errno),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

const REMOVES: &str = "`wsbox delete --force` removes the container";

fn read_record(folder: &Path) -> Result<Option<Record>> {
    let file = folder.join(RECORD);
    let bytes = match read_regular(&file) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(None),
        result => {
            let read = result.context(|| file.display().to_string());
            read.map_err(|error| if file.is_file() { error } else { error.hint(REMOVES) })?
        }
    };
    let bad = |why: String| Error::invalid(file.display().to_string(), why).hint(REMOVES);
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    if record.version != VERSION {
        return Err(bad(format!("is of version {}, this wsbox knows {VERSION}", record.version)));
    }
    Ok(Some(record))
}

/// The folder of one container, locked until it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    lock: Flock<File>,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl Folder {
    fn lock(path: PathBuf) -> Result<Self> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let context = || format!("state folder {}", path.display());
        let dir = File::options().read(true).custom_flags(flags).open(&path).context(context)?;
        let lock = Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| Error::system(context(), errno))?;
        Ok(Self { path, lock })
    }

    /// Whether what is locked still is what lies at the path.
    fn is_in_place(&self) -> bool {
        let inode = |metadata: fs::Metadata| std::os::unix::fs::MetadataExt::ino(&metadata);
        let now = fs::symlink_metadata(&self.path).map(inode).ok();
        now.is_some() && now == self.lock.metadata().map(inode).ok()
    }

    /// Its path: what owns the container's host ids.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the socket of `start`, short enough for sun_path (unix(7)).
    pub fn start_socket(&self) -> PathBuf {
        format!("/proc/self/fd/{}/{START_SOCKET}", self.lock.as_raw_fd()).into()
    }

    /// The record; none if `create` was killed before it wrote one.
    pub fn record(&self) -> Result<Option<Record>> {
        read_record(&self.path)
    }

    /// Where the cgroup is of a container whose record can not be read as a whole: as far as the record says, else where its config
    /// does, or where it is by default.
    pub fn salvage_cgroup(&self, id: &str) -> Result<cgroup::Saved> {
        let bytes = read_regular(self.path.join(RECORD)).unwrap_or_default();
        let record = serde_json::from_slice::<serde_json::Value>(&bytes).unwrap_or_default();
        match serde_json::from_value(record["cgroup"].clone()) {
            Ok(saved) => Ok(saved),
            Err(_) => {
                let config = read_regular(self.path.join(CONFIG)).unwrap_or_default();
                let config = serde_json::from_slice::<serde_json::Value>(&config).unwrap_or_default();
                let path = config["linux"]["cgroupsPath"].as_str().map(Path::new);
                cgroup::Saved::usual(cgroup::Host::detect()?, path, id)
            }
        }
    }

    /// Writes the record whole: a reader sees the old one or the new one.
    pub fn write(&self, record: &Record) -> Result<()> {
        let bytes = serde_json::to_vec(record).map_err(|error| Error::invalid(RECORD, error.to_string()))?;
        self.save("state.tmp", &bytes)?;
        fs::rename(self.path.join("state.tmp"), self.path.join(RECORD))
            .context(|| self.path.join(RECORD).display().to_string())
    }

    /// Whether `create` came as far as to keep the config.
    pub fn has_config(&self) -> bool {
        self.path.join(CONFIG).exists()
    }

    /// Keeps the config and the compiled filter for `exec`.
    pub fn keep(&self, config: &[u8], filter: Option<&[u8]>) -> Result<()> {
        self.save(CONFIG, config)?;
        filter.map_or(Ok(()), |filter| self.save(FILTER, filter))
    }

    /// Replaces the kept config whole: a reader sees the old one or the new one.
    pub fn replace_config(&self, config: &[u8]) -> Result<()> {
        self.save("config.tmp", config)?;
        fs::rename(self.path.join("config.tmp"), self.path.join(CONFIG))
            .context(|| self.path.join(CONFIG).display().to_string())
    }

    fn save(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(bytes)).context(|| path.display().to_string())
    }

    /// The socket of `start` is of no more use.
    pub fn remove_start_socket(&self) {
        let _ = fs::remove_file(self.path.join(START_SOCKET));
    }

    /// Removes the folder and what wsbox put in it; host ids that it owns go back.
    pub fn remove(self, ids: Option<&ids::Range>) -> Result<()> {
        match ids {
            Some(range) => range.release(&self.path),
            None => ids::release_all(&self.path),
        }
        notify::remove_folder(&self.path);
        // The record goes last but one: until then the container can be deleted again.
        for name in [START_SOCKET, CONFIG, FILTER, "state.tmp", "config.tmp", RECORD] {
            match fs::remove_file(self.path.join(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {
                    fs::remove_dir(self.path.join(name)).context(|| self.path.join(name).display().to_string())?;
                }
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context(|| self.path.join(name).display().to_string());
                }
                _ => {}
            }
        }
        match fs::remove_dir(&self.path) {
            // A monitor's, which few containers have.
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                [monitor::SOCKET, monitor::COUNTS].iter().for_each(|name| drop(fs::remove_file(self.path.join(name))));
                fs::remove_dir(&self.path)
            }
            result => result,
        }
        .context(|| self.path.display().to_string())
    }
}
