// SPDX-License-Identifier: Apache-2.0
//! The steps of a program by value, their encoding for the init, and how `wsbox plan` prints them.

use std::ffi::CString;
use std::fmt;

use super::program::{DEST_DIR, DEST_KEEP_MODE, DEST_LIKE_SLOT, HEADER, MAGIC, Op, STEP};
use crate::seccomp::Insn;

/// A slot of the init's table of file descriptors.
pub type Slot = u32;

/// What a mount point must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory
    Dir,
    /// A directory whose mode the mount in this slot takes, if it is there already
    DirModel(Slot),
    /// Whichever the root of the mount in this slot is
    Like(Slot),
}

/// A hook that the init runs.
#[derive(Clone, Debug, PartialEq)]
pub struct HookRun {
    /// The program, as the init sees files at that time
    pub path: String,
    /// Its arguments, the first its name
    pub argv: Vec<String>,
    /// Its environment
    pub envp: Vec<String>,
    /// The slot of what it reads
    pub stdin: Slot,
    /// Most milliseconds, 0 for no limit
    pub timeout: u32,
    /// What it runs under, if anything
    pub filter: Vec<Insn>,
    /// SECCOMP_FILTER_FLAG_* of the filter
    pub flags: u32,
}

/// One step of a program; the variants are those of [`Op`].
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Receive,
    SetNs { slot: Slot, flags: u32 },
    Unshare { flags: u32 },
    BecomeRoot,
    Prctl { option: u32, value: u64 },
    Keyring,
    Setsid,
    Hostname { name: String },
    Domainname { name: String },
    Propagate { flags: u64 },
    FsOpen { slot: Slot, kind: String },
    FsConfig { slot: Slot, key: String, value: Option<String> },
    FsMount { slot: Slot, attributes: u64 },
    SetAttr { slot: Slot, set: u64, propagation: u32, recursive: bool },
    AttachRoot,
    Dest { slot: Slot, path: String, kind: Kind, flags: u32 },
    Attach { mount: Slot, dest: Slot },
    Write { dir: Slot, path: String, value: String },
    CloneTree { slot: Slot, from: Slot, path: String },
    Mask { empty: Slot, path: String },
    ReadOnly { path: String },
    Pivot,
    LoUp,
    EnterTime { proc: Slot },
    Console { devpts: Slot, uid: u32, bind: bool, rows: u16, columns: u16 },
    Rlimit { resource: u32, soft: u64, hard: u64 },
    Umask { mask: u32 },
    Personality { domain: u32 },
    MemoryPolicy { mode: u32, mask: Vec<u64> },
    Bounding { keep: u64, last: u32 },
    Groups { gids: Vec<u32> },
    Gid { gid: u32 },
    Uid { uid: u32 },
    Capset { effective: u64, permitted: u64, inheritable: u64 },
    Ambient { set: u64 },
    Chdir { path: String, turn: u32 },
    CheckCwd,
    FindExec { candidates: Vec<String> },
    Ready,
    Await { listener: Slot },
    Fork,
    Hook(Box<HookRun>),
    CloseFds { first: u32 },
    Seccomp { filter: Vec<Insn>, flags: u32 },
    Exec { argv: Vec<String>, envp: Vec<String>, says: bool },
}

/// A step, and the field of the config that asked for it: what an error names.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The step.
    pub step: Step,
    /// A JSON path such as `mounts[2].options[1]`, or empty where the step is wsbox's own doing.
    pub field: String,
}

/// A flat list of steps: nothing is decided after it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// The steps, in order.
    pub steps: Vec<Planned>,
}

impl Program {
    /// Appends a step that `field` of the config asks for.
    pub fn push(&mut self, field: impl Into<String>, step: Step) {
        self.steps.push(Planned { step, field: field.into() });
    }

    /// Whether the payload itself says what this step failed with, and ends by it.
    pub fn said(&self, at: usize) -> bool {
        self.steps.get(at).is_some_and(|planned| matches!(planned.step, Step::Exec { says: true, .. }))
    }

    /// The bytes that the init reads: see program.rs for the layout.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(self.steps.len());
        for (index, planned) in self.steps.iter().enumerate() {
            encoder.step(index, &planned.step);
        }
        encoder.finish(self.steps.len())
    }
}

/// The words of a step.
#[derive(Default)]
struct Words {
    a: u32,
    b: u32,
    c: u32,
    s: u32,
    t: u32,
    n: u64,
}

struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    fn new(steps: usize) -> Self {
        let mut bytes = Vec::with_capacity(16 * 1024);
        bytes.resize(HEADER + steps * STEP, 0);
        Self { bytes }
    }

    fn finish(mut self, steps: usize) -> Vec<u8> {
        // The init takes offset 0 for "none", and reads C strings: the last byte is a NUL.
        self.bytes.push(0);
        let total = self.bytes.len() as u32;
        for (at, word) in [MAGIC, steps as u32, total, 0].into_iter().enumerate() {
            self.bytes[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
        }
        self.bytes
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    fn text(&mut self, text: &str) -> u32 {
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        at
    }

    fn words(&mut self, words: impl IntoIterator<Item = u32>) -> u32 {
        self.align();
        let at = self.bytes.len() as u32;
        self.bytes.extend(words.into_iter().flat_map(u32::to_ne_bytes));
        at
    }

    fn longs(&mut self, longs: impl IntoIterator<Item = u64>) -> u32 {
        self.align();
        let at = self.bytes.len() as u32;
        self.bytes.extend(longs.into_iter().flat_map(u64::to_ne_bytes));
        at
    }

    /// The strings, then an array of their offsets with room for the NULL that ends argv.
    fn strings(&mut self, strings: &[String]) -> u32 {
        let offsets: Vec<u64> = strings.iter().map(|text| u64::from(self.text(text))).chain([0]).collect();
        self.longs(offsets)
    }

    fn hook(&mut self, hook: &HookRun) -> Words {
        let (filter, count) = (self.instructions(&hook.filter), hook.filter.len() as u32);
        let more = [self.text(&hook.path), hook.stdin, hook.timeout, filter, count, hook.flags];
        let (s, t) = (self.strings(&hook.argv), self.strings(&hook.envp));
        Words { a: hook.argv.len() as u32, b: hook.envp.len() as u32, c: self.words(more), s, t, ..Words::default() }
    }

    fn instructions(&mut self, filter: &[Insn]) -> u32 {
        self.align();
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&crate::seccomp::to_bytes(filter));
        at
    }

    fn step(&mut self, index: usize, step: &Step) {
        let words = self.encode(step);
        let record = &mut self.bytes[HEADER + index * STEP..][..STEP];
        let numbers = [step.op() as u32, words.a, words.b, words.c, words.s, words.t];
        for (to, number) in record.chunks_exact_mut(4).zip(numbers) {
            to.copy_from_slice(&number.to_ne_bytes());
        }
        record[24..].copy_from_slice(&words.n.to_ne_bytes());
    }

    fn encode(&mut self, step: &Step) -> Words {
        let none = Words::default();
        match step {
            Step::SetNs { slot, flags } => Words { a: *slot, b: *flags, ..none },
            Step::Unshare { flags } => Words { a: *flags, ..none },
            Step::Prctl { option, value } => Words { a: *option, n: *value, ..none },
            Step::Hostname { name } | Step::Domainname { name } => Words { s: self.text(name), ..none },
            Step::Propagate { flags } => Words { n: *flags, ..none },
            Step::FsOpen { slot, kind } => Words { a: *slot, s: self.text(kind), ..none },
            Step::FsConfig { slot, key, value } => {
                let t = value.as_ref().map_or(0, |value| self.text(value));
                Words { a: *slot, s: self.text(key), t, ..none }
            }
            Step::FsMount { slot, attributes } => Words { a: *slot, n: *attributes, ..none },
            Step::SetAttr { slot, set, propagation, recursive } => {
                Words { a: *slot, b: u32::from(*recursive), c: *propagation, n: *set, ..none }
            }
            Step::Dest { slot, path, kind, flags } => {
                let (b, n, more) = match kind {
                    Kind::Dir => (DEST_DIR, 0, 0),
                    Kind::DirModel(slot) => (DEST_DIR, u64::from(*slot), DEST_KEEP_MODE),
                    Kind::Like(slot) => (DEST_LIKE_SLOT, u64::from(*slot), 0),
                };
                Words { a: *slot, b, c: *flags | more, s: self.text(path), n, ..none }
            }
            Step::Attach { mount, dest } => Words { a: *mount, b: *dest, ..none },
            Step::Write { dir, path, value } => Words { a: *dir, s: self.text(path), t: self.text(value), ..none },
            Step::EnterTime { proc } => Words { a: *proc, ..none },
            Step::CloneTree { slot, from, path } => Words { a: *slot, b: *from, s: self.text(path), ..none },
            Step::Mask { empty, path } => Words { a: *empty, s: self.text(path), ..none },
            Step::ReadOnly { path } => Words { s: self.text(path), ..none },
            Step::Console { devpts, uid, bind, rows, columns } => {
                let size = u32::from(*rows) << 16 | u32::from(*columns);
                Words { a: *devpts, b: u32::from(*bind), c: size, n: u64::from(*uid), ..none }
            }
            step => self.encode_of_process(step),
        }
    }

    /// The steps that make the init what the payload is to be.
    fn encode_of_process(&mut self, step: &Step) -> Words {
        let none = Words::default();
        match step {
            Step::Rlimit { resource, soft, hard } => {
                Words { a: *resource, n: *soft, s: *hard as u32, t: (*hard >> 32) as u32, ..none }
            }
            Step::Personality { domain } => Words { a: *domain, ..none },
            Step::MemoryPolicy { mode, mask } => {
                let halves = mask.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
                let words = halves.chunks_exact(4).map(|half| u32::from_ne_bytes([half[0], half[1], half[2], half[3]]));
                Words { a: *mode, b: mask.len() as u32, s: self.words(words), ..none }
            }
            Step::Umask { mask } => Words { a: *mask, ..none },
            Step::Bounding { keep, last } => Words { c: *last, n: *keep, ..none },
            Step::Groups { gids } => Words { a: gids.len() as u32, s: self.words(gids.iter().copied()), ..none },
            Step::Gid { gid } => Words { a: *gid, ..none },
            Step::Uid { uid } => Words { a: *uid, ..none },
            Step::Capset { effective, permitted, inheritable } => {
                Words { s: self.longs([*effective, *permitted, *inheritable]), ..none }
            }
            Step::Ambient { set } => Words { n: *set, ..none },
            Step::Chdir { path, turn } => Words { a: *turn, s: self.text(path), ..none },
            Step::FindExec { candidates } => {
                let offsets: Vec<u32> = candidates.iter().map(|path| self.text(path)).collect();
                Words { a: offsets.len() as u32, s: self.words(offsets), ..none }
            }
            Step::Await { listener } => Words { a: *listener, ..none },
            Step::CloseFds { first } => Words { a: *first, ..none },
            Step::Seccomp { filter, flags } => {
                Words { a: filter.len() as u32, b: *flags, s: self.instructions(filter), ..none }
            }
            Step::Hook(hook) => self.hook(hook),
            Step::Exec { argv, envp, says } => Words {
                a: argv.len() as u32,
                b: envp.len() as u32,
                c: u32::from(*says),
                s: self.strings(argv),
                t: self.strings(envp),
                ..none
            },
            _ => none,
        }
    }
}

