// SPDX-License-Identifier: Apache-2.0
//! Images to hardened bundles.
//!
//! # The way of an image
//! Whatever an image comes from ends as [`image::Blobs`], files by digest as in an OCI layout, and the digest of one manifest in there;
//! from then on there is one way. Nothing is read from blobs but through [`image::Verified`].
//!
//! The crate knows nothing of the runtime: a config is JSON that the caller gives and gets back.

pub mod check;
pub mod config;
mod create;
mod error;
pub mod image;
mod progress;
pub mod sign;
pub mod source;
pub mod store;
pub mod unpack;

pub use create::{Created, MARK, Request, create};
pub use error::{Context, Error, Result};
pub use progress::Progress;
