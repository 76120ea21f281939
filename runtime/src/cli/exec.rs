// SPDX-License-Identifier: Apache-2.0
//! `wsbox exec`

use std::path::PathBuf;
use std::str::FromStr;

use oci_spec::runtime::{Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, Process, User};

use super::create::Tell;
use super::{Global, foreground, log, stdin};
use crate::bundle;
use crate::error::{Context, Error, Result};
use crate::launch;
use crate::monitor::report;
use crate::sys::pidfd::Exit;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The container
    #[arg(value_name = "ID")]
    id: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// Take the whole process from this file, as in config.json's process
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["cwd", "env", "user", "cap", "additional_gids"])]
    process: Option<PathBuf>,
    /// The working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Set a variable: NAME=value, may be repeated
    #[arg(short, long, value_name = "NAME=value")]
    env: Vec<String>,
    /// As UID or UID:GID, numbers only
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Additional groups, numbers, may be repeated
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// Add a capability to its bounding, effective and permitted set, may be repeated
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Leave it running and return
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    tell: Tell,
    /// Send the master of its terminal to this Unix socket
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Confine it with this AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Label it so for SELinux
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// Run it in this cgroup below the container's, in all hierarchies or that of a v1 controller; may be repeated
    #[arg(long, value_name = "[CONTROLLER:]CGROUP")]
    cgroup: Vec<String>,
    /// Set no_new_privs
    #[arg(long)]
    no_new_privs: bool,
    /// Pass this many descriptors from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Also in a paused container
    #[arg(long)]
    ignore_paused: bool,
}

impl Arguments {
    /// The process: from the file, or the container's own with the flags applied.
    fn process(&self, own: &Process) -> Result<Process> {
        let mut process = match &self.process {
            Some(file) => {
                let bytes = std::fs::read(file).context(|| format!("--process {}", file.display()))?;
                let (process, warnings) = bundle::parse_process(&bytes, file)?;
                warnings.iter().for_each(|warning| log::warning(warning));
                process
            }
            None => self.derived(own)?,
        };
        if self.tty {
            process.set_terminal(Some(true));
        }
        if let Some(profile) = &self.apparmor {
            process.set_apparmor_profile(Some(profile.clone()));
        }
        if self.process_label.is_some() {
            process.set_selinux_label(self.process_label.clone());
        }
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        Ok(process)
    }

    fn derived(&self, own: &Process) -> Result<Process> {
        if self.command.is_empty() {
            return Err(Error::invalid("exec", "needs a command, or --process FILE"));
        }
        let mut process = own.clone();
        process.set_args(Some(self.command.clone())).set_terminal(Some(self.tty));
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.clone());
        }
        let env = own.env().iter().flatten().chain(&self.env).cloned().collect();
        process.set_env(Some(env));
        if let Some(user) = &self.user {
            process.set_user(parse_user(own.user(), user)?);
            // The home belongs to the user.
            process
                .env_mut()
                .iter_mut()
                .for_each(|env| env.retain(|variable| !variable.starts_with("HOME=") || self.env.contains(variable)));
        }
        if !self.additional_gids.is_empty() {
            process.user_mut().set_additional_gids(Some(self.additional_gids.clone()));
        }
        if !self.cap.is_empty() {
            process.set_capabilities(Some(with_caps(own.capabilities().as_ref(), &self.cap)?));
        }
        Ok(process)
    }
}

/// The container's own user with another uid, and gid if one is given, as in runc. Numbers only, each whole: what is not one must never become 0 (CVE-2026-30892).
fn parse_user(own: &User, text: &str) -> Result<User> {
    let bad = || Error::invalid("--user", format!("{text:?} is not UID or UID:GID in numbers"));
    let id = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|id| digits && *id != u32::MAX).ok_or_else(bad)
    };
    let mut user = own.clone();
    match text.split_once(':') {
        None => user.set_uid(id(text)?),
        Some((uid, gid)) => user.set_uid(id(uid)?).set_gid(id(gid)?),
    };
    Ok(user)
}

/// Those that are added never become inheritable: a file capability must not raise them (CVE-2022-29162).
fn with_caps(own: Option<&LinuxCapabilities>, added: &[String]) -> Result<LinuxCapabilities> {
    let mut extra = Vec::new();
    for name in added {
        let upper = name.to_ascii_uppercase();
        let known = Capability::from_str(upper.strip_prefix("CAP_").unwrap_or(&upper));
        extra.push(known.map_err(|_| Error::invalid("--cap", format!("{name:?} is unknown")))?);
    }
    let with = |set: Option<&oci_spec::runtime::Capabilities>| {
        set.into_iter().flatten().chain(&extra).copied().collect::<oci_spec::runtime::Capabilities>()
    };
    LinuxCapabilitiesBuilder::default()
        .bounding(with(own.and_then(|own| own.bounding().as_ref())))
        .effective(with(own.and_then(|own| own.effective().as_ref())))
        .permitted(with(own.and_then(|own| own.permitted().as_ref())))
        .inheritable(own.and_then(|own| own.inheritable().clone()).unwrap_or_default())
        .ambient(own.and_then(|own| own.ambient().clone()).unwrap_or_default())
        .build()
        .map_err(|error| Error::invalid("--cap", error.to_string()))
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let signals = if arguments.detach { None } else { Some(foreground::Signals::block()?) };
    let _given = stdin::keep_unwritten();
    let process = launch::exec(&global.root(), &arguments.id, |own| {
        let process = arguments.process(own)?;
        if arguments.process.is_some() {
            global.trail.runs(process.args().as_deref().unwrap_or_default());
        }
        if arguments.detach && process.terminal().unwrap_or_default() && arguments.console_socket.is_none() {
            return Err(Error::invalid("--detach", "a terminal needs --console-socket: nobody would hold it"));
        }
        Ok(launch::Exec {
            process,
            console_socket: arguments.console_socket.clone(),
            cgroups: arguments.cgroup.clone(),
            preserve_fds: arguments.preserve_fds,
            ignore_paused: arguments.ignore_paused,
            detached: arguments.detach,
            profile: global.profile,
        })
    })?;
    let told = arguments.tell.tell(&process).and_then(|()| global.trail.started());
    told.inspect_err(|_| process.kill())?;
    let Some(signals) = signals else { return Ok(0) };
    let exit = foreground::follow(&process, &signals)?;
    if exit == Exit::Signal(libc::SIGSYS) {
        // Its container may be gone by now, with what was counted.
        let _ = global.root().read(&arguments.id).and_then(|record| report::count_killed(&record));
    }
    Ok(exit.code() as u8)
}

#[cfg(test)]
mod tests {
    use super::{User, parse_user};

    #[test]
    fn users_are_whole_numbers() {
        let mut own = User::default();
        own.set_gid(7).set_umask(Some(0o77));
        let ids = |text| parse_user(&own, text).map(|user| (user.uid(), user.gid())).ok();
        assert_eq!(ids("1"), Some((1, 7)));
        assert_eq!(ids("1:2"), Some((1, 2)));
        assert_eq!(ids("01"), Some((1, 7)));
        assert_eq!(parse_user(&own, "1:2").unwrap().umask(), Some(0o77));
        for bad in ["1:", " 1", "-1", "4294967295", "4294967296", "0x1", "1:1:1", "root", "1 ", "", "+1", ":1"] {
            assert_eq!(ids(bad), None, "{bad:?}");
        }
    }
}
