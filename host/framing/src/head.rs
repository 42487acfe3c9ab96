//! A request head: is it sound, and what body follows.

/// What follows a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// So many bytes; 0 for none.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// A line that does not end in CR LF, or a CR or NUL within one.
    LineEnd,
    /// The request line.
    RequestLine,
    /// A version other than HTTP/1.1 and HTTP/1.0.
    Version,
    /// A field line: its name, or what follows it.
    Field,
    /// A line folded over two.
    Folded,
    /// No `Host`, or more than one.
    Host,
    /// A `Content-Length` that is no number, or more than one.
    Length,
    /// A `Transfer-Encoding` other than `chunked`, once.
    Coding,
    /// `Content-Length` and `Transfer-Encoding`.
    BothLengths,
    /// A chunk: its size, or its end.
    Chunk,
    /// HTTP/2: a first frame that is no SETTINGS.
    FirstFrame,
    /// HTTP/2: a frame of a length that its type cannot have.
    FrameLength,
    /// HTTP/2: windows beyond 2^31 - 1 in SETTINGS.
    Window,
    /// HTTP/2: padding that is longer than what it fills.
    Padding,
    /// HTTP/2: PUSH_PROMISE from a client.
    Push,
    /// HTTP/2: CONTINUATION without HEADERS before it, or another frame in its place.
    Continuation,
    /// HTTP/2: frames of one field block without end.
    Continuations,
    /// HTTP/2: a field block that cannot be decoded.
    FieldBlock,
    /// HTTP/2: a pseudo-field deep within trailers.
    Trailers,
}

impl Malformed {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::LineEnd => "line end",
            Self::RequestLine => "request line",
            Self::Version => "version",
            Self::Field => "field line",
            Self::Folded => "folded line",
            Self::Host => "host",
            Self::Length => "content-length",
            Self::Coding => "transfer-encoding",
            Self::BothLengths => "content-length and transfer-encoding",
            Self::Chunk => "chunk",
            Self::FirstFrame => "first frame",
            Self::FrameLength => "frame length",
            Self::Window => "window",
            Self::Padding => "padding",
            Self::Push => "push",
            Self::Continuation => "continuation",
            Self::Continuations => "continuations",
            Self::FieldBlock => "field block",
            Self::Trailers => "trailers",
        }
    }
}

/// What body follows a head, which is whole and ends with its empty line.
pub fn request(head: &[u8]) -> Result<Body, Malformed> {
    let mut lines = lines_of(head);
    let line = lines.next().ok_or(Malformed::RequestLine)?;
    let latest = request_line(line)?;
    let (mut length, mut chunked, mut hosts) = (None, false, 0);
    for line in lines {
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            // RFC 9112 §6.3: lists and repetitions of one value may be replaced by it; they are an error here.
            if length
                .replace(number(value).ok_or(Malformed::Length)?)
                .is_some()
            {
                return Err(Malformed::Length);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // RFC 9112 §6.1: a coding that is not understood is an error, chunked is applied once, and HTTP/1.0 has none.
            if chunked || !latest || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::Coding);
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        }
    }
    // RFC 9112 §3.2: a request of HTTP/1.1 without Host, and any with more than one, is answered with 400.
    if hosts > 1 || (latest && hosts == 0) {
        return Err(Malformed::Host);
    }
    match (chunked, length) {
        // RFC 9112 §6.3: such a message might be an attempt at request smuggling and ought to be handled as an error.
        (true, Some(_)) => Err(Malformed::BothLengths),
        (true, None) => Ok(Body::Chunked),
        (false, length) => Ok(Body::Length(length.unwrap_or(0))),
    }
}

/// The lines of a head without their ends; the empty one at its end is none.
fn lines_of(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let head = head.strip_suffix(b"\r\n\r\n").unwrap_or(head);
    head.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

// RFC 9112 §3: method SP request-target SP HTTP-version.
/// Whether the version is HTTP/1.1.
fn request_line(line: &[u8]) -> Result<bool, Malformed> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed::RequestLine);
    };
    let visible = |byte: &u8| byte.is_ascii_graphic() || *byte >= 0x80;
    // RFC 9112 §3.2: a fragment is not part of a request target.
    let sound = !target.is_empty() && target.iter().all(visible) && !target.contains(&b'#');
    if method.is_empty() || !method.iter().all(token) || !sound || !form(method, target) {
        return Err(Malformed::RequestLine);
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(Malformed::Version),
    }
}

