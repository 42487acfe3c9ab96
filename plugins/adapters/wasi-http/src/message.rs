//! Heads of wasi:http messages and of the contract, each made from the other.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use edgeweir_filter::{Changed, Emergency, Fields, RequestHead, ResponseHead, Wants};

use crate::bindings::wasi::http::types::{
    self as wasi, HeaderError, Method, Request, Response, Scheme,
};

/// Something of a message that the host refuses, and that must not be left out silently.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused {
    /// The field section is over the host's limit.
    Fields,
    /// The host does not take the method, scheme, authority or path.
    Line,
    /// The host does not take the status.
    Status,
}

impl Refused {
    /// For problem details and log lines.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Fields => "the host refused the field section",
            Self::Line => "the host refused the request's method, scheme, authority or path",
            Self::Status => "the host refused the status code",
        }
    }
}

/// A received request's head, with what the filter wants of it. The emergency level comes in a field, from a host that
/// watches its resources and says so.
pub(crate) fn request_head(request: &Request, wants: Wants) -> RequestHead {
    let fields = received(&request.get_headers());
    let authority = match request.get_authority() {
        Some(authority) => Bytes::from(authority),
        None => fields
            .get("host")
            .map(Bytes::copy_from_slice)
            .unwrap_or_default(),
    };
    let method = method_bytes(request.get_method());
    let end = ends_with_head(&method, &fields);
    let peer = if wants.peer { peer(&fields) } else { None };
    let emergency = match wants.emergency {
        true => Emergency::NONE.raised_by(&fields),
        false => Emergency::NONE,
    };
    // The host appends, as with the address.
    let route = fields
        .values("spin-matched-route")
        .last()
        .filter(|_| wants.route);
    let route = route.map(Bytes::copy_from_slice);
    RequestHead {
        scheme: scheme_bytes(request.get_scheme()),
        path: request
            .get_path_with_query()
            .map_or_else(|| Bytes::from_static(b"/"), Bytes::from),
        method,
        authority,
        fields,
        peer,
        route,
        peer_forwarded: false,
        emergency,
        end,
        bodiless: false,
    }
}

/// A received response's head.
pub(crate) fn response_head(response: &Response, is_head: bool) -> ResponseHead {
    let mut head = ResponseHead {
        status: response.get_status_code(),
        fields: received(&response.get_headers()),
        end: false,
        ..ResponseHead::default()
    };
    head.end = has_no_body(head.status, is_head) || head.content_length() == Some(0);
    head
}

/// RFC 9110 §6.4.1: responses to HEAD, 1xx, 204 and 304 have no content, whatever their fields say.
pub(crate) fn has_no_body(status: u16, is_head: bool) -> bool {
    is_head || status < 200 || matches!(status, 204 | 304)
}

/// The field lines of a section.
pub(crate) fn received(section: &wasi::Fields) -> Fields {
    Fields::received(
        section
            .copy_all()
            .into_iter()
            .map(|(name, value)| (Bytes::from(name), Bytes::from(value))),
    )
}

/// `received` with the changes of `fields` written into a copy; received sections themselves are immutable. A field that
/// the host reserves for itself or whose value no HTTP field can have is left as it was.
pub(crate) fn changed(received: &wasi::Fields, fields: &Fields) -> Result<wasi::Fields, Refused> {
    let section = received.clone();
    for Changed { name, .. } in fields.changed() {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        let values: Vec<Vec<u8>> = fields.values(name).map(<[u8]>::to_vec).collect();
        let written = if values.is_empty() {
            section.delete(name)
        } else {
            section.set(name, &values)
        };
        acceptable(written)?;
    }
    Ok(section)
}

/// A section of its own from `fields`.
pub(crate) fn section(fields: &Fields) -> Result<wasi::Fields, Refused> {
    let section = wasi::Fields::new();
    for (name, value) in fields.iter() {
        if let Ok(name) = std::str::from_utf8(name) {
            acceptable(section.append(name, value))?;
        }
    }
    Ok(section)
}

/// Drops what belongs to one connection, and `host` (a rebuilt request has an authority instead).
/// RFC 9110 §7.6.1: also the fields that Connection names.
pub(crate) fn strip_connection(fields: &mut Fields) {
    let named: Vec<String> = fields
        .list("connection")
        .filter_map(|name| std::str::from_utf8(name).ok())
        .map(str::to_ascii_lowercase)
        .collect();
    for name in CONNECTION
        .into_iter()
        .chain(named.iter().map(String::as_str))
    {
        fields.remove(name);
    }
}

