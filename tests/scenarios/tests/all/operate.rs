//! `edgeweir warm` and `edgeweir purge`, as an operator runs them, against an edge on any host.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

use edgeweir_scenarios::hosts::edgeweir::binary;
use edgeweir_scenarios::hosts::{folder, modules};
use edgeweir_scenarios::{Host, Origin, Setup, cache, on_each_host};
use serde_json::json;

const TOKEN: &str = "a-token-of-the-operator";

fn edgeweir(arguments: &[&str]) -> Output {
    let binary = binary().expect("the host's program");
    let output = Command::new(binary)
        .args(arguments)
        .env("EDGEWEIR_CACHE_TOKEN", TOKEN)
        .output();
    output.expect("it runs")
}

fn says(output: &Output, words: &str) {
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains(words), "no {words:?} in\n{said}{errors}");
}

on_each_host!(
    what_is_warmed_is_there_until_it_is_purged,
    Setup::of([cache(json!({ "admin": { "token": TOKEN } }))])
        .except(Host::Pure, "it has no address"),
    |edge| {
        let address = edge.address().expect("not the pure contract");
        let at = format!("http://{address}");
        let own = edge.path("/page");
        let origin = Origin::text("a page")
            .field("cache-control", "max-age=60")
            .field("surrogate-key", "operated");
        edge.origin_does(&origin);
        says(&edgeweir(&["warm", "--edge", &at, &own]), "1  stored");
        // Each worker has its own eyes: the second look is any worker's.
        std::thread::sleep(std::time::Duration::from_millis(60));
        says(
            &edgeweir(&["warm", "--edge", &at, &own]),
            "1  already there",
        );
        for what in [
            ["--url", own.as_str()],
            ["--tag", "operated"],
            ["--prefix", own.as_str()],
        ] {
            let purge = ["purge", "--edge", &at, what[0], what[1]];
            says(&edgeweir(&purge), ": invalidated; ");
            std::thread::sleep(std::time::Duration::from_millis(60));
            says(&edgeweir(&["warm", "--edge", &at, &own]), "1  stored");
            std::thread::sleep(std::time::Duration::from_millis(60));
        }
    }
);

/// Answers every request with a page that may be stored.
fn storable() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let reader = BufReader::new(stream.try_clone().expect("a stream"));
                for line in reader.lines().map_while(Result::ok) {
                    let page = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 4\r\n\r\npage";
                    if line.is_empty() && stream.write_all(page.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A component says as much as a module: its counters reach the host too.
#[test]
fn explain_knows_the_counters_of_modules_and_of_components() {
    let origin = storable();
    for (host, kind) in [
        (Host::ProxyWasm, "proxy-wasm"),
        (Host::WasiHttp, "wasi-http"),
    ] {
        let module = modules()
            .expect("the modules")
            .join(format!("cache.{kind}.wasm"));
        let config = folder(host).expect("a folder").join("edgeweir.toml");
        let text = format!(
            "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\nfilters = [\"cache\"]\n\
             [upstream.origin]\naddress = \"{origin}\"\n[filter.cache]\nmodule = {:?}\n",
            module.display().to_string()
        );
        std::fs::write(&config, text).expect("a configuration");
        let config = config.display().to_string();
        let output = edgeweir(&["explain", "--config", &config, "http://edge.test/page"]);
        says(&output, "the stored response was fresh [hit]");
    }
}
