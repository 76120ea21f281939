// SPDX-License-Identifier: Apache-2.0
//! The calling conventions (ABIs) that a filter tells apart, and which of them a host can run.

use oci_spec::runtime::Arch as OciArch;

/// The bit in a call's number that says "x32" under `AUDIT_ARCH_X86_64` (`__X32_SYSCALL_BIT`, asm/unistd.h).
pub const X32_BIT: u32 = 0x4000_0000;

/// A machine that wsbox runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// Intel and AMD, 64 bits: runs x86_64, x32 and 32-bit x86 calls.
    X86_64,
    /// ARM, 64 bits: runs aarch64 and 32-bit ARM (EABI) calls.
    Aarch64,
}

impl Arch {
    /// The machine this program was built for.
    pub const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// The ABI of the machine's own programs.
    pub const fn abi(self) -> Abi {
        match self {
            Self::X86_64 => Abi::X86_64,
            Self::Aarch64 => Abi::Aarch64,
        }
    }

    /// Every ABI that a kernel for this machine may serve, the native one first.
    pub const fn abis(self) -> &'static [Abi] {
        match self {
            Self::X86_64 => &[Abi::X86_64, Abi::X32, Abi::X86],
            Self::Aarch64 => &[Abi::Aarch64, Abi::Arm],
        }
    }
}

/// One set of system call numbers; the order is that of the columns in `table/calls.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// `SCMP_ARCH_X86_64`.
    X86_64,
    /// `SCMP_ARCH_X32`: 32-bit pointers in 64-bit registers; shares x86_64's audit value.
    X32,
    /// `SCMP_ARCH_X86`: i386, through `int 0x80` or `sysenter`.
    X86,
    /// `SCMP_ARCH_AARCH64`.
    Aarch64,
    /// `SCMP_ARCH_ARM`: 32-bit EABI.
    Arm,
}

impl Abi {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::X86_64, Self::X32, Self::X86, Self::Aarch64, Self::Arm];

    /// What `seccomp_data.arch` holds for it (`AUDIT_ARCH_*`, linux/audit.h).
    pub const fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// What is added to the numbers of the table to get those that `seccomp_data.nr` holds.
    pub const fn base(self) -> u32 {
        if matches!(self, Self::X32) { X32_BIT } else { 0 }
    }

    /// The first number of the ABI's own calls, which do not follow the common count: x32's from 512, ARM's from 0xf0000.
    pub(crate) const fn private_from(self) -> u32 {
        match self {
            Self::X32 => 512,
            Self::Arm => 0x000f_0000,
            _ => u32::MAX,
        }
    }

    /// Whether arguments come in 64-bit registers; of a 32-bit ABI's the kernel only ever takes the low half.
    pub(crate) const fn is_wide(self) -> bool {
        !matches!(self, Self::X86 | Self::Arm)
    }

    /// The ABI that an entry of `linux.seccomp.architectures` means; none if `host` cannot run it.
    pub(crate) fn of_host(arch: OciArch, host: Arch) -> Option<Self> {
        let abi = match arch {
            OciArch::ScmpArchNative => host.abi(),
            OciArch::ScmpArchX86_64 => Self::X86_64,
            OciArch::ScmpArchX32 => Self::X32,
            OciArch::ScmpArchX86 => Self::X86,
            OciArch::ScmpArchAarch64 => Self::Aarch64,
            OciArch::ScmpArchArm => Self::Arm,
            _ => return None,
        };
        host.abis().contains(&abi).then_some(abi)
    }
}
