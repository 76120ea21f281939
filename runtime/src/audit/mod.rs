// SPDX-License-Identifier: Apache-2.0
//! The audit log: who did what to which container, with what result, one JSON object a line. In a file the lines are a chain
//! ([`chain`], [`verify`]); journald and syslog keep order and integrity by themselves.

pub mod chain;
#[cfg(test)]
mod chain_tests;
mod remote;
pub mod verify;

use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// The version of the lines' layout.
pub const SCHEMA: u32 = 1;
/// The most bytes of one text in a line, and the most entries of one list or object; what is longer is cut, to less and less until the
/// line is short enough.
const CUTS: [(usize, usize); 5] = [(4096, 256), (1024, 128), (256, 64), (64, 16), (32, 4)];
/// Fields of an [`Event`] and of its metadata, at most.
const FIELDS: usize = 16;
/// The most bytes of a line: less than a file has reserved.
const LINE: usize = 128 << 10;
/// The most files that are kept: each is renamed when one is full.
const FILES: u32 = 1000;
/// What rsyslog takes unless it is told otherwise (rsyslog.conf(5), $MaxMessageSize), less the head.
const SYSLOG_LINE: usize = 8000;

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file, chained and rotated
    File(PathBuf),
    /// systemd-journald, by its native protocol
    Journald,
    /// /dev/log, facility authpriv
    Syslog,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "journald" => Ok(Target::Journald),
            "syslog" => Ok(Target::Syslog),
            path if path.contains('/') => Ok(Target::File(path.into())),
            other => Err(format!("{other:?} is neither journald, syslog nor a path with a /")),
        }
    }
}

/// How a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Bytes of a file from which on the next line begins a new one
    pub max_size: u64,
    /// Files that are kept beside the current one
    pub max_files: u32,
    /// fdatasync(2) after each line
    pub sync: bool,
    /// A line that can not be written fails the command; else it is a warning
    pub refuse: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_size: 64 << 20, max_files: 10, sync: false, refuse: true }
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut policy = Self::default();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let bad = || {
                format!("{option:?} is none of max-size=SIZE, max-files=N, sync=always|never, on-error=refuse|continue")
            };
            match (name, value) {
                ("max-size", size) => policy.max_size = bytes(size).filter(|size| *size > 0).ok_or_else(bad)?,
                ("max-files", count) => match count.parse() {
                    Ok(count) if count <= FILES => policy.max_files = count,
                    Ok(_) => {
                        return Err(format!("{option:?} is more than {FILES} files: a larger max-size needs fewer"));
                    }
                    Err(_) => return Err(bad()),
                },
                ("sync", "always") => policy.sync = true,
                ("sync", "never") => policy.sync = false,
                ("on-error", "refuse") => policy.refuse = true,
                ("on-error", "continue") => policy.refuse = false,
                _ => return Err(bad()),
            }
        }
        Ok(policy)
    }
}

/// A number of bytes, with k, m or g for 1024, its square or its cube.
fn bytes(text: &str) -> Option<u64> {
    let (number, factor) = match text.char_indices().next_back()? {
        (at, 'k') => (&text[..at], 1 << 10),
        (at, 'm') => (&text[..at], 1 << 20),
        (at, 'g') => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Who asked.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The real user id
    pub uid: u32,
    /// The one that logged in, whatever it became since (proc_pid_loginuid(5)); none for a daemon
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
}

impl User {
    /// The caller.
    pub fn caller() -> Self {
        let login = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse().ok());
        Self { uid: nix::unistd::getuid().as_raw(), login_uid: login.filter(|uid| *uid != u32::MAX) }
    }
}

/// One line.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// [`SCHEMA`]
    pub schema: u32,
    /// RFC 3339, UTC
    pub time: String,
    /// The command, or `exit`
    pub event_type: String,
    /// The container
    pub container: String,
    /// Its bundle
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<PathBuf>,
    /// What its image was, where the bundle says it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// Who asked
    pub user: User,
    /// The command with its arguments, without values of variables
    pub action: Vec<String>,
    /// The state folder that it was done to
    pub resource: PathBuf,
    /// `success` or `failure`
    pub result: &'static str,
    /// Why it failed, the profile, the layers in force, what was denied
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub metadata: serde_json::Map<String, Value>,
}

/// A log that can be written.
#[derive(Debug)]
pub struct Log {
    target: Target,
    policy: Policy,
}

impl Log {
    /// Makes sure that a line can be written: what is about to be done is not to go unseen.
    ///
    /// # Errors
    /// If it can not and the policy is to refuse.
    pub fn open(target: Target, policy: Policy) -> Result<Self> {
        let log = Self { target, policy };
        let ready = match &log.target {
            Target::File(path) => chain::File::open(path, policy).and_then(chain::File::reserve),
            Target::Journald => remote::journald_answers(),
            Target::Syslog => remote::syslog_answers(),
        };
        log.judge(ready)?;
        Ok(log)
    }

