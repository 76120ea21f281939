// SPDX-License-Identifier: Apache-2.0
//! What was counted, for people and programs: numbers become names, and names are text whatever bytes a container has put there.

use std::fs::File;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

use super::counts::{BYTES, HEADER, KILLED, LOST, MAGIC, OVERFLOW, ROW, ROWS, TOTAL, USED, VERSION};
use super::{COUNTS, Life};
use crate::error::{Context, Error, Result};
use crate::seccomp::{Abi, X32_BIT, table};
use crate::state::{Record, Root};

/// One call that was denied to one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blocked {
    /// The call's name; "syscall N" where there is none
    pub syscall: String,
    /// Its ABI, as the kernel counts it: x86_64, x32, x86, aarch64, arm
    pub abi: &'static str,
    /// comm of the calling process: any text; none where it was not read
    pub process: Option<String>,
    /// How often
    pub count: u64,
}

/// Whether violations are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody asked for it
    #[default]
    Off,
    /// They are, or were until the container's end
    On,
    /// It has stopped: denied calls are never made all the same
    Stopped,
    /// It was wanted and can not be
    Impossible,
}

/// What was counted of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Violations {
    /// Whether they are counted
    pub counting: State,
    /// Why they are not
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Denied calls
    pub total: u64,
    /// By call and process, the most first
    pub blocked: Vec<Blocked>,
    /// Those of the total that no row was left for
    #[serde(skip)]
    pub others: u64,
    /// Processes that wsbox waited for and that the filter killed (SIGSYS)
    pub killed: u64,
}

/// The violations of container `id`.
///
/// # Errors
/// If it does not exist, or the file of counts can not be read.
pub fn violations(root: &Root, id: &str) -> Result<Violations> {
    of(&root.read(id)?)
}

/// The same, by its record.
pub fn of(record: &Record) -> Result<Violations> {
    let Some(monitor) = &record.monitor else {
        let counting = if record.uncounted.is_some() { State::Impossible } else { State::Off };
        return Ok(Violations { counting, reason: record.uncounted.clone(), ..Violations::default() });
    };
    // Before the counts: a monitor that ends by itself has counted everything.
    let alive = crate::state::lifecycle::process(record)?.is_some();
    let life = monitor.life()?;
    let words = read(&monitor.folder.join(COUNTS))?;
    let reason = match life {
        Life::Stopped => Some("the monitor was stopped by a signal: denied calls wait for it"),
        Life::Gone if alive => Some("the monitor was killed: denied calls fail with ENOSYS"),
        _ if words[LOST] > 0 => Some("a listener could not be taken: denied calls of one process fail with ENOSYS"),
        _ => None,
    };
    Ok(Violations {
        counting: if reason.is_some() { State::Stopped } else { State::On },
        reason: reason.map(str::to_owned),
        total: words[TOTAL],
        others: words[OVERFLOW],
        blocked: rows(&words),
        killed: words[KILLED],
    })
}

/// One more process of the container that the filter killed, as its end says. Whoever counts here takes turns.
///
/// # Errors
/// If the file can not be written.
pub fn count_killed(record: &Record) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let Some(monitor) = &record.monitor else { return Ok(()) };
    let path = monitor.folder.join(COUNTS);
    let context = || path.display().to_string();
    let file = File::options().read(true).write(true).open(&path).context(context)?;
    let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::system(context(), errno))?;
    let (mut word, at) = ([0; 8], KILLED as u64 * 8);
    file.read_exact_at(&mut word, at).context(context)?;
    file.write_all_at(&(u64::from_ne_bytes(word) + 1).to_ne_bytes(), at).context(context)
}

/// The file as words.
fn read(path: &Path) -> Result<Vec<u64>> {
    let context = || path.display().to_string();
    let bytes = std::fs::read(path).context(context)?;
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    match words.get(..2) {
        Some([MAGIC, VERSION]) if bytes.len() == BYTES => Ok(words),
        _ => Err(Error::invalid(context(), format!("is no file of counts of version {VERSION}"))),
    }
}

fn rows(words: &[u64]) -> Vec<Blocked> {
    let used = (words[USED] as usize).min(ROWS);
    let rows = words[HEADER..].chunks_exact(ROW).take(used);
    let mut blocked: Vec<Blocked> = rows.map(row).collect();
    blocked.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.syscall, &a.process).cmp(&(&b.syscall, &b.process))));
    blocked
}

