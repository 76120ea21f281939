// SPDX-License-Identifier: Apache-2.0
//! What of a command goes into the audit log (`--audit-log`): one line when it is done, and for a `run` that waits, one when the payload
//! has started and one when it has ended.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;

use clap::ArgMatches;
use serde_json::{Map, Value, json};

use super::Global;
use crate::audit::{Event, Log, SCHEMA, User};
use crate::error::Result;
use crate::monitor::report;
use crate::state::met::{self, LimitWatch};
use crate::state::{self, Record, Root, layers};
use crate::sys::pidfd::Exit;

/// The commands that do something to a container.
const AUDITED: [&str; 11] =
    ["create", "run", "start", "exec", "kill", "update", "delete", "pause", "resume", "checkpoint", "restore"];
/// Those after which the layers in force are told.
const STARTING: [&str; 4] = ["create", "run", "start", "restore"];
/// Annotations in which bundles and engines say what the image was.
const DIGESTS: [&str; 2] = ["dev.wsbox.image.digest", "org.opencontainers.image.base.digest"];

/// The audit log of one command; without `--audit-log`, nothing.
#[derive(Debug, Default)]
pub struct Trail {
    open: Option<Open>,
    container: RefCell<String>,
    /// What `exec --process` runs
    runs: RefCell<Vec<String>>,
    told: Cell<bool>,
    /// As it was last seen: `delete` leaves none
    record: RefCell<Option<Record>>,
    /// What became of a container that is to be deleted
    outcome: Map<String, Value>,
}

#[derive(Debug)]
struct Open {
    log: Log,
    command: &'static str,
    action: Vec<String>,
    root: PathBuf,
    profile: Option<String>,
    user: User,
}

impl Trail {
    /// Opens the log of a command that is to be logged.
    ///
    /// # Errors
    /// If it can not be written, and no flag says to go on.
    pub fn open(global: &Global, command: &'static str, matches: &ArgMatches, args: Vec<String>) -> Result<Self> {
        let Some(target) = global.audit_log.clone().filter(|_| AUDITED.contains(&command)) else {
            return Ok(Self::default());
        };
        let container = matches.try_get_one::<String>("id").ok().flatten().cloned().unwrap_or_default();
        let record = global.root().read(&container).ok().into();
        let open = Open {
            log: Log::open(target, global.audit_options)?,
            command,
            action: action(command, args, matches),
            root: global.root().path().to_owned(),
            profile: global.profile.map(|profile| profile.to_string()),
            // Later it may be in a user namespace of its own, and root there.
            user: User::caller(),
        };
        let outcome = if command == "delete" { open.outcome(&container) } else { Map::new() };
        Ok(Self {
            open: Some(open),
            container: container.into(),
            runs: RefCell::default(),
            told: Cell::default(),
            record,
            outcome,
        })
    }

    /// The container that the command makes up a name for.
    pub fn container(&self, id: &str) {
        self.container.replace(id.into());
    }

    /// What the file of `exec --process` says, as it was read.
    pub fn runs(&self, args: &[String]) {
        self.runs.replace(std::iter::once("--").chain(args.iter().map(String::as_str)).map(str::to_owned).collect());
    }

    /// The payload of a `run` has started.
    ///
    /// # Errors
    /// If that can not be logged, and no flag says to go on.
    pub fn started(&self) -> Result<()> {
        self.told.set(true);
        self.tell(|open, record, event| {
            let mut metadata = open.metadata(record);
            metadata.extend(self.outcome.clone());
            Event { metadata, ..event }
        })
    }

    /// The payload of a `run` has ended.
    ///
    /// # Errors
    /// As [`Trail::started`].
    pub fn exited(&self, exit: &Exit) -> Result<()> {
        self.tell(|open, _, event| {
            let mut metadata = open.outcome(&event.container);
            metadata.insert("exitCode".into(), exit.code().into());
            Event { event_type: "exit".into(), metadata, ..event }
        })
    }

    /// The command is done.
    ///
    /// # Errors
    /// As [`Trail::started`].
    pub fn finish(&self, result: &Result<u8>) -> Result<()> {
        match result {
            Ok(_) if self.told.get() => Ok(()),
            Ok(_) => self.started(),
            Err(error) => {
                let why = json!({"error": error.to_string()});
                self.tell(|_, _, event| Event { result: "failure", metadata: object(why), ..event })
            }
        }
    }

