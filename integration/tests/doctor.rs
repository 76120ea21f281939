// SPDX-License-Identifier: Apache-2.0
//! `wsbox doctor` on this host, and on the same host with something taken away: it finds what, says how to mend it, and
//! leaves nothing behind.

#![allow(unsafe_code)]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use wsbox_integration::engine::{finish, wsbox_path};
use wsbox_integration::{TempDir, leftover};

/// A copy of wsbox that every user can execute.
fn wsbox(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("wsbox");
    // By another process: a fork of a test beside this one would hold our descriptor, and the copy were busy (ETXTBSY).
    finish(piped(Command::new("cp").arg(wsbox_path()).arg(&path))).ok();
    path
}

/// What doctor says after `before`, which ends in exec "$@", has changed its surroundings.
fn doctor(before: &str, more: &[&str]) -> (i32, Value) {
    doctor_by(before, more, |command| command)
}

fn doctor_by(before: &str, more: &[&str], change: impl Fn(&mut Command) -> &mut Command) -> (i32, Value) {
    let dir = TempDir::new("doctor");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", before, "sh"])
        .arg(wsbox(&dir))
        .args(["doctor", "--format", "json"])
        .args(more);
    let child = piped(change(&mut command));
    // Nobody forks on the way to it.
    let cgroups = format!("wsbox-doctor-{}-", child.id());
    let outcome = finish(child);
    let json = serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    assert_eq!(leftover::cgroups(&cgroups), Vec::<PathBuf>::new(), "cgroups are left");
    (outcome.code, json)
}

fn piped(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
}

/// Our children whose command line holds `words`.
fn children(words: &str) -> Vec<i32> {
    let ours = format!("PPid:\t{}\n", std::process::id());
    let status = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    leftover::processes(words).into_iter().filter(|pid| status(pid).contains(&ours)).collect()
}

/// The layers that can not be enforced.
fn lacking(report: &Value) -> Vec<&str> {
    let layers = report["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 8);
    let lacking = layers.iter().filter(|layer| layer["enforceable"] == false);
    lacking.map(|layer| layer["id"].as_str().unwrap()).collect()
}

fn checks(report: &Value) -> Vec<&Value> {
    let layers = report["layers"].as_array().unwrap().iter().flat_map(|layer| layer["checks"].as_array().unwrap());
    layers.chain(report["host"].as_array().unwrap()).collect()
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    checks(report).into_iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {report:#}"))
}

/// The fix of a check that went like this.
fn fix<'a>(report: &'a Value, name: &str, status: &str) -> &'a str {
    let check = check(report, name);
    assert_eq!(check["status"], status, "{check}");
    check["fix"].as_str().unwrap_or_else(|| panic!("no fix: {check}"))
}

/// A writable copy of /etc for this mount namespace, in a tmpfs.
const OWN_ETC: &str = r#"
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/upper /mnt/work
    mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
    touch /etc/subuid /etc/subgid
    sed -i '/^wsbox:/d; /^dockremap:/d' /etc/subuid /etc/subgid
"#;

#[test]
fn this_host_enforces_all_eight_and_nothing_is_left() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let mounts = leftover::mounts("");
    let (code, report) = doctor("exec \"$@\"", &[]);
    assert_eq!((code, lacking(&report)), (0, vec![]), "{report:#}");
    assert_eq!(report["enforceable"], true);
    assert!(checks(&report).iter().all(|check| check["status"] != "failed"), "{report:#}");
    assert!(check(&report, "user namespace with maps")["evidence"].as_str().unwrap().starts_with("root is host uid "));
    assert_eq!(leftover::mounts(""), mounts);
    // An orphan would be ours now.
    assert_eq!(children("wsbox-init"), Vec::<i32>::new());
}

