// SPDX-License-Identifier: Apache-2.0
//! Each layer, and what goes beyond the eight, proved from inside a real container.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::json;
use wsbox_integration::engine::until;
use wsbox_integration::{Bundle, Door, Engine, TempDir};

/// What a script prints in a hardened container.
fn inside(script: &str) -> String {
    run(Bundle::hardened(), script)
}

fn run(bundle: Bundle, script: &str) -> String {
    Engine::new().run(&bundle.script(script), Door::Userns).ok().stdout
}

#[test]
fn l1_network_is_lo_alone_and_up() {
    // IFF_LOOPBACK and IFF_UP (netdevice(7)).
    assert_eq!(inside("ls /sys/class/net; cat /sys/class/net/lo/flags"), "lo\n0x9\n");
    assert_eq!(inside("wc -l < /proc/net/route"), "1\n");
}

#[test]
fn l2_seccomp_denies_with_eperm() {
    assert!(inside("cat /proc/self/status").contains("Seccomp:\t2"));
    for call in
        ["165 0 0 0 0", "101 0 0 0 0", "166 0 0", "425 8 0", "321 0 0 0", "246 0 0", "250 0 0", "272 0x10000000"]
    {
        assert_eq!(inside(&format!("probe syscall {call}")), format!("syscall {call}: EPERM\n"));
    }
    assert!(
        run(Bundle::hardened().remove("/linux/seccomp"), "probe syscall 165 0 0 0 0").contains("EFAULT")
            || cfg!(not(target_arch = "x86_64"))
    );
}

#[test]
fn l3_root_is_read_only_and_tmpfs_has_a_size() {
    let text = inside("for d in / /bin /etc /proc/sys /sys; do touch $d/x 2>&1; done; true");
    assert_eq!(
        text.lines()
            .filter(|line| line.contains("Read-only")
                || line.contains("Permission denied")
                || line.contains("No such file"))
            .count(),
        5,
        "{text}"
    );
    assert!(inside("dd if=/dev/zero of=/tmp/x bs=1M count=100 2>&1; true").contains("No space left"));
    assert_eq!(inside("echo ok > /tmp/y && cat /tmp/y"), "ok\n");
}

#[test]
fn l4_no_capabilities() {
    let status = inside("cat /proc/self/status");
    for set in ["Inh", "Prm", "Eff", "Bnd", "Amb"] {
        assert!(status.contains(&format!("Cap{set}:\t0000000000000000")), "{status}");
    }
    let some = json!(["CAP_CHOWN", "CAP_NET_RAW"]);
    let bundle = Bundle::hardened().set(
        "/process/capabilities",
        json!({"bounding": some, "effective": some, "permitted": some, "inheritable": [], "ambient": []}),
    );
    let status = run(bundle, "cat /proc/self/status");
    assert!(status.contains("CapEff:\t0000000000002001") && status.contains("CapBnd:\t0000000000002001"), "{status}");
}

#[test]
fn l5_pids_are_limited() {
    let bundle = Bundle::hardened().set("/linux/resources/pids", json!({"limit": 8}));
    let outcome =
        Engine::new().run(&bundle.script("for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait"), Door::Userns);
    assert!(outcome.stderr.contains("fork"), "{outcome:?}");
}

