// SPDX-License-Identifier: Apache-2.0
//! Images of a registry (distribution-spec), read as they come: nothing of them lies anywhere before it is unpacked.

mod fetch;
mod login;

use std::io::{self, Cursor, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use oci_spec::image::{Descriptor, MediaType};
use tokio::runtime::Runtime;

use self::fetch::Fetch;
use super::{Opened, opened};
use crate::error::{Context, Error, Result, plain};
use crate::image::{Blobs, Digest, Image, Platform};

/// A registry that says nothing for so long has gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for.
const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// One repository of a registry.
pub struct Repository {
    name: Reference,
    client: Client,
    fetch: Fetch,
    auth: RegistryAuth,
    runtime: Runtime,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "docker://{}", self.name)
    }
}

/// The image `name`: `HOST/REPOSITORY[:TAG][@DIGEST]`.
pub fn open(name: &str, platform: &Platform) -> Result<Opened> {
    let repository = Arc::new(Repository::new(name)?);
    let (blobs, descriptor) = (Blobs::registry(repository.clone()), repository.resolve(&repository.name)?);
    let descriptor = descriptor.ok_or_else(|| Error::new(repository.text(), "is not there"))?;
    let found: Digest = descriptor.digest().to_string().parse()?;
    if repository.name.digest().is_some_and(|wanted| wanted != found.to_string()) {
        return Err(Error::new(repository.text(), format!("the registry gave {found}")));
    }
    let image = Image::read(&blobs, &descriptor, platform)?;
    let index = (found != image.digest).then_some(found);
    Ok(opened(image, &blobs, index, Some(repository.name.to_string())))
}

/// With all that was left out.
pub fn canonical(name: &str) -> Result<String> {
    let name: Reference = name.parse().context(|| format!("docker://{name}"))?;
    let host = name.registry().to_ascii_lowercase();
    let host = match host.strip_suffix(":443").unwrap_or(&host) {
        "registry-1.docker.io" | "index.docker.io" => "docker.io".to_owned(),
        loopback if is_loopback(loopback) => {
            let port = loopback.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
            port.map_or_else(|| "localhost".to_owned(), |(_, port)| format!("localhost:{port}"))
        }
        other => other.to_owned(),
    };
    let tag = name.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
    Ok(format!("docker://{host}/{}{tag}", name.repository()))
}

