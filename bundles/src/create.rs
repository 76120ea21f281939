// SPDX-License-Identifier: Apache-2.0
//! A bundle, step by step.

mod partial;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::{self, Files, Flags, Made};
use crate::error::{Context, Error, Result};
use crate::image::{Digest, Platform};
use crate::progress::Progress;
use crate::sign::{self, Demand, Key, Policy};
use crate::source::{self, Decoder, Layer, Opened, Pinned};
use crate::store::{LAYERS, Store};
use crate::unpack::{Form, Limits, Order, Unpacker};
use partial::Partial;
pub(crate) use partial::opened;

/// The file of a bundle that says that wsbox made it: engines put annotations of images into a config, and those must name no layers and
/// no secrets.
pub const MARK: &str = ".wsbox";

/// What is to be made.
#[derive(Clone, Debug)]
pub struct Request {
    /// As [`source::open`] takes it.
    pub source: String,
    /// Where the bundle will be; nothing is there now.
    pub dir: PathBuf,
    /// Which of an index's images.
    pub platform: Platform,
    /// The files are the bundle's own, not the store's.
    pub copy: bool,
    /// What is refused.
    pub limits: Limits,
    /// The digest that the image, or the index it is from, has to have.
    pub pin: Option<Digest>,
    /// Keys, one of which has to have signed the image; none for no signature.
    pub keys: Vec<PathBuf>,
    /// What is demanded: all of it.
    pub policies: Vec<Policy>,
    /// The user's words.
    pub flags: Flags,
    /// The config that all begins with.
    pub base: Value,
}

/// What was made.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// The bundle.
    pub bundle: PathBuf,
    /// The image's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How many layers its root has.
    pub layers: usize,
    /// What to look at, a line each.
    pub warnings: Vec<String>,
}

/// Makes the bundle that `request` describes.
///
/// # Errors
/// If the source, a flag or the disk is not as needed. Nothing is left of the bundle then.
pub fn create(request: &Request, unpacker: &Unpacker, store: &Store, progress: &Progress) -> Result<Created> {
    // Both from one look at the links on the way: who changes them later changes neither.
    let (source, name) = source::settled(&request.source)?;
    let demands = request.policies.iter().map(|policy| policy.of(&name)).collect::<Result<Vec<_>>>()?;
    let opened = source::open(&source, &request.platform, Decoder { unpacker, progress, limits: request.limits })?;
    demands.iter().try_for_each(|demand| names_digest(request, demand))?;
    pinned(opened.image.as_ref(), request.pin.as_ref())?;
    let keys = std::iter::once(&request.keys).chain(demands.iter().map(|demand| &demand.keys));
    keys.into_iter().try_for_each(|keys| signed(opened.image.as_ref(), keys))?;
    opened.layers.iter().for_each(|layer| progress.expect(layer.size()));
    let _held = store.share(progress)?;
    let partial = Partial::new(&request.dir)?;
    let rootfs = partial.folder("rootfs")?;
    let (layers, skipped) = root(request, &opened, unpacker, store, &rootfs, progress)?;
    let made = config(request, &opened, &layers)?;
    partial.write(MARK, b"{}\n")?;
    partial.write("config.json", &text(&made.config)?)?;
    progress.check()?;
    store.register(&request.dir, if request.copy { Vec::new() } else { layers.clone() }, &partial.path(MARK))?;
    let bundle = partial.finish()?;
    let digest = opened.image.map(|image| image.digest.to_string());
    let left_out = skipped.into_iter().map(|what| format!("left out: {what}"));
    let warnings = made.warnings.into_iter().chain(left_out).collect();
    Ok(Created { bundle, digest, layers: opened.layers.len(), warnings })
}

/// The digest may stand in the flag or in the name of the source.
fn names_digest(request: &Request, demand: &Demand) -> Result<()> {
    let named = request.source.rsplit_once('@').is_some_and(|(_, digest)| digest.parse::<Digest>().is_ok());
    if demand.digest && request.pin.is_none() && !(named && request.source.starts_with("docker://")) {
        let error = Error::new(request.source.clone(), "the policy wants its digest");
        return Err(error.hint("--digest sha256:HEX, or docker://HOST/NAME@sha256:HEX"));
    }
    Ok(())
}

