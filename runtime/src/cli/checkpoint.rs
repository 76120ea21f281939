// SPDX-License-Identifier: Apache-2.0
//! `wsbox checkpoint` and what it shares with `wsbox restore`: runc's flags, for CRIU (criu.org), which does the work.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Global;
use crate::error::{Error, Kind, Result};
use crate::state::{Status, lifecycle};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The container
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    images: Images,
    /// Images of an earlier --pre-dump
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Leave the payload running
    #[arg(long)]
    leave_running: bool,
    /// Tell this descriptor when lazy pages can be asked for
    #[arg(long, value_name = "FD", allow_negative_numbers = true, default_value_t = -1)]
    status_fd: i32,
    /// The page server
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Dump the memory only, and leave the payload running
    #[arg(long)]
    pre_dump: bool,
}

/// What `checkpoint` and `restore` share.
#[derive(Debug, clap::Args)]
pub struct Images {
    /// Where the images are
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    image_path: PathBuf,
    /// Where CRIU's work files and logs go
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// With open TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// With Unix sockets to the outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// With a terminal of the caller
    #[arg(long)]
    shell_job: bool,
    /// Bring memory over when it is asked for
    #[arg(long)]
    lazy_pages: bool,
    /// With file locks
    #[arg(long)]
    file_locks: bool,
    /// soft, full, strict or ignore
    #[arg(long, value_name = "MODE", default_value = "soft", value_parser = ["soft", "full", "strict", "ignore"])]
    manage_cgroups_mode: String,
    /// Make this namespace, but do not restore what was in it
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// Drop what an earlier dump holds
    #[arg(long)]
    auto_dedup: bool,
}

/// Always an error: which, depends on what is missing.
///
/// # Errors
/// criu is not there, does not work on this kernel, or is not driven by this version.
pub fn without_criu(command: &str, criu: &Path) -> Error {
    let subject = criu.display().to_string();
    let checked = Command::new(criu).arg("check").stdin(Stdio::null()).output();
    match checked {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Error::invalid(command, format!("criu is not installed: there is no {subject:?} in $PATH"))
                .hint("install the package criu, or name the program with --criu")
        }
        Err(error) => Error::invalid(command, format!("{subject}: {}", error.to_string().to_lowercase())),
        Ok(output) if !output.status.success() => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let first = text.lines().next().unwrap_or("`criu check` failed").to_owned();
            Error::invalid(command, format!("{subject} does not work on this host: {first}"))
        }
        Ok(_) => Error::invalid(command, "this version of wsbox does not drive criu")
            .hint("run containers that are to be checkpointed with runc"),
    }
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let record = global.root().read(&arguments.id)?;
    let status = lifecycle::status(&record)?;
    if !matches!(status, Status::Running | Status::Paused) {
        let why = format!("cannot checkpoint container {} in the {} state", arguments.id, lifecycle::word(status));
        return Err(Error::new(Kind::State, "", why));
    }
    Err(without_criu("checkpoint", &global.criu))
}