impl Repository {
    fn new(name: &str) -> Result<Self> {
        let subject = || format!("docker://{name}");
        let name: Reference = name.parse().context(subject)?;
        let host = name.resolve_registry().to_owned();
        // As Docker has it: on this machine nobody is in between.
        let protocol = if is_loopback(&host) { ClientProtocol::Http } else { ClientProtocol::Https };
        if matches!(protocol, ClientProtocol::Http) {
            no_proxy_between(&host).map_err(|why| Error::new(subject(), why))?;
        }
        // It is the only one that is built in; another call of ours may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let config = ClientConfig {
            protocol,
            read_timeout: Some(PATIENCE),
            connect_timeout: Some(PATIENCE),
            user_agent: concat!("wsbox/", env!("CARGO_PKG_VERSION")),
            https_proxy: std::env::var("HTTPS_PROXY").or_else(|_| std::env::var("https_proxy")).ok(),
            no_proxy: std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy")).ok(),
            ..ClientConfig::default()
        };
        let (client, runtime) = (Client::try_from(config).context(subject)?, runtime.context(subject)?);
        let (auth, fetch) = (login::find(name.registry())?, Fetch::new(&host, is_loopback(&host))?);
        if !matches!(auth, RegistryAuth::Anonymous) {
            runtime.block_on(fetch.check_realm())?;
        }
        Ok(Self { auth, client, fetch, name, runtime })
    }

    fn text(&self) -> String {
        format!("docker://{}", self.name)
    }

    /// The manifest or index of a name, as its registry has it now; none if there is none.
    fn resolve(&self, name: &Reference) -> Result<Option<Descriptor>> {
        let subject = || format!("docker://{name}");
        let Some(bytes) = self.manifest(name)? else { return Ok(None) };
        let document: serde_json::Value = serde_json::from_slice(&bytes).context(subject)?;
        let kind = document["mediaType"].as_str().map(str::to_owned).unwrap_or_else(|| guess(&document).into());
        let digest: oci_spec::image::Digest = Digest::of(&bytes).to_string().parse().context(subject)?;
        Ok(Some(Descriptor::new(MediaType::from(kind.as_str()), bytes.len() as u64, digest)))
    }

    fn manifest(&self, name: &Reference) -> Result<Option<Vec<u8>>> {
        self.runtime.block_on(self.fetch.manifest(&self.client, name, &self.auth))
    }

    /// The manifest of another tag of the same repository.
    pub fn tagged(&self, tag: &str) -> Result<Option<Descriptor>> {
        let name = Reference::with_tag(self.name.registry().into(), self.name.repository().into(), tag.into());
        self.resolve(&name)
    }

    /// The content that `descriptor` names, as it comes.
    pub fn content(self: &Arc<Self>, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let digest = descriptor.digest().to_string();
        let subject = || format!("docker://{}@{digest}", self.name.repository());
        let kind = descriptor.media_type().to_string();
        if MANIFESTS.contains(&kind.as_str()) {
            let (registry, repository) = (self.name.registry().to_owned(), self.name.repository().to_owned());
            let name = Reference::with_digest(registry, repository, digest.clone());
            let pulled = self.manifest(&name)?.ok_or_else(|| Error::new(subject(), "is not there"))?;
            return Ok(Box::new(Cursor::new(pulled)));
        }
        let blob = OciDescriptor { digest: digest.clone(), ..OciDescriptor::default() };
        let stream = self.runtime.block_on(self.client.pull_blob_stream(&self.name, &blob));
        let stream = stream.map_err(|error| failed(subject(), &self.name, &error))?.stream;
        Ok(Box::new(Download { repository: self.clone(), stream, left: Cursor::default() }))
    }
}

fn failed(subject: String, name: &Reference, error: &oci_client::errors::OciDistributionError) -> Error {
    use oci_client::errors::OciDistributionError as Failure;
    match error {
        Failure::AuthenticationFailure(_) | Failure::UnauthorizedError { .. } => wants_login(subject, name),
        other => Error::new(subject, plain(&root(other))),
    }
}

fn wants_login(subject: String, name: &Reference) -> Error {
    Error::new(subject, "the registry wants a login").hint(format!("docker login {}", name.registry()))
}

/// The last reason in a chain of them, which is the one that says something.
fn root(error: &dyn std::error::Error) -> String {
    let mut all = vec![error.to_string()];
    let mut at = error.source();
    while let Some(error) = at {
        all.push(error.to_string());
        at = error.source();
    }
    all.dedup();
    all.join(": ")
}

/// A manifest that does not say what it is.
fn guess(document: &serde_json::Value) -> &'static str {
    if document.get("manifests").is_some() { MANIFESTS[0] } else { MANIFESTS[1] }
}

/// What is said in clear is for this machine's ears: a proxy would carry it elsewhere.
fn no_proxy_between(host: &str) -> Result<(), String> {
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let Some(proxy) = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].iter().find(|name| set(name)) else {
        return Ok(());
    };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let without = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy")).unwrap_or_default();
    match without.split(',').any(|entry| entry.trim() == name || entry.trim() == "*") {
        true => Ok(()),
        false => Err(format!("would go through ${proxy} in clear; add {name} to $NO_PROXY")),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A body on its way.
struct Download {
    repository: Arc<Repository>,
    stream: futures_util::stream::BoxStream<'static, io::Result<bytes::Bytes>>,
    left: Cursor<bytes::Bytes>,
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.left.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.repository.runtime.block_on(self.stream.next()) {
                None => return Ok(0),
                Some(bytes) => self.left = Cursor::new(bytes?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_trusted() {
        for host in ["127.0.0.1:5000", "localhost", "localhost:5000", "[::1]:5000", "127.9.9.9"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.org", "10.0.0.1:5000", "localhost.example.org", "127.0.0.1.example.org"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
