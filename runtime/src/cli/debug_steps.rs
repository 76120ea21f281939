// SPDX-License-Identifier: Apache-2.0
//! `wsbox debug-steps`: for the tests that kill wsbox at each of them.

use super::{Global, output};
use crate::error::{Error, Result};
use crate::launch::pause;

#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub fn run(_: &Global, _: Arguments) -> Result<u8> {
    if !cfg!(debug_assertions) {
        return Err(Error::invalid("debug-steps", "this is a release build: it does not pause"));
    }
    output::text(&pause::STEPS.iter().map(|step| format!("{step}\n")).collect::<String>())
}
