//! One client for all commands: HTTP/1.1 and HTTP/2, clear and TLS, bounded in time and size.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, Scheme};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// An edge, and how to ask it.
#[derive(Clone)]
pub struct Asker {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    edge: Option<Edge>,
    timeout: Duration,
}

/// Where an edge listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edge {
    scheme: Scheme,
    authority: Authority,
}

/// A response that was read.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Bytes of its body.
    pub length: u64,
    /// Its body, as far as it was to be kept.
    pub body: Bytes,
}

/// What of a body is wanted.
#[derive(Clone, Copy)]
pub enum Keep {
    /// Its length.
    Length,
    /// All of it, up to so many bytes.
    UpTo(usize),
}

impl std::str::FromStr for Edge {
    type Err = String;

    /// `http://host:port`, `https://host`, or `host:port`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no edge, such as http://127.0.0.1:8000");
        let full = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let parts = full.parse::<Uri>().map_err(|_| wrong())?.into_parts();
        let bare = parts.path_and_query.is_none_or(|path| path == "/");
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(wrong());
        };
        let known = scheme == Scheme::HTTP || scheme == Scheme::HTTPS;
        if !bare || !known || authority.as_str().contains('@') {
            return Err(wrong());
        }
        Ok(Self { scheme, authority })
    }
}

impl std::fmt::Display for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

impl Asker {
    /// A client of one edge; without one, each URL is asked where it says.
    pub fn new(edge: Option<Edge>, timeout: Duration) -> anyhow::Result<Self> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(timeout.min(Duration::from_secs(5))));
        let https = HttpsConnectorBuilder::new()
            .with_native_roots()
            .context("the system's certificates cannot be read")?
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(https);
        Ok(Self {
            client,
            edge,
            timeout,
        })
    }

    /// Asks for a path or an absolute URL. At the edge the URL's own host is whom the request is for.
    pub async fn ask(
        &self,
        method: Method,
        url: &str,
        fields: &[(HeaderName, HeaderValue)],
        keep: Keep,
    ) -> anyhow::Result<Answer> {
        let request = self.request(method, url, fields)?;
        let asking = async {
            let response = self.client.request(request).await.map_err(reason)?;
            let (parts, mut body) = response.into_parts();
            let (length, body) = match keep {
                Keep::UpTo(most) => {
                    let whole = Limited::new(body, most).collect().await;
                    let whole = whole
                        .map_err(|error| anyhow!("the body: {error}"))?
                        .to_bytes();
                    (whole.len() as u64, whole)
                }
                Keep::Length => {
                    let mut length = 0;
                    while let Some(frame) = body.frame().await {
                        let frame = frame.context("the body was cut short")?;
                        length += frame.data_ref().map_or(0, |data| data.len() as u64);
                    }
                    (length, Bytes::new())
                }
            };
            anyhow::Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                length,
                body,
            })
        };
        match tokio::time::timeout(self.timeout, asking).await {
            Ok(answer) => answer,
            Err(_) => bail!("no whole answer within {} ms", self.timeout.as_millis()),
        }
    }

    fn request(
        &self,
        method: Method,
        url: &str,
        fields: &[(HeaderName, HeaderValue)],
    ) -> anyhow::Result<Request<Empty<Bytes>>> {
        let given: Uri = url
            .parse()
            .with_context(|| format!("\"{url}\" is no URL"))?;
        let given = given.into_parts();
        let (scheme, authority) = match (&self.edge, &given.scheme, &given.authority) {
            (Some(edge), ..) => (edge.scheme.clone(), edge.authority.clone()),
            (None, Some(scheme), Some(authority)) => (scheme.clone(), authority.clone()),
            _ => bail!("\"{url}\" says no host: give an absolute URL, or --edge"),
        };
        let host = given.authority.unwrap_or_else(|| authority.clone());
        let mut to = http::uri::Parts::default();
        to.scheme = Some(scheme);
        to.authority = Some(authority);
        to.path_and_query = given
            .path_and_query
            .or_else(|| Some(http::uri::PathAndQuery::from_static("/")));
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(to)?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(host.as_str())?);
        for (name, value) in fields {
            headers.append(name, value.clone());
        }
        Ok(request)
    }
}

/// The innermost cause says most: "connection refused", not "client error".
fn reason(error: hyper_util::client::legacy::Error) -> anyhow::Error {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    anyhow!("{cause}")
}

/// `name: value`, as an option gives it. What the client makes itself is refused: whom a request is for, and framing.
pub fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("\"{text}\" is no field, such as \"accept-language: de\"");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
    let value = value.trim().parse().map_err(|_| wrong())?;
    match name {
        // RFC 9112 §3.2: a request with more than one Host is answered with 400.
        HOST => Err(format!(
            "\"{text}\": whom a request is for is in its URL: give absolute URLs, and --edge"
        )),
        CONNECTION | CONTENT_LENGTH | TE | TRAILER | TRANSFER_ENCODING | UPGRADE => Err(format!(
            "\"{text}\" is not for an option: the client frames its requests itself"
        )),
        _ => Ok((name, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_an_origin_and_nothing_more() {
        for (text, want) in [
            ("127.0.0.1:8000", Some("http://127.0.0.1:8000")),
            ("http://edge.test", Some("http://edge.test")),
            ("https://edge.test:8443/", Some("https://edge.test:8443")),
            ("http://edge.test/path", None),
            ("ftp://edge.test", None),
            ("http://user@edge.test", None),
            ("", None),
            ("a b", None),
        ] {
            let edge = text.parse::<Edge>().ok().map(|edge| edge.to_string());
            assert_eq!(edge.as_deref(), want, "{text}");
        }
    }

    #[test]
    fn the_edge_is_asked_for_the_urls_own_host() {
        let to = |edge: Option<&str>, url: &str| {
            let edge = edge.map(|edge| edge.parse().unwrap());
            let asker = Asker::new(edge, Duration::from_secs(1)).unwrap();
            let request = asker.request(Method::GET, url, &[]).ok()?;
            let host = request.headers()[HOST].to_str().unwrap().to_owned();
            Some((request.uri().to_string(), host))
        };
        for (edge, url, want) in [
            (
                Some("e:1"),
                "http://shop.test/a?b",
                Some(("http://e:1/a?b", "shop.test")),
            ),
            (Some("e:1"), "/a", Some(("http://e:1/a", "e:1"))),
            (
                Some("e:1"),
                "http://shop.test",
                Some(("http://e:1/", "shop.test")),
            ),
            (
                None,
                "http://shop.test/a",
                Some(("http://shop.test/a", "shop.test")),
            ),
            (None, "/a", None),
        ] {
            let want = want.map(|(uri, host)| (uri.to_owned(), host.to_owned()));
            assert_eq!(to(edge, url), want, "{edge:?} {url}");
        }
    }

    #[test]
    fn a_field_is_what_the_client_does_not_make_itself() {
        for (text, want) in [
            ("accept-language: de", Ok("accept-language: de")),
            (" X-A :b:c ", Ok("x-a: b:c")),
            ("x-empty:", Ok("x-empty: ")),
            ("x-a", Err("is no field")),
            ("x a: b", Err("is no field")),
            ("Host: x", Err("give absolute URLs, and --edge")),
            ("content-length: 5", Err("frames its requests itself")),
            (
                "Transfer-Encoding: chunked",
                Err("frames its requests itself"),
            ),
        ] {
            match (field(text), want) {
                (Ok((name, value)), Ok(want)) => {
                    assert_eq!(format!("{name}: {}", value.to_str().unwrap()), want);
                }
                (Err(why), Err(want)) => assert!(why.contains(want), "{text}: {why}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }
}
