// SPDX-License-Identifier: Apache-2.0
//! Ranges of host ids: every container its own 65536, under one lock of the host.
//!
//! A range in use is a symbolic link /run/wsbox/ids/FIRST to the state folder of its container: made by one system call,
//! complete or not there. A link whose folder is gone was left by a crash and is swept when the pool is full.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::plan::{IdMaps, id_mapping};

/// Where [`peek`] finds a range if all is as it should be.
pub const OWN_ENTRY: &str = "the entry wsbox";
/// One lock for the host, whatever `--root` is.
const DIR: &str = "/run/wsbox/ids";
/// Ids of a container.
pub const SIZE: u32 = 65536;
/// Ranges of the default pool.
const POOL_RANGES: u32 = 256;

/// A range of host ids that belongs to one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The host id of the container's root, as a user and as a group.
    pub first: u32,
    /// Docker's range, which all containers share where /etc/subuid has no entry `wsbox`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

impl Range {
    /// The maps of the container's user namespace.
    pub fn maps(&self) -> IdMaps {
        let map = vec![id_mapping(0, self.first, SIZE)];
        IdMaps { uid: map.clone(), gid: map }
    }

    /// Gives the range back, if it is `owner`'s.
    pub fn release(&self, owner: &Path) {
        let link = Path::new(DIR).join(self.first.to_string());
        if !self.shared && fs::read_link(&link).is_ok_and(|target| target == owner) {
            let _ = fs::remove_file(link);
        }
    }
}

/// Gives back whatever belongs to `owner`, for a container that was killed before its record was written.
pub fn release_all(owner: &Path) {
    for entry in fs::read_dir(DIR).into_iter().flatten().flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target == owner) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A free range for the container with the state folder `owner`.
///
/// # Errors
/// If the caller is not root, /etc/subuid and /etc/subgid disagree, or every range is taken.
pub fn allocate(owner: &Path) -> Result<Range> {
    if !geteuid().is_root() {
        let error = Error::invalid("linux.uidMappings", "only root can give a container host ids of its own");
        return Err(error.hint("run wsbox as root, or give linux.uidMappings and linux.gidMappings"));
    }
    let pool = match configured()? {
        Some(Pool { shared: true, first, .. }) => return Ok(Range { first, shared: true }),
        pool => pool,
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(DIR).context(|| format!("mkdir {DIR}"))?;
    let lock = fs::File::open(DIR).context(|| DIR.into())?;
    let _lock =
        Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| Error::system(format!("lock {DIR}"), errno))?;
    let pool = pool.map_or_else(default_pool, Ok)?;
    keep_live(Path::new(DIR), &pool, live)?;
    take(&pool, owner)?.map_or_else(|| sweep_and_take(&pool, owner), Ok)
}

/// A range that a container might get, for a look: nothing is taken. The second value says where it comes from.
///
/// # Errors
/// As [`allocate`].
pub fn peek() -> Result<(Range, &'static str)> {
    Ok(match configured()? {
        Some(Pool { first, shared: true, .. }) => {
            (Range { first, shared: true }, "the entry dockremap, which all share")
        }
        Some(Pool { first, .. }) => (Range { first, shared: false }, OWN_ENTRY),
        None => (Range { first: free_pool()?, shared: false }, "no entry: ids that nobody else has"),
    })
}

/// Ranges to take from.
#[derive(Debug, PartialEq, Eq)]
struct Pool {
    first: u32,
    ranges: u32,
    shared: bool,
}

/// Once a boot, and once more where somebody has emptied /run: a container outlives its link. What processes have is nobody's to take.
fn keep_live(dir: &Path, pool: &Pool, live: impl FnOnce() -> Result<Vec<(u32, u32)>>) -> Result<()> {
    let looked = dir.join(format!("looked-{}", pool.first));
    if fs::symlink_metadata(&looked).is_ok() {
        return Ok(());
    }
    let live = live()?;
    for first in (0..pool.ranges).map(|at| pool.first + at * SIZE).filter(|first| is_live(*first, &live)) {
        match symlink(dir.join("lost"), dir.join(first.to_string())) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).context(|| format!("keep a range in {DIR}"));
            }
            _ => {}
        }
    }
    symlink("done", &looked).context(|| looked.display().to_string())
}

