// SPDX-License-Identifier: Apache-2.0
//! bpf(2): loading and attaching a device program (linux/bpf.h).
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of parent and child cgroups all run, and all must allow.
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;
/// Times that a load is tried again.
const TRIES: u32 = 10;

/// The first fields of union bpf_attr for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// The first fields of union bpf_attr for BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// The first fields of union bpf_attr for BPF_PROG_QUERY.
#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
}

/// Loads a program for device access control; an instruction is 8 bytes.
pub fn load_device_program(instructions: &[u64]) -> nix::Result<OwnedFd> {
    let attr = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    let load = || {
        // SAFETY: attr is the beginning of a bpf_attr of the size given, and what it points to lives through the call.
        Errno::result(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<Load>()) })
    };
    // The verifier gives up when a signal comes, whoever handles it (kernel/bpf/verifier.c).
    let mut result = load();
    for _ in 0..TRIES {
        if result != Err(Errno::EAGAIN) {
            break;
        }
        result = load();
    }
    let fd = result?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches it to a cgroup v2 directory; it stays until the cgroup is removed.
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> nix::Result<()> {
    change(BPF_PROG_ATTACH, cgroup, program, BPF_F_ALLOW_MULTI, 0)
}

/// Attaches it in the place of `before`, at once.
pub fn replace_device_program(cgroup: impl AsFd, program: impl AsFd, before: impl AsFd) -> nix::Result<()> {
    let before = before.as_fd().as_raw_fd() as u32;
    change(BPF_PROG_ATTACH, cgroup, program, BPF_F_ALLOW_MULTI | BPF_F_REPLACE, before)
}

/// Takes it off the cgroup.
pub fn detach_device_program(cgroup: impl AsFd, program: impl AsFd) -> nix::Result<()> {
    change(BPF_PROG_DETACH, cgroup, program, 0, 0)
}

fn change(command: libc::c_int, cgroup: impl AsFd, program: impl AsFd, flags: u32, replaced: u32) -> nix::Result<()> {
    let attr = Attach {
        target_fd: cgroup.as_fd().as_raw_fd() as u32,
        attach_bpf_fd: program.as_fd().as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: flags,
        replace_bpf_fd: replaced,
    };
    // SAFETY: attr is the beginning of a bpf_attr of the size given.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attr, size_of::<Attach>()) };
    Errno::result(result).map(drop)
}

/// The program that is attached to the cgroup itself, if there is one; E2BIG if there are others beside it.
pub fn device_program(cgroup: impl AsFd) -> nix::Result<Option<OwnedFd>> {
    let mut id = 0u32;
    let mut attr = Query {
        target_fd: cgroup.as_fd().as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: (&raw mut id) as u64,
        prog_cnt: 1,
    };
    // SAFETY: attr is the beginning of a bpf_attr of the size given, and has room for the one id that it says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attr, size_of::<Query>()) };
    match Errno::result(result) {
        Err(Errno::ENOSPC) => return Err(Errno::E2BIG),
        result => drop(result?),
    }
    if attr.prog_cnt == 0 {
        return Ok(None);
    }
    // SAFETY: the attribute of this command begins with the id.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_GET_FD_BY_ID, &raw const id, size_of::<u32>()) };
    let fd = Errno::result(result)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}
