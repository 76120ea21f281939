// SPDX-License-Identifier: Apache-2.0
//! wsbox's own profile: what it must deny and what programs need.

use wsbox::seccomp::workspace;

use super::*;

fn filters() -> [(Abi, Filter); 2] {
    [(Abi::X86_64, compiled(WORKSPACE, &ON_X86)), (Abi::Aarch64, compiled(WORKSPACE, &ON_ARM))]
}

#[test]
fn what_leads_out_is_denied() {
    let denied = "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp mount umount2 open_tree \
        open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr statmount listmount listns pivot_root chroot \
        reboot kexec_load kexec_file_load init_module finit_module delete_module create_module keyctl add_key request_key \
        bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register setns unshare quotactl quotactl_fd \
        acct swapon swapoff syslog settimeofday clock_settime clock_adjtime adjtimex iopl ioperm modify_ldt \
        name_to_handle_at open_by_handle_at lookup_dcookie nfsservctl vhangup fanotify_init fanotify_mark move_pages \
        migrate_pages mbind set_mempolicy set_mempolicy_home_node memfd_secret sethostname setdomainname uselib _sysctl \
        ustat sysfs file_setattr remap_file_pages shmget semget msgget mq_open io_setup io_submit";
    for (abi, filter) in filters() {
        for name in denied.split_whitespace().filter(|name| table::number(name, abi).is_some()) {
            assert_eq!(ask(&filter, abi, name, &[]), EPERM, "{abi:?} {name}");
        }
        assert_eq!(ask(&filter, abi, "clone3", &[]), ENOSYS);
        assert_eq!(ask_nr(&filter, abi.audit_arch(), 472, &[]), ENOSYS);
    }
}

#[test]
fn no_namespaces_by_clone() {
    let namespaces = [0x80, 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000_u64];
    for (abi, filter) in filters() {
        for flag in namespaces {
            assert_eq!([flag, flag | 17, flag | 1 << 32].map(|flags| ask(&filter, abi, "clone", &[flags])), [EPERM; 3]);
        }
        // fork, vfork, and a thread as C libraries make it.
        assert_eq!([0x11, 0x4111, 0x3d_0f00].map(|flags| ask(&filter, abi, "clone", &[flags])), [ALLOW; 3]);
    }
}

#[test]
fn unix_sockets_only() {
    for (abi, filter) in filters() {
        for name in ["socket", "socketpair"] {
            for family in (0..64).filter(|&family| family != 1) {
                let got = [family, family | 1 << 32].map(|family| ask(&filter, abi, name, &[family, 1, 0]));
                assert_eq!(got, [EPERM; 2], "{name} {family}");
            }
            assert_eq!(ask(&filter, abi, name, &[1, 1, 0]), ALLOW);
        }
    }
}

#[test]
fn no_typing_into_terminals() {
    for (abi, filter) in filters() {
        for command in [0x5412, 0x541c] {
            for dirt in [0, 1 << 32, 1 << 63, 0xffff_ffff << 32] {
                assert_eq!(ask(&filter, abi, "ioctl", &[0, command | dirt]), EPERM, "{command:#x} {dirt:#x}");
            }
        }
        let others = (0x5400..0x5480).chain([0, 0x8004_5430, 0xc018_9400, 0xffff_ffff]);
        for command in others.filter(|command| ![0x5412, 0x541c].contains(command)) {
            assert_eq!(ask(&filter, abi, "ioctl", &[0, command]), ALLOW, "{command:#x}");
        }
        // As a C library passes it that takes the command as an int.
        assert_eq!(ask(&filter, abi, "ioctl", &[0, 0xffff_ffff_8004_5430]), ALLOW);
    }
}

#[test]
fn harmless_personalities() {
    for (abi, filter) in filters() {
        for (value, wanted) in
            [(0, ALLOW), (8, ALLOW), (0x2_0000, ALLOW), (0x2_0008, ALLOW), (0xffff_ffff, ALLOW), (u64::MAX, ALLOW)]
                .into_iter()
                .chain([(0x4_0000, EPERM), (0x10_0000, EPERM), (0x40_0000, EPERM), (1, EPERM)])
        {
            assert_eq!(ask(&filter, abi, "personality", &[value]), wanted, "{value:#x}");
        }
    }
}

#[test]
fn foreign_abis_are_killed() {
    let [(_, x86), (_, arm)] = filters();
    for abi in Abi::ALL {
        assert_eq!(ask(&x86, abi, "getpid", &[]), if abi == Abi::X86_64 { ALLOW } else { KILL }, "{abi:?}");
        assert_eq!(ask(&arm, abi, "getpid", &[]), if abi == Abi::Aarch64 { ALLOW } else { KILL }, "{abi:?}");
    }
}

#[test]
fn it_survives_a_round_trip() {
    let json = serde_json::to_string(&workspace()).unwrap();
    assert_eq!(compiled(&json, &ON_X86), compiled(WORKSPACE, &ON_X86));
}
