//! Routes: which request goes where, through which filters, and what is said of routes that lead nowhere.

mod support;

use std::path::Path;

use edgeweir::config::{Config, ConfigError};
use edgeweir::host::Host;
use support::*;

/// Tells which upstream it is, and what it was asked.
async fn named(name: &'static str) -> std::net::SocketAddr {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let service = hyper::service::service_fn(
                move |request: http::Request<hyper::body::Incoming>| async move {
                    let text = format!("{name} {}", request.uri());
                    Ok::<_, std::convert::Infallible>(http::Response::new(full(text)))
                },
            );
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service),
            );
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_route_that_matches_is_taken() {
    let (one, two) = (named("one").await, named("two").await);
    let text = format!(
        r#"
[[listener]]
name = "main"
listen = "127.0.0.1:0"
upstream = "one"
[[listener.route]]
hosts = ["*.two.test"]
upstream = "two"
[[listener.route]]
prefix = "/two"
upstream = "two"
rewrite = "/"
[[listener.route]]
hosts = ["same.test"]
prefix = "/"
upstream = "two"
rewrite = "/"
[[listener.route]]
path = "/exact"
methods = ["GET"]
headers = {{ x-a = "1", x-b = "*" }}
upstream = "two"
rewrite = "/else"
[[listener.route]]
regex = "/r[0-9]+"
upstream = "two"
[[listener.route]]
pattern = "/u/:id/p"
upstream = "two"
[[listener.route]]
prefix = "/old"
redirect = {{ path = "/new", status = 308, host = "new.test", port = 81 }}
[[listener.route]]
path = "/teapot"
respond = {{ status = 418, body = "short and stout" }}
[[listener]]
name = "strict"
listen = "127.0.0.1:0"
[[listener.route]]
path = "/only"
upstream = "one"
[upstream.one]
address = "{one}"
[upstream.two]
address = "{two}"
"#
    );
    let config = Config::parse(Path::new("test.toml"), text).unwrap();
    let host = Host::start(config).await.unwrap();
    let (main, strict) = (host.addresses()[0], host.addresses()[1]);
    for (name, at, host, path, fields, wants) in [
        ("no route", main, "a.test", "/x?y", "", "one /x?y"),
        ("host", main, "B.two.test:80", "/x", "", "two /x"),
        (
            "below a prefix",
            main,
            "a.test",
            "/two/x?y=/two",
            "",
            "two /x?y=/two",
        ),
        ("the prefix itself", main, "a.test", "/two", "", "two /"),
        (
            "the prefix of all in its own place",
            main,
            "same.test",
            "/x/y",
            "",
            "two /x/y",
        ),
        (
            "beside a prefix",
            main,
            "a.test",
            "/twofold",
            "",
            "one /twofold",
        ),
        (
            "fields",
            main,
            "a.test",
            "/exact?q",
            "x-a: 1\r\nx-b: z\r\n",
            "two /else?q",
        ),
        (
            "a field is missing",
            main,
            "a.test",
            "/exact",
            "x-a: 1\r\n",
            "one /exact",
        ),
        ("regex", main, "a.test", "/r17", "", "two /r17"),
        ("regex of a part", main, "a.test", "/r17x", "", "one /r17x"),
        ("pattern", main, "a.test", "/u/7/p", "", "two /u/7/p"),
        ("redirect", main, "a.test", "/old/x?y", "", "308 "),
        (
            "its location",
            main,
            "a.test",
            "/old/x?y",
            "",
            "location: http://new.test:81/new?y\r\n",
        ),
        ("answer", main, "a.test", "/teapot", "", "short and stout"),
        ("strict", strict, "a.test", "/only", "", "one /only"),
        (
            "strict, nowhere",
            strict,
            "a.test",
            "/",
            "",
            "error=destination_not_found",
        ),
    ] {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{fields}\r\n");
        let answer = String::from_utf8_lossy(&raw(at, request).await).into_owned();
        assert!(answer.contains(wants), "{name}: {wants:?} in {answer}");
    }
    host.stop().await;
}

#[test]
fn a_route_that_leads_nowhere_is_an_error_with_its_place() {
    let listener = "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"o\"\n[upstream.o]\naddress = \"127.0.0.1:1\"\n";
    let refused = |route: &str| -> ConfigError {
        let text = listener.replace(
            "[upstream",
            &format!("[[listener.route]]\n{route}\n[upstream"),
        );
        Config::parse(Path::new("edge.toml"), text).expect_err(route)
    };
    for (route, place, field, wants) in [
        (
            "upstream = \"x\"",
            (6, 12),
            "upstream",
            "there is no [upstream.x]; there is \"o\"",
        ),
        ("path = \"x\"", (6, 8), "path", "does not begin with `/`"),
        (
            "path = \"/x\"\nprefix = \"/y\"",
            (7, 10),
            "prefix",
            "a `path` already",
        ),
        ("regex = \"/(\"", (6, 9), "regex", "no regular expression"),
        (
            "pattern = \"/.../a\"",
            (6, 11),
            "pattern",
            "at its end only",
        ),
        ("hosts = [\"*a*\"]", (6, 10), "hosts[0]", "`*.example.org`"),
        ("methods = [\"G T\"]", (6, 12), "methods[0]", "no method"),
        (
            "headers = { \"a b\" = \"1\" }",
            (6, 21),
            "headers.a b",
            "no name of a field",
        ),
        (
            "headers = { Host = \"a.example\" }",
            (6, 20),
            "headers.Host",
            "stands in `hosts`",
        ),
        ("rewrite = \"/a\"", (6, 11), "rewrite", "and there is none"),
        (
            "redirect = { status = 200 }",
            (6, 23),
            "redirect.status",
            "none of 301",
        ),
        (
            "redirect = { scheme = \"ftp\" }",
            (6, 23),
            "redirect.scheme",
            "neither http nor https",
        ),
        (
            "upstream = \"o\"\nrespond = { status = 204 }",
            (6, 12),
            "upstream",
            "one of",
        ),
        (
            "filters = [\"f\"]",
            (6, 12),
            "filters[0]",
            "there is no [filter.f]",
        ),
        (
            "config.f = {}",
            (6, 12),
            "config.f",
            "no filter of this route",
        ),
    ] {
        let error = refused(route);
        assert_eq!(error.place, Some(place), "{route}: {error}");
        assert_eq!(
            error.field,
            format!("listener[0].route[0].{field}"),
            "{route}"
        );
        assert!(error.message.contains(wants), "{route}: {error}");
    }
}
