// SPDX-License-Identifier: Apache-2.0
//! Harness for the integration tests: bundles, the wsbox under test, canaries on the host, and what must not be left behind.

pub mod bundle;
pub mod canary;
pub mod cgroup;
pub mod docker;
pub mod engine;
pub mod leftover;
pub mod race;
pub mod sandbox;
pub mod stuck;
pub mod terminal;
pub mod user;

pub use bundle::Bundle;
pub use canary::Canary;
pub use engine::{Door, Engine, Outcome};

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A name that nobody else on this machine has.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("wsbt-{}{what}-{}-{}", stuck::tag(), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A folder that is removed when it is dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// A new one, mode 0755, below /tmp.
    pub fn new(what: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "the integration tests need root");
        let path = PathBuf::from("/tmp").join(unique(what));
        std::fs::create_dir(&path).expect("a new folder in /tmp");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
