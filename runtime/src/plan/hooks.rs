// SPDX-License-Identifier: Apache-2.0
//! Hooks that the init runs: createContainer before the host's files are out of reach, by its path on the host; startContainer
//! last of all, a program of the image, with no more rights than the payload has and under its filter.

use oci_spec::runtime::{Hook, Spec};

use super::step::HookRun;
use super::{Builder, Source, Step};
use crate::error::{Error, Result};
use crate::hooks;
use crate::seccomp::{Filter, NEW_LISTENER};

impl Builder<'_> {
    pub(super) fn create_container_hooks(&mut self, spec: &Spec) {
        let list = spec.hooks().as_ref().and_then(|hooks| hooks.create_container().as_deref()).unwrap_or_default();
        for (at, hook) in list.iter().enumerate() {
            self.hook(format!("hooks.createContainer[{at}]"), hook, None, "creating", None);
        }
    }

    pub(super) fn start_container_hooks(&mut self, spec: &Spec, filter: Option<&Filter>) -> Result<()> {
        let list = spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_deref()).unwrap_or_default();
        // Without no_new_privs the init still has CAP_SYS_ADMIN for the filter; the bounding set takes it from the hook at its execve.
        if !list.is_empty() && filter.is_some_and(|filter| filter.flags & NEW_LISTENER != 0) {
            let why = "can not run under a filter with SCMP_ACT_NOTIFY: its agent waits for the payload's listener";
            return Err(Error::invalid("hooks.startContainer", why));
        }
        let payload = spec.process().as_ref().and_then(|process| process.env().as_ref());
        for (at, hook) in list.iter().enumerate() {
            self.hook(format!("hooks.startContainer[{at}]"), hook, payload, "created", filter);
        }
        Ok(())
    }

    /// Without an environment of its own it has `env`: a program of the image the payload's, as with runc; one of the host none, or an
    /// image's LD_PRELOAD would be code with our rights (CVE-2025-23266).
    fn hook(
        &mut self,
        field: String,
        hook: &Hook,
        env: Option<&Vec<String>>,
        status: &'static str,
        filter: Option<&Filter>,
    ) {
        let stdin = self.source(Source::HookState(status));
        let path = hook.path().to_string_lossy().into_owned();
        let args = hook.args().clone().filter(|args| !args.is_empty());
        let step = HookRun {
            argv: args.unwrap_or_else(|| vec![path.clone()]),
            envp: hook.env().as_ref().or(env).cloned().unwrap_or_default(),
            path,
            stdin,
            timeout: hooks::timeout(hook),
            filter: filter.map(|filter| filter.program.clone()).unwrap_or_default(),
            flags: filter.map_or(0, |filter| filter.flags),
        };
        self.push(field, Step::Hook(Box::new(step)));
    }
}
