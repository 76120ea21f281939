// SPDX-License-Identifier: Apache-2.0
//! `docker run --runtime=wsbox-strict`: the containers of the other cases, raised to the profile production, or refused by name.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use wsbox_integration::docker::{Docker, RUNTIMES, layers, open_layers, strict};
use wsbox_integration::unique;

#[test]
fn all_eight_layers_are_in_force() {
    let docker = strict();
    let loose = "--pids-limit -1 --cap-add ALL --security-opt seccomp=unconfined --memory 8g --cpus 2 --ulimit core=-1";
    for flags in ["", loose, "--user 1000:1000 --read-only --tmpfs /data"] {
        assert_eq!(open_layers(&docker.sleeping(flags)), [""; 0], "{flags}");
    }
    // The control: without the profile Docker's container has fewer.
    let plain = Docker { runtime: RUNTIMES[1], ..docker };
    assert!(open_layers(&plain.sleeping("--network none")).len() > 3);
}

/// The image's files are the container's ids', and nobody has chowned them.
#[test]
fn the_image_is_as_runc_shows_it() {
    let docker = strict();
    let script = "cd /; find bin etc home root var usr -xdev | grep -v -e etc/host -e etc/resolv | sort | xargs stat -c '%A %u %g %s %n'";
    let wanted = Docker { runtime: RUNTIMES[0], ..docker }.says("--network none", script);
    assert!(wanted.lines().count() > 20, "{wanted}");
    assert_eq!(docker.says("", script), wanted);
    let container = docker.sleeping("");
    for layer in ["UpperDir", "LowerDir"] {
        let folders = container.inspect(&format!("index .GraphDriver.Data \"{layer}\""));
        let owned =
            |folder: &str| docker.daemon.sandbox().sh(&format!("find {folder} -uid +65535 | wc -l")).ok().stdout;
        folders.split(':').for_each(|folder| assert_eq!(owned(folder), "0\n", "{folder}"));
    }
    assert_eq!(container.says("", "cut -c1-10 /proc/self/uid_map | tr -d ' '"), "0");
    assert_ne!(container.says("", "awk '{print $2}' /proc/self/uid_map"), "0");
}

#[test]
fn layers_of_builds_and_commits_are_seen() {
    let docker = strict();
    let (image, script) = (unique("image"), "rm /etc/passwd; mkdir /made; echo one >/made/file; chown 5:6 /made/file");
    let made = Docker { runtime: RUNTIMES[0], ..docker }.start("--network none", script);
    made.wait();
    docker.cli(&["commit", &made.name, &image]).ok();
    let run = ["run", "--rm", "--runtime", docker.runtime, &image, "sh", "-c"];
    let script = "cat /made/file; stat -c %u:%g /made/file; ls /etc/passwd 2>&1; touch /made/x 2>&1";
    let said = docker.cli(&[&run[..], &[script]].concat()).stdout;
    let wanted = "one\n5:6\nls: /etc/passwd: No such file or directory\ntouch: /made/x: Read-only file system\n";
    assert_eq!(said, wanted);
    docker.cli(&["rmi", &image]);
}

#[test]
fn volumes_binds_and_tmpfs_are_writable() {
    let docker = strict();
    let (folder, volume) = (docker.folder(), unique("volume"));
    let flags = format!("--volume {}:/bound --volume {volume}:/var/kept --tmpfs /data", folder.display());
    let script = "for dir in bound var/kept data tmp run dev/shm; do echo x >/$dir/file || echo $dir; done; stat -c %u /bound/file";
    assert_eq!(docker.says(&flags, script), "0");
    assert_eq!(fs::metadata(folder.join("file")).expect("it is there").uid(), 0, "the folder's owner");
    assert_eq!(docker.says(&flags, "cat /var/kept/file; ls /data"), "x");
    docker.cli(&["volume", "rm", &volume]).ok();
}

#[test]
fn mount_points_that_the_image_lacks_leave_no_trace() {
    let docker = strict();
    let folder = docker.folder();
    fs::write(folder.join("file"), "host").expect("a file");
    let flags = format!("--volume {0}:/new/deep --volume {0}/file:/etc/new.conf:ro", folder.display());
    let container = docker.sleeping(&flags);
    assert_eq!(container.says("", "cat /new/deep/file /etc/new.conf"), "hosthost");
    let upper = container.inspect("index .GraphDriver.Data \"UpperDir\"");
    assert_eq!(
        docker.daemon.sandbox().sh(&format!("ls {upper}; ls {upper}/etc 2>&1 | grep -c new")).stdout.lines().last(),
        Some("0")
    );
}

/// Which mount it is, of which type, and that without it the bind works.
#[test]
fn binds_that_can_not_be_id_mapped_are_named() {
    let docker = strict();
    let folder = docker.folder().display().to_string();
    let sandbox = docker.daemon.sandbox();
    sandbox.sh(&format!("mkdir '{folder}/a b' && mount -t proc proc '{folder}/a b'")).ok();
    for (flags, words, way_out) in [
        (format!("--volume {folder}:/x"), format!("{folder}/a b is of type proc"), "bind-nonrecursive"),
        ("--volume /sys:/x".into(), "source: /sys is of type sysfs".into(), "--runtime wsbox"),
        ("--volume /etc:/x".into(), "source: /etc is of type overlay".into(), "--runtime wsbox"),
    ] {
        let outcome = docker.run(&flags, "true");
        let told = outcome.stderr.contains(&words) && outcome.stderr.contains(way_out);
        assert!(outcome.code == 125 && told, "{flags}: {outcome:?}");
    }
    let alone = format!("--mount type=bind,source={folder},target=/x,bind-nonrecursive");
    assert_eq!(docker.says(&alone, "ls -A '/x/a b'; touch /x/file; ls /x"), "a b\nfile");
    sandbox.sh(&format!("umount '{folder}/a b'")).ok();
}

