// SPDX-License-Identifier: Apache-2.0
//! A user namespace for wsbox itself, and the config's maps as they are inside.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, User, getegid, geteuid, setresgid, setresuid};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

use super::owned::Owned;
use crate::bundle::Bundle;
use crate::error::{Context, Error, Result};

/// Enters a user and a mount namespace for this bundle if the caller is an unprivileged user, and returns the bundle as it is in
/// there. The caller must have no other threads (unshare(2)).
///
/// # Errors
/// Maps that a user can not have, by their field; what is missing on the host.
pub fn enter(mut bundle: Bundle) -> Result<Bundle> {
    if geteuid().is_root() {
        return Ok(bundle);
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let name = name(uid);
    let wanted = maps(&bundle.spec)?;
    let (mut uids, mut gids) = owned(uid, gid, &name);
    let alone = match &wanted {
        Some(maps) => covers(&maps.uid, uid) && covers(&maps.gid, gid),
        None => !mappable(&uids, &gids),
    };
    if alone {
        (uids, gids) = (Owned::alone(uid), Owned::alone(gid));
    }
    let inside = match wanted {
        Some(maps) => {
            Maps { uid: uids.translate(&maps.uid, "uid", &name)?, gid: gids.translate(&maps.gid, "gid", &name)? }
        }
        None => Maps { uid: uids.all(), gid: gids.all() },
    };
    if alone { enter_alone(uid, gid) } else { enter_with(&uids, &gids) }?;
    become_root()?;
    ENTERED.store(true, Ordering::Relaxed);
    if alone {
        bundle.warnings.extend(kept_groups(gid));
    }
    set_maps(&mut bundle.spec, inside);
    Ok(bundle)
}

/// Whether a container of the caller's can have more than one id.
pub fn has_range() -> bool {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let (uids, gids) = owned(uid, gid, &name(uid));
    mappable(&uids, &gids)
}

fn name(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn owned(uid: u32, gid: u32, name: &str) -> (Owned, Owned) {
    (Owned::read("/etc/subuid", uid, name, uid), Owned::read("/etc/subgid", gid, name, uid))
}

fn mappable(uids: &Owned, gids: &Owned) -> bool {
    uids.has_range() && gids.has_range() && installed()
}

static ENTERED: AtomicBool = AtomicBool::new(false);

/// Whether this process is in a user namespace of its own making.
pub fn entered() -> bool {
    ENTERED.load(Ordering::Relaxed)
}

struct Maps {
    uid: Vec<LinuxIdMapping>,
    gid: Vec<LinuxIdMapping>,
}

fn covers(map: &[LinuxIdMapping], own: u32) -> bool {
    map.iter().all(|entry| entry.host_id() == own && entry.size() == 1)
}

/// The maps of the config; None if it leaves them to wsbox.
fn maps(spec: &Spec) -> Result<Option<Maps>> {
    let linux = spec.linux().as_ref().ok_or_else(|| Error::invalid("linux", "is missing"))?;
    let user = linux.namespaces().iter().flatten().find(|namespace| namespace.typ() == LinuxNamespaceType::User);
    match user {
        None => {
            let error = Error::invalid("linux.namespaces", "lack a user namespace, which a user's container needs");
            Err(error.hint("`wsbox spec --rootless` writes a config with one; or run wsbox as root"))
        }
        Some(user) if user.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty()) => {
            let error = Error::invalid("linux.namespaces", "of a user can not join a user namespace");
            Err(error.hint("leave its path out"))
        }
        Some(_) => {
            let list = |map: &Option<Vec<LinuxIdMapping>>| map.clone().unwrap_or_default();
            let maps = Maps { uid: list(linux.uid_mappings()), gid: list(linux.gid_mappings()) };
            let missing = match (maps.uid.is_empty(), maps.gid.is_empty()) {
                (true, true) => return Ok(None),
                (false, false) => return Ok(Some(maps)),
                (true, false) => "uid",
                (false, true) => "gid",
            };
            let error = Error::invalid(format!("linux.{missing}Mappings"), "is missing beside the other one");
            Err(error.hint("give both, or neither: they are the user's own ids then"))
        }
    }
}

fn set_maps(spec: &mut Spec, maps: Maps) {
    if let Some(mut linux) = spec.linux().clone() {
        linux.set_uid_mappings(Some(maps.uid)).set_gid_mappings(Some(maps.gid));
        spec.set_linux(Some(linux));
    }
}

/// Without setgroups(2) a process keeps the groups that it has (user_namespaces(7)).
fn kept_groups(own: u32) -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    // Inside, all others are the same nobody: how many is told all the same.
    let others = groups.split_whitespace().filter(|group| *group != "0" && *group != own.to_string()).count();
    (others > 0).then(|| {
        format!(
            "process.user: the payload keeps {others} other groups of the user's, which only entries in /etc/subuid and /etc/subgid let it give up"
        )
    })
}

