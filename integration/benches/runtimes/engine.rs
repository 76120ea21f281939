// SPDX-License-Identifier: Apache-2.0
//! How each runtime is told what to do, and how long it takes.

use crate::args::Args;
use crate::bundle::{self, Variant};
use crate::host::Site;
use crate::{Outcome, filter};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a runtime can be asked; the floor knows the same words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Create, start, wait and delete in one.
    Run,
    /// Everything up to the payload's exec.
    Create,
    /// Let the payload go.
    Start,
    /// A second process inside.
    Exec,
    /// Ask how a container is.
    State,
    /// SIGKILL.
    Kill,
    /// Forget a stopped container.
    Delete,
    /// Kill and forget a running one.
    DeleteForce,
    /// Ask for all containers.
    List,
}

/// One command.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// What to do.
    pub op: Op,
    /// To which kind of container.
    pub variant: Variant,
    /// To which container.
    pub id: &'a str,
    /// The payload, where there is one.
    pub args: &'a [&'a str],
}

/// A runtime, or the floor.
pub struct Engine {
    /// Its name in the tables.
    pub name: String,
    binary: PathBuf,
    root: PathBuf,
    filter: Option<PathBuf>,
    is_floor: bool,
}

/// Makes bundles, programs and state directories, and returns the runtimes that are there.
pub fn find(args: &Args, site: &Site) -> Outcome<Vec<Engine>> {
    bundle::set_up(site)?;
    let filter = filter::docker_default()?.map(|code| (site.dir.join("filter.bpf"), code));
    if let Some((path, code)) = &filter {
        fs::write(path, code)?;
    }
    let filter = filter.map(|(path, _)| path);
    args.runtimes.iter().filter_map(|name| engine(args, site, name, filter.clone()).transpose()).collect()
}

fn engine(args: &Args, site: &Site, name: &str, filter: Option<PathBuf>) -> Outcome<Option<Engine>> {
    let Some(binary) = binary(args, site, name) else {
        eprintln!("bench: {name} is not there, going on without it");
        return Ok(None);
    };
    let root = site.dir.join("state").join(name);
    fs::create_dir_all(&root)?;
    Ok(Some(Engine { name: name.into(), binary, root, filter, is_floor: name == "floor" }))
}

fn binary(args: &Args, site: &Site, name: &str) -> Option<PathBuf> {
    match name {
        "wsbox" => Some(args.wsbox.clone()).filter(|path| path.is_file()),
        "floor" => Some(site.dir.join("floor")),
        _ => ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
            .iter()
            .map(|dir| Path::new(dir).join(name))
            .find(|path| path.is_file()),
    }
}

impl Engine {
    /// The floor cannot compile a profile itself, and nobody else counts.
    pub fn can(&self, variant: Variant) -> bool {
        match variant {
            Variant::Counted => self.name == "wsbox",
            Variant::Seccomp => !self.is_floor || self.filter.is_some(),
            Variant::Plain | Variant::Userns => true,
        }
    }

    /// Whether what a container's filter denies is counted.
    pub fn counts(&self, id: &str) -> bool {
        self.root.join(id).join("violations").is_file()
    }

    /// Writes what the call needs beforehand: a runtime reads its payload from the bundle.
    pub fn prepare(&self, site: &Site, call: &Call) -> Outcome<()> {
        if !self.is_floor && matches!(call.op, Op::Run | Op::Create) {
            bundle::write(site, call.id, call.variant, call.args)?;
        }
        Ok(())
    }

    /// The call as words: the program first.
    pub fn words(&self, site: &Site, call: &Call) -> Vec<String> {
        if self.is_floor { self.floor_words(site, call) } else { self.oci_words(site, call) }
    }

    fn floor_words(&self, site: &Site, call: &Call) -> Vec<String> {
        let rootfs = match call.variant {
            // The floor maps the root's ids itself.
            Variant::Userns => bundle::rootfs(site, Variant::Plain),
            other => bundle::rootfs(site, other),
        };
        let mut words = vec![
            text(&self.binary),
            "-r".into(),
            text(&self.root),
            "-b".into(),
            text(&rootfs),
            "-c".into(),
            text(&site.cgroup),
        ];
        match (call.variant, &self.filter) {
            (Variant::Userns, _) => words.push("-u".into()),
            (Variant::Seccomp, Some(filter)) if !call.args.is_empty() => words.extend(["-s".into(), text(filter)]),
            _ => {}
        }
        let tail: &[&str] = match call.op {
            Op::Run => &["run", call.id],
            Op::Create => &["create", call.id],
            Op::Start => &["start", call.id],
            Op::Exec => &["exec", call.id],
            Op::State => &["state", call.id],
            Op::Kill => &["kill", call.id, "9"],
            Op::Delete => &["delete", call.id],
            Op::DeleteForce => &["delete-force", call.id],
            Op::List => &["list"],
        };
        words.extend(tail.iter().chain(call.args).map(ToString::to_string));
        words
    }

