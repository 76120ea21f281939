// SPDX-License-Identifier: Apache-2.0
//! Which floor is in force: /etc/wsbox/wsbox.env, which only root can write, is the lowest; the environment and `--profile`
//! raise it and never lower it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxSeccomp;

use super::{Floor, Profile};
use crate::bundle;
use crate::error::{Context, Error, Result};
use crate::seccomp;

const FILE: &str = "/etc/wsbox/wsbox.env";
const PROFILE: &str = "WSBOX_PROFILE";
const SECCOMP: &str = "SECCOMP_PROFILE_PATH";
const REMAP: &str = "USERNS_REMAP_ENABLED";

/// What one place says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Source {
    pub profile: Option<Profile>,
    pub seccomp: Option<PathBuf>,
    pub remap: Option<bool>,
}

/// All places together, before any file is read.
#[derive(Debug, PartialEq)]
pub(super) struct Settings {
    pub profile: Profile,
    pub user_namespace: bool,
    /// In place of the embedded filter
    pub seccomp: Option<PathBuf>,
    /// On top of it
    pub more_seccomp: Option<PathBuf>,
    pub warnings: Vec<String>,
}

/// The floor, and what the user should know of it; None without any profile.
pub(super) fn floor(flag: Option<Profile>) -> Result<Option<(Floor, Vec<String>)>> {
    let Some(settings) = combine(&file()?, &environment()?, flag)? else { return Ok(None) };
    let first = match &settings.seccomp {
        Some(path) => load(path, true)?,
        None => embedded(settings.profile)?,
    };
    let mut seccomp = vec![first];
    if let Some(path) = &settings.more_seccomp {
        seccomp.push(load(path, false)?);
    }
    let floor = Floor { profile: settings.profile, user_namespace: settings.user_namespace, seccomp };
    Ok(Some((floor, settings.warnings)))
}

/// Whether there is a floor.
pub(super) fn asked(flag: Option<Profile>) -> Result<bool> {
    combine(&file()?, &environment()?, flag).map(|settings| settings.is_some())
}

/// Joins what the places say.
pub(super) fn combine(file: &Source, environment: &Source, flag: Option<Profile>) -> Result<Option<Settings>> {
    let Some(profile) = file.profile.max(environment.profile).max(flag) else {
        return if file.seccomp.is_some() || file.remap.is_some() {
            Err(Error::invalid(FILE, format!("says nothing without {PROFILE}"))
                .hint(format!("add {PROFILE}=production")))
        } else {
            Ok(None)
        };
    };
    for (place, source) in [(FILE, file), ("the environment", environment)] {
        if profile == Profile::Production && source.remap == Some(false) {
            return Err(Error::invalid(
                format!("{REMAP} in {place}"),
                "is false, but profile production has all eight layers",
            )
            .hint(format!("take it away, or use {PROFILE}=staging")));
        }
    }
    let mut warnings = Vec::new();
    let laxer = [(PROFILE, environment.profile), ("--profile", flag)]
        .into_iter()
        .filter_map(|(name, asked)| Some((name, asked?)));
    for (name, asked) in laxer.filter(|(_, asked)| Some(*asked) < file.profile) {
        warnings.push(format!("{name} {asked}: {FILE} asks for {profile}, which stands"));
    }
    let own = file.remap.unwrap_or(profile > Profile::Development);
    // Only where the file says nothing may the environment switch it off.
    let user_namespace = match environment.remap {
        Some(true) => true,
        Some(false) if file.profile.is_none() => false,
        _ => own || profile == Profile::Production,
    };
    let (seccomp, more_seccomp) = (file.seccomp.clone(), environment.seccomp.clone());
    Ok(Some(Settings { profile, user_namespace, seccomp, more_seccomp, warnings }))
}

fn embedded(profile: Profile) -> Result<LinuxSeccomp> {
    let (name, json) = match profile {
        Profile::Development => ("docker-default-seccomp.json", seccomp::DOCKER),
        _ => ("workspace-seccomp.json", seccomp::WORKSPACE),
    };
    bundle::parse_seccomp(json.as_bytes(), Path::new(name))
}

/// A filter from a file, tried once: later errors would not name it.
fn load(path: &Path, trusted: bool) -> Result<LinuxSeccomp> {
    let bytes = read(path, trusted).map_err(|error| error.hint(format!("{SECCOMP} names it")))?;
    let bytes = bytes.ok_or_else(|| Error::invalid(SECCOMP, format!("{} does not exist", path.display())))?;
    let profile = bundle::parse_seccomp(&bytes, path)?;
    seccomp::compile(&profile, &seccomp::Options::default())
        .map_err(|error| Error::invalid(path.display().to_string(), error.to_string()))?;
    Ok(profile)
}

fn file() -> Result<Source> {
    let Some(bytes) = read(Path::new(FILE), true)? else { return Ok(Source::default()) };
    let text = String::from_utf8(bytes).map_err(|_| Error::invalid(FILE, "is no UTF-8"))?;
    parse(&text)
}

fn environment() -> Result<Source> {
    let mut source = Source::default();
    for key in [PROFILE, SECCOMP, REMAP] {
        if let Some(value) = std::env::var_os(key).filter(|value| !value.is_empty()) {
            let value = value.to_str().ok_or_else(|| Error::invalid(key, "is no UTF-8"))?;
            source.set(key, value, key)?;
        }
    }
    Ok(source)
}

/// Lines of NAME=value, with or without quotes; `#` begins a comment line (systemd.exec(5), EnvironmentFile).
pub(super) fn parse(text: &str) -> Result<Source> {
    let mut source = Source::default();
    for (at, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{FILE}:{}", at + 1);
        let (key, value) = line.split_once('=').ok_or_else(|| Error::invalid(&place, "is no NAME=value"))?;
        source.set(key.trim_end(), unquoted(value.trim_start()), &place)?;
    }
    Ok(source)
}

fn unquoted(value: &str) -> &str {
    let inside = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

impl Source {
    fn set(&mut self, key: &str, value: &str, place: &str) -> Result<()> {
        match key {
            PROFILE => {
                self.profile = Some(value.parse().map_err(|error: Error| Error::invalid(place, error.to_string()))?)
            }
            SECCOMP if value.starts_with('/') => self.seccomp = Some(value.into()),
            SECCOMP => return Err(Error::invalid(place, format!("{value:?} is no absolute path"))),
            REMAP => self.remap = Some(boolean(value, place)?),
            // A misspelt name would be no floor.
            _ => return Err(Error::invalid(place, format!("{key:?} is none of {PROFILE}, {SECCOMP} and {REMAP}"))),
        }
        Ok(())
    }
}

fn boolean(value: &str, place: &str) -> Result<bool> {
    match value {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Error::invalid(place, format!("{value:?} is neither true nor false"))),
    }
}

/// The content of a file, None if there is none; one that is trusted must be root's alone.
fn read(path: &Path, trusted: bool) -> Result<Option<Vec<u8>>> {
    const MOST: u64 = 1 << 20;
    let subject = || path.display().to_string();
    // A FIFO would keep us waiting.
    let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(None),
        result => result.context(subject)?,
    };
    let metadata = file.metadata().context(subject)?;
    if !metadata.is_file() {
        return Err(Error::invalid(subject(), "is no file"));
    }
    if trusted && (metadata.uid() != 0 || metadata.mode() & 0o022 != 0) {
        return Err(Error::invalid(subject(), "can be written by others than root")
            .hint(format!("chown root {0} && chmod go-w {0}", subject())));
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).context(subject)?;
    Ok(Some(bytes))
}
