// SPDX-License-Identifier: Apache-2.0
//! The root that an engine prepares is an overlay, which no mount can id-map (mount_setattr(2)). Its layers can be: each is
//! cloned and id-mapped, and a new overlay is made of them, which shows the image as the container's ids own it. The engine's
//! writable layer is the topmost of the read-only ones; above it is a small tmpfs for mount points. A bundle of wsbox's own names its
//! layers itself.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, fchown};

use super::idmap;
use super::sources::host_id;
use crate::error::{Context, Error, Result};
use crate::plan::step::c_string;
use crate::plan::{BindAttr, IdMaps};
use crate::sys::mount::{MountAttr, attr, fsconfig, fsconfig_fd, fsmount, fsopen, mount_setattr, open_tree};

const FIELD: &str = "root.path";
/// Mount points are folders and empty files.
const MOUNT_POINTS: [(&std::ffi::CStr, &std::ffi::CStr); 3] =
    [(c"size", c"1m"), (c"nr_inodes", c"4096"), (c"mode", c"700")];
/// Whiteouts and opaque folders by attributes that a user may set, as `wsbox bundle create` does.
const USER_XATTR: &str = "userxattr";
/// What of the engine's options says how its layers are to be read (Documentation/filesystems/overlayfs.rst).
const KEPT: [&str; 3] = [USER_XATTR, "metacopy", "redirect_dir"];

/// Whether `root` lies on an overlay.
pub fn is_one(root: BorrowedFd<'_>) -> Result<bool> {
    Ok(fstatfs(root).context(|| FIELD.into())?.filesystem_type() == OVERLAYFS_SUPER_MAGIC)
}

/// A detached overlay of the layers of the one at `root`, each id-mapped by `user`, with the attributes that `wanted` has.
///
/// # Errors
/// If the root is to be writable, is not the top of its overlay, or lies on layers that can not be found or mapped again.
pub fn id_mapped(root: BorrowedFd<'_>, user: &OwnedFd, maps: &IdMaps, wanted: &BindAttr) -> Result<OwnedFd> {
    if wanted.set_all & attr::RDONLY == 0 {
        let why = "an overlay can not be id-mapped but read-only: what is written would miss its writable layer";
        return Err(Error::invalid("root.readonly", why)
            .hint("set it (docker run --read-only), give linux.uidMappings, or with Docker set userns-remap"));
    }
    let overlay = Overlay::at(root)?;
    let layers = overlay.layers.iter().map(|path| layer(path, Some(user))).collect::<Result<Vec<_>>>()?;
    writable(&overlay.options, &layers, &fstat(root).context(|| FIELD.into())?, Some(maps), wanted)
}

/// A detached overlay of the folders `layers`, the uppermost first, each id-mapped by `user`, if there is one.
///
/// # Errors
/// If a layer is not there, or the kernel can not make an overlay of detached mounts.
pub fn of_layers(layers: &[PathBuf], user: Option<(&OwnedFd, &IdMaps)>, wanted: &BindAttr) -> Result<OwnedFd> {
    let trees = layers.iter().map(|path| layer(path, user.map(|(user, _)| user))).collect::<Result<Vec<_>>>();
    let trees = trees.map_err(|error| error.hint("`wsbox bundle create` makes the bundle and its layers anew"))?;
    let top = open(&layers[0])?;
    let stat = fstat(&top).context(|| FIELD.into())?;
    writable(&[USER_XATTR.into()], &trees, &stat, user.map(|(_, maps)| maps), wanted)
        .map_err(|error| error.hint("`wsbox bundle create --copy` makes a bundle without layers"))
}

/// What the layers show together, as the host owns it: for reading.
///
/// # Errors
/// As [`of_layers`].
pub fn image(layers: &[PathBuf]) -> Result<OwnedFd> {
    // The kernel takes no overlay of one read-only layer alone.
    if let [only] = layers {
        return open(only);
    }
    let trees = layers.iter().map(|path| layer(path, None)).collect::<Result<Vec<_>>>()?;
    let context = stack(&[USER_XATTR.into()], &trees)?;
    fsmount(&context, attr::RDONLY | attr::NODEV | attr::NOSUID | attr::NOEXEC)
        .context(|| format!("{FIELD}: overlay of its layers"))
}