/// Whether a user namespace has some of the range that begins there. Ours have no more than one range; a wider map is of somebody who was
/// given the same ids.
fn is_live(first: u32, live: &[(u32, u32)]) -> bool {
    live.iter().any(|(start, count)| {
        *count <= SIZE && *start < first.saturating_add(SIZE) && first < start.saturating_add(*count)
    })
}

fn take(pool: &Pool, owner: &Path) -> Result<Option<Range>> {
    // Begin where nobody else is likely to: containers that start together do not try the same ranges in turn.
    let begin = std::process::id() % pool.ranges;
    for at in 0..pool.ranges {
        let first = pool.first + (begin + at) % pool.ranges * SIZE;
        match symlink(owner, Path::new(DIR).join(first.to_string())) {
            Ok(()) => return Ok(Some(Range { first, shared: false })),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context(|| format!("take a range in {DIR}")),
        }
    }
    Ok(None)
}

/// Takes back the ranges whose owner is gone, and that no process `live` has. What is no number is no range: the choice of the pool stays.
fn sweep(dir: &Path, live: &[(u32, u32)]) -> Result<()> {
    let range = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    for entry in fs::read_dir(dir).context(|| dir.display().to_string())?.flatten() {
        let free = range(&entry).is_some_and(|first| !is_live(first, live));
        if free && fs::read_link(entry.path()).is_ok_and(|folder| !folder.exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn sweep_and_take(pool: &Pool, owner: &Path) -> Result<Range> {
    sweep(Path::new(DIR), &live()?)?;
    let exhausted = || {
        let why = format!("all {} ranges of host ids are taken by containers", pool.ranges);
        Error::invalid("linux.namespaces", why)
            .hint("delete containers, or give `wsbox` more ids in /etc/subuid and /etc/subgid")
    };
    take(pool, owner)?.ok_or_else(exhausted)
}

/// What /etc/subuid and /etc/subgid grant: the entry `wsbox`, else Docker's `dockremap`.
fn configured() -> Result<Option<Pool>> {
    let (uids, gids) = (read("/etc/subuid")?, read("/etc/subgid")?);
    for (name, shared) in [("wsbox", false), ("dockremap", true)] {
        match (find(&uids, name), find(&gids, name)) {
            (None, None) => {}
            (Some(uid), Some(gid)) if uid == gid => {
                let pool = Pool { first: uid.0, ranges: uid.1 / SIZE, shared };
                return if pool.ranges > 0 { Ok(Some(pool)) } else { Err(too_small(name)) };
            }
            _ => {
                return Err(Error::invalid(
                    "/etc/subgid",
                    format!("its entry {name} must be the same as in /etc/subuid"),
                ));
            }
        }
    }
    Ok(None)
}

fn too_small(name: &str) -> Error {
    Error::invalid("/etc/subuid", format!("its entry {name} has fewer than {SIZE} ids"))
        .hint(format!("write wsbox:165536:{}", 256 * SIZE))
}

fn read(file: &str) -> Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        result => result.context(|| file.into()),
    }
}

/// subuid(5): name:first:count; ids past the 32 bits of the kernel are no grant.
fn entries(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, first, count) =
            (fields.next()?, fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
        first.checked_add(count).map(|_| (name, first, count))
    })
}

/// How many ids the text of /etc/subuid or /etc/subgid grants to `name`, in its largest entry.
pub fn granted(text: &str, name: &str) -> u32 {
    entries(text).filter(|(found, ..)| *found == name).map(|(_, _, count)| count).max().unwrap_or_default()
}

fn find(text: &str, name: &str) -> Option<(u32, u32)> {
    entries(text).find(|(found, ..)| *found == name).map(|(_, first, count)| (first, count))
}

