// SPDX-License-Identifier: Apache-2.0
//! bpf(2): loading and attaching a device program (linux/bpf.h).
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of parent and child cgroups all run, and all must allow.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The first fields of union bpf_attr for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// The first fields of union bpf_attr for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Loads a program for device access control; an instruction is 8 bytes.
pub fn load_device_program(instructions: &[u64]) -> nix::Result<OwnedFd> {
    let attr = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    // SAFETY: attr is the beginning of a bpf_attr of the size given, and what it points to lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<Load>()) };
    let fd = Errno::result(result)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches it to a cgroup v2 directory; it stays until the cgroup is removed.
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> nix::Result<()> {
    let attr = Attach {
        target_fd: cgroup.as_fd().as_raw_fd() as u32,
        attach_bpf_fd: program.as_fd().as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: attr is the beginning of a bpf_attr of the size given.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attr, size_of::<Attach>()) };
    Errno::result(result).map(drop)
}
