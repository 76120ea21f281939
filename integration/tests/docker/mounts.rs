// SPDX-License-Identifier: Apache-2.0
//! The root, tmpfs, volumes, binds and their propagation, and what docker masks.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use wsbox_integration::docker::{Docker, both, eventually};
use wsbox_integration::unique;

#[test]
fn read_only_root() {
    both(|docker| {
        let script = "touch /etc/x; touch /dev/shm/x && echo shm; touch /proc/sys/kernel/x; mount -o remount,rw / ; touch /etc/y";
        let outcome = docker.run("--read-only --network none", script);
        assert_ne!(outcome.code, 0);
        assert!(outcome.stdout.contains("shm"), "{outcome:?}");
        assert!(
            outcome.stderr.contains("/etc/x: Read-only") && outcome.stderr.contains("/etc/y: Read-only"),
            "{outcome:?}"
        );
    });
}

#[test]
fn tmpfs() {
    both(|docker| {
        let flags = "--network none --read-only --tmpfs /data:size=4m,mode=1770,uid=5,noexec --tmpfs /run";
        let said = docker.says(
            flags,
            "stat -c %a,%u /data; grep -c ' /data tmpfs rw,nosuid,nodev,noexec' /proc/mounts; touch /run/x && echo run",
        );
        assert_eq!(said, "1770,5\n1\nrun");
        let said = docker.says(flags, "head -c 5000000 /dev/zero >/data/file || stat -c %s /data/file");
        assert_eq!(said, "4194304", "it is full");
        let mount = "--network none --mount type=tmpfs,destination=/data,tmpfs-size=1m,tmpfs-mode=700";
        assert_eq!(docker.says(mount, "stat -c %a /data"), "700");
    });
}

/// Unless it is given one.
#[test]
fn tmpfs_has_the_mode_of_what_it_covers() {
    both(|docker| {
        let folder = docker.folder();
        fs::create_dir(folder.join("private")).unwrap();
        fs::set_permissions(folder.join("private"), fs::Permissions::from_mode(0o2710)).unwrap();
        let flags = format!(
            "--network none --volume {}:/x --tmpfs /x/private --tmpfs /etc --tmpfs /bin/new --tmpfs /root:mode=1770 --tmpfs /dev/shm",
            folder.display()
        );
        assert_eq!(
            docker.says(&flags, "stat -c %a /x/private /etc /bin/new /root /dev/shm"),
            "2710\n755\n1777\n1770\n1777"
        );
    });
}

#[test]
fn tmpfs_shows_what_the_image_has_when_asked() {
    both(|docker| {
        // Docker copies up into volumes, and hides below a tmpfs.
        assert_eq!(docker.says("--network none --tmpfs /etc:rw,exec", "ls /etc | grep -c passwd; true"), "0");
    });
}

#[test]
fn named_volumes_keep_and_copy_up() {
    both(|docker| {
        let volume = unique(docker.runtime);
        let flags = format!("--network none --volume {volume}:/etc");
        assert_eq!(docker.says(&flags, "echo kept >/etc/kept; ls /etc/passwd"), "/etc/passwd");
        assert_eq!(docker.says(&flags, "cat /etc/kept"), "kept");
        let other = docker.sleeping(&format!("--network none --volume {volume}:/there:ro"));
        assert_eq!(other.says("", "cat /there/kept"), "kept");
        assert_eq!(docker.says(&format!("--volumes-from {}", other.name), "cat /there/kept"), "kept");
        drop(other);
        docker.cli(&["volume", "rm", &volume]).ok();
    });
}

#[test]
fn anonymous_volumes_go() {
    both(|docker| {
        let name = unique(docker.runtime);
        let container = docker.sleeping("--network none --volume /anonymous");
        let volume = container.inspect("(index .Mounts 0).Name");
        docker.run(&format!("--name {name} --volumes-from {}", container.name), "touch /anonymous/x").ok();
        drop(container);
        assert_ne!(docker.cli(&["volume", "inspect", &volume]).code, 0);
    });
}

