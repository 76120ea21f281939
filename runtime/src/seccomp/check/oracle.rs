// SPDX-License-Identifier: Apache-2.0
//! A naive reading of a profile: for one call, look through the JSON's rules and say what must happen. It shares nothing with the
//! compiler but the table of numbers.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use crate::seccomp::interpret::Call;
use crate::seccomp::{Abi, Arch, table};
use serde_json::Value;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;
const KILL_PROCESS: u32 = 0x8000_0000;
const ENOSYS: u32 = 0x0005_0000 + 38;
const NEGATIVE_INTS: u64 = 0xffff_ffff_8000_0000;

/// A condition of a rule.
#[derive(Clone, Debug)]
pub struct Arg {
    /// 0 to 5
    pub index: usize,
    op: String,
    /// What the argument is compared with, or the mask
    pub value: u64,
    /// What is left under the mask
    pub two: u64,
}

/// What a profile says of a call.
#[derive(Clone, Debug)]
pub struct Rule {
    verdict: u32,
    /// All of them hold
    pub args: Vec<Arg>,
}

/// A profile as one machine reads it.
pub struct Oracle {
    default: u32,
    host: Arch,
    listed: BTreeSet<String>,
    rules: HashMap<String, Vec<Rule>>,
}

/// What must happen: exactly this, or something at least as strict as all of these.
#[derive(Debug)]
pub enum Wanted {
    /// SECCOMP_RET_*
    Exactly(u32),
    /// Where it is not known how many bits of an argument the kernel reads
    AtLeast(Vec<u32>),
}

impl Wanted {
    /// Whether `got` is right.
    pub fn admits(&self, got: u32) -> bool {
        match self {
            Self::Exactly(wanted) => got == *wanted,
            Self::AtLeast(all) => all.iter().all(|wanted| rank(got) >= rank(*wanted)),
        }
    }
}

/// The kernel's order of strictness.
fn rank(verdict: u32) -> usize {
    let order = [0x7fff, 0x7ffc, 0x7ff0, 0x7fc0, 0x0005, 0x0003, 0x0000, 0x8000];
    order.iter().position(|&action| action == verdict >> 16).unwrap_or(order.len())
}

fn denies(verdict: u32) -> bool {
    rank(verdict) >= rank(0x0005_0000)
}

