//! Requests of the cache's own behind routes: they bring what clients get, or there are none.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use edgeweir_scenarios::hosts::{self, Running, edgeweir, envoy};
use edgeweir_scenarios::{Host, Origin, Request, Seen, Setup, cache, client, get, origin, request};
use serde_json::{Value, json};

/// One worker, which sees every request, and two routes without a name to one origin: what is below `/static/` of the first
/// segment is asked for below another one.
struct Routed {
    running: Running,
    plain: String,
    files: String,
}

impl Routed {
    fn start(host: Host, name: &str, config: Value) -> Self {
        let plain = format!("routed-{name}-{}", host.name());
        let files = format!("{plain}-files");
        let setup = Setup::of([cache(config)]);
        let (from, to) = (format!("/{plain}/static/"), format!("/{files}/"));
        let modules = hosts::modules().expect("the modules are built");
        let folder = hosts::folder(host).expect("a folder");
        let running = match host {
            Host::Envoy => {
                let mut config = envoy::bootstrap(&setup, &modules, origin::server().http1);
                let all = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";
                let routes = config.pointer_mut(all).and_then(Value::as_array_mut);
                let rewrites = json!({
                    "match": { "prefix": from },
                    "route": { "cluster": "origin", "prefix_rewrite": to }
                });
                routes.expect("there are routes").insert(0, rewrites);
                envoy::run(&folder, "envoy.json", &config.to_string(), 1)
            }
            _ => {
                let port = hosts::free_port().expect("a port");
                let mut file = edgeweir::config(host, &setup, port, &modules).expect("it is text");
                file.push_str(&format!(
                    "[[listener.route]]\nprefix = {from:?}\nrewrite = {to:?}\n"
                ));
                if host == Host::ProxyWasm {
                    file = file.replace("[filter.cache]\n", "[filter.cache]\ninstances = 1\n");
                }
                let path = folder.join("edgeweir.toml");
                fs::write(&path, file).expect("the configuration is written");
                edgeweir::run(&path, ([127, 0, 0, 1], port).into())
            }
        };
        let routed = Self {
            running: running.expect("it starts"),
            plain,
            files,
        };
        routed.answer(60, "");
        routed
    }

    /// What both paths are answered from now on: where they were asked for, and `more`.
    fn answer(&self, seconds: u32, more: &str) {
        let control = format!("max-age={seconds}, stale-while-revalidate=600");
        for (segment, body) in [(&self.plain, "plain"), (&self.files, "file")] {
            let answer = Origin::text(format!("{body}{more}"));
            origin::server().answer(segment, &answer.field("cache-control", &control));
            origin::server().received(segment);
        }
    }

    fn send(&self, asked: &Request) -> Seen {
        let path = format!("/{}{}", self.plain, asked.path);
        let seen = client::exchange(self.running.address, asked, &path).expect("a response");
        // What it leads to begins with a tick.
        thread::sleep(Duration::from_millis(150));
        seen
    }

    fn get(&self, path: &str) -> String {
        self.send(&get(path)).body_text()
    }

    /// Paths that the origin was asked for as they came.
    fn asked(&self) -> Vec<String> {
        let received = origin::server().received(&self.plain).into_iter();
        received.map(|request| request.path).collect()
    }
}

fn refreshes(host: Host) {
    let edge = Routed::start(host, "refresh", json!({}));
    edge.answer(1, "");
    for path in ["/index", "/static/a", "/static/b"] {
        edge.get(path);
    }
    thread::sleep(Duration::from_millis(1_300));
    edge.answer(60, " again");
    assert_eq!(edge.get("/index"), "plain", "as it came: behind the client");
    assert_eq!(edge.get("/static/a"), "file again", "rewritten");
    assert_eq!(edge.get("/static/b"), "file again", "rewritten");
    thread::sleep(Duration::from_millis(1_000));
    assert_eq!(edge.get("/index"), "plain again");
    assert_eq!(edge.get("/static/a"), "file again");
    assert_eq!(edge.asked(), ["/index"]);
}

/// Clients go from one path to another; then the second is gone from the cache, and one more comes.
fn predicted(edge: &Routed, from: &str, to: &str) -> Vec<String> {
    for _ in 0..6 {
        edge.get(from);
        edge.get(to);
    }
    edge.send(&request("POST", to));
    edge.asked();
    edge.get(from);
    thread::sleep(Duration::from_millis(1_000));
    edge.asked()
}

fn predicts(host: Host, knows: bool) {
    let config = json!({ "predict": { "per_second": 100 } });
    let edge = Routed::start(host, "predict", config);
    let nothing: [&str; 0] = [];
    for (from, to) in [("/page", "/static/a"), ("/static/c", "/static/d")] {
        assert_eq!(predicted(&edge, from, to), nothing, "{from} {to}");
        assert_eq!(edge.get(to), "file", "{from} {to}");
    }
    for (from, to) in [("/one", "/two"), ("/static/e", "/three")] {
        let asked = predicted(&edge, from, to);
        let want = if knows { vec![to.to_owned()] } else { vec![] };
        assert_eq!(asked, want, "{from} {to}");
        assert_eq!(edge.get(to), "plain", "{from} {to}");
    }
}

#[test]
fn what_a_route_rewrites_is_refreshed_by_a_client() {
    refreshes(Host::ProxyWasm);
}

#[test]
fn what_a_route_rewrites_is_refreshed_by_a_client_in_envoy() {
    refreshes(Host::Envoy);
}

#[test]
fn what_comes_next_is_fetched_where_its_route_leads() {
    predicts(Host::ProxyWasm, true);
}

#[test]
fn what_comes_next_is_fetched_where_its_route_leads_in_envoy() {
    predicts(Host::Envoy, true);
}

#[test]
fn what_comes_next_is_not_fetched_by_a_component_that_knows_no_routes() {
    predicts(Host::WasiHttp, false);
}

/// Clients at once for something that Envoy is redirected from: how long the slowest took.
fn slowest(address: std::net::SocketAddr, path: &str) -> Duration {
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let path = path.to_owned();
            thread::spawn(move || {
                let begun = Instant::now();
                let seen = client::exchange(address, &get(&path), &path).expect("a response");
                assert_eq!((seen.status, seen.body_text().as_str()), (200, "there"));
                begun.elapsed()
            })
        })
        .collect();
    let took = clients.into_iter().map(|it| it.join().expect("no panic"));
    took.max().unwrap_or_default()
}

#[test]
fn nobody_waits_for_what_envoy_is_redirected_from() {
    let setup = Setup::of([cache(json!({}))]);
    let modules = hosts::modules().expect("the modules are built");
    let folder = hosts::folder(Host::Envoy).expect("a folder");
    let mut config = envoy::bootstrap(&setup, &modules, origin::server().http1);
    let route = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0/route";
    let route = config.pointer_mut(route).expect("there is a route");
    route["internal_redirect_policy"] = json!({});
    let running = envoy::run(&folder, "envoy.json", &config.to_string(), 1).expect("it starts");
    let moved = Origin::status(302)
        .field("location", "http://a.example/redirected-to/x")
        .delay(Duration::from_secs(1));
    origin::server().answer("redirected", &moved);
    let there = Origin::text("there").field("cache-control", "max-age=600");
    origin::server().answer("redirected-to", &there);
    // Of the first round some wait for the others: nothing is known yet.
    slowest(running.address, "/redirected/x");
    origin::server().received("redirected");
    let took = slowest(running.address, "/redirected/x");
    assert_eq!(origin::server().received("redirected").len(), 8);
    assert!(took < Duration::from_millis(1_900), "{took:?}: in turns");
}