/// Without any entry: a pool that no entry, user, or live user namespace covers, above the ids that systemd hands out
/// (systemd's UIDS-GIDS.md: containers up to 1879048191) and below those that its foreign images use. Chosen once a boot.
fn default_pool() -> Result<Pool> {
    let chosen = Path::new(DIR).join("pool");
    let pool = |first| Pool { first, ranges: POOL_RANGES, shared: false };
    if let Some(first) = fs::read_link(&chosen).ok().and_then(|target| target.to_str()?.parse().ok()) {
        return Ok(pool(first));
    }
    let first = free_pool()?;
    symlink(first.to_string(), &chosen).context(|| chosen.display().to_string())?;
    Ok(pool(first))
}

/// Where a pool that nobody has begins.
fn free_pool() -> Result<u32> {
    const FIRST: u32 = 1_879_048_192;
    const LAST: u32 = 2_147_352_576;
    let taken = taken()?;
    let size = POOL_RANGES * SIZE;
    let free = |first: &u32| {
        !taken.iter().any(|(start, count)| *start < first + size && first - 1 < start.saturating_add(count - 1))
    };
    let first = (FIRST..LAST - size).step_by(size as usize).find(free);
    first.ok_or_else(|| Error::invalid("/etc/subuid", "no free host ids for wsbox").hint("add an entry wsbox"))
}

/// Host ids in use: (first, count).
fn taken() -> Result<Vec<(u32, u32)>> {
    let mut taken: Vec<(u32, u32)> = Vec::new();
    for file in ["/etc/subuid", "/etc/subgid"] {
        taken.extend(entries(&read(file)?).filter(|entry| entry.2 > 0).map(|(_, first, count)| (first, count)));
    }
    for (file, field) in [("/etc/passwd", 2), ("/etc/group", 2)] {
        taken.extend(read(file)?.lines().filter_map(|line| line.split(':').nth(field)?.parse().ok()).map(|id| (id, 1)));
    }
    taken.extend(live()?);
    Ok(taken)
}

/// Host ids of the user namespaces that processes are in.
fn live() -> Result<Vec<(u32, u32)>> {
    let processes = fs::read_dir("/proc").context(|| "/proc".into())?.flatten();
    Ok(processes.flat_map(|process| live_maps(&process.path())).collect())
}

/// The host side of a process's id maps; the initial namespace's own map of everything does not count.
fn live_maps(process: &Path) -> Vec<(u32, u32)> {
    let map = |file: &str| fs::read_to_string(process.join(file)).unwrap_or_default();
    let text = map("uid_map") + &map("gid_map");
    let parse = |line: &str| -> Option<(u32, u32)> {
        let mut fields = line.split_whitespace().skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    text.lines().filter_map(parse).filter(|(_, count)| (1..u32::MAX).contains(count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subuid_entries() {
        let text = "root:1:2\nwsbox:165536:16777216\nbad\nwsbox2:5\nhuge:4294967295:9\n";
        assert_eq!(find(text, "wsbox"), Some((165_536, 16_777_216)));
        assert_eq!(find(text, "huge"), None);
        assert_eq!(find(text, "wsbox2"), None);
    }

    #[test]
    fn what_processes_have_is_kept_where_the_links_are_gone() {
        let dir = std::env::temp_dir().join(format!("wsbox-live-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let pool = Pool { first: 100_000, ranges: 3, shared: false };
        keep_live(&dir, &pool, || Ok(vec![(165_540, 1), (900_000, SIZE), (0, 1 << 30)])).unwrap();
        keep_live(&dir, &pool, || panic!("once is enough")).unwrap();
        let left: std::collections::BTreeSet<_> =
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        fs::remove_dir_all(dir).unwrap();
        assert_eq!(left.into_iter().collect::<Vec<_>>(), ["165536", "looked-100000"]);
    }

    #[test]
    fn only_ranges_of_the_gone_are_swept() {
        let dir = std::env::temp_dir().join(format!("wsbox-sweep-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        for (name, target) in [("pool", "100000"), ("100000", "/nobody"), ("165536", "/tmp"), ("231072", "/nobody")] {
            symlink(target, dir.join(name)).unwrap();
        }
        sweep(&dir, &[(231_072, SIZE)]).unwrap();
        let left: std::collections::BTreeSet<_> =
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        fs::remove_dir_all(dir).unwrap();
        assert_eq!(left.into_iter().collect::<Vec<_>>(), ["165536", "231072", "pool"]);
    }
}
