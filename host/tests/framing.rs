//! Malformed and two-faced requests, to this host and to a real Envoy in front of the same origin: what is refused, what is
//! let through, and what the origin saw. Never two requests where one was sent.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::envoy::Envoy;
use support::host;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How a proxy took a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Took {
    /// 4xx or 5xx of its own, or no word, and the connection closed; nothing reached the origin.
    Refused,
    /// 4xx or 5xx of its own, and the connection stays: it is clear where the request ends.
    Declined,
    /// The origin saw so many requests and the client got as many answers.
    Passed(usize),
    /// It answered itself, without the origin, and without an error.
    Answered,
}
use Took::{Answered, Declined, Passed, Refused};

/// What is sent, and what this host and Envoy do with it. Where they differ the last word says why.
struct Case {
    name: &'static str,
    bytes: &'static [u8],
    host: Took,
    envoy: Took,
    because: &'static str,
}

const fn same(name: &'static str, bytes: &'static [u8], took: Took) -> Case {
    Case {
        name,
        bytes,
        host: took,
        envoy: took,
        because: "",
    }
}

const fn differs(
    name: &'static str,
    bytes: &'static [u8],
    host: Took,
    envoy: Took,
    because: &'static str,
) -> Case {
    Case {
        name,
        bytes,
        host,
        envoy,
        because,
    }
}

const SMUGGLED: &str = "GET /smuggled";

include!("framing/cases.rs");

/// An origin that keeps what it was sent: one entry for each request, by RFC 9112 and no more lenient.
#[derive(Clone)]
struct Recorder {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let recorder = Self {
            address: socket.local_addr().unwrap(),
            seen: Arc::default(),
        };
        let serving = recorder.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        recorder
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut read = Vec::new();
        loop {
            let Some(head) = line_end(&mut stream, &mut read, b"\r\n\r\n").await else {
                return;
            };
            let head = String::from_utf8_lossy(&head).into_owned();
            let field = |name: &str| {
                head.lines().find_map(|line| {
                    let (field, value) = line.split_once(':')?;
                    field
                        .eq_ignore_ascii_case(name)
                        .then(|| value.trim().to_owned())
                })
            };
            let mut body = Vec::new();
            match (field("transfer-encoding"), field("content-length")) {
                (Some(_), Some(_)) => self.note("BOTH LENGTHS REACHED THE ORIGIN".to_owned()),
                (Some(_), None) => loop {
                    let Some(size) = line_end(&mut stream, &mut read, b"\r\n").await else {
                        return;
                    };
                    let size = String::from_utf8_lossy(&size).trim().to_owned();
                    let Ok(size) = usize::from_str_radix(&size, 16) else {
                        return self.note(format!("NO CHUNK SIZE: {size:?}"));
                    };
                    let end = if size == 0 { &b""[..] } else { b"\r\n" };
                    if size == 0 {
                        // Trailers up to the empty line.
                        while line_end(&mut stream, &mut read, b"\r\n")
                            .await
                            .is_some_and(|it| it.len() > 2)
                        {}
                        break;
                    }
                    if !filled(&mut stream, &mut read, size + end.len()).await {
                        return;
                    }
                    body.extend(read.drain(..size));
                    read.drain(..end.len());
                },
                (None, Some(length)) => {
                    let length = length.parse().unwrap_or(0);
                    if !filled(&mut stream, &mut read, length).await {
                        return;
                    }
                    body.extend(read.drain(..length));
                }
                (None, None) => {}
            }
            let first = head.lines().next().unwrap_or_default().to_owned();
            self.note(format!("{first} | {}", String::from_utf8_lossy(&body)));
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }

    fn note(&self, text: String) {
        self.seen.lock().unwrap().push(text);
    }
}

/// The bytes up to and with `end`, taken off what was read.
async fn line_end(stream: &mut TcpStream, read: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = read.windows(end.len()).position(|it| it == end) {
            return Some(read.drain(..at + end.len()).collect());
        }
        if !filled(stream, read, read.len() + 1).await {
            return None;
        }
    }
}

async fn filled(stream: &mut TcpStream, read: &mut Vec<u8>, length: usize) -> bool {
    while read.len() < length {
        let mut buffer = [0; 8192];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return false,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
        }
    }
    true
}

/// What came back for some bytes: everything, and whether the connection was closed.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> (String, bool) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 8192];
    // Loopback: what is to come comes soon. A first answer is waited for longer than for more of it.
    loop {
        let patience = if answer.is_empty() { 1_500 } else { 150 };
        match tokio::time::timeout(Duration::from_millis(patience), stream.read(&mut buffer)).await
        {
            Ok(Ok(0) | Err(_)) => return (String::from_utf8_lossy(&answer).into_owned(), true),
            Ok(Ok(count)) => answer.extend_from_slice(&buffer[..count]),
            Err(_) => return (String::from_utf8_lossy(&answer).into_owned(), false),
        }
    }
}

