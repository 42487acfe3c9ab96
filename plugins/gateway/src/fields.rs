//! Which fields go on, and what is added.

type Line = (String, Vec<u8>);

/// RFC 9110 §7.6.1, and what wasi:http hosts set themselves.
const CONNECTION: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The request's fields for the origin: without those of the connection, `host` and Spin's, with where it came from.
pub(crate) fn to_origin(lines: Vec<Line>, scheme: &str, authority: Option<&str>) -> Vec<Line> {
    let named = named_by_connection(&lines);
    let client = client_address(&lines);
    let host = lines
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, value)| value.clone());
    let mut kept: Vec<Line> = lines
        .into_iter()
        .filter(|(name, _)| {
            !of_connection(name, &named)
                && !name.eq_ignore_ascii_case("host")
                && !starts_with_spin(name)
        })
        .collect();
    if !has(&kept, "x-forwarded-host")
        && let Some(host) = authority.map(|text| text.as_bytes().to_vec()).or(host)
    {
        kept.push(("x-forwarded-host".to_owned(), host));
    }
    if !has(&kept, "x-forwarded-proto") {
        kept.push(("x-forwarded-proto".to_owned(), scheme.as_bytes().to_vec()));
    }
    // A host that appends the address itself has said it already.
    if let Some(client) = client.filter(|client| !ends_with(&kept, client)) {
        kept.push(("x-forwarded-for".to_owned(), client.into_bytes()));
    }
    kept
}

/// The response's fields for the client; `None` when all may stay.
pub(crate) fn from_origin(lines: &[Line]) -> Option<Vec<Line>> {
    let named = named_by_connection(lines);
    lines
        .iter()
        .any(|(name, _)| of_connection(name, &named))
        .then(|| {
            lines
                .iter()
                .filter(|(name, _)| !of_connection(name, &named))
                .cloned()
                .collect()
        })
}

fn of_connection(name: &str, named: &[String]) -> bool {
    CONNECTION
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
        || named.iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn starts_with_spin(name: &str) -> bool {
    name.get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case("spin-"))
}

fn has(lines: &[Line], name: &str) -> bool {
    lines
        .iter()
        .any(|(other, _)| other.eq_ignore_ascii_case(name))
}

/// Whether the last hop that `x-forwarded-for` names is this one.
fn ends_with(lines: &[Line], client: &str) -> bool {
    let last = lines
        .iter()
        .rfind(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-for"));
    last.and_then(|(_, value)| value.rsplit(|byte| *byte == b',').next())
        .is_some_and(|hop| hop.trim_ascii() == client.as_bytes())
}

fn named_by_connection(lines: &[Line]) -> Vec<String> {
    lines
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
        .filter_map(|(_, value)| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// The last `spin-client-addr` without its port: the host appends, so those before are the client's own.
fn client_address(lines: &[Line]) -> Option<String> {
    let (_, value) = lines
        .iter()
        .rfind(|(name, _)| name.eq_ignore_ascii_case("spin-client-addr"))?;
    let text = std::str::from_utf8(value).ok()?.rsplit(',').next()?.trim();
    let address = text
        .parse::<std::net::SocketAddr>()
        .map(|address| address.ip())
        .or_else(|_| text.parse::<std::net::IpAddr>())
        .ok()?;
    Some(address.to_canonical().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[(&str, &str)]) -> Vec<Line> {
        lines
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn what_belongs_to_the_edge_stays_there() {
        let got = to_origin(
            lines(&[
                ("accept", "*/*"),
                ("Connection", "keep-alive, X-Private"),
                ("x-private", "1"),
                ("host", "shop.example"),
                ("spin-full-url", "http://shop.example/"),
                ("spin-client-addr", "6.6.6.6:1"),
                ("spin-client-addr", "192.0.2.7:5000"),
                ("x-forwarded-for", "203.0.113.9"),
            ]),
            "https",
            Some("shop.example"),
        );
        let want = lines(&[
            ("accept", "*/*"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "192.0.2.7"),
        ]);
        assert_eq!(got, want);
    }

    #[test]
    fn a_client_is_named_once() {
        for (name, said, want) in [
            ("by the host", "203.0.113.9, 192.0.2.7", 1),
            ("as a hop before", "192.0.2.7, 203.0.113.9", 2),
            ("as a part of another", "203.0.113.9, 1192.0.2.7", 2),
        ] {
            let got = to_origin(
                lines(&[
                    ("x-forwarded-for", said),
                    ("spin-client-addr", "192.0.2.7:1"),
                ]),
                "http",
                None,
            );
            let hops = got.iter().filter(|(name, _)| name == "x-forwarded-for");
            assert_eq!(hops.count(), want, "{name}");
        }
    }

    #[test]
    fn a_response_is_rebuilt_only_when_it_must_be() {
        assert_eq!(from_origin(&lines(&[("etag", "\"a\"")])), None);
        assert_eq!(
            from_origin(&lines(&[
                ("transfer-encoding", "chunked"),
                ("etag", "\"a\"")
            ])),
            Some(lines(&[("etag", "\"a\"")]))
        );
    }
}
