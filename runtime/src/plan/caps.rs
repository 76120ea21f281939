// SPDX-License-Identifier: Apache-2.0
//! Capability sets as bit masks (capabilities(7)).

use std::str::FromStr;

use oci_spec::runtime::{Capabilities, LinuxCapabilities};

use super::{Builder, Step};
use crate::error::{Error, Result};

/// The five sets, as masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

impl Sets {
    /// Whether `capability` is in any of them.
    pub fn any(&self, capability: caps::Capability) -> bool {
        let all = self.bounding | self.effective | self.permitted | self.inheritable | self.ambient;
        all & capability.bitmask() != 0
    }
}

/// No capabilities in the config are no capabilities, as in runc.
pub fn sets(config: Option<&LinuxCapabilities>) -> Result<Sets> {
    let Some(config) = config else { return Ok(Sets::default()) };
    Ok(Sets {
        bounding: mask(config.bounding().as_ref())?,
        effective: mask(config.effective().as_ref())?,
        permitted: mask(config.permitted().as_ref())?,
        inheritable: mask(config.inheritable().as_ref())?,
        ambient: mask(config.ambient().as_ref())?,
    })
}

fn mask(set: Option<&Capabilities>) -> Result<u64> {
    set.into_iter().flatten().try_fold(0, |mask, cap| {
        let known = caps::Capability::from_str(&format!("CAP_{cap}"));
        let known = known.map_err(|_| Error::invalid("process.capabilities", format!("CAP_{cap} is unknown")))?;
        Ok(mask | known.bitmask())
    })
}

/// The rights of a process in one place: what it keeps through set[ug]id, and what it ends with.
impl Builder<'_> {
    /// Without the ambient capabilities that no kernel raises (prctl(2), PR_CAP_AMBIENT_RAISE): `runc spec` writes such.
    pub(super) fn possible(&mut self, mut sets: Sets, uid: u32) -> Sets {
        let kept = sets.ambient & sets.permitted & sets.inheritable;
        // Root has what is permitted all the same (capabilities(7), "Capabilities and execution of programs by root").
        if kept != sets.ambient && uid != 0 {
            let why = "those that are not permitted and inheritable as well can not be raised, they are left out";
            self.warnings.push(format!("process.capabilities.ambient: {why}"));
        }
        sets.ambient = kept;
        sets
    }

    /// The bounding set first: dropping from it takes CAP_SETPCAP.
    pub(super) fn bounding(&mut self, field: &str, sets: &Sets) {
        self.push(format!("{field}.bounding"), Step::Bounding { keep: sets.bounding, last: self.host.last_cap });
    }

    /// capset(2) and the ambient set, whose members must be permitted and inheritable.
    pub(super) fn capabilities(&mut self, field: &str, sets: &Sets) {
        let Sets { effective, permitted, inheritable, ambient, .. } = *sets;
        self.push(field, Step::Capset { effective, permitted, inheritable });
        self.push(format!("{field}.ambient"), Step::Ambient { set: ambient });
    }
}
