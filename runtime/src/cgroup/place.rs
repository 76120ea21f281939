// SPDX-License-Identifier: Apache-2.0
//! Cgroups below a container's, for one of its processes: `exec --cgroup [CONTROLLER:]PATH`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::{Cgroup, V2_ROOT};
use crate::error::{Context, Error, Result};

/// Where a process goes.
#[derive(Debug, Default)]
pub struct Place {
    v2: Option<OwnedFd>,
    /// A v1 controller, and the path below the container's cgroup
    v1: Vec<(String, String)>,
}

impl Place {
    /// The v2 directory to be born in, if it is not the container's own.
    pub fn clone_fd(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }
}

impl Cgroup {
    /// Finds the cgroups that `names` name: without a controller the path below the container's cgroup in every hierarchy, with
    /// one or more of v1's the path there.
    ///
    /// # Errors
    /// If one is not there, or leads out of the container's cgroup.
    pub fn place(&self, names: &[String]) -> Result<Place> {
        let mut place = Place::default();
        for name in names {
            let (controllers, path) = match name.split_once(':') {
                Some((controllers, path)) => (Some(controllers), below(name, path)?),
                None => (None, below(name, name)?),
            };
            if path.is_empty() {
                continue;
            }
            match controllers {
                None => {
                    place.v2 = Some(self.open_below(&path, "--cgroup")?);
                    self.saved.v1.iter().try_for_each(|controller| self.add(&mut place, controller, &path))?;
                }
                Some(list) => list.split(',').try_for_each(|controller| self.add(&mut place, controller, &path))?,
            }
        }
        Ok(place)
    }

    fn add(&self, place: &mut Place, controller: &str, path: &str) -> Result<()> {
        if !self.saved.v1.iter().any(|name| name == controller) {
            let why = format!("the container is in no cgroup of a v1 controller {controller:?}");
            return Err(Error::invalid("--cgroup", why));
        }
        let dir = Path::new(V2_ROOT).join(controller).join(&self.saved.path).join(path);
        std::fs::metadata(&dir).context(|| format!("--cgroup {}", dir.display()))?;
        place.v1.push((controller.to_owned(), path.to_owned()));
        Ok(())
    }

    /// A cgroup has no links in it.
    fn open_below(&self, path: &str, what: &str) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let shown = || format!("{what} {}", self.saved.root.join(&self.saved.path).join(path).display());
        openat(self.v2.dir(), if path.is_empty() { "." } else { path }, flags, Mode::empty()).context(shown)
    }

    /// The v2 cgroup that a process of the container is in by now, the container's own or one below.
    pub fn place_of(&self, pid: i32) -> Result<OwnedFd> {
        let file = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&file).context(|| file.clone())?;
        let place = text.lines().find_map(|line| line.strip_prefix("0::/")?.strip_prefix(&self.saved.path));
        let outside = || Error::invalid(file, "the container's first process is not in the container's cgroup");
        self.open_below(&below("", place.ok_or_else(outside)?)?, "cgroup")
    }

    /// Moves a process, which is in the container's own cgroups, to those of v1 that `place` names.
    pub fn enter(&self, place: &Place, pid: Pid) -> Result<()> {
        #[cfg(feature = "cgroup-compat")]
        for (controller, path) in &place.v1 {
            super::compat::join(&format!("{}/{path}", self.saved.path), std::slice::from_ref(controller), pid)?;
        }
        let _ = (place, pid);
        Ok(())
    }
}

/// A path that stays below.
fn below(name: &str, path: &str) -> Result<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") || path.contains('\0') {
        return Err(Error::invalid("--cgroup", format!("{name:?} leads out of the container's cgroup")));
    }
    Ok(parts.join("/"))
}
