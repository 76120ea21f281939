// SPDX-License-Identifier: Apache-2.0
//! Networks: none, the host's, the bridge with published ports, another container's, user-defined ones.

use wsbox_integration::docker::{both, eventually};
use wsbox_integration::unique;

const SERVE: &str = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 8080 -h /www";

#[test]
fn none_has_only_lo() {
    both(|docker| {
        assert_eq!(docker.says("--network none", "ls /sys/class/net; ip -o -4 addr | grep -c 127.0.0.1"), "lo\n1");
    });
}

#[test]
fn host_is_the_daemons() {
    both(|docker| {
        let seen = docker.says("--network host", "ls /sys/class/net | grep docker0");
        assert_eq!(seen, "docker0");
    });
}

#[test]
fn bridge() {
    both(|docker| {
        let script = "ip -o -4 addr show eth0 | grep -c 172; ip route | grep -c ^default; ping -c 1 -W 5 $(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p') | grep -c '1 packets received'";
        assert_eq!(docker.says("", script), "1\n1\n1");
        let flags = "--mac-address 02:42:ac:11:77:77";
        assert_eq!(docker.says(flags, "cat /sys/class/net/eth0/address"), "02:42:ac:11:77:77");
    });
}

#[test]
fn published_ports() {
    both(|docker| {
        let container = docker.start("--publish 127.0.0.1::8080", SERVE);
        let address = container.cli("port", "").ok().stdout;
        let address = address.trim().rsplit_once("-> ").expect("an address").1.to_owned();
        let get = || docker.daemon.sandbox().sh(&format!("busybox wget -q -O - http://{address}/")).stdout;
        eventually("an answer", || get() == "served\n");
        drop(container);
        assert_eq!(get(), "");
    });
}

#[test]
fn another_containers() {
    both(|docker| {
        let first = docker.start("", SERVE);
        let flags = format!("--network container:{}", first.name);
        eventually("an answer", || docker.run(&flags, "wget -q -O - http://127.0.0.1:8080/").stdout == "served\n");
        assert_eq!(docker.says(&flags, "hostname"), first.says("", "hostname"));
    });
}

#[test]
fn user_defined_with_names() {
    both(|docker| {
        let network = unique(docker.runtime);
        docker.cli(&["network", "create", &network]).ok();
        let server = docker.start(&format!("--network {network} --network-alias served-here"), SERVE);
        let ask = "wget -q -O - http://served-here:8080/";
        eventually("an answer", || docker.run(&format!("--network {network}"), ask).stdout == "served\n");
        assert_ne!(docker.run("", ask).code, 0, "from another network");
        drop(server);
        docker.cli(&["network", "rm", &network]).ok();
    });
}

#[test]
fn connect_and_disconnect_while_it_runs() {
    both(|docker| {
        let network = unique(docker.runtime);
        docker.cli(&["network", "create", "--internal", &network]).ok();
        let container = docker.sleeping("");
        docker.cli(&["network", "connect", &network, &container.name]).ok();
        assert_eq!(container.says("", "ls /sys/class/net | xargs"), "eth0 eth1 lo");
        docker.cli(&["network", "disconnect", &network, &container.name]).ok();
        assert_eq!(container.says("", "ls /sys/class/net | xargs"), "eth0 lo");
        drop(container);
        docker.cli(&["network", "rm", &network]).ok();
    });
}
