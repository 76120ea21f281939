// SPDX-License-Identifier: Apache-2.0
//! wsbox among the runtimes of Docker: what daemon.json must hold, and how it comes in there.

mod edit;
mod file;
pub mod remap;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Context, Error, Result};
use edit::Change;
pub use file::quoted;

/// Where dockerd looks for its settings (dockerd(8)).
pub const CONFIG: &str = "/etc/docker/daemon.json";
/// The runtimes that are registered: as it is, and with all eight layers.
pub const RUNTIMES: [&str; 2] = ["wsbox", "wsbox-strict"];

/// How a runtime stands in daemon.json.
pub fn runtime(name: &str, binary: &Path) -> Value {
    let path = binary.to_string_lossy();
    match name {
        "wsbox-strict" => json!({ "path": path, "runtimeArgs": ["--profile", "production"] }),
        _ => json!({ "path": path }),
    }
}

/// A daemon.json with the runtimes in it, not yet written.
#[derive(Debug)]
pub struct Installation {
    /// The file itself, where the path was a link
    pub path: PathBuf,
    /// What it holds now, None where there is none
    before: Option<String>,
    /// What it is to hold
    pub after: String,
    /// Runtimes that were not there
    pub added: Vec<&'static str>,
    /// Runtimes that were there with other settings
    pub replaced: Vec<&'static str>,
    /// What should be known: one sentence each
    pub warnings: Vec<String>,
}

impl Installation {
    /// Reads `config` and puts the runtimes in, with `binary` as their program.
    ///
    /// # Errors
    /// If the file is no JSON, has one of the runtimes with other settings (unless `force`), or has userns-remap without the
    /// ids that it takes; or if `binary` can not be executed.
    pub fn plan(config: &Path, binary: &Path, force: bool) -> Result<Self> {
        executable(binary)?;
        let path = file::followed(config)?;
        let before = file::read(&path)?;
        let mut this = Self {
            after: before.clone().filter(|text| !text.trim().is_empty()).unwrap_or_else(|| "{\n}\n".into()),
            path,
            before,
            added: Vec::new(),
            replaced: Vec::new(),
            warnings: Vec::new(),
        };
        for name in RUNTIMES {
            this.put(name, binary, force)?;
        }
        this.check_remap(force)?;
        Ok(this)
    }

    fn put(&mut self, name: &'static str, binary: &Path, force: bool) -> Result<()> {
        let subject = self.path.display().to_string();
        let (after, change) = edit::put_runtime(&self.after, name, &runtime(name, binary))
            .map_err(|why| Error::invalid(&subject, why).hint("nothing was changed; correct it by hand first"))?;
        match change {
            Change::None => return Ok(()),
            Change::Added => self.added.push(name),
            Change::Replaced(old) if force => {
                self.warnings.push(format!("runtimes.{name}: was {old}"));
                self.replaced.push(name);
            }
            Change::Replaced(old) => {
                let why = format!("runtimes.{name} is there with other settings: {old}");
                return Err(Error::invalid(subject, why).hint("nothing was changed; --force replaces it"));
            }
        }
        self.after = after;
        Ok(())
    }

    fn check_remap(&mut self, force: bool) -> Result<()> {
        let settings: Value = serde_json::from_str(&self.after).unwrap_or_default();
        let Some(user) = settings["userns-remap"].as_str().filter(|user| !user.is_empty()) else { return Ok(()) };
        match remap::check(user) {
            Err(error) if force => self.warnings.push(error.to_string()),
            result => result?,
        }
        Ok(())
    }

    /// Whether writing it would change anything.
    pub fn changes(&self) -> bool {
        self.before.as_deref() != Some(self.after.as_str())
    }

    /// Writes it, whole or not at all, with the owner and mode that the file has.
    ///
    /// # Errors
    /// If the folder can not be written.
    pub fn write(&self) -> Result<()> {
        let context = || self.path.display().to_string();
        let folder = self.path.parent().ok_or_else(|| Error::invalid(context(), "is no file"))?;
        fs::create_dir_all(folder).context(|| folder.display().to_string())?;
        let mut hidden = std::ffi::OsString::from(".wsbox-");
        hidden.push(self.path.file_name().unwrap_or_default());
        let temporary = folder.join(hidden);
        let written = self.write_to(&temporary).and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.context(context)?;
        File::open(folder).and_then(|folder| folder.sync_all()).context(context)
    }

    fn write_to(&self, temporary: &Path) -> std::io::Result<()> {
        let _ = fs::remove_file(temporary);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(temporary)?;
        file.write_all(self.after.as_bytes())?;
        let mode = match fs::metadata(&self.path) {
            Ok(metadata) => {
                fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
                metadata.permissions()
            }
            Err(_) => fs::Permissions::from_mode(0o644),
        };
        file.set_permissions(mode)?;
        file.sync_all()
    }
}

/// Whether dockerd could run it.
pub fn executable(binary: &Path) -> Result<()> {
    let subject = || binary.display().to_string();
    if binary.to_str().is_none() {
        return Err(Error::invalid(subject(), "is no UTF-8, as daemon.json needs it"));
    }
    if !binary.is_absolute() {
        return Err(Error::invalid(subject(), "is no absolute path: dockerd would look for it in a PATH of its own"));
    }
    let metadata = fs::metadata(binary).context(subject)?;
    if metadata.is_file() && metadata.mode() & 0o111 != 0 {
        return Ok(());
    }
    Err(Error::invalid(subject(), "can not be executed").hint(format!("chmod 0755 {}", quoted(binary))))
}

/// What daemon.json says of runtime `name`: None where there is no file or no such runtime.
///
/// # Errors
/// If it can not be read, or is nothing that dockerd takes.
pub fn registered(config: &Path, name: &str) -> Result<Option<Value>> {
    let Some(text) = file::read(&file::followed(config)?)?.filter(|text| !text.trim().is_empty()) else {
        return Ok(None);
    };
    edit::runtime(&text, name).map_err(|why| Error::invalid(config.display().to_string(), why))
}
