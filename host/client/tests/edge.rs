//! The commands against a made-up edge.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use edgeweir_host_client::{purge, top, warm};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

/// What an edge was asked.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// An edge with a cache, and its admin pages.
async fn edge() -> (SocketAddr, Asked) {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Asked::default();
    let stored = Arc::new(Mutex::new(HashMap::<String, ()>::new()));
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let (seen, stored) = (seen.clone(), stored.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer(&request, &seen, &stored, address);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (address, asked)
}

fn answer(
    request: &Request<Incoming>,
    seen: &Asked,
    stored: &Mutex<HashMap<String, ()>>,
    own: SocketAddr,
) -> Response<Full<Bytes>> {
    let path = request.uri().path_and_query().unwrap().to_string();
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|it| it.to_str().unwrap().to_owned())
    };
    let (host, coding) = (
        header("host").unwrap_or_default(),
        header("accept-encoding"),
    );
    let mut line = format!("{} {host} {path}", request.method());
    if let Some(coding) = &coding {
        line.push_str(&format!(" {coding}"));
    }
    seen.0.lock().unwrap().push(line);
    let say = |status: u16, cache: &str, body: String| {
        let mut response = Response::builder().status(status);
        if !cache.is_empty() {
            response = response.header("cache-status", cache);
        }
        response.body(Full::new(Bytes::from(body))).unwrap()
    };
    match path.as_str() {
        "/stats.json" => say(200, "", stats().to_string()),
        "/history.json" => say(200, "", json!({ "metrics": {} }).to_string()),
        "/sitemap.xml" => say(
            200,
            "",
            format!(
                "<urlset><url><loc>http://{own}/in-map</loc></url><url><loc>/private</loc></url></urlset>"
            ),
        ),
        "/private" => say(200, "edgeweir; fwd=uri-miss; detail=private", "mine".into()),
        "/broken" => say(503, "edgeweir; fwd=uri-miss; fwd-status=503", "no".into()),
        path if path.starts_with("/.edgeweir/cache/purge?") => {
            if header("authorization").as_deref() != Some("Bearer a-token-of-the-operator") {
                let problem = json!({ "title": "unauthorized", "detail": "the token is wrong" });
                return say(401, "", problem.to_string());
            }
            stored.lock().unwrap().clear();
            let done = json!({ "invalidated": true, "soft": false, "what": {}, "held_here": 3, "for_example": ["a/1"] });
            say(200, "", done.to_string())
        }
        path => {
            let key = format!("{path} {coding:?}");
            let cache = match stored.lock().unwrap().insert(key, ()) {
                Some(()) => "edgeweir; hit; ttl=50",
                None => "edgeweir; fwd=uri-miss; fwd-status=200; ttl=60; stored",
            };
            say(200, cache, "x".repeat(100))
        }
    }
}

fn stats() -> Value {
    json!({
        "version": "9.9.9", "uptime_s": 125.0,
        "monitor": {
            "level": "aggressive", "emergency": 2, "automatic": true, "memory_limit": 1 << 30,
            "sample": { "requests": 1234.0, "process_cpu": 41.0, "memory_resident": 104_857_600, "latency_p99": 7.5 },
            "alerts": [{ "about": "memory", "severity": "critical", "for_s": 12, "text": "memory above 92.0 %: 95.0 %" }],
            "forecasts": [{ "metric": "disk_free", "at_text": "10.0 %", "in_s": 1200 }],
            "advice": [{ "setting": "filter.a.memory_mib", "text": "raise it" }],
        },
        "listeners": [{
            "name": "main", "address": "127.0.0.1:8000", "per_second": 1234.0, "percentiles_us": [900, 2500, 7500],
            "requests": 50_000, "classes": [0, 0, 49_000, 0, 900, 100], "limited": 800, "looked_up": 40_000,
            "reused": 30_000, "sent": 5_000_000,
        }],
        "filters": [{
            "name": "store", "abi": "proxy-wasm", "exchanges": 1000, "answered": 700, "percentiles_us": [10.0, 20.0, 31.0],
            "saved": 0, "memory_now": 4_194_304, "shared_bytes": 1024, "traps": 1,
            "calls": [{ "wall_ns": 5_000_000 }],
        }],
        "reloads": { "taken": 3, "refused": 1, "last_error": "edge.toml:3:1: in `limits.fuel`: no\n  3 | fuel" },
        "upstreams": [
            { "name": "whole", "endpoints": [{ "address": "10.0.0.9:80", "healthy": true, "ejected": false, "breaker": "closed" }] },
            { "name": "half", "endpoints": [
                { "address": "10.0.0.1:80", "healthy": true, "ejected": false, "breaker": "closed" },
                { "address": "10.0.0.2:80", "healthy": false, "ejected": true, "breaker": "open" },
            ] },
        ],
        "recent": [{
            "listener": "main", "method": "GET", "path": "/a\u{1b}[31m", "status": 200, "took_us": 900, "bytes": 100,
            "content_encoding": "br", "cache_status": "edgeweir; hit",
        }],
    })
}

fn parsed<T: clap::Args + clap::FromArgMatches>(arguments: &[String]) -> T {
    let command = T::augment_args(clap::Command::new("test").no_binary_name(true));
    T::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
}

