//! What several machines share: `edgeweir store` as a process, and a real Redis behind it. Both can be in trouble.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use cargo_edge::process::{self, Helper};
use edgeweir_filter::{Failed, Fetch, Fetched, Reply};

use crate::hosts::{self, edgeweir};

/// How long a process may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process on a port of its own, the same one after a restart.
struct Server {
    process: Option<Helper>,
    port: u16,
}

impl Server {
    fn start(&mut self, mut command: Command) -> Result<()> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null());
        let mut process = process::spawn(command).context("starting a server")?;
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if let Some(status) = process.ended()? {
                bail!("a server ended with {status}");
            }
            ensure!(Instant::now() < until, "a server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.process = Some(process);
        Ok(())
    }

    /// A signal by its name.
    fn signal(&self, name: &str) {
        let Some(process) = &self.process else {
            return;
        };
        let arguments = [format!("-{name}"), process.id().to_string()];
        let done = Command::new("kill").args(arguments).status();
        assert!(done.is_ok_and(|status| status.success()), "kill -{name}");
    }
}

/// `edgeweir store`.
pub struct RealStore {
    /// Where it listens.
    pub address: SocketAddr,
    server: Server,
    arguments: Vec<String>,
}

impl RealStore {
    /// Starts one with these options.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let port = hosts::free_port()?;
        let mut store = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            server: Server {
                process: None,
                port,
            },
            arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
        };
        store.again()?;
        Ok(store)
    }

    /// One over this Redis, which may take so long.
    pub fn over(redis: &Redis, timeout: Duration) -> Result<Self> {
        let timeout = timeout.as_millis().to_string();
        Self::start(&["--redis", &redis.url(), "--redis-timeout-ms", &timeout])
    }

    /// `kill -9`.
    pub fn down(&mut self) {
        self.server.process = None;
    }

    /// Starts it after it was down.
    pub fn again(&mut self) -> Result<()> {
        let mut command = Command::new(edgeweir::binary()?);
        command
            .args(["store", "--listen", &self.address.to_string()])
            .args(&self.arguments)
            .env("EDGEWEIR_LOG", "off")
            .env_remove("EDGEWEIR_STORE_TOKEN");
        self.server.start(command)
    }

    /// It takes requests and does nothing, or goes on.
    pub fn hangs(&self, hangs: bool) {
        self.server.signal(if hangs { "STOP" } else { "CONT" });
    }

    /// A number of its statistics.
    pub fn counted(&self, name: &str) -> u64 {
        let fetch = Fetch {
            to: edgeweir_filter::To::Onward,
            head: edgeweir_filter::RequestHead {
                method: "GET".into(),
                path: "/stats".into(),
                ..Default::default()
            },
            body: Bytes::new(),
            timeout: PATIENCE,
        };
        let reply = fetch_from(self.address, &fetch);
        let stats = reply.ok().map(|reply| reply.body.to_vec());
        let stats: serde_json::Value =
            serde_json::from_slice(&stats.unwrap_or_default()).unwrap_or_default();
        stats[name].as_u64().unwrap_or_default()
    }
}

/// A Redis without a file.
pub struct Redis(Server);

impl Redis {
    /// Starts an empty one.
    pub fn start() -> Result<Self> {
        let port = hosts::free_port()?;
        let mut redis = Self(Server {
            process: None,
            port,
        });
        redis.again()?;
        Ok(redis)
    }

    /// `kill -9`.
    pub fn down(&mut self) {
        self.0.process = None;
    }

    /// Starts it after it was down, empty.
    pub fn again(&mut self) -> Result<()> {
        let mut command = Command::new(cargo_edge::tools::redis()?);
        command.args(["--port", &self.0.port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no"]);
        self.0.start(command)
    }

    /// It takes commands and does nothing, or goes on.
    pub fn hangs(&self, hangs: bool) {
        self.0.signal(if hangs { "STOP" } else { "CONT" });
    }

    /// For `--redis`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.0.port)
    }

    /// Sends a command by itself, and waits for the first line of the answer.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.0.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        for words in words.split(|word| *word == ";") {
            let mut text = format!("*{}\r\n", words.len());
            for word in words {
                text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
            }
            reader.get_mut().write_all(text.as_bytes())?;
            line.clear();
            reader.read_line(&mut line)?;
        }
        Ok(line)
    }
}

/// One request over a connection of its own, as an adapter sends a filter's.
pub fn fetch_from(address: SocketAddr, fetch: &Fetch) -> Result<Fetched, Failed> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Failed::TimedOut,
        _ => Failed::Unavailable,
    };
    let mut stream = TcpStream::connect_timeout(&address, fetch.timeout).map_err(failed)?;
    let limit = Some(fetch.timeout);
    stream.set_read_timeout(limit).map_err(failed)?;
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let mut head = format!(
        "{} {} HTTP/1.1\r\n",
        text(&fetch.head.method),
        text(&fetch.head.path)
    );
    for (name, value) in fetch.head.fields.iter() {
        head.push_str(&format!("{}: {}\r\n", text(name), text(value)));
    }
    let length = fetch.body.len();
    head.push_str(&format!(
        "host: store\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    ));
    stream
        .write_all(&[head.as_bytes(), &fetch.body].concat())
        .map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let (Some(end), Some(status)) = (end, answer.get(9..12)) else {
        return Err(Failed::Unavailable);
    };
    let status = std::str::from_utf8(status)
        .ok()
        .and_then(|text| text.parse().ok());
    let body = Bytes::copy_from_slice(&answer[end + 4..]);
    Ok(Reply::new(status.ok_or(Failed::Unavailable)?, &[], body))
}
