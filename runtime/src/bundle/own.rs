// SPDX-License-Identifier: Apache-2.0
//! What only bundles of wsbox's own may ask: engines copy the annotations of an image, which is nobody's friend, into a config.

use super::Bundle;
use crate::error::{Error, Result};

/// The file that `wsbox bundle create` leaves in its bundles.
pub const MARK: &str = ".wsbox";
/// The annotation with the folders of the root's layers, the uppermost first, with colons between.
pub const LAYERS: &str = "dev.wsbox.layers";
/// Before the name of a secret: its annotation is `file:PATH` or `env:VARIABLE`.
pub const SECRET: &str = "dev.wsbox.secret.";

impl Bundle {
    /// Layers and secrets name files of the host.
    ///
    /// # Errors
    /// Which annotation is not for this bundle.
    pub(crate) fn refuse_foreign_annotations(&self) -> Result<()> {
        let mut names = self.spec.annotations().iter().flatten().map(|(name, _)| name);
        let Some(name) = names.find(|name| *name == LAYERS || name.starts_with(SECRET)) else { return Ok(()) };
        match self.path.join(MARK).symlink_metadata() {
            Ok(found) if found.is_file() => Ok(()),
            _ => {
                let why = "is only for bundles that `wsbox bundle create` made";
                Err(Error::invalid(format!("annotations[{name:?}]"), why)
                    .hint("an image can not ask for files of the host"))
            }
        }
    }
}
