// SPDX-License-Identifier: Apache-2.0
//! linux.netDevices (config-linux.md, "Network Devices"): an interface of the host becomes the container's, with its permanent,
//! global addresses. When the namespace ends the kernel gives a physical one back and destroys a virtual one.

use std::fs::File;
use std::os::fd::AsRawFd;

use libcontainer::network::NetworkError;
use libcontainer::network::address::AddressClient;
use libcontainer::network::cidr::CidrAddress;
use libcontainer::network::link::LinkClient;
use libcontainer::network::network_device::{
    dev_change_net_namespace, resolve_device_name, setup_addresses_in_network_namespace,
};
use libcontainer::network::wrapper::create_network_client;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNetDevice, LinuxNetDeviceBuilder};

use crate::error::{Context, Error, Kind, Result};
use crate::sys::net;

/// Interfaces on loan: until the payload runs, a failure gives them back.
#[derive(Debug)]
pub struct Lent {
    /// Keeps the namespace alive even if the init is dead, and what is in it
    namespace: File,
    /// The host's names, and the container's
    names: Vec<(String, String)>,
}

impl Lent {
    /// Nothing as yet, to the network namespace of process `pid`.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn to(pid: Pid) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        Ok(Self { namespace: File::open(&path).context(|| path)?, names: Vec::new() })
    }

    /// Lends interface `name`.
    ///
    /// # Errors
    /// What the kernel said; the interface is the host's then, and as it was.
    pub fn lend(&mut self, name: &str, device: &LinuxNetDevice) -> Result<()> {
        let inside = resolve_device_name(device, name).to_owned();
        let namespace = self.namespace.try_clone().context(|| "linux.netDevices".into())?;
        // First: should it fail half-way, it may be there already.
        self.names.push((name.to_owned(), inside));
        hand_over(name, device, namespace)
    }

    /// Takes all back, with their names and addresses; what can not be is left to the kernel.
    pub fn give_back(self) {
        let Ok(host) = File::open("/proc/thread-self/ns/net") else { return };
        let back = std::thread::spawn(move || {
            if setns(&self.namespace, CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            for (name, inside) in &self.names {
                let device = LinuxNetDeviceBuilder::default().name(name.as_str()).build();
                if let (Ok(device), Ok(host)) = (device, host.try_clone()) {
                    let _ = hand_over(inside, &device, host);
                }
            }
        });
        let _ = back.join();
    }
}

/// Moves interface `name` of this thread's network namespace into another.
fn hand_over(name: &str, device: &LinuxNetDevice, namespace: File) -> Result<()> {
    let field = format!("linux.netDevices.{name}");
    let was_up = is_up(name).context(|| field.clone())?;
    let was_up = was_up.ok_or_else(|| {
        Error::invalid(&field, "the host has no interface of that name").hint("`ip link` lists those that it has")
    })?;
    // Before it is taken down, which takes its IPv6 addresses: libcontainer looks afterwards.
    let addresses = permanent_addresses(name).map_err(|error| failed(&field, "read its addresses", &error))?;
    dev_change_net_namespace(name, namespace.as_raw_fd(), device).map_err(|error| {
        // It was taken down for the way.
        if was_up {
            let _ = up(name);
        }
        failed(&field, "move it into the container", &error)
    })?;
    let inside = resolve_device_name(device, name).to_owned();
    // A thread of its own joins the namespace: the caller's stay where they are.
    std::thread::spawn(move || finish(namespace, &inside, &addresses, &field, was_up))
        .join()
        .map_err(|_| Error::new(Kind::System, "linux.netDevices", "the thread panicked"))?
}

fn finish(namespace: File, name: &str, addresses: &[CidrAddress], field: &str, up_again: bool) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context(|| format!("{field}: join the network namespace"))?;
    let client = || create_network_client();
    let mut link = LinkClient::new(client()).map_err(|error| failed(field, "netlink", &error))?;
    let index = link.get_by_name(name).map_err(|error| failed(field, "find it in the container", &error))?.header.index;
    let mut address = AddressClient::new(client()).map_err(|error| failed(field, "netlink", &error))?;
    setup_addresses_in_network_namespace(addresses, index, name, &mut address)
        .map_err(|error| failed(field, "give it its addresses", &error))?;
    if up_again { link.set_up(index).map_err(|error| failed(field, "bring it up", &error)) } else { Ok(()) }
}

/// Those that are global and were not given for a time (config-linux.md, "Network Devices").
fn permanent_addresses(name: &str) -> Result<Vec<CidrAddress>, NetworkError> {
    let index = LinkClient::new(create_network_client())?.get_by_name(name)?.header.index;
    let found = AddressClient::new(create_network_client())?.get_by_index(index)?;
    // rtnetlink(7): RT_SCOPE_UNIVERSE; linux/if_addr.h: IFA_F_PERMANENT
    let stays = |scope: u8, flags: u32| scope == 0 && flags & 0x80 != 0;
    let addresses = found.iter().filter(|found| stays(found.header.scope.into(), found.header.flags.bits().into()));
    Ok(addresses.map(CidrAddress::from).collect())
}

fn up(name: &str) -> Option<()> {
    let mut link = LinkClient::new(create_network_client()).ok()?;
    let index = link.get_by_name(name).ok()?.header.index;
    link.set_up(index).ok()
}

/// None if there is no such interface.
fn is_up(name: &str) -> nix::Result<Option<bool>> {
    Ok(net::interfaces()?.into_iter().find(|(found, _)| found == name).map(|(_, up)| up))
}

/// libcontainer says `Netlink error: -17`.
fn failed(field: &str, step: &str, error: &dyn std::fmt::Display) -> Error {
    let (step, text) = (format!("{field}: {step}"), error.to_string());
    match text.rsplit_once('-').and_then(|(_, number)| number.parse().ok()) {
        Some(number) => Error::system(step, Errno::from_raw(number)),
        None => Error::new(Kind::System, step, text.to_lowercase()),
    }
}