/// An overlay with a tmpfs for mount points on top. The kernel dissolves a detached mount with its last descriptor, so all live until
/// the overlay is made.
fn writable(
    options: &[String],
    layers: &[OwnedFd],
    top: &FileStat,
    maps: Option<&IdMaps>,
    wanted: &BindAttr,
) -> Result<OwnedFd> {
    let context = stack(options, layers)?;
    let scratch = Scratch::new(top, maps)?;
    fsconfig_fd(&context, c"upperdir", &scratch.upper).map_err(old_kernel)?;
    fsconfig_fd(&context, c"workdir", &scratch.work).map_err(old_kernel)?;
    fsmount(&context, wanted.set_all & !attr::RDONLY).context(|| format!("{FIELD}: overlay of its layers"))
}

fn stack(options: &[String], layers: &[OwnedFd]) -> Result<OwnedFd> {
    let context = fsopen(c"overlay").context(|| format!("{FIELD}: fsopen overlay"))?;
    // Other mounts have these layers in use, too.
    for option in ["source=overlay", "index=off"].into_iter().chain(options.iter().map(String::as_str)) {
        set(&context, option)?;
    }
    layers.iter().try_for_each(|layer| fsconfig_fd(&context, c"lowerdir+", layer)).map_err(old_kernel)?;
    Ok(context)
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(AT_FDCWD, path, flags, Mode::empty()).context(|| format!("{FIELD}: layer {}: open", path.display()))
}

fn set(context: &OwnedFd, option: &str) -> Result<()> {
    let (key, value) = option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
    let value = value.map(|value| c_string(FIELD, value)).transpose()?;
    fsconfig(context, &c_string(FIELD, key)?, value.as_deref()).context(|| format!("{FIELD}: overlay option {option}"))
}

fn old_kernel(errno: Errno) -> Error {
    let error = Error::system(format!("{FIELD}: layers of an overlay by file descriptor"), errno);
    error.hint("it takes Linux 6.15 or later; give linux.uidMappings, or with Docker set userns-remap")
}

/// A detached copy of the folder of a layer, id-mapped by `user`.
fn layer(path: &Path, user: Option<&OwnedFd>) -> Result<OwnedFd> {
    let field = format!("{FIELD}: layer {}", path.display());
    let from = open(path)?;
    let tree = open_tree(&from, false).context(|| format!("{field}: clone the mount"))?;
    let attributes = MountAttr {
        set: attr::RDONLY | user.map_or(0, |_| attr::IDMAP),
        propagation: libc::MS_PRIVATE,
        userns_fd: user.map_or(0, |user| user.as_raw_fd() as u64),
        ..MountAttr::default()
    };
    mount_setattr(&tree, &attributes, false).map_err(|errno| match user {
        Some(user) => idmap::refused(&field, errno, from.as_fd(), false, user).hint(format!(
            "let the engine keep its images on a disk whose file system can be; or {}",
            idmap::ELSEWHERE
        )),
        None => Error::system(format!("{field}: mount options"), errno),
    })?;
    Ok(tree)
}

/// The folders that a writable overlay needs, on a tmpfs of their own.
struct Scratch {
    /// Keeps the detached mount alive
    _mount: OwnedFd,
    upper: OwnedFd,
    work: OwnedFd,
}

