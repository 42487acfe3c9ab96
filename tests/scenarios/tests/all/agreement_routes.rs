//! Routes of every kind through the host and a real Envoy: the same requests take the same way through the same filters.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cargo_edge::{tools, workspace};
use edgeweir_scenarios::hosts::{self, Host, edgeweir};
use serde_json::{Value, json};

/// Every way but one to name a path, a host, a method, a field; every action; filters of a route's own in two orders that
/// contradict each other, and a configuration of its own.
const ROUTES: &str = r#"
[[listener.route]]
hosts = ["Two.test", "*.three.test", "four.*", "five.test:81"]
prefix = "/host"
rewrite = "/some"
upstream = "two"
[[listener.route]]
prefix = "/strip"
rewrite = "/"
[[listener.route]]
prefix = "/to/"
rewrite = "/from/"
upstream = "two"
[[listener.route]]
path = "/exact"
methods = ["GET", "DELETE"]
headers = { x-a = "1", x-b = "*" }
rewrite = "/else"
upstream = "two"
[[listener.route]]
path = "/only-post"
methods = ["POST"]
rewrite = "/posted"
[[listener.route]]
regex = "/r[0-9]+"
respond = { status = 200, body = "a number\n" }
[[listener.route]]
pattern = "/u/:id/p"
respond = { status = 404, body = "nobody\n" }
[[listener.route]]
pattern = "/open/..."
respond = { status = 204 }
[[listener.route]]
prefix = "/old"
redirect = { path = "/new", status = 308, host = "new.test", port = 81 }
[[listener.route]]
prefix = "/host-of-another"
redirect = { host = "new.test", path = "/new?z" }
[[listener.route]]
prefix = "/secure"
redirect = { scheme = "https", status = 302 }
[[listener.route]]
prefix = "/before"
rewrite = "/after"
redirect = { status = 303 }
[[listener.route]]
path = "/teapot"
respond = { status = 418, body = "short and stout" }
[[listener.route]]
path = "/empty"
respond = { status = 200 }
[[listener.route]]
path = "/bare"
filters = []
[[listener.route]]
name = "own"
path = "/own"
config.minify = { drop_nulls = "members" }
[[listener.route]]
path = "/one-way"
filters = ["compress", "minify"]
[[listener.route]]
path = "/another-way"
filters = ["minify", "compress"]
"#;

/// A listener with these routes and one that has nowhere to go but by its own.
fn configuration(name: &str, routes: &str) -> PathBuf {
    let modules = hosts::modules().expect("the modules are built");
    let mut text = format!(
        "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"one\"\nfilters = [\"minify\"]\n{routes}\n"
    );
    text.push_str(
        r#"[[listener]]
name = "strict"
listen = "127.0.0.1:0"
filters = ["minify"]
[[listener.route]]
path = "/only"
upstream = "two"
[[listener.route]]
hosts = ["all.test"]
prefix = "/"
rewrite = "/below/"
upstream = "two"
[upstream.one]
address = "127.0.0.1:1"
[upstream.two]
address = "127.0.0.1:2"
"#,
    );
    for filter in ["minify", "compress"] {
        let module = modules.join(format!("{filter}.proxy-wasm.wasm"));
        let module = module.display().to_string();
        write!(text, "[filter.{filter}]\nmodule = {module:?}\n").expect("a string takes it");
    }
    let folder = hosts::folder(Host::ProxyWasm).expect("a folder");
    let file = folder.join(format!("{name}.toml"));
    std::fs::write(&file, text).expect("the configuration is written");
    file
}

/// A request with these fields (`name: value`), and JSON as the origin's answer.
fn entry(method: &str, url: &str, fields: &[&str]) -> Value {
    let fields = fields.iter().map(|field| {
        let (name, value) = field.split_once(": ").expect("a field");
        json!({ "name": name, "value": value })
    });
    json!({
        "startedDateTime": "2026-01-01T00:00:00Z",
        "request": { "method": method, "url": url, "headers": fields.collect::<Vec<_>>() },
        "response": {
            "status": 200,
            "headers": [{ "name": "content-type", "value": "application/json" }],
            "content": { "text": "{ \"a\" : null, \"b\" : [ 1, 2 ] }" }
        }
    })
}

fn recording(beside: &Path, name: &str, entries: &[Value]) -> String {
    let file = beside.with_file_name(format!("{name}.har"));
    let har = json!({ "log": { "version": "1.2", "entries": entries } });
    std::fs::write(&file, har.to_string()).expect("the recording is written");
    file.display().to_string()
}

fn diff(arguments: &[&str]) -> Output {
    Command::new(edgeweir::binary().expect("the host is built"))
        .current_dir(workspace::root())
        .env("EDGEWEIR_ENVOY", tools::envoy().expect("an Envoy"))
        .env_remove("EDGEWEIR_BIN")
        .arg("diff")
        .args(arguments)
        .output()
        .expect("edgeweir diff runs")
}

