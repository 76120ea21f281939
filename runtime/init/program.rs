// SPDX-License-Identifier: Apache-2.0
//! The program: what the parent writes and the init carries out. Both sides compile this file.
//!
//! A sealed memfd holds `Header`, then the steps (32 bytes each), then the data that they point into by offset: C strings,
//! arrays of native-endian integers, BPF instructions. Nothing in it is decided by the init.
//!
//! # The control socket
//! One SOCK_SEQPACKET pair. The parent sends the program's memfd by SCM_RIGHTS, and later, for the step `Receive`, every
//! other descriptor, in messages of one byte (1 = more follow, 0 = last). So the first steps run while it still prepares.
//! The init says `Started` first, which the parent awaits before it puts it under limits of memory, and answers with
//! [`Report`]s; the socket is close-on-exec, so end-of-file without a `Failed` means that the payload was executed.
//!
//! # How a violation's listener reaches a monitor
//! Sending a message would itself be filtered once the filter is in force, so the listener is fetched, never sent:
//!
//! | state | init | peer (parent or monitor) | if the other side dies here |
//! |---|---|---|---|
//! | 1 announced | `Report::Listener { value: N }`: the lowest free number N will be the listener's; then seccomp(2) with NEW_LISTENER | waits | init: send fails, `Failed`, nothing ran |
//! | 2 installed | write(control, 1 byte), which the profile must allow | `pidfd_getfd(init, N)` | init: EOF below, exit; peer: EOF, no listener, error |
//! | 3 held by both | read(control, 1 byte), which the profile must allow | holds the listener, answers nothing yet; write(control, 1 byte) | init: EOF, exit before the payload |
//! | 4 one holder | execve: N and the control socket close on exec | the only holder; answers every call with the profile's errno | payload: denied calls get ENOSYS at once, still denied |
//!
//! A profile that does not allow both read(2) and write(2) can not be counted: the plan refuses to count it.

/// First word of a program.
pub const MAGIC: u32 = 0x7773_6201;
/// Bytes of the header: magic, number of steps, total length, reserved (four `u32`).
pub const HEADER: usize = 16;
/// Bytes of a step: op, a, b, c, s, t (`u32` each), n (`u64`).
pub const STEP: usize = 32;
/// How many file descriptors a program can name.
pub const SLOTS: usize = 512;
/// Slot of the root mount, the first that the parent sends.
pub const ROOT: u32 = 0;
/// The most descriptors in one message (SCM_MAX_FD in the kernel's include/net/scm.h).
pub const FDS_PER_MESSAGE: usize = 253;

/// Kinds of Op::Dest: a directory, or whichever slot n is.
pub const DEST_DIR: u32 = 0;
/// See [`DEST_DIR`].
pub const DEST_LIKE_SLOT: u32 = 1;
/// Flag of Op::Dest: the image may have no symbolic link on the way.
pub const DEST_NO_SYMLINKS: u32 = 1;
/// Flag of Op::Dest: the place may lie in a proc file system.
pub const DEST_IN_PROC: u32 = 2;
/// Flag of Op::Dest: a symbolic link at the end of the path is the place itself
pub const DEST_NOFOLLOW: u32 = 4;
/// Flag of Op::Dest: the mount in slot n gets the mode of a directory that is there already
pub const DEST_KEEP_MODE: u32 = 8;

