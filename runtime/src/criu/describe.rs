// SPDX-License-Identifier: Apache-2.0
//! wsbox.json beside the images: what a restore has to know of the container that criu does not keep, or not in words.

use std::collections::BTreeMap;

use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount, Spec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::descriptors;
use super::images::{Images, Listing};
use super::rights::{self, Rights};
use super::room::Room;
use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::mountinfo;
use crate::plan;
use crate::validate::clean;

pub const FILE: &str = "wsbox.json";
const VERSION: u32 = 3;
/// How long the file may be.
const MOST: u64 = 64 << 20;
/// More than the listing of the images takes.
const ROOM: u64 = 1 << 10;
/// Fields that criu restores as they were, whatever the bundle says by then.
const FIELDS: [&str; 19] = [
    "process.user",
    "process.capabilities",
    "process.noNewPrivileges",
    "process.rlimits",
    "process.oomScoreAdj",
    "process.scheduler",
    "process.apparmorProfile",
    "process.selinuxLabel",
    "root.readonly",
    "linux.maskedPaths",
    "linux.readonlyPaths",
    "linux.mountLabel",
    "linux.rootfsPropagation",
    "linux.sysctl",
    "linux.timeOffsets",
    "linux.personality",
    "linux.devices",
    "hostname",
    "domainname",
];

/// The content of the file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Description {
    version: u32,
    /// What the container was made with, by field
    fields: BTreeMap<String, Value>,
    /// A digest of its filter
    filter: Option<String>,
    /// criu's names for what the payload has as stdin, stdout and stderr from outside
    pub descriptors: [Option<String>; 3],
    /// Where it has mounts, and their options
    pub mounts: Vec<(String, String)>,
    /// What each of its threads may do
    pub rights: BTreeMap<String, Rights>,
    /// Whether nothing of its network namespace is in the images
    pub empty_network: bool,
    /// The images, once all of them are there
    pub images: Option<Listing>,
    /// Mounts that are not in the images: where, and criu's name for them
    pub external: Vec<(String, String)>,
}

impl Description {
    /// Looks at a container, whose filter is `filter` as it was saved.
    ///
    /// # Errors
    /// If its first process is gone, or a mount is not where the config has it.
    pub fn of(spec: &Spec, filter: Option<&[u8]>, pid: Pid, cgroup: &Cgroup) -> Result<Self> {
        let mounts = mountinfo::of(pid)?;
        Ok(Self {
            version: VERSION,
            fields: fields(spec)?,
            filter: filter.map(digest),
            descriptors: descriptors::of(pid, &mounts)?,
            empty_network: false,
            images: None,
            rights: rights::of(&cgroup.procs()?, pid)?,
            external: external(spec, &mounts)?,
            mounts: options(mounts),
        })
    }

    /// The first thread that gave up gaining rights by itself: criu before 3.18 would let it again.
    pub fn gave_up_by_itself(&self, spec: &Spec) -> Option<&str> {
        let asked = spec.process().as_ref().and_then(|process| process.no_new_privileges()).unwrap_or_default();
        let gave_up = |rights: &Rights| rights.get("NoNewPrivs").is_some_and(|value| value == "1");
        self.rights.iter().find(|(_, rights)| !asked && gave_up(rights)).map(|(number, _)| number.as_str())
    }

    /// Makes room for it, and removes that of an earlier dump: criu is about to write over its images.
    ///
    /// # Errors
    /// If there is none, or nobody would read as much again.
    pub fn begin(&self, images: &Images) -> Result<Room> {
        let most = serialized(self)?.len() as u64 + ROOM;
        if most > MOST {
            let why = format!("would be longer than {MOST} bytes, with {} threads", self.rights.len());
            return Err(Error::invalid(FILE, why).hint("end some of them"));
        }
        let room = images.room(FILE, most)?;
        images.forget()?;
        Ok(room)
    }

    /// Writes it whole.
    pub fn finish(&self, room: Room) -> Result<()> {
        room.write(&serialized(self)?)
    }

    /// Reads it.
    ///
    /// # Errors
    /// If there is none, or it is another version's, or of a checkpoint that did not come to its end.
    pub fn read(images: &Images) -> Result<Self> {
        let bytes = images.read(FILE, MOST);
        let bytes = bytes
            .map_err(|error| error.hint("only images of a `wsbox checkpoint` that came to its end can be restored"))?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if value["version"] != VERSION {
            return Err(bad(format!("is of version {}, this wsbox knows {VERSION}", value["version"])));
        }
        let found: Self = serde_json::from_value(value).map_err(|error| bad(error.to_string()))?;
        found.listing()?;
        match found.descriptors.iter().flatten().find(|name| !descriptors::is_name(name)) {
            Some(name) => Err(bad(format!("descriptors: {name:?} is no pipe, socket, file or tty of criu's"))),
            None => Ok(found),
        }
    }

