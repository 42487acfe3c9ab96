//! Bodies too large to hold: an origin that writes them piece by piece, and what they should look like at the client.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use flate2::Crc;

/// One entry of a long array, in its long form.
const LONG: &str = "  {\n    \"id\": 9007199254740993,\n    \"name\": \"Stra\u{df}e \\\"Nine\\\"\",\n    \"tags\": [ \"two  spaces\", \"\" ],\n    \"price\": 12.50,\n    \"none\": null\n  }";
/// And without its white space.
const SHORT: &str = "{\"id\":9007199254740993,\"name\":\"Stra\u{df}e \\\"Nine\\\"\",\"tags\":[\"two  spaces\",\"\"],\"price\":12.50,\"none\":null}";

/// A JSON array of many equal entries.
#[derive(Clone, Copy, Debug)]
pub struct Array {
    entries: u64,
}

impl Array {
    /// One of about so many bytes.
    pub fn of_bytes(bytes: u64) -> Self {
        Self {
            entries: (bytes / (LONG.len() as u64 + 2)).max(2),
        }
    }

    /// Writes it in pieces of about 64 KiB, each given to `write`.
    pub fn write(self, mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let block = format!("{LONG},\n").repeat(64 * 1024 / LONG.len());
        let step = block.len() / (LONG.len() + 2);
        write(b"[\n")?;
        let mut left = self.entries - 1;
        while left > 0 {
            let now = left.min(step as u64);
            write(&block.as_bytes()[..now as usize * (LONG.len() + 2)])?;
            left -= now;
        }
        write(format!("{LONG}\n]\n").as_bytes())
    }

    /// Length and CRC-32 of it, minified.
    pub fn minified(self) -> (u64, u32) {
        let mut sum = crc(b"[");
        let mut power = crc(format!("{SHORT},").as_bytes());
        let mut left = self.entries - 1;
        // By doubling: a checksum byte by byte would take longer than the scenario.
        while left > 0 {
            if left % 2 == 1 {
                sum.combine(&power);
            }
            let mut twice = crc(b"");
            twice.combine(&power);
            twice.combine(&power);
            power = twice;
            left /= 2;
        }
        sum.combine(&crc(format!("{SHORT}]").as_bytes()));
        let length = 1 + (self.entries - 1) * (SHORT.len() as u64 + 1) + SHORT.len() as u64 + 1;
        (length, sum.sum())
    }
}

fn crc(bytes: &[u8]) -> Crc {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc
}

/// What a [`Streaming`] origin does with a path: writes a whole message.
type Answers = dyn Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync;

/// An HTTP/1.1 origin that writes what a function tells it to; it lives as long as the program.
pub struct Streaming {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Streaming {
    /// Starts one; requests have no bodies. A connection ends when `answers` fails.
    pub fn start(
        answers: impl Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        cargo_edge::process::raise_file_limit();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let answers: Arc<Answers> = Arc::new(answers);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answers = Arc::clone(&answers);
                let started = thread::Builder::new()
                    .stack_size(256 * 1024)
                    // The edge leaves as it likes: nothing to say about it.
                    .spawn(move || drop(serve(stream, &*answers)));
                drop(started);
            }
        });
        Ok(Self { address })
    }

    /// Writes an array of so many bytes to whoever asks, in chunks; `written` is how far it is.
    pub fn array(bytes: u64, written: Arc<AtomicU64>) -> io::Result<Self> {
        Self::start(move |_, stream| {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            )?;
            Array::of_bytes(bytes).write(|piece| {
                stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
                written.fetch_add(piece.len() as u64, Ordering::SeqCst);
                Ok(())
            })?;
            stream.write_all(b"0\r\n\r\n")
        })
    }
}

fn serve(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut held, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        while let Some(at) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&held[..at]).into_owned();
            held.drain(..at + 4);
            answers(head.split(' ').nth(1).unwrap_or_default(), &mut stream)?;
        }
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        held.extend_from_slice(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_an_array_is_that_of_its_bytes() {
        for bytes in [0, 1_000, 300_000] {
            let array = Array::of_bytes(bytes);
            let mut long = Vec::new();
            let written = array.write(|piece| {
                long.extend_from_slice(piece);
                Ok(())
            });
            written.expect("nothing fails");
            let text = String::from_utf8(long).expect("it is text");
            // Equal entries: what is no entry is brackets and commas.
            let entries = text.matches(LONG).count();
            let short = format!("[{}]", vec![SHORT; entries].join(","));
            let sum = crc(short.as_bytes()).sum();
            assert_eq!(array.minified(), (short.len() as u64, sum), "{bytes}");
            let value: Result<Vec<serde_json::Value>, _> = serde_json::from_str(&text);
            assert_eq!(value.map(|all| all.len()).ok(), Some(entries));
        }
    }
}
