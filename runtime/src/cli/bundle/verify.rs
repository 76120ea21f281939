// SPDX-License-Identifier: Apache-2.0
//! `wsbox bundle verify`

use std::path::PathBuf;

use serde_json::json;
use wsbox_bundles::Progress;
use wsbox_bundles::image::Platform;
use wsbox_bundles::sign::{self, Key};
use wsbox_bundles::source::{self, Decoder};
use wsbox_bundles::unpack::Limits;

use super::progress::Bar;
use crate::cli::output;
use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wsbox bundle verify docker://registry.example.org/team/app:1 --key cosign.pub
  wsbox bundle verify oci:./layout:app --key cosign.pub --format json")]
pub struct Arguments {
    /// oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker://HOST/NAME[:TAG][@DIGEST]
    source: String,
    /// Public key; with several, one of them is enough
    #[arg(long, value_name = "cosign.pub", required = true)]
    key: Vec<PathBuf>,
    /// Which image of several: OS/ARCHITECTURE[/VARIANT] [default: this host's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// How the result is printed
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

pub fn run(arguments: &Arguments) -> Result<u8> {
    let keys = arguments.key.iter().map(|path| Ok(Key::read(path)?)).collect::<Result<Vec<_>>>()?;
    let platform = arguments.platform.clone().unwrap_or_else(Platform::host);
    let (progress, unpacker) = (Progress::default(), super::unpacker()?);
    let bar = Bar::start(&progress)?;
    let decoder = Decoder { unpacker: &unpacker, progress: &progress, limits: Limits::default() };
    let opened = source::open(&arguments.source, &platform, decoder);
    drop(bar);
    let image = opened?.image;
    let image = image.ok_or_else(|| Error::invalid(arguments.source.clone(), "is no image, so it has no signature"))?;
    let signed = sign::verify(&image, &keys)?;
    match arguments.format.as_str() {
        "json" => output::json(&json!({ "digest": image.digest.to_string(), "signed": signed.to_string() })),
        _ => output::text(&format!("{} is signed\n", signed)),
    }
}