impl Scratch {
    /// The top of the overlay is owned as its uppermost layer is: as `root` is, in the container's ids.
    fn new(top: &FileStat, maps: Option<&IdMaps>) -> Result<Self> {
        let context = || format!("{FIELD}: tmpfs for mount points");
        let tmpfs = fsopen(c"tmpfs").context(context)?;
        MOUNT_POINTS.iter().try_for_each(|(key, value)| fsconfig(&tmpfs, key, Some(value))).context(context)?;
        let mount = fsmount(&tmpfs, attr::NODEV | attr::NOSUID | attr::NOEXEC).context(context)?;
        let folder = |name| {
            mkdirat(&mount, name, Mode::S_IRWXU)?;
            openat(&mount, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        };
        let (upper, work) = (folder("upper").context(context)?, folder("work").context(context)?);
        let scratch = Self { _mount: mount, upper, work };
        let uid = maps.map_or(Ok(top.st_uid), |maps| host_id(&maps.uid, top.st_uid, FIELD))?;
        let gid = maps.map_or(Ok(top.st_gid), |maps| host_id(&maps.gid, top.st_gid, FIELD))?;
        fchown(&scratch.upper, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).context(context)?;
        fchmod(&scratch.upper, Mode::from_bits_truncate(top.st_mode)).context(context)?;
        Ok(scratch)
    }
}

/// What the kernel says of a mounted overlay.
#[derive(Debug, PartialEq, Eq)]
struct Overlay {
    /// The folders of its layers, the uppermost first
    layers: Vec<PathBuf>,
    /// Those of [`KEPT`] that it has
    options: Vec<String>,
}

impl Overlay {
    #[expect(clippy::disallowed_methods, reason = "fixed files of the host's /proc")]
    fn at(root: BorrowedFd<'_>) -> Result<Self> {
        let of = |name: &str| format!("/proc/thread-self/{name}/{}", root.as_raw_fd());
        let read = |path: &str| fs::read(path).context(|| format!("{FIELD}: {path}"));
        let info = String::from_utf8_lossy(&read(&of("fdinfo"))?).into_owned();
        let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim).unwrap_or_default();
        let place = fs::read_link(of("fd")).context(|| FIELD.into())?;
        Self::parse(&read("/proc/thread-self/mountinfo")?, id, &place)
    }

    /// From the text of mountinfo (proc_pid_mountinfo(5)), for the mount `id` that has to be at `place`.
    fn parse(mounts: &[u8], id: &str, place: &Path) -> Result<Self> {
        let lines =
            || mounts.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b' ').collect::<Vec<_>>());
        let is = |field: Option<&&[u8]>, text: &[u8]| field.is_some_and(|field| *field == text);
        if let Some(below) = lines().find(|mount| is(mount.get(1), id.as_bytes()) && mount.len() > 4) {
            let why = format!(
                "{} is mounted below it, and an overlay of its layers would not have it",
                unescape(below[4]).display()
            );
            return Err(Error::invalid(FIELD, why));
        }
        let mount = lines().find(|mount| is(mount.first(), id.as_bytes())).unwrap_or_default();
        let top = is(mount.get(3), b"/") && mount.get(4).is_some_and(|point| unescape(point) == place);
        let (true, Some(options)) = (top, mount.last()) else {
            let why = "is a folder inside an overlay, which can not be id-mapped; only the top of one can be made anew";
            return Err(Error::invalid(FIELD, why).hint("copy it to another file system, or give linux.uidMappings"));
        };
        Self::from_options(options, place)
    }

    fn from_options(options: &[u8], place: &Path) -> Result<Self> {
        let mut overlay = Self { layers: Vec::new(), options: Vec::new() };
        let mut upper = None;
        for option in options.split(|byte| *byte == b',') {
            let at = option.iter().position(|byte| *byte == b'=');
            let (key, value) = at.map_or((option, &b""[..]), |at| (&option[..at], &option[at + 1..]));
            match key {
                b"upperdir" => upper = Some(unescape(value)),
                b"lowerdir" => overlay.layers.extend(lower(&unescape(value))?),
                b"lowerdir+" => overlay.layers.push(unescape(value)),
                b"datadir+" => return Err(data_layer()),
                _ if KEPT.iter().any(|kept| kept.as_bytes() == key) => {
                    overlay.options.push(String::from_utf8_lossy(option).into_owned());
                }
                _ => {}
            }
        }
        overlay.layers.splice(0..0, upper);
        let base = base(&overlay.layers, place)?;
        overlay.layers.iter_mut().for_each(|layer| *layer = base.join(&layer));
        Ok(overlay)
    }
}

/// The folders of `lowerdir=`: a colon divides them, unless a backslash stands before it.
fn lower(value: &Path) -> Result<Vec<PathBuf>> {
    let mut layers = vec![Vec::new()];
    let mut bytes = value.as_os_str().as_bytes().iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, layers.last_mut()) {
            (b'\\', Some(layer)) => layer.extend(bytes.next()),
            (b':', _) => layers.push(Vec::new()),
            (byte, Some(layer)) => layer.push(byte),
            (_, None) => {}
        }
    }
    if layers.iter().any(Vec::is_empty) {
        return Err(data_layer());
    }
    Ok(layers.into_iter().map(|layer| PathBuf::from(std::ffi::OsString::from_vec(layer))).collect())
}

fn data_layer() -> Error {
    Error::invalid(FIELD, "is an overlay with data-only layers, which wsbox does not make anew")
}

