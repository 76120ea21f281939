// SPDX-License-Identifier: Apache-2.0
//! `wsbox bundle ls|rm|gc`

use std::path::PathBuf;

use wsbox_bundles::store::{self, Store};

use crate::cli::{Global, output};
use crate::error::{Error, Kind, Result};
use crate::state::lifecycle;
use crate::state::{Record, Root, Status};

/// Where the store is.
#[derive(Debug, clap::Args)]
struct Place {
    /// Where layers are kept [default: /var/lib/wsbox, for a user $XDG_DATA_HOME/wsbox]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// How the result is printed
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

#[derive(Debug, clap::Args)]
pub struct Ls {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
pub struct Rm {
    /// The bundles
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
pub struct Gc {
    #[command(flatten)]
    place: Place,
}

pub fn ls(arguments: &Ls) -> Result<u8> {
    let bundles = Store::open(arguments.place.store.clone())?.bundles()?;
    if arguments.place.format == "json" {
        return output::json(&bundles);
    }
    let mut rows = vec![["BUNDLE", "LAYERS", "IMAGE"].map(str::to_owned).to_vec()];
    rows.extend(bundles.into_iter().map(|bundle| {
        let layers = if bundle.layers.is_empty() { "its own".to_owned() } else { bundle.layers.len().to_string() };
        vec![bundle.dir.display().to_string(), layers, bundle.image.unwrap_or_else(|| "-".into())]
    }));
    output::table(&rows)
}

pub fn rm(global: &Global, arguments: &Rm) -> Result<u8> {
    let store = Store::open(arguments.place.store.clone())?;
    let alone = store.alone()?;
    let alive = alive(global, &store.users(&alone)?)?;
    for dir in &arguments.dirs {
        let path = store::placed(dir)?;
        if let Some(record) = alive.iter().find(|record| store::placed(&record.bundle).is_ok_and(|used| used == path)) {
            return Err(Error::invalid(dir.display().to_string(), format!("is the bundle of container {}", record.id))
                .hint(format!("wsbox delete --force {}", record.id)));
        }
        store.remove(&alone, dir)?;
    }
    Ok(0)
}

/// The containers that have not ended: of this state root, and with a state folder among `users`, wherever it is.
fn alive(global: &Global, users: &[PathBuf]) -> Result<Vec<Record>> {
    let root = global.root();
    let mut records = Vec::new();
    for id in root.ids()? {
        records.extend(present(root.read(&id))?);
    }
    for folder in users.iter().filter(|folder| folder.parent() != Some(root.path())) {
        let id = folder.file_name().unwrap_or_default().to_string_lossy();
        records.extend(present(Root::new(folder.parent().map(PathBuf::from)).read(&id))?);
    }
    let mut alive = Vec::new();
    for record in records {
        if lifecycle::state(&record)?.status != Status::Stopped {
            alive.push(record);
        }
    }
    Ok(alive)
}

/// None if it was deleted meanwhile. One that can not be read may be of a container that is alive.
fn present(record: Result<Record>) -> Result<Option<Record>> {
    match record {
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

pub fn gc(global: &Global, arguments: &Gc) -> Result<u8> {
    let store = Store::open(arguments.place.store.clone())?;
    let alone = store.alone()?;
    let alive = alive(global, &store.users(&alone)?)?;
    let held =
        alive.iter().filter_map(|record| record.annotations.get(store::LAYERS)).flat_map(|layers| store::split(layers));
    let freed = store.gc(&alone, held)?;
    match arguments.place.format.as_str() {
        "json" => output::json(&freed),
        _ => output::text(&format!("{} layers removed, {:.1} MB freed\n", freed.layers, freed.bytes as f64 / 1e6)),
    }
}
