//! One small GET, for admin pages.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The most of an answer that is read, bytes.
const MOST: u64 = 16 * 1024 * 1024;

/// The body of a 200.
pub fn get(address: SocketAddr, path: &str) -> Result<String> {
    match answer(address, path, None)? {
        (200, body) => Ok(body),
        (status, _) => bail!("http://{address}{path} answered {status}"),
    }
}

/// The status and the body, of whoever wants this token, each read within five seconds.
pub fn answer(address: SocketAddr, path: &str, token: Option<&str>) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))
        .with_context(|| format!("connecting to http://{address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let bearer = token.map(|token| format!("authorization: Bearer {token}\r\n"));
    let bearer = bearer.unwrap_or_default();
    let asks =
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{bearer}connection: close\r\n\r\n");
    stream.write_all(asks.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("http://{address}{path} ended within its head");
    };
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
    let status = status.with_context(|| format!("http://{address}{path} answered no HTTP"))?;
    let chunked = head
        .lines()
        .any(|line| line.to_ascii_lowercase().starts_with("transfer-encoding:"));
    let body = match chunked {
        true => unchunked(body)?,
        false => body.to_owned(),
    };
    Ok((status, body))
}

fn unchunked(mut rest: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(size.trim(), 16).context("a chunk's size")?;
        if size == 0 {
            return Ok(whole);
        }
        whole.push_str(after.get(..size).context("a chunk that is cut")?);
        rest = after.get(size + 2..).context("a chunk that is cut")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        assert_eq!(
            unchunked("3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n").expect("chunks"),
            "abcd"
        );
        assert!(unchunked("9\r\nabc").is_err());
    }
}
