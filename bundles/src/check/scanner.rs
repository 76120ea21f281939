// SPDX-License-Identifier: Apache-2.0
//! Scanners that people use, on the root file system.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;

use serde_json::Value;

use crate::error::{Context, Error, Result};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanner {
    /// Vulnerabilities, secrets and settings.
    Trivy,
    /// Vulnerabilities.
    Grype,
}

impl FromStr for Scanner {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "trivy" => Ok(Self::Trivy),
            "grype" => Ok(Self::Grype),
            _ => Err(Error::new(format!("scanner {text:?}"), "is unknown").hint("trivy or grype")),
        }
    }
}

impl Scanner {
    fn name(self) -> &'static str {
        match self {
            Self::Trivy => "trivy",
            Self::Grype => "grype",
        }
    }

    /// Runs it on the folder `root`. What it says is SARIF.
    ///
    /// # Errors
    /// If it is not installed, fails, or says something else.
    pub fn run(self, root: &Path) -> Result<Value> {
        let mut command = Command::new(self.name());
        match self {
            Self::Trivy => command.args(["rootfs", "--quiet", "--format", "sarif"]).arg(root),
            Self::Grype => command.args(["--quiet", "--output", "sarif"]).arg(format!("dir:{}", root.display())),
        };
        let subject = || format!("--with {}", self.name());
        let output = command.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                Error::new(subject(), "is not installed").hint("install it, or check without --with")
            }
            _ => Error::new(subject(), crate::error::plain(&error)),
        })?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no word").to_owned();
            return Err(Error::new(subject(), format!("{}: {last}", output.status)));
        }
        serde_json::from_slice(&output.stdout).context(subject)
    }
}
