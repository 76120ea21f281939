// SPDX-License-Identifier: Apache-2.0
//! A daemon with `userns-remap: default`: every container in a user namespace, root being host user 100000.

use std::fs;
use std::os::unix::fs::MetadataExt;

use wsbox_integration::docker::{both_remapped as both, eventually, with_input};
use wsbox_integration::terminal::Terminal;
use wsbox_integration::unique;

#[test]
fn ids_are_mapped() {
    both(|docker| {
        let said = docker
            .says("", "id -u; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; stat -c %u:%g / /etc/passwd");
        assert_eq!(said, "0\n 0 100000 65536\n 0 100000 65536\n0:0\n0:0");
        let container = docker.sleeping("--network none --user 1000");
        let status = docker.daemon.sandbox().sh(&format!("cat /proc/{}/status", container.inspect(".State.Pid")));
        assert!(status.ok().stdout.contains("Uid:\t101000\t101000"), "a user of the host");
    });
}

#[test]
fn output_exit_codes_and_stdin() {
    both(|docker| {
        let outcome = docker.run("", "echo out; echo error >&2; exit 7");
        assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (7, "out\n", "error\n"));
        assert_eq!(docker.says("--user 1000", "echo out >/dev/stdout"), "out");
        assert_eq!(docker.argv("", &["/nope"]).code, 127);
        assert_eq!(docker.argv("", &["/etc/passwd"]).code, 126);
        assert_eq!(with_input(&mut docker.command("run", "--rm -i", &["wc", "-c"]), b"12345").ok().stdout.trim(), "5");
    });
}

#[test]
fn terminals() {
    both(|docker| {
        let mut terminal = Terminal::open(&mut docker.command("run", "--rm -it", &["sh"]));
        terminal.types("tty; stat -c owner-%u /dev/pts/0\n").sees("/dev/pts/0").sees("owner-0");
        terminal.types("exit 5\n");
        assert_eq!(terminal.ends(), 5);
    });
}

#[test]
fn exec() {
    both(|docker| {
        let container = docker.sleeping("--network none");
        assert_eq!(
            container.says("--user 1000 --workdir /etc", "id -u; pwd; tr -s ' ' </proc/self/uid_map"),
            "1000\n/etc\n 0 100000 65536"
        );
        assert_eq!(container.says("", "readlink /proc/self/ns/user"), container.says("", "readlink /proc/1/ns/user"));
        assert_eq!(container.exec("", "exit 9").code, 9);
        assert_eq!(docker.cli(&["exec", &container.name, "nope"]).code, 126);
    });
}

#[test]
fn volumes_and_binds() {
    both(|docker| {
        let volume = unique(docker.runtime);
        let flags = format!("--network none --volume {volume}:/data --tmpfs /scratch --read-only");
        assert_eq!(docker.says(&flags, "touch /data/x /scratch/y && stat -c %u /data/x /scratch/y"), "0\n0");
        assert_ne!(docker.run(&flags, "touch /etc/x").code, 0);
        docker.cli(&["volume", "rm", &volume]).ok();
        let folder = docker.folder();
        fs::write(folder.join("roots"), "").unwrap();
        let bind = format!("--network none --volume {}:/mnt", folder.display());
        assert_ne!(docker.run(&bind, "touch /mnt/new").code, 0, "the folder is the host's root's");
        assert_eq!(docker.says(&bind, "stat -c %u /mnt/roots"), "65534");
        std::os::unix::fs::chown(&folder, Some(100_000), Some(100_000)).unwrap();
        docker.run(&bind, "touch /mnt/new").ok();
        assert_eq!(fs::metadata(folder.join("new")).unwrap().uid(), 100_000);
    });
}

#[test]
fn limits_and_devices() {
    both(|docker| {
        let flags = "--network none --memory 64m --pids-limit 30 --cpus 0.5 --ulimit nofile=64:64";
        let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max; ulimit -n; echo x >/dev/null && head -c 3 /dev/zero | wc -c";
        assert_eq!(docker.says(flags, script), "67108864\n64\n3");
        let outcome = docker.run("--network none", "mknod /etc/n c 1 3; echo $?");
        assert_eq!(outcome.ok().stdout, "1\n");
    });
}

#[test]
fn life() {
    both(|docker| {
        let container = docker.start("--network none", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done");
        container.until_logs("ready");
        container.cli("pause", "").ok();
        container.cli("unpause", "").ok();
        container.cli("update", "--pids-limit 44").ok();
        assert!(container.cli("top", "").ok().stdout.contains("while"));
        assert!(docker.cli(&["stats", "--no-stream", &container.name]).ok().stdout.contains(&container.name[..10]));
        let copied = docker.folder().join("copied");
        docker.cli(&["cp", &format!("{}:/etc/passwd", container.name), &copied.display().to_string()]).ok();
        assert!(fs::read_to_string(copied).unwrap().contains("root"));
        container.cli("stop", "").ok();
        assert_eq!(container.inspect(".State.ExitCode"), "3");
    });
}

#[test]
fn networks() {
    both(|docker| {
        assert_eq!(
            docker.says("", "ls /sys/class/net | xargs; ping -c 1 -W 5 127.0.0.1 >/dev/null && echo lo"),
            "eth0 lo\nlo"
        );
        let server = docker.start(
            "--publish 127.0.0.1::8080",
            "mkdir /www; echo served >/www/index.html; exec httpd -f -p 8080 -h /www",
        );
        let address = server.cli("port", "").ok().stdout.trim().rsplit_once("-> ").expect("an address").1.to_owned();
        let get = || docker.daemon.sandbox().sh(&format!("busybox wget -q -O - http://{address}/")).stdout;
        eventually("an answer", || get() == "served\n");
        let joined = format!("--network container:{}", server.name);
        assert_eq!(docker.says(&joined, "wget -q -O - http://127.0.0.1:8080/"), "served");
    });
}

#[test]
fn the_hosts_user_namespace_on_request() {
    both(|docker| {
        assert_eq!(docker.says("--userns host --network host", "tr -s ' ' </proc/self/uid_map"), " 0 0 4294967295");
        let refused = docker.run("--network host", "true");
        assert_eq!(refused.code, 125, "{refused:?}");
        assert_eq!(docker.run("--pid host", "true").code, 125);
    });
}

#[test]
fn namespaces_of_another_container() {
    both(|docker| {
        let first = docker.sleeping("--ipc shareable");
        let flags = format!("--pid container:{0} --ipc container:{0} --network container:{0}", first.name);
        let outcome = docker.run(&flags, "ps");
        assert!(outcome.stdout.contains("sleep 1000"), "{outcome:?}");
    });
}

#[test]
fn capabilities_and_seccomp() {
    both(|docker| {
        let status = "grep -E '^(CapEff|Seccomp):' /proc/self/status | cut -f2 | xargs";
        assert_eq!(docker.says("--network none", status), "00000000a80425fb 2");
        assert_eq!(
            docker.says("--network none --cap-drop ALL --security-opt seccomp=unconfined", status),
            "0000000000000000 0"
        );
        assert_eq!(docker.says("--sysctl net.ipv4.ip_forward=1", "cat /proc/sys/net/ipv4/ip_forward"), "1");
    });
}
