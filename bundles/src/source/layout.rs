// SPDX-License-Identifier: Apache-2.0
//! OCI image layouts (image-spec, "Image Layout"), as a folder or in a tar.

use std::path::Path;

use oci_spec::image::{Descriptor, ImageIndex};

use super::archive::Archive;
use super::{Chosen, Opened, opened};
use crate::error::{Context, Error, Result};
use crate::image::{Blobs, Image, Platform, read_document};

/// The annotation that has an image's tag.
const NAME: &str = "org.opencontainers.image.ref.name";

/// A layout in a folder.
pub fn folder(chosen: &Chosen, platform: &Platform) -> Result<Opened> {
    let index = read_document(&chosen.path.join("index.json"))?;
    read(chosen, &read_document(&chosen.path.join("oci-layout"))?, &index, &Blobs::folder(&chosen.path), platform)
}

/// A layout in a tar.
pub fn archive(archive: Archive, chosen: &Chosen, platform: &Platform) -> Result<Opened> {
    let (layout, index) = (archive.document("oci-layout")?, archive.document("index.json")?);
    read(chosen, &layout, &index, &archive.blobs()?, platform)
}

fn read(chosen: &Chosen, layout: &[u8], index: &[u8], blobs: &Blobs, platform: &Platform) -> Result<Opened> {
    let subject = |file: &str| Path::join(&chosen.path, file).display().to_string();
    let layout: serde_json::Value = serde_json::from_slice(layout).context(|| subject("oci-layout"))?;
    if layout["imageLayoutVersion"] != "1.0.0" {
        return Err(Error::new(
            subject("oci-layout"),
            format!("is of version {}, not of 1.0.0", layout["imageLayoutVersion"]),
        ));
    }
    let index: ImageIndex = serde_json::from_slice(index).context(|| subject("index.json"))?;
    let beside: Vec<_> = index.manifests().iter().filter(|entry| is_signature(entry)).cloned().collect();
    let images: Vec<_> = index.manifests().iter().filter(|entry| !is_signature(entry)).collect();
    let entry = match &images[..] {
        // One image, an entry for each platform.
        all if chosen.name.is_none()
            && all.len() > 1
            && all.iter().all(|entry| entry.platform().is_some() && names(entry).is_empty()) =>
        {
            return platforms(all, blobs, platform, &subject("index.json")).map(|found| with(found, beside));
        }
        all => *chosen.pick(all, |entry| names(entry))?,
    };
    let image = Image::read(blobs, entry, platform)?;
    let found = entry.digest().to_string().parse()?;
    let index = (found != image.digest).then_some(found);
    Ok(with(opened(image, blobs, index, names(entry).pop()), beside))
}

fn with(mut opened: Opened, beside: Vec<Descriptor>) -> Opened {
    if let Some(image) = &mut opened.image {
        image.beside = beside;
    }
    opened
}

fn platforms(all: &[&Descriptor], blobs: &Blobs, platform: &Platform, subject: &str) -> Result<Opened> {
    let found = all.iter().find(|entry| entry.platform().as_ref().is_some_and(|found| platform.is(found)));
    let entry = found.ok_or_else(|| Error::new(subject, format!("has nothing for {platform}")))?;
    Ok(opened(Image::read(blobs, entry, platform)?, blobs, None, None))
}

fn names(entry: &Descriptor) -> Vec<String> {
    entry.annotations().iter().filter_map(|all| all.get(NAME).cloned()).collect()
}

/// Signatures lie beside what they sign, under the tag `sha256-HEX.sig`; `cosign save` says what they are.
fn is_signature(entry: &Descriptor) -> bool {
    let kind = entry.annotations().as_ref().and_then(|all| all.get("kind"));
    let named =
        |name: &String| name.starts_with("sha256-") && [".sig", ".att", ".sbom"].iter().any(|end| name.ends_with(end));
    names(entry).iter().any(named)
        || kind.is_some_and(|kind| {
            matches!(kind.as_str(), "dev.cosignproject.cosign/sigs" | "dev.cosignproject.cosign/atts")
        })
}
