// SPDX-License-Identifier: Apache-2.0
//! `wsbox seccomp`: look into a profile, and change it.

mod allow;
mod compile;
mod convert;
mod diff;
mod explain;
mod lint;
mod record;
mod reference;
mod source;
mod test;

#[cfg(feature = "bundles")]
pub use source::Source;

use super::Global;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

/// PROFILE is a JSON file, a bundle or its config.json, or one of the shipped: workspace, docker-default.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Say what happens to a system call, and which rules name it
    Explain(explain::Arguments),
    /// Allow system calls in a profile, and show what that changes
    Allow(allow::Arguments),
    /// Run a bundle until nothing more is blocked, and show what its profile learned
    Record(record::Arguments),
    /// Print what the shipped profiles say of each system call, as Markdown
    #[command(hide = true)]
    Reference(reference::Arguments),
    /// Say what is odd or dangerous in a profile
    Lint(lint::Arguments),
    /// Say of which system calls two profiles say something else
    Diff(diff::Arguments),
    /// Check the program that a profile becomes against the profile, on every call
    Test(test::Arguments),
    /// Make an OCI profile of one in Docker's format
    Convert(convert::Arguments),
    /// Print the filter that a profile becomes
    Compile(compile::Arguments),
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    match arguments.what {
        What::Explain(arguments) => explain::run(arguments),
        What::Allow(arguments) => allow::run(arguments),
        What::Lint(arguments) => lint::run(arguments),
        What::Record(arguments) => record::run(global, &arguments),
        What::Reference(arguments) => reference::run(&arguments),
        What::Diff(arguments) => diff::run(&arguments),
        What::Test(arguments) => test::run(&arguments),
        What::Convert(arguments) => convert::run(arguments),
        What::Compile(arguments) => compile::run(arguments),
    }
}