#[test]
fn the_table_says_the_same() {
    let outcome = finish(piped(Command::new(wsbox_path()).arg("doctor"))).ok();
    for id in 1..=8 {
        let line = outcome.stdout.lines().find(|line| line.starts_with(&format!("L{id} "))).expect("a line each");
        assert!(line.ends_with("yes"), "{line}");
    }
    assert!(outcome.stdout.ends_with("all eight layers can be enforced\n"));
}

#[test]
fn a_user_without_rights() {
    let (code, report) = doctor("exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"", &[]);
    assert_eq!(code, 1);
    // What a process may do to itself, it may; the rest not.
    assert_eq!(lacking(&report), ["L1", "L3", "L4", "L5", "L6", "L7"], "{report:#}");
    for check in checks(&report).into_iter().filter(|check| check["status"] == "failed") {
        let ways_out = ["sudo wsbox doctor", "Delegate=yes"];
        assert!(check["fix"].as_str().is_some_and(|fix| ways_out.iter().any(|way| fix.contains(way))), "{check}");
    }
}

#[test]
fn a_root_without_cap_sys_admin() {
    let (code, report) = doctor("exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin \"$@\"", &[]);
    assert_eq!((code, lacking(&report)), (1, vec!["L1", "L3", "L7"]), "{report:#}");
    assert!(fix(&report, "network namespace", "failed").contains("CAP_SYS_ADMIN"));
}

#[test]
fn without_cgroups() {
    let (code, report) = doctor("mount -t tmpfs tmpfs /sys/fs/cgroup; exec \"$@\"", &[]);
    assert_eq!((code, lacking(&report)), (1, vec!["L5", "L6"]), "{report:#}");
    let fix = fix(&report, "pids.max in a cgroup of its own", "failed").to_owned();
    assert!(fix.contains("mount -t cgroup2"), "{fix}");
    assert!(self::fix(&report, "device rules (eBPF)", "note").contains("mount -t cgroup2"));
}

#[test]
fn without_one_controller_and_its_fix() {
    // Only where the controllers are on v1 can one be taken away for one mount namespace.
    let v1 = Path::new("/sys/fs/cgroup/pids/cgroup.procs").exists();
    assert!(v1, "this test is for the hybrid layout");
    let hide = "mount -t tmpfs tmpfs /sys/fs/cgroup; mkdir /sys/fs/cgroup/unified; mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
        for name in memory cpu; do mkdir /sys/fs/cgroup/$name; mount -t cgroup -o $name cgroup /sys/fs/cgroup/$name; done";
    let (code, report) = doctor(&format!("{hide}\nexec \"$@\""), &[]);
    assert_eq!((code, lacking(&report)), (1, vec!["L5"]), "{report:#}");
    let fix = fix(&report, "pids.max in a cgroup of its own", "failed");
    let (code, report) = doctor(&format!("{hide}\n{fix}\nexec \"$@\""), &[]);
    assert_eq!((code, lacking(&report)), (0, vec![]), "{report:#}");
}

#[test]
fn controllers_that_v2_does_not_have() {
    let (code, report) = doctor("mount -t cgroup2 none /sys/fs/cgroup; exec \"$@\"", &[]);
    assert_eq!((code, lacking(&report)), (1, vec!["L5", "L6"]), "{report:#}");
    let evidence = check(&report, "cgroups")["evidence"].as_str().unwrap();
    assert!(evidence.starts_with("v2, controllers:") && !evidence.contains("pids"), "{evidence}");
    for (name, controller) in [("pids.max", "pids"), ("memory.max", "memory"), ("cpu.max", "cpu")] {
        let fix = fix(&report, &format!("{name} in a cgroup of its own"), "failed");
        assert!(fix.contains(&format!("cgroup_no_v1={controller}")), "v1 has it: {fix}");
    }
}

#[test]
fn without_user_namespaces() {
    let script = "exec unshare --user --map-root-user sh -ec 'echo 0 >/proc/sys/user/max_user_namespaces; exec \"$@\"' sh \"$@\"";
    let (code, report) = doctor(script, &[]);
    assert_eq!(code, 1);
    assert!(lacking(&report).contains(&"L7"), "{report:#}");
    assert_eq!(fix(&report, "user namespace with maps", "failed"), "sysctl -w user.max_user_namespaces=65536");
    assert!(fix(&report, "user namespaces for users", "note").starts_with("sysctl -w user.max_user_namespaces=65536"));
}

/// One system call fails with ENOSYS, as where the kernel does not have it.
fn without_call(command: &mut Command, number: i64) -> &mut Command {
    let filter = move || {
        let op = |code: u32, k: u32, jf: u8| libc::sock_filter { code: code as u16, jt: 0, jf, k };
        // The number is the first field of struct seccomp_data (linux/seccomp.h).
        let mut program = [
            op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
            op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number as u32, 1),
            op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32, 0),
            op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
        ];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the filter lives until the call returns.
        let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes one system call.
    unsafe { command.pre_exec(filter) }
}

