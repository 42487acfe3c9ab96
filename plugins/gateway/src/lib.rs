//! A terminal component: forwards every request to one origin, over `wasi:http/client`.
//!
//! It ends a chain of filters where the host has no origin of its own to forward to, as with Spin or `wasmtime serve`. The
//! origin is the environment variable `EDGEWEIR_ORIGIN`, `http://` or `https://` with a host and perhaps a port, by
//! default `http://127.0.0.1:9000`; the host must allow the component to connect there.
//!
//! Bodies and trailers are handed on as streams in both directions, without being read. The origin sees its own name as
//! authority (wasi:http sets `host` from where it connects to) and the client's in `x-forwarded-host`,
//! `x-forwarded-proto` and, where the host tells the address, `x-forwarded-for`. Fields of one connection, `host` and Spin's
//! own `spin-*` fields stay behind. No response from the origin is answered 502, one that came too late 504, both with
//! problem details (RFC 9457).
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[allow(
    missing_docs,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "edgeweir:worlds/gateway",
        generate_all,
    });
}
mod fields;
mod origin;

use bindings::exports::wasi::http::handler::Guest;
use bindings::wasi::http::client;
use bindings::wasi::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use bindings::{wit_future, wit_stream};
use origin::Origin;

/// The environment variable that names the origin.
const ORIGIN: &str = "EDGEWEIR_ORIGIN";

struct Gateway;

impl Guest for Gateway {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let origin = match Origin::parse(std::env::var(ORIGIN).ok().as_deref()) {
            Ok(origin) => origin,
            Err(why) => return problem(500, "Configuration Refused", &format!("{ORIGIN}: {why}")),
        };
        let Some(request) = to_origin(request, &origin) else {
            return problem(400, "Bad Request", "the request's head can't be forwarded");
        };
        match client::send(request).await {
            Ok(response) => Ok(from_origin(response)),
            Err(code) => {
                let (status, title) = status_of(&code);
                problem(status, title, "the origin gave no response")
            }
        }
    }
}

bindings::export!(Gateway with_types_in bindings);

/// The request as the origin gets it; `None` when the host refuses its head.
fn to_origin(request: Request, origin: &Origin) -> Option<Request> {
    let scheme = match request.get_scheme() {
        Some(Scheme::Https) => "https",
        _ => "http",
    };
    let authority = request.get_authority();
    let lines = fields::to_origin(
        request.get_headers().copy_all(),
        scheme,
        authority.as_deref(),
    );
    let section = Fields::from_list(&lines).ok()?;
    let (method, path) = (request.get_method(), request.get_path_with_query());
    let options = request.get_options().map(|options| options.clone());
    let (done, received) = wit_future::new::<Result<(), ErrorCode>>(|| Ok(()));
    let (contents, trailers) = Request::consume_body(request, received);
    drop(done);
    let (request, _sent) = Request::new(section, Some(contents), trailers, options);
    let scheme = if origin.https {
        Scheme::Https
    } else {
        Scheme::Http
    };
    request.set_method(&method).ok()?;
    request.set_scheme(Some(&scheme)).ok()?;
    request.set_authority(Some(&origin.authority)).ok()?;
    request.set_path_with_query(path.as_deref()).ok()?;
    Some(request)
}

/// The origin's response as it came, without the fields of the connection it came by.
fn from_origin(response: Response) -> Response {
    let received = response.get_headers();
    let lines = received.copy_all();
    let Some(kept) = fields::from_origin(&lines) else {
        return response;
    };
    let Ok(section) = Fields::from_list(&kept) else {
        return response;
    };
    let status = response.get_status_code();
    let (done, consumed) = wit_future::new::<Result<(), ErrorCode>>(|| Ok(()));
    let (contents, trailers) = Response::consume_body(response, consumed);
    drop(done);
    let (response, _sent) = Response::new(section, Some(contents), trailers);
    // It was a received response's status, so it is a status.
    let _ = response.set_status_code(status);
    response
}

/// RFC 9110 §15.6.3, §15.6.5; RFC 9209 §2.3.
fn status_of(code: &ErrorCode) -> (u16, &'static str) {
    match code {
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => (504, "Gateway Timeout"),
        ErrorCode::ConnectionLimitReached | ErrorCode::DestinationUnavailable => {
            (503, "Service Unavailable")
        }
        ErrorCode::HttpRequestBodySize(_) => (413, "Content Too Large"),
        _ => (502, "Bad Gateway"),
    }
}

fn problem(status: u16, title: &str, detail: &str) -> Result<Response, ErrorCode> {
    let body = format!(
        r#"{{"type":"about:blank","title":"{}","status":{status},"detail":"{}"}}"#,
        escaped(title),
        escaped(detail)
    );
    let line = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let lines = [
        line("content-type", "application/problem+json"),
        line("cache-control", "no-store"),
        line("content-length", &body.len().to_string()),
    ];
    let section = Fields::from_list(&lines)
        .map_err(|error| ErrorCode::InternalError(Some(format!("{error:?}"))))?;
    let (mut writer, contents) = wit_stream::new::<u8>();
    let (end, trailers) = wit_future::new(|| Ok(None));
    wit_bindgen::spawn_local(async move {
        writer.write_all(body.into_bytes()).await;
        drop(writer);
        drop(end);
    });
    let (response, _sent) = Response::new(section, Some(contents), trailers);
    let _ = response.set_status_code(status);
    Ok(response)
}

/// RFC 8259 §7: quotation mark, reverse solidus and control characters are escaped.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            control if u32::from(control) < 0x20 => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_text_stays_json() {
        assert_eq!(escaped("a\"b\\c\n"), "a\\\"b\\\\c\\u000a");
    }

    #[test]
    fn a_late_origin_is_told_from_a_dead_one() {
        assert_eq!(status_of(&ErrorCode::ConnectionTimeout).0, 504);
        assert_eq!(status_of(&ErrorCode::ConnectionRefused).0, 502);
    }
}
