//! For scenarios under load: an origin that only answers and counts, and pipelined requests.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The longest wait for the next byte.
const PATIENCE: Duration = Duration::from_secs(30);

/// An HTTP/1.1 origin with a thread for each connection; it ends when it is dropped or closed.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

/// What a request line's path is answered: a whole message.
type Answers = Box<dyn Fn(&str) -> Vec<u8> + Send + Sync>;

struct State {
    answers: Answers,
    asked: AtomicUsize,
    closed: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Upstream {
    /// Starts one; requests have no bodies.
    pub fn start(answers: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> io::Result<Self> {
        cargo_edge::process::raise_file_limit();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            answers: Box::new(answers),
            asked: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || accept(&listener, &shared));
        Ok(Self { address, state })
    }

    /// Requests so far.
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// Ends all connections; new ones are refused from now on.
    pub fn close(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts, which lets go of the port then.
        let _ = TcpStream::connect(self.address);
        let mut streams = self.state.streams();
        for stream in streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(streams);
        while TcpStream::connect(self.address).is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if !self.state.closed.load(Ordering::SeqCst) {
            self.close();
        }
    }
}

impl State {
    fn streams(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming().map_while(Result::ok) {
        if state.closed.load(Ordering::SeqCst) {
            return;
        }
        if let Ok(other) = stream.try_clone() {
            state.streams().push(other);
        }
        let state = Arc::clone(state);
        // The edge closes its connections as it likes: nothing to say about it.
        thread::spawn(move || serve(stream, &state).ok());
    }
}

fn serve(mut stream: TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut held = Vec::new();
    loop {
        while let Some(end) = head_end(&held) {
            let head = String::from_utf8_lossy(&held[..end]).into_owned();
            held.drain(..end);
            state.asked.fetch_add(1, Ordering::SeqCst);
            let path = head.split(' ').nth(1).unwrap_or_default();
            stream.write_all(&(state.answers)(path))?;
        }
        if !more(&mut stream, &mut held)? {
            return Ok(());
        }
    }
}

/// A 200 with these field lines (each with its line end) and a declared length.
pub fn page(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Sends a GET for each path on one connection, `depth` at a time; returns how many 200s came, an error when a
/// response is missing.
pub fn pipelined(
    address: SocketAddr,
    paths: impl Iterator<Item = String>,
    depth: usize,
) -> io::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut paths, mut held, mut good) = (paths.peekable(), Vec::new(), 0);
    while paths.peek().is_some() {
        let mut batch = String::new();
        let mut sent = 0;
        for path in paths.by_ref().take(depth) {
            batch.push_str(&format!(
                "GET {path} HTTP/1.1\r\nhost: edge.example\r\n\r\n"
            ));
            sent += 1;
        }
        stream.write_all(batch.as_bytes())?;
        for _ in 0..sent {
            good += usize::from(response(&mut stream, &mut held)? == 200);
        }
    }
    Ok(good)
}

/// Reads a response with a declared length; its status.
fn response(stream: &mut TcpStream, held: &mut Vec<u8>) -> io::Result<u16> {
    loop {
        if let Some(end) = head_end(held) {
            let head = String::from_utf8_lossy(&held[..end]).into_owned();
            let status = head.get(9..12).and_then(|status| status.parse().ok());
            let length = head
                .split("\r\ncontent-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
            let (Some(status), Some(length)) = (status, length) else {
                return Err(io::Error::other(format!("another response: {head}")));
            };
            while held.len() < end + length {
                if !more(stream, held)? {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            held.drain(..end + length);
            return Ok(status);
        }
        if !more(stream, held)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Where the first head ends, its empty line included.
fn head_end(held: &[u8]) -> Option<usize> {
    let at = held.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(at + 4)
}

fn more(stream: &mut TcpStream, held: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 16_384];
    let read = stream.read(&mut buffer)?;
    held.extend_from_slice(&buffer[..read]);
    Ok(read > 0)
}
