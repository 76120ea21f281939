// SPDX-License-Identifier: Apache-2.0
//! `wsbox checkpoint` and what it shares with `wsbox restore`: runc's flags, for CRIU (criu.org), which does the work.

use std::path::PathBuf;

use super::{Global, log};
use crate::criu::{self, Dump, Settings};
use crate::error::{Context, Error, Result};

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

impl Images {
    /// What criu is told.
    ///
    /// # Errors
    /// A namespace that it can not leave empty.
    pub fn settings(&self, global: &Global) -> Result<Settings> {
        let absolute = |path: &PathBuf| std::path::absolute(path).context(|| path.display().to_string());
        if let Some(kind) = self.empty_ns.iter().find(|kind| *kind != "network") {
            return Err(Error::invalid("--empty-ns", format!("{kind:?}: criu can leave only network empty")));
        }
        let flags = [
            (self.tcp_established, "--tcp-established"),
            (self.ext_unix_sk, "--ext-unix-sk"),
            (self.shell_job, "--shell-job"),
            (self.lazy_pages, "--lazy-pages"),
            (self.file_locks, "--file-locks"),
            (self.auto_dedup, "--auto-dedup"),
        ];
        Ok(Settings {
            criu: global.criu.clone(),
            images: absolute(&self.image_path)?,
            work: absolute(self.work_path.as_ref().unwrap_or(&self.image_path))?,
            flags: flags.into_iter().filter_map(|(asked, flag)| asked.then_some(flag)).collect(),
            cgroups: self.manage_cgroups_mode.clone(),
            empty_network: !self.empty_ns.is_empty(),
        })
    }
}

/// ADDRESS:PORT, also of IPv6.
fn server(text: &str) -> Result<(String, String)> {
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match text.rsplit_once(':').filter(|(address, number)| !address.is_empty() && port(number)) {
        Some((address, port)) => Ok((address.trim_matches(['[', ']']).to_owned(), port.to_owned())),
        None => Err(Error::invalid("--page-server", format!("{text:?} is not ADDRESS:PORT"))),
    }
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let wanted = Dump {
        settings: arguments.images.settings(global)?,
        parent: arguments.parent_path,
        leave_running: arguments.leave_running,
        pre_dump: arguments.pre_dump,
        status_fd: Some(arguments.status_fd).filter(|fd| *fd >= 0),
        page_server: arguments.page_server.as_deref().map(server).transpose()?,
    };
    let warnings = criu::checkpoint(&global.root(), &arguments.id, &wanted)?;
    warnings.iter().for_each(|warning| log::warning(warning));
    Ok(0)
}
