//! The host under pressure: memory runs short, filters of both ABIs do less, and recover. A process of its own, since
//! what it takes is what is measured.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use cargo_edge::artifact::Flavour;
use edgeweir::config::Config;
use edgeweir::host::Host;
use edgeweir_host_monitor::{Level, Metric, Probe};
use serde_json::Value;

const TOKEN: &str = "a-token-of-the-operator";
/// Bytes of the store that workers share, of the listener `cache`.
const STORE: usize = 4 << 20;

/// Two listeners with `ratelimit` and `compress`: modules in front of one, components of the other. A third has the module
/// `cache`.
async fn edge(monitor: &str) -> Host {
    let names = ["cache", "compress", "ratelimit"].map(str::to_owned);
    cargo_edge::build::build(&names, Flavour::Usual, true).expect("the filters build");
    let upstream = json_origin().await;
    let mut text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\"\n[upstream.origin]\naddress = \"{upstream}\"\n{monitor}\n"
    );
    for abi in ["proxy-wasm", "wasi-http"] {
        let module = |name: &str| {
            let file = cargo_edge::workspace::edge_dir().join(format!("{name}.{abi}.wasm"));
            format!("{:?}", file.display().to_string())
        };
        text.push_str(&format!(
            "[[listener]]\nname = \"{abi}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\n\
             filters = [\"limit-{abi}\", \"coder-{abi}\"]\n\
             [filter.limit-{abi}]\nmodule = {}\n\
             [[filter.limit-{abi}.config.rules]]\nkey = [{{ header = \"x-client\" }}]\n\
             emergency = [50, 50, 25]\nlimits = [{{ rate = \"20/hour\" }}]\n\
             [filter.coder-{abi}]\nmodule = {}\nconfig = {{ gzip_level = 6, server_timing = true }}\n",
            module("ratelimit"),
            module("compress"),
        ));
    }
    let cache = cargo_edge::workspace::edge_dir().join("cache.proxy-wasm.wasm");
    text.push_str(&format!(
        "[[listener]]\nname = \"cache\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\nfilters = [\"cache\"]\n\
         [filter.cache]\nmodule = {:?}\nconfig = {{ l2_bytes = {STORE}, rules = [{{ ttl_by_status = {{ 200 = 600 }} }}] }}\n",
        cache.display().to_string(),
    ));
    Host::start(Config::parse(Path::new("edge.toml"), text).expect("it is sound"))
        .await
        .expect("it starts")
}

async fn json_origin() -> SocketAddr {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 16_384];
                // Requests here are small and come one after another.
                while let Ok(1..) = stream.read(&mut buffer).await {
                    let said = String::from_utf8_lossy(&buffer);
                    assert!(
                        !said.contains("edgeweir-emergency"),
                        "the origin was told:\n{said}"
                    );
                    let body = "{\"an\":\"answer\"}, ".repeat(500);
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all((head + &body).as_bytes()).await;
                    buffer.fill(0);
                }
            });
        }
    });
    address
}

/// What `compress` says it did, for a client that limits do not know yet.
async fn coding(address: SocketAddr, client: &str, fields: &str) -> String {
    let fields = format!("Accept-Encoding: gzip\r\nX-Client: {client}\r\n{fields}");
    let answer = support::get_raw(address, "/a", &fields).await;
    let line = answer
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("server-timing:"));
    let line = line.unwrap_or_else(|| panic!("no Server-Timing:\n{answer}"));
    line.split('"').nth(1).unwrap_or_default().to_owned()
}

/// How many of 25 requests of a client are admitted.
async fn admitted(address: SocketAddr, client: &str) -> usize {
    let mut count = 0;
    for _ in 0..25 {
        let fields = format!("X-Client: {client}\r\n");
        let answer = support::get_raw(address, "/a", &fields).await;
        count += usize::from(answer.starts_with("HTTP/1.1 200"));
    }
    count
}