#[test]
fn binds() {
    both(|docker| {
        let folder = docker.folder();
        fs::write(folder.join("file"), "host").unwrap();
        let host = folder.display();
        assert_eq!(docker.says(&format!("--volume {host}:/mnt"), "cat /mnt/file; echo new >/mnt/new"), "host");
        assert_eq!(fs::read_to_string(folder.join("new")).unwrap(), "new\n");
        let outcome = docker.run(&format!("--volume {host}:/mnt:ro"), "cat /mnt/file; touch /mnt/x");
        assert!(outcome.stdout == "host" && outcome.stderr.contains("Read-only"), "{outcome:?}");
        let one = format!("--volume {host}/file:/etc/made/here:ro");
        assert_eq!(docker.says(&one, "cat /etc/made/here"), "host");
        // Over what is in the image, and through a link in it, which stays inside.
        let linked = format!("--mount type=bind,source={host}/file,destination=/etc/passwd,readonly");
        assert_eq!(docker.says(&linked, "cat /etc/passwd"), "host");
        let missing = docker.run(&format!("--mount type=bind,source={host}/not,destination=/mnt"), "true");
        assert_eq!(missing.code, 125, "{missing:?}");
        // With -v docker makes the folder.
        docker.run(&format!("--volume {host}/made:/mnt"), "true").ok();
        assert!(folder.join("made").is_dir());
    });
}

/// A tmpfs in the daemon's namespace, mounted in a folder of a case with a propagation.
fn mounted(docker: Docker, propagation: &str) -> String {
    let host = docker.folder().display().to_string();
    let sandbox = docker.daemon.sandbox();
    sandbox
        .sh(&format!(
            "mount -t tmpfs outer {host} && mount --make-{propagation} {host} && mkdir {host}/sub {host}/early"
        ))
        .ok();
    sandbox.sh(&format!("mount -t tmpfs early {host}/early && touch {host}/early/file")).ok();
    host
}

#[test]
fn propagation_from_the_host() {
    both(|docker| {
        let host = mounted(docker, "rshared");
        let sandbox = docker.daemon.sandbox();
        let slave = docker.sleeping(&format!("--network none --volume {host}:/mnt:rslave"));
        let private = docker.sleeping(&format!("--network none --volume {host}:/mnt"));
        sandbox.sh(&format!("mount -t tmpfs late {host}/sub && touch {host}/sub/late")).ok();
        assert_eq!(slave.says("", "ls /mnt/sub /mnt/early"), "/mnt/early:\nfile\n\n/mnt/sub:\nlate");
        assert_eq!(private.says("", "ls /mnt/sub; ls /mnt/early"), "file", "binds are recursive");
        sandbox.sh(&format!("umount {host}/sub")).ok();
        assert_eq!(slave.says("", "ls /mnt/sub"), "");
        drop((slave, private));
        sandbox.sh(&format!("umount -R {host}")).ok();
    });
}

#[test]
fn propagation_to_the_host() {
    both(|docker| {
        let host = mounted(docker, "rshared");
        let sandbox = docker.daemon.sandbox();
        let mount = "mount -t tmpfs inner /mnt/sub && touch /mnt/sub/inner";
        let flags = "--network none --cap-add SYS_ADMIN --security-opt seccomp=unconfined --volume";
        let private = docker.start(&format!("{flags} {host}:/mnt:rslave"), &format!("{mount}; echo up; sleep 1000"));
        private.until_logs("up");
        assert_eq!(sandbox.sh(&format!("ls {host}/sub")).ok().stdout, "");
        let shared = docker.start(&format!("{flags} {host}:/mnt:rshared"), &format!("{mount}; echo up; sleep 1000"));
        shared.until_logs("up");
        assert_eq!(sandbox.sh(&format!("ls {host}/sub")).ok().stdout, "inner\n");
        drop((private, shared));
        sandbox.sh(&format!("umount -R {host}")).ok();
    });
}

#[test]
fn shared_binds_need_a_shared_source() {
    both(|docker| {
        let host = mounted(docker, "private");
        let outcome = docker.run(&format!("--volume {host}:/mnt:rshared"), "true");
        assert_eq!(outcome.code, 125, "{outcome:?}");
        docker.daemon.sandbox().sh(&format!("umount -R {host}")).ok();
    });
}

/// Over what the runtime itself puts into /dev, and in the tmpfs of cgroups, which is read-only in the end.
#[test]
fn binds_in_mounts_of_the_runtime() {
    both(|docker| {
        let folder = docker.folder();
        fs::write(folder.join("file"), "bound\n").unwrap();
        let (file, folder) = (folder.join("file").display().to_string(), folder.display());
        let flags = format!(
            "--network none --volume {file}:/dev/stderr --volume {file}:/dev/core --volume {folder}:/dev/fd \
             --volume {folder}:/sys/fs/cgroup/made"
        );
        let said =
            docker.says(&flags, "cat /dev/stderr /dev/core /dev/fd/file /sys/fs/cgroup/made/file; ls -l /dev/stdin");
        assert!(
            said.starts_with("bound\nbound\nbound\nbound\n") && said.ends_with("/dev/stdin -> /proc/self/fd/0"),
            "{said}"
        );
    });
}