    /// Writes one line.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn write(&self, event: &Event) -> Result<()> {
        let line = serde_json::to_value(event).map_err(|error| Error::invalid("--audit-log", error.to_string()));
        let most = if self.target == Target::Syslog { SYSLOG_LINE } else { LINE };
        let written = line.map(|line| fit(&line, most)).and_then(|line| match &self.target {
            Target::File(path) => chain::File::open(path, self.policy)?.append(&line).map(|anchor| {
                // A journal that is not there is no reason to fail: the chain itself is whole.
                if let Some(anchor) = anchor {
                    let log = std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
                    let fields = [("WSBOX_AUDIT_ANCHOR", anchor.as_str()), ("WSBOX_AUDIT_LOG", &log)];
                    let _ = remote::journald(&format!("wsbox audit anchor {anchor} of {log}"), &fields);
                }
            }),
            Target::Journald => remote::journald(&line.to_string(), &[("WSBOX_CONTAINER", &event.container)]),
            Target::Syslog => remote::syslog(&line.to_string()),
        });
        self.judge(written)
    }

    fn judge(&self, result: Result<()>) -> Result<()> {
        match result {
            Err(error) if !self.policy.refuse => {
                crate::cli::warn(&error.to_string());
                Ok(())
            }
            result => result.map_err(|error| error.hint("--audit-options on-error=continue goes on without")),
        }
    }
}

/// Cut so that its JSON has at most `most` bytes.
fn fit(value: &Value, most: usize) -> Value {
    let mut cuts = CUTS.iter().map(|(text, list)| cut(value.clone(), *text, *list));
    let short = cuts.find(|value| value.to_string().len() <= most);
    short.unwrap_or_else(|| cut(value.clone(), CUTS[4].0, 1))
}

/// Texts, lists and objects that are longer than a line should have are cut, wherever they are.
fn cut(value: Value, text: usize, list: usize) -> Value {
    match value {
        Value::String(long) if long.len() > text => {
            let end = (0..=text).rev().find(|end| long.is_char_boundary(*end)).unwrap_or_default();
            Value::String(format!("{}… ({} bytes)", &long[..end], long.len()))
        }
        Value::Array(all) => {
            let more = all.len().checked_sub(list).filter(|more| *more > 0);
            let more = more.map(|more| format!("… ({more} more)").into());
            Value::Array(all.into_iter().take(list).map(|value| cut(value, text, list)).chain(more).collect())
        }
        Value::Object(all) => {
            // The line's own fields are few, and all stay.
            let (list, count) = (list.max(FIELDS), all.len());
            let more = count
                .checked_sub(list)
                .filter(|more| *more > 0)
                .map(|more| ("…".to_owned(), format!("{more} more").into()));
            Value::Object(
                all.into_iter().take(list).map(|(key, value)| (key, cut(value, text, list))).chain(more).collect(),
            )
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let policy = "max-size=1m,max-files=3,sync=always,on-error=continue".parse::<Policy>();
        assert_eq!(policy, Ok(Policy { max_size: 1 << 20, max_files: 3, sync: true, refuse: false }));
        assert_eq!("".parse::<Policy>(), Ok(Policy::default()));
        for bad in [
            "max-size=0",
            "max-size=x",
            "max-files=-1",
            "max-files=1001",
            "sync",
            "sync=maybe",
            "color=red",
            "max-size=99999999999g",
        ] {
            assert!(bad.parse::<Policy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn targets() {
        assert_eq!("./a".parse(), Ok(Target::File("./a".into())));
        assert_eq!("journald".parse(), Ok(Target::Journald));
        assert!("journal".parse::<Target>().is_err());
    }

    #[test]
    fn long_texts_are_cut() {
        let long = fit(&serde_json::json!({"a": ["ü".repeat(3000)], "b": vec![1; 300]}), LINE);
        let text = long["a"][0].as_str().unwrap();
        assert!(text.len() < 4096 + 32 && text.ends_with("(6000 bytes)"));
        assert_eq!((long["b"].as_array().unwrap().len(), long["b"][256].as_str()), (257, Some("… (44 more)")));
    }

    #[test]
    fn a_line_is_never_longer_than_its_daemon_takes() {
        let many: serde_json::Map<_, _> =
            (0..1000).map(|number| (format!("call{number}"), "\u{1}".repeat(9000).into())).collect();
        let worst = serde_json::json!({"action": vec!["\u{1}".repeat(9000); 1000], "metadata": {"denied": {"blocked": many}, "error": "x".repeat(9000)}, "time": "now"});
        for most in [LINE, SYSLOG_LINE] {
            let line = fit(&worst, most);
            assert!(line.to_string().len() <= most, "{}", line.to_string().len());
            assert_eq!(line["time"], "now");
        }
    }
}
