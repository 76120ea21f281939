// SPDX-License-Identifier: Apache-2.0
//! Profiles: a floor under any bundle, Docker's included, between parse and validate. settings.rs finds which floor, refuse.rs
//! names what no tightening mends, tighten.rs raises the config field by field; no profile, no change.

mod limits;
mod mounts;
mod refuse;
mod settings;
mod tighten;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Process, Spec};

use crate::bundle::Bundle;
use crate::error::{Error, Result};
pub use refuse::joined_maps;
pub use tighten::tighten;

/// A container's annotation with the name of the profile that it was made under: `exec` keeps to it.
pub const ANNOTATION: &str = "dev.wsbox.profile";

/// How much is asked of every bundle; a later one is stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Docker's default seccomp profile, no user namespace of its own making; all other layers
    Development,
    /// All eight layers, the user namespace unless USERNS_REMAP_ENABLED says false
    Staging,
    /// All eight layers
    Production,
}

impl Profile {
    /// Its name, as `--profile` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = [Self::Development, Self::Staging, Self::Production];
        known.into_iter().find(|profile| profile.name() == text).ok_or_else(|| {
            Error::invalid("profile", format!("{text:?} is none of development, staging and production"))
        })
    }
}

/// What a profile asks on this host.
#[derive(Clone, Debug)]
pub struct Floor {
    /// Which profile
    pub profile: Profile,
    /// Whether it asks for a user namespace (L7)
    pub user_namespace: bool,
    /// The filters that the config's own is tightened by, at least one (L2)
    pub seccomp: Vec<LinuxSeccomp>,
}

/// A bundle as it is run.
pub struct Raised<'a> {
    /// With the tightened config, or as it was
    pub bundle: Cow<'a, Bundle>,
    /// For plan: the floor under its filter
    pub seccomp: Vec<LinuxSeccomp>,
    /// One sentence each, for the user
    pub warnings: Vec<String>,
    /// Whether there is a floor at all
    pub in_force: bool,
    /// Which one
    pub profile: Option<Profile>,
}

/// Raises a bundle to the floor that /etc/wsbox/wsbox.env, the environment and `asked` (`--profile`) make.
///
/// # Errors
/// Settings that contradict themselves, or what the config has and the profile refuses, by its field.
pub fn raise<'a>(bundle: &'a Bundle, asked: Option<Profile>) -> Result<Raised<'a>> {
    let Some((floor, mut warnings)) = settings::floor(asked)? else {
        return Ok(Raised {
            bundle: Cow::Borrowed(bundle),
            seccomp: Vec::new(),
            warnings: Vec::new(),
            in_force: false,
            profile: None,
        });
    };
    refuse::joined_host_namespaces(&bundle.spec, floor.profile)?;
    let (mut spec, changes) = tighten(&bundle.spec, &floor)?;
    warnings.extend(changes);
    let mut seccomp = floor.seccomp;
    if let Some(linux) = spec.linux_mut().as_mut().filter(|linux| linux.seccomp().is_none()) {
        linux.set_seccomp(seccomp.pop());
    }
    // `exec` and whoever looks later are to see what is in force, not what was asked.
    let config = serde_json::to_vec(&spec).map_err(|error| Error::invalid("config.json", error.to_string()))?;
    let raised = Bundle { path: bundle.path.clone(), config, spec, warnings: bundle.warnings.clone() };
    Ok(Raised { bundle: Cow::Owned(raised), seccomp, warnings, in_force: true, profile: Some(floor.profile) })
}

/// Whether any profile is in force: then the layers that a bundle lacks are added.
///
/// # Errors
/// As [`raise`].
pub fn in_force(asked: Option<Profile>) -> Result<bool> {
    settings::floor(asked).map(|floor| floor.is_some())
}

/// Raises a process that joins the container with config `container`: to its profile, or to the one in force now.
///
/// # Errors
/// As [`raise`].
pub fn raise_process(process: Process, container: &Spec, asked: Option<Profile>) -> Result<Process> {
    if made_under_one(container) || settings::asked(asked)? {
        refuse::scheduler(&process)?;
        return Ok(tighten::process(process));
    }
    Ok(process)
}

/// Whether the container with this config was made under a profile.
pub fn made_under_one(container: &Spec) -> bool {
    container.annotations().as_ref().is_some_and(|annotations| annotations.contains_key(ANNOTATION))
}

/// Whether a container was made under a profile, or one is asked for.
pub fn binds(container: &Spec, asked: Option<Profile>) -> Result<bool> {
    Ok(made_under_one(container) || settings::asked(asked)?)
}

/// Keeps the limits of the container with config `container` to its profile, or to the one in force now, whatever is asked for them:
/// one sentence for the user.
///
/// # Errors
/// As [`raise`].
pub fn keep_limits(container: &Spec, resources: &mut LinuxResources, asked: Option<Profile>) -> Result<Vec<String>> {
    if !binds(container, asked)? {
        return Ok(Vec::new());
    }
    let before = resources.clone();
    limits::tighten(resources);
    let same = *resources == before;
    Ok(if same { Vec::new() } else { vec!["linux.resources: tightened to what the profile allows".into()] })
}

#[cfg(test)]
mod tests;