/// Masked like one of the container's own.
#[test]
fn the_hosts_proc() {
    both(|docker| {
        let counts = |flags: &str| {
            docker.says(&format!("--network none {flags}"), "ls -d /proc/[0-9]* | wc -l; wc -c </proc/keys")
        };
        let (own, hosts) = (counts(""), counts("--volume /proc:/proc"));
        let number = |said: &str| said.lines().next().and_then(|line| line.trim().parse::<u32>().ok()).unwrap();
        assert!(number(&own) < 5 && number(&hosts) > number(&own), "{own:?} {hosts:?}");
        assert!(own.ends_with("\n0") && hosts.ends_with("\n0"), "{own:?} {hosts:?}");
    });
}

#[test]
fn binds_that_are_not_recursive() {
    both(|docker| {
        let host = mounted(docker, "private");
        let flags = format!("--mount type=bind,source={host},destination=/mnt,bind-nonrecursive");
        assert_eq!(docker.says(&flags, "ls /mnt; ls /mnt/early"), "early\nsub");
        docker.daemon.sandbox().sh(&format!("umount -R {host}")).ok();
    });
}

#[test]
fn links_of_the_image_stay_inside() {
    both(|docker| {
        let folder = docker.folder();
        let links = "mkdir -p /var /var/a; ln -s /etc/deep /var/link; ln -s ../../../../outside /climb; ln -s b /var/a/c; ln -s c /var/a/d";
        let made = docker.start("--network none", links);
        made.wait();
        let image = unique(docker.runtime);
        docker.cli(&["commit", &made.name, &image]).ok();
        fs::write(folder.join("file"), "bound").unwrap();
        let (absolute, climbing) =
            (format!("{}:/var/link/x", folder.display()), format!("{}:/climb/y", folder.display()));
        let chain = format!("{}/file:/var/a/d", folder.display());
        let run = [
            "run",
            "--rm",
            "--network",
            "none",
            "--runtime",
            docker.runtime,
            "-v",
            &absolute,
            "-v",
            &climbing,
            "-v",
            &chain,
            &image,
        ];
        let outcome =
            docker.cli(&[&run[..], &["cat", "/etc/deep/x/file", "/outside/y/file", "/var/a/b"]].concat()).ok();
        assert_eq!(outcome.stdout, "boundboundbound");
        assert!(!std::path::Path::new("/outside").exists());
        drop(made);
        docker.cli(&["rmi", &image]).ok();
    });
}

#[test]
fn masked_and_read_only_paths() {
    both(|docker| {
        let script = "head -c1 /proc/kcore | wc -c; cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware /proc/acpi 2>/dev/null | grep -c .; \
            for f in /proc/sys/kernel/hostname /proc/irq/x /proc/sysrq-trigger /sys/kernel/x; do echo 1 2>/dev/null >$f && echo wrote $f; done; true";
        let said = docker.says("--network none", script);
        assert!(said.starts_with("0\n0\n") && !said.contains("wrote"), "{said}");
        let flags = "--network none --security-opt systempaths=unconfined";
        assert_ne!(docker.says(flags, "cat /proc/timer_list | wc -c"), "0");
    });
}

#[test]
fn files_that_docker_provides() {
    both(|docker| {
        let said = docker.says(
            "--add-host other:10.1.2.3 --dns 9.9.9.9 --hostname named",
            "cat /etc/hosts /etc/resolv.conf /etc/hostname",
        );
        for words in ["10.1.2.3\tother", "nameserver 9.9.9.9", "\tnamed", "\nnamed"] {
            assert!(said.contains(words), "{words:?} is not in {said}");
        }
    });
}

#[test]
fn the_devices_that_all_have() {
    both(|docker| {
        let script = "ls /dev | xargs; for d in null zero full random urandom tty; do stat -c '%n %a %t:%T' /dev/$d; done; \
            for l in fd stdin stdout stderr core ptmx; do readlink /dev/$l || echo no $l; done; ls -ld /dev/pts /dev/mqueue | cut -c1-10";
        let runc = Docker { runtime: "runc", ..docker };
        let (ours, reference) = (docker.says("--network none", script), runc.says("--network none", script));
        assert_eq!(ours, reference);
    });
}

#[test]
fn volumes_are_gone_from_the_host_in_the_end() {
    both(|docker| {
        let folder = docker.folder();
        let container = docker.sleeping(&format!("--network none --volume {}:/mnt", folder.display()));
        container.cli("kill", "").ok();
        container.wait();
        let seen = || docker.daemon.sandbox().sh(&format!("grep -c {} /proc/self/mountinfo", folder.display())).stdout;
        eventually("no mount", || seen() == "0\n");
    });
}