fn agrees(file: &Path, listener: &str, entries: &[Value]) {
    let har = recording(file, listener, entries);
    let file = file.display().to_string();
    let output = diff(&[&file, "--replay", &har, "--listener", listener]);
    let said = String::from_utf8_lossy(&output.stdout);
    let want = format!("no difference in {} exchanges", entries.len());
    assert!(
        output.status.success() && said.starts_with(&want) && !said.contains("not compared"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_host_and_envoy_agree_on_every_kind_of_route() {
    let file = configuration("routes", ROUTES);
    let mut entries = Vec::new();
    for host in [
        "two.test",
        "TWO.test:80",
        "x.three.test",
        "three.test",
        "x.three.test:8",
        "four.x",
        "four.x:9",
        "five.test",
        "five.test:81",
        "five.test:82",
        "other.test",
    ] {
        for path in ["/host/x?y", "/host", "/hosts"] {
            entries.push(entry("GET", &format!("http://{host}{path}"), &[]));
        }
    }
    for path in [
        "/strip",
        "/strip/",
        "/strip/a/b?c",
        "/strip//a",
        "/stripe",
        "/to",
        "/to/",
        "/to/a?b=/to",
        "/tofu",
        "/r17?x",
        "/r17x",
        "/u/7/p",
        "/u/7/p/",
        "/u//7//p",
        "/u/7",
        "/u/7/p/q",
        "/open",
        "/open/x",
        "/opening",
        "/old/x?y",
        "/host-of-another?x",
        "/secure/x?y",
        "/before/a?b",
        "/teapot",
        "/teapot/",
        "/empty",
        "/bare",
        "/own",
        "/one-way",
        "/another-way",
        "/",
    ] {
        for host in ["h.test", "h.test:8080"] {
            let url = format!("http://{host}{path}");
            entries.push(entry("GET", &url, &["accept-encoding: gzip"]));
        }
    }
    entries.push(entry("GET", "http://h.test:80/secure", &[]));
    for method in ["GET", "HEAD", "DELETE", "POST", "PURGE"] {
        let mut ask = |path: &str, fields: &[&str]| {
            entries.push(entry(method, &format!("http://h.test{path}"), fields));
        };
        ask("/exact?q", &["x-a: 1", "x-b: z"]);
        ask("/exact", &["x-a: 2", "x-b: z"]);
        ask("/exact", &["x-a: 1"]);
        ask("/only-post", &[]);
        ask("/teapot", &[]);
        ask("/old", &[]);
    }
    agrees(&file, "main", &entries);
}

#[test]
fn the_host_and_envoy_agree_on_what_takes_no_route() {
    let file = configuration("routes-strict", "");
    let mut entries = Vec::new();
    for url in [
        "http://h.test/only",
        "http://h.test/",
        "http://all.test/x?y",
        "http://ALL.test:8/",
    ] {
        for method in ["GET", "HEAD"] {
            entries.push(entry(method, url, &[]));
        }
    }
    agrees(&file, "strict", &entries);
}

#[test]
fn filters_of_a_route_take_effect_in_envoy() {
    let (with, without) = (
        configuration("routes-with", ROUTES),
        configuration("routes-without", ""),
    );
    let sides = [&with, &without].map(|file| format!("envoy:{}", file.display()));
    for (path, first) in [
        ("/bare", r#"30 bytes, at 0: "{ \"a\" : null, "#),
        ("/own", r#"11 bytes, at 0: "{\"b\":[1,2]}""#),
    ] {
        let entry = entry("GET", &format!("http://h.test{path}"), &[]);
        let har = recording(&with, "one", &[entry]);
        let output = diff(&[&sides[0], &sides[1], "--replay", &har]);
        let said = String::from_utf8_lossy(&output.stdout);
        let second = r#"second: 20 bytes, at 0: "{\"a\":null,\"b\":[1,2]}""#;
        assert!(
            output.status.code() == Some(3)
                && said.contains(&format!("first:  {first}"))
                && said.contains(second),
            "{path}: {said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn what_envoy_has_no_counterpart_of_is_said_before_anything_starts() {
    let route = "[[listener.route]]\npath = \"/a\"\nrewrite = \"/b?c\"\n";
    let file = configuration("routes-refused", route);
    let har = recording(&file, "refused", &[]);
    let output = diff(&[&file.display().to_string(), "--replay", &har]);
    let said = String::from_utf8_lossy(&output.stderr);
    let want = "routes-refused.toml: in `listener[0].route[0].rewrite`: Envoy takes paths alone: \"/b?c\" is none";
    assert!(!output.status.success() && said.contains(want), "{said}");
}
