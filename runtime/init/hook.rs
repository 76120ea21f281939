// SPDX-License-Identifier: Apache-2.0
//! Hooks that belong into the container's namespaces: a child of the init runs each, and the init waits for it.

use crate::sys::{self, *};
use crate::{Init, Step, word};

/// Bytes of what a hook has besides arguments and environment.
const MORE: u32 = 24;

impl Init {
    /// ECANCELED if it failed, ETIMEDOUT if it was killed when its time was over.
    pub fn hook(&mut self, step: &Step) -> Result<()> {
        let argv = Pointers::relocate(self.program, step.s as usize, step.a as usize).ok_or(EBADMSG)?;
        let envp = Pointers::relocate(self.program, step.t as usize, step.b as usize).ok_or(EBADMSG)?;
        let more = |at: usize| word(self.data(step.c, MORE)?, at * 4).ok_or(EBADMSG);
        let (pid, pidfd) = sys::fork_child()?;
        if pid == 0 {
            // Its own descriptors and filter, then the hook: what is left of us in it is nothing.
            let _ = self.become_hook([more(0)?, more(1)?, more(3)?, more(4)?, more(5)?], &argv, &envp);
            sys::exit(127)
        }
        let in_time = sys::readable_within(pidfd, more(2)?)?;
        if !in_time {
            sys::kill(pidfd)?;
        }
        let status = sys::wait(pidfd)?;
        sys::close(pidfd);
        self.detail = status;
        match (in_time, status) {
            (true, 0) => Ok(()),
            (true, _) => Err(ECANCELED),
            (false, _) => Err(ETIMEDOUT),
        }
    }

    fn become_hook(&self, words: [u32; 5], argv: &Pointers, envp: &Pointers) -> Result<()> {
        let [path, stdin, filter, count, flags] = words;
        sys::dup_onto(self.fd(stdin)?, 0)?;
        sys::dup_onto(2, 1)?;
        sys::close_range(3, u32::MAX)?;
        if count > 0 {
            sys::seccomp(self.data(filter, count * 8)?, flags)?;
        }
        sys::reset_signals();
        sys::execve(self.text(path)?, argv, envp)
    }
}