#[test]
fn a_kernel_without_seccomp() {
    let (code, report) = doctor_by("exec \"$@\"", &[], |command| without_call(command, libc::SYS_seccomp));
    assert_eq!((code, lacking(&report)), (1, vec!["L2"]), "{report:#}");
    assert!(fix(&report, "workspace-seccomp.json", "failed").contains("CONFIG_SECCOMP_FILTER=y"));
}

#[test]
fn a_kernel_without_id_mapped_mounts() {
    let (code, report) = doctor_by("exec \"$@\"", &[], |command| without_call(command, libc::SYS_mount_setattr));
    assert_eq!(code, 1);
    assert!(lacking(&report).contains(&"L7"), "{report:#}");
    fix(&report, "id-mapped mount", "failed");
}

#[test]
fn an_old_kernel() {
    let (code, report) = doctor("exec setarch --uname-2.6 \"$@\"", &[]);
    assert_eq!(code, 0, "what counts is what could be done: {report:#}");
    assert_eq!(fix(&report, "kernel", "note"), "boot Linux 6.1 or later");
}

/// Ubuntu's setting, which this kernel lacks: a folder that has it lies over the kernel's.
#[test]
fn apparmors_restriction_on_user_namespaces() {
    let own = "mount -t tmpfs tmpfs /mnt
        cp -r --no-preserve=all /proc/sys/kernel/cap_last_cap /proc/sys/kernel/hostname /mnt
        echo 1 >/mnt/apparmor_restrict_unprivileged_userns
        mount --bind /mnt /proc/sys/kernel";
    let (_, report) = doctor(&format!("{own}\nexec \"$@\""), &[]);
    let name = "user namespaces for users";
    assert!(fix(&report, name, "note").starts_with("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"));
    let user = "exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"";
    let (code, report) = doctor(&format!("{own}\n{user}"), &[]);
    assert_eq!(code, 1);
    assert!(fix(&report, "network namespace", "failed").contains("AppArmor profile"), "{report:#}");
}

#[test]
fn a_covered_proc() {
    let (code, report) = doctor("mount -t tmpfs -o ro tmpfs /proc/irq; exec \"$@\"", &[]);
    assert_eq!((code, lacking(&report)), (1, vec!["L7"]), "{report:#}");
    assert!(fix(&report, "/proc", "failed").contains("systempaths=unconfined"));
}

#[test]
fn ids_in_subuid_and_subgid_and_the_fix() {
    let name = "/etc/subuid and /etc/subgid";
    let after = |lines: &str| doctor(&format!("{OWN_ETC}\n{lines}\nexec \"$@\""), &[]);
    let (code, report) = after("");
    assert_eq!(code, 0);
    let fix = fix(&report, name, "note").to_owned();
    // A failure is mended by the command that it names.
    for broken in ["echo wsbox:165536:65536 >>/etc/subuid", "echo wsbox:165536:5 | tee -a /etc/subuid >>/etc/subgid"] {
        let (code, report) = after(broken);
        assert_eq!((code, lacking(&report)), (1, vec!["L7"]), "{report:#}");
        assert_eq!(self::fix(&report, name, "failed"), fix);
        let (code, report) = after(&format!("{broken}\n{fix}"));
        assert_eq!(code, 0);
        assert_eq!(check(&report, name)["status"], "ok", "{report:#}");
        assert_eq!(check(&report, "user namespace with maps")["evidence"], "root is host uid 165536");
    }
    let (_, report) = after("echo dockremap:100000:65536 | tee -a /etc/subuid >>/etc/subgid");
    assert!(check(&report, name)["evidence"].as_str().unwrap().contains("dockremap, which all share"), "{report:#}");
}

