// SPDX-License-Identifier: Apache-2.0
//! What others are told of a container, at each step of its launch.

use super::{Launch, exec};
use crate::bundle::Bundle;
use crate::cgroup;
use crate::error::Result;
use crate::extras;
use crate::hooks::Moment;
use crate::plan::Plan;
use crate::rootless;
use crate::seccomp::Counted;
use crate::state::{self, Record, Seccomp, Status, ids};

impl Launch<'_> {
    /// Before anything is made: from here on a `delete` knows what to look for, wherever we are killed.
    pub(super) fn record_creating(&mut self, id: &str, ids: Option<ids::Range>) -> Result<()> {
        let record = Record { ids, ..new_record(self.bundle, self.plan, self.host, id)? };
        self.folder.write(&record)?;
        self.record = Some(record);
        Ok(())
    }

    /// While the init is at work: what later commands need. The record is written at the next transition; until then the
    /// cgroup is what `delete` finds us by.
    pub(super) fn remember(&mut self) -> Result<()> {
        let child = self.child()?;
        let process = state::process::remember(child.spawned.pid, &child.spawned.pidfd)?;
        if let Some(record) = &mut self.record {
            record.process = Some(process);
        }
        self.folder.keep(&self.bundle.config, self.plan.filter.as_ref().map(exec::save_filter).as_deref())
    }

    pub(super) fn set_status(&mut self, status: Status) -> Result<()> {
        match &mut self.record {
            Some(record) => {
                record.status = status;
                self.folder.write(record)
            }
            None => Ok(()),
        }
    }
}

/// What is known of a container before anything of it is made.
pub(crate) fn new_record(bundle: &Bundle, plan: &Plan, host: cgroup::Host, id: &str) -> Result<Record> {
    let spec = &bundle.spec;
    Ok(Record {
        version: state::VERSION,
        oci_version: spec.version().clone(),
        id: id.into(),
        bundle: bundle.path.clone(),
        rootfs: bundle.root_path()?,
        status: Status::Creating,
        process: None,
        cgroup: plan.cgroup.saved(host),
        ids: None,
        extras: extras::Made::default(),
        seccomp: filter_kind(bundle, plan),
        monitor: None,
        uncounted: match plan.counted {
            Counted::Impossible(why) => Some(why.into()),
            Counted::No | Counted::Yes => None,
        },
        hooks: [Moment::Started, Moment::Stopped].iter().any(|moment| !moment.of(spec.hooks().as_ref()).is_empty()),
        created: state::now(),
        owner: rootless::outer_uid(),
        in_user_namespace: Some(plan.device_rules.is_some()),
        annotations: spec.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect(),
    })
}

fn filter_kind(bundle: &Bundle, plan: &Plan) -> Seccomp {
    let profile = bundle.spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
    match (&plan.filter, profile) {
        (None, _) => Seccomp::None,
        (Some(_), false) => Seccomp::Guard,
        (Some(_), true) => Seccomp::Profile,
    }
}
