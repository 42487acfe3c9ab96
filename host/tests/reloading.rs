//! Reloading under load: nothing lost, nothing kept that is not needed, a bad configuration changes nothing.

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use edgeweir::config::Config;
use edgeweir::host::Host;
use support::*;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A filter in the text format: it counts requests in shared data and says the count in `x-count`; `NAME` in `x-module`.
const MODULE: &str = include_str!("reloading/counts.wat");

fn module(folder: &Path, name: &str) -> PathBuf {
    let file = folder.join("counts.wasm");
    let text = MODULE.replace("NAME", name);
    let bytes = wat::parse_str(text).expect("it is good");
    // As a deployment does it: another file in the place of the first.
    let fresh = folder.join("fresh.wasm");
    std::fs::write(&fresh, bytes).unwrap();
    std::fs::rename(&fresh, &file).unwrap();
    file
}

fn text(folder: &Path, listen: SocketAddr, upstream: SocketAddr, extra: &str) -> String {
    format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[state]\ncache_dir = {:?}\n\
         [[listener]]\nname = \"main\"\nlisten = \"{listen}\"\nupstream = \"origin\"\nfilters = [\"counts\"]\n{extra}\n\
         [upstream.origin]\naddress = \"{upstream}\"\n\
         [filter.counts]\nmodule = {:?}\n",
        folder.join("cache"),
        folder.join("counts.wasm"),
    )
}

