// SPDX-License-Identifier: Apache-2.0
//! Chains that are written, harmed and read.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Policy;
use super::chain::{File, hash};
use super::verify::{Anchor, Verified, verify};

const SMALL: Policy = Policy { max_size: 300, max_files: 100, sync: false, refuse: true };

/// A folder with a log, until it is dropped.
struct Scene(PathBuf);

impl Scene {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("wsbox-chain-{name}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.join("audit")
    }

    fn rotated(&self, age: u32) -> PathBuf {
        self.0.join(format!("audit.{age}"))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn append(&self, policy: Policy, what: &str) -> Option<Anchor> {
        append(&self.path(), policy, what)
    }

    fn fill(&self, policy: Policy, lines: usize) {
        (0..lines).for_each(|_| drop(self.append(policy, "x")));
    }

    fn add(&self, bytes: &[u8]) {
        fs::File::options().append(true).open(self.path()).unwrap().write_all(bytes).unwrap();
    }

    fn verify(&self) -> Verified {
        verify(&self.path(), &[]).unwrap()
    }

    fn fails(&self, anchors: &[Anchor], why: &str) {
        let error = verify(&self.path(), anchors).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn append(path: &Path, policy: Policy, what: &str) -> Option<Anchor> {
    let head = File::open(path, policy).unwrap().append(&json!({"what": what})).unwrap();
    head.map(|head| head.parse().unwrap())
}

fn span(verified: &Verified) -> (u64, u64) {
    (verified.first, verified.head.as_ref().map_or(0, |head| head.lines))
}

#[test]
fn what_is_changed_or_removed_shows() {
    let scene = Scene::new("verify");
    let path = scene.path();
    let anchor = scene.append(Policy::default(), "a").unwrap();
    for what in ["b", "c"] {
        assert_eq!(scene.append(Policy::default(), what), None);
    }
    assert_eq!(span(&verify(&path, std::slice::from_ref(&anchor)).unwrap()), (1, 3));
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    for (text, place) in [
        (whole.replace("\"b\"", "\"x\""), ":3: does not follow"),
        (format!("{}\n{}\n", lines[0], lines[2]), ":2: is line 3 after line 1"),
        (format!("{}\n{}\n", lines[1], lines[0]), ":2: is line 1 after line 2"),
        (format!("{}\nnot json\n", lines[0]), ":2: is none of an audit log"),
        (whole.replacen('\n', "\r\n", 1), ":2: does not follow"),
        (whole.replace("\"seq\":3", "\"seq\":18446744073709551615"), ":3: is none of an audit log"),
    ] {
        fs::write(&path, text).unwrap();
        scene.fails(&[], place);
    }
    // Lines that are cut off at either end are missed by whoever has an anchor.
    fs::write(&path, format!("{}\n{}\n", lines[1], lines[2])).unwrap();
    let found = scene.verify();
    assert_eq!((span(&found), found.remarks[0].starts_with("lines before 2 are not here")), ((2, 3), true));
    scene.fails(std::slice::from_ref(&anchor), "begins after it, with line 2");
    fs::write(&path, "").unwrap();
    assert_eq!(span(&scene.verify()), (0, 0));
    scene.fails(&[anchor], "--anchor");
}

#[test]
fn all_anchors_must_hold() {
    let scene = Scene::new("anchors");
    let [first, second]: [Anchor; 2] = [(SMALL, "a"), (Policy { max_size: 1, ..SMALL }, "b")]
        .map(|(policy, what)| scene.append(policy, what).expect("the first line of a file is anchored"));
    verify(&scene.path(), &[first.clone(), second.clone()]).unwrap();
    let other: Anchor = format!("2 {}", hash(b"other")).parse().unwrap();
    let late: Anchor = format!("9 {}", hash(b"other")).parse().unwrap();
    scene.fails(&[first.clone(), other], "written anew");
    scene.fails(&[second, late], "ends before it");
    assert!("1".parse::<Anchor>().is_err() && "1 abc".parse::<Anchor>().is_err());
}

#[test]
fn rotated_files_are_one_chain_and_the_oldest_go() {
    let scene = Scene::new("rotate");
    scene.fill(Policy { max_files: 4, ..SMALL }, 40);
    assert_eq!(scene.names(), ["audit", "audit.1", "audit.2", "audit.3", "audit.4"]);
    let before = span(&scene.verify());
    assert!(before.0 > 1 && before.1 == 40, "{before:?}");
    // Fewer are to stay.
    scene.fill(Policy { max_files: 2, ..SMALL }, 4);
    assert_eq!((scene.names().len(), span(&scene.verify()).1), (3, 44));
    scene.fill(Policy { max_files: 0, ..SMALL }, 4);
    assert_eq!((scene.names().len(), span(&scene.verify()).1), (2, 48));
}

#[test]
fn a_file_that_is_gone_shows_wherever_it_was() {
    let scene = Scene::new("gap");
    scene.fill(SMALL, 20);
    let oldest = scene.names().len() as u32 - 1;
    assert!(oldest > 3);
    for age in [1, 2, oldest - 1] {
        let hidden = scene.0.join("hidden");
        fs::rename(scene.rotated(age), &hidden).unwrap();
        scene.fails(&[], "lines are missing");
        fs::rename(&hidden, scene.rotated(age)).unwrap();
    }
    fs::remove_file(scene.rotated(oldest)).unwrap();
    assert!(scene.verify().remarks[0].starts_with("lines before"));
    fs::remove_file(scene.path()).unwrap();
    scene.fails(&[], "no such file");
}

#[test]
fn a_current_file_that_was_emptied_is_told() {
    for remove in [false, true] {
        let scene = Scene::new("emptied");
        scene.fill(SMALL, 10);
        if remove {
            fs::remove_file(scene.path()).unwrap();
        } else {
            fs::write(scene.path(), "").unwrap();
            assert!(scene.verify().remarks[0].contains("may have been removed"));
        }
        assert!(scene.append(Policy::default(), "y").is_some(), "an anchor");
        scene.fill(SMALL, 10);
        let remarks = scene.verify().remarks;
        assert!(remarks.len() == 1 && remarks[0].contains("may have been removed"), "{remarks:?}");
    }
}

#[test]
fn a_rotation_that_was_interrupted_is_taken_up() {
    let scene = Scene::new("interrupted");
    scene.fill(SMALL, 12);
    let (names, lines) = (scene.names().len() as u32, span(&scene.verify()).1);
    // As it is left between the two names of the full file.
    (1..names).rev().for_each(|age| fs::rename(scene.rotated(age), scene.rotated(age + 1)).unwrap());
    fs::hard_link(scene.path(), scene.rotated(1)).unwrap();
    fs::write(scene.0.join("audit.new"), "{").unwrap();
    assert_eq!(span(&scene.verify()), (1, lines));
    scene.append(Policy { max_size: 1, ..SMALL }, "y");
    assert_eq!((scene.names().len() as u32, span(&scene.verify())), (names + 1, (1, lines + 1)));
}

/// There is room for the line in the full file: it is not lost for want of a new one.
#[test]
fn a_rotation_that_fails_does_not_cost_the_line() {
    let scene = Scene::new("unrotated");
    scene.fill(SMALL, 1);
    fs::create_dir(scene.0.join("audit.new")).unwrap();
    scene.fill(Policy { max_size: 1, ..SMALL }, 2);
    assert_eq!((scene.names(), span(&scene.verify())), (vec!["audit".to_owned(), "audit.new".to_owned()], (1, 3)));
}

#[test]
fn a_new_file_has_room_for_the_next_line() {
    use std::os::unix::fs::MetadataExt;
    let scene = Scene::new("room");
    scene.fill(Policy::default(), 1);
    File::open(&scene.path(), Policy::default()).unwrap().reserve().unwrap();
    let room = |path: PathBuf| fs::metadata(path).unwrap().blocks() * 512;
    let reserved = room(scene.path());
    scene.fill(Policy { max_size: 1, ..SMALL }, 1);
    // What the filesystem does not reserve at all it does not here either.
    assert_eq!(room(scene.path()) >= 256 << 10, reserved >= 256 << 10);
    assert!(room(scene.rotated(1)) < 256 << 10, "the full one keeps none");
}

#[test]
fn many_writers_make_one_chain() {
    let scene = Scene::new("writers");
    let (path, policy) = (scene.path(), Policy { max_size: 4000, ..SMALL });
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..50).for_each(|_| drop(append(&path, policy, "x"))));
        }
    });
    let verified = scene.verify();
    assert_eq!((span(&verified), verified.remarks), ((1, 400), vec![]));
}

