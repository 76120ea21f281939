// SPDX-License-Identifier: Apache-2.0
//! `wsbox seccomp reference`: deployment/seccomp/REFERENCE.md.

use super::explain::words;
use super::lint;
use super::source::Source;
use crate::cli::output;
use crate::error::Result;
use crate::seccomp::{self, Abi, Options, check};

#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub fn run(_: &Arguments) -> Result<u8> {
    output::text(&text()?)
}

fn text() -> Result<String> {
    let mut text = String::from(
        "# What the shipped profiles say of each system call\n\nPrinted by `wsbox seccomp reference`, for x86_64. `wsbox seccomp explain workspace CALL` shows the rules; [README.md](README.md) says why.\n\n| call | workspace | docker-default | |\n|---|---|---|---|\n",
    );
    let profiles = [seccomp::workspace(), Source::read("docker-default")?.profile()?];
    let options = Options { host: seccomp::Arch::X86_64, ..Options::default() };
    let verdicts = profiles
        .iter()
        .map(|profile| check::verdicts(profile, &options, options.host.abi()))
        .collect::<Result<Vec<_>>>()?;
    for (name, verdict) in check::names(Abi::X86_64).into_iter().map(|name| (name, |at: usize| verdicts[at].get(name)))
    {
        let cell = |at| match verdict(at) {
            Some(all) if all.len() == 1 => all.iter().map(|raw| words(*raw)).collect::<String>(),
            Some(all) => {
                format!("by its arguments: {}", all.iter().map(|raw| words(*raw)).collect::<Vec<_>>().join(", or "))
            }
            None => String::new(),
        };
        let danger = lint::danger(name).map(|why| format!("it {why}")).unwrap_or_default();
        text += &format!("| {name} | {} | {} | {danger} |\n", cell(0), cell(1));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_current() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../deployment/seccomp/REFERENCE.md");
        let found = std::fs::read_to_string(page).unwrap_or_default();
        assert!(found == super::text().unwrap(), "wsbox seccomp reference >deployment/seccomp/REFERENCE.md");
    }
}
