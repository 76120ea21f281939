// SPDX-License-Identifier: Apache-2.0
//! One page over HTTP/1.1: GET /metrics. A connection is one request of at most 8 KiB that comes within two seconds. Until it has come the
//! connection waits with one thread, which drops the oldest for a new one: who opens many and says nothing keeps nobody waiting.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Exporter, Format};
use crate::error::Result;

const PATIENCE: Duration = Duration::from_secs(2);
/// For all of an answer: who reads byte by byte does not hold a worker for longer.
const ANSWER: Duration = Duration::from_secs(5);
const HEAD: usize = 8 << 10;
const WORKERS: usize = 4;
/// Connections that have not said all of their request.
const SILENT: usize = 64;
/// Requests that wait for a worker; more are dropped.
const ASKED: usize = 16;
/// For how long a page is served again: however many ask, there are no more scrapes than that.
const KEEP: Duration = Duration::from_secs(1);

/// A connection that has said no more than `head` of its request.
struct Silent {
    stream: TcpStream,
    head: Vec<u8>,
    end: Instant,
}

/// A request, or None if what came is none, and who waits for the answer.
type Asked = (TcpStream, Option<Request>);

/// Answers until the process ends.
pub fn serve(listener: &TcpListener, exporter: &Exporter) {
    let pages = Pages { exporter, kept: Mutex::default() };
    let (asked, requests) = sync_channel(ASKED);
    let requests = Mutex::new(requests);
    // A connection that goes away before it is accepted must not hold us.
    let _ = listener.set_nonblocking(true);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((stream, request)) = next(&requests) {
                    // Who goes away is his own loss.
                    drop(answer(&stream, request, &pages));
                }
            });
        }
        receive(listener, &asked);
    });
}

fn next(requests: &Mutex<Receiver<Asked>>) -> Option<Asked> {
    requests.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Takes connections, and hands those on that have said their request.
fn receive(listener: &TcpListener, asked: &SyncSender<Asked>) {
    let mut silent = VecDeque::<Silent>::new();
    loop {
        let Ok((comes, speak)) = ready(listener, &silent) else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let mut left = VecDeque::with_capacity(SILENT);
        for (mut connection, speaks) in silent.drain(..).zip(speak) {
            match if speaks { connection.read() } else { Ok(None) } {
                // With all workers busy and more in line it is closed.
                Ok(Some(request)) => drop(asked.try_send((connection.stream, request))),
                Ok(None) if Instant::now() < connection.end => left.push_back(connection),
                _ => {}
            }
        }
        silent = left;
        if comes {
            accept(listener, &mut silent);
        }
    }
}

/// Waits until something happens or the oldest has waited for too long: whether somebody comes, and which of them speak.
fn ready(listener: &TcpListener, silent: &VecDeque<Silent>) -> nix::Result<(bool, Vec<bool>)> {
    let all = std::iter::once(listener.as_fd()).chain(silent.iter().map(|connection| connection.stream.as_fd()));
    let mut fds: Vec<PollFd> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let left = silent.front().map(|oldest| oldest.end.saturating_duration_since(Instant::now()).as_millis() as u16 + 1);
    poll(&mut fds, left.map_or(PollTimeout::NONE, PollTimeout::from))?;
    let mut happened = fds.iter().map(|fd| fd.any().unwrap_or(true));
    Ok((happened.next().unwrap_or_default(), happened.collect()))
}

fn accept(listener: &TcpListener, silent: &mut VecDeque<Silent>) {
    match listener.accept() {
        Ok((stream, _)) => {
            if silent.len() == SILENT {
                silent.pop_front();
            }
            silent.push_back(Silent { stream, head: Vec::new(), end: Instant::now() + PATIENCE });
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        // Out of descriptors, perhaps: not a busy loop.
        Err(_) => std::thread::sleep(Duration::from_millis(100)),
    }
}

impl Silent {
    /// What has come is read; None if there is more to come, Some(None) if it is no request.
    fn read(&mut self) -> io::Result<Option<Option<Request>>> {
        let mut part = [0; 1024];
        let count = (&self.stream).read(&mut part)?;
        self.head.extend_from_slice(&part[..count]);
        match parse(&self.head) {
            Ok(None) if count > 0 && self.head.len() < HEAD => Ok(None),
            Ok(request) => Ok(Some(request)),
            Err(_) => Ok(Some(None)),
        }
    }
}

/// The pages of the last second.
struct Pages<'a> {
    exporter: &'a Exporter,
    kept: Mutex<Vec<(Format, Instant, Result<String>)>>,
}

impl Pages<'_> {
    fn get(&self, format: Format) -> Result<String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, made, _)| made.elapsed() < KEEP);
        if let Some((_, _, page)) = kept.iter().find(|(of, _, _)| *of == format) {
            return page.clone();
        }
        let page = self.exporter.scrape(format);
        kept.push((format, Instant::now(), page.clone()));
        page
    }
}