#[test]
fn a_line_that_was_cut_off_is_closed_by_the_next() {
    for torn in [&b"{\"what\":\"y"[..], b"\0\0\0", b"{\"half\":\n{\"schema\":1,"] {
        let scene = Scene::new("torn");
        scene.fill(Policy::default(), 2);
        scene.add(torn);
        scene.fails(&[], "audit:3: is none of an audit log");
        File::open(&scene.path(), Policy::default()).unwrap().reserve().unwrap();
        assert!(scene.append(Policy::default(), "z").is_some(), "an anchor");
        let verified = scene.verify();
        assert_eq!(span(&verified), (1, 4));
        assert!(verified.remarks[0].contains(&format!("the {} bytes before it", torn.len())), "{verified:?}");
        // No other bytes may stand there, nor none.
        let text = fs::read(scene.path()).unwrap();
        let at = text.windows(torn.len()).position(|part| part == torn).unwrap();
        fs::write(scene.path(), [&text[..at], b"x", &text[at + 1..]].concat()).unwrap();
        scene.fails(&[], "audit:3");
        fs::write(scene.path(), [&text[..at], &text[at + torn.len() + 1..]].concat()).unwrap();
        scene.fails(&[], "audit:3: says what was cut off");
    }
}

#[test]
fn a_chain_may_begin_with_a_line_that_was_cut_off() {
    let scene = Scene::new("first");
    fs::write(scene.path(), "{\"what").unwrap();
    scene.fill(Policy::default(), 1);
    assert_eq!(span(&scene.verify()), (1, 2));
}

#[test]
fn a_line_without_its_newline_is_whole() {
    let scene = Scene::new("newline");
    scene.fill(Policy::default(), 2);
    let text = fs::read(scene.path()).unwrap();
    fs::write(scene.path(), &text[..text.len() - 1]).unwrap();
    assert_eq!(span(&scene.verify()), (1, 2));
    scene.fill(SMALL, 2);
    let verified = scene.verify();
    assert_eq!((span(&verified), verified.remarks), ((1, 4), vec![]));
}

#[test]
fn a_file_of_something_else_is_refused() {
    let scene = Scene::new("other");
    for text in ["hello\n", "hello", "{\"a\": 1}", "{\"seq\":18446744073709551615,\"prev\":\"\"}\n"] {
        fs::write(scene.path(), text).unwrap();
        let file = File::open(&scene.path(), Policy::default()).unwrap();
        let error = file.append(&json!({})).unwrap_err().to_string();
        assert!(error.contains("none of an audit log"), "{error}");
    }
}
