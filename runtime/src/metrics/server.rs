// SPDX-License-Identifier: Apache-2.0
//! One page over HTTP/1.1: GET /metrics. A connection is one request of at most 8 KiB that comes within two seconds, and there
//! are never more than four.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{Exporter, Format};

const PATIENCE: Duration = Duration::from_secs(2);
/// For all of an answer: who reads byte by byte does not hold a worker for longer.
const ANSWER: Duration = Duration::from_secs(5);
const HEAD: usize = 8 << 10;
const WORKERS: usize = 4;

/// Answers until the process ends.
pub fn serve(listener: &TcpListener, exporter: &Exporter) {
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    match listener.accept() {
                        // Who goes away or says nothing is his own loss.
                        Ok((stream, _)) => drop(answer(&stream, exporter)),
                        // Out of descriptors, perhaps: not a busy loop.
                        Err(_) => std::thread::sleep(Duration::from_millis(100)),
                    }
                }
            });
        }
    });
}

fn answer(stream: &TcpStream, exporter: &Exporter) -> io::Result<()> {
    let (status, kind, body) = match request(stream)? {
        None => ("400 Bad Request", TEXT, "this is no HTTP request\n".to_owned()),
        Some(Request { method, .. }) if method != "GET" => ("405 Method Not Allowed", TEXT, "GET only\n".to_owned()),
        Some(Request { path, .. }) if path != "/metrics" => ("404 Not Found", TEXT, "see /metrics\n".to_owned()),
        Some(Request { format, .. }) => match exporter.scrape(format) {
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

/// None if it is none.
fn request(mut stream: &TcpStream) -> io::Result<Option<Request>> {
    let end = Instant::now() + PATIENCE;
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let count = stream.read(&mut part)?;
        head.extend_from_slice(&part[..count]);
        match parse(&head) {
            Ok(None) if count > 0 && head.len() < HEAD && Instant::now() < end => {}
            Ok(request) => return Ok(request),
            Err(_) => return Ok(None),
        }
    }
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