fn answer(stream: &TcpStream, request: Option<Request>, pages: &Pages) -> io::Result<()> {
    let (status, kind, body) = match request {
        None => ("400 Bad Request", TEXT, "this is no HTTP request\n".to_owned()),
        Some(Request { method, .. }) if method != "GET" => ("405 Method Not Allowed", TEXT, "GET only\n".to_owned()),
        Some(Request { path, .. }) if path != "/metrics" => ("404 Not Found", TEXT, "see /metrics\n".to_owned()),
        Some(Request { format, .. }) => match pages.get(format) {
            Ok(page) => ("200 OK", content_type(format), page),
            Err(error) => ("500 Internal Server Error", TEXT, format!("{error}\n")),
        },
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    write_until(stream, (head + &body).as_bytes(), Instant::now() + ANSWER)
}

fn write_until(mut stream: &TcpStream, mut bytes: &[u8], end: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        let count = stream.write(bytes)?;
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}

const TEXT: &str = "text/plain; charset=utf-8";

fn content_type(format: Format) -> &'static str {
    match format {
        Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
    }
}

#[derive(Debug, PartialEq)]
struct Request {
    method: String,
    path: String,
    format: Format,
}

/// None if there is more to come.
fn parse(head: &[u8]) -> Result<Option<Request>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    if request.parse(head)?.is_partial() {
        return Ok(None);
    }
    let wants = |header: &httparse::Header| {
        header.name.eq_ignore_ascii_case("accept")
            && String::from_utf8_lossy(header.value).contains("application/openmetrics-text")
    };
    let format = if request.headers.iter().any(wants) { Format::OpenMetrics } else { Format::Prometheus };
    let path = request.path.unwrap_or_default();
    Ok(Some(Request {
        method: request.method.unwrap_or_default().to_owned(),
        path: path.split('?').next().unwrap_or_default().to_owned(),
        format,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that takes a little at a time is cut off at the end of its time, not at the end of the page.
    #[test]
    fn slow_readers_are_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let slow = std::thread::spawn(move || {
            while reader.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                std::thread::sleep(Duration::from_millis(5))
            }
        });
        let end = Instant::now() + Duration::from_millis(300);
        assert!(write_until(&stream, &vec![0; 256 << 20], end).is_err());
        assert!(Instant::now() >= end);
        drop(stream);
        slow.join().unwrap();
    }

    #[test]
    fn requests_are_read() {
        let get = |format| Some(Request { method: "GET".into(), path: "/metrics".into(), format });
        assert_eq!(parse(b"GET /metrics?x=1 HTTP/1.1\r\nHost: h\r\n\r\n"), Ok(get(Format::Prometheus)));
        let open = b"GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;version=1.0.0,text/plain\r\n\r\n";
        assert_eq!(parse(open), Ok(get(Format::OpenMetrics)));
        assert_eq!(parse(b"GET /metrics HTTP/1.1\r\nHost"), Ok(None));
        assert!(parse(b"\x16\x03\x01\x02\x00\x01").is_err());
    }
}