fn become_root() -> Result<()> {
    let step = || "become root of a user namespace".to_owned();
    setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).context(step)?;
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).context(step)?;
    // New rights have made our /proc files the host's root's, and those of the init with them (PR_SET_DUMPABLE(2const)).
    nix::sys::prctl::set_dumpable(true).context(step)
}

fn separate() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(|errno| {
        let error = Error::system("make a user namespace for wsbox", errno);
        match errno {
            Errno::EPERM => error.hint(
                "this host denies them to users: sysctl -w kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            Errno::ENOSPC => error.hint("sysctl -w user.max_user_namespaces=65536"),
            Errno::EINVAL => error.hint("a program with threads can not: run the command wsbox"),
            _ => error,
        }
    })
}

/// The one id that anybody may map is its own.
fn enter_alone(uid: u32, gid: u32) -> Result<()> {
    separate()?;
    let put = |file: &str, text: String| {
        let path = format!("/proc/self/{file}");
        std::fs::write(&path, text).context(|| path)
    };
    put("setgroups", "deny".into())?;
    put("uid_map", format!("0 {uid} 1"))?;
    put("gid_map", format!("0 {gid} 1"))
}

const HELPERS: [&str; 2] = ["newuidmap", "newgidmap"];

fn installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    HELPERS.iter().all(|helper| std::env::split_paths(&path).any(|folder| folder.join(helper).is_file()))
}

/// More ids take newuidmap(1) and newgidmap(1), which must run outside: they are there before and wait.
fn enter_with(uids: &Owned, gids: &Owned) -> Result<()> {
    let [uidmap, gidmap] = HELPERS;
    let mut helpers = [(helper(uidmap, uids)?, "uid"), (helper(gidmap, gids)?, "gid")];
    let entered = separate();
    for (child, kind) in &mut helpers {
        let map = if entered.is_ok() { go(child) } else { child.wait().map(|_| true) };
        let field = format!("linux.{kind}Mappings");
        if !map.context(|| format!("{field}: wait for new{kind}map"))? {
            let error = Error::invalid(field, format!("new{kind}map refused the map of the user's ids"));
            return Err(
                error.hint(format!("it takes the set-id program of the package uidmap, and entries in /etc/sub{kind}"))
            );
        }
    }
    entered
}

/// Lets a helper go on, and waits for its end.
fn go(helper: &mut Child) -> std::io::Result<bool> {
    if let Some(mut stdin) = helper.stdin.take() {
        stdin.write_all(b"go\n")?;
    }
    helper.wait().map(|status| status.success())
}

fn helper(program: &str, owned: &Owned) -> Result<Child> {
    let numbers = owned.map().into_iter().flat_map(|(inside, outside, count)| [inside, outside, count]);
    Command::new("sh")
        .args(["-c", "read go && exec \"$@\"", "sh", program])
        .arg(std::process::id().to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::piped())
        .spawn()
        .context(|| format!("start {program}"))
}
