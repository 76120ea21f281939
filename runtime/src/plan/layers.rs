// SPDX-License-Identifier: Apache-2.0
//! A root made of layers: what `wsbox bundle create` writes into a config instead of copying files.

use std::path::PathBuf;

use oci_spec::runtime::Spec;

use super::mounts::read_only_root;
use crate::error::{Error, Result};

/// The annotation with the folders of the layers, the uppermost first, with colons between.
pub const ANNOTATION: &str = "dev.wsbox.layers";
/// The kernel's own limit (Documentation/filesystems/overlayfs.rst, OVL_MAX_STACK).
const MOST: usize = 500;

/// The folders; none if the root is a folder itself.
///
/// # Errors
/// If they are not absolute paths, are too many, or the root is to be writable: the store's layers are shared.
pub fn layers(spec: &Spec) -> Result<Vec<PathBuf>> {
    let Some(text) = spec.annotations().as_ref().and_then(|all| all.get(ANNOTATION)) else { return Ok(Vec::new()) };
    let field = format!("annotations[{ANNOTATION:?}]");
    let layers: Vec<_> = text.split(':').map(PathBuf::from).collect();
    if layers.iter().any(|layer| !layer.is_absolute()) || layers.len() > MOST {
        return Err(Error::invalid(field, format!("is no list of at most {MOST} absolute paths with colons between")));
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