fn row(row: &[u64]) -> Blocked {
    let (nr, arch) = (row[0] as u32, (row[0] >> 32) as u32);
    let abi = Abi::ALL.into_iter().find(|abi| abi.audit_arch() == arch && (*abi == Abi::X32) == (nr & X32_BIT != 0));
    let name = abi.and_then(|abi| table::name(nr, abi));
    Blocked {
        syscall: name.map_or_else(|| format!("syscall {nr}"), str::to_owned),
        abi: abi.map_or("unknown", abi_name),
        process: process(&[row[1].to_ne_bytes(), row[2].to_ne_bytes()].concat()),
        count: row[3],
    }
}

fn abi_name(abi: Abi) -> &'static str {
    match abi {
        Abi::X86_64 => "x86_64",
        Abi::X32 => "x32",
        Abi::X86 => "x86",
        Abi::Aarch64 => "aarch64",
        Abi::Arm => "arm",
    }
}

fn process(name: &[u8]) -> Option<String> {
    let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    (len > 0).then(|| String::from_utf8_lossy(&name[..len]).into_owned())
}

impl Violations {
    /// One line, whatever the container calls itself: `ptrace 2 (strace), mount 1 (mount)`. No name has a line break, a bracket or a comma.
    pub fn line(&self) -> String {
        let list: Vec<String> = self.blocked.iter().map(Blocked::line).collect();
        let rest = (self.others > 0).then(|| format!("others {}", self.others));
        list.into_iter().chain(rest).collect::<Vec<_>>().join(", ")
    }
}

impl Blocked {
    fn line(&self) -> String {
        let letter = |letter: char| match letter {
            '(' | ')' | ',' => letter.escape_unicode().to_string(),
            _ => letter.escape_debug().to_string(),
        };
        let process: String =
            self.process.as_deref().map_or_else(|| "?".into(), |name| name.chars().map(letter).collect());
        format!("{} {} ({process})", self.syscall, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rows: &[(u32, u32, &[u8], u64)]) -> Vec<u64> {
        let mut words = vec![MAGIC, VERSION, rows.len() as u64, 0, 0, 0, 0, 0];
        for (nr, arch, name, count) in rows {
            let mut padded = [0u8; 16];
            padded[..name.len()].copy_from_slice(name);
            words.push(u64::from(*nr) | u64::from(*arch) << 32);
            words.extend(padded.as_chunks::<8>().0.iter().map(|half| u64::from_ne_bytes(*half)));
            words.push(*count);
        }
        words.resize(BYTES / 8, 0);
        words
    }

    #[test]
    fn numbers_become_names_and_names_become_harmless() {
        let x86_64 = Abi::X86_64.audit_arch();
        let words = words(&[
            (165, x86_64, b"mount", 1),
            (101, x86_64, b"a\"b\n\x1b[2J\xff", 2),
            (101 | X32_BIT, x86_64, b"", 3),
            (26, Abi::X86.audit_arch(), b"sixteen bytes!!!", 4),
            (9999, 7, b"x", 5),
        ]);
        let found = rows(&words);
        let seen: Vec<_> = found.iter().map(|row| (row.syscall.as_str(), row.abi, row.process.as_deref())).collect();
        assert_eq!(
            seen,
            [
                ("syscall 9999", "unknown", Some("x")),
                ("ptrace", "x86", Some("sixteen bytes!!!")),
                ("syscall 1073741925", "x32", None),
                ("ptrace", "x86_64", Some("a\"b\n\x1b[2J\u{fffd}")),
                ("mount", "x86_64", Some("mount")),
            ]
        );
        let line = Violations { total: 20, others: 5, blocked: found, ..Violations::default() }.line();
        assert!(line.ends_with("mount 1 (mount), others 5") && !line.contains(['\n', '\x1b']), "{line}");
        assert!(line.contains("ptrace 2 (a\\\"b\\n\\u{1b}[2J"), "{line}");
        let blocked =
            |process: &str| Blocked { syscall: "mount".into(), abi: "x86_64", process: Some(process.into()), count: 1 };
        assert_eq!(blocked("x), bpf 9 (y").line(), "mount 1 (x\\u{29}\\u{2c} bpf 9 \\u{28}y)");
    }
}
