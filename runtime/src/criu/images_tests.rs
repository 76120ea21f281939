// SPDX-License-Identifier: Apache-2.0
//! Folders of images that others can change, and what does not belong into one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wsbox-images-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let folder = Self(path);
        folder.mode("", 0o700);
        folder
    }

    /// Another folder in this one.
    fn parent(&self) -> &Self {
        fs::create_dir(self.0.join("parent")).unwrap();
        self.mode("parent", 0o700);
        self
    }

    fn file(&self, name: &str, content: &str) -> &Self {
        fs::write(self.0.join(name), content).unwrap();
        self.mode(name, 0o600);
        self
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.0.join(name), Permissions::from_mode(mode)).unwrap();
    }

    fn open(&self) -> Result<Images> {
        Images::open("--image-path", &self.0)
    }

    fn fails(&self, words: &str) {
        let error = self.open().err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_others_can_write_is_refused() {
    let folder = Folder::new("mode");
    folder.file("core-1.img", "core").parent().file("parent/pages-1.img", "pages");
    assert!(folder.open().is_ok());
    for (name, before) in [("", 0o700), ("core-1.img", 0o600), ("parent", 0o700), ("parent/pages-1.img", 0o600)] {
        for more in [0o020, 0o002] {
            folder.mode(name, before | more);
            folder.fails("can be written by others");
            folder.mode(name, before);
        }
    }
    assert!(folder.open().is_ok());
}

#[test]
fn what_belongs_to_others_is_refused() {
    if !Uid::effective().is_root() {
        return;
    }
    let folder = Folder::new("owner");
    folder.file("core-1.img", "core").parent().file("parent/pages-1.img", "pages");
    for name in ["", "core-1.img", "parent", "parent/pages-1.img"] {
        chown(folder.0.join(name), Some(1000), None).unwrap();
        folder.fails("belongs to uid 1000");
        chown(folder.0.join(name), Some(0), None).unwrap();
    }
}

#[test]
fn links_are_refused() {
    let (folder, other) = (Folder::new("link"), Folder::new("linked"));
    symlink(&other.0, folder.0.join("parent")).unwrap();
    assert!(folder.open().is_ok());
    other.mode("", 0o777);
    folder.fails("/parent: can be written by others");
    other.mode("", 0o700);
    symlink("/etc/shadow", folder.0.join("core-1.img")).unwrap();
    folder.fails("core-1.img: is a symbolic link");
    let link = folder.0.with_extension("link");
    symlink(&other.0, &link).unwrap();
    let opened = Images::open("--image-path", &link).err().unwrap().to_string();
    fs::remove_file(&link).unwrap();
    assert!(opened.contains("symbolic link"), "{opened}");
}

#[test]
fn a_pre_dump_is_looked_at_before() {
    let (folder, other) = (Folder::new("new"), Folder::new("before"));
    let relative = Path::new("..").join(other.0.file_name().unwrap());
    assert!(folder.open().unwrap().check_parent(&relative).is_ok());
    other.file("pages-1.img", "pages").mode("pages-1.img", 0o666);
    let error = folder.open().unwrap().check_parent(&relative).err().unwrap().to_string();
    assert!(error.starts_with("--parent-path ") && error.contains("pages-1.img: can be written"), "{error}");
}

#[test]
fn files_are_read_and_written_whole() {
    let folder = Folder::new("files");
    let images = folder.open().unwrap();
    symlink("/no/such", folder.0.join("wsbox.json.tmp")).unwrap();
    images.room("wsbox.json", 0).unwrap().write(b"one").unwrap();
    // Shorter or longer than its room; and one that was never written leaves nothing.
    images.room("wsbox.json", 1).unwrap().write(b"other").unwrap();
    images.room("wsbox.json", 9000).unwrap().write(b"two").unwrap();
    drop(images.room("wsbox.json", 9000).unwrap());
    assert_eq!(images.read("wsbox.json", 3).unwrap(), b"two");
    let mode = fs::metadata(folder.0.join("wsbox.json")).unwrap().permissions().mode();
    assert_eq!((mode & 0o777, fs::read_dir(&folder.0).unwrap().count()), (0o600, 1));
    assert!(images.read("wsbox.json", 2).unwrap_err().to_string().contains("is longer than 2 bytes"));
    nix::unistd::mkfifo(&folder.0.join("fifo"), Mode::S_IRWXU).unwrap();
    assert!(images.read("fifo", 9).unwrap_err().to_string().contains("is no regular file"));
    symlink("wsbox.json", folder.0.join("link")).unwrap();
    assert!(images.read("link", 9).is_err());
}

#[test]
fn a_listing_is_of_images_alone() {
    let folder = Folder::new("listing");
    folder.file("core-1.img", "core").file("dump.log", "log").parent().file("parent/pages-1.img", "pages");
    let images = folder.open().unwrap();
    let listing = images.listing(true).unwrap();
    assert_eq!((listing.images, listing.bytes), (2, 9));
    let fails = |words: &str| {
        let error = images.check(&listing).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    folder.file("dump.log", "longer");
    assert!(images.check(&listing).is_ok());
    folder.file("core-1.img", "cor");
    fails("has 2 images of 8 bytes, criu wrote 2 of 9");
    // The same together, and not each.
    folder.file("parent/pages-1.img", "pages!");
    fails("has 2 images of 9 bytes, criu wrote 2 of 9");
    folder.file("core-1.img", "core").file("parent/pages-1.img", "pages").file("core-2.img", "");
    fails("has 3 images of 9 bytes");
    let elsewhere = images.listing(false).unwrap();
    folder.file("pages-2.img", "from a page server").file("pagemap-2.img", "");
    assert!(images.check(&elsewhere).is_ok());
}

#[test]
fn links_to_pre_dumps_are_looked_at_on_their_way() {
    let (folder, other) = (Folder::new("far"), Folder::new("open"));
    other.parent().file("parent/pages-1.img", "pages");
    symlink(other.0.join("parent"), folder.0.join("parent")).unwrap();
    assert!(folder.open().is_ok());
    other.mode("", 0o777);
    folder.fails(&format!("/parent: {} above it can be written by others (mode 0777)", other.0.display()));
    other.mode("", 0o700);
}