fn verdict(action: &Value, data: &Value) -> u32 {
    let data = data.as_u64().unwrap_or(1) as u32;
    match action.as_str().unwrap_or_default() {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 + data,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 + data,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        // No filter says this, so that it can not be missed.
        _ => u32::MAX,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl Oracle {
    /// Reads `linux.seccomp`, which has been parsed before: what is none of it is passed over.
    pub fn new(profile: &Value, host: Arch) -> Self {
        let default = verdict(&profile["defaultAction"], &profile["defaultErrnoRet"]);
        let mut rules: HashMap<String, Vec<Rule>> = HashMap::new();
        for item in list(&profile["syscalls"]) {
            for name in list(&item["names"]) {
                let known = rules.entry(name.as_str().unwrap_or_default().to_owned()).or_default();
                known.extend(alternatives(item).into_iter().filter(|rule| rule.verdict != default));
            }
        }
        let listed =
            list(&profile["architectures"]).iter().filter_map(|arch| arch.as_str().map(str::to_owned)).collect();
        Self { default, host, listed, rules }
    }

    fn lists(&self, arch: &str) -> bool {
        self.listed.contains(arch)
    }

    /// The ABI that serves a call; none if such calls are killed.
    pub fn abi(&self, call: &Call) -> Option<Abi> {
        match (self.host, call.arch) {
            (Arch::X86_64, X86_64) if call.nr < 0x4000_0000 || call.nr == u32::MAX => Some(Abi::X86_64),
            (Arch::X86_64, X86_64) => self.lists("SCMP_ARCH_X32").then_some(Abi::X32),
            (Arch::X86_64, I386) => self.lists("SCMP_ARCH_X86").then_some(Abi::X86),
            (Arch::Aarch64, AARCH64) => Some(Abi::Aarch64),
            (Arch::Aarch64, ARM) => self.lists("SCMP_ARCH_ARM").then_some(Abi::Arm),
            _ => None,
        }
    }

    /// The name of a call, if it has one on `abi`.
    pub fn name(&self, abi: Abi, nr: u32) -> Option<&'static str> {
        static NAMES: OnceLock<Vec<HashMap<u32, &'static str>>> = OnceLock::new();
        let all = NAMES.get_or_init(|| {
            let of = |abi| {
                (0..1024)
                    .chain(0x4000_0000..0x4000_0400)
                    .chain(0xf_0000..0xf_0010)
                    .filter_map(move |nr| Some((nr, table::name(nr, abi)?)))
            };
            Abi::ALL.iter().map(|&abi| of(abi).collect()).collect()
        });
        all[abi as usize].get(&nr).copied()
    }

    /// The rules for a call in the order in which equals win, own ones before those through socketcall and ipc.
    pub fn rules(&self, abi: Abi, name: &str) -> Vec<Rule> {
        let mut rules = self.rules.get(name).cloned().unwrap_or_default();
        if abi == Abi::X86 && (name == "socketcall" || name == "ipc") {
            rules.extend(self.carried(name));
        }
        rules
    }

    /// Rules that a carrier inherits: tightening ones whatever their conditions, others only without.
    fn carried(&self, carrier: &str) -> Vec<Rule> {
        let (codes, op, two) = match carrier {
            "socketcall" => (SOCKETCALL, "SCMP_CMP_EQ", None),
            _ => (IPC, "SCMP_CMP_MASKED_EQ", Some(0xffff)),
        };
        let mut carried = Vec::new();
        for (at, name) in codes.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            for rule in self.rules.get(*name).into_iter().flatten() {
                if rank(rule.verdict) >= rank(self.default) || rule.args.is_empty() {
                    let code = at as u64 + 1;
                    let arg = Arg { index: 0, op: op.into(), value: two.unwrap_or(code), two: code };
                    carried.push(Rule { verdict: rule.verdict, args: vec![arg] });
                }
            }
        }
        carried
    }

    /// Whether `nr` is above all numbers of its kind that the profile names.
    fn is_newer(&self, abi: Abi, nr: u32) -> bool {
        let private = |nr: u32| match abi {
            Abi::X32 => nr >= 0x4000_0000 + 512,
            Abi::Arm => nr >= 0xf_0000,
            _ => false,
        };
        let named = || self.rules.keys().filter_map(|name| table::number(name, abi));
        let newest = named().filter(|&other| private(other) == private(nr)).max();
        let known = if private(nr) { None } else { Some(471 + if abi == Abi::X32 { 0x4000_0000 } else { 0 }) };
        newest.or(known).is_none_or(|newest| nr > newest)
    }

    /// What must happen to a call.
    pub fn wanted(&self, call: &Call) -> Wanted {
        let Some(abi) = self.abi(call) else { return Wanted::Exactly(KILL_PROCESS) };
        let unsupported = denies(self.default) && self.is_newer(abi, call.nr);
        let fallback = if unsupported { ENOSYS } else { self.default };
        let Some(name) = self.name(abi, call.nr) else { return Wanted::Exactly(fallback) };
        let rules = self.rules(abi, name);
        if matches!(abi, Abi::X86 | Abi::Arm) {
            return Wanted::Exactly(decide(&rules, fallback, |arg| arg.holds_narrow(call)));
        }
        let full = decide(&rules, fallback, |arg| arg.holds_full(call));
        let truncated = decide(&rules, fallback, |arg| arg.holds_truncated(call));
        let agree =
            rules.iter().flat_map(|rule| &rule.args).all(|arg| arg.holds_full(call) == arg.holds_truncated(call));
        if agree { Wanted::Exactly(full) } else { Wanted::AtLeast(vec![full, truncated]) }
    }
}

