// SPDX-License-Identifier: Apache-2.0
//! Mount, network and pid namespaces for an engine under test: whatever it makes there goes with them, also when the tests crash.
//! A shell holds them open for as long as the tests hold its stdin; then the kernel kills all that is inside, and the shell removes
//! the folder and the cgroups.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, Once};

use crate::engine::finish;
use crate::{Outcome, unique};

/// Ends when stdin does. $1: the folder, also the last part of the name of every cgroup that is made.
const OUTSIDE: &str = r#"
unshare --mount --net --pid --fork --kill-child=KILL --mount-proc tini -- sh -eu "$1/inside" "$1" || echo "inside: $?"
name=${1##*/}
for try in 1 2 3 4 5 6 7 8 9 10; do
    find /sys/fs/cgroup -depth -type d -path "*/$name*" -exec rmdir {} + 2>/dev/null
    left=$(find /sys/fs/cgroup -type d -path "*/$name*")
    [ -n "$left" ] || break
    sleep 0.2
done
rm -rf "$1"
[ -z "$left" ] || { echo "cgroups are left: $left" >&2; exit 1; }
"#;

/// The same without namespaces, for what systemd has to see as it is: the script ends what it started.
const BARE: &str = r#"sh -eu "$1/inside" "$1" || echo "inside: $?"; rm -rf "$1""#;

/// An own /run, but for the host's lock on user ids, and own copies of where engines keep settings and state: no engine of the host
/// is met, and none of its files is changed.
const INSIDE: &str = r#"
mkdir -p "$1/ids" "$1/copies"
mkdir -p -m 700 /run/wsbox /run/wsbox/ids
mount --bind /run/wsbox/ids "$1/ids"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
mkdir -p -m 700 /run/wsbox /run/wsbox/ids
mount --move "$1/ids" /run/wsbox/ids
mount -t tmpfs tmpfs "$1/copies"
for dir in etc opt var/lib; do
    mkdir -p "$1/copies/$dir/upper" "$1/copies/$dir/work"
    mount -t overlay -o "lowerdir=/$dir,upperdir=$1/copies/$dir/upper,workdir=$1/copies/$dir/work" overlay "/$dir"
done
mkdir -p /etc/docker /var/lib/containers
for hidden in /etc/docker /var/lib/containers; do mount -t tmpfs tmpfs $hidden; done
ip link set lo up
"#;

/// The shells that end at exit.
static KEEPERS: Mutex<Vec<(Child, PathBuf)>> = Mutex::new(Vec::new());

/// The namespaces and a folder below /tmp.
#[derive(Debug)]
pub struct Sandbox {
    dir: PathBuf,
    pid: u32,
}

impl Sandbox {
    /// New ones, in which `script` (of sh, with the folder as $1) has run; what it puts into the background lives on.
    pub fn start(what: &str, script: &str) -> Self {
        Self::kept(what, OUTSIDE, &format!("{INSIDE}{script}"))
    }

    /// No namespaces, just the folder and the script, whose traps run at the end.
    pub fn on_host(what: &str, script: &str) -> Self {
        Self::kept(what, BARE, script)
    }

    fn kept(what: &str, outside: &str, script: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "the integration tests need root");
        let dir = PathBuf::from("/tmp").join(unique(what));
        std::fs::create_dir(&dir).expect("a new folder in /tmp");
        let mut inside = std::fs::File::create(dir.join("inside")).expect("a script");
        write!(inside, "{script}\necho ready\ncat >/dev/null\n").expect("a script");
        let mut keeper = Command::new("sh")
            .args(["-c", outside, "sh"])
            .arg(&dir)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("sh");
        let mut line = String::new();
        let stdout = keeper.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        // Of the innermost shell; without namespaces any will do.
        let pid = match line.as_str() {
            "ready\n" if outside == BARE => std::process::id(),
            "ready\n" => child_of(child_of(keeper.id())),
            _ => 0,
        };
        keep(keeper, &dir);
        assert_ne!(pid, 0, "the sandbox does not start: {line}");
        Self { dir, pid }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.pid.to_string()).args(["--mount", "--net", "--pid", "--", program]);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", &self.dir);
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Runs a shell script inside to its end.
    pub fn sh(&self, script: &str) -> Outcome {
        outcome(self.command("sh").args(["-c", script]))
    }
}

/// Runs a command to its end, with what it says.
pub fn outcome(command: &mut Command) -> Outcome {
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command is installed"))
}

/// The only child of a process.
fn child_of(pid: u32) -> u32 {
    let children = outcome(Command::new("pgrep").args(["-P", &pid.to_string()]));
    children.stdout.trim().parse().unwrap_or(0)
}

#[allow(unsafe_code)]
fn keep(keeper: Child, dir: &Path) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: it does not unwind, and what it uses is never dropped.
        unsafe { libc::atexit(end) };
    });
    KEEPERS.lock().expect("no keeper panics").push((keeper, dir.to_owned()));
}

/// Ends every sandbox; a failure to clean up fails the whole program.
#[allow(unsafe_code)]
extern "C" fn end() {
    let Ok(mut keepers) = KEEPERS.lock() else { return };
    keepers.iter_mut().for_each(|(keeper, _)| drop(keeper.stdin.take()));
    let clean = keepers.iter_mut().all(|(keeper, dir)| keeper.wait().is_ok_and(|end| end.success()) && !dir.exists());
    if !clean {
        eprintln!("a sandbox of the tests could not be cleaned up");
        // SAFETY: ends this process.
        unsafe { libc::_exit(101) };
    }
}
