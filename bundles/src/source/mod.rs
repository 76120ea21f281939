// SPDX-License-Identifier: Apache-2.0
//! What people have: names of sources, and what they open to.

mod archive;
mod decoder;
mod docker;
mod folder;
mod layout;
mod registry;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::{Descriptor, ImageConfiguration};

use archive::Archive;
pub use decoder::Decoder;
pub use folder::Folder;
pub(crate) use registry::Repository;

use crate::error::{Context, Error, Result};
use crate::image::{Blobs, Digest, Image, Part, Platform};

/// The ways to name a source, as help and errors have them.
pub const NAMES: &str = "DIR, FILE.tar, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], docker://HOST/NAME[:TAG][@DIGEST]";

/// A source opened: the layers of a root, and what the image says of it.
pub struct Opened {
    /// From the lowest to the topmost.
    pub layers: Vec<Layer>,
    /// The image, if it is one.
    pub image: Option<Pinned>,
}

/// What is known of an image.
pub struct Pinned {
    /// Of the manifest; of the config for an archive of `docker save`, which has no manifest.
    pub digest: Digest,
    /// Of the index that it was found in, if one was followed.
    pub index: Option<Digest>,
    /// As its source calls it: tag or name.
    pub name: Option<String>,
    /// The image config.
    pub config: ImageConfiguration,
    /// Its manifests and signatures are here.
    pub blobs: Blobs,
    /// Signatures that lie beside it in a layout.
    beside: Vec<Descriptor>,
}

impl Pinned {
    /// The manifests of all signatures that may be of it.
    ///
    /// # Errors
    /// If its registry does not answer.
    pub fn signatures(&self) -> Result<Vec<Descriptor>> {
        let Some(repository) = self.blobs.repository() else { return Ok(self.beside.clone()) };
        let digests = [Some(&self.digest), self.index.as_ref()].into_iter().flatten();
        let found = digests.map(|digest| repository.tagged(&format!("sha256-{}.sig", digest.hex())));
        Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }
}

/// One layer of a root.
pub enum Layer {
    /// Of an image.
    Blob {
        /// Where its content is.
        blobs: Blobs,
        /// What it has to be.
        blob: Box<Descriptor>,
        /// What the tar in it has to be.
        diff_id: Digest,
    },
    /// A tar, compressed or not.
    Tar(Arc<File>),
    /// A folder of the host.
    Folder(Folder),
}

impl Layer {
    /// The digest by which it is known before it is read; none for what is no image.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Blob { blob, .. } => blob.digest().to_string().parse().ok(),
            Self::Tar(_) | Self::Folder(_) => None,
        }
    }

    /// Its bytes, for the progress.
    pub fn size(&self) -> u64 {
        match self {
            Self::Blob { blob, .. } => blob.size(),
            Self::Tar(file) => file.metadata().map_or(0, |found| found.len()),
            Self::Folder(_) => 0,
        }
    }

    /// The stream to unpack, checked as it is read.
    ///
    /// # Errors
    /// If it can not be opened.
    pub fn open(&self) -> Result<Box<dyn Read + Send>> {
        match self {
            Self::Blob { blobs, blob, .. } => Ok(Box::new(blobs.open(blob)?)),
            Self::Tar(file) => Ok(Box::new(Part { file: file.clone(), at: 0, end: self.size() })),
            Self::Folder(folder) => folder.stream(),
        }
    }
}

/// `name` as a policy sees it: of a registry `docker://HOST/REPOSITORY:TAG`, whatever was left out, or the path of what is on this host.
///
/// # Errors
/// If it is no name of a registry's image, but looks like one, or nothing is there.
pub fn canonical(name: &str) -> Result<String> {
    match name.strip_prefix("docker:") {
        Some(rest) if rest.starts_with("//") => registry::canonical(rest.trim_start_matches('/')),
        _ => {
            let path = match name.split_once(':') {
                Some(("oci" | "oci-archive" | "docker-archive", rest)) => Chosen::of(rest).path,
                _ => PathBuf::from(name),
            };
            Ok(path.canonicalize().context(|| path.display().to_string())?.display().to_string())
        }
    }
}