/// One step: about one system call. `a b c n` are numbers, `s t` offsets of data; a slot is an index into the init's
/// table of file descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Op {
    /// Waits for the descriptors, slot 0 first; and so for all that the parent does before it sends them
    Receive = 1,
    /// setns(slot a, flags b)
    SetNs,
    /// unshare(flags a)
    Unshare,
    /// setresgid(0), setresuid(0): the root of a new user namespace
    BecomeRoot,
    /// prctl(a, n)
    Prctl,
    /// keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL); ENOSYS (no keyrings in this kernel) is no error
    Keyring,
    /// setsid()
    Setsid,
    /// sethostname(s)
    Hostname,
    /// setdomainname(s)
    Domainname,
    /// mount(NULL, "/", NULL, n): propagation of what the namespace began with
    Propagate,
    /// fsopen(s) into slot a
    FsOpen,
    /// fsconfig(slot a): string s = t, or flag s where t is 0
    FsConfig,
    /// fsconfig(CREATE), fsmount(attributes n): slot a becomes the mount
    FsMount,
    /// mount_setattr(slot a, set n, recursive if b, propagation c)
    SetAttr,
    /// move_mount of slot ROOT onto "/"
    AttachRoot,
    /// Finds path s below the root, makes what is missing (b: one of DEST_*; n: a slot), into slot a; c: DEST_* flags
    Dest,
    /// move_mount of slot a onto slot b
    Attach,
    /// Writes t into the file s below slot a, following nothing
    Write,
    /// A private copy of s, in the mount of slot b, into slot a: both may be attached nowhere
    CloneTree,
    /// Covers s with the empty file or directory of the mount in slot a, if s is there
    Mask,
    /// Makes s read-only with all below it, if it is there
    ReadOnly,
    /// pivot_root(".", ".") at slot ROOT, detach of the old root
    Pivot,
    /// Brings lo up
    LoUp,
    /// Enters the time namespace that was made for children, by the proc in slot a
    EnterTime,
    /// Opens a pty in the devpts of slot a (or, SLOTS: the one at /dev/pts), sends its master, makes it the controlling
    /// terminal and stdio; n = owner; b = 1: bound on /dev/console; c = rows << 16 | columns
    Console,
    /// prlimit(a): soft n, hard s | t << 32
    Rlimit,
    /// umask(a)
    Umask,
    /// personality(a)
    Personality,
    /// set_mempolicy(a, mask of b `u64` at s)
    MemoryPolicy,
    /// Drops from the bounding set what the mask n lacks; c = the last capability of the kernel
    Bounding,
    /// setgroups(a numbers at s)
    Groups,
    /// setresgid(a)
    Gid,
    /// fchown the pipes of stdio to a; setresuid(a)
    Uid,
    /// capset: effective, permitted, inheritable (`u64` each) at s
    Capset,
    /// Ambient set: n
    Ambient,
    /// chdir(s); a = 1: EACCES is no error, a later step tries again; a = 2: only if not done yet
    Chdir,
    /// Fails with ENOENT unless the working directory lies below the root
    CheckCwd,
    /// Picks the first of a paths (offsets at s) that is an executable file
    FindExec,
    /// Reports `Ready`
    Ready,
    /// accept(slot a): waits for `start`; the connection becomes the control socket
    Await,
    /// clone(CLONE_PARENT): the child goes on, the parent reports `Forked` and ends
    Fork,
    /// Runs a program to its end, as a child: a arguments (offsets at s), b variables (offsets at t); at c: path, slot of its
    /// stdin, most milliseconds (0: no limit), filter (offset, instructions, flags)
    Hook,
    /// Closes every descriptor from a on but the control socket
    CloseFds,
    /// seccomp(SECCOMP_SET_MODE_FILTER, flags b, a instructions at s)
    Seccomp,
    /// execve of what FindExec chose: a arguments (offsets at s), b variables (offsets at t); c = 1: a failure is also said on
    /// stderr
    Exec,
}

impl Op {
    /// The operation with this number.
    pub const fn from_u32(op: u32) -> Option<Self> {
        const ALL: [Op; 45] = [
            Op::Receive,
            Op::SetNs,
            Op::Unshare,
            Op::BecomeRoot,
            Op::Prctl,
            Op::Keyring,
            Op::Setsid,
            Op::Hostname,
            Op::Domainname,
            Op::Propagate,
            Op::FsOpen,
            Op::FsConfig,
            Op::FsMount,
            Op::SetAttr,
            Op::AttachRoot,
            Op::Dest,
            Op::Attach,
            Op::Write,
            Op::CloneTree,
            Op::Mask,
            Op::ReadOnly,
            Op::Pivot,
            Op::LoUp,
            Op::EnterTime,
            Op::Console,
            Op::Rlimit,
            Op::Umask,
            Op::Personality,
            Op::MemoryPolicy,
            Op::Bounding,
            Op::Groups,
            Op::Gid,
            Op::Uid,
            Op::Capset,
            Op::Ambient,
            Op::Chdir,
            Op::CheckCwd,
            Op::FindExec,
            Op::Ready,
            Op::Await,
            Op::Fork,
            Op::Hook,
            Op::CloseFds,
            Op::Seccomp,
            Op::Exec,
        ];
        if op == 0 || op as usize > ALL.len() { None } else { Some(ALL[op as usize - 1]) }
    }
}

/// Bytes of a report: kind, step, errno, value (`u32` each).
pub const REPORT: usize = 16;

/// What a report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Report {
    /// `step` failed with `errno`, a hook with status `value`; the init is gone
    Failed = 1,
    /// Everything but the payload is done
    Ready,
    /// The master of the container's terminal comes with this message
    Console,
    /// `value` is the payload's pid as the parent sees it; its pidfd comes with this message
    Forked,
    /// Reserved for the monitor: see the table above
    Listener,
    /// The init has memory of its own: nobody is killed with it any more
    Started,
}

impl Report {
    /// The report with this number.
    pub const fn from_u32(kind: u32) -> Option<Self> {
        match kind {
            1 => Some(Report::Failed),
            2 => Some(Report::Ready),
            3 => Some(Report::Console),
            4 => Some(Report::Forked),
            5 => Some(Report::Listener),
            6 => Some(Report::Started),
            _ => None,
        }
    }
}
