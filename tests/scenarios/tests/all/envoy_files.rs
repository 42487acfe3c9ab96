//! The same bootstrap, read by Envoy and by the host: the same answers.

use std::fs;

use cargo_edge::workspace;
use edgeweir_scenarios::hosts::{self, Host, Running, edgeweir, envoy};
use edgeweir_scenarios::{Origin, Request, Seen, client, get, origin, request};

/// What each server writes of its own, or about the connection.
const OWN: [&str; 8] = [
    "connection",
    "date",
    "keep-alive",
    "proxy-status",
    "server",
    "transfer-encoding",
    "x-envoy-upstream-service-time",
    "age",
];

/// Envoy and the host on one text, in which only the ports differ.
fn both(name: &str, text: &str) -> (Running, Running) {
    let patched = |listener: u16| {
        let origin = origin::server().http1.port();
        text.replace("port_value: 10000", &format!("port_value: {listener}"))
            .replace("port_value: 9901", "port_value: 0")
            .replace("port_value: 9000", &format!("port_value: {origin}"))
    };
    let folder = hosts::folder(Host::Envoy).expect("a folder");
    let real =
        envoy::run(&folder, name, &patched(0), 1).unwrap_or_else(|e| panic!("{name}: {e:#}"));
    let port = hosts::free_port().expect("a port");
    let file = hosts::folder(Host::ProxyWasm).expect("a folder").join(name);
    fs::write(&file, patched(port)).expect("writes");
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let ours = edgeweir::run(&file, address).unwrap_or_else(|e| panic!("{name}: {e:#}"));
    (real, ours)
}

/// An answer as it is compared.
fn plain(seen: &Seen) -> (u16, Vec<(String, String)>, String) {
    let mut fields: Vec<_> = seen
        .fields
        .iter()
        .map(|(name, value)| {
            (
                name.to_ascii_lowercase(),
                String::from_utf8_lossy(value).into_owned(),
            )
        })
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .collect();
    fields.sort();
    (seen.status, fields, seen.body_text())
}

/// What a route may change of a request: its host, and the fields that are neither server's own, in their order.
fn edited(fields: &[(String, Vec<u8>)]) -> Vec<(String, String)> {
    let own = ["x-envoy-", "x-forwarded-", "x-request-id"];
    let mut edited: Vec<_> = fields
        .iter()
        .filter(|(name, _)| name == "host" || name.starts_with("x-"))
        .filter(|(name, _)| !own.iter().any(|own| name.starts_with(own)))
        .map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()))
        .collect();
    // Of lines of one name, and only of those, the order counts (RFC 9110 §5.3).
    edited.sort_by(|(one, _), (other, _)| one.cmp(other));
    edited
}

/// Sends the same to both, and compares the answers and what reached the origin.
fn compare(case: &str, real: &Running, ours: &Running, asks: &Request, path: &str) {
    let answer = |running: &Running| {
        let seen = client::exchange(running.address, asks, path);
        let seen = plain(&seen.unwrap_or_else(|error| panic!("{case}: {error}")));
        let received = origin::server().received("a");
        let received: Vec<_> = received
            .into_iter()
            .map(|it| (it.method.clone(), it.path.clone(), edited(&it.fields)))
            .collect();
        (seen, received)
    };
    let (theirs, here) = (answer(real), answer(ours));
    assert_eq!(
        here, theirs,
        "{case}: the host on the left, Envoy on the right"
    );
}

