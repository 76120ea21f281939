// SPDX-License-Identifier: Apache-2.0
//! Configs that nobody in their right mind writes: no panic, no hang, one message.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use nix::sys::stat::Mode;
use serde_json::{Value, json};
use wsbox_integration::engine::finish;
use wsbox_integration::{Bundle, Door, Engine, Outcome, leftover, unique};

/// How many configs are tried.
const CONFIGS: u64 = 700;

/// xorshift64*: the same configs in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Values that are no good almost anywhere.
fn oddities() -> Vec<Value> {
    let numbers = [0i64, 1, -1, i64::MAX, i64::MIN, 1 << 31, 1 << 32, (1 << 32) - 1];
    let texts = ["", "a", "/", "..", "/../x", "a\0b", "é", "999999999999999999999999", "/proc/self/fd/3", "rw"];
    let mut odd: Vec<Value> = numbers.iter().map(|number| json!(number)).collect();
    odd.extend(texts.iter().map(|text| json!(text)));
    odd.extend([json!(null), json!(true), json!(false), json!(1.5), json!(u64::MAX), json!("x".repeat(70_000))]);
    odd.extend([json!([]), json!({}), json!([null]), json!([[]]), json!([""]), json!({"a": 1}), json!(vec!["x"; 300])]);
    odd
}

