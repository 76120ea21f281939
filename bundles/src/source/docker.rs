// SPDX-License-Identifier: Apache-2.0
//! Archives of `docker save`: manifest.json names the config and the layers of each image (Docker Image Specification v1.2).

use oci_spec::image::{Descriptor, ImageConfiguration, MediaType};
use serde::Deserialize;

use super::archive::Archive;
use super::{Chosen, Opened, opened};
use crate::error::{Context, Error, Result};
use crate::image::{Digest, Image, Platform};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The image that is chosen in the archive.
pub fn archive(mut archive: Archive, chosen: &Chosen, platform: &Platform) -> Result<Opened> {
    let subject = || format!("{}: manifest.json", chosen.path.display());
    let all: Vec<Saved> = serde_json::from_slice(&archive.document("manifest.json")?).context(subject)?;
    let saved = chosen.pick(&all, |saved| saved.repo_tags.clone().unwrap_or_default())?;
    let text = archive.document(&saved.config)?;
    let config: ImageConfiguration = serde_json::from_slice(&text).context(|| saved.config.clone())?;
    let ids = config.rootfs().diff_ids();
    if ids.len() != saved.layers.len() {
        return Err(Error::new(subject(), format!("has {} layers, and its config {}", saved.layers.len(), ids.len())));
    }
    // Layers are saved as tars, so their digests are those that the config has.
    let layers = saved.layers.iter().zip(ids).map(|(name, id)| {
        let digest: Digest = id.parse()?;
        let size = archive.name(name, digest.clone())?;
        descriptor(MediaType::ImageLayer, size, &digest)
    });
    let layers = layers.collect::<Result<Vec<_>>>()?;
    let digest = Digest::of(&text);
    archive.name(&saved.config, digest.clone())?;
    let config = descriptor(MediaType::ImageConfig, text.len() as u64, &digest)?;
    let blobs = archive.blobs()?;
    let name = saved.repo_tags.iter().flatten().next().cloned();
    Ok(opened(Image::assemble(&blobs, digest, &config, layers, platform)?, &blobs, None, name))
}

fn descriptor(kind: MediaType, size: u64, digest: &Digest) -> Result<Descriptor> {
    let digest: oci_spec::image::Digest = digest.to_string().parse().context(|| digest.to_string())?;
    Ok(Descriptor::new(kind, size, digest))
}
