//! Cases on a real Envoy: a listener for each, with a scripted origin and scripted clusters on sockets of their own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use edgeweir_host_cases::model::{Answer, Case, Step};
use edgeweir_host_cases::seen::{self, Exchange, Seen};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::body;
use super::origin::{self, Origin};
use crate::load::Abi;

/// How long Envoy may take to start: it compiles the modules.
const START: Duration = Duration::from_secs(60);
/// How long an exchange may take.
const HANGS: Duration = Duration::from_secs(40);
/// What is waited after an exchange, for what filters do when it is over.
const SETTLE: Duration = Duration::from_millis(60);
/// The pause between two pieces of a body, so that they come apart.
const APART: Duration = Duration::from_millis(3);

/// Why a case cannot run on Envoy; `None` when it can.
pub fn refuses(case: &Case) -> Option<String> {
    let why = |text: &str| Some(text.to_owned());
    if !case.envoy {
        return why("it says envoy = false");
    }
    for filter in &case.filters {
        // A file that cannot be read is the run's to report.
        if Abi::of(&filter.module).is_ok_and(|abi| abi != Abi::ProxyWasm) {
            return why("Envoy runs no components");
        }
    }
    if case.timed || case.steps.iter().any(|step| !step.advance.is_zero()) {
        return why("Envoy's clock cannot be moved");
    }
    if !case.shared.is_empty() {
        return why("Envoy's shared data cannot be set");
    }
    if !case.properties.is_empty() || case.peer.ip() != edgeweir_host_cases::parse::PEER.ip() {
        return why("Envoy's properties cannot be set");
    }
    let trailers = case.steps.iter().any(|step| {
        let of_answer = match &step.upstream {
            Answer::Response(response) => !response.body.trailers.is_empty(),
            _ => false,
        };
        of_answer || !step.request.body.trailers.is_empty()
    });
    if trailers {
        return why("trailers need HTTP/2 there");
    }
    None
}

/// Whether two cases can share an Envoy: the modules are compiled once for both, and nothing of one is seen by the other.
pub fn shares(one: &Case, other: &Case) -> bool {
    let modules =
        |case: &Case| -> Vec<PathBuf> { case.filters.iter().map(|it| it.module.clone()).collect() };
    // Names of clusters are of a whole Envoy.
    let alone = !one.clusters.is_empty() || !other.clusters.is_empty();
    !alone && one.workers == other.workers && modules(one) == modules(other)
}

/// Runs cases one after the other on one Envoy; each has a listener and virtual machines of its own. One that Envoy does
/// not survive, or does not start with, costs the others a start of their own.
pub fn run(envoy: &Path, cases: &[&Case], done: &mut dyn FnMut(anyhow::Result<Seen>)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let text = format!("the runtime cannot start: {error}");
            return cases
                .iter()
                .for_each(|_| done(Err(anyhow::anyhow!("{text}"))));
        }
    };
    let mut rest = cases;
    while !rest.is_empty() {
        let mut judged = 0;
        let together = runtime.block_on(run_inside(envoy, rest, &mut |seen| {
            judged += 1;
            done(seen);
        }));
        match together {
            Ok(()) => {}
            // One of them keeps Envoy from starting: each finds out for itself.
            Err(_) if judged == 0 && rest.len() > 1 => {
                for case in rest {
                    run(envoy, &[*case], done);
                }
                return;
            }
            Err(error) => {
                judged += 1;
                done(Err(error));
            }
        }
        rest = rest.get(judged..).unwrap_or_default();
    }
}