/// Pointers (RFC 6901) to everything in `value`, but for most of the long list of calls.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    if !at.is_empty() {
        found.push(at.into());
    }
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), found)),
        Value::Array(list) => {
            list.iter().take(4).enumerate().for_each(|(index, value)| pointers(value, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

/// A config in which there is a bit of everything.
fn rich() -> Bundle {
    let device = json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0});
    Bundle::hardened()
        .mount(json!({"destination": "/w", "type": "bind", "source": "/tmp", "options": ["rbind", "rw"]}))
        .set("/hostname", json!("host"))
        .set("/annotations", json!({"a": "b"}))
        .set("/process/oomScoreAdj", json!(1))
        .set("/process/consoleSize", json!({"height": 1, "width": 1}))
        .set("/linux/devices", json!([device]))
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
        .set("/linux/rootfsPropagation", json!("private"))
        .set("/linux/resources/devices", json!([{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}]))
}

fn assert_clean(what: &str, outcome: &Outcome) {
    assert!([0, 1].contains(&outcome.code), "{what}: {outcome:?}");
    let messages = outcome.stderr.lines().filter(|line| !line.contains("warning:")).count();
    assert_eq!(messages, usize::from(outcome.code == 1), "{what}: one message: {}", outcome.stderr);
}

/// One or two fields of a good config get values that are no good: an error that is a sentence, or a plan.
#[test]
fn odd_values_are_refused_in_words() {
    let (mut bundle, engine, mut dice) = (rich(), Engine::new(), Dice(0x5eed));
    let (good, odd, mut places, mut plans) = (bundle.config.clone(), oddities(), Vec::new(), 0);
    pointers(&good, "", &mut places);
    let path = bundle.path().display().to_string();
    for number in 0..CONFIGS {
        let mut config = good.clone();
        let mut what = String::new();
        for _ in 0..=dice.below(2) {
            let (place, value) = (dice.one(&places), dice.one(&odd));
            if let Some(field) = config.pointer_mut(place) {
                *field = value.clone();
                what += &format!("{place} = {:.40} ", value.to_string());
            }
        }
        bundle.config = config;
        bundle.write();
        let outcome = engine.wsbox(&["plan", &path]);
        assert_clean(&format!("config {number}, {what}"), &outcome);
        plans += usize::from(outcome.code == 0);
    }
    assert!(plans > 20, "most were refused before they were looked at: {plans} of {CONFIGS} are plans");
}

/// Row 8 (CVE-2021-43784): strings that overflow a length field or a page.
#[test]
fn long_strings_are_themselves_or_refused() {
    let engine = Engine::new();
    for length in [4095, 4096, 65_535, 65_536, 1 << 20] {
        let text = "x".repeat(length);
        let long = [
            ("/process/args", json!(["echo", text])),
            ("/process/env", json!([format!("A={text}"), "PATH=/bin"])),
            ("/process/cwd", json!(format!("/{text}"))),
            ("/hostname", json!(text)),
            ("/linux/cgroupsPath", json!(format!("/{text}"))),
            ("/mounts/1/destination", json!(format!("/{text}"))),
            ("/mounts/1/source", json!(text)),
            ("/linux/maskedPaths/0", json!(format!("/{text}"))),
            ("/linux/namespaces/0/path", json!(format!("/{text}"))),
            ("/annotations", json!({"a": text})),
        ];
        for (pointer, value) in long {
            let bundle = Bundle::hardened().args(&["echo", "RAN"]).set(pointer, value);
            let outcome = engine.run(&bundle, Door::Userns);
            // One string of an execve may have 128 KiB (execve(2)): that is the kernel's to say.
            if outcome.code == 126 && outcome.stderr.contains("argument list too long") {
                continue;
            }
            assert_clean(&format!("{pointer} of {length}"), &outcome);
            assert!(outcome.code == 1 || outcome.stdout.len() >= 4, "{pointer} of {length}: {}", outcome.stderr);
            assert_eq!(leftover::inside(bundle.path()), Vec::<i32>::new());
        }
    }
}

/// As many as the kernel takes, and far more: of arguments, variables, groups, mounts, ids, masks.
#[test]
fn long_lists_are_themselves_or_refused() {
    let engine = Engine::new();
    let many = |count: usize, value: Value| Value::Array(vec![value; count]);
    for count in [256, 341, 3000] {
        let lists = [
            ("/process/args", json!(vec!["echo"; count])),
            ("/process/env", json!((0..count).map(|at| format!("A{at}=1")).collect::<Vec<_>>())),
            ("/process/user/additionalGids", json!((0..count).collect::<Vec<_>>())),
            ("/mounts", many(count, json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs"}))),
            ("/linux/maskedPaths", many(count, json!("/proc/keys"))),
            ("/linux/uidMappings", many(count, json!({"containerID": 0, "hostID": 100_000, "size": 1}))),
        ];
        for (pointer, value) in lists {
            let bundle = Bundle::hardened().args(&["/bin/echo", "RAN"]).set(pointer, value);
            let outcome = engine.run(&bundle, Door::Userns);
            // Without its mounts there is no /proc: what the payload says then is its own affair.
            assert_clean(&format!("{count} in {pointer}"), &outcome);
            assert_eq!(leftover::inside(bundle.path()), Vec::<i32>::new());
        }
    }
}

/// `wsbox run`, for ten seconds at most.
fn run_within_ten_seconds(bundle: &Bundle) -> Outcome {
    let (engine, path) = (Engine::new(), bundle.path().display().to_string());
    let command = engine.command(&["run", "--bundle", &path, &unique("c")]);
    let mut limited = std::process::Command::new("timeout");
    limited.arg("10").arg(command.get_program()).args(command.get_args());
    limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(limited.spawn().expect("timeout runs"))
}

/// A config.json that is a FIFO, a folder, a device, a link to itself.
#[test]
fn a_config_that_is_no_file() {
    for kind in ["fifo", "folder", "null", "loop", "gone"] {
        let bundle = Bundle::hardened();
        let config = bundle.path().join("config.json");
        fs::remove_file(&config).expect("spec wrote it");
        match kind {
            "fifo" => nix::unistd::mkfifo(&config, Mode::from_bits_truncate(0o600)).expect("a FIFO"),
            "folder" => fs::create_dir(&config).expect("a folder"),
            "null" => symlink("/dev/null", &config).expect("a link"),
            "loop" => symlink("config.json", &config).expect("a link"),
            _ => symlink("/no/such/file", &config).expect("a link"),
        }
        let outcome = run_within_ten_seconds(&bundle);
        assert_eq!(outcome.code, 1, "{kind}: {outcome:?}");
        assert!(outcome.stderr.contains("config.json"), "{kind}: {outcome:?}");
    }
}

/// The image's own files that wsbox reads are FIFOs, endless, or not there.
#[test]
fn an_image_that_makes_the_reader_wait() {
    for kind in ["fifo", "endless", "folder", "outside", "huge"] {
        let bundle = Bundle::hardened().script("echo $HOME");
        let passwd = bundle.root().join("etc/passwd");
        fs::remove_file(&passwd).expect("the bundle has one");
        match kind {
            "fifo" => nix::unistd::mkfifo(&passwd, Mode::from_bits_truncate(0o666)).expect("a FIFO"),
            "endless" => symlink("/dev/zero", &passwd).expect("a link"),
            "folder" => fs::create_dir(&passwd).expect("a folder"),
            "outside" => symlink("/../../../../proc/self/root/etc/passwd", &passwd).expect("a link"),
            _ => fs::write(&passwd, "x:".repeat(4 << 20)).expect("a file"),
        }
        bundle.write();
        let outcome = run_within_ten_seconds(&bundle).ok();
        assert_eq!(outcome.stdout, "/\n", "{kind}: {outcome:?}");
    }
}
