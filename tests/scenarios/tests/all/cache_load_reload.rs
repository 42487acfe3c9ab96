//! New configurations of the cache while requests come, in a real Envoy with two workers.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use edgeweir_scenarios::client::Client;
use edgeweir_scenarios::hosts::{self, Host, envoy};
use edgeweir_scenarios::load::{Upstream, page};
use edgeweir_scenarios::{Setup, cache, get};
use serde_json::{Value, json};

const RELOADS: usize = 20;

/// The bootstrap whose listeners are in a file of their own, and that file.
fn split(mut bootstrap: Value, port: u16, file: &Path) -> (Value, Value) {
    let mut listener = bootstrap["static_resources"]["listeners"][0].take();
    listener["address"]["socket_address"]["port_value"] = json!(port);
    listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
    bootstrap["static_resources"]["listeners"] = json!([]);
    bootstrap["node"] = json!({ "id": "edge", "cluster": "edge" });
    bootstrap["dynamic_resources"] = json!({
        "lds_config": {
            "resource_api_version": "V3",
            "path_config_source": { "path": file }
        }
    });
    (bootstrap, json!({ "resources": [listener] }))
}

/// Asks until told to stop, on a connection until the edge closes it; the responses that came.
fn load(address: std::net::SocketAddr, stop: &AtomicBool) -> Result<usize, String> {
    let (mut client, mut answered) = (None, 0);
    while !stop.load(Ordering::SeqCst) {
        let path = format!("/{}", answered % 50);
        let open = match client.take() {
            Some(open) => Ok(open),
            None => Client::connect(address),
        };
        let mut open: Client = open.map_err(|error| format!("connecting: {error}"))?;
        open.send(&get(&path), &path)
            .map_err(|error| format!("sending after {answered}: {error}"))?;
        let seen = open
            .receive(false)
            .map_err(|error| format!("receiving after {answered}: {error}"))?;
        if (seen.status, &seen.body[..]) != (200, b"body") || !seen.complete {
            return Err(format!(
                "{} after {answered}: {}",
                seen.status,
                seen.body_text()
            ));
        }
        answered += 1;
        if !seen.text("connection").eq_ignore_ascii_case("close") {
            client = Some(open);
        }
    }
    Ok(answered)
}

#[test]
fn twenty_reloads_lose_no_request() {
    let origin = Upstream::start(|_| page("cache-control: max-age=3600\r\n", b"body"));
    let origin = origin.expect("an origin");
    let modules = hosts::modules().expect("the modules are built");
    let folder = hosts::folder(Host::Envoy).expect("a folder");
    let (file, port) = (
        folder.join("listeners.json"),
        hosts::free_port().expect("a port"),
    );
    let configured = |number: usize| {
        let setup = Setup::of([cache(json!({ "name": format!("edge-{number}") }))]);
        split(
            envoy::bootstrap(&setup, &modules, origin.address),
            port,
            &file,
        )
    };
    let (bootstrap, listeners) = configured(0);
    fs::write(&file, listeners.to_string()).expect("writes");
    let edge = envoy::run(&folder, "envoy.json", &bootstrap.to_string(), 2).expect("Envoy starts");

    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, address) = (Arc::clone(&stop), edge.address);
            thread::spawn(move || load(address, &stop))
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for number in 1..=RELOADS {
        let part = folder.join("listeners.part");
        fs::write(&part, configured(number).1.to_string()).expect("writes");
        // The host watches for a file that is moved to the name.
        fs::rename(&part, &file).expect("renames");
        let (begun, name) = (Instant::now(), format!("edge-{number};"));
        loop {
            let mut client = Client::connect(edge.address).expect("connects");
            client.send(&get("/0"), "/0").expect("it is sent");
            let seen = client.receive(false).expect("a response");
            let said = seen.text("cache-status");
            assert_eq!(seen.status, 200, "{said}");
            if said.starts_with(&name) {
                // What was stored is still there: the workers' store outlives a configuration.
                assert!(said.contains("; hit"), "{said}");
                break;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "configuration {number} does not come: {said}; its log: {}",
                hosts::tail(&edge.log)
            );
            thread::sleep(Duration::from_millis(10));
        }

        slowest = slowest.max(begun.elapsed());
    }
    stop.store(true, Ordering::SeqCst);
    let answered = clients.into_iter().map(|client| {
        let answered = client.join().expect("a client ends");
        answered.unwrap_or_else(|lost| panic!("a request was lost: {lost}"))
    });
    let answered: usize = answered.sum();
    println!("{answered} requests, {RELOADS} reloads, the slowest in {slowest:?}");
    assert!(answered > RELOADS * 10, "{answered} requests are no load");
}