/// What became of a case, or what is wrong with it.
fn judge(answer: &str, closed: bool, seen: &[String]) -> Result<Took, String> {
    let answers: Vec<&str> = answer.matches("HTTP/1.1 ").collect();
    let good = answer.matches("HTTP/1.1 200").count();
    if let Some(bad) = seen
        .iter()
        .find(|it| it.contains(SMUGGLED) || !it.contains(" HTTP/1.1 | "))
    {
        return Err(format!("the origin saw {bad:?}"));
    }
    match (seen.len(), good, answers.len()) {
        (0, 0, _) if closed => Ok(Refused),
        (0, 0, 1..) => Ok(Declined),
        (0, 0, 0) => Err("no word, and the connection left open".to_owned()),
        (0, _, _) => Ok(Answered),
        (seen, good, _) if seen == good => Ok(Passed(seen)),
        (seen, good, _) => Err(format!(
            "{seen} requests at the origin, {good} answers from it"
        )),
    }
}

#[tokio::test]
async fn what_is_refused_and_what_the_origin_sees() {
    let recorder = Recorder::start().await;
    let envoy = Envoy::start(recorder.address, "1s");
    let host = host(recorder.address, "timeout_ms = 1000").await;
    let mut wrong = Vec::new();
    for case in CASES {
        for (who, address, want) in [
            ("host", host.addresses()[0], case.host),
            ("Envoy", envoy.address, case.envoy),
        ] {
            let (answer, closed) = exchange(address, case.bytes).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let seen = recorder.take();
            let got = judge(&answer, closed, &seen);
            if got.as_ref() != Ok(&want) {
                wrong.push(format!(
                    "{}: {who} {got:?}, want {want:?}\n    it said {:?}, closed: {closed}\n    the origin saw {seen:?}",
                    case.name,
                    answer.lines().next().unwrap_or("nothing"),
                ));
            }
        }
        assert_eq!(
            case.host != case.envoy,
            !case.because.is_empty(),
            "{}",
            case.name
        );
    }
    host.stop().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is sent over HTTP/2, field by field, and a body; Envoy does the same unless the last word says why not.
struct Case2 {
    name: &'static str,
    fields: &'static [(&'static [u8], &'static [u8])],
    body: Option<&'static [u8]>,
    host: Took,
    envoy: Took,
    because: &'static str,
}

/// One frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The request as it is, no encoder in between to put it right: literals without indexing (RFC 7541 §6.2.2).
async fn exchange2(address: SocketAddr, case: &Case2) -> &'static str {
    let mut head = Vec::new();
    for (name, value) in case.fields {
        head.push(0);
        for text in [name, value] {
            head.push(text.len() as u8);
            head.extend_from_slice(text);
        }
    }
    let end = if case.body.is_none() { 0x1 } else { 0 };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, b""));
    bytes.extend(frame(1, 0x4 | end, 1, &head));
    if let Some(body) = case.body {
        bytes.extend(frame(0, 0x1, 1, body));
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(&bytes).await;
    let mut read = Vec::new();
    loop {
        while read.len() < 9 || read.len() < 9 + length_of(&read) {
            let more = read.len() + 1;
            let filled = filled(&mut stream, &mut read, more);
            match tokio::time::timeout(Duration::from_secs(3), filled).await {
                Ok(true) => {}
                Ok(false) => return "closed",
                Err(_) => return "silent",
            }
        }
        let length = length_of(&read);
        let frame: Vec<u8> = read.drain(..9 + length).collect();
        match frame[3] {
            // A dynamic table's size may come first; 0x88 is `:status: 200` of the static table.
            1 => {
                let first = frame[9..].iter().find(|byte| **byte & 0xe0 != 0x20);
                return if first == Some(&0x88) {
                    "200"
                } else {
                    "another status"
                };
            }
            3 => return "reset",
            7 => return "goaway",
            _ => {}
        }
    }
}

fn length_of(frame: &[u8]) -> usize {
    usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2])
}

#[tokio::test]
async fn over_http2_what_is_refused_and_what_the_origin_sees() {
    let recorder = Recorder::start().await;
    let envoy = Envoy::start(recorder.address, "1s");
    let host = host(recorder.address, "timeout_ms = 1000").await;
    let mut wrong = Vec::new();
    for case in CASES2 {
        for (who, address, want) in [
            ("host", host.addresses()[0], case.host),
            ("Envoy", envoy.address, case.envoy),
        ] {
            let answer = exchange2(address, case).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let seen = recorder.take();
            let odd = seen
                .iter()
                .any(|it| it.contains(SMUGGLED) || !it.contains(" HTTP/1.1 | "));
            let got = match (seen.len(), answer) {
                _ if odd => None,
                (0, "silent") => None,
                (0, "200") => Some(Answered),
                (0, _) => Some(Refused),
                (seen, "200") => Some(Passed(seen)),
                _ => None,
            };
            if got != Some(want) {
                wrong.push(format!(
                    "{}: {who} {got:?}, want {want:?}: {answer}, the origin saw {seen:?}",
                    case.name
                ));
            }
        }
        assert_eq!(
            case.host != case.envoy,
            !case.because.is_empty(),
            "{}",
            case.name
        );
    }
    host.stop().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
