// SPDX-License-Identifier: Apache-2.0
//! `wsbox seccomp record`: runs a bundle until nothing more is blocked that may be allowed. The payload is never less confined than by
//! the profile that it has at that moment: the monitor counts what was denied, and the next run has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use serde_json::Value;

use super::source::Source;
use super::{allow, diff};
use crate::bundle::own::MARK;
use crate::cli::interrupt::Interrupt;
use crate::cli::temporary::Temporary;
use crate::cli::{Global, log, output};
use crate::error::{Context, Error, Result};
use crate::seccomp::check;
use crate::state::{Root, lifecycle};
use crate::sys::pidfd;

const BUNDLE: &str = "--bundle=";
/// Milliseconds between two tries to end a run.
const AGAIN: u8 = 20;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each run, --dry-run's too, really runs the payload, under the bundle's profile and what was learned so far. What is blocked is never made,
it is counted. Calls by which programs got out of sandboxes stay as the bundle has them; with --force they are allowed from the next run on.
Ctrl-C ends the run at once, and leaves the bundle as it is.

Examples:
  wsbox seccomp record -- wsbox run ./box
  wsbox seccomp record --dry-run -- wsbox run --bundle ./box web1
  wsbox seccomp record --output learned.json -- wsbox run ./box"
)]
pub struct Arguments {
    /// Write the profile there, and leave the bundle as it is
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also calls by which programs got out of sandboxes
    #[arg(long)]
    force: bool,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Runs at most: a program often goes on only when its last call was allowed
    #[arg(long, value_name = "N", default_value_t = 20)]
    rounds: u32,
    /// wsbox run and its arguments, with the bundle by its path
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "wsbox run ...")]
    run: Vec<String>,
}

pub fn run(global: &Global, arguments: &Arguments) -> Result<u8> {
    let words = run_words(&arguments.run)?;
    let (at, bundle) = bundle_of(words)?;
    let original = Source::read(&bundle.display().to_string())?;
    let interrupt = Interrupt::hold()?;
    let copy = copy_of(&bundle)?;
    let mut args = words.to_vec();
    args[at] = in_place_of(&args[at], copy.path());
    let mut refused = BTreeMap::new();
    for round in 1..=arguments.rounds {
        let blocked = blocked(global, &args, &copy, &interrupt)?;
        let source = Source::read(&copy.path().display().to_string())?;
        let learned = allow::learn(&source, blocked, arguments.force)?;
        refused.extend(learned.refused);
        eprintln!("wsbox: run {round}: {} calls learned", learned.count);
        let Some(text) = learned.text else { break };
        output::replace(&copy.path().join("config.json"), &text)?;
    }
    finish(arguments, &original, &copy, &refused)
}

/// Shows the difference, and puts the learned profile where it belongs.
fn finish(
    arguments: &Arguments,
    original: &Source,
    copy: &Temporary,
    refused: &BTreeMap<String, String>,
) -> Result<u8> {
    let learned = Source::read(&copy.path().display().to_string())?;
    let changes = check::changes(&original.profile()?, &learned.profile()?)?;
    output::text(&changes.iter().map(diff::line).collect::<String>())?;
    for (syscall, why) in refused {
        output::text(&format!("{syscall}: blocked, and not learned: {why}\n"))?;
    }
    if changes.is_empty() {
        output::text("nothing was learned: the profile stays as it is\n")?;
    }
    let profile = &learned.text[learned.place.clone()];
    match (&arguments.output, &original.file) {
        _ if arguments.dry_run => Ok(0),
        (Some(file), _) => output::replace(file, &format!("{profile}\n")).map(|()| 0),
        (None, Some(_)) if changes.is_empty() => Ok(0),
        (None, Some(file)) => {
            let (before, after) = (&original.text[..original.place.start], &original.text[original.place.end..]);
            output::replace(file, &format!("{before}{profile}{after}")).map(|()| 0)
        }
        (None, None) => Ok(0),
    }
}

/// The arguments after `wsbox run`.
fn run_words(words: &[String]) -> Result<&[String]> {
    match words {
        [program, run, rest @ ..]
            if Path::new(program).file_name().is_some_and(|name| name == "wsbox") && run == "run" =>
        {
            Ok(rest)
        }
        _ => Err(Error::invalid("record", "what is recorded is `wsbox run` with its arguments")
            .hint("wsbox seccomp record -- wsbox run ./box")),
    }
}

/// Which argument has the bundle, and the bundle.
fn bundle_of(words: &[String]) -> Result<(usize, PathBuf)> {
    let is_bundle = |path: &str| Path::new(path).join("config.json").is_file();
    let found = words.iter().enumerate().find_map(|(at, word)| {
        let path = word.strip_prefix(BUNDLE).unwrap_or(word);
        is_bundle(path).then(|| (at, PathBuf::from(path)))
    });
    found.ok_or_else(|| {
        Error::invalid("record", "none of the arguments is a bundle").hint("give its path: wsbox run ./box")
    })
}

/// The argument with another bundle, as a path or as `--bundle=PATH`.
fn in_place_of(word: &str, bundle: &Path) -> String {
    let option = if word.starts_with(BUNDLE) { BUNDLE } else { "" };
    format!("{option}{}", bundle.display())
}

