// SPDX-License-Identifier: Apache-2.0
//! `wsbox metrics`

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Global, output};
use crate::error::{Context, Error, Result};
use crate::metrics::{Exporter, Format, Options, serve};
use crate::sys::activation;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where Prometheus finds the page /metrics; a socket that systemd passes (LISTEN_FDS) goes first
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9464")]
    listen: SocketAddr,
    /// Let --listen be an address that other machines reach: names of containers and processes are no secret then
    #[arg(long)]
    allow_remote: bool,
    /// Write the page into this file instead, whole, for node_exporter's textfile collector; - is stdout
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
    /// Write it again every so many seconds
    #[arg(long, value_name = "SECONDS", requires = "textfile", value_parser = clap::value_parser!(u64).range(1..))]
    interval: Option<u64>,
    /// A state root to look into; may be repeated [default: --root, else wsbox's, Docker's and containerd's]
    #[arg(long = "state-root", value_name = "DIR")]
    roots: Vec<PathBuf>,
    /// A place in writable roots where every write is counted; may be repeated
    #[arg(long, value_name = "PATH", default_values = ["/usr", "/bin", "/sbin", "/lib"])]
    watch: Vec<String>,
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let roots = if arguments.roots.is_empty() { global.root.iter().cloned().collect() } else { arguments.roots };
    let options = Options { roots, watched: arguments.watch };
    if let Some(file) = &arguments.textfile {
        return write_pages(&Exporter::new(options)?, file, arguments.interval.map(Duration::from_secs));
    }
    let listener = activation::listener().map_or_else(|| listen(arguments.listen, arguments.allow_remote), Ok)?;
    let exporter = Exporter::new(options)?;
    eprintln!("wsbox: metrics are at http://{}/metrics", listener.local_addr().unwrap_or(arguments.listen));
    serve(&listener, &exporter);
    Ok(0)
}

fn listen(address: SocketAddr, allow_remote: bool) -> Result<TcpListener> {
    let subject = || format!("--listen {address}");
    if !address.ip().is_loopback() && !allow_remote {
        let error = Error::invalid(subject(), "is reached by other machines");
        return Err(error.hint("listen on 127.0.0.1, or say --allow-remote"));
    }
    TcpListener::bind(address)
        .context(subject)
        .map_err(|error| error.hint("is another `wsbox metrics` running? --listen takes another port"))
}

/// The first page is one that can be written; later ones may fail for a while, such as on a full disk.
fn write_pages(exporter: &Exporter, file: &Path, interval: Option<Duration>) -> Result<u8> {
    write_page(exporter, file)?;
    let Some(interval) = interval else { return Ok(0) };
    loop {
        std::thread::sleep(interval);
        if let Err(error) = write_page(exporter, file) {
            super::warn(&error.to_string());
        }
    }
}

fn write_page(exporter: &Exporter, file: &Path) -> Result<()> {
    let page = exporter.scrape(Format::Prometheus)?;
    if file == Path::new("-") { output::text(&page).map(drop) } else { output::replace(file, &page) }
}
