//! An HTTP/1.1 client with nothing hidden: bytes out as told, bytes in as they come.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::{Request, Seen};

/// The longest that a client waits for the next byte.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct Client {
    stream: TcpStream,
    held: Vec<u8>,
    started: Instant,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, PATIENCE)?)
    }

    /// Connects with the smallest receive buffer that the kernel gives: who does not read holds the edge up soon.
    pub fn with_little_room(address: SocketAddr) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(4_096)?;
            socket.connect(address).await?.into_std()
        })?;
        stream.set_nonblocking(false)?;
        Self::over(stream)
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            held: Vec::new(),
            started: Instant::now(),
        })
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Writes a request; pieces of its body are packets of their own.
    pub fn send(&mut self, request: &Request, path: &str) -> io::Result<()> {
        self.write(&head(request, path))?;
        for piece in &request.body {
            std::thread::sleep(Duration::from_millis(2));
            if request.chunked {
                self.write(format!("{:x}\r\n", piece.len()).as_bytes())?;
                self.write(piece)?;
                self.write(b"\r\n")?;
            } else {
                self.write(piece)?;
            }
        }
        if request.chunked {
            self.write(b"0\r\n\r\n")?;
        }
        Ok(())
    }

    /// Reads a whole response; one that ends early is returned as not complete.
    pub fn receive(&mut self, is_head: bool) -> io::Result<Seen> {
        let mut seen = self.receive_head()?;
        if is_head || matches!(seen.status, 204 | 304) {
            seen.complete = true;
            return Ok(seen);
        }
        let coding = seen.text("transfer-encoding").to_ascii_lowercase();
        if coding.ends_with("chunked") {
            self.receive_chunks(&mut seen)?;
        } else if let Some(length) = seen.all("content-length").first() {
            let length: usize = length.parse().map_err(io::Error::other)?;
            while seen.body.len() < length && self.more(&mut seen, length)? {}
            seen.complete = seen.body.len() == length;
        } else {
            // RFC 9112 §6.3: until the connection is closed; whether that was the end nobody can tell.
            while self.more(&mut seen, usize::MAX)? {}
            seen.complete = true;
        }
        Ok(seen)
    }

    /// Reads a head only, 1xx left out.
    pub fn receive_head(&mut self) -> io::Result<Seen> {
        loop {
            let line = self.line()?.ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection ended before a response",
                )
            })?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let status = line
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok());
            let mut seen = Seen {
                status: status
                    .ok_or_else(|| io::Error::other(format!("no status line: {line:?}")))?,
                ..Seen::default()
            };
            self.fields(&mut seen.fields)?;
            if seen.status >= 200 {
                return Ok(seen);
            }
        }
    }

    /// Reads once; whether something came.
    pub fn read_some(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 65_536];
        // A reset is an end as well.
        let read = match self.stream.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error),
        };
        self.held.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }

    /// The next piece of a chunked body, after its head was received: one chunk; `None` at the body's end, an error when
    /// the connection ends before it.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16)
            .map_err(io::Error::other)?;
        // Its line end, or the empty trailer section's.
        while self.held.len() < size + 2 {
            if !self.read_some()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut chunk: Vec<u8> = self.held.drain(..size + 2).collect();
        chunk.truncate(size);
        Ok((size > 0).then_some(chunk))
    }

    /// Leaves without a word.
    pub fn leave(self) {
        // Whether the other side has left already does not matter.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn more(&mut self, seen: &mut Seen, most: usize) -> io::Result<bool> {
        if self.held.is_empty() && !self.read_some()? {
            return Ok(false);
        }
        let take = self.held.len().min(most - seen.body.len());
        seen.body.extend(self.held.drain(..take));
        seen.pieces.push((self.started.elapsed(), seen.body.len()));
        Ok(true)
    }

    fn receive_chunks(&mut self, seen: &mut Seen) -> io::Result<()> {
        loop {
            let Some(line) = self.line()? else {
                return Ok(());
            };
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .map_err(|_| io::Error::other(format!("no chunk size: {line:?}")))?;
            if size == 0 {
                let mut trailers = Vec::new();
                seen.complete = self.fields(&mut trailers)?;
                seen.trailers = trailers;
                return Ok(());
            }
            let until = seen.body.len() + size;
            while seen.body.len() < until {
                if !self.more(seen, until)? {
                    return Ok(());
                }
            }
            if self.line()?.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads field lines to the empty one; whether that came.
    fn fields(&mut self, fields: &mut Vec<(String, Vec<u8>)>) -> io::Result<bool> {
        while let Some(line) = self.line()? {
            if line.is_empty() {
                return Ok(true);
            }
            let colon = line.iter().position(|byte| *byte == b':').ok_or_else(|| {
                io::Error::other(format!(
                    "no field line: {:?}",
                    String::from_utf8_lossy(&line)
                ))
            })?;
            let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
            fields.push((name, line[colon + 1..].trim_ascii().to_vec()));
        }
        Ok(false)
    }

    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.held.windows(2).position(|two| two == b"\r\n") {
                let line = self.held[..end].to_vec();
                self.held.drain(..end + 2);
                return Ok(Some(line));
            }
            if !self.read_some()? {
                return Ok(None);
            }
        }
    }
}

/// One request on a connection of its own.
pub fn exchange(address: SocketAddr, request: &Request, path: &str) -> io::Result<Seen> {
    let mut client = Client::connect(address)?;
    // An edge may answer and close before it has read all of a body: its answer counts, not the failed write.
    let sent = client.send(request, path);
    let seen = client.receive(request.method == "HEAD");
    match (sent, seen) {
        (_, Ok(seen)) => Ok(seen),
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
    }
}

/// The head of a request as bytes.
pub fn head(request: &Request, path: &str) -> Vec<u8> {
    let mut head = format!("{} {path} HTTP/1.1\r\n", request.method).into_bytes();
    let given = |name: &str| {
        request
            .fields
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case(name))
    };
    if !given("host") {
        head.extend_from_slice(b"host: edge.example\r\n");
    }
    for (name, value) in &request.fields {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    if request.chunked {
        head.extend_from_slice(b"transfer-encoding: chunked\r\n");
    } else if !request.body.is_empty() && !given("content-length") {
        let length: usize = request.body.iter().map(Vec::len).sum();
        head.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}
