// SPDX-License-Identifier: Apache-2.0
//! An image of 200 MB to files: `wsbox bundle create` into its store and as a copy, beside umoci and `docker load`, all on the disk that
//! has /tmp.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use wsbox_integration::TempDir;
use wsbox_integration::docker::Daemon;

use crate::Outcome;
use crate::args::Args;
use crate::report::Report;

const LAYOUT: &str = "unpack layout, 200 MB";
const ARCHIVE: &str = "unpack docker-archive, 200 MB";
/// Layers, files in each, and bytes of each file.
const SHAPE: (usize, usize, usize) = (4, 500, 100_000);
/// Each takes about a second.
const SHARE: usize = 5;

/// What becomes of a case that was not asked for: nothing.
pub fn measure(args: &Args, report: &mut Report) -> Outcome<()> {
    if !args.wants(LAYOUT) && !args.wants(ARCHIVE) {
        return Ok(());
    }
    ["copy", "umoci", "docker"].into_iter().for_each(|name| report.other(name));
    report.notes.push("unpack: copy is wsbox with --copy; docker load reads the archive, not the layout".into());
    let folder = TempDir::new("unpack");
    image(folder.path())?;
    let daemon = Daemon::plain();
    for round in 0..(args.rounds / SHARE).max(2) {
        let mut runs: [(&'static str, &str); 6] = [
            (LAYOUT, "wsbox"),
            (LAYOUT, "copy"),
            (LAYOUT, "umoci"),
            (ARCHIVE, "wsbox"),
            (ARCHIVE, "copy"),
            (ARCHIVE, "docker"),
        ];
        runs.rotate_left(round % 6);
        for (case, name) in runs {
            let mut command = command(args, daemon, folder.path(), case, name);
            let begun = Instant::now();
            let output = command.stdin(Stdio::null()).output()?;
            let took = begun.elapsed().as_secs_f64() * 1000.0;
            match output.status.success() {
                true => report.sample(case, name, took),
                false => {
                    report.failures.push(format!("{case}: {name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
                }
            }
            clear(daemon, folder.path())?;
        }
    }
    Ok(())
}

fn command(args: &Args, daemon: &Daemon, folder: &Path, case: &str, name: &str) -> Command {
    let path = |name: &str| folder.join(name).display().to_string();
    let source = if case == LAYOUT {
        format!("oci:{}:app", path("layout"))
    } else {
        format!("docker-archive:{}", path("app.tar"))
    };
    match name {
        "umoci" => {
            let mut command = Command::new("umoci");
            command.args(["unpack", "--image", &format!("{}:app", path("layout")), &path("out")]);
            command
        }
        "docker" => daemon.command(&["load", "-i", &path("app.tar")]),
        _ => {
            let mut command = Command::new(&args.wsbox);
            command.args(["bundle", "create", &source, &path("out"), "--store", &path("store")]);
            command.args((name == "copy").then_some("--copy"));
            command
        }
    }
}

/// Every run begins with nothing, and with nothing of the last one still to be written.
fn clear(daemon: &Daemon, folder: &Path) -> Outcome<()> {
    for name in ["out", "store"] {
        let path = folder.join(name);
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
    }
    let _ = daemon.docker(&["rmi", "-f", "app:latest"]);
    nix::unistd::sync();
    Ok(())
}

/// Half as large when it is packed, as programs are.
fn image(folder: &Path) -> Outcome<()> {
    let mut state = 1_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state & 15) as u8
    };
    run(folder, "umoci init --layout layout")?;
    run(folder, "umoci new --image layout:app")?;
    for layer in 0..SHAPE.0 {
        let root = folder.join("root");
        fs::create_dir(&root)?;
        for file in 0..SHAPE.1 {
            fs::write(root.join(format!("file{file}")), (0..SHAPE.2).map(|_| byte()).collect::<Vec<_>>())?;
        }
        run(folder, &format!("umoci insert --image layout:app root /data/{layer}"))?;
        fs::remove_dir_all(root)?;
    }
    run(folder, "skopeo --insecure-policy copy oci:layout:app docker-archive:app.tar:app:latest")
}

fn run(folder: &Path, line: &str) -> Outcome<()> {
    let words: Vec<_> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).current_dir(folder).output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}