const CONNECTION: [&str; 9] = [
    "connection",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

fn acceptable(written: Result<(), HeaderError>) -> Result<(), Refused> {
    match written {
        Ok(()) | Err(HeaderError::Forbidden | HeaderError::InvalidSyntax) => Ok(()),
        Err(HeaderError::Immutable | HeaderError::SizeExceeded | HeaderError::Other(_)) => {
            Err(Refused::Fields)
        }
    }
}

/// Sets method, scheme, authority and path of a rebuilt request. wasi:http asks for an authority with HTTP schemes.
pub(crate) fn set_line(request: &Request, head: &RequestHead) -> Result<(), Refused> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).map_err(|_| Refused::Line);
    let authority = if head.authority.is_empty() {
        "localhost".to_owned()
    } else {
        text(&head.authority)?
    };
    let scheme = match &head.scheme[..] {
        b"http" | b"" => Scheme::Http,
        b"https" => Scheme::Https,
        _ => Scheme::Other(text(&head.scheme)?),
    };
    request
        .set_method(&method(&head.method).ok_or(Refused::Line)?)
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(&authority)))
        .map_err(|()| Refused::Line)?;
    let path = text(&head.path)?;
    request
        .set_path_with_query(Some(&path))
        .map_err(|()| Refused::Line)
}

fn method_bytes(method: Method) -> Bytes {
    Bytes::from_static(match method {
        Method::Get => b"GET",
        Method::Head => b"HEAD",
        Method::Post => b"POST",
        Method::Put => b"PUT",
        Method::Delete => b"DELETE",
        Method::Connect => b"CONNECT",
        Method::Options => b"OPTIONS",
        Method::Trace => b"TRACE",
        Method::Patch => b"PATCH",
        Method::Other(name) => return Bytes::from(name),
    })
}

fn method(bytes: &[u8]) -> Option<Method> {
    Some(match bytes {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"CONNECT" => Method::Connect,
        b"OPTIONS" => Method::Options,
        b"TRACE" => Method::Trace,
        b"PATCH" => Method::Patch,
        other => Method::Other(String::from_utf8(other.to_vec()).ok()?),
    })
}

fn scheme_bytes(scheme: Option<Scheme>) -> Bytes {
    match scheme {
        None | Some(Scheme::Http) => Bytes::from_static(b"http"),
        Some(Scheme::Https) => Bytes::from_static(b"https"),
        Some(Scheme::Other(name)) => Bytes::from(name),
    }
}

/// wasi:http does not say whether a request has a body. Declared empty, or undeclared with a method that seldom has one,
/// is taken for none: such a body still goes on as it came, only unseen by a filter.
fn ends_with_head(method: &[u8], fields: &Fields) -> bool {
    if fields.has("content-length") {
        return fields.list("content-length").all(|length| length == b"0");
    }
    !fields.has("transfer-encoding") && matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE")
}

/// The client's address as the host reports it. Spin appends its own value, so only the last one is the host's; those
/// before it are the client's to forge. The port is left out, and an IPv4-mapped address is shown as IPv4.
fn peer(fields: &Fields) -> Option<Bytes> {
    let line = fields.values("spin-client-addr").last()?;
    let last = line.rsplit(|&byte| byte == b',').next()?.trim_ascii();
    let text = std::str::from_utf8(last).ok()?;
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => address.ip(),
        Err(_) => text
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .ok()?,
    };
    Some(Bytes::from(address.to_canonical().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_client_address_counts() {
        for (name, lines, want) in [
            ("with a port", &["192.0.2.7:51234"][..], Some("192.0.2.7")),
            (
                "forged before",
                &["6.6.6.6:1", "192.0.2.7:51234"],
                Some("192.0.2.7"),
            ),
            (
                "forged in one line",
                &["6.6.6.6, 192.0.2.7:51234"],
                Some("192.0.2.7"),
            ),
            ("IPv6", &["[2001:db8::1]:443"], Some("2001:db8::1")),
            ("IPv6 bare", &["2001:db8::1"], Some("2001:db8::1")),
            ("IPv4 mapped", &["[::ffff:192.0.2.7]:80"], Some("192.0.2.7")),
            ("garbage last", &["192.0.2.7:1, nonsense"], None),
            ("absent", &[], None),
        ] {
            let fields = Fields::received(lines.iter().map(|line| {
                (
                    Bytes::from("spin-client-addr"),
                    Bytes::copy_from_slice(line.as_bytes()),
                )
            }));
            assert_eq!(peer(&fields), want.map(Bytes::from), "{name}");
        }
    }

    #[test]
    fn a_request_without_a_declared_body_ends_with_its_head() {
        for (name, method, lines, want) in [
            ("get", "GET", &[][..], true),
            (
                "get with a length",
                "GET",
                &[("content-length", "3")],
                false,
            ),
            ("empty post", "POST", &[("content-length", "0")], true),
            ("undeclared post", "POST", &[], false),
            (
                "chunked get",
                "GET",
                &[("transfer-encoding", "chunked")],
                false,
            ),
        ] {
            let fields = Fields::of(lines);
            assert_eq!(ends_with_head(method.as_bytes(), &fields), want, "{name}");
        }
    }
}