/// Runs it once; the calls that were blocked, by name.
fn blocked(global: &Global, args: &[String], copy: &Temporary, interrupt: &Interrupt) -> Result<BTreeSet<String>> {
    let summary = copy.path().join("summary.json");
    let mut command = Command::new(std::env::current_exe().context(|| "this program's own path".into())?);
    command
        .arg("--root")
        .arg(global.root().path())
        .args(["run", "--count-violations", "--summary"])
        .arg(&summary)
        .args(args);
    let run = command.spawn().context(|| "wsbox run".into())?;
    let status = end_of(run, interrupt, || kill(&global.root(), copy.path()))?;
    let text = fs::read(&summary)
        .map_err(|_| Error::invalid("wsbox run", format!("ended with {status} before it ran anything")))?;
    let summary: Value =
        serde_json::from_slice(&text).map_err(|error| Error::invalid("--summary", error.to_string()))?;
    let violations = &summary["violations"];
    if violations["counting"] != "on" {
        let why = violations["reason"].as_str().unwrap_or("its violations were not counted");
        return Err(Error::invalid("wsbox run", format!("what it was denied is not known: {why}")));
    }
    let rows = violations["blocked"].as_array().map(Vec::as_slice).unwrap_or_default();
    let counted: u64 = rows.iter().filter_map(|row| row["count"].as_u64()).sum();
    let lost = violations["total"].as_u64().unwrap_or_default().saturating_sub(counted);
    if lost > 0 {
        log::warning(&format!(
            "{lost} denied calls were too many kinds to be told apart: what they were is not learned"
        ));
    }
    Ok(rows.iter().filter_map(|row| row["syscall"].as_str().map(str::to_owned)).collect())
}

/// Waits for a run; once a signal has come, `kill` is to end it, until it has.
fn end_of(mut run: Child, interrupt: &Interrupt, kill: impl Fn()) -> Result<ExitStatus> {
    let pidfd = pidfd::open(Pid::from_raw(run.id() as i32)).context(|| "wsbox run".into())?;
    let mut interrupted = false;
    loop {
        let mut fds =
            [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(interrupt.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, if interrupted { PollTimeout::from(AGAIN) } else { PollTimeout::NONE });
        interrupted |= interrupt.came();
        if fds[0].any().unwrap_or_default() {
            break;
        }
        if interrupted {
            kill();
        }
    }
    let status = run.wait().context(|| "wsbox run".into())?;
    if interrupted { Err(Error::invalid("record", "interrupted; the bundle is as it was")) } else { Ok(status) }
}

/// The payload of a bundle, whatever it does with signals; `wsbox run` goes on from there.
fn kill(root: &Root, bundle: &Path) {
    let is_of_it = |id: &String| root.read(id).is_ok_and(|record| record.bundle == bundle);
    for id in root.ids().unwrap_or_default().iter().filter(|id| is_of_it(id)) {
        // What is not there yet or not any more is tried again.
        let _ = lifecycle::kill(root, id, libc::SIGKILL, false);
    }
}

/// A bundle beside the user's own, with the same files: what is learned is in its config.json.
fn copy_of(bundle: &Path) -> Result<Temporary> {
    let bundle = std::path::absolute(bundle).context(|| bundle.display().to_string())?;
    let source = bundle.join("config.json");
    let text = fs::read_to_string(&source).context(|| source.display().to_string())?;
    let config: Value =
        serde_json::from_str(&text).map_err(|error| Error::invalid(source.display().to_string(), error.to_string()))?;
    let relative = |path: &str| !path.is_empty() && !path.starts_with('/');
    let mounts = config["mounts"].as_array().into_iter().flatten();
    let binds = mounts.filter(|mount| mount["type"] == "bind" || mount["options"].to_string().contains("bind\""));
    if binds.filter_map(|mount| mount["source"].as_str()).any(relative) {
        return Err(Error::invalid(
            "mounts",
            "has a bind with a relative source, with which a bundle can not be recorded",
        )
        .hint("make it absolute"));
    }
    let copy = Temporary::new("record")?;
    let root = config["root"]["path"].as_str().unwrap_or("rootfs");
    if relative(root) {
        let mut parts = Path::new(root).components().filter(|part| *part != Component::CurDir);
        match parts.next() {
            Some(Component::Normal(first)) => {
                let link = copy.path().join(first);
                std::os::unix::fs::symlink(bundle.join(first), &link).context(|| link.display().to_string())?;
            }
            _ => {
                let why = format!("{root} does not begin in the bundle, which can not be recorded");
                return Err(Error::invalid("root.path", why).hint("make it absolute"));
            }
        }
    }
    if bundle.join(MARK).is_file() {
        fs::copy(bundle.join(MARK), copy.path().join(MARK)).context(|| copy.path().display().to_string())?;
    }
    fs::write(copy.path().join("config.json"), text).context(|| copy.path().display().to_string())?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_is_another() {
        let copy = Path::new("/tmp/copy");
        for (word, wanted) in
            [("b", "/tmp/copy"), ("--bundle=b", "--bundle=/tmp/copy"), ("--bundle=.", "--bundle=/tmp/copy")]
        {
            assert_eq!(in_place_of(word, copy), wanted);
        }
    }
}