async fn until(what: &str, limit: Duration, is: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

fn level(host: &Host) -> Level {
    host.state.watch.look(|monitor, _, _| monitor.level())
}

async fn admin(host: &Host, request: &str) -> String {
    let address = host.admin.expect("admin pages");
    let answer = support::raw(address, request).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Bytes that the cache shares between its workers.
async fn stored(host: &Host) -> usize {
    let stats = page(host, "/stats.json").await;
    let filters = stats["filters"].as_array().expect("the filters");
    let cache = filters.iter().find(|filter| filter["name"] == "cache");
    let bytes = cache.expect("the cache")["shared_bytes"].as_u64();
    bytes.expect("a number") as usize
}

async fn page(host: &Host, path: &str) -> Value {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    );
    let answer = admin(host, &request).await;
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}:\n{answer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_do_less_while_memory_is_short_and_recover() {
    let mut probe = Probe::new(Path::new("/"));
    probe.sample(Duration::ZERO, Default::default);
    // Far beyond what loading and serving take.
    let line = probe.process().resident + (1 << 30);
    let host = edge(&format!(
        "[monitor]\nrecover_after_ms = 300\n\
         [[monitor.rule]]\nname = \"test\"\nlevel = \"aggressive\"\n\
         when = [{{ metric = \"memory_resident\", above = {line}, clear = {} }}]\n",
        line - (100 << 20)
    ))
    .await;
    let [modules, components, cache] = host.addresses()[..] else {
        panic!("three listeners");
    };
    for address in [modules, components] {
        assert_eq!(coding(address, "calm", "").await, "gzip 6");
        // A client's own word is not the host's.
        let forged = coding(address, "forged", "Edgeweir-Emergency: 3\r\n").await;
        assert_eq!(forged, "gzip 6", "the field was obeyed");
        assert_eq!(admitted(address, "before").await, 20);
    }

    let kept = vec![1_u8; 1 << 30];
    std::hint::black_box(&kept);
    let took = until("short of memory", Duration::from_secs(5), || {
        level(&host) == Level::Aggressive
    })
    .await;
    println!("short of memory {took:?} after it was taken");
    // A module reads what it is told at most every 100 ms.
    tokio::time::sleep(Duration::from_millis(150)).await;
    for address in [modules, components] {
        coding(address, "first", "").await;
        assert_eq!(coding(address, "short", "").await, "gzip 6 to 1");
        assert_eq!(admitted(address, "during").await, 10, "half of 20");
    }
    let stats = page(&host, "/stats.json").await;
    assert_eq!(stats["monitor"]["level"], "aggressive");
    assert_eq!(stats["monitor"]["holding"][0], "test");

    drop(kept);
    until("one step down", Duration::from_secs(10), || {
        level(&host) == Level::Standard
    })
    .await;
    until("recovery", Duration::from_secs(10), || {
        level(&host) == Level::Minimal
    })
    .await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    for address in [modules, components] {
        coding(address, "third", "").await;
        assert_eq!(coding(address, "after", "").await, "gzip 6");
        assert_eq!(admitted(address, "afterwards").await, 20);
    }
    let changes = &page(&host, "/stats.json").await["monitor"]["changes"];
    for (level, want) in [
        ("aggressive", 1),
        ("standard", 1),
        ("minimal", 1),
        ("maximum", 0),
    ] {
        assert_eq!(changes[level], want, "{level}");
    }

    by_hand(&host, modules, components, cache).await;
    host.stop().await;
}

/// An operator sets the level, with the token only.
async fn by_hand(host: &Host, modules: SocketAddr, components: SocketAddr, cache: SocketAddr) {
    let set = |to: &str, token: &str| {
        format!(
            "POST /level?to={to} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        )
    };
    let wrong = admin(host, &set("maximum", "a-token-of-somebody-else")).await;
    assert!(wrong.starts_with("HTTP/1.1 401"), "{wrong}");
    assert_eq!(level(host), Level::Minimal);
    let unknown = admin(host, &set("most", TOKEN)).await;
    assert!(unknown.starts_with("HTTP/1.1 400"), "{unknown}");
    assert!(unknown.contains("aggressive"), "{unknown}");
    for n in 0..600 {
        support::get_raw(cache, &format!("/{n}"), "").await;
    }
    let full = stored(host).await;
    assert!(full > STORE / 10 * 8, "{full} of {STORE}");
    let done = admin(host, &set("maximum", TOKEN)).await;
    assert!(
        done.starts_with("HTTP/1.1 200") && done.ends_with("maximum\n"),
        "{done}"
    );
    tokio::time::sleep(Duration::from_millis(150)).await;
    for address in [modules, components] {
        coding(address, "fourth", "").await;
        assert_eq!(coding(address, "worst", "").await, "emergency");
    }
    let stats = page(host, "/stats.json").await;
    assert_eq!(stats["monitor"]["automatic"], false);
    let began = Instant::now();
    while stored(host).await > STORE / 4 {
        let limit = Duration::from_secs(10);
        assert!(began.elapsed() < limit, "{} stay", stored(host).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "{full} bytes were {} after {:?}",
        stored(host).await,
        began.elapsed()
    );
    let newest = support::get_raw(cache, "/599", "").await;
    assert!(newest.contains("hit"), "{newest}");
    admin(host, &set("automatic", TOKEN)).await;
    until("the rules again", Duration::from_secs(10), || {
        level(host) == Level::Minimal
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_pages_are_for_those_who_have_the_token() {
    let upstream = support::origin().await;
    let host = |token: &'static str| async move {
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n{token}\n\
             [[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\n\
             [upstream.origin]\naddress = \"{upstream}\"\n"
        );
        Host::start(Config::parse(Path::new("edge.toml"), text).unwrap())
            .await
            .unwrap()
    };
    let asked = |host: &Host, line: &'static str, fields: String| {
        let address = host.admin.unwrap();
        async move {
            let request = format!("{line} HTTP/1.1\r\nConnection: close\r\n{fields}\r\n");
            let answer = support::raw(address, request).await;
            String::from_utf8_lossy(&answer)[9..12]
                .parse::<u16>()
                .unwrap()
        }
    };
    let bearer = |token: &str| format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n");
    let local = || "Host: localhost\r\n".to_owned();
    let foreign = || "Host: evil.test\r\n".to_owned();
    let guarded = host("token = \"a-token-of-the-operator\"").await;
    for (name, line, fields, want) in [
        ("the empty page", "GET /", local(), 200),
        ("alive", "GET /healthz", local(), 200),
        ("ready", "GET /readyz", local(), 200),
        ("without", "GET /stats.json", local(), 401),
        ("metrics without", "GET /metrics", local(), 401),
        (
            "wrong",
            "GET /metrics",
            bearer("a-token-of-somebody-else"),
            401,
        ),
        (
            "too short",
            "GET /metrics",
            bearer("a-token-of-the-operato"),
            401,
        ),
        ("right", "GET /metrics", bearer(TOKEN), 200),
        (
            "by any name",
            "GET /metrics",
            bearer(TOKEN).replace("localhost", "edge.test"),
            200,
        ),
        ("the past", "GET /history.json", bearer(TOKEN), 200),
        ("no baseline yet", "GET /baseline.json", bearer(TOKEN), 503),
        ("nothing there", "GET /x", bearer(TOKEN), 404),
    ] {
        assert_eq!(asked(&guarded, line, fields).await, want, "{name}");
    }
    let open = host("[monitor]\nenabled = false").await;
    for (name, line, fields, want) in [
        ("without a token", "GET /metrics", local(), 200),
        ("a name of another site's", "GET /metrics", foreign(), 403),
        ("nothing is changed", "POST /level?to=maximum", local(), 403),
        ("nothing is watched", "GET /baseline.json", local(), 404),
    ] {
        assert_eq!(asked(&open, line, fields).await, want, "{name}");
    }
    assert_eq!(level(&open), Level::Minimal);
}

/// An origin behind a cache of its own whose `Cache-Status` is long; the edge's cache says the last of it.
async fn behind_a_far_cache() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let key = "k".repeat(190);
                let response = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\
                     Cache-Status: cdn; hit; ttl=30; key=\"{key}\"\r\n\
                     Cache-Status: near; fwd=uri-miss; stored\r\n\r\nok"
                );
                stream.write_all(response.as_bytes()).await
            });
        }
    });
    address
}