/// Where relative layers begin. Docker mounts many layers from its folder of them, by names that begin there, onto
/// NAME/merged in it; elsewhere nobody can say what they were relative to.
fn base(layers: &[PathBuf], place: &Path) -> Result<PathBuf> {
    if layers.iter().all(|layer| layer.is_absolute()) {
        return Ok(PathBuf::from("/"));
    }
    let own = place.parent().and_then(Path::file_name).unwrap_or(OsStr::new(""));
    let dockers = layers.first().is_some_and(|upper| upper.parent() == Some(Path::new(own)));
    match place.ancestors().nth(2).filter(|_| dockers) {
        Some(base) => Ok(base.to_owned()),
        None => {
            Err(Error::invalid(FIELD, "is an overlay whose layers have relative paths, and wsbox can not find them"))
        }
    }
}

/// A field of mountinfo: \ooo is a byte in octal.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        let (byte, used) = match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => (byte, 4),
            None => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[used..];
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "/var/lib/docker/overlay2/abc/merged";

    fn line(id: &str, parent: &str, root: &str, at: &str, options: &str) -> String {
        format!("{id} {parent} 0:50 {root} {at} rw,relatime shared:7 - overlay overlay rw,{options}\n")
    }

    fn parse(options: &str) -> Result<Overlay> {
        let other = line("60", "29", "/", "/elsewhere", "lowerdir=/x");
        Overlay::parse((other + &line("61", "29", "/", PLACE, options)).as_bytes(), "61", Path::new(PLACE))
    }

    fn layers(options: &str) -> Vec<String> {
        parse(options).unwrap().layers.iter().map(|layer| layer.display().to_string()).collect()
    }

    #[test]
    fn the_uppermost_layer_is_the_first() {
        assert_eq!(layers("lowerdir=/b:/a,upperdir=/c/diff,workdir=/c/work"), ["/c/diff", "/b", "/a"]);
        assert_eq!(layers("lowerdir=/b:/a"), ["/b", "/a"]);
        assert_eq!(layers("lowerdir+=/b,lowerdir+=/a:x,upperdir=/u,workdir=/w"), ["/u", "/b", "/a:x"]);
    }

    #[test]
    fn names_are_as_they_were_before_the_kernel_wrote_them() {
        assert_eq!(layers("lowerdir=/a\\040b:/c\\134:d,upperdir=/x\\012y"), ["/x\ny", "/a b", "/c:d"]);
    }

    #[test]
    fn relative_names_begin_where_docker_has_its_layers() {
        let found = layers("lowerdir=l/B:l/A,upperdir=abc/diff,workdir=abc/work");
        assert_eq!(found, ["abc/diff", "l/B", "l/A"].map(|layer| format!("/var/lib/docker/overlay2/{layer}")));
        for options in ["lowerdir=l/B:l/A", "lowerdir=l/B,upperdir=other/diff", "lowerdir=l/B,upperdir=/abc/diff"] {
            assert!(parse(options).unwrap_err().to_string().contains("relative paths"), "{options}");
        }
    }

    #[test]
    fn how_layers_are_read_is_kept() {
        let overlay = parse("lowerdir=/a,metacopy=on,redirect_dir=on,userxattr,volatile,xino=off").unwrap();
        assert_eq!(overlay.options, ["metacopy=on", "redirect_dir=on", "userxattr"]);
    }

    #[test]
    fn what_can_not_be_made_anew_is_refused() {
        assert!(parse("lowerdir=/a::/data").unwrap_err().to_string().contains("data-only"));
        assert!(parse("lowerdir+=/a,datadir+=/d").unwrap_err().to_string().contains("data-only"));
        let parse = |text: String| Overlay::parse(text.as_bytes(), "61", Path::new(PLACE)).unwrap_err().to_string();
        assert!(parse(line("61", "29", "/sub", PLACE, "lowerdir=/a")).contains("inside an overlay"));
        assert!(parse(line("61", "29", "/", "/elsewhere", "lowerdir=/a")).contains("inside an overlay"));
        let below = line("61", "29", "/", PLACE, "lowerdir=/a") + &line("62", "61", "/", "/merged/data", "size=1m");
        assert!(parse(below).contains("/merged/data is mounted below it"));
        assert!(parse(String::new()).contains("inside an overlay"));
    }
}
