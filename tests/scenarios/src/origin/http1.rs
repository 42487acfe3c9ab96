//! The HTTP/1.1 origin: a thread for each connection, bytes as told.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::Slots;
use crate::{Framing, Origin, Received};

pub(super) fn start(slots: Arc<Slots>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let slots = Arc::clone(&slots);
            // A thousand connections at once are a scenario: small stacks.
            let started = thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn(move || drop(serve(stream, &slots)));
            drop(started);
        }
    });
    Ok(address)
}

/// Serves a connection to its end.
fn serve(stream: TcpStream, slots: &Slots) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some((received, closes)) = receive(&mut reader, &mut writer)? {
        let is_head = received.method == "HEAD";
        let origin = slots
            .take(received)
            .unwrap_or_else(|| Arc::new(Origin::status(404).field("x-origin", "no such scenario")));
        if !respond(&mut writer, &origin, is_head)? || closes {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads a request whole; `None` at the end of the connection. The flag says that the edge wants it closed after.
pub(crate) fn receive(
    reader: &mut BufReader<TcpStream>,
    writer: &mut TcpStream,
) -> io::Result<Option<(Received, bool)>> {
    let Some(line) = line(reader)? else {
        return Ok(None);
    };
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split(' ');
    let mut received = Received {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        ..Received::default()
    };
    fields(reader, &mut received.fields)?;
    if received.text("expect").eq_ignore_ascii_case("100-continue") {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if received
        .text("transfer-encoding")
        .to_ascii_lowercase()
        .ends_with("chunked")
    {
        loop {
            let size = self::line(reader)?.unwrap_or_default();
            let size = String::from_utf8_lossy(&size).into_owned();
            let size = size.split(';').next().unwrap_or_default().trim().to_owned();
            let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
            if size == 0 {
                fields(reader, &mut Vec::new())?;
                break;
            }
            reader.take(size as u64).read_to_end(&mut received.body)?;
            self::line(reader)?;
        }
    } else if let Ok(length) = received.text("content-length").parse::<u64>() {
        reader.take(length).read_to_end(&mut received.body)?;
    }
    let closes = received.text("connection").eq_ignore_ascii_case("close");
    Ok(Some((received, closes)))
}

fn line(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    while matches!(line.last(), Some(b'\n' | b'\r')) {
        line.pop();
    }
    Ok(Some(line))
}

fn fields(
    reader: &mut BufReader<TcpStream>,
    fields: &mut Vec<(String, Vec<u8>)>,
) -> io::Result<()> {
    while let Some(line) = line(reader)? {
        if line.is_empty() {
            break;
        }
        if let Some(colon) = line.iter().position(|byte| *byte == b':') {
            let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
            fields.push((name, line[colon + 1..].trim_ascii().to_vec()));
        }
    }
    Ok(())
}

/// Does as told; whether the connection stays open.
fn respond(writer: &mut TcpStream, origin: &Origin, is_head: bool) -> io::Result<bool> {
    thread::sleep(origin.delay);
    if origin.is_gone() {
        return Ok(false);
    }
    let mut head = format!("HTTP/1.1 {} Said\r\n", origin.status).into_bytes();
    for (name, value) in &origin.fields {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    let bodiless = matches!(origin.status, 204 | 304);
    let given = origin
        .fields
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    match origin.framing {
        _ if bodiless || given => {}
        Framing::Length => {
            head.extend_from_slice(format!("content-length: {}\r\n", origin.length()).as_bytes());
        }
        Framing::Chunked => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Close => head.extend_from_slice(b"connection: close\r\n"),
    }
    head.extend_from_slice(b"\r\n");
    writer.write_all(&head)?;
    if is_head || bodiless {
        return Ok(true);
    }
    for (at, piece) in origin.body.iter().enumerate() {
        if at > 0 {
            thread::sleep(origin.pause);
        }
        if !origin.may_send(at) {
            return Ok(false);
        }
        if origin.framing == Framing::Chunked {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            writer.write_all(&chunk)?;
        } else {
            writer.write_all(piece)?;
        }
    }
    if origin.cut {
        return Ok(false);
    }
    if origin.framing == Framing::Chunked {
        let mut end = b"0\r\n".to_vec();
        for (name, value) in &origin.trailers {
            end.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        end.extend_from_slice(b"\r\n");
        writer.write_all(&end)?;
    }
    Ok(origin.framing != Framing::Close)
}