impl Step {
    /// The operation that carries it out.
    pub fn op(&self) -> Op {
        match self {
            Step::Receive => Op::Receive,
            Step::SetNs { .. } => Op::SetNs,
            Step::Unshare { .. } => Op::Unshare,
            Step::BecomeRoot => Op::BecomeRoot,
            Step::Prctl { .. } => Op::Prctl,
            Step::Keyring => Op::Keyring,
            Step::Setsid => Op::Setsid,
            Step::Hostname { .. } => Op::Hostname,
            Step::Domainname { .. } => Op::Domainname,
            Step::Propagate { .. } => Op::Propagate,
            Step::FsOpen { .. } => Op::FsOpen,
            Step::FsConfig { .. } => Op::FsConfig,
            Step::FsMount { .. } => Op::FsMount,
            Step::SetAttr { .. } => Op::SetAttr,
            Step::AttachRoot => Op::AttachRoot,
            Step::Dest { .. } => Op::Dest,
            Step::Attach { .. } => Op::Attach,
            Step::Write { .. } => Op::Write,
            Step::CloneTree { .. } => Op::CloneTree,
            Step::Mask { .. } => Op::Mask,
            Step::ReadOnly { .. } => Op::ReadOnly,
            Step::Pivot => Op::Pivot,
            Step::LoUp => Op::LoUp,
            Step::EnterTime { .. } => Op::EnterTime,
            Step::Console { .. } => Op::Console,
            Step::Rlimit { .. } => Op::Rlimit,
            Step::Umask { .. } => Op::Umask,
            Step::Personality { .. } => Op::Personality,
            Step::MemoryPolicy { .. } => Op::MemoryPolicy,
            Step::Bounding { .. } => Op::Bounding,
            Step::Groups { .. } => Op::Groups,
            Step::Gid { .. } => Op::Gid,
            Step::Uid { .. } => Op::Uid,
            Step::Capset { .. } => Op::Capset,
            Step::Ambient { .. } => Op::Ambient,
            Step::Chdir { .. } => Op::Chdir,
            Step::CheckCwd => Op::CheckCwd,
            Step::FindExec { .. } => Op::FindExec,
            Step::Ready => Op::Ready,
            Step::Await { .. } => Op::Await,
            Step::Fork => Op::Fork,
            Step::Hook(_) => Op::Hook,
            Step::CloseFds { .. } => Op::CloseFds,
            Step::Seccomp { .. } => Op::Seccomp,
            Step::Exec { .. } => Op::Exec,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Seccomp { filter, flags } => {
                write!(f, "Seccomp {{ {} instructions, flags: {flags:#x} }}", filter.len())
            }
            Step::Propagate { flags } => write!(f, "Propagate {{ flags: {flags:#x} }}"),
            Step::SetNs { slot, flags } => write!(f, "SetNs {{ slot: {slot}, flags: {flags:#x} }}"),
            Step::FsMount { slot, attributes } => write!(f, "FsMount {{ slot: {slot}, attributes: {attributes:#x} }}"),
            Step::Hook(hook) => write!(f, "Hook {{ argv: {:?}, timeout: {} ms }}", hook.argv, hook.timeout),
            // Values of variables may be secrets.
            Step::Exec { argv, envp, .. } => {
                let names: Vec<&str> = envp.iter().map(|variable| variable.split('=').next().unwrap_or("")).collect();
                write!(f, "Exec {{ argv: {argv:?}, env: {names:?} }}")
            }
            step => write!(f, "{step:?}"),
        }
    }
}

/// A C string for a system call of the parent, or the reason why it can not be one.
pub fn c_string(field: &str, text: &str) -> crate::Result<CString> {
    CString::new(text).map_err(|_| crate::Error::invalid(field, "holds a NUL byte"))
}