    /// The images that belong to it.
    ///
    /// # Errors
    /// If it was never written whole.
    pub fn listing(&self) -> Result<&Listing> {
        self.images.as_ref().ok_or_else(|| bad("images: is missing".into()))
    }

    /// Compares it with the config that the container is to be restored with: criu restores what was.
    ///
    /// # Errors
    /// The first field that differs.
    pub fn must_match(&self, spec: &Spec, filter: Option<&[u8]>) -> Result<()> {
        let differs = |field: &str| {
            Error::invalid(field, "is not what the container was checkpointed with")
                .hint("criu restores what was: give the restore the same value")
        };
        let wanted = fields(spec)?;
        if let Some((field, _)) = wanted.iter().find(|(field, value)| self.fields.get(*field) != Some(*value)) {
            return Err(differs(field));
        }
        if self.filter != filter.map(digest) { Err(differs("linux.seccomp")) } else { Ok(()) }
    }
}

fn bad(why: String) -> Error {
    Error::invalid(FILE, why).hint("make the checkpoint again")
}

fn serialized(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::invalid(FILE, error.to_string()))
}

/// SHA-256, in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fields(spec: &Spec) -> Result<BTreeMap<String, Value>> {
    let whole = serde_json::to_value(spec).map_err(|error| Error::invalid("config.json", error.to_string()))?;
    let value = |field: &str| whole.pointer(&format!("/{}", field.replace('.', "/"))).cloned().unwrap_or_default();
    let mut fields: BTreeMap<_, _> = FIELDS.iter().map(|field| ((*field).to_owned(), sorted(value(field)))).collect();
    fields.insert("linux.namespaces".into(), namespaces(spec.linux().as_ref()));
    fields.insert("mounts".into(), spec.mounts().iter().flatten().map(mount).collect());
    Ok(fields)
}

/// The order of a list means nothing here; what is absent or empty asks for nothing.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<Value> = list.into_iter().map(sorted).collect();
            list.sort_by_key(Value::to_string);
            if list.is_empty() { Value::Null } else { list.into() }
        }
        Value::Object(map) => {
            let map: serde_json::Map<_, _> = map
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .filter(|(_, value)| !value.is_null())
                .collect();
            if map.is_empty() { Value::Null } else { map.into() }
        }
        Value::Bool(false) => Value::Null,
        Value::String(text) if text.is_empty() => Value::Null,
        value => value,
    }
}

/// Which are new and which are joined: the path of one that is joined may be another.
fn namespaces(linux: Option<&Linux>) -> Value {
    let all = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let joined = |path: &Option<std::path::PathBuf>| path.as_ref().is_some_and(|path| !path.as_os_str().is_empty());
    sorted(
        all.iter()
            .map(|one| json!([format!("{:?}", one.typ()), if joined(one.path()) { "joined" } else { "new" }]))
            .collect(),
    )
}

/// Where a tree of the host comes from may be another, too.
fn mount(mount: &Mount) -> Value {
    json!([mount.destination(), mount.typ(), sorted(json!(mount.options()))])
}

/// The places of mounts with their options, sorted.
pub fn options(mounts: Vec<mountinfo::Mount>) -> Vec<(String, String)> {
    let mut places: Vec<_> = mounts.into_iter().map(|mount| (mount.place, mount.options)).collect();
    places.sort();
    places
}

/// Every mount whose content is not in the images: binds with what lies below them, masks, a cgroup that is a bind.
fn external(spec: &Spec, mounts: &[mountinfo::Mount]) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for (at, wanted) in spec.mounts().iter().flatten().enumerate() {
        let place = clean(&wanted.destination().to_string_lossy());
        let own_cgroup = wanted.typ().as_deref() == Some("cgroup") && !new_cgroup_namespace(spec);
        if !plan::is_bind(wanted) && !own_cgroup {
            continue;
        }
        let field = format!("mounts[{at}].destination");
        if !mounts.iter().any(|mount| mount.place == place) {
            return Err(Error::invalid(field, "is reached through a symbolic link of the image")
                .hint("name the place that it leads to"));
        }
        let others =
            spec.mounts().iter().flatten().skip(at + 1).map(|other| clean(&other.destination().to_string_lossy()));
        let others: Vec<String> = others.collect();
        let below = mounts.iter().filter(|mount| is_at_or_below(&mount.place, &place));
        // A later mount of the config's is one of its own.
        let below = below.filter(|mount| !others.iter().any(|other| is_at_or_below(&mount.place, other)));
        found.extend(below.map(|mount| (mount.place.clone(), name(at, &mount.place[place.len()..]))));
    }
    found.extend(masked(spec, mounts));
    Ok(found)
}

