// SPDX-License-Identifier: Apache-2.0
//! wsbox runs untrusted workspaces in hardened Linux containers.

pub mod error;
pub mod seccomp;

pub use error::{Error, Result};
