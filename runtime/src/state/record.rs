// SPDX-License-Identifier: Apache-2.0
//! state.json: what is known of a container, written whole at each transition.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::ids::Range;
use crate::monitor::Monitor;
use crate::{cgroup, extras};

/// The version of the file's layout.
pub const VERSION: u32 = 1;

/// Where a container is in its life (runtime.md, "State"), as far as its commands know; that it has stopped is seen from
/// its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` or `run` is under way, or was killed
    Creating,
    /// Waits for `start`
    Created,
    /// The payload was executed
    Running,
    /// Frozen (runc's word)
    Paused,
    /// Its first process is gone
    Stopped,
}

/// What a container's filter is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// There is none
    #[default]
    None,
    /// Only what keeps set-id files off the host
    Guard,
    /// The config's profile
    Profile,
}

/// A process that can not be mistaken for another with the same pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The pid in the host's namespace.
    pub pid: i32,
    /// The inode of its pidfd in pidfs, unique until reboot (Linux 6.9); before it, 0.
    pub pidfd_inode: u64,
    /// Field 22 of /proc/PID/stat, where there is no pidfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<u64>,
}

/// The content of state.json.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`]
    pub version: u32,
    /// ociVersion of the config
    pub oci_version: String,
    /// The container's id
    pub id: String,
    /// The bundle, absolute
    pub bundle: PathBuf,
    /// Its root file system, absolute
    pub rootfs: PathBuf,
    /// Where the last command left it
    pub status: Status,
    /// Its first process, from the clone on
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Its cgroup, from before it is made
    pub cgroup: cgroup::Saved,
    /// Its host ids, if wsbox gave it some
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Range>,
    /// What cold features made for it
    #[serde(default, skip_serializing_if = "extras::Made::is_empty")]
    pub extras: extras::Made,
    /// The filter, which `exec` installs too
    #[serde(default)]
    pub seccomp: Seccomp,
    /// Who counts the filter's violations
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<Monitor>,
    /// Why nobody does though the profile wants it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncounted: Option<String>,
    /// Whether hooks are to run when it starts or is deleted
    #[serde(default)]
    pub hooks: bool,
    /// When it was created, RFC 3339
    pub created: String,
    /// The host user that created it
    pub owner: u32,
    /// Whether wsbox was in a user namespace itself
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_user_namespace: Option<bool>,
    /// The config's
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Now, as RFC 3339 in UTC with nanoseconds, as runc writes it.
pub fn now() -> String {
    rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Days to a date by the proleptic Gregorian calendar, counted from 1 March 0000 so that leap days come last.
fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let days = seconds / 86400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since_epoch.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000000Z"),
            (1_795_392_000, "2026-11-23T00:00:00.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), want);
        }
    }
}
