//! placeholder
#![allow(missing_docs)]
use std::os::fd::*; use std::path::*; use nix::unistd::Pid; use serde::*; use crate::Result; use crate::error::Context;
#[derive(Debug, Clone)] pub struct Host; impl Host { pub fn detect() -> Result<Host> { Ok(Host) } pub fn v1_hierarchies(&self) -> Result<Vec<String>> { Ok(vec![]) } }
#[derive(Debug, Clone)] pub struct Plan(String);
#[derive(Debug, Clone, Serialize, Deserialize)] pub struct Saved(String);
impl Plan { pub fn new(p: Option<&Path>, id: &str, _: Option<&oci_spec::runtime::LinuxResources>) -> Result<Plan> { Ok(Plan(format!("/sys/fs/cgroup/unified/{}", p.map(|p| p.display().to_string()).unwrap_or(format!("wsbox/{id}"))))) } pub fn saved(&self, _: &Host) -> Saved { Saved(self.0.clone()) } }
#[derive(Debug)] pub struct Cgroup(OwnedFd, String);
pub struct Limits { pub pids_max: Option<u64>, pub memory_max: Option<u64>, pub cpu: Option<(u64, u64)> }
impl Cgroup {
 pub fn create(_: &Host, p: &Plan) -> Result<Cgroup> { std::fs::create_dir_all(&p.0).context(|| "x".into())?; Self::open(&Saved(p.0.clone())) }
 pub fn open(s: &Saved) -> Result<Cgroup> { Ok(Cgroup(std::fs::File::open(&s.0).context(|| "cg".into())?.into(), s.0.clone())) }
 pub fn clone_fd(&self) -> BorrowedFd<'_> { self.0.as_fd() }
 pub fn join(&self, _: Pid) -> Result<()> { Ok(()) }
 pub fn freeze(&self) -> Result<()> { std::fs::write(format!("{}/cgroup.freeze", self.1), "1").context(|| "f".into()) }
 pub fn thaw(&self) -> Result<()> { std::fs::write(format!("{}/cgroup.freeze", self.1), "0").context(|| "f".into()) }
 pub fn frozen(&self) -> Result<bool> { Ok(std::fs::read_to_string(format!("{}/cgroup.freeze", self.1)).context(|| "f".into())?.trim() == "1") }
 pub fn kill_all(&self) -> Result<()> { std::fs::write(format!("{}/cgroup.kill", self.1), "1").context(|| "k".into()) }
 pub fn procs(&self) -> Result<Vec<Pid>> { Ok(std::fs::read_to_string(format!("{}/cgroup.procs", self.1)).context(|| "f".into())?.lines().map(|l| Pid::from_raw(l.parse().unwrap_or(0))).collect()) }
 pub fn remove(&self) -> Result<()> { for _ in 0..100 { if std::fs::remove_dir(&self.1).is_ok() { return Ok(()) } std::thread::sleep(std::time::Duration::from_millis(2)); } Ok(()) }
 pub fn limits(&self) -> Result<Limits> { Ok(Limits { pids_max: None, memory_max: None, cpu: None }) }
}
