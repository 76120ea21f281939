// SPDX-License-Identifier: Apache-2.0
//! The bench's command line.

use crate::Outcome;
use std::path::PathBuf;

/// What `--help` prints.
pub const USAGE: &str = "\
usage: make bench ARGS=\"...\"
  --rounds N         rounds of every case (default 100; about 3 minutes in all)
  --containers N     containers of each runtime alive for `list` (default 200; 0: skip)
  --only PATTERN     only cases whose name holds PATTERN; `memory` is one of them
  --runtimes A,B     of wsbox,crun,runc,floor (default all that are there)
  --wsbox PATH       the wsbox to measure (default target/x86_64-unknown-linux-musl/release/wsbox)
  --format FORMAT    table or json
";

/// What was asked for.
pub struct Args {
    /// Rounds of every case.
    pub rounds: usize,
    /// Containers of each runtime that are alive when `list` is timed.
    pub containers: usize,
    /// A case runs if its name holds this.
    pub only: String,
    /// The runtimes to compare.
    pub runtimes: Vec<String>,
    /// The wsbox binary.
    pub wsbox: PathBuf,
    /// JSON instead of a table.
    pub json: bool,
    /// Started by `cargo bench`.
    pub bench: bool,
    /// Print the usage and stop.
    pub help: bool,
    /// Set by the guard: measure inside this directory.
    pub site: Option<PathBuf>,
}

impl Default for Args {
    fn default() -> Self {
        let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/x86_64-unknown-linux-musl/release/wsbox");
        Self {
            rounds: 100,
            containers: 200,
            only: String::new(),
            runtimes: ["wsbox", "crun", "runc", "floor"].map(String::from).to_vec(),
            wsbox: target.into(),
            json: false,
            bench: false,
            help: false,
            site: None,
        }
    }
}

impl Args {
    /// Reads the words after the program's name.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut args = Self::default();
        while let Some(word) = words.next() {
            args.take(&word, &mut words).map_err(|error| format!("{word}: {error}\n{USAGE}"))?;
        }
        Ok(args)
    }

    fn take(&mut self, word: &str, rest: &mut impl Iterator<Item = String>) -> Outcome<()> {
        let mut value = || rest.next().ok_or("needs a value");
        match word {
            "--bench" => self.bench = true,
            "--help" | "-h" => self.help = true,
            "--rounds" => self.rounds = value()?.parse()?,
            "--containers" => self.containers = value()?.parse()?,
            "--only" => self.only = value()?,
            "--runtimes" => self.runtimes = value()?.split(',').map(String::from).collect(),
            "--wsbox" => self.wsbox = std::path::absolute(value()?)?,
            "--format" => self.json = json(&value()?)?,
            "--site" => self.site = Some(value()?.into()),
            _ => return Err("unknown".into()),
        }
        Ok(())
    }

    /// Whether a case of this name was asked for.
    pub fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }
}

fn json(format: &str) -> Outcome<bool> {
    match format {
        "json" => Ok(true),
        "table" => Ok(false),
        _ => Err("expected table or json".into()),
    }
}
