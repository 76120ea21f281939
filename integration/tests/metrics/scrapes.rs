// SPDX-License-Identifier: Apache-2.0
//! From one scrape to the next: ids that come again, names that stay, and what can not be read.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use serde_json::json;
use wsbox_integration::engine::until;
use wsbox_integration::{Bundle, Engine, TempDir, unique};

use crate::common::{Running, exporter, exporter_of, get, page, value};

fn scraped(address: &str) -> String {
    get(address, "/metrics", "text/plain").0
}

fn run(engine: &Engine, id: &str, bundle: &Bundle) {
    bundle.write();
    engine.wsbox(&["run", "--detach", "--bundle", &bundle.path().display().to_string(), id]).ok();
}

/// The next container of an id has layers and names of its own.
#[test]
fn an_id_that_comes_again_is_another_container() {
    let engine = Engine::new();
    let (_running, address) = exporter(&engine);
    let id = unique("again");
    let many = "mkfifo /tmp/f; n=0; while [ $n -lt 25 ]; do (printf odd$n > /proc/self/comm; read x < /tmp/f) & n=$((n+1)); done; wait";
    let first = Bundle::hardened().args(&["sh", "-c", many]);
    run(&engine, &id, &first);
    let others = format!("container_process_count{{container=\"{id}\",process=\"(others)\"}}");
    until("names", || value(&scraped(&address), &others).is_some_and(|count| count >= 5.0));
    let layer = format!("wsbox_container_layer_in_force{{container=\"{id}\",layer=\"L3\"}}");
    assert_eq!(value(&scraped(&address), &layer), Some(1.0));
    engine.wsbox(&["delete", "--force", &id]).ok();
    let second = Bundle::hardened().set("/root/readonly", json!(false)).args(&["sleep", "1000"]);
    run(&engine, &id, &second);
    until("its own layers", || value(&scraped(&address), &layer) == Some(0.0));
    let sleep = format!("container_process_count{{container=\"{id}\",process=\"sleep\"}}");
    until("its own names", || value(&scraped(&address), &sleep) == Some(1.0));
}

