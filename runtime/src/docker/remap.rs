// SPDX-License-Identifier: Apache-2.0
//! What Docker's `userns-remap` takes: a user, a group, and a range of ids for each in /etc/subuid and /etc/subgid.

use std::fs;

use crate::error::{Context, Error, Result};
use crate::state::ids;

/// What `userns-remap: default` stands for.
pub const USER: &str = "dockremap";
/// The line that deployment/docker/subuid and subgid have for it.
pub const LINE: &str = "dockremap:100000:65536";

/// Checks the value of `userns-remap`: `default`, USER, or USER:GROUP, by name or by number.
///
/// # Errors
/// What is missing, with the command that adds it.
pub fn check(value: &str) -> Result<()> {
    let (user, group) = match value {
        "default" => (USER, USER),
        value => value.split_once(':').unwrap_or((value, value)),
    };
    let missing = |file: &str, why: String, fix: String| {
        Err(Error::invalid(file, format!("userns-remap {value:?}: {why}")).hint(fix))
    };
    for (file, name) in [("/etc/passwd", user), ("/etc/group", group)] {
        if entry(&read(file)?, name).is_none() {
            let fix = format!("useradd --system --no-create-home --shell /usr/sbin/nologin {user}");
            return missing(file, format!("{name} is not there"), fix);
        }
    }
    for (file, name, names) in [("/etc/subuid", user, "/etc/passwd"), ("/etc/subgid", group, "/etc/group")] {
        // A number stands for the name that the file of users has for it.
        let name = entry(&read(names)?, name).unwrap_or_else(|| name.to_owned());
        if ids::granted(&read(file)?, &name) < ids::SIZE {
            let why = format!("{name} has no {} ids", ids::SIZE);
            return missing(file, why, format!("echo {name}:{} >> {file}", &LINE[USER.len() + 1..]));
        }
    }
    Ok(())
}

/// The name of the entry with this name or number (passwd(5), group(5)).
fn entry(text: &str, wanted: &str) -> Option<String> {
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields
        .into_iter()
        .find(|fields| fields.first() == Some(&wanted) || fields.get(2) == Some(&wanted))
        .map(|fields| fields[0].to_owned())
}

fn read(file: &str) -> Result<String> {
    fs::read_to_string(file)
        .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(String::new()) } else { Err(error) })
        .context(|| file.into())
}
