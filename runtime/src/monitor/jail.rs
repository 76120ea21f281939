// SPDX-License-Identifier: Apache-2.0
//! The monitor's own filter: what its loop calls, and nothing else. It has no sockets to make, no process to signal, no memory to
//! map; what it may open is below its root, a proc file system that can not be written.

use std::collections::BTreeMap;

use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::error::{Error, Result};
use crate::seccomp::Insn;

/// SECCOMP_IOCTL_NOTIF_RECV, _SEND, _ID_VALID and _SET_FLAGS of linux/seccomp.h.
const REQUESTS: [u64; 4] = [0xc050_2100, 0xc018_2101, 0x4008_2102, 0x4008_2104];
const CALLS: [libc::c_long; 7] = [
    libc::SYS_ppoll,
    libc::SYS_recvmsg,
    libc::SYS_openat2,
    libc::SYS_read,
    libc::SYS_close,
    libc::SYS_clock_gettime,
    libc::SYS_exit_group,
];

/// The filter: whatever else it called, it would be killed.
pub fn filter() -> Result<Vec<Insn>> {
    compile().map_err(|error| Error::invalid("the monitor's filter", error.to_string()))
}

fn compile() -> std::result::Result<Vec<Insn>, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let request = |request: &u64| {
        let condition = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *request)?;
        SeccompRule::new(vec![condition])
    };
    rules.insert(libc::SYS_ioctl, REQUESTS.iter().map(request).collect::<std::result::Result<_, _>>()?);
    let arch = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{Arch, interpret};

    #[test]
    fn it_knows_the_calls_of_the_loop_only() {
        let filter = filter().unwrap();
        let verdict = |nr: libc::c_long, request: u64| {
            let args = [0, request, 0, 0, 0, 0];
            let arch = Arch::native().abi().audit_arch();
            interpret::run(&filter, &interpret::Call { nr: nr as u32, arch, args, ..Default::default() })
        };
        for nr in CALLS {
            assert_eq!(verdict(nr, 0), Some(libc::SECCOMP_RET_ALLOW));
        }
        for nr in
            [libc::SYS_socket, libc::SYS_kill, libc::SYS_execve, libc::SYS_write, libc::SYS_ioctl, libc::SYS_openat]
        {
            assert_eq!(verdict(nr, 0), Some(libc::SECCOMP_RET_KILL_PROCESS), "{nr}");
        }
        for request in REQUESTS {
            assert_eq!(verdict(libc::SYS_ioctl, request), Some(libc::SECCOMP_RET_ALLOW));
        }
    }
}