#[test]
fn l6_memory_is_limited() {
    let bundle = Bundle::hardened().set("/linux/resources/memory", json!({"limit": 16 << 20, "swap": 16 << 20}));
    let outcome =
        Engine::new().run(&bundle.args(&["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]), Door::Userns);
    assert_eq!(outcome.code, 137, "{outcome:?}");
}

#[test]
fn l6_cpu_is_throttled() {
    let engine = Engine::new();
    let bundle = Bundle::hardened().set("/linux/resources/cpu", json!({"quota": 2000, "period": 100_000}));
    let (_bundle, id) = engine.sleeping(bundle);
    engine.wsbox(&["exec", "--detach", &id, "sh", "-c", "while :; do :; done"]).ok();
    // On v1, on v2.
    let stat = ["cpu/wsbox", "wsbox"].map(|parent| format!("/sys/fs/cgroup/{parent}/{id}/cpu.stat"));
    let throttled = || {
        fs::read_to_string(&stat[0])
            .or_else(|_| fs::read_to_string(&stat[1]))
            .unwrap()
            .lines()
            .any(|line| line.strip_prefix("nr_throttled ").is_some_and(|n| n != "0"))
    };
    until("throttling", throttled);
}

#[test]
fn l7_root_is_nobody_on_the_host() {
    let map = inside("cat /proc/self/uid_map");
    let fields: Vec<u32> = map.split_whitespace().map(|field| field.parse().unwrap()).collect();
    assert!(fields[0] == 0 && fields[1] >= 100_000 && fields[2] == 65536, "{map}");
    assert_eq!(inside("stat -c '%u:%g' /bin/busybox /etc /"), "0:0\n0:0\n0:0\n");
    assert_eq!(inside("cat /proc/self/setgroups"), "allow\n");
}

#[test]
fn l7_two_containers_have_two_ranges() {
    let engine = Engine::new();
    let containers: Vec<_> = (0..3).map(|_| engine.sleeping(Bundle::hardened())).collect();
    let mut uids: Vec<u32> = containers
        .iter()
        .map(|(_, id)| fs::metadata(format!("/proc/{}", engine.state(id)["pid"])).unwrap().uid())
        .collect();
    uids.sort_unstable();
    uids.dedup();
    assert_eq!(uids.len(), 3);
    assert!(uids.iter().all(|uid| *uid >= 100_000));
}

#[test]
fn l8_no_new_privs() {
    assert!(inside("cat /proc/self/status").contains("NoNewPrivs:\t1"));
}

#[test]
fn masks_and_read_only_paths() {
    assert_eq!(inside("cat /proc/keys /proc/timer_list /proc/interrupts | wc -c"), "0\n");
    assert_eq!(inside("ls /sys/firmware | wc -l"), "0\n");
    for path in ["/proc/keys", "/proc/sysrq-trigger", "/proc/sys/kernel/domainname", "/proc/irq/default_smp_affinity"] {
        let told = inside(&format!("probe open-write {path}"));
        assert!(["EROFS", "EACCES", "EPERM", "ENOENT"].iter().any(|errno| told.contains(errno)), "{told}");
    }
}

#[test]
fn no_further_user_namespaces() {
    assert!(inside("probe clone-newuser").contains("EPERM"));
    // The second line of defence: the container's own limit.
    assert!(run(Bundle::hardened().remove("/linux/seccomp"), "probe clone-newuser").contains("ENOSPC"));
}

#[test]
fn names_limits_umask_and_keyring() {
    let bundle = Bundle::hardened()
        .set("/hostname", json!("box"))
        .set("/domainname", json!("example"))
        .set(
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
        )
        .set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o027}));
    let text = run(
        bundle,
        "hostname; cat /proc/sys/kernel/domainname; ulimit -n; ulimit -Hn; umask; id -u; id -g; grep Groups /proc/self/status; echo $HOME",
    );
    assert_eq!(text, "box\nexample\n77\n99\n0027\n1000\n1001\nGroups:\t5 6 \n/home/user\n");
}

/// As Docker asks for it.
#[test]
fn ping_groups_are_clamped_and_it_is_said() {
    let range = json!({"net.ipv4.ping_group_range": "0 2147483647"});
    let bundle = Bundle::hardened().set("/linux/sysctl", range).args(&["cat", "/proc/sys/net/ipv4/ping_group_range"]);
    let outcome = Engine::new().run(&bundle, Door::Userns).ok();
    assert_eq!(outcome.stdout, "0\t65535\n");
    assert!(outcome.stderr.contains("\"0 65535\" in place of \"0 2147483647\""), "{outcome:?}");
}

#[test]
fn sysctls_are_the_containers_own() {
    let before = fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    let bundle = Bundle::hardened().set("/linux/sysctl", json!({"kernel.msgmax": "4242", "net.ipv4.ip_forward": "1"}));
    assert_eq!(run(bundle, "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward"), "4242\n1\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), before);
    let bundle = Bundle::hardened().set("/linux/sysctl", json!({"kernel.domainname": "example.org"}));
    assert_eq!(run(bundle, "cat /proc/sys/kernel/domainname"), "example.org\n");
    for key in ["kernel.core_pattern", "../../sysrq-trigger", "net/../../kernel/core_pattern", "vm.swappiness"] {
        let bundle = Bundle::hardened().set("/linux/sysctl", json!({key: "1"}));
        Engine::new().run(&bundle, Door::Userns).fails(1, &["linux.sysctl"]);
    }
}

#[test]
fn oom_score() {
    let raised = Bundle::hardened().set("/process/oomScoreAdj", json!(500));
    assert_eq!(run(raised, "cat /proc/self/oom_score_adj"), "500\n");
    // This machine lacks CAP_SYS_RESOURCE, so lowering it is refused, and told by the field.
    let lowered = Bundle::hardened().set("/process/oomScoreAdj", json!(-500)).script("true");
    let outcome = Engine::new().run(&lowered, Door::Userns);
    let capable = fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| {
        line.strip_prefix("CapEff:\t").is_some_and(|mask| u64::from_str_radix(mask, 16).unwrap() & 1 << 24 != 0)
    });
    assert_eq!(outcome.code, i32::from(!capable), "{outcome:?}");
    assert!(capable || outcome.stderr.contains("process.oomScoreAdj"), "{outcome:?}");
}