fn words(text: &str, address: SocketAddr) -> Vec<String> {
    let text = text.replace("EDGE", &format!("http://{address}"));
    text.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn every_url_is_asked_once_and_told_of() {
    let (address, asked) = edge().await;
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("urls");
    std::fs::write(&list, "# what people open first\n/a\n\n/b\n/a\n").unwrap();
    let line = format!(
        "--edge EDGE /a http://shop.test/c --file {} --sitemap /sitemap.xml",
        list.display()
    );
    let arguments: warm::Warm = parsed(&words(&line, address));
    assert!(warm::execute(&arguments).await.unwrap(), "nothing failed");
    let mut seen = asked.all();
    assert_eq!(seen.remove(0), format!("GET {address} /sitemap.xml"));
    seen.sort();
    let own = |path: &str| format!("GET {address} {path}");
    let mut want = vec![own("/a"), own("/b"), own("/in-map"), own("/private")];
    want.push("GET shop.test /c".to_owned());
    want.sort();
    assert_eq!(seen, want);
}

#[tokio::test]
async fn outcomes_are_counted_and_failures_fail() {
    let (address, _) = edge().await;
    let run = async |line: &str| {
        let arguments: warm::Warm = parsed(&words(line, address));
        warm::run(&arguments).await.unwrap()
    };
    let report = run("--edge EDGE /a /b /private /broken").await;
    let counts: Vec<_> = report
        .counts
        .iter()
        .map(|(outcome, count)| (outcome.to_string(), *count))
        .collect();
    let want = [("stored", 2), ("not stored: private", 1), ("status 503", 1)];
    assert_eq!(
        counts,
        want.map(|(outcome, count)| (outcome.to_owned(), count))
    );
    assert!(report.failed());
    assert_eq!(report.told.len(), 2);
    let again = run("--edge EDGE /a /b --accept-encoding br --accept-encoding gzip").await;
    assert_eq!(
        again.to_json()["outcomes"],
        json!({ "stored": 4 }),
        "each coding is a variant"
    );
    let third = run("--edge EDGE /a --accept-encoding br").await;
    assert_eq!(third.to_json()["outcomes"], json!({ "already there": 1 }));
    let gone = run("--edge http://127.0.0.1:1 /a").await;
    assert!(gone.failed());
    assert!(gone.to_text().contains("no answer: "), "{}", gone.to_text());
}

#[tokio::test]
async fn the_rate_is_a_bound() {
    let (address, asked) = edge().await;
    let urls: Vec<_> = (0..20).map(|at| format!("/{at}")).collect();
    let line = format!("--edge EDGE --rate 40 --concurrency 16 {}", urls.join(" "));
    let arguments: warm::Warm = parsed(&words(&line, address));
    let began = Instant::now();
    warm::run(&arguments).await.unwrap();
    let took = began.elapsed().as_millis();
    assert!(took >= 450, "20 at 40 a second took {took} ms");
    assert_eq!(asked.all().len(), 20);
}

#[tokio::test]
async fn an_edge_is_told_what_to_forget() {
    let (address, asked) = edge().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "a-token-of-the-operator\n").unwrap();
    let line = format!(
        "--edge EDGE --token-file {} --url /a?b --tag x --tag y --soft",
        token.display()
    );
    let arguments: purge::Purge = parsed(&words(&line, address));
    assert!(purge::execute(&arguments).await.unwrap());
    assert_eq!(
        asked.all(),
        [
            format!("POST {address} /.edgeweir/cache/purge?key=/a%3Fb&soft=1"),
            format!("POST {address} /.edgeweir/cache/purge?tag=x&tag=y&soft=1"),
        ]
    );
    std::fs::write(&token, "another-token-altogether\n").unwrap();
    assert!(!purge::execute(&arguments).await.unwrap(), "it was refused");
    std::fs::write(&token, "\n").unwrap();
    assert!(purge::execute(&arguments).await.is_err());
}

#[tokio::test]
async fn a_frame_shows_what_is_there() {
    let mut seen = top::Seen::default();
    seen.add(stats());
    let frame = top::plain(&seen).unwrap();
    println!("{frame}");
    for words in [
        "edgeweir 9.9.9  up 2 min  level aggressive",
        "refused  reload: edge.toml:3:1: in `limits.fuel`: no\n",
        "upstream half: 1 of 2 take requests: 10.0.0.2:80 fails its probes, put aside, breaker open\n",
        "critical memory above 92.0 %: 95.0 %  for 12 s",
        "ahead    disk_free reaches 10.0 % in about 20 min",
        "advice   filter.a.memory_mib: raise it",
        "requests/s 1234",
        "memory 100.0 MiB",
        "main           127.0.0.1:8000        1234",
        "75 %",
        "store                    proxy-wasm",
        "edgeweir; hit",
    ] {
        assert!(frame.contains(words), "{words}:\n{frame}");
    }
    assert!(
        !frame.contains('\u{1b}'),
        "a path's escape reaches no terminal"
    );
    assert!(frame.lines().all(|line| line.chars().count() <= 120));

    let (address, asked) = edge().await;
    let arguments: top::Top = parsed(&[address.to_string(), "--once".to_owned()]);
    top::execute(&arguments).await.unwrap();
    assert_eq!(asked.all().len(), 2);
    let wrong: top::Top = parsed(&["127.0.0.1:1".to_owned(), "--once".to_owned()]);
    let error = top::execute(&wrong).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("is a host running"),
        "{error:#}"
    );
}
