// SPDX-License-Identifier: Apache-2.0
//! Images as content by digest (image-spec, "Image Layout"): where they lie, and how they are read without being trusted.

mod blobs;
mod digest;
mod manifest;
mod verified;

pub use blobs::{Blobs, Content};
pub(crate) use blobs::{DOCUMENT, Part, read_document};
pub use digest::Digest;
pub use manifest::{Image, Layer, Platform};
pub use verified::Verified;
