// SPDX-License-Identifier: Apache-2.0
//! L2, L4 and L8: the filter, the capabilities and no_new_privs, set by a child on itself.

use super::probe::Probe;
use super::{Check, host};
use crate::error::{Context, Result};
use crate::launch;
use crate::plan::Step;
use crate::seccomp;
use crate::state::Seccomp;
use crate::state::ids::Range;
use crate::state::layers::{self, Layer, Proc};

/// linux/prctl.h
const PR_SET_NO_NEW_PRIVS: u32 = 38;
const NO_NEW_PRIVS: Step = Step::Prctl { option: PR_SET_NO_NEW_PRIVS, value: 1 };

fn of_status(probe: Probe<'_>, layer: fn(&str) -> Layer) -> Result<Layer> {
    probe.run(|pid, _| Proc { pid: pid.as_raw() }.read("status").map(|status| layer(&status)))
}

/// wsbox's own profile, with the flags of profiles that ask for them.
pub(super) fn filter() -> Check {
    let tried = || {
        let filter = seccomp::compile(&seccomp::workspace(), &seccomp::Options::default())?;
        let flags = filter.flags | libc::SECCOMP_FILTER_FLAG_LOG as u32;
        let steps = vec![NO_NEW_PRIVS, Step::Seccomp { filter: filter.program, flags }];
        of_status(Probe { steps, ..Probe::default() }, |status| layers::seccomp(status, Seccomp::Profile))
    };
    let fix = |_: &_| "boot a kernel with CONFIG_SECCOMP_FILTER=y (grep SECCOMP /boot/config-$(uname -r))".to_owned();
    Check::of_layer("workspace-seccomp.json", tried(), fix)
}

/// All five sets emptied, the bounding set among them, which takes CAP_SETPCAP.
pub(super) fn capabilities(range: Option<&Range>) -> Check {
    let steps = vec![
        Step::Bounding { keep: 0, last: launch::last_cap() },
        Step::Capset { effective: 0, permitted: 0, inheritable: 0 },
        Step::Ambient { set: 0 },
    ];
    let layer = of_status(Probe { range, steps, ..Probe::default() }, layers::capabilities);
    Check::of_layer("five empty sets", layer, |_| host::as_root("CAP_SETPCAP"))
}

pub(super) fn no_new_privs() -> Check {
    let layer = of_status(Probe { steps: vec![NO_NEW_PRIVS], ..Probe::default() }, layers::no_new_privs);
    Check::of_layer("prctl(PR_SET_NO_NEW_PRIVS)", layer, |_| "boot Linux 6.1 or later".into())
}

/// Whether a process may be made a less likely victim than wsbox itself: docker run --oom-score-adj.
pub(super) fn oom_score() -> Check {
    let own = || -> Result<i32> {
        let file = "/proc/self/oom_score_adj";
        Ok(std::fs::read_to_string(file).context(|| file.into())?.trim().parse().unwrap_or_default())
    };
    let tried = || {
        let lower = (own()? - 1).max(-1000);
        Probe::default().run(|pid, _| {
            launch::userns::write_proc(pid, "oom_score_adj", &lower.to_string())
                .context(|| format!("set oom_score_adj to {lower}"))
        })?;
        Ok(format!("oom_score_adj {lower} could be set"))
    };
    let fix = |_: &_| {
        "give wsbox and its engine CAP_SYS_RESOURCE; until then a lower process.oomScoreAdj (docker run --oom-score-adj) is refused".to_owned()
    };
    Check::new("CAP_SYS_RESOURCE", tried(), fix).into_note()
}