/// A folder of the host that belongs to uid 1234, bound writable.
fn shared(folder: &TempDir) -> Bundle {
    nix::unistd::chown(folder.path(), Some(1234.into()), Some(1235.into())).unwrap();
    let mount = json!({"destination": "/work", "type": "bind", "source": folder.path(), "options": ["bind", "rw"]});
    Bundle::hardened().mount(mount)
}

#[test]
fn files_in_a_bound_folder_belong_to_its_owner() {
    let folder = TempDir::new("work");
    assert_eq!(
        run(shared(&folder), "echo x > /work/made; mkdir /work/dir; stat -c '%u:%g' /work /work/made"),
        "0:0\n0:0\n"
    );
    for name in ["", "made", "dir"] {
        let metadata = fs::metadata(folder.path().join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 1235), "{name}");
    }
}

#[test]
fn no_set_id_file_is_made_on_the_host() {
    let folder = TempDir::new("work");
    let script = "cp() { cat $1 > $2; }; cp /bin/busybox /work/su; chmod 4755 /work/su; chmod 2755 /work/su; chmod u+s,g+s /work/su; \
        mkdir /work/d; chmod g+s /work/d; probe syscall 133 0 0104755 0; true";
    run(shared(&folder), script);
    for name in ["su", "d"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o6000, 0, "{name}: {mode:o}");
    }
    let root =
        Bundle::hardened().set("/root/readonly", json!(false)).script("cat /bin/busybox > /su; chmod 4755 /su; true");
    Engine::new().run(&root, Door::Userns).ok();
    let mode = fs::metadata(root.root().join("su")).unwrap().permissions().mode();
    assert_eq!(mode & 0o6000, 0, "on the root: {mode:o}");
    // The control: without the filter's rule busybox chmod does set the bit.
    assert_eq!(inside("touch /tmp/f; chmod 4755 /tmp/f && stat -c %a /tmp/f"), "4755\n");
}

#[test]
fn a_socket_in_a_bound_folder_works_both_ways() {
    let folder = TempDir::new("work");
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(shared(&folder).set("/process/user", json!({"uid": 1000, "gid": 1000})));
    let ours = folder.path().join("host.sock");
    let listener = UnixListener::bind(&ours).unwrap();
    nix::unistd::chown(&ours, Some(1234.into()), Some(1235.into())).unwrap();
    fs::set_permissions(&ours, fs::Permissions::from_mode(0o600)).unwrap();
    let outcome = engine.wsbox(&["exec", &id, "probe", "unix-connect", "/work/host.sock"]);
    assert!(outcome.stdout.contains(": ok"), "the container reaches the host's socket: {outcome:?}");
    listener.accept().unwrap();
    engine.wsbox(&["exec", "--detach", &id, "sh", "-c", "umask 077; exec probe unix-listen /work/box.sock"]).ok();
    let theirs = folder.path().join("box.sock");
    until("the container's socket", || theirs.exists());
    assert_eq!(fs::metadata(&theirs).unwrap().uid(), 1234);
    until("a connection", || UnixStream::connect(&theirs).is_ok());
}

#[test]
fn a_read_only_bind_is_read_only_all_the_way() {
    let folder = TempDir::new("data");
    fs::write(folder.path().join("file"), "data").unwrap();
    let mount = json!({"destination": "/data", "type": "bind", "source": folder.path(), "options": ["rbind", "ro"]});
    assert_eq!(
        run(Bundle::hardened().mount(mount), "cat /data/file; touch /data/x 2>/dev/null || echo no"),
        "datano\n"
    );
}

#[test]
fn no_file_of_the_root_is_chowned() {
    let bundle = Bundle::hardened().script("true");
    let before = fs::metadata(bundle.root().join("bin/busybox")).unwrap();
    Engine::new().run(&bundle, Door::Userns).ok();
    let after = fs::metadata(bundle.root().join("bin/busybox")).unwrap();
    assert_eq!(
        (before.uid(), before.gid(), before.mode(), before.ctime(), before.ctime_nsec()),
        (after.uid(), after.gid(), after.mode(), after.ctime(), after.ctime_nsec())
    );
}

#[test]
fn a_bundle_of_runc_spec_runs_as_it_says() {
    let text = Engine::new()
        .run(
            &Bundle::plain()
                .script("id -u; hostname; cat /proc/self/uid_map; grep CapEff /proc/self/status; ls /dev | wc -l"),
            Door::Root,
        )
        .ok()
        .stdout;
    assert!(text.starts_with("0\nrunc\n         0          0 4294967295\nCapEff:\t0000000020000420\n"), "{text}");
}
