// SPDX-License-Identifier: Apache-2.0
//! L1: a network namespace with lo alone, up.

use super::probe::Probe;
use super::{Check, host};
use crate::plan::Step;
use crate::state::ids::Range;
use crate::state::layers::{self, Proc};

pub(super) fn checks(range: Option<&Range>) -> Vec<Check> {
    let own = check("network namespace", None);
    let inside = range.map(|range| check("network namespace in a user namespace", Some(range)));
    [own].into_iter().chain(inside).collect()
}

fn check(name: &'static str, range: Option<&Range>) -> Check {
    let steps = vec![Step::Unshare { flags: libc::CLONE_NEWNET as u32 }, Step::LoUp];
    let probe = Probe { range, steps, ..Probe::default() };
    let layer = probe.run(|pid, _| layers::network(&Proc { pid: pid.as_raw() }));
    Check::of_layer(name, layer, |error| host::namespace_fix(error, "net"))
}
