// SPDX-License-Identifier: Apache-2.0
//! A root made of layers: what `wsbox bundle create` writes into a config instead of copying files.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::mounts::read_only_root;
use crate::bundle::own::LAYERS;
use crate::error::{Error, Result};

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

/// The folders; none if the root is a folder itself.
///
/// # Errors
/// If they are not absolute paths, are too many, or the root is to be writable: the store's layers are shared.
pub fn layers(spec: &Spec) -> Result<Vec<PathBuf>> {
    let Some(text) = spec.annotations().as_ref().and_then(|all| all.get(LAYERS)) else { return Ok(Vec::new()) };
    let field = format!("annotations[{LAYERS:?}]");
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
