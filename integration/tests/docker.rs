// SPDX-License-Identifier: Apache-2.0
//! The real docker command against a real dockerd, each case with runc and with wsbox: what runc passes, wsbox has to pass.

#[path = "docker/compose.rs"]
mod compose;
#[path = "docker/ctr.rs"]
mod ctr;
#[path = "docker/errors.rs"]
mod errors;
#[path = "docker/exec.rs"]
mod exec;
#[path = "docker/installed.rs"]
mod installed;
#[path = "docker/lifecycle.rs"]
mod lifecycle;
#[path = "docker/limits.rs"]
mod limits;
#[path = "docker/live_restore.rs"]
mod live_restore;
#[path = "docker/mounts.rs"]
mod mounts;
#[path = "docker/namespaces.rs"]
mod namespaces;
#[path = "docker/network.rs"]
mod network;
#[path = "docker/privileged.rs"]
mod privileged;
#[path = "docker/remapped.rs"]
mod remapped;
#[path = "docker/run.rs"]
mod run;
#[path = "docker/security.rs"]
mod security;
#[path = "docker/strict.rs"]
mod strict;
#[path = "docker/strict_cases.rs"]
mod strict_cases;