fn new_cgroup_namespace(spec: &Spec) -> bool {
    spec.linux().as_ref().is_some_and(|linux| plan::is_new(linux, LinuxNamespaceType::Cgroup))
}

fn is_at_or_below(place: &str, top: &str) -> bool {
    place.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// criu's name for the mount of `mounts[at]`, and for one below it.
pub fn name(at: usize, below: &str) -> String {
    format!("wsbox-mount-{at}{below}")
}

/// criu's names for what covers a file and a directory.
pub const MASKS: [(&str, &str); 2] = [("/file", "wsbox-empty/file"), ("/dir", "wsbox-empty/dir")];

fn masked(spec: &Spec, mounts: &[mountinfo::Mount]) -> Vec<(String, String)> {
    let paths = spec.linux().as_ref().and_then(|linux| linux.masked_paths().as_deref()).unwrap_or_default();
    let mask = |mount: &mountinfo::Mount| {
        let (_, name) = MASKS.iter().find(|(root, _)| mount.kind == "tmpfs" && mount.root == *root)?;
        paths.contains(&mount.place).then(|| (mount.place.clone(), (*name).to_owned()))
    };
    mounts.iter().filter_map(mask).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_empty_are_the_same() {
        assert_eq!(sorted(json!({"a": [], "b": false, "c": ""})), Value::Null);
        assert_eq!(sorted(json!(["b", "a"])), json!(["a", "b"]));
    }

    fn described() -> Value {
        json!({"version": VERSION, "fields": {}, "filter": null, "descriptors": ["pipe:[7]", null, null],
            "mounts": [], "rights": {}, "empty_network": false, "images": {"images": 1, "bytes": 1, "digest": "", "memory": true}, "external": []})
    }

    fn parsed(pointer: &str, value: Value) -> Result<Description> {
        let mut all = described();
        *all.pointer_mut(pointer).unwrap() = value;
        Description::parse(all.to_string().as_bytes())
    }

    #[test]
    fn without_its_images_it_is_refused() {
        assert!(parsed("/filter", Value::Null).is_ok());
        assert!(parsed("/images", Value::Null).unwrap_err().to_string().contains("images: is missing"));
        assert!(parsed("/images", json!({})).is_err());
        assert!(parsed("/version", json!(1)).unwrap_err().to_string().contains("is of version 1"));
    }

    #[test]
    fn only_criu_s_names_of_descriptors() {
        assert!(parsed("/descriptors/0", json!("tty[880:1]")).is_ok());
        let error = parsed("/descriptors/0", json!("/etc/shadow")).unwrap_err().to_string();
        assert!(error.contains("descriptors: "), "{error}");
    }

    #[test]
    fn what_criu_restores_must_be_the_same() {
        let spec = |value: Value| -> Spec { serde_json::from_value(value).unwrap() };
        let plain =
            || json!({"ociVersion": "1.2.0", "linux": {}, "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}}});
        let mut description: Description = serde_json::from_value(described()).unwrap();
        description.fields = fields(&spec(plain())).unwrap();
        assert!(description.must_match(&spec(plain()), None).is_ok());
        let scheduler = json!({"policy": "SCHED_BATCH", "nice": 3});
        let device = json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
        for (parent, key, value) in [
            ("/process", "oomScoreAdj", json!(-500)),
            ("/process", "scheduler", scheduler),
            ("/linux", "devices", device),
            ("", "hostname", json!("other")),
            ("", "domainname", json!("other")),
        ] {
            let mut changed = plain();
            changed.pointer_mut(parent).unwrap()[key] = value;
            let error = description.must_match(&spec(changed), None).unwrap_err().to_string();
            assert!(error.contains(&format!("{key}: is not what")), "{error}");
        }
    }

    #[test]
    fn a_place_below() {
        assert!(is_at_or_below("/a", "/a") && is_at_or_below("/a/b", "/a"));
        assert!(!is_at_or_below("/ab", "/a") && !is_at_or_below("/", "/a"));
    }
}
