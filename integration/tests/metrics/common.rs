// SPDX-License-Identifier: Apache-2.0
//! An exporter, and what its page says.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;

use wsbox_integration::{Bundle, Engine, unique};

/// How many want the host's counters: with them every command counts, also those of the bench, so the last one removes them.
static USERS: Mutex<usize> = Mutex::new(0);

struct User;

impl User {
    fn new() -> Self {
        *USERS.lock().unwrap() += 1;
        Self
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut users = USERS.lock().unwrap();
        *users -= 1;
        if *users == 0 {
            let _ = fs::remove_file("/run/wsbox/ids/.counters");
        }
    }
}

/// A program that is killed when it is dropped.
pub struct Running(pub Child, #[allow(dead_code, reason = "held until the end")] User);

impl Running {
    pub fn new(child: Child) -> Self {
        Self(child, User::new())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `wsbox metrics` over the engine's state root, and where it listens.
pub fn exporter(engine: &Engine) -> (Running, String) {
    exporter_of(engine, &[])
}

/// The same with more flags.
pub fn exporter_of(engine: &Engine, flags: &[&str]) -> (Running, String) {
    let user = User::new();
    let arguments = [&["metrics", "--listen", "127.0.0.1:0"], flags].concat();
    let mut child = engine.command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let address = address.unwrap_or_else(|| panic!("no address: {line}")).to_owned();
    (Running(child, user), address)
}

/// The body of an answer, and its first line.
pub fn get(address: &str, path: &str, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    (body.to_owned(), head.lines().next().unwrap_or_default().to_owned())
}

/// The value of a series by its whole name.
pub fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

pub fn page(engine: &Engine) -> String {
    let _user = User::new();
    engine.wsbox(&["metrics", "--textfile", "-"]).ok().stdout
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub fn detach(engine: &Engine, bundle: &Bundle) -> String {
    let id = unique("m");
    bundle.write();
    engine.wsbox(&["run", "--detach", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    id
}
