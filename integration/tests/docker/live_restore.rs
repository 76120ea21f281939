// SPDX-License-Identifier: Apache-2.0
//! `live-restore`: containers run on while dockerd and containerd are gone, and are theirs again when these come back.

use std::fs;
use std::path::Path;

use wsbox_integration::docker::{Container, Daemon, Docker, RUNTIMES, STRICT, eventually};

/// The containers of one runtime.
struct Kept {
    runs: Container,
    pid: String,
    paused: Container,
    ends: Container,
}

impl Kept {
    fn start(docker: Docker, folder: &Path) -> Self {
        let runs = docker.start("", "trap 'exit 3' TERM; while :; do echo tick; sleep 0.1; done");
        let paused = docker.sleeping("");
        paused.cli("pause", "").ok();
        let wait = "until [ -e /bound/end ]; do sleep 0.1; done; echo ended; exit 9";
        let ends = docker.start(&format!("--volume {}:/bound:ro", folder.display()), wait);
        runs.until_logs("tick");
        Self { pid: runs.inspect(".State.Pid"), runs, paused, ends }
    }

    fn check(&self, runtime: &str) {
        assert_eq!(self.runs.inspect(".State.Pid"), self.pid, "{runtime}");
        assert_eq!(self.runs.says("", "cat /proc/1/comm"), "sh", "{runtime}");
        let before = self.runs.logs().len();
        eventually("more ticks", || self.runs.logs().len() > before);
        self.runs.cli("stop", "").ok();
        assert_eq!(self.runs.inspect(".State.ExitCode"), "3", "{runtime}");
        assert_eq!(self.paused.inspect(".State.Status"), "paused", "{runtime}");
        self.paused.cli("unpause", "").ok();
        assert_eq!(self.paused.says("", "echo alive"), "alive", "{runtime}");
        assert_eq!(self.ends.wait(), 9, "{runtime}");
        self.runs.cli("start", "").ok();
        assert_ne!(self.runs.inspect(".State.Pid"), self.pid, "{runtime}");
    }
}

#[test]
fn containers_outlive_the_daemon() {
    let daemon: &Daemon = Box::leak(Box::new(Daemon::lasting()));
    let folder = Docker { daemon, runtime: RUNTIMES[0] }.folder();
    let runtimes = [RUNTIMES[0], RUNTIMES[1], STRICT];
    let kept = runtimes.map(|runtime| Kept::start(Docker { daemon, runtime }, &folder));
    daemon.crash(|| {
        for kept in &kept {
            let alive = Path::new("/proc").join(&kept.pid);
            let name = daemon.sandbox().sh(&format!("cat {}/comm", alive.display())).ok().stdout;
            assert_eq!(name, "sh\n", "it runs on");
        }
        fs::write(folder.join("end"), "").expect("a file");
    });
    runtimes.iter().zip(&kept).for_each(|(runtime, kept)| kept.check(runtime));
}