#[test]
fn docker_registration() {
    const NAME: &str = "Docker registration";
    let dir = TempDir::new("daemon");
    let config = dir.path().join("daemon.json");
    let path = config.display().to_string();
    let report = |text: &str| {
        fs::write(&config, text).unwrap();
        let (code, report) = doctor("exec \"$@\"", &["--config", &path]);
        assert_eq!(code, 0, "no layer depends on Docker: {report:#}");
        report
    };
    let install = format!("wsbox install-docker --config {path} && systemctl reload docker");
    for absent in ["{}", " \n", "{\"runtimes\": null}"] {
        assert_eq!(fix(&report(absent), NAME, "note"), install);
    }
    let by_hand = format!("correct that in {path} by hand, then {install}");
    for (text, why) in
        [("{,}", "is no JSON: "), ("[]", "the file is a list"), ("{\"runtimes\": []}", "runtimes is a list")]
    {
        let report = report(text);
        assert_eq!(fix(&report, NAME, "failed"), by_hand);
        assert!(
            check(&report, NAME)["evidence"].as_str().unwrap().starts_with(&format!("{path}: {why}")),
            "{report:#}"
        );
    }
    let runtimes = |path: &Path| json!({"runtimes": {"wsbox": {"path": path}, "wsbox-strict": {"path": path}}});
    let nowhere = report(&runtimes(Path::new("/nowhere/wsbox")).to_string());
    let force = format!("wsbox install-docker --force --config {path} && systemctl reload docker");
    assert_eq!(fix(&nowhere, NAME, "failed"), force);
    let data = dir.path().join("data");
    fs::write(&data, "").unwrap();
    assert_eq!(fix(&report(&runtimes(&data).to_string()), NAME, "failed"), format!("chmod 0755 {}", data.display()));
    let mut good = runtimes(Path::new(&wsbox_path()));
    assert_eq!(check(&report(&good.to_string()), NAME)["status"], "ok");
    good["userns-remap"] = json!("nobody-has-this-name");
    assert!(fix(&report(&good.to_string()), "Docker userns-remap", "failed").starts_with("useradd --system"));
    let (_, report) = doctor(&format!("{OWN_ETC}\nrm -rf /etc/docker; exec \"$@\""), &[]);
    assert_eq!(fix(&report, NAME, "note"), "wsbox install-docker && systemctl reload docker");
}

#[test]
fn a_byte_order_mark_in_dockers_settings_and_the_fix() {
    const NAME: &str = "Docker registration";
    let dir = TempDir::new("daemon");
    let config = dir.path().join("it's daemon.json");
    fs::write(&config, "\u{feff}{}").unwrap();
    let path = config.display().to_string();
    let (_, report) = doctor("exec \"$@\"", &["--config", &path]);
    assert!(check(&report, NAME)["evidence"].as_str().unwrap().contains("byte order mark"), "{report:#}");
    let command = fix(&report, NAME, "failed").trim_start_matches("remove it: ");
    finish(piped(Command::new("sh").args(["-ec", command]))).ok();
    assert_eq!(fs::read_to_string(&config).unwrap(), "{}");
    let (_, report) = doctor("exec \"$@\"", &["--config", &path]);
    let install = fix(&report, NAME, "note").to_owned();
    assert!(install.contains("'/") && install.contains("it'\\''s daemon.json'"), "{install}");
}