/// An error is of the first case that `done` was not told of.
async fn run_inside(
    envoy: &Path,
    cases: &[&Case],
    done: &mut dyn FnMut(anyhow::Result<Seen>),
) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let mut origins = Vec::new();
    for case in cases {
        let origin = Origin::default();
        let address = serve(Serving::Origin(origin.clone())).await?;
        let mut clusters = BTreeMap::new();
        for (name, answers) in &case.clusters {
            let answers = std::sync::Arc::new(std::sync::Mutex::new(answers.clone()));
            clusters.insert(name.clone(), serve(Serving::Cluster(answers)).await?);
        }
        origins.push((origin, address, clusters));
    }
    let parts = cases
        .iter()
        .zip(&origins)
        .map(|(case, (_, address, clusters))| (*case, *address, clusters));
    let config = bootstrap(parts);
    let workers = cases.first().map_or(1, |case| case.workers);
    let mut running = Running::start(envoy, workers, cases.len(), &folder.0, &config).await?;
    for (at, (case, (origin, ..))) in cases.iter().zip(&origins).enumerate() {
        running.log()?;
        let metered = case
            .steps
            .iter()
            .any(|step| !step.expect.metrics.is_empty());
        let before = match metered {
            true => running.metrics().await?,
            false => BTreeMap::new(),
        };
        let mut seen = Seen::default();
        let began = Instant::now();
        // At each point of a body Envoy would take long: once in the middle.
        let split = (case.splits() / 2).max(1);
        for (number, step) in case.steps.iter().enumerate() {
            for time in 0..step.times {
                origin.set(&step.upstream, split);
                let mut exchange = Exchange::default();
                let asked = ask(running.listeners[at], case, step, split, &mut exchange);
                exchange.hung = tokio::time::timeout(HANGS, asked).await.is_err();
                tokio::time::sleep(SETTLE).await;
                if let Some(status) = running.process.try_wait()? {
                    let (step, tail) = (number + 1, running.tail());
                    bail!("Envoy ended with {status} in step {step}: {tail}");
                }
                exchange.upstream = origin.take();
                exchange.log = running.log()?;
                if !step.expect.metrics.is_empty() {
                    exchange.metrics = running.metrics().await?;
                    for (name, value) in &mut exchange.metrics {
                        *value -= before.get(name).copied().unwrap_or(0).min(*value);
                    }
                }
                let hung = exchange.hung;
                seen.exchanges.push((number, time, exchange));
                if hung {
                    break;
                }
            }
        }
        seen.cost.wall = began.elapsed();
        done(Ok(seen));
    }
    Ok(())
}

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("edgeweir-test-{process}-{number}"));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("{}: cannot be made", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An Envoy that runs; killed when dropped.
struct Running {
    process: Child,
    /// One for each case.
    listeners: Vec<SocketAddr>,
    admin: SocketAddr,
    log: PathBuf,
    read: usize,
}

impl Running {
    async fn start(
        envoy: &Path,
        workers: u32,
        cases: usize,
        folder: &Path,
        config: &Value,
    ) -> anyhow::Result<Self> {
        let (file, log, admin) = (
            folder.join("envoy.json"),
            folder.join("envoy.log"),
            folder.join("admin"),
        );
        std::fs::write(&file, config.to_string())
            .with_context(|| format!("{}: cannot be written", file.display()))?;
        let output = std::fs::File::create(&log)?;
        let process = Command::new(envoy)
            .args(["--use-dynamic-base-id", "--log-level", "warning"])
            .args(["--component-log-level", "wasm:trace"])
            .args(["--concurrency", &workers.to_string()])
            .arg("--config-path")
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&admin)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{}: cannot be started", envoy.display()))?;
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut running = Self {
            process,
            listeners: Vec::new(),
            admin: unknown,
            log,
            read: 0,
        };
        let until = Instant::now() + START;
        loop {
            if let Some(status) = running.process.try_wait()? {
                bail!("Envoy ended with {status}: {}", running.tail());
            }
            let address = std::fs::read_to_string(&admin).ok();
            if let Some(address) = address.and_then(|text| text.trim().parse().ok()) {
                running.admin = address;
                if let Some(listeners) = running.find_listeners(cases).await {
                    running.listeners = listeners;
                    return Ok(running);
                }
            }
            if Instant::now() > until {
                bail!("Envoy is not ready after {START:?}: {}", running.tail());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    async fn find_listeners(&self, cases: usize) -> Option<Vec<SocketAddr>> {
        self.get("/ready").await.ok()?;
        let listeners = self.get("/listeners?format=json").await.ok()?;
        let listeners: Value = serde_json::from_str(&listeners).ok()?;
        let all = listeners["listener_statuses"].as_array()?;
        (0..cases)
            .map(|case| {
                let name = case.to_string();
                let listener = all.iter().find(|it| it["name"] == name.as_str())?;
                let address = &listener["local_address"]["socket_address"];
                let port = u16::try_from(address["port_value"].as_u64()?).ok()?;
                Some(SocketAddr::from(([127, 0, 0, 1], port)))
            })
            .collect()
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let stream = TcpStream::connect(self.admin).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driving = tokio::spawn(connection);
        let request = http::Request::get(path)
            .header("host", "admin")
            .body(edgeweir_host_chain::empty())?;
        let response = sender.send_request(request).await?;
        let good = response.status().is_success();
        let body = response.into_body().collect().await?.to_bytes();
        driving.abort();
        if !good {
            bail!("{path} is not answered");
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// The counters of modules; Envoy sums them over its workers.
    async fn metrics(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let stats = self.get("/stats?filter=wasmcustom").await?;
        let lines = stats.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix("wasmcustom.")?.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(lines.collect())
    }

    /// The modules' log lines since the last call.
    fn log(&mut self) -> anyhow::Result<Vec<(Option<u8>, String)>> {
        let text = std::fs::read(&self.log)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n');
        let whole = whole.map_or(0, |at| at + 1);
        let fresh = String::from_utf8_lossy(text.get(self.read..whole).unwrap_or_default());
        let lines = fresh.lines().filter_map(logged).collect();
        self.read = whole;
        Ok(lines)
    }

    /// The end of the log, for errors.
    fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let mut tail = String::new();
        for line in lines.iter().skip(lines.len().saturating_sub(6)) {
            let _ = write!(
                tail,
                "\n        {}",
                line.chars().take(400).collect::<String>()
            );
        }
        tail
    }
}

/// `[2026-01-01 00:00:00.000][1][warning][wasm] [source/…:1148] wasm log cache root vm: text`.
fn logged(line: &str) -> Option<(Option<u8>, String)> {
    let (head, text) = line.split_once(" wasm log")?;
    let level = [
        ("[trace]", 0),
        ("[debug]", 1),
        ("[info]", 2),
        ("[warning]", 3),
        ("[error]", 4),
        ("[critical]", 5),
    ];
    let level = level.iter().find(|(name, _)| head.contains(name))?.1;
    let text = text.split_once(": ").map_or(text, |(_, text)| text);
    Some((Some(level), text.to_owned()))
}

#[derive(Clone)]
enum Serving {
    Origin(Origin),
    Cluster(std::sync::Arc<std::sync::Mutex<Vec<Answer>>>),
}

impl Serving {
    fn answer(&self) -> (Answer, usize) {
        match self {
            Self::Origin(origin) => origin.now(),
            Self::Cluster(answers) => {
                let mut answers = answers
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                let answer = match answers.len() {
                    0 | 1 => answers.first().cloned(),
                    _ => Some(answers.remove(0)),
                };
                (answer.unwrap_or(Answer::Closed), 0)
            }
        }
    }
}

/// Serves answers of a case on a port of its own, as long as the runtime lives.
async fn serve(serving: Serving) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let serving = serving.clone();
            tokio::spawn(async move {
                let service =
                    hyper::service::service_fn(|request| handle(serving.clone(), request));
                // An error is a connection the case cuts off.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(address)
}

async fn handle(
    serving: Serving,
    request: http::Request<hyper::body::Incoming>,
) -> Result<edgeweir_host_chain::Response, edgeweir_host_chain::Error> {
    let request = request.map(incoming);
    let (answer, split) = serving.answer();
    let to_head = request.method() == http::Method::HEAD;
    let kept = match &answer {
        Answer::Refused => return Err("the case refuses the connection".into()),
        answer => origin::received(request, answer).await?,
    };
    if let Serving::Origin(origin) = &serving {
        origin.keep(kept);
    }
    match &answer {
        Answer::Response(scripted) => {
            tokio::time::sleep(scripted.delay).await;
            Ok(origin::response(scripted, split, to_head, APART))
        }
        Answer::Silent => std::future::pending().await,
        Answer::Refused | Answer::Closed => Err("the case closes the connection".into()),
    }
}

fn incoming(body: hyper::body::Incoming) -> edgeweir_host_chain::Body {
    body.map_err(edgeweir_host_chain::Error::from)
        .boxed_unsync()
}

async fn ask(
    listener: SocketAddr,
    case: &Case,
    step: &Step,
    split: usize,
    exchange: &mut Exchange,
) {
    match exchanged(listener, case, step, split).await {
        Ok(response) => exchange.response = Some(response),
        Err(error) => exchange.error = Some(format!("{error:#}")),
    }
}

async fn exchanged(
    listener: SocketAddr,
    case: &Case,
    step: &Step,
    split: usize,
) -> anyhow::Result<seen::Response> {
    let stream = TcpStream::connect(listener).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let mut request = super::local::request(case, step, split);
    let content = body::body(&step.request.body, split, APART);
    *request.body_mut() = content;
    let (parts, content) = sender.send_request(request).await?.into_parts();
    let mut response = seen::Response {
        status: parts.status.as_u16(),
        message: seen::Message {
            fields: body::fields(&parts.headers),
            ..seen::Message::default()
        },
        cut: None,
    };
    response.cut = body::read(incoming(content), &mut response.message).await;
    driving.abort();
    Ok(response)
}

/// The address of a case's origin, and those of its clusters.
type Part<'a> = (&'a Case, SocketAddr, &'a BTreeMap<String, SocketAddr>);

fn bootstrap<'a>(parts: impl Iterator<Item = Part<'a>>) -> Value {
    let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
    for (number, (case, origin, others)) in parts.enumerate() {
        let upstream = format!("origin-{number}");
        listeners.push(listener(number, case, &upstream));
        clusters.push(cluster(&upstream, origin));
        clusters.extend(others.iter().map(|(name, at)| cluster(name, *at)));
    }
    json!({
        "admin": { "address": socket(SocketAddr::from(([127, 0, 0, 1], 0))) },
        "static_resources": { "listeners": listeners, "clusters": clusters }
    })
}

fn listener(number: usize, case: &Case, upstream: &str) -> Value {
    let typed = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let text = |text: &str| json!({ "@type": "type.googleapis.com/google.protobuf.StringValue", "value": text });
    let filters = case.filters.iter().enumerate().map(|(at, filter)| {
        json!({
            "name": format!("{}-{at}", filter.name),
            "typed_config": {
                "@type": typed("filters.http.wasm.v3.Wasm"),
                "config": {
                    "name": filter.name,
                    "root_id": filter.root_id,
                    "allow_on_headers_stop_iteration": filter.allow_on_headers_stop_iteration,
                    "configuration": text(&filter.config),
                    "vm_config": {
                        // What cases share is the compiled module alone.
                        "vm_id": format!("{}-{number}", filter.name),
                        "runtime": "envoy.wasm.runtime.v8",
                        "environment_variables": { "key_values": filter.environment },
                        "configuration": text(&filter.vm_config),
                        "code": { "local": { "filename": absolute(&filter.module) } }
                    }
                }
            }
        })
    });
    let mut filters: Vec<Value> = filters.collect();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": typed("filters.http.router.v3.Router") }
    }));
    let timeout = format!("{}s", origin::TIMEOUT.as_secs());
    let manager = json!({
        "@type": typed("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "case",
        "use_remote_address": true,
        "http_protocol_options": { "allow_custom_methods": true },
        "route_config": { "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": upstream, "timeout": timeout } }]
        }] },
        "http_filters": filters
    });
    json!({
        "name": number.to_string(),
        "address": socket(SocketAddr::from(([127, 0, 0, 1], 0))),
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager
        }] }]
    })
}

fn cluster(name: &str, address: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http_protocol_options": { "allow_custom_methods": true } }
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(address) } }] }]
        }
    })
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}
