// SPDX-License-Identifier: Apache-2.0
//! L7: ranges of host ids, a user namespace that has one, and an id-mapped mount whose files show as its root's.

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::probe::Probe;
use super::{Check, Status, host, root};
use crate::error::{Context, Error, Result};
use crate::state::ids::{self, Range, SIZE};
use crate::state::layers::{self, Proc};

/// What deployment/docker/subuid and subgid have for wsbox: 256 ranges.
const LINE: &str = "wsbox:165536:16777216";

/// The range that probes use, and what is to be said of the files.
pub(super) struct Pool {
    pub range: Option<Range>,
    pub checks: Vec<Check>,
}

/// What /etc/subuid and /etc/subgid grant.
pub(super) fn pool() -> Pool {
    const NAME: &str = "/etc/subuid and /etc/subgid";
    let fix = format!("for file in subuid subgid; do sed -i '/^wsbox:/d' /etc/$file; echo {LINE} >> /etc/$file; done");
    match ids::peek() {
        Ok((range, from)) => {
            let evidence = format!("{from}; {SIZE} ids from {} on", range.first);
            let entry = from == ids::OWN_ENTRY;
            let status = if entry { Status::Ok } else { Status::Note };
            let check = Check { name: NAME, status, evidence, fix: (!entry).then_some(fix) };
            Pool { range: Some(range), checks: vec![check] }
        }
        Err(error) => {
            let mut check = Check::failed(NAME, &error, |_| fix.clone());
            check.fix = Some(fix);
            Pool { range: None, checks: vec![check] }
        }
    }
}

fn needed(range: Option<&Range>) -> Result<&Range> {
    range.ok_or_else(|| Error::invalid("user namespace", "not tried: there are no ids for it"))
}

/// A child whose root is an unprivileged user of the host.
pub(super) fn user_namespace(range: Option<&Range>) -> Check {
    let tried = || {
        let range = needed(range)?;
        let probe = Probe { range: Some(range), ..Probe::default() };
        probe.run(|pid, _| layers::user(&Proc { pid: pid.as_raw() }, range.shared))
    };
    Check::of_layer("user namespace with maps", tried(), |error| host::namespace_fix(error, "user"))
}

/// Root's folder, seen through an id-mapped mount of it.
pub(super) fn id_mapped(range: Option<&Range>) -> Check {
    let tried = || {
        let range = needed(range)?;
        let owner = fstat(root::id_mapped(range)?).context(|| "stat on an id-mapped mount".into())?.st_uid;
        if owner == range.first {
            return Ok(format!("a file of uid 0 shows as uid {owner}'s, without chown"));
        }
        Err(Error::invalid("id-mapped mount", format!("a file of uid 0 shows as uid {owner}'s, not {}'s", range.first)))
    };
    let fix = |error: &Error| match error.errno() {
        Some(Errno::EINVAL) => {
            "boot Linux 6.3 or later, or have / on ext4, xfs or btrfs: before, a tmpfs can not be id-mapped".into()
        }
        _ => host::namespace_fix(error, "user"),
    };
    Check::new("id-mapped mount", tried(), fix)
}
