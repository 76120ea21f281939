// SPDX-License-Identifier: Apache-2.0
//! process.*: arguments, environment, directory, user, limits.

use oci_spec::runtime::Process;

use super::no_nul;
use crate::error::{Error, Result};

/// Checks a process found at `path` (`process`, or the file of `exec --process`).
///
/// # Errors
/// The first thing that is wrong.
pub fn process(process: &Process, path: &str) -> Result<()> {
    labels(process, path)?;
    let args = process.args().as_deref().unwrap_or_default();
    if args.is_empty() {
        return Err(Error::invalid(format!("{path}.args"), "must name a program"));
    }
    texts(args, &format!("{path}.args"))?;
    environment(process.env().as_deref().unwrap_or_default(), path)?;
    cwd(process, path)?;
    user(process, path)?;
    rlimits(process, path)?;
    if let Some(score) = process.oom_score_adj().filter(|score| !(-1000..=1000).contains(score)) {
        return Err(Error::invalid(format!("{path}.oomScoreAdj"), format!("is {score}, must be from -1000 to 1000")));
    }
    Ok(())
}

fn labels(process: &Process, path: &str) -> Result<()> {
    for (name, text) in [("apparmorProfile", process.apparmor_profile()), ("selinuxLabel", process.selinux_label())] {
        let field = format!("{path}.{name}");
        let text = text.as_deref().unwrap_or_default();
        no_nul(&field, text)?;
        if text.contains(char::is_whitespace) {
            return Err(Error::invalid(field, format!("{text:?} holds white space")));
        }
    }
    Ok(())
}

fn texts(list: &[String], field: &str) -> Result<()> {
    list.iter().enumerate().try_for_each(|(at, text)| no_nul(&format!("{field}[{at}]"), text))
}

/// Messages never show a value: it may be a secret.
fn environment(env: &[String], path: &str) -> Result<()> {
    texts(env, &format!("{path}.env"))?;
    match env.iter().position(|variable| variable.find('=').is_none_or(|at| at == 0)) {
        Some(at) => Err(Error::invalid(format!("{path}.env[{at}]"), "must be NAME=value")),
        None => Ok(()),
    }
}

fn cwd(process: &Process, path: &str) -> Result<()> {
    let field = format!("{path}.cwd");
    let text = process.cwd().to_str().ok_or_else(|| Error::invalid(&field, "is no UTF-8"))?;
    no_nul(&field, text)?;
    if text.starts_with('/') { Ok(()) } else { Err(Error::invalid(field, format!("{text:?} is no absolute path"))) }
}

fn user(process: &Process, path: &str) -> Result<()> {
    let user = process.user();
    if user.uid() == u32::MAX || user.gid() == u32::MAX {
        return Err(Error::invalid(format!("{path}.user"), "4294967295 is no id: the kernel reads it as -1"));
    }
    match user.umask() {
        Some(mask) if mask > 0o777 => {
            Err(Error::invalid(format!("{path}.user.umask"), format!("{mask:#o} is over 0777")))
        }
        _ => Ok(()),
    }
}

fn rlimits(process: &Process, path: &str) -> Result<()> {
    let mut seen = Vec::new();
    for (at, limit) in process.rlimits().iter().flatten().enumerate() {
        let field = format!("{path}.rlimits[{at}]");
        if limit.soft() > limit.hard() {
            return Err(Error::invalid(field, format!("soft {} is over hard {}", limit.soft(), limit.hard())));
        }
        if seen.contains(&limit.typ()) {
            return Err(Error::invalid(field, "sets the same limit a second time"));
        }
        seen.push(limit.typ());
    }
    Ok(())
}
