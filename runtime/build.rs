// SPDX-License-Identifier: Apache-2.0
//! Builds the embedded init (runtime/init) with the same rustc: a static program without a standard library.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The init runs inside every container: it must stay small enough to read and to load.
const MAX_BYTES: u64 = 32 * 1024;

const LINK: &[&str] = &[
    "-nostartfiles",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,-z,norelro",
    "-Wl,-z,noseparate-code",
];

fn main() {
    println!("cargo:rerun-if-changed=init");
    let target = var("TARGET");
    let out = PathBuf::from(var("OUT_DIR")).join("init");
    let mut rustc = Command::new(var("RUSTC"));
    rustc.args(["--edition", "2024", "--crate-name", "init", "--crate-type", "bin", "--target", &target]);
    rustc.args(["-D", "warnings", "-C", "panic=abort", "-C", "opt-level=s", "-C", "lto=fat", "-C", "codegen-units=1"]);
    rustc.args(["-C", "relocation-model=static", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]);
    rustc.args(LINK.iter().map(|arg| format!("-Clink-arg={arg}")));
    if target.ends_with("musl") {
        // Else rustc's own crt1 clashes with our entry point.
        rustc.args(["-C", "link-self-contained=no"]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let status = rustc.arg("-o").arg(&out).arg("init/init.rs").status().expect("rustc runs");
    assert!(status.success(), "the embedded init does not compile");
    let size = std::fs::metadata(&out).expect("rustc made the init").len();
    assert!(size <= MAX_BYTES, "the embedded init has {size} bytes, more than {MAX_BYTES}");
}

fn var(name: &str) -> String {
    env::var(name).expect("cargo sets the variables of build scripts")
}