    fn oci_words(&self, site: &Site, call: &Call) -> Vec<String> {
        let (bundle, pid) = (text(&site.dir.join("bundles").join(call.id)), text(&pid_file(site, call.id)));
        let tail: &[&str] = match call.op {
            Op::Run => &["run", "--bundle", &bundle, call.id],
            Op::Create => &["create", "--bundle", &bundle, "--pid-file", &pid, call.id],
            Op::Start => &["start", call.id],
            Op::Exec => &["exec", call.id],
            Op::State => &["state", call.id],
            Op::Kill => &["kill", call.id, "KILL"],
            Op::Delete => &["delete", call.id],
            Op::DeleteForce => &["delete", "--force", call.id],
            Op::List => &["list"],
        };
        let payload = if call.op == Op::Exec { call.args } else { &[] };
        let words = [text(&self.binary), "--root".into(), text(&self.root)];
        words.into_iter().chain(tail.iter().chain(payload).map(ToString::to_string)).collect()
    }

    /// The same surroundings for every runtime.
    pub fn command(&self, site: &Site, call: &Call) -> Outcome<Command> {
        self.prepare(site, call)?;
        command(site, &self.words(site, call))
    }

    /// Does it, checks that it says it did, and returns the milliseconds from spawn to exit.
    pub fn time(&self, site: &Site, call: &Call) -> Outcome<f64> {
        let mut command = self.command(site, call)?;
        let begin = Instant::now();
        let status = command.spawn()?.wait()?;
        let took = begin.elapsed().as_secs_f64() * 1e3;
        if status.success() {
            Ok(took)
        } else {
            Err(format!("{:?} {}: {status}: {}", call.op, call.id, last_words(site)).into())
        }
    }

    /// Does it, and returns the exit code and what it printed.
    pub fn ask(&self, site: &Site, call: &Call) -> Outcome<(i32, String)> {
        let output = self.command(site, call)?.stdout(Stdio::piped()).output()?;
        Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// created, running or stopped, as the runtime says; None if it knows no such container.
    pub fn status(&self, site: &Site, id: &str) -> Outcome<Option<String>> {
        let (code, printed) = self.ask(site, &Call { op: Op::State, variant: Variant::Plain, id, args: &[] })?;
        let state: Value = if code == 0 { serde_json::from_str(&printed)? } else { Value::Null };
        Ok(state["status"].as_str().map(String::from))
    }

    /// The init of a created container.
    pub fn pid(&self, site: &Site, id: &str) -> Outcome<Pid> {
        let path = if self.is_floor { self.root.join(id).join("state") } else { pid_file(site, id) };
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Pid::from_raw(text.split_whitespace().next().unwrap_or_default().parse()?))
    }
}

/// A command with no input, no output, and its complaints in a file.
pub fn command(site: &Site, words: &[String]) -> Outcome<Command> {
    let (program, args) = words.split_first().ok_or("no program")?;
    let complaints = File::options().create(true).append(true).open(site.dir.join("stderr"))?;
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(complaints);
    Ok(command)
}

/// The last line that any runtime complained with.
pub fn last_words(site: &Site) -> String {
    let text = fs::read_to_string(site.dir.join("stderr")).unwrap_or_default();
    text.lines().last().unwrap_or("no message").to_owned()
}

/// Waits until a killed process is gone; the guard reaps it.
pub fn wait_gone(pid: Pid) -> Outcome<()> {
    let until = Instant::now() + Duration::from_secs(10);
    while kill(pid, None) != Err(Errno::ESRCH) {
        if Instant::now() > until {
            return Err(format!("process {pid} is still there").into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn pid_file(site: &Site, id: &str) -> PathBuf {
    site.dir.join("bundles").join(id).join("pid")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
