// SPDX-License-Identifier: Apache-2.0
//! A command that does not end is killed. What it waits for is told at once, and those that hang after it are not waited for as long.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// After this long it is looked at why.
const LONG: Duration = Duration::from_secs(60);
/// No command of a test takes this much longer, on the slowest guest.
const PATIENCE: Duration = Duration::from_secs(240);
/// Once one hung, what it waited for holds up the others as well.
const SHORT: Duration = Duration::from_secs(20);
/// Set in a program that has begun again.
const AGAIN: &str = "WSBT_AGAIN";

static SEEN: AtomicBool = AtomicBool::new(false);

/// The engines of process $1 write down what their threads wait for: dockerd in its folder, containerd in /tmp.
const THREADS: &str = r#"
ours="/tmp/wsbt-[a-z-]*-$1-[0-9]*/"
pids=$(pgrep -f "^[a-z/]*(dockerd|containerd) .*$ours")
[ -z "$pids" ] || kill -USR1 $pids
sleep 3
for log in /tmp/wsbt-*-"$1"-*/exec/goroutine-stacks-*.log; do [ ! -e "$log" ] || cat "$log" && rm -f "$log"; done
for pid in $pids; do [ ! -e "/tmp/containerd.$pid.stacks.log" ] || cat "/tmp/containerd.$pid.stacks.log"; done
"#;

/// Processes, and what the kernel holds the threads of engines and runtimes at.
const PROCESSES: &str = r#"
ps -eo pid,ppid,stat,wchan:24,etimes,args --sort pid | grep -v '\]$' | cut -c1-220
for pid in $(pgrep 'dockerd|wsbox|runc|crun|exe|containerd|docker|iptables'); do
    echo "-- $pid $(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c1-120)"
    cat "/proc/$pid"/task/*/stack | sort | uniq -c | sort -rn | head -12
done
"#;

/// Kills `pid` when its time is over, unless the sender is dropped before.
pub fn watch(pid: u32) -> Sender<()> {
    let (sender, receiver) = channel();
    let ended_in = move |time| receiver.recv_timeout(time) != Err(RecvTimeoutError::Timeout);
    std::thread::spawn(move || {
        let first = !SEEN.load(Ordering::Relaxed);
        if ended_in(if first { LONG } else { SHORT }) {
            return;
        }
        if first {
            begin_again_if_dockerd_locked_up();
        }
        if !first || !ended_in(PATIENCE) {
            tell(pid);
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    });
    sender
}

/// What this program is called beside others: a part of all names that it makes.
pub fn tag() -> &'static str {
    if std::env::var_os(AGAIN).is_some() { "again-" } else { "" }
}

/// Begins the whole program again, once, if it is dockerd 20.10 itself that hangs: where a container joins a network in the moment
/// that another leaves one, each of two threads waits for the lock that the other holds, and no container starts any more
/// (moby issue 46661). The sandboxes end with the pipes that held them.
fn begin_again_if_dockerd_locked_up() {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    if !tag().is_empty() || !locked_up(&shell(THREADS), &shell(THREADS)) {
        return;
    }
    let _ = writeln!(std::io::stderr(), "dockerd has locked itself up (moby issue 46661): all tests begin again");
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let error = Command::new(program).args(arguments).env(AGAIN, "1").exec();
    let _ = writeln!(std::io::stderr(), "they can not: {error}");
}

/// Whether threads of Go, as SIGUSR1 shows them twice, wait for each other there.
fn locked_up(before: &str, now: &str) -> bool {
    let one_waits = |function| waiting(before, function).intersection(&waiting(now, function)).next().is_some();
    one_waits(").getSvcRecords(") && one_waits(").processEndpointDelete(")
}

/// The numbers of the threads that wait for a lock in this function.
fn waiting<'a>(threads: &'a str, function: &str) -> BTreeSet<&'a str> {
    let threads = threads.split("\n\n").filter(|thread| thread.contains(function));
    threads.filter_map(|thread| thread.trim_start().split_once(" [semacquire")).map(|(number, _)| number).collect()
}

/// Tells why `pid` does not end: on the stderr of the whole program, as the harness keeps a test's own until all are done.
fn tell(pid: u32) {
    if SEEN.swap(true, Ordering::Relaxed) {
        return;
    }
    let (processes, threads) = (shell(PROCESSES), shell(THREADS));
    let longest =
        threads.split("\n\n").filter(|thread| thread.lines().next().is_some_and(|line| line.contains(" minutes")));
    let longest: Vec<_> = longest.map(|thread| thread.lines().take(16).collect::<Vec<_>>().join("\n")).collect();
    let _ = writeln!(std::io::stderr(), "process {pid} does not end:\n{processes}\n{}", longest.join("\n"));
}

fn shell(script: &str) -> String {
    let pid = std::process::id().to_string();
    let output = Command::new("timeout").args(["20", "sh", "-c", script, "sh", &pid]).stdin(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::locked_up;

    #[test]
    fn only_two_that_wait_for_each_other() {
        let thread = |state: &str, function: &str| {
            format!("goroutine 7 [{state}]:\nsync.(*Mutex).Lock(0x1)\n{function}(0xc0)\n")
        };
        let joins = thread("semacquire, 2 minutes", "github.com/docker/libnetwork.(*network).getSvcRecords");
        let leaves = |state| thread(state, "github.com/docker/libnetwork.(*controller).processEndpointDelete");
        let both = format!("{joins}\n{}", leaves("semacquire"));
        assert!(locked_up(&both, &both));
        for other in
            [format!("{joins}\n{}", leaves("running")), joins.clone(), both.replace("goroutine 7", "goroutine 8")]
        {
            assert!(!locked_up(&both, &other), "{other}");
        }
    }
}