// RFC 9112 §3.2: origin-form, absolute-form, authority-form of CONNECT, and the asterisk of OPTIONS.
/// Whether a target has one of the four forms.
fn form(method: &[u8], target: &[u8]) -> bool {
    let scheme = |scheme: &[u8]| {
        let start = target.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    match method {
        b"CONNECT" => true,
        b"OPTIONS" if target == b"*" => true,
        _ => target.starts_with(b"/") || scheme(b"http://") || scheme(b"https://"),
    }
}

/// Name and value of a field line.
pub(crate) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    // RFC 9112 §5.2: a server refuses a folded line, or replaces the fold.
    if line
        .first()
        .is_some_and(|byte| matches!(byte, b' ' | b'\t'))
    {
        return Err(Malformed::Folded);
    }
    let at = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(Malformed::Field)?;
    let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
    // RFC 9112 §5.1: white space between the name and the colon is answered with 400.
    if name.is_empty() || !name.iter().all(token) {
        return Err(Malformed::Field);
    }
    // RFC 9110 §5.5: of control characters only the tab.
    let sound = |byte: &u8| !byte.is_ascii_control() || *byte == b'\t';
    if !line[at + 1..].iter().all(sound) {
        return Err(Malformed::Field);
    }
    Ok((name, value))
}

// RFC 9110 §8.6: 1*DIGIT.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

// RFC 9110 §5.6.2: tchar.
fn token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_what_follows_them() {
        use Body::{Chunked, Length};
        for (name, fields, want) in [
            ("nothing", "", Ok(Length(0))),
            ("a length", "Content-Length: 42\r\n", Ok(Length(42))),
            (
                "white space around it",
                "Content-Length: \t 42 \r\n",
                Ok(Length(42)),
            ),
            ("zero", "content-length:0\r\n", Ok(Length(0))),
            ("chunks", "Transfer-Encoding: Chunked\r\n", Ok(Chunked)),
            (
                "both",
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
                Err(Malformed::BothLengths),
            ),
            (
                "both, the other way",
                "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
                Err(Malformed::BothLengths),
            ),
            (
                "two lengths",
                "Content-Length: 4\r\nContent-Length: 4\r\n",
                Err(Malformed::Length),
            ),
            ("a list", "Content-Length: 4, 4\r\n", Err(Malformed::Length)),
            ("a sign", "Content-Length: +4\r\n", Err(Malformed::Length)),
            ("no digits", "Content-Length:\r\n", Err(Malformed::Length)),
            (
                "too large",
                "Content-Length: 18446744073709551616\r\n",
                Err(Malformed::Length),
            ),
            (
                "another coding",
                "Transfer-Encoding: gzip\r\n",
                Err(Malformed::Coding),
            ),
            (
                "two codings",
                "Transfer-Encoding: gzip, chunked\r\n",
                Err(Malformed::Coding),
            ),
            (
                "twice",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Err(Malformed::Coding),
            ),
            ("none", "Transfer-Encoding:\r\n", Err(Malformed::Coding)),
            (
                "a space before the colon",
                "Content-Length : 4\r\n",
                Err(Malformed::Field),
            ),
            ("no colon", "field\r\n", Err(Malformed::Field)),
            ("no name", ": x\r\n", Err(Malformed::Field)),
            ("a control character", "x: \x01\r\n", Err(Malformed::Field)),
            ("a tab", "x: a\tb\r\n", Ok(Length(0))),
            ("bytes beyond ASCII", "x: caf\u{e9}\r\n", Ok(Length(0))),
            ("folded", "x: a\r\n b\r\n", Err(Malformed::Folded)),
            ("two hosts", "Host: a\r\n", Err(Malformed::Host)),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(request(head.as_bytes()), want, "{name}");
        }
    }

    #[test]
    fn request_lines() {
        for (line, want) in [
            ("GET / HTTP/1.1\r\nHost: a", Ok(Body::Length(0))),
            ("GET / HTTP/1.0", Ok(Body::Length(0))),
            ("OPTIONS * HTTP/1.1\r\nhost: a", Ok(Body::Length(0))),
            ("GET / HTTP/1.1", Err(Malformed::Host)),
            (
                "GET / HTTP/1.0\r\nTransfer-Encoding: chunked",
                Err(Malformed::Coding),
            ),
            ("GET / HTTP/1.2\r\nHost: a", Err(Malformed::Version)),
            ("GET / http/1.1\r\nHost: a", Err(Malformed::Version)),
            ("GET /", Err(Malformed::RequestLine)),
            ("GET  / HTTP/1.1", Err(Malformed::RequestLine)),
            ("GET / HTTP/1.1 ", Err(Malformed::RequestLine)),
            ("GET /a b HTTP/1.1", Err(Malformed::RequestLine)),
            ("GET\t/ HTTP/1.1", Err(Malformed::RequestLine)),
            ("GE(T / HTTP/1.1", Err(Malformed::RequestLine)),
            ("GET /#x HTTP/1.1", Err(Malformed::RequestLine)),
            ("", Err(Malformed::RequestLine)),
            ("GET a HTTP/1.1\r\nHost: a", Err(Malformed::RequestLine)),
            ("GET * HTTP/1.1\r\nHost: a", Err(Malformed::RequestLine)),
            (
                "GET ftp://a/ HTTP/1.1\r\nHost: a",
                Err(Malformed::RequestLine),
            ),
            ("GET HTTP://a/ HTTP/1.1\r\nHost: a", Ok(Body::Length(0))),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a:1", Ok(Body::Length(0))),
        ] {
            assert_eq!(
                request(format!("{line}\r\n\r\n").as_bytes()),
                want,
                "{line:?}"
            );
        }
    }
}
