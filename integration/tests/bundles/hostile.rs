// SPDX-License-Identifier: Apache-2.0
//! Archives made to do harm: one clear error, or a tree that keeps to itself; nothing outside of it, and no bundle.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{EntryType, Header};
use wsbox_integration::Canary;

use crate::world::World;

/// An entry, whatever its name.
fn entry(kind: EntryType, name: &str, link: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

fn archive(entries: &[(Header, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (header, content) in entries {
        bytes.extend(header.as_bytes());
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn file(name: &str) -> (Header, &'static [u8]) {
    (entry(EntryType::Regular, name, "", 4), b"evil")
}

fn link(kind: EntryType, name: &str, to: &str) -> (Header, &'static [u8]) {
    (entry(kind, name, to, 0), b"")
}

fn folder(name: &str) -> (Header, &'static [u8]) {
    link(EntryType::Directory, name, "")
}

/// Both as a copy and as a layer.
fn refused(bytes: &[u8], flags: &[&str], words: &[&str]) {
    let world = World::new();
    fs::write(world.path("hostile.tar"), bytes).unwrap();
    for copy in [&[][..], &["--copy"]] {
        world.create("{}/hostile.tar", "out", &[copy, flags].concat()).fails(1, words);
        world.assert_clean("out");
    }
}

#[test]
fn paths_that_lead_out() {
    let canary = Canary::new();
    let absolute = canary.path().join("x").display().to_string();
    refused(&archive(&[file(&absolute)]), &[], &["is an absolute path"]);
    refused(&archive(&[file("../x")]), &[], &["\"..\""]);
    refused(&archive(&[file("a/../../x")]), &[], &["\"..\""]);
    refused(&archive(&[link(EntryType::Link, "x", "/etc/passwd")]), &[], &["is an absolute path"]);
    refused(&archive(&[link(EntryType::Link, "x", "../../etc/passwd")]), &[], &["\"..\""]);
    refused(&archive(&[file("a/.wh..")]), &[], &["hides what is no file"]);
    refused(&archive(&[file("a/.wh...")]), &[], &["hides what is no file"]);
    refused(&archive(&[file(".wh.")]), &[], &["hides what is no file"]);
    canary.assert_untouched();
}

/// What only leads out of the tree for who follows links as the host would is taken, and stays inside.
#[test]
fn links_lead_nowhere() {
    let canary = Canary::new();
    let out = canary.path().display().to_string();
    let tricks: [&[(Header, &[u8])]; 5] = [
        &[link(EntryType::Symlink, "d", &out), file("d/x")],
        &[folder("d"), link(EntryType::Symlink, "d", &out), file("d/x")],
        &[link(EntryType::Symlink, "l", &format!("../../../..{out}")), file("l/x")],
        &[link(EntryType::Symlink, "f", &format!("{out}/file")), link(EntryType::Link, "h", "f"), file("h")],
        &[link(EntryType::Symlink, "w", &out), file("w/.wh.file"), file("w/.wh..wh..opq")],
    ];
    for trick in tricks {
        let world = World::new();
        fs::write(world.path("hostile.tar"), archive(trick)).unwrap();
        for (name, flags) in [("copied", &["--copy"][..]), ("shared", &[])] {
            let outcome = world.create("{}/hostile.tar", name, flags);
            if outcome.code != 0 {
                outcome.fails(1, &["entry"]);
                world.assert_clean(name);
            }
        }
        canary.assert_untouched();
    }
}

/// By links on the way a tree may be deeper than any name in it, and who removes it would hold each folder open.
#[test]
fn trees_without_end() {
    let step: String = vec!["d"; 40].join("/");
    let mut entries = Vec::new();
    for at in 0..20 {
        let place = if at == 0 { step.clone() } else { format!("l{}/{step}", at - 1) };
        entries.push(link(EntryType::Symlink, &format!("l{at}"), &place));
        entries.push(folder(&place));
    }
    refused(&archive(&entries), &[], &["is deeper than 500 folders"]);
}

/// The names are in the terminal's own language.
#[test]
fn words_for_the_terminal() {
    let record = "30 SCHILY.xattr.\x1b]0;x\x07=abc\n";
    let record = format!("{}{}", record.len(), &record[2..]);
    let bytes = archive(&[(entry(EntryType::XHeader, "pax", "", record.len() as u64), record.as_bytes()), file("a")]);
    let world = World::new();
    fs::write(world.path("t.tar"), bytes).unwrap();
    let outcome = world.create("{}/t.tar", "out", &["--copy"]).ok();
    assert!(outcome.stderr.contains("\\u{1b}]0;x") && !outcome.stderr.contains('\x1b'), "{outcome:?}");
}

#[test]
fn documents_that_are_two_things() {
    let world = World::new();
    world.layout();
    let index = world.index();
    let manifest = index["manifests"][0].clone();
    let path = world.path("layout/blobs").join(manifest["digest"].as_str().unwrap().replace(':', "/"));
    let mut text: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let kind = manifest["mediaType"].as_str().unwrap();
    let with = |text: &Value| {
        let mut index = index.clone();
        index["manifests"][0] = world.put(kind, text.to_string().as_bytes());
        index["manifests"][0]["annotations"] = manifest["annotations"].clone();
        world.set_index(&index);
        world.create("oci:{}/layout:app", "out", &[])
    };
    text["mediaType"] = "application/vnd.oci.image.index.v1+json".into();
    with(&text).fails(1, &["calls itself application/vnd.oci.image.index.v1+json"]);
    text["mediaType"] = kind.into();
    text["manifests"] = json!([]);
    with(&text).fails(1, &["is an index and a manifest at once"]);
}

#[test]
fn a_link_to_a_file_that_is_not_there() {
    refused(&archive(&[file("a"), link(EntryType::Link, "b", "none")]), &[], &[]);
}

#[test]
fn nodes_and_unknown_kinds() {
    let device = |name: &str| {
        let mut header = entry(EntryType::Block, name, "", 0);
        header.set_device_major(8).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        (header, &b""[..])
    };
    refused(&archive(&[device("disk")]), &[], &["is a device node outside /dev"]);
    refused(&archive(&[link(EntryType::new(b'Q'), "x", "")]), &[], &["unknown type"]);
    let world = World::new();
    fs::write(world.path("t.tar"), archive(&[folder("dev"), device("dev/sda"), file("a")])).unwrap();
    let outcome = world.create("{}/t.tar", "out", &["--copy"]).ok();
    assert!(outcome.stderr.contains("left out: device nodes"), "{outcome:?}");
    assert!(world.path("out/rootfs/a").exists() && !world.path("out/rootfs/dev/sda").exists());
}

/// A sparse file of the old GNU kind: a terabyte in the tar's 4 bytes.
#[test]
fn a_huge_sparse_file() {
    let sparse = |real: u64| {
        let mut header = entry(EntryType::GNUSparse, "huge", "", 512);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(real);
        gnu.sparse[0].set_offset(real - 512);
        gnu.sparse[0].set_length(512);
        header.set_cksum();
        (header, &[7_u8; 512][..])
    };
    refused(&archive(&[sparse(1 << 40)]), &[], &["huge", "--max-size"]);
    let world = World::new();
    fs::write(world.path("t.tar"), archive(&[sparse(1 << 30)])).unwrap();
    world.create("{}/t.tar", "out", &["--copy"]).ok();
    let found = fs::metadata(world.path("out/rootfs/huge")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(found.len(), 1 << 30);
    assert!(found.blocks() * 512 < 1 << 20, "its holes are holes: {}", found.blocks());
}

#[test]
fn bombs() {
    // 64 MB of nothing in 64 KB.
    let size = 64 << 20;
    let mut bytes = entry(EntryType::Regular, "zeros", "", size).as_bytes().to_vec();
    bytes.resize(bytes.len() + size as usize + 1024, 0);
    refused(&gzip(&bytes), &["--max-size", "1m"], &["zeros", "--max-size"]);
    let many: Vec<_> =
        (0..2000).map(|number| (entry(EntryType::Directory, &format!("d{number}"), "", 0), &b""[..])).collect();
    refused(&archive(&many), &["--max-entries", "1000"], &["more than 1000 entries", "--max-entries"]);
    // What is no file counts, too: a name of 100 MB.
    let mut name = entry(EntryType::GNULongName, "././@LongLink", "", 100 << 20).as_bytes().to_vec();
    name.resize(name.len() + (100 << 20), b'a');
    name.resize(name.len() + 1024, 0);
    refused(
        &gzip(&name),
        &["--max-size", "1m", "--max-entries", "10"],
        &["longer than --max-size and --max-entries allow"],
    );
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

#[test]
fn what_is_cut_or_no_archive() {
    let whole = archive(&[folder("a"), (entry(EntryType::Regular, "a/b", "", 100_000), &[1; 100_000])]);
    refused(&whole[..50_000], &[], &[]);
    let packed = gzip(&whole);
    refused(&packed[..packed.len() / 2], &[], &[]);
    refused(
        b"this is no archive at all, but it has more than 512 bytes".repeat(20).as_slice(),
        &[],
        &["not a tar archive"],
    );
    refused(b"", &[], &["not a tar archive"]);
    // At the border of an entry.
    refused(&whole[..512], &[], &["has no end"]);
}

/// Changes one document of umoci's layout.
fn changed(change: impl Fn(&World, &mut Value)) -> World {
    let world = World::new();
    world.layout();
    let mut index = world.index();
    change(&world, &mut index);
    world.set_index(&index);
    world
}

fn blob(world: &World, descriptor: &Value) -> std::path::PathBuf {
    world.path("layout/blobs/sha256").join(descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:"))
}

fn manifest(world: &World, index: &Value) -> Value {
    serde_json::from_slice(&fs::read(blob(world, &index["manifests"][0])).unwrap()).unwrap()
}

fn put(world: &World, kind: &str, document: &Value) -> Value {
    world.put(kind, &serde_json::to_vec(document).unwrap())
}

fn fails(world: &World, words: &[&str]) {
    for copy in [&[][..], &["--copy"]] {
        world.create("oci:{}/layout", "out", copy).fails(1, words);
        world.assert_clean("out");
    }
}

#[test]
fn content_that_is_not_what_its_digest_says() {
    let world = changed(|world, index| {
        let layer = manifest(world, index)["layers"][0].clone();
        let path = blob(world, &layer);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    });
    fails(&world, &["layer sha256:", "the content is sha256:"]);
    let world = changed(|world, index| {
        let path = blob(world, &manifest(world, index)["layers"][0]);
        let mut bytes = fs::read(&path).unwrap();
        bytes.push(0);
        fs::write(path, bytes).unwrap();
    });
    fails(&world, &["layer sha256:", "has more than"]);
    let world = changed(|world, index| fs::remove_file(blob(world, &manifest(world, index)["layers"][1])).unwrap());
    fails(&world, &["no such file"]);
    let world = changed(|world, index| {
        let mut manifest = manifest(world, index);
        manifest["layers"].as_array_mut().unwrap().swap(0, 1);
        index["manifests"][0] = put(world, "application/vnd.oci.image.manifest.v1+json", &manifest);
    });
    fails(&world, &["layer sha256:", "the content is sha256:"]);
}

#[test]
fn documents_that_lead_nowhere() {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    fails(&changed(|_, index| *index = json!({"schemaVersion": 2, "manifests": []})), &["has no image"]);
    let world = changed(|_, _| {});
    fs::remove_file(world.path("layout/index.json")).unwrap();
    fails(&world, &["index.json"]);
    fails(
        &changed(|_, index| index["manifests"][0]["mediaType"] = json!("text/plain")),
        &["neither a manifest nor an index"],
    );
    // As near to a cycle as digests allow.
    let world = changed(|world, index| {
        for _ in 0..20 {
            let of = json!({"schemaVersion": 2, "manifests": index["manifests"]});
            index["manifests"] = json!([put(world, INDEX, &of)]);
        }
    });
    fails(&world, &["is below 4 indexes"]);
    let world = changed(|world, index| {
        let mut manifest = manifest(world, index);
        manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+encrypted");
        index["manifests"][0] = put(world, "application/vnd.oci.image.manifest.v1+json", &manifest);
    });
    fails(&world, &["which is no tar"]);
    let world = changed(|_, index| index["manifests"][0]["size"] = json!(5_000_000));
    fails(&world, &["is the most"]);
    let world =
        changed(|_, index| index["manifests"][0]["digest"] = json!(format!("sha256:{}", "../".repeat(21) + "x")));
    fails(&world, &["index.json"]);
}

/// The same layer twice is no harm.
#[test]
fn duplicate_layers() {
    let world = changed(|world, index| {
        let mut manifest = manifest(world, index);
        let mut config: Value = serde_json::from_slice(&fs::read(blob(world, &manifest["config"])).unwrap()).unwrap();
        let (layer, id) = (manifest["layers"][0].clone(), config["rootfs"]["diff_ids"][0].clone());
        manifest["layers"].as_array_mut().unwrap().push(layer);
        config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(id);
        manifest["config"] = put(world, "application/vnd.oci.image.config.v1+json", &config);
        index["manifests"][0] = put(world, "application/vnd.oci.image.manifest.v1+json", &manifest);
    });
    for (name, flags) in [("copied", &["--copy"][..]), ("shared", &[])] {
        world.create("oci:{}/layout", name, &[flags, &["--", "cat", "/srv/old/file"]].concat()).ok();
        assert_eq!(world.run(name).ok().stdout, "srv/old\n", "the lowest layer is on top again");
    }
}
