//! Requests of a filter's own: to the next handler, or through `wasi:http/client`.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use edgeweir_filter::{FETCHED, Failed, Fetch, Fetched, Reply, RequestHead, ResponseHead, To};

use crate::bindings::wasi::http::types::{ErrorCode, Request, RequestOptions, Response};
use crate::bindings::wasi::http::{client, handler};
use crate::body::{self, ReadFailed};
use crate::{message, problem, time};

/// Performs an `Effect::Fetch` that names its target. A component that has none is built without it and imports no client.
pub type Fetcher = fn(Fetch) -> Pin<Box<dyn Future<Output = Result<Fetched, Failed>>>>;

/// The fetcher over `wasi:http/client`: `to` is an authority, the body of the answer has at most [`FETCHED`] bytes, and
/// the whole takes `timeout` at most. A request for another host than `to` is not sent: a guest can't set `Host`, the client makes it
/// of the authority, and the answer would be another site's.
pub fn fetcher(mut fetch: Fetch) -> Pin<Box<dyn Future<Output = Result<Fetched, Failed>>>> {
    Box::pin(async move {
        let To::Named(authority) = &mut fetch.to else {
            return Err(Failed::Unsupported);
        };
        if !is_for(&fetch.head, authority) {
            return Err(Failed::Unsupported);
        }
        fetch.head.authority = Bytes::from(std::mem::take(authority));
        whole(fetch, client::send).await
    })
}

/// Whether a request is for this authority, with or without its scheme's default port.
fn is_for(head: &RequestHead, authority: &str) -> bool {
    let port: &[u8] = match &head.scheme[..] {
        b"https" => b":443",
        _ => b":80",
    };
    let bare = |text: &[u8]| {
        let text = text.to_ascii_lowercase();
        text.strip_suffix(port).map(<[u8]>::to_vec).unwrap_or(text)
    };
    bare(&head.authority) == bare(authority.as_bytes())
}

/// Asks the next handler, as an exchange does, under the same bounds as [`fetcher`]. Its trailers are not kept.
pub(crate) async fn onward(fetch: Fetch) -> Result<Fetched, Failed> {
    whole(fetch, handler::handle).await
}

/// Sends a request and waits for the whole response.
async fn whole<F: Future<Output = Result<Response, ErrorCode>>>(
    fetch: Fetch,
    send: impl FnOnce(Request) -> F,
) -> Result<Fetched, Failed> {
    let limit = fetch.timeout;
    time::within(limit, exchange(fetch, send))
        .await
        .unwrap_or(Err(Failed::TimedOut))
}

async fn exchange<F: Future<Output = Result<Response, ErrorCode>>>(
    fetch: Fetch,
    send: impl FnOnce(Request) -> F,
) -> Result<Fetched, Failed> {
    let mut head = fetch.head;
    let is_head = head.method == "HEAD";
    message::strip_connection(&mut head.fields);
    if fetch.body.is_empty() {
        head.fields.remove("content-length");
    } else {
        head.fields
            .set("content-length", fetch.body.len().to_string());
    }
    let section = message::section(&head.fields).map_err(|_| Failed::TooLarge)?;
    let (contents, trailers) = body::whole(fetch.body);
    let options = RequestOptions::new();
    let nanos = u64::try_from(fetch.timeout.as_nanos()).ok();
    // Advice only: the whole is timed in any case.
    let _ = options.set_connect_timeout(nanos);
    let _ = options.set_first_byte_timeout(nanos);
    let (request, _sent) = Request::new(section, contents, trailers, Some(options));
    message::set_line(&request, &head).map_err(|_| Failed::Unavailable)?;
    let response = send(request)
        .await
        .map_err(|code| match problem::status_of(&code) {
            504 => Failed::TimedOut,
            _ => Failed::Unavailable,
        })?;
    let head = message::response_head(&response, is_head);
    let body = if head.end {
        Vec::new()
    } else {
        body::collect(response, head.content_length(), FETCHED)
            .await
            .map_err(|failed| match failed {
                ReadFailed::TooLong => Failed::TooLarge,
                ReadFailed::Cut => Failed::Unavailable,
            })?
    };
    Ok(Reply {
        head: ResponseHead {
            end: body.is_empty(),
            ..head
        },
        body: body.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_for_its_own_host_only() {
        for (scheme, host, authority, want) in [
            ("http", "store:7000", "store:7000", true),
            ("http", "A.example", "a.example:80", true),
            ("https", "a.example:443", "a.example", true),
            ("https", "a.example", "a.example:80", false),
            ("http", "a.example", "b.example", false),
            ("http", "a.example", "127.0.0.1:9000", false),
        ] {
            let head = RequestHead {
                scheme: scheme.into(),
                authority: host.into(),
                ..RequestHead::default()
            };
            assert_eq!(
                is_for(&head, authority),
                want,
                "{scheme} {host} {authority}"
            );
        }
    }
}
