//! Wasm that a Spin manifest or an Envoy bootstrap names by its URL: fetched once, and only what was meant.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use edgeweir_host_package::Digest;

fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/edge")
        .join(name)
}

/// Serves a module, `/moved` leading to it, and counts who asks.
fn server(module: Vec<u8>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
            let first = lines.next().expect("a request").expect("text");
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|it| !it.is_empty()))
            {}
            count.fetch_add(1, Ordering::Relaxed);
            let path = first.split(' ').nth(1).unwrap_or_default();
            let (head, body) = match path {
                "/moved" => ("302 Found\r\nlocation: module.wasm", &[][..]),
                "/module.wasm" => ("200 OK", &module[..]),
                _ => ("404 Not Found", &[][..]),
            };
            let head = format!(
                "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(body));
        }
    });
    (address, asked)
}

/// What `edgeweir check` says, and its exit code.
fn check(cache: &Path, file: &Path, options: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
        .arg("check")
        .args(options)
        .arg(file)
        .env("XDG_CACHE_HOME", cache)
        .output()
        .expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.code(), said)
}

#[test]
fn a_module_is_fetched_once_and_only_what_was_meant() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    let gateway = std::fs::read(built("gateway.wasi-http.wasm")).expect("cargo edge build");
    let minify = std::fs::read(built("minify.proxy-wasm.wasm")).expect("cargo edge build");
    let spin = |url: &str, digest: &str| {
        format!(
            "spin_manifest_version = 2\n[application]\nname = \"a\"\n[[trigger.http]]\nroute = \"/...\"\n\
             component = {{ source = {{ url = \"{url}\", digest = \"sha256:{digest}\" }}, environment = {{ EDGEWEIR_ORIGIN = \"http://127.0.0.1:9\" }} }}\n"
        )
    };
    let example = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/envoy/envoy.yaml"),
    )
    .expect("the example");
    let line = example
        .lines()
        .find(|line| line.contains("minify.proxy-wasm.wasm"))
        .expect("it has the module");
    let envoy = |url: &str, digest: &str| {
        let remote = format!(
            "remote: {{ http_uri: {{ uri: {url}, cluster: a, timeout: 5s }}, sha256: {digest} }}"
        );
        let (indent, _) = line.split_at(line.len() - line.trim_start().len());
        let code = match line.trim_start().starts_with("code:") {
            true => format!("{indent}code: {{ {remote} }}"),
            false => format!("{indent}{remote}"),
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let edge = root.join("target/edge");
        let text = example.replace(line, &code);
        text.replace("/etc/edgeweir", edge.to_str().expect("a path"))
            .replace(" target/edge", &format!(" {}", edge.display()))
    };
    for (name, module, text) in [
        ("spin.toml", gateway, &spin as &dyn Fn(&str, &str) -> String),
        ("envoy.yaml", minify, &envoy),
    ] {
        let digest = |bytes| Digest::of(bytes).hex().to_owned();
        let (good, other) = (digest(&module), digest(b"another"));
        let (address, asked) = server(module);
        let file = folder.path().join(name);
        let url = |path: &str| format!("http://{address}{path}");
        for (path, digest, options, want, requests) in [
            ("/none", &good, &[][..], "is answered with 404", 1),
            ("/module.wasm", &other, &[], "its SHA-256 is", 2),
            // What is not loaded is not fetched.
            ("/moved", &good, &["--no-load"], "", 2),
            ("/moved", &good, &[], "", 4),
            ("/moved", &good, &[], "", 4),
        ] {
            std::fs::write(&file, text(&url(path), digest)).expect("writes");
            let (code, said) = check(&cache, &file, options);
            let fine = want.is_empty();
            assert_eq!(
                code,
                Some(if fine { 0 } else { 2 }),
                "{name} {path}: {said}"
            );
            assert!(said.contains(want), "{name} {path}: {said}");
            assert_eq!(
                asked.load(Ordering::Relaxed),
                requests,
                "{name} {path}: {said}"
            );
            let line = text(&url(path), digest)
                .lines()
                .position(|line| line.contains(&url(path)))
                .expect("it is there")
                + 1;
            let place = format!("{name}:{line}:");
            assert!(fine || said.contains(&place), "{place} {said}");
        }
        let kept = cache.join(format!("edgeweir/fetched/{good}.wasm"));
        std::fs::write(&kept, "damaged").expect("writes");
        let (code, said) = check(&cache, &file, &[]);
        assert_eq!(
            (code, asked.load(Ordering::Relaxed)),
            (Some(0), 6),
            "{said}"
        );
    }
}
