// SPDX-License-Identifier: Apache-2.0
//! A root made of layers: what `wsbox bundle create` writes into a config instead of copying files.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::mounts::read_only_root;
use super::secrets;
use crate::bundle::Bundle;
use crate::error::{Error, Result};

/// The annotation with the folders of the layers, the uppermost first, with colons between.
pub const ANNOTATION: &str = "dev.wsbox.layers";
/// The kernel's own limit (Documentation/filesystems/overlayfs.rst, OVL_MAX_STACK).
const MOST: usize = 500;

/// Whether it is where `wsbox bundle create` puts layers: nothing else of a host is one.
fn of_a_store(layer: &Path) -> bool {
    let mut parts = layer.iter().rev().map(|part| part.to_str().unwrap_or_default());
    let hex = |part: &str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    layer.is_absolute()
        && !layer.iter().any(|part| part == "..")
        && parts.next() == Some("fs")
        && parts.next().is_some_and(hex)
        && parts.next() == Some("layers")
}

/// The file that `wsbox bundle create` leaves in its bundles.
const MARK: &str = ".wsbox";

/// Layers and secrets are for bundles that wsbox made: engines copy the annotations of an image, which is nobody's friend, into a config.
///
/// # Errors
/// Which annotation is none of this bundle's.
pub fn refuse_of_others(bundle: &Bundle) -> Result<()> {
    let mut names = bundle.spec.annotations().iter().flatten().map(|(name, _)| name);
    let Some(name) = names.find(|name| *name == ANNOTATION || name.starts_with(secrets::ANNOTATION)) else {
        return Ok(());
    };
    match bundle.path.join(MARK).symlink_metadata() {
        Ok(found) if found.is_file() => Ok(()),
        _ => {
            Err(Error::invalid(format!("annotations[{name:?}]"), "is only for bundles that `wsbox bundle create` made")
                .hint("an image can not ask for files of the host"))
        }
    }
}

/// The folders; none if the root is a folder itself.
///
/// # Errors
/// If they are not absolute paths, are too many, or the root is to be writable: the store's layers are shared.
pub fn layers(spec: &Spec) -> Result<Vec<PathBuf>> {
    let Some(text) = spec.annotations().as_ref().and_then(|all| all.get(ANNOTATION)) else { return Ok(Vec::new()) };
    let field = format!("annotations[{ANNOTATION:?}]");
    let layers: Vec<_> = text.split(':').map(PathBuf::from).collect();
    if !layers.iter().all(|layer| of_a_store(layer)) || layers.len() > MOST {
        let why = format!("is no list of at most {MOST} paths STORE/layers/HEX/fs with colons between");
        return Err(Error::invalid(field, why));
    }
    if !read_only_root(spec) {
        return Err(Error::invalid(
            "root.readonly",
            "has to be true: layers are shared by bundles, and can not be written",
        )
        .hint("`wsbox bundle create --copy` gives a bundle files of its own"));
    }
    Ok(layers)
}
