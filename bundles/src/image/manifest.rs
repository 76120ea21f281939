// SPDX-License-Identifier: Apache-2.0
//! From a descriptor to the manifest of one platform, its config and its layers.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};

use super::{Blobs, Digest};
use crate::error::{Error, Result};

/// An index in an index in an index is a cycle, or somebody who plays with us.
const DEPTH: usize = 4;

/// What an overlay takes (OVL_MAX_STACK of the kernel); builders stop at 127.
const LAYERS: usize = 500;

/// What an image is for, as `--platform` has it: `os/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// This host's.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// Whether an entry of an index is for it.
    pub fn is(&self, found: &oci_spec::image::Platform) -> bool {
        self.fits(&found.os().to_string(), &found.architecture().to_string(), found.variant().as_deref())
    }

    fn fits(&self, os: &str, architecture: &str, variant: Option<&str>) -> bool {
        self.os == os
            && self.architecture == architecture
            && (self.variant.is_none() || self.variant.as_deref() == variant)
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => {
                return Err(
                    Error::new(format!("platform {text:?}"), "is not OS/ARCHITECTURE[/VARIANT]").hint("linux/amd64")
                );
            }
        };
        Ok(Self { os: os.into(), architecture: architecture.into(), variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// One layer: its blob as it is in the image, and the digest of the tar in it.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The blob, compressed or not (its media type says).
    pub blob: Descriptor,
    /// The digest of the uncompressed tar (image-spec, "Layer DiffID").
    pub diff_id: Digest,
}

/// One image for one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's digest: what pins the image.
    pub digest: Digest,
    /// The image config.
    pub config: ImageConfiguration,
    /// From the lowest to the topmost.
    pub layers: Vec<Layer>,
}

impl Image {
    /// Reads the image that `descriptor`, an index or a manifest, leads to.
    ///
    /// # Errors
    /// If no manifest is for `platform`, a document is missing, wrong or of an unknown media type, or the layers and the config do not fit.
    pub fn read(blobs: &Blobs, descriptor: &Descriptor, platform: &Platform) -> Result<Self> {
        let descriptor = resolve(blobs, descriptor.clone(), platform)?;
        let manifest: ImageManifest = blobs.document(&descriptor)?;
        let subject = || format!("manifest {}", descriptor.digest());
        match manifest.config().media_type() {
            MediaType::ImageConfig => {}
            MediaType::Other(kind) if kind == "application/vnd.docker.container.image.v1+json" => {}
            kind => return Err(Error::new(subject(), format!("its config is {kind}, which is no image's"))),
        }
        let layers = manifest.layers().iter().map(|layer| known(layer, subject).map(|()| layer.clone()));
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let digest = descriptor.digest().to_string().parse()?;
        Self::assemble(blobs, digest, manifest.config(), layers, platform)
    }

    /// The image of a config and its layers' blobs, known by `digest`.
    ///
    /// # Errors
    /// If the config is missing or wrong, is not for `platform`, or has another number of layers.
    pub fn assemble(
        blobs: &Blobs,
        digest: Digest,
        config: &Descriptor,
        layers: Vec<Descriptor>,
        platform: &Platform,
    ) -> Result<Self> {
        let subject = || format!("image {digest}");
        let config: ImageConfiguration = blobs.document(config)?;
        let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
        if !platform.fits(&os, &architecture, config.variant().as_deref()) {
            return Err(Error::new(subject(), format!("is for {os}/{architecture}, not for {platform}"))
                .hint("--platform takes another"));
        }
        let ids = config.rootfs().diff_ids();
        if layers.len() > LAYERS {
            return Err(Error::new(subject(), format!("has {} layers; {LAYERS} is the most", layers.len())));
        }
        if ids.len() != layers.len() {
            let why = format!("has {} layers, and its config {}", layers.len(), ids.len());
            return Err(Error::new(subject(), why));
        }
        let layers = layers.into_iter().zip(ids).map(|(blob, id)| Ok(Layer { blob, diff_id: id.parse()? }));
        let layers = layers.collect::<Result<_>>()?;
        Ok(Self { digest, config, layers })
    }
}

/// A layer that can be unpacked; how it is compressed, its first bytes say.
fn known(layer: &Descriptor, subject: impl FnOnce() -> String) -> Result<()> {
    let kind = layer.media_type().to_string();
    let tar = kind.starts_with("application/vnd.oci.image.layer.v1.tar")
        || kind == "application/vnd.docker.image.rootfs.diff.tar.gzip"
        || kind == "application/vnd.docker.image.rootfs.diff.tar";
    match tar && !kind.ends_with("+encrypted") {
        true => Ok(()),
        false => Err(Error::new(subject(), format!("its layer {} is {kind}, which is no tar", layer.digest()))),
    }
}

/// From indexes to a manifest.
fn resolve(blobs: &Blobs, mut descriptor: Descriptor, platform: &Platform) -> Result<Descriptor> {
    for _ in 0..DEPTH {
        match descriptor.media_type().as_ref() {
            "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
                return Ok(descriptor);
            }
            "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                descriptor = pick(&blobs.document(&descriptor)?, &descriptor, platform)?;
            }
            kind => {
                return Err(Error::new(
                    descriptor.digest().to_string(),
                    format!("is {kind}, neither a manifest nor an index"),
                ));
            }
        }
    }
    Err(Error::new(
        descriptor.digest().to_string(),
        format!("is below {DEPTH} indexes, which is more than is followed"),
    ))
}

fn pick(index: &ImageIndex, of: &Descriptor, platform: &Platform) -> Result<Descriptor> {
    let known = |entry: &&Descriptor| entry.platform().as_ref().is_some_and(|found| platform.is(found));
    // An entry without a platform is for any (image-spec, "Image Index"); the config has the last word.
    let found = index
        .manifests()
        .iter()
        .find(known)
        .or_else(|| index.manifests().iter().find(|entry| entry.platform().is_none()));
    found.cloned().ok_or_else(|| {
        let all: Vec<_> = index
            .manifests()
            .iter()
            .filter_map(|entry| entry.platform().as_ref())
            .map(|found| format!("{}/{}", found.os(), found.architecture()))
            .collect();
        Error::new(format!("index {}", of.digest()), format!("has nothing for {platform}"))
            .hint(format!("it has {}", all.join(", ")))
    })
}