#[test]
fn the_life_of_a_container() {
    let docker = strict();
    let container = docker
        .start("--health-cmd true --health-interval 1s", "trap 'exit 3' TERM; echo begun; while :; do sleep 0.1; done");
    container.until_logs("begun");
    assert_eq!(container.says("", "id -u; cat /proc/1/comm; echo $HOME"), "0\nsh\n/root");
    assert_eq!(container.exec("--user 33 --workdir /tmp", "id -u; pwd").ok().stdout, "33\n/tmp\n");
    assert_eq!(
        container.exec("--privileged", "grep CapEff /proc/self/status | cut -f2").stdout.trim(),
        "0000000000000000"
    );
    container.until_is(".State.Health.Status", "healthy");
    container.cli("pause", "").ok();
    container.cli("unpause", "").ok();
    assert!(container.cli("top", "").ok().stdout.contains("sleep"));
    assert!(container.cli("stats", "--no-stream").ok().stdout.contains(&container.name));
    container.cli("stop", "").ok();
    assert_eq!(container.inspect(".State.ExitCode"), "3");
    container.cli("start", "").ok();
    assert_eq!(open_layers(&container), [""; 0], "started again");
    container.cli("kill", "").ok();
    assert_eq!(container.wait(), 137);
}

#[test]
fn exit_codes_and_terminals() {
    let docker = strict();
    assert_eq!(docker.run("", "exit 42").code, 42);
    assert_eq!(docker.argv("", &["/nowhere"]).code, 127);
    assert_eq!(docker.argv("", &["/etc"]).code, 126);
    assert_eq!(docker.says("--tty", "tty"), "/dev/pts/0");
    assert_eq!(docker.says("--init", "cat /proc/1/comm"), "docker-init");
}

#[test]
fn the_network_is_lo_alone_whatever_docker_attached() {
    let docker = strict();
    for flags in ["", "--network none", "--publish 127.0.0.1::80", "--sysctl net.ipv4.ip_default_ttl=77"] {
        let said = docker.says(flags, "ls /proc/sys/net/ipv4/conf; cat /proc/sys/net/ipv4/ip_default_ttl");
        assert_eq!(said, "all\ndefault\nlo\n64", "{flags}");
    }
    // What deployment/docker/README.md says of it.
    let told = docker.run("", "wget -O- http://127.0.0.1").stderr;
    assert!(told.contains("wget: socket: Operation not permitted"), "{told}");
}

#[test]
fn what_no_profile_can_hold_is_refused_by_name() {
    let cases = [
        ("--privileged", "--privileged"),
        ("--network host", "--network host"),
        ("--pid host", "--pid host"),
        ("--ipc host", "--ipc host"),
        ("--uts host", "--uts host"),
        ("--network none --device /dev/net/tun:/dev/made", "adds the device /dev/made"),
        ("--network none --device /dev/loop0", "allows the device 7:0"),
    ];
    let docker = strict();
    for (flags, words) in cases {
        let outcome = docker.run(flags, "true");
        let told = outcome.stderr.contains(words) && outcome.stderr.contains("profile production");
        assert!(outcome.code == 125 && told, "{flags}: {outcome:?}");
    }
}

/// The profile counts, also of an exec; nothing of it is left when the container is removed.
#[test]
fn violations_are_counted() {
    let docker = strict();
    let container = docker.sleeping("");
    container.says("", "unshare -U true 2>&1; mount -t tmpfs x /tmp 2>&1; mount -t tmpfs x /tmp 2>&1; true");
    let violations = layers(&container)["violations"].clone();
    assert_eq!((&violations["counting"], &violations["total"]), (&"on".into(), &3.into()), "{violations}");
    assert_eq!(
        (&violations["blocked"][0]["syscall"], &violations["blocked"][0]["process"]),
        (&"mount".into(), &"mount".into())
    );
    container.cli("pause", "").ok();
    assert_eq!(layers(&container)["violations"], violations);
    container.cli("unpause", "").ok();
    let sandbox = docker.daemon.sandbox();
    let record = format!("{}/exec/runtime-runc/moby/{}/state.json", sandbox.path().display(), container.inspect(".Id"));
    let record: Value = serde_json::from_str(&sandbox.sh(&format!("cat {record}")).ok().stdout).expect("JSON");
    let monitor = format!("grep -s State /proc/{}/status", record["monitor"]["process"]["pid"]);
    assert!(sandbox.sh(&monitor).stdout.contains('S'));
    container.cli("rm", "--force").ok();
    let left = sandbox.sh(&monitor).stdout;
    assert!(left.is_empty() || left.contains('Z'), "{left}");
}