/// The nearest cache counts, however much those behind it say; what a client makes long is cut.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_an_exchange_is_short_and_right() {
    let host = support::host(behind_a_far_cache().await, "").await;
    let address = host.addresses()[0];
    let method = "M".repeat(50_000);
    let request = format!("{method} / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    support::raw(address, request).await;
    support::get_raw(address, "/", "").await;
    let stats = &host.state.listeners[0].stats;
    until("both", Duration::from_secs(10), || stats.requests() == 2).await;
    let metrics = edgeweir::admin::metrics_text(&host.state);
    for line in [
        "edgeweir_cache_lookups_total{listener=\"main\"} 2",
        "edgeweir_cache_hits_total{listener=\"main\"} 0",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line}:\n{metrics}");
    }
    let stats = edgeweir::admin::stats_json(&host.state);
    assert_eq!(stats["listeners"][0]["tls"], false);
    let recent = stats["recent"].as_array().expect("exchanges");
    assert_eq!(recent.len(), 2, "{recent:?}");
    assert_eq!(recent[0]["method"], "GET");
    assert_eq!(recent[1]["method"], format!("{}…", "M".repeat(32)));
    for exchange in recent {
        assert_eq!(exchange["status"], 200);
        assert_eq!(exchange["cache_status"], "…, near; fwd=uri-miss; stored");
    }
    host.stop().await;
}