/// The first rule without conditions, else the strictest whose conditions hold, else `fallback`.
fn decide(rules: &[Rule], fallback: u32, holds: impl Fn(&Arg) -> bool) -> u32 {
    if let Some(rule) = rules.iter().find(|rule| rule.args.is_empty()) {
        return rule.verdict;
    }
    let mut best: Option<u32> = None;
    for rule in rules.iter().filter(|rule| rule.args.iter().all(&holds)) {
        if best.is_none_or(|best| rank(rule.verdict) > rank(best)) {
            best = Some(rule.verdict);
        }
    }
    best.unwrap_or(fallback)
}

/// By code, from 1.
const SOCKETCALL: &[&str] = &[
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];
const IPC: &[&str] = &[
    "semop",
    "semget",
    "semctl",
    "semtimedop",
    "",
    "",
    "",
    "",
    "",
    "",
    "msgsnd",
    "msgrcv",
    "msgget",
    "msgctl",
    "",
    "",
    "",
    "",
    "",
    "",
    "shmat",
    "shmdt",
    "shmget",
    "shmctl",
];

/// One rule, or one per condition where an argument occurs twice.
fn alternatives(item: &Value) -> Vec<Rule> {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let verdict = verdict(&item["action"], &item["errnoRet"]);
    let args: Vec<Arg> = list(&item["args"])
        .iter()
        .map(|arg| Arg {
            index: number(&arg["index"]) as usize,
            op: arg["op"].as_str().unwrap_or_default().to_owned(),
            value: number(&arg["value"]),
            two: number(&arg["valueTwo"]),
        })
        .collect();
    let indexes: BTreeSet<usize> = args.iter().map(|arg| arg.index).collect();
    if indexes.len() < args.len() {
        return args.into_iter().map(|arg| Rule { verdict, args: vec![arg] }).collect();
    }
    vec![Rule { verdict, args }]
}

impl Arg {
    fn compare(&self, x: u64, value: u64, two: u64) -> bool {
        match self.op.trim_start_matches("SCMP_CMP_") {
            "NE" => x != value,
            "LT" => x < value,
            "LE" => x <= value,
            "EQ" => x == value,
            "GE" => x >= value,
            "GT" => x > value,
            "MASKED_EQ" => x & value == two & value,
            _ => false,
        }
    }

    fn holds_full(&self, call: &Call) -> bool {
        self.compare(call.args[self.index], self.value, self.two)
    }

    fn low(call: &Call, index: usize) -> u64 {
        call.args[index] & 0xffff_ffff
    }

    /// What the argument is compared with, if that can be a negative `int`.
    fn negative(&self) -> bool {
        match self.op.as_str() {
            "SCMP_CMP_EQ" | "SCMP_CMP_NE" => self.value >= NEGATIVE_INTS,
            "SCMP_CMP_MASKED_EQ" => self.value & self.two >= NEGATIVE_INTS,
            _ => false,
        }
    }

    /// If the argument is an `int` to the kernel, as far as the value allows that.
    fn holds_truncated(&self, call: &Call) -> bool {
        let low = 0xffff_ffff;
        let masked = self.op == "SCMP_CMP_MASKED_EQ";
        if masked && self.value & low == 0 {
            return self.holds_full(call);
        }
        let value = if masked { self.value & self.two } else { self.value };
        match () {
            () if self.negative() && masked => {
                self.compare(Self::low(call, self.index), self.value & low, self.two & low)
            }
            () if self.negative() => self.compare(Self::low(call, self.index), self.value & low, 0),
            () if value <= low => self.compare(Self::low(call, self.index), self.value, self.two),
            () => self.holds_full(call),
        }
    }

    /// On a 32-bit ABI, where the low half is all there is.
    fn holds_narrow(&self, call: &Call) -> bool {
        let low = 0xffff_ffff;
        let narrow = Call { args: call.args.map(|arg| arg & low), ..*call };
        let whole_mask = self.op != "SCMP_CMP_MASKED_EQ" || self.value & low != 0;
        if self.negative() && whole_mask { self.holds_truncated(&narrow) } else { self.holds_full(&narrow) }
    }
}
