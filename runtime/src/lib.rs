// SPDX-License-Identifier: Apache-2.0
//! wsbox runs untrusted workspaces in hardened Linux containers, from OCI bundles.
//!
//! # The way of a config
//! `bundle` parses it, `profile` raises it to a floor, `validate` refuses what can not be done, `plan` turns it into a flat program, `launch` clones
//! the embedded init (runtime/init) and hands it the program, the init carries it out and becomes the payload. `state`
//! knows of the container afterwards; `cgroup` and `seccomp` are what their names say; `sys` holds the system calls
//! that nix lacks, and all of the unsafe code.
//!
//! # Example
//! ```no_run
//! use wsbox::{Bundle, Options, Root, run};
//! let bundle = Bundle::open("./bundle".as_ref())?;
//! let root = Root::new(None);
//! let process = run(&root, "web1", &bundle, &Options::default())?;
//! println!("exit code {}", process.wait()?.code());
//! wsbox::delete(&root, "web1", true)?;
//! # Ok::<(), wsbox::Error>(())
//! ```

mod audit;
mod bundle;
mod cgroup;
#[doc(hidden)]
pub mod cli;
mod criu;
mod docker;
mod doctor;
mod error;
mod extras;
mod hooks;
mod launch;
mod metrics;
mod monitor;
mod mountinfo;
mod notify;
mod plan;
mod profile;
mod rootless;
pub mod seccomp;
mod state;
mod sys;
mod validate;

pub use bundle::Bundle;
pub use cgroup::{Level, Met};
pub use error::{Error, Kind, Result};
pub use launch::{Exec, Options, Process, Started, create, exec, run, start};
pub use monitor::report::{Blocked, State as Counting, Violations, violations};
pub use profile::Profile;
pub use state::lifecycle::{delete, kill, pause, resume};
pub use state::met::LimitWatch;
pub use state::{Root, update};
pub use sys::pidfd::Exit;