/// A host of defaults watches itself; what it measured is on the pages.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_on_the_pages() {
    let host = support::host(support::origin().await, "").await;
    for _ in 0..20 {
        support::get_raw(host.addresses()[0], "/", "").await;
    }
    until("a second look", Duration::from_secs(10), || {
        host.state
            .watch
            .look(|_, sample, _| sample.get(Metric::Requests).is_some())
    })
    .await;
    let metrics = edgeweir::admin::metrics_text(&host.state);
    for metric in Metric::ALL {
        let name = edgeweir::admin::metric_name(metric);
        assert!(
            metrics.contains(&format!("# TYPE {name} gauge\n")),
            "{name}"
        );
    }
    for name in [
        "edgeweir_level{level=\"minimal\"} 1",
        "edgeweir_emergency 0",
        "edgeweir_alerts{severity=\"critical\"} 0",
        "edgeweir_level_changes_total{level=\"maximum\"} 0",
        "edgeweir_cache_lookups_total{listener=\"main\"} 0",
        "edgeweir_limited_total{listener=\"main\"} 0",
    ] {
        assert!(
            metrics.lines().any(|line| line == name),
            "{name}:\n{metrics}"
        );
    }
    let stats = edgeweir::admin::stats_json(&host.state);
    let sample = &stats["monitor"]["sample"];
    for metric in [
        Metric::ProcessCpu,
        Metric::MemoryResident,
        Metric::Threads,
        Metric::DiskFree,
    ] {
        assert!(
            sample[metric.name()].as_f64().is_some(),
            "{metric:?}: {sample}"
        );
    }
    // Bytes are counted on both sides: of clients, and of the origin.
    let upstream = host.state.upstreams["origin"].counts().wire.get();
    for (received, sent) in [host.state.listeners[0].stats.wire.get(), upstream] {
        assert!(received > 20 * 18 && sent > 20 * 18, "{received}, {sent}");
    }
    let history = edgeweir::admin::history_json(&host.state);
    let threads = &history["metrics"]["threads"]["fine"];
    let (ago, value) = (&threads["ago"], &threads["value"]);
    assert!(ago.as_array().is_some_and(|it| it.len() >= 5), "{threads}");
    assert_eq!(ago.as_array().map(Vec::len), value.as_array().map(Vec::len));
    host.stop().await;
}

