// SPDX-License-Identifier: Apache-2.0
//! `wsbox bundle create`

use std::path::{Path, PathBuf};

use wsbox_bundles::image::{Digest, Platform};
use wsbox_bundles::sign::Policy;
use wsbox_bundles::store::Store;
use wsbox_bundles::unpack::Limits;
use wsbox_bundles::{Progress, Request, config, source};

use super::flags::Flags;
use super::progress::Bar;
use super::unpacker;
use crate::cli::{log, output, spec};
use crate::error::{Error, Result};
use crate::plan::harden;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wsbox bundle create oci:./layout:latest ./web --user 1001:1001 --memory 256m
  docker save app | gzip > app.tar.gz; wsbox bundle create app.tar.gz ./app --tmpfs /var/cache/app
  wsbox bundle create ./rootfs ./box --env-file app.env --secret id=token,src=token.txt -- python3 main.py
  wsbox bundle create docker://registry.example.org/team/app:1 ./app --key cosign.pub
  wsbox run ./app")]
pub struct Arguments {
    /// DIR, FILE.tar, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME] or docker://HOST/NAME[:TAG][@DIGEST]
    source: String,
    /// The bundle: a folder that is made
    dir: PathBuf,
    #[command(flatten)]
    flags: Flags,
    /// Which image of several: OS/ARCHITECTURE[/VARIANT] [default: this host's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// The digest that the image has to have
    #[arg(long, value_name = "sha256:HEX")]
    digest: Option<Digest>,
    /// Refuse an image that this key of cosign's has not signed; several may be given
    #[arg(long, value_name = "cosign.pub")]
    key: Vec<PathBuf>,
    /// Refuse an image without a signature; --key or the policy says whose
    #[arg(long)]
    require_signature: bool,
    /// What images have to be, besides what /etc/wsbox/images.json demands
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Give the bundle files of its own, instead of the store's layers
    #[arg(long)]
    copy: bool,
    /// Refuse layers whose files have more bytes
    #[arg(long, value_name = "SIZE", default_value = "16g", value_parser = config::bytes)]
    max_size: u64,
    /// Refuse layers with more entries
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    max_entries: u64,
    /// Where layers are kept [default: /var/lib/wsbox, for a user $XDG_DATA_HOME/wsbox]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// How the result is printed
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// The host's own policy.
const POLICY: &str = "/etc/wsbox/images.json";

/// The host's is the floor; one that is there and can not be read is an error.
fn policies(file: Option<PathBuf>) -> Result<Vec<Policy>> {
    let absent = Path::new(POLICY).symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    let host = (!absent).then(|| PathBuf::from(POLICY));
    host.into_iter().chain(file).map(|path| Ok(Policy::read(&path)?)).collect()
}

pub fn run(arguments: Arguments) -> Result<u8> {
    let policies = policies(arguments.policy)?;
    if arguments.require_signature && arguments.key.is_empty() {
        let name = source::canonical(&arguments.source)?;
        let demands = policies.iter().map(|policy| Ok(policy.of(&name)?)).collect::<Result<Vec<_>>>()?;
        if demands.iter().all(|demand| demand.keys.is_empty()) {
            return Err(Error::invalid("--require-signature", "nobody says whose").hint("--key cosign.pub"));
        }
    }
    let mut base = harden::config()?;
    let user = crate::rootless::is_user();
    if user {
        let limits = spec::rootless(&mut base);
        let lacks =
            if limits { "" } else { ", and there are no limits (L5, L6), which on cgroup v1 only root can set" };
        log::warning(&format!("the files are a copy, as only root can map the ids of mounts{lacks}"));
    }
    let request = Request {
        source: arguments.source,
        dir: arguments.dir,
        platform: arguments.platform.unwrap_or_else(Platform::host),
        // Layers take a mount that only root may make.
        copy: arguments.copy || user,
        limits: Limits { size: arguments.max_size, entries: arguments.max_entries },
        pin: arguments.digest,
        keys: arguments.key,
        policies,
        flags: arguments.flags.read()?,
        base,
    };
    let store = Store::open(arguments.store)?;
    let progress = Progress::default();
    let bar = Bar::start(&progress)?;
    let created = wsbox_bundles::create(&request, &unpacker()?, &store, &progress);
    drop(bar);
    let created = created?;
    if arguments.format == "json" {
        return output::json(&created);
    }
    created.warnings.iter().for_each(|warning| log::warning(warning));
    let of = created.digest.as_ref().map(|digest| format!(" of {digest}")).unwrap_or_default();
    output::text(&format!("{}{of}; run it: wsbox run {}\n", created.bundle.display(), created.bundle.display()))
}
