//! A store that outlives the edge: what the cache's third tier asks, over HTTP/1.1 or without a connection.

use std::collections::HashMap;
use std::io::{self, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edgeweir_filter::{Failed, Fetch, Fetched, Reply};

use crate::Received;
use crate::origin::receive;

/// How it behaves.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Mode {
    /// As it should.
    #[default]
    Works,
    /// Takes requests and never answers.
    Hangs,
    /// Ends each connection without an answer.
    Dead,
    /// Answers 500.
    Fails,
}

/// A store, shared by its clones; a thread for each connection, until the program ends.
#[derive(Clone)]
pub struct Store {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    mode: Mode,
    kept: HashMap<String, Kept>,
    asked: Vec<String>,
}

struct Kept {
    value: Vec<u8>,
    until: Instant,
    groups: Vec<String>,
    uri: String,
}

impl Store {
    /// Starts an empty one.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let store = Self {
            address: listener.local_addr()?,
            state: Arc::default(),
        };
        let serving = store.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let store = serving.clone();
                thread::spawn(move || drop(store.serve(stream)));
            }
        });
        Ok(store)
    }

    /// From now on it behaves so.
    pub fn set(&self, mode: Mode) {
        self.state().mode = mode;
    }

    /// Replaces each value that is kept.
    pub fn spoil(&self, change: impl Fn(&[u8]) -> Vec<u8>) {
        for kept in self.state().kept.values_mut() {
            kept.value = change(&kept.value);
        }
    }

    /// Forgets everything, what it was asked too, and works.
    pub fn reset(&self) {
        *self.state() = State::default();
    }

    /// Values that are kept.
    pub fn len(&self) -> usize {
        self.state().kept.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether something is kept whose host and path end so.
    pub fn has(&self, path: &str) -> bool {
        self.state().kept.values().any(|it| it.uri.ends_with(path))
    }

    /// How many requests began so (`GET `, `POST /cache/invalidate?groups=`).
    pub fn asked(&self, start: &str) -> usize {
        let state = self.state();
        state
            .asked
            .iter()
            .filter(|it| it.starts_with(start))
            .count()
    }

    /// Waits until `holds`, ten seconds at most; whether it does.
    pub fn waits(&self, holds: impl Fn(&Self) -> bool) -> bool {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if holds(self) {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// One request without a connection.
    pub fn fetch(&self, fetch: &Fetch) -> Result<Fetched, Failed> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = fetch.head.fields.iter();
        let received = Received {
            method: text(&fetch.head.method),
            path: text(&fetch.head.path),
            fields: fields
                .map(|(name, value)| (text(name), value.to_vec()))
                .collect(),
            body: fetch.body.to_vec(),
        };
        match self.answer(received) {
            Ok((status, body)) => Ok(Reply::new(status, &[], Bytes::from(body))),
            Err(Mode::Hangs) => Err(Failed::TimedOut),
            Err(_) => Err(Failed::Unavailable),
        }
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        while let Some((received, closes)) = receive(&mut reader, &mut writer)? {
            let (status, body) = match self.answer(received) {
                Ok(answer) => answer,
                Err(Mode::Hangs) => {
                    // Until the edge gives up.
                    receive(&mut reader, &mut writer)?;
                    return Ok(());
                }
                Err(_) => return Ok(()),
            };
            // 204 has no length (RFC 9110 §8.6).
            let length = match status {
                204 => String::new(),
                _ => format!("content-length: {}\r\n", body.len()),
            };
            let head = format!("HTTP/1.1 {status} Said\r\n{length}\r\n");
            writer.write_all(&[head.as_bytes(), &body].concat())?;
            if closes {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Status and body, or what it does instead of an answer.
    fn answer(&self, received: Received) -> Result<(u16, Vec<u8>), Mode> {
        let mut state = self.state();
        let asked = format!("{} {}", received.method, received.path);
        state.asked.push(asked);
        match state.mode {
            Mode::Works => {}
            Mode::Fails => return Ok((500, Vec::new())),
            other => return Err(other),
        }
        let now = Instant::now();
        state.kept.retain(|_, kept| kept.until > now);
        let Some(rest) = received.path.strip_prefix("/cache/") else {
            return Ok((404, Vec::new()));
        };
        match received.method.as_str() {
            "GET" => Ok(match state.kept.get(rest) {
                Some(kept) => (200, kept.value.clone()),
                None => (404, Vec::new()),
            }),
            "PUT" => {
                let Ok(seconds) = received.text("edgeweir-ttl").parse() else {
                    return Ok((400, Vec::new()));
                };
                let kept = Kept {
                    until: now + Duration::from_secs(seconds),
                    groups: listed(&received.text("edgeweir-groups")),
                    uri: received.text("edgeweir-uri"),
                    value: received.body,
                };
                state.kept.insert(rest.to_owned(), kept);
                Ok((204, Vec::new()))
            }
            "POST" => {
                let what = rest.strip_prefix("invalidate?").and_then(What::of);
                let Some(what) = what else {
                    return Ok((400, Vec::new()));
                };
                state.kept.retain(|name, kept| !what.names(name, kept));
                Ok((204, Vec::new()))
            }
            _ => Ok((405, Vec::new())),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an invalidation is about.
enum What {
    Names(Vec<String>),
    Groups(Vec<String>),
    Prefix(String),
    Pattern(String),
    All,
}

impl What {
    fn of(query: &str) -> Option<Self> {
        let (name, value) = query.split_once('=')?;
        Some(match name {
            "names" => Self::Names(listed(value)),
            "groups" => Self::Groups(listed(value)),
            "prefix" => Self::Prefix(decoded(value)),
            "pattern" => Self::Pattern(decoded(value)),
            "all" if value == "1" => Self::All,
            _ => return None,
        })
    }

    fn names(&self, name: &str, kept: &Kept) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|it| it == name),
            Self::Groups(groups) => groups.iter().any(|it| kept.groups.contains(it)),
            Self::Prefix(prefix) => kept.uri.starts_with(prefix),
            Self::Pattern(pattern) => matches(pattern.as_bytes(), kept.uri.as_bytes()),
            Self::All => true,
        }
    }
}

fn listed(text: &str) -> Vec<String> {
    let items = text.split(',').filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `*` is any bytes, also none; `?` is one.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|at| matches(rest, &text[at..])),
        Some((b'?', rest)) => !text.is_empty() && matches(rest, &text[1..]),
        Some((byte, rest)) => text.first() == Some(byte) && matches(rest, &text[1..]),
    }
}