#[test]
fn a_threshold_or_rule_that_makes_no_sense_is_refused_where_it_stands() {
    let rest = "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\n\
                [upstream.origin]\naddress = \"127.0.0.1:1\"\n";
    let alarm =
        |fields: &str| format!("[[monitor.threshold]]\nseverity = \"info\"\n{fields}\n{rest}");
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.json");
    let nothing =
        "{\"version\":\"\",\"memory_bytes\":1e8,\"cpu_us_per_exchange\":0.0,\"filters\":{}}";
    std::fs::write(&empty, nothing).unwrap();
    let rule = |fields: &str| format!("[[monitor.rule]]\nname = \"r\"\n{fields}\n{rest}");
    for (case, text, field, words) in [
        (
            "both bounds",
            alarm("metric = \"memory\"\nabove = 80\nbelow = 20"),
            "monitor.threshold[0]",
            "memory: want one of `above` and `below`",
        ),
        (
            "clear on the wrong side",
            alarm("metric = \"memory\"\nabove = 80\nclear = 90"),
            "monitor.threshold[0].clear",
            "clear is 90, want at most 80",
        ),
        (
            "less than nothing",
            alarm("metric = \"memory\"\nabove = -1.0"),
            "monitor.threshold[0].above",
            "memory: -1 is out of bounds: from 0 to 100 percent",
        ),
        (
            "more than all",
            alarm("metric = \"memory\"\nabove = 300.0"),
            "monitor.threshold[0].above",
            "memory: 300 is out of bounds: from 0 to 100 percent",
        ),
        (
            "no number",
            alarm("metric = \"threads\"\nabove = 9\nclear = nan"),
            "monitor.threshold[0].clear",
            "threads: NaN is out of bounds: a number from 0 on",
        ),
        (
            "more than all in a condition",
            rule(
                "level = \"maximum\"\nwhen = [{ metric = \"memory\", above = 9 },\n{ metric = \"errors\", above = 101 }]",
            ),
            "monitor.rule[0].when[1].above",
            "errors: 101 is out of bounds: from 0 to 100 percent",
        ),
        (
            "a rule without a name",
            rule("when = [{ metric = \"memory\", above = 9 }]\nlevel = \"maximum\"")
                .replace("\"r\"", "\" \""),
            "monitor.rule[0].name",
            "\" \" is no name",
        ),
        (
            "two rules of a name",
            rule(
                "when = [{ metric = \"memory\", above = 9 }]\nlevel = \"maximum\"\n\
                  [[monitor.rule]]\nname = \"r\"\n\
                  when = [{ metric = \"memory\", above = 9 }]\nlevel = \"standard\"",
            ),
            "monitor.rule[1].name",
            "\"r\" is the name of an earlier rule",
        ),
        (
            "a baseline that says nothing",
            format!("[monitor]\nbaseline = {empty:?}\n{rest}"),
            "monitor.baseline",
            "it has no costs to compare with",
        ),
        (
            "no such metric",
            alarm("metric = \"memroy\"\nabove = 80"),
            "monitor.threshold",
            "unknown variant `memroy`",
        ),
        (
            "no condition",
            rule("when = []\nlevel = \"maximum\""),
            "monitor.rule[0].when",
            "it has 0 conditions, want 1 to 100",
        ),
        (
            "no such level",
            rule("when = [{ metric = \"memory\", above = 9 }]\nlevel = \"most\""),
            "monitor.rule",
            "unknown variant `most`",
        ),
        (
            "too often",
            format!("[monitor]\ninterval_ms = 10\n{rest}"),
            "monitor.interval_ms",
            "from 100 to 60000",
        ),
        (
            "no baseline",
            format!("[monitor]\nbaseline = \"gone.json\"\n{rest}"),
            "monitor.baseline",
            "gone.json is no baseline",
        ),
        (
            "a token that can be guessed",
            format!("[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"secret\"\n{rest}"),
            "admin.token",
            "a token has 16 to 256",
        ),
        (
            "a token that is not there",
            format!("[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"gone\"\n{rest}"),
            "admin.token_file",
            "gone: No such file",
        ),
    ] {
        let error = match Config::parse(Path::new("edge.toml"), text) {
            Ok(_) => panic!("{case}: it was accepted"),
            Err(error) => error,
        };
        assert!(error.field.starts_with(field), "{case}: {error}");
        assert!(error.message.contains(words), "{case}: {error}");
        assert!(error.place.is_some(), "{case}: {error}");
        // The line of the value, where it is one value that is wrong.
        if let Some(name) = ["above", "clear", "name"]
            .into_iter()
            .find(|it| error.field.ends_with(&format!(".{it}")))
        {
            let shown = error.to_string();
            assert!(shown.contains(&format!("{name} = ")), "{case}: {shown}");
        }
        assert!(!error.message.contains("secret"), "{case}: {error}");
    }
    let everybody = format!("[admin]\nlisten = \"0.0.0.0:0\"\ntoken = \"{TOKEN}\"\n{rest}");
    assert!(Config::parse(Path::new("edge.toml"), everybody).is_ok());
}