/// That there is nothing to read before the start is not what is told after it.
#[test]
fn layers_are_told_from_the_start_on() {
    let engine = Engine::new();
    let (_running, address) = exporter(&engine);
    let (id, bundle) = (unique("created"), Bundle::hardened().args(&["sleep", "1000"]));
    bundle.write();
    engine.wsbox(&["create", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    let created = format!("wsbox_container_status{{container=\"{id}\",status=\"created\"}}");
    until("it is there", || value(&scraped(&address), &created).is_some());
    engine.wsbox(&["start", &id]).ok();
    let layer = format!("wsbox_container_layer_in_force{{container=\"{id}\",layer=\"L2\"}}");
    until("its layers", || value(&scraped(&address), &layer) == Some(1.0));
}

/// Counters do not go on in the history of another container of the same id.
#[test]
fn a_name_stays_when_its_twin_goes() {
    let (first, second) = (Engine::new(), Engine::new());
    let roots = [&first, &second].map(|engine| engine.root().display().to_string());
    let (_running, address) = exporter_of(&first, &["--state-root", &roots[0], "--state-root", &roots[1]]);
    let (id, bundle) = (unique("twin"), Bundle::hardened().args(&["sleep", "1000"]));
    run(&first, &id, &bundle);
    // The second engine's are below a cgroup of its own.
    let other =
        Bundle::hardened().set("/linux/cgroupsPath", json!(format!("/{}", unique("second")))).args(&["sleep", "1000"]);
    run(&second, &id, &other);
    let pids = |name: &str| value(&scraped(&address), &format!("container_pids{{container=\"{name}\"}}"));
    let long = format!("{id}@{}", roots[1]);
    until("both", || pids(&id).is_some() && pids(&long).is_some());
    first.wsbox(&["delete", "--force", &id]).ok();
    until("one of them", || pids(&id).is_none());
    assert_eq!(pids(&long), Some(1.0));
}

#[test]
fn what_can_not_be_read_is_no_silence() {
    let engine = Engine::new();
    let errors = |what: &str| value(&page(&engine), &format!("wsbox_scrape_errors{{what=\"{what}\"}}"));
    let annotated = Bundle::hardened().set("/annotations", json!({"dev.wsbox.violations": "true"}));
    let (_bundle, id) = engine.sleeping(annotated);
    let folder = |name: &str, record: &str| {
        fs::create_dir(engine.root().join(name)).unwrap();
        fs::write(engine.root().join(name).join("state.json"), record).unwrap();
    };
    folder("runc", r#"{"id":"runc","init_process_pid":1}"#);
    for what in ["root", "record", "status", "cgroup", "violations", "layers"] {
        assert_eq!(errors(what), Some(0.0), "{what}");
    }
    folder("torn", "{");
    folder("later", r#"{"version":2,"id":"later"}"#);
    assert_eq!(errors("record"), Some(2.0));

    File::options()
        .write(true)
        .open(engine.root().join(&id).join("violations"))
        .unwrap()
        .write_all_at(&[0; 8], 0)
        .unwrap();
    assert_eq!(errors("violations"), Some(1.0));
    assert_eq!(value(&page(&engine), &format!("wsbox_container_counting{{container=\"{id}\"}}")), None);

    let record = engine.root().join(&id).join("state.json");
    let whole = fs::read_to_string(&record).unwrap();
    let mut astray: serde_json::Value = serde_json::from_str(&whole).unwrap();
    astray["cgroup"]["path"] = json!("no/such/group");
    fs::write(&record, astray.to_string()).unwrap();
    assert_eq!(errors("layers"), Some(1.0));
    fs::write(&record, whole).unwrap();

    let root = engine.root().join("torn/state.json").display().to_string();
    let said = engine.wsbox(&["metrics", "--textfile", "-", "--state-root", &root]).ok().stdout;
    assert_eq!(value(&said, "wsbox_scrape_errors{what=\"root\"}"), Some(1.0));
    ["runc", "torn", "later"].iter().for_each(|name| fs::remove_dir_all(engine.root().join(name)).unwrap());
}

#[test]
fn roots_that_can_be_written_are_watched() {
    let engine = Engine::new();
    let (_bundle, writable) = engine.sleeping(Bundle::hardened().set("/root/readonly", json!(false)));
    let (_other, fixed) = engine.sleeping(Bundle::hardened());
    let page = page(&engine);
    let watched = |id: &str| value(&page, &format!("wsbox_container_watched{{container=\"{id}\"}}"));
    assert_eq!((watched(&writable), watched(&fixed)), (Some(1.0), None), "{page}");
}

/// A disk that is full for a while does not end the pages of node_exporter.
#[test]
fn pages_go_on_after_a_full_disk() {
    let (engine, disk) = (Engine::new(), TempDir::new("disk"));
    let refused = engine.wsbox(&["metrics", "--textfile", "-", "--interval", "0"]);
    assert!(refused.code == 1 && refused.stderr.contains("--interval"), "{refused:?}");
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(disk.path()).status().unwrap();
    assert!(mounted.success());
    let (file, filler) = (disk.path().join("wsbox.prom"), disk.path().join("filler"));
    let mut command = engine.command(&["metrics", "--interval", "1", "--textfile", &file.display().to_string()]);
    let mut running = Running::new(command.stderr(Stdio::piped()).spawn().unwrap());
    until("a page", || file.exists());
    let mut full = File::create(&filler).unwrap();
    while full.write_all(&[0; 512]).is_ok() {}
    let mut said = String::new();
    BufReader::new(running.0.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    let before = fs::metadata(&file).unwrap().modified().unwrap();
    fs::remove_file(&filler).unwrap();
    drop(full);
    until("the next page", || fs::metadata(&file).unwrap().modified().unwrap() > before);
    drop(running);
    assert!(Command::new("umount").arg(disk.path()).status().unwrap().success());
    assert!(said.contains("warning: ") && said.contains("no space left"), "{said}");
}
