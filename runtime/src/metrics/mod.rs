// SPDX-License-Identifier: Apache-2.0
//! `wsbox metrics`: every container of the host in OpenMetrics' words, whichever door it came through. A scrape reads the kernel
//! and the state folders; nothing is kept of a container but what is told below.

mod changes;
mod containers;
pub mod counters;
mod families;
mod server;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

pub use server::serve;

use crate::error::{Error, Result};
use changes::Changes;
use containers::{Containers, Failures, Key, Sample};

/// For how long the layers that were read of a container are told again: nothing but `update` changes one, and to ask for the
/// interfaces of a network namespace takes a thread.
const LAYERS_KEEP: Duration = Duration::from_secs(60);

/// What to look at.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state roots; empty: those of the command line, of Docker and of containerd
    pub roots: Vec<PathBuf>,
    /// Places in a writable root where every write is counted
    pub watched: Vec<String>,
}

/// Which of the two text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0
    OpenMetrics,
    /// Prometheus' older one, which the textfile collector of node_exporter reads
    Prometheus,
}

/// Answers scrapes.
#[derive(Debug)]
pub struct Exporter {
    registry: Registry,
}

impl Exporter {
    /// Begins to count starts, errors and changed files.
    ///
    /// # Errors
    /// If the host's counters can not be made, or the kernel has no fanotify(7).
    pub fn new(options: Options) -> Result<Self> {
        counters::begin()?;
        let source = Source {
            containers: Containers::new(options.roots),
            changes: Changes::watch(options.watched)?,
            known: Mutex::default(),
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(source));
        Ok(Self { registry })
    }

    /// All metrics, now.
    ///
    /// # Errors
    /// If the host's counters can not be read.
    pub fn scrape(&self, format: Format) -> Result<String> {
        let mut page = String::new();
        let encoded = match format {
            Format::OpenMetrics => text::encode(&mut page, &self.registry),
            Format::Prometheus => prometheus_text::encode(&mut page, &self.registry),
        };
        encoded.map_err(|_| Error::invalid("metrics", "the host's counters can not be read"))?;
        Ok(page)
    }
}

/// What is kept of a container from one scrape to the next.
#[derive(Debug, Default)]
struct Kept {
    /// What was read of its layers, and when; none if there was nothing to read
    layers: Option<(Instant, Vec<(&'static str, bool)>)>,
    /// The names of processes that were told
    names: HashSet<String>,
}

type Known = HashMap<Key, Kept>;

#[derive(Debug)]
struct Source {
    containers: Containers,
    changes: Changes,
    known: Mutex<Known>,
}

impl Source {
    /// Every container, and what could not be read; those whose layers were read long ago have them read anew.
    fn samples(&self) -> (Vec<Sample>, Failures) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut samples, mut failures) = self.containers.read();
        let mut fresh = Known::new();
        for sample in &mut samples {
            let mut kept = known.remove(&sample.key()).unwrap_or_default();
            sample.layers = kept.layers_of(sample, &mut failures);
            sample.processes = containers::bounded(std::mem::take(&mut sample.processes), &mut kept.names);
            fresh.insert(sample.key(), kept);
        }
        *known = fresh;
        (samples, failures)
    }
}

impl Kept {
    fn layers_of(&mut self, sample: &Sample, failures: &mut Failures) -> Vec<(&'static str, bool)> {
        self.layers = self.layers.take().filter(|(read, _)| sample.process().is_some() && read.elapsed() < LAYERS_KEEP);
        if self.layers.is_none() && sample.process().is_some() {
            let layers = sample.read_layers(failures);
            self.layers = (!layers.is_empty()).then(|| (Instant::now(), layers));
        }
        self.layers.as_ref().map(|(_, layers)| layers.clone()).unwrap_or_default()
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let begun = Instant::now();
        let (samples, failures) = self.samples();
        let changes = self.changes.of(&samples);
        let counters = counters::read().map_err(|_| std::fmt::Error)?;
        families::encode(&mut encoder, &samples, &changes, &counters)?;
        families::encode_scrape(&mut encoder, &failures, begun)
    }
}