#[test]
fn every_kind_of_route_leads_where_it_leads_in_envoy() {
    let (real, ours) = both("routes.yaml", include_str!("routes.envoy.yaml"));
    let page = Origin::text("a page").field("x-origin", "1");
    origin::server().answer("a", &page);
    let to = |host: &str, path: &str| (get(path).field("host", host), path.to_owned());
    let field = |path: &str, fields: &[(&str, &str)]| {
        let asks = fields
            .iter()
            .fold(get(path), |asks, (name, value)| asks.field(name, value));
        (asks.field("host", "h.test"), path.to_owned())
    };
    for (name, (asks, path)) in [
        ("exact host", to("exact.test", "/only")),
        ("exact host, no route", to("exact.test", "/")),
        ("exact host, its port", to("exact.test:81", "/only")),
        ("exact host, another port", to("exact.test:82", "/a/x")),
        ("upper case", to("EXACT.test", "/only")),
        ("suffix", to("b.suffix.test", "/")),
        ("longer suffix", to("b.longer.suffix.test", "/")),
        ("prefix", to("prefix.x", "/")),
        ("exact path", to("h", "/a/exact?q=1")),
        ("exact path, longer", to("h", "/a/exact/")),
        ("either case", to("h", "/a/case")),
        ("below", to("h", "/a/below/x?y")),
        ("below, itself", to("h", "/a/below")),
        ("beside", to("h", "/a/belows")),
        ("expression", to("h", "/a/r17?x")),
        ("expression of a part", to("h", "/a/r17x")),
        ("method", to("h", "/a/method")),
        (
            "fields",
            field("/a/fields", &[("x-a", "one"), ("x-b", "1")]),
        ),
        (
            "a field too many",
            field("/a/fields", &[("x-a", "one"), ("x-b", "1"), ("x-c", "1")]),
        ),
        ("a field missing", field("/a/fields", &[("x-b", "1")])),
        (
            "one of two lines",
            field("/a/line", &[("x-a", "two"), ("x-a", "one")]),
        ),
        (
            "both lines as one",
            field("/a/line", &[("x-a", "two, one")]),
        ),
        (
            "not one of two lines",
            field("/a/no-line", &[("x-a", "two"), ("x-a", "one")]),
        ),
        (
            "none of two lines",
            field("/a/no-line", &[("x-a", "two"), ("x-a", "three")]),
        ),
        ("no line", field("/a/no-line", &[])),
        ("query", to("h", "/a/query?q=12")),
        ("query, another", to("h", "/a/query?q=a")),
        ("to https", to("h", "/a/https?x")),
        ("to https, default port", to("h:80", "/a/https")),
        ("to https, another port", to("h:8080", "/a/https")),
        ("another host", to("h:9", "/a/host?q")),
        ("moved", to("h:9", "/a/moved/z?q")),
        ("another path", to("h", "/a/other?q")),
        (
            "edited",
            field("/a/edited", &[("x-taken", "1"), ("x-there", "old")]),
        ),
        ("edited by all levels", field("/a/levels", &[])),
        (
            "edited by all levels, what was there",
            field(
                "/a/levels",
                &[
                    ("x-gone", "old"),
                    ("x-order", "old"),
                    ("x-twice", "old"),
                    ("x-there", "old"),
                    ("x-empty", "old"),
                    ("x-kept", "old"),
                ],
            ),
        ),
        (
            "a field that is whom it is for",
            to("h.test:81", "/a/host-field"),
        ),
        ("its letters count", to("H.test:81", "/a/host-field")),
        ("and its port", to("h.test", "/a/host-field")),
        ("weighted", to("h", "/a/weighted")),
        ("no content", to("h", "/a/empty")),
        ("nowhere", to("h", "/nowhere")),
    ] {
        compare(name, &real, &ours, &asks, &path);
    }
    let delete = request("DELETE", "/a/method").field("host", "h");
    compare("another method", &real, &ours, &delete, "/a/method");
}

#[test]
fn an_example_answers_as_in_envoy() {
    hosts::modules().expect("the modules are built");
    for name in ["cache.yaml", "minify.yaml"] {
        let file = workspace::root().join("examples/envoy").join(name);
        let text = fs::read_to_string(file).expect("reads");
        let (real, ours) = both(name, &text);
        let page = Origin::json(super::document(4_000)).field("cache-control", "max-age=60");
        origin::server().answer("a", &page);
        for case in ["first", "second"] {
            let path = format!("/a/{name}");
            compare(case, &real, &ours, &get(&path), &path);
        }
    }
}