/// The same source, with the path of what is on this host as it really is, and its name as a policy sees it.
///
/// # Errors
/// If nothing is there, or its path can not stand before a `:NAME`.
pub fn settled(name: &str) -> Result<(String, String)> {
    let real = |path: &Path| {
        let subject = || path.display().to_string();
        let real =
            path.canonicalize().context(subject).map_err(|error| error.hint(format!("a source is one of: {NAMES}")))?;
        real.into_os_string().into_string().map_err(|_| Error::new(subject(), "is no UTF-8"))
    };
    match name.split_once(':') {
        Some(("docker", rest)) if rest.starts_with("//") => Ok((name.to_owned(), canonical(name)?)),
        Some((kind @ ("oci" | "oci-archive" | "docker-archive"), rest)) => {
            let chosen = Chosen::of(rest);
            let path = real(&chosen.path)?;
            let Some(name) = chosen.name else { return Ok((format!("{kind}:{path}"), path)) };
            if path.contains(':') {
                let error = Error::new(path, "has a colon, behind which a name would be looked for");
                return Err(error.hint("leave the name out, or move it"));
            }
            Ok((format!("{kind}:{path}:{name}"), path))
        }
        _ => real(Path::new(name)).map(|path| (path.clone(), path)),
    }
}

/// Opens what `name` means, and reads all of it but the layers.
///
/// # Errors
/// If it is not there, is no source, or has several images and no name chooses one.
pub fn open(name: &str, platform: &Platform, decoder: Decoder<'_>) -> Result<Opened> {
    match name.split_once(':') {
        Some(("oci", rest)) => layout::folder(&Chosen::of(rest), platform),
        Some(("oci-archive", rest)) => in_archive(&Chosen::of(rest), layout::archive, platform, decoder),
        Some(("docker-archive", rest)) => in_archive(&Chosen::of(rest), docker::archive, platform, decoder),
        Some(("docker", rest)) if rest.starts_with("//") => registry::open(rest.trim_start_matches('/'), platform),
        _ => path(Path::new(name), platform, decoder),
    }
}

fn in_archive(
    chosen: &Chosen,
    open: impl FnOnce(Archive, &Chosen, &Platform) -> Result<Opened>,
    platform: &Platform,
    decoder: Decoder<'_>,
) -> Result<Opened> {
    open(Archive::open(&chosen.path, decoder)?, chosen, platform)
}

/// A file or folder without a word of what it is.
fn path(path: &Path, platform: &Platform, decoder: Decoder<'_>) -> Result<Opened> {
    let found = path.metadata().context(|| path.display().to_string());
    let found = found.map_err(|error| error.hint(format!("a source is one of: {NAMES}")))?;
    let chosen = Chosen { path: path.to_owned(), name: None };
    if found.is_dir() {
        return match path.join("oci-layout").is_file() && path.join("index.json").is_file() {
            true => layout::folder(&chosen, platform),
            false => Ok(Opened { layers: vec![Layer::Folder(Folder::open(path)?)], image: None }),
        };
    }
    let archive = Archive::open(path, decoder)?;
    match (archive.has("oci-layout") && archive.has("index.json"), archive.has("manifest.json")) {
        (true, _) => layout::archive(archive, &chosen, platform),
        (false, true) => docker::archive(archive, &chosen, platform),
        (false, false) => Ok(Opened { layers: vec![Layer::Tar(archive.into_file())], image: None }),
    }
}

/// A path, and the image in it.
struct Chosen {
    path: PathBuf,
    name: Option<String>,
}

impl Chosen {
    /// A path may have a colon itself; then it is there.
    fn of(text: &str) -> Self {
        match text.split_once(':') {
            Some((path, name)) if !Path::new(text).exists() => Self { path: path.into(), name: Some(name.into()) },
            _ => Self { path: text.into(), name: None },
        }
    }

    /// The one of `all` that the name means, or the only one.
    fn pick<'a, T>(&self, all: &'a [T], names: impl Fn(&T) -> Vec<String>) -> Result<&'a T> {
        let known = || all.iter().flat_map(&names).collect::<Vec<_>>().join(", ");
        let subject = self.path.display().to_string();
        match (&self.name, all) {
            (None, [one]) => Ok(one),
            (None, []) => Err(Error::new(subject, "has no image")),
            (None, _) => Err(Error::new(subject, format!("has {} images", all.len()))
                .hint(format!("add :NAME, one of: {}", known()))),
            (Some(name), _) => all.iter().find(|one| names(one).contains(name)).ok_or_else(|| {
                Error::new(subject, format!("has no image {name:?}")).hint(format!("it has: {}", known()))
            }),
        }
    }
}

fn opened(image: Image, blobs: &Blobs, index: Option<Digest>, name: Option<String>) -> Opened {
    let beside = Vec::new();
    let layer = |layer: crate::image::Layer| Layer::Blob {
        blobs: blobs.clone(),
        blob: Box::new(layer.blob),
        diff_id: layer.diff_id,
    };
    Opened {
        layers: image.layers.into_iter().map(layer).collect(),
        image: Some(Pinned { digest: image.digest, index, name, config: image.config, blobs: blobs.clone(), beside }),
    }
}
