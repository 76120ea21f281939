// SPDX-License-Identifier: Apache-2.0
//! Signatures of cosign: ECDSA P-256 over a "simple signing" payload, kept under the tag `sha256-HEX.sig` beside the image
//! (cosign, SIGNATURE_SPEC.md).

mod policy;

use std::fs;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_spec::image::{Descriptor, ImageManifest};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::pkcs8::DecodePublicKey;
use serde::Deserialize;

pub use policy::{Demand, Policy};

use crate::error::{Context, Error, Result};
use crate::image::{Blobs, DOCUMENT, Digest};
use crate::source::Pinned;

/// The annotation of a payload's descriptor that has its signature: base64 of DER.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The media type of a payload.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// What a payload says it is.
const KIND: &str = "cosign container image signature";

/// A public key, as `cosign generate-key-pair` writes it: PEM of SubjectPublicKeyInfo.
#[derive(Clone, Debug)]
pub struct Key(VerifyingKey);

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Signed,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

impl Key {
    /// Reads the key at `path`.
    ///
    /// # Errors
    /// If it is no public key of P-256.
    pub fn read(path: &Path) -> Result<Self> {
        let subject = || format!("key {}", path.display());
        let text = fs::read_to_string(path).context(subject)?;
        let key = VerifyingKey::from_public_key_pem(&text);
        key.map(Self).map_err(|_| Error::new(subject(), "is no public key of ECDSA P-256 in PEM").hint("cosign.pub"))
    }
}

/// Finds a signature of `image` that one of `keys` made, and gives the digest that it is of: the manifest's, or the index's that it
/// was found in.
///
/// # Errors
/// If there is none; the reason of each that does not hold is said.
pub fn verify(image: &Pinned, keys: &[Key]) -> Result<Digest> {
    let signatures = image.signatures()?;
    let mut reasons = Vec::new();
    for signature in &signatures {
        let manifest: ImageManifest = image.blobs.document(signature)?;
        for layer in manifest.layers().iter().filter(|layer| layer.media_type().to_string() == PAYLOAD) {
            match holds(&image.blobs, layer, image, keys) {
                Ok(digest) => return Ok(digest),
                Err(error) => reasons.push(error.to_string()),
            }
        }
    }
    let why = if reasons.is_empty() {
        "has no signature".to_owned()
    } else {
        format!("has no signature that holds: {}", reasons.join("; "))
    };
    Err(Error::new(format!("image {}", image.digest), why).hint("cosign sign --key cosign.key IMAGE"))
}

fn holds(blobs: &Blobs, layer: &Descriptor, image: &Pinned, keys: &[Key]) -> Result<Digest> {
    let subject = || format!("signature {}", layer.digest());
    if layer.size() > DOCUMENT {
        return Err(Error::new(subject(), format!("has more than {DOCUMENT} bytes")));
    }
    let mut payload = Vec::new();
    blobs.open(layer)?.read_to_end(&mut payload).context(subject)?;
    let text = layer.annotations().as_ref().and_then(|all| all.get(SIGNATURE));
    let bytes = text.and_then(|text| STANDARD.decode(text.trim()).ok());
    let signature = bytes.and_then(|bytes| Signature::from_der(&bytes).ok());
    let signature = signature.ok_or_else(|| Error::new(subject(), "is not base64 of an ECDSA signature"))?;
    if !keys.iter().any(|key| key.0.verify(&payload, &signature).is_ok()) {
        return Err(Error::new(subject(), "was not made with this key"));
    }
    let payload: Payload = serde_json::from_slice(&payload).context(subject)?;
    if payload.critical.kind != KIND {
        return Err(Error::new(subject(), format!("is of the kind {:?}, which is no image's", payload.critical.kind)));
    }
    // Which image it is of is for the payload to say, not for the tag it lies under.
    let digest: Digest = payload.critical.image.digest.parse()?;
    match digest == image.digest || image.index.as_ref() == Some(&digest) {
        true => Ok(digest),
        false => Err(Error::new(subject(), format!("is of another image, {digest}"))),
    }
}
