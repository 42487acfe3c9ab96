//! A store and a Redis as processes that end with the test, and a client of one connection.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running store.
pub struct Store {
    child: Child,
    pub address: SocketAddr,
    pub lines: Vec<String>,
    _out: BufReader<std::process::ChildStdout>,
}

impl Store {
    /// Starts it on a free port and reads the first lines it prints.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_edgeweir-store"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("EDGEWEIR_LOG", "off")
            .env_remove("EDGEWEIR_STORE_TOKEN")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the store starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = Vec::new();
        for _ in 0..3 {
            let mut line = String::new();
            out.read_line(&mut line).expect("a line");
            lines.push(line);
        }
        let address = lines[0]
            .split("http://")
            .nth(1)
            .and_then(|it| it.split(' ').next())
            .and_then(|it| it.parse().ok())
            .unwrap_or_else(|| panic!("no address in {lines:?}"));
        Self {
            child,
            address,
            lines,
            _out: out,
        }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// SIGTERM; whether it ended well.
    pub fn stop(mut self) -> bool {
        signal(self.child.id(), libc::SIGTERM);
        self.child.wait().expect("ended").success()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(pid: u32, signal: i32) {
    let done = Command::new("kill")
        .args([format!("-{signal}"), pid.to_string()])
        .status();
    assert!(done.expect("kill").success());
}

/// A Redis of its own, without a file.
pub struct Redis {
    child: Option<Child>,
    pub port: u16,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
}

impl Redis {
    pub fn start(arguments: &[&str]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let mut redis = Self {
            child: None,
            port,
            arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
            folder: tempfile::tempdir().expect("a folder"),
        };
        redis.again();
        redis
    }

    /// Starts it, again when it was down.
    pub fn again(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--dir"])
            .arg(self.folder.path())
            .args(&self.arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server (Debian package redis-server) starts");
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(Instant::now() < until, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// What `redis-cli` answers.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &self.port.to_string()]).args(arguments);
        let out = cli.output().expect("redis-cli");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.down();
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map_or("", |(_, value)| value)
    }

    /// The name of a problem; a status when it is none.
    pub fn name(&self) -> String {
        let name = serde_json::from_slice::<serde_json::Value>(&self.body)
            .ok()
            .and_then(|body| body.get("name")?.as_str().map(str::to_owned));
        if name.is_some() {
            assert_eq!(self.field("content-type"), "application/problem+json");
        }
        name.unwrap_or_else(|| self.status.to_string())
    }
}

/// One connection that is kept.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_nodelay(true).expect("no delay");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a time-out");
        Self(BufReader::new(stream))
    }

    /// One request; panics when there is no answer.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.try_ask(method, path, fields, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// One request.
    pub fn try_ask(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: store\r\n");
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        self.0
            .get_mut()
            .write_all(&[head.as_bytes(), body].concat())?;
        let mut line = String::new();
        let mut next = |line: &mut String| {
            line.clear();
            match self.0.read_line(line)? {
                0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                _ => Ok(()),
            }
        };
        next(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|it| it.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        let mut fields = Vec::new();
        loop {
            next(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => fields.push((name.to_lowercase(), value.trim().to_owned())),
                None => break,
            }
        }
        let length = fields.iter().find(|(name, _)| name == "content-length");
        let length = length.and_then(|(_, it)| it.parse().ok()).unwrap_or(0);
        let mut body = vec![
            0;
            if status == 304 || method == "HEAD" {
                0
            } else {
                length
            }
        ];
        self.0.read_exact(&mut body)?;
        Ok(Answer {
            status,
            fields,
            body,
        })
    }
}