fn pinned(image: Option<&Pinned>, pin: Option<&Digest>) -> Result<()> {
    let Some(pin) = pin else { return Ok(()) };
    let image = image.ok_or_else(|| Error::new("--digest", "the source is no image, so it has none"))?;
    match image.digest == *pin || image.index.as_ref() == Some(pin) {
        true => Ok(()),
        false => Err(Error::new("--digest", format!("the image is {}, not {pin}", image.digest))),
    }
}

fn signed(image: Option<&Pinned>, keys: &[PathBuf]) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let image = image.ok_or_else(|| Error::new("signature", "the source is no image, so it has none"))?;
    let keys = keys.iter().map(|path| Key::read(path)).collect::<Result<Vec<_>>>()?;
    sign::verify(image, &keys).map(drop)
}

/// Its files: the folders they are in, the uppermost first, and what was left out.
fn root(
    request: &Request,
    opened: &Opened,
    unpacker: &Unpacker,
    store: &Store,
    rootfs: &OwnedFd,
    progress: &Progress,
) -> Result<(Vec<PathBuf>, Vec<String>)> {
    if !request.copy {
        return store.layers(&opened.layers, unpacker, request.limits, progress);
    }
    let (rootfs, mut skipped) = (partial::opened(rootfs), Vec::new());
    apply(&opened.layers, &rootfs, unpacker, request.limits, progress, &mut skipped)?;
    Ok((vec![rootfs], skipped))
}

/// One layer over the other into `folder`.
pub(crate) fn apply(
    layers: &[Layer],
    folder: &Path,
    unpacker: &Unpacker,
    limits: Limits,
    progress: &Progress,
    skipped: &mut Vec<String>,
) -> Result<()> {
    for layer in layers {
        let order = order(layer, Form::Applied, limits);
        let report =
            unpacker.unpack(layer.open()?, &order, folder, progress).map_err(|error| of_layer(layer, error))?;
        skipped.extend(report.skipped);
    }
    skipped.sort();
    skipped.dedup();
    Ok(())
}

pub(crate) fn order(layer: &Layer, form: Form, limits: Limits) -> Order {
    let diff_id = match layer {
        // The stream is the tar itself, and checked as such.
        Layer::Blob { blob, diff_id, .. } if blob.digest().to_string() == diff_id.to_string() => None,
        Layer::Blob { diff_id, .. } => Some(diff_id.to_string()),
        Layer::Tar(_) | Layer::Folder(_) => None,
    };
    let sealed = layer.digest().is_some();
    Order { form, limits, diff_id, sealed, own: !nix::unistd::geteuid().is_root() }
}

/// Which of the layers it was.
pub(crate) fn of_layer(layer: &Layer, error: Error) -> Error {
    let Some(digest) = layer.digest() else { return error };
    let full = match error.parts().0 {
        "layer" => format!("layer {digest}"),
        entry => format!("layer {digest}: {entry}"),
    };
    error.of(full)
}

fn config(request: &Request, opened: &Opened, layers: &[PathBuf]) -> Result<Made> {
    let files = Files::new(layers.to_vec());
    let mut made = config::make(request.base.clone(), opened.image.as_ref(), &request.flags, &files)?;
    if !request.copy {
        let paths: Vec<_> = layers.iter().map(|layer| layer.display().to_string()).collect();
        made.config["annotations"][LAYERS] = paths.join(":").into();
        if request.flags.writable {
            let why = "layers of the store are shared, and can not be written";
            return Err(Error::new("--read-only=false", why).hint("--copy gives the bundle files of its own"));
        }
    }
    Ok(made)
}

fn text(config: &Value) -> Result<Vec<u8>> {
    let text = serde_json::to_string_pretty(config).context(|| "config.json".into())?;
    Ok((text + "\n").into_bytes())
}
