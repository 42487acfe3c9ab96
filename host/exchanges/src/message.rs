//! A request, its response, and both together.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Channel};

/// Field lines in order, names in lower case.
pub type Fields = Vec<(String, Vec<u8>)>;

/// A request as a client sends it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Whom it is for: `host` or `host:port`.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// Without Host and without framing.
    pub fields: Fields,
    /// The pieces the body is sent in.
    pub body: Vec<Bytes>,
    /// The trailer section.
    pub trailers: Fields,
    /// The body was too large to be kept: there was one, and it is not known.
    pub left_out: bool,
}

/// A response as a client receives it, or as an origin is to send it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// All field lines but those of framing.
    pub fields: Fields,
    /// The pieces the body came in, or is to be sent in.
    pub body: Vec<Bytes>,
    /// The trailer section.
    pub trailers: Fields,
    /// The body did not reach its end.
    pub cut: bool,
    /// The body was too large to be kept: there was one, and it is not known.
    pub left_out: bool,
    /// The body is the text its codings were of; the coded bytes are not known.
    pub decoded: bool,
}

/// A request and its response.
#[derive(Clone, PartialEq, Debug)]
pub struct Exchange {
    /// When the request began, milliseconds since 1970.
    pub started_ms: u64,
    /// How long it took, milliseconds.
    pub took_ms: f64,
    /// The request.
    pub asked: Asked,
    /// The response.
    pub answer: Answer,
}

impl Asked {
    /// A field's first value as text.
    pub fn text(&self, name: &str) -> Option<String> {
        text(&self.fields, name)
    }
}

impl Answer {
    /// A field's first value as text.
    pub fn text(&self, name: &str) -> Option<String> {
        text(&self.fields, name)
    }

    /// The body in one piece.
    pub fn whole(&self) -> Vec<u8> {
        self.body.concat()
    }
}

fn text(fields: &Fields, name: &str) -> Option<String> {
    let found = fields.iter().find(|(it, _)| it == name);
    found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
}

/// Fields of one connection (RFC 9110 §7.6.1) and of framing: of a message that is sent again they are made anew.
pub fn of_the_connection(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
    )
}

/// A body as it is sent.
pub type Body = UnsyncBoxBody<Bytes, Cut>;

/// A body that ends before its end.
#[derive(Clone, Copy, Debug)]
pub struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is cut off here")
    }
}

impl std::error::Error for Cut {}

/// How a body in pieces ends.
pub enum End {
    /// With these trailers, or none.
    Whole(HeaderMap),
    /// With the connection.
    Cut,
}

/// What is sent before a cut has this time to leave: a connection that breaks takes along what waits.
const LEAVES: Duration = Duration::from_millis(20);

/// A body of one piece or none.
pub fn whole(
    body: impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}

/// A body in pieces, each sent when the one before it was taken. To be called in a runtime.
pub fn in_pieces(pieces: &[Bytes], end: End) -> Body {
    let (mut sender, body) = Channel::new(1);
    let pieces = pieces.to_vec();
    tokio::spawn(async move {
        for piece in pieces {
            if sender.send(Frame::data(piece)).await.is_err() {
                return;
            }
        }
        match end {
            End::Whole(trailers) if trailers.is_empty() => {}
            End::Whole(trailers) => {
                let _ = sender.send(Frame::trailers(trailers)).await;
            }
            End::Cut => {
                tokio::time::sleep(LEAVES).await;
                sender.abort(Cut);
            }
        }
    });
    body.boxed_unsync()
}

/// Field lines from a map, in its order.
pub fn fields_of(map: &HeaderMap) -> Fields {
    map.iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect()
}

/// A map from field lines; lines that cannot be sent are left out.
pub fn map_of(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_bytes(value),
        ) {
            map.append(name, value);
        }
    }
    map
}
