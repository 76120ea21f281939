// SPDX-License-Identifier: Apache-2.0
//! `wsbox bundle`: from an image to a hardened bundle, and what becomes of it.

mod check;
mod create;
mod flags;
mod progress;
mod report;
mod scanner;
mod store;
mod verify;

use std::ffi::OsString;

use wsbox_bundles::unpack::{self, Unpacker};

use super::Global;
use crate::error::{Context, Error, Result};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make a bundle that has all eight layers of an image, an archive or a folder
    Create(Box<create::Arguments>),
    /// Say what is wrong with a bundle or an image
    Check(check::Arguments),
    /// Check that an image was signed with a key of cosign's
    Verify(verify::Arguments),
    /// List the bundles that were made, with their images
    Ls(store::Ls),
    /// Remove bundles
    Rm(store::Rm),
    /// Remove the layers that no bundle has
    Gc(store::Gc),
    /// The jailed part of create
    #[command(hide = true, name = UNPACK)]
    Unpack { order: String },
}

/// The command that [`unpacker`] starts.
const UNPACK: &str = "unpack";

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    match arguments.what {
        What::Create(arguments) => create::run(*arguments),
        What::Check(arguments) => check::run(&arguments),
        What::Verify(arguments) => verify::run(&arguments),
        What::Ls(arguments) => store::ls(&arguments),
        What::Rm(arguments) => store::rm(global, &arguments),
        What::Gc(arguments) => store::gc(global, &arguments),
        What::Unpack { order } => Ok(unpack::child(&order)),
    }
}

/// This program, as its own jailed child.
fn unpacker() -> Result<Unpacker> {
    let program = std::env::current_exe().context(|| "this program's own path".into())?;
    Ok(Unpacker::new(program, ["bundle", UNPACK].map(OsString::from)))
}

impl From<wsbox_bundles::Error> for Error {
    fn from(error: wsbox_bundles::Error) -> Self {
        let (subject, why, hint) = error.parts();
        let full = Self::invalid(subject, why);
        match hint {
            Some(hint) => full.hint(hint),
            None => full,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::bundle::own;

    /// Both crates have them: neither needs the other for them.
    #[test]
    fn the_words_of_a_bundle() {
        assert_eq!(wsbox_bundles::MARK, own::MARK);
        assert_eq!(wsbox_bundles::store::LAYERS, own::LAYERS);
        assert_eq!(wsbox_bundles::config::SECRET, own::SECRET);
    }
}