    fn tell(&self, finish: impl FnOnce(&Open, Option<&Record>, Event) -> Event) -> Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        let container = self.container.borrow().clone();
        if let Ok(record) = Root::new(Some(open.root.clone())).read(&container) {
            self.record.replace(Some(record));
        }
        let record = self.record.borrow();
        let record = record.as_ref();
        let digest = record.and_then(|record| DIGESTS.iter().find_map(|key| record.annotations.get(*key)));
        let event = Event {
            schema: SCHEMA,
            time: state::now(),
            event_type: open.command.into(),
            bundle: record.map(|record| record.bundle.clone()),
            image_digest: digest.cloned(),
            user: open.user.clone(),
            action: [open.action.clone(), self.runs.borrow().clone()].concat(),
            resource: open.root.join(&container),
            result: "success",
            metadata: Map::new(),
            container,
        };
        open.log.write(&finish(open, record, event))
    }
}

impl Open {
    /// What was denied, by call and process, and which limits were met: aggregated, however often it happened.
    fn outcome(&self, container: &str) -> Map<String, Value> {
        let root = Root::new(Some(self.root.clone()));
        let violations = report::violations(&root, container);
        let met = LimitWatch::new(&root, container).map(|watch| watch.met()).unwrap_or_default();
        let mut outcome = Map::new();
        let violations = violations.unwrap_or_else(|error| {
            outcome.insert("deniedUnknown".into(), error.to_string().into());
            report::Violations::default()
        });
        if violations.total > 0 || violations.killed > 0 {
            let denied = json!({"total": violations.total, "killed": violations.killed, "blocked": violations.blocked});
            outcome.insert("denied".into(), denied);
        }
        if !met.is_empty() {
            outcome.insert("limitsMet".into(), met::to_json(&met));
        }
        outcome
    }

    /// The profile, and what the kernel has in force once something started.
    fn metadata(&self, record: Option<&Record>) -> Map<String, Value> {
        let mut metadata = Map::new();
        if let Some(profile) = &self.profile {
            metadata.insert("profile".into(), profile.as_str().into());
        }
        let record = record.filter(|_| STARTING.contains(&self.command));
        if let Some(seen) = record.and_then(|record| layers::observe(record).ok()) {
            let in_force = seen.layers.iter().map(|layer| (layer.id.to_owned(), layer.in_force.into()));
            metadata.insert("layers".into(), Value::Object(in_force.collect()));
        }
        metadata
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The command and its arguments; of variables only the names, for values are secrets as often as not.
fn action(command: &str, args: Vec<String>, matches: &ArgMatches) -> Vec<String> {
    let words = |name| matches.try_get_many::<String>(name).ok().flatten().into_iter().flatten();
    let mut own: Vec<String> = args.into_iter().skip_while(|arg| arg != command).collect();
    // What is run comes last, and is told as it is.
    let run = own.split_off(own.len().saturating_sub(words("command").count()));
    let variables: Vec<&str> = words("env").map(String::as_str).collect();
    own.iter().map(|word| without_value(word, &variables).to_owned()).chain(run).collect()
}

/// A word up to the name of the variable that it sets. The parser says which variables there are: it alone knows all their spellings.
fn without_value<'a>(word: &'a str, variables: &[&str]) -> &'a str {
    // The longest: the value of one may end like another.
    let ends = variables.iter().filter(|variable| word.ends_with(**variable));
    let hidden = ends.filter_map(|variable| Some(variable.len() - variable.find('=')?)).max();
    hidden.map_or(word, |hidden| &word[..word.len() - hidden])
}

#[cfg(test)]
mod tests {
    use super::without_value;

    #[test]
    fn variables_of_every_spelling() {
        let variables = ["", "NAME", "A=b", "K=1", "PASS=fooK=1"];
        for (word, shown) in [
            ("--env=A=b", "--env=A"),
            ("-eA=b", "-eA"),
            ("-te=A=b", "-te=A"),
            ("A=b", "A"),
            ("PASS=fooK=1", "PASS"),
            ("NAME", "NAME"),
            ("--cwd=/a", "--cwd=/a"),
            ("", ""),
        ] {
            assert_eq!(without_value(word, &variables), shown);
        }
    }
}