fn parse(text: String) -> Config {
    Config::parse(Path::new("edge.toml"), text).unwrap()
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Clients that ask without a pause until they are stopped; what went wrong is counted.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    tasks: tokio::task::JoinSet<Vec<String>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let (stop, good) = (
            Arc::new(AtomicBool::new(false)),
            Arc::<AtomicU64>::default(),
        );
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..6 {
            let (stop, good) = (stop.clone(), good.clone());
            tasks.spawn(async move {
                let mut wrong = Vec::new();
                let mut client = Client::connect(address, number % 2 == 0).await;
                while !stop.load(Relaxed) {
                    let path = if number < 2 { "/large" } else { "/chunks" };
                    let request = client.request("GET", path).body(empty()).unwrap();
                    let got = match client.send(request).await {
                        Ok(response) => collect(response).await,
                        Err(error) => Err(error),
                    };
                    match got {
                        Ok((parts, body, _)) if parts.status == 200 => {
                            let want = if number < 2 { 5_000_000 } else { 70_004 };
                            assert_eq!(body.len(), want);
                            good.fetch_add(1, Relaxed);
                        }
                        other => wrong.push(format!("client {number}: {other:?}")),
                    }
                }
                wrong
            });
        }
        Self { stop, good, tasks }
    }

    async fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Relaxed);
        let wrong = self.tasks.join_all().await.concat();
        (self.good.load(Relaxed), wrong)
    }
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(10), "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_reloads_under_load_lose_nothing_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    module(folder.path(), "first");
    let origin = origin().await;
    let config = |extra: &str| parse(text(folder.path(), any(), origin, extra));
    let mut host = Host::start(config("")).await.unwrap();
    let address = host.addresses()[0];
    // A connection that is kept over all of it.
    let mut client = Client::connect(address, false).await;
    let count = |parts: &http::response::Parts| -> u64 {
        parts.headers["x-count"].to_str().unwrap().parse().unwrap()
    };
    let (parts, ..) = client.get("/").await;
    assert_eq!(parts.headers["x-module"], "first");
    let mut last = count(&parts);

    let load = Load::on(address);
    let slow = tokio::spawn(async move { get_raw(address, "/slow", "").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut resident = Vec::new();
    for number in 0..20 {
        module(folder.path(), &format!("{number:05}"));
        let timing = ["", "server_timing = true"][number % 2];
        let next = host.prepare(config(timing)).await.unwrap();
        host.adopt(next).await.unwrap();
        let (parts, ..) = client.get("/").await;
        assert_eq!(parts.headers["x-module"], format!("{number:05}").as_str());
        assert_eq!(parts.headers.contains_key("server-timing"), number % 2 == 1);
        // Shared data is that of the filter before: the count goes on.
        assert!(count(&parts) > last, "{} after {last}", count(&parts));
        last = count(&parts);
        resident.push(resident_kib());
    }
    let slow = slow.await.unwrap();
    assert!(slow.ends_with("slow"), "{slow}");
    let (good, wrong) = load.end().await;
    assert!(
        wrong.is_empty(),
        "{} of {good} went wrong: {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(3)]
    );
    assert!(good > 50, "{good} is no load");
    let reloads = host.state.reloads.clone();
    assert_eq!(reloads.good.load(Relaxed), 20);
    until("old generations end", || reloads.alive() == 1).await;
    // Counts go on as well: of the listener, of the filter, of the upstream, which kept its connections.
    let state = &host.state;
    assert!(state.listeners[0].stats.requests() >= good + 21);
    let meter = state.filters[0].layer.meter().unwrap().snapshot();
    assert!(
        meter.exchanges >= good + 21,
        "{} exchanges",
        meter.exchanges
    );
    // The machines of one generation, and no others: two, of a few pages each.
    assert!(
        meter.memory_now <= 2 * 65_536 * 4,
        "{} bytes",
        meter.memory_now
    );
    assert_eq!(meter.instances, 2 * 21);
    // From the third generation on what is resident does not grow with generations.
    let grown = resident[19].saturating_sub(resident[2]);
    assert!(
        grown < 60_000,
        "{grown} KiB more after 17 reloads: {resident:?}"
    );
    host.stop().await;
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_open_and_close_and_one_that_is_taken_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    module(folder.path(), "first");
    let origin = origin().await;
    let free = || {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    let (first, second, third) = (free(), free(), free());
    let with = |listen| parse(text(folder.path(), listen, origin, ""));
    let mut host = Host::start(with(first)).await.unwrap();
    assert!(get_raw(first, "/", "").await.ends_with("ok"));
    // In flight on an address that goes.
    let slow = tokio::spawn(async move { get_raw(first, "/slow", "").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let next = host.prepare(with(second)).await.unwrap();
    host.adopt(next).await.unwrap();
    assert!(get_raw(second, "/", "").await.ends_with("ok"));
    assert!(slow.await.unwrap().ends_with("slow"));
    let began = Instant::now();
    while TcpStream::connect(first).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(5), "it still accepts");
    }
    assert_eq!(
        host.state.listeners[0].stats.requests(),
        3,
        "counts go by the name"
    );
    let taken = tokio::net::TcpListener::bind(third).await.unwrap();
    let next = host.prepare(with(third)).await.unwrap();
    let error = format!("{:#}", host.adopt(next).await.unwrap_err());
    assert!(
        error.contains("edge.toml:7:10: in `listener[0].listen`: cannot listen on"),
        "{error}"
    );
    assert!(get_raw(second, "/", "").await.ends_with("ok"));
    drop(taken);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_may_become_another_of_its_port() {
    let folder = tempfile::tempdir().unwrap();
    module(folder.path(), "first");
    let origin = origin().await;
    let mut host = Host::start(parse(text(folder.path(), any(), origin, "")))
        .await
        .unwrap();
    let one = host.addresses()[0];
    let every = SocketAddr::from(([0, 0, 0, 0], one.port()));
    let with = |listen, extra: &str| parse(text(folder.path(), listen, origin, extra));
    let (mut asked, mut last) = (0, one);
    for listen in [every, one, every] {
        let slow = tokio::spawn(async move { get_raw(one, "/slow", "").await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let next = host.prepare(with(listen, "")).await.unwrap();
        host.adopt(next).await.unwrap();
        assert_eq!(host.addresses(), [listen], "{last} became it");
        assert!(get_raw(one, "/", "").await.ends_with("ok"), "{listen}");
        assert!(slow.await.unwrap().ends_with("slow"), "{listen}");
        (asked, last) = (asked + 2, listen);
        assert_eq!(host.state.listeners[0].stats.requests(), asked);
    }
    // One that goes is back where another address cannot be had.
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = format!(
        "[[listener]]\nname = \"other\"\nlisten = \"{}\"\nupstream = \"origin\"",
        taken.local_addr().unwrap()
    );
    let next = host.prepare(with(one, &other)).await.unwrap();
    let error = format!("{:#}", host.adopt(next).await.unwrap_err());
    assert!(error.contains("`listener[1].listen`"), "{error}");
    assert!(error.contains("another program listens there"), "{error}");
    assert_eq!(host.addresses(), [every]);
    assert!(get_raw(one, "/", "").await.ends_with("ok"));
    // Both at once cannot be, and it is said why.
    let other =
        format!("[[listener]]\nname = \"other\"\nlisten = \"{one}\"\nupstream = \"origin\"");
    let next = host.prepare(with(every, &other)).await.unwrap();
    let error = format!("{:#}", host.adopt(next).await.unwrap_err());
    let why = format!("\"main\" of this file is to listen on {every}");
    assert!(error.contains(&why), "{error}");
    host.stop().await;
}

/// Killed with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn metric(admin: &str, name: &str) -> f64 {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let line = answer.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}"))
        .trim()
        .parse()
        .unwrap()
}

async fn metric_is(admin: &str, name: &str, want: f64) {
    let began = Instant::now();
    while metric(admin, name).await != want {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{name} is not {want}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The program itself: files that change, files that are bad, SIGHUP.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_reloads_when_files_change_and_when_told() {
    let folder = tempfile::tempdir().unwrap();
    module(folder.path(), "first");
    let origin = origin().await;
    let file = folder.path().join("edge.toml");
    let good = text(folder.path(), any(), origin, "");
    std::fs::write(&file, &good).unwrap();
    let log = folder.path().join("log");
    let child = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
        .args(["run", file.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let out = tokio::process::ChildStdout::from_std(running.0.stdout.take().unwrap()).unwrap();
    let mut lines = BufReader::new(out).lines();
    let word = |line: String, at: usize| {
        let word = line.split_whitespace().nth(at).unwrap().to_owned();
        word.trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned()
    };
    let address: SocketAddr = word(lines.next_line().await.unwrap().unwrap(), 1)
        .parse()
        .unwrap();
    let admin = word(lines.next_line().await.unwrap().unwrap(), 1);
    let mut client = Client::connect(address, false).await;
    let (parts, ..) = client.get("/").await;
    assert_eq!(parts.headers["x-module"], "first");
    let taken = "edgeweir_reloads_total{outcome=\"taken\"}";
    let refused = "edgeweir_reloads_total{outcome=\"refused\"}";

    module(folder.path(), "newer");
    metric_is(&admin, taken, 1.0).await;
    let (parts, ..) = client.get("/").await;
    assert_eq!(parts.headers["x-module"], "newer");

    std::fs::write(
        &file,
        good.replace("[filter.counts]", "[filter.counts]\ndeadline_ms = 60001"),
    )
    .unwrap();
    metric_is(&admin, refused, 1.0).await;
    let (parts, ..) = client.get("/").await;
    assert_eq!(
        parts.headers["x-module"], "newer",
        "what was served is served on"
    );
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("edge.toml:"), "{said}");
    assert!(
        said.contains("60001 is out of bounds: from 0 to 60000"),
        "{said}"
    );

    std::fs::write(
        &file,
        good.replace(
            "upstream = \"origin\"",
            "upstream = \"origin\"\nserver_timing = true",
        ),
    )
    .unwrap();
    metric_is(&admin, taken, 2.0).await;
    let (parts, ..) = client.get("/").await;
    assert!(parts.headers.contains_key("server-timing"));

    let hup = Command::new("kill")
        .args(["-HUP", &running.0.id().to_string()])
        .status();
    assert!(hup.unwrap().success());
    metric_is(&admin, taken, 3.0).await;
    assert!(client.get("/").await.0.headers.contains_key("x-module"));
}
