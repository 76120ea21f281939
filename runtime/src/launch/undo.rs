// SPDX-License-Identifier: Apache-2.0
//! A launch that failed.

use super::Launch;
use crate::hooks::{self, Moment};
use crate::state;
use crate::sys::pidfd;

impl Launch<'_> {
    /// Takes back what was done, in reverse. What can not be is left for `delete`: the record is still there then.
    pub(super) fn undo(mut self) {
        if let Some(child) = self.child.take() {
            let _ = pidfd::send_signal(&child.spawned.pidfd, libc::SIGKILL);
            let _ = pidfd::wait(&child.spawned.pidfd);
            child.spawned.executed();
        }
        if let Some(lent) = self.lent.take() {
            lent.give_back();
        }
        if let Some(record) = &self.record {
            record.extras.undo();
            state::held::release(&record.annotations, self.folder.path());
        }
        if let Some((monitor, cgroup)) =
            self.record.as_ref().and_then(|record| Some((record.monitor.as_ref()?, &record.cgroup)))
        {
            let _ = monitor.end(cgroup);
        }
        let removed = self.cgroup.take().map_or(Ok(()), |cgroup| cgroup.kill_all().and_then(|()| cgroup.discard()));
        // A hook that ran may have made what another takes back (runtime.md, "Lifecycle").
        if let Some(record) = self.record.as_ref().filter(|record| record.process.is_some()) {
            hooks::run_all(Moment::Stopped, self.bundle.spec.hooks().as_ref(), record);
        }
        if removed.is_ok() {
            let ids = self.record.as_ref().and_then(|record| record.ids.clone());
            let _ = self.folder.remove(ids.as_ref());
        }
    }
}
