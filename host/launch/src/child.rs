//! The child processes.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::callbacks::{self, Hearer};
use crate::edge::Edge;
use crate::{cpu_time, envoy, get, resident, this_program, wasmtime};

/// The first start of a module on a machine compiles it.
const PATIENCE: Duration = Duration::from_secs(180);
/// How much of a child's log is shown when it ends early, bytes.
const TAIL: usize = 4_000;

/// How children are started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Worker threads; 0 leaves it to the program.
    pub workers: usize,
    /// The listener of interest; the first without one.
    pub listener: Option<String>,
    /// Envoy's program, when it is not the one [`envoy::find`] would find.
    pub envoy: Option<PathBuf>,
    /// Who is told of every callback of the listeners' modules; nobody is, and none is logged, without one.
    pub callbacks: Option<Hearer>,
}

/// A child that serves; it ends when this is dropped.
pub struct Running {
    /// The listener of interest.
    pub address: SocketAddr,
    /// Its admin pages; wasmtime has none.
    pub admin: Option<SocketAddr>,
    child: Child,
    folder: TempDir,
}

impl Running {
    /// CPU time of all its threads since its start.
    pub fn cpu(&self) -> Result<Duration> {
        cpu_time(self.child.id())
    }

    /// Its resident memory, bytes; `None` where the system does not say.
    pub fn resident(&self) -> Option<u64> {
        resident(self.child.id())
    }

    /// The file its messages go to.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The end of what it logged.
    pub fn log_tail(&self) -> String {
        tail(&self.log())
    }

    /// `/stats.json` of a host.
    pub fn stats(&self) -> Result<Value> {
        let admin = self.admin.context("it has no admin pages")?;
        let text = get(admin, "/stats.json")?;
        serde_json::from_str(&text).context("/stats.json is no JSON")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing of it is wanted any more: not its report, not its last exchanges.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a host and waits until it serves.
pub fn start_host(edge: &Edge, options: &Options) -> Result<Running> {
    // A listener that is not there is said before anything starts.
    edge.filters_of(options.listener.as_deref())?;
    let folder = folder()?;
    let file = folder.path().join("edgeweir.toml");
    fs::write(&file, edge.to_toml()?).context("writing the child's configuration")?;
    let log = folder.path().join("log");
    let kept = fs::File::create(&log)?;
    let mut command = Command::new(this_program()?);
    command
        .arg("--log")
        .arg(match options.callbacks {
            Some(_) => format!("warn,{}=trace", callbacks::HOST),
            None => "warn".to_owned(),
        })
        .arg("run")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors(options, &kept)?);
    if options.workers > 0 {
        command.env("TOKIO_WORKER_THREADS", options.workers.to_string());
    }
    let mut child = Guard(Some(command.spawn().context("starting a host")?));
    let reader = reads(child.get(), options, kept);
    let admin = admin_of(child.get(), &log, reader, edge.file())?;
    let stats: Value = serde_json::from_str(&get(admin, "/stats.json")?)?;
    let listeners = stats["listeners"].as_array().cloned().unwrap_or_default();
    let found = match &options.listener {
        None => listeners.first(),
        Some(name) => listeners
            .iter()
            .find(|listener| listener["name"] == name.as_str()),
    };
    let address = found
        .and_then(|listener| listener["address"].as_str())
        .and_then(|address| address.parse().ok())
        .context("the host does not say where it listens")?;
    Ok(Running {
        address,
        admin: Some(admin),
        child: child.take(),
        folder,
    })
}

/// Where a host that starts has its admin pages, by the line it prints.
fn admin_of(
    child: &mut Child,
    log: &Path,
    reader: Option<JoinHandle<()>>,
    file: &Path,
) -> Result<SocketAddr> {
    let stdout = child.stdout.take().context("the child's output")?;
    let (said, hears) = mpsc::channel();
    // Reads to the end, so that the child never waits for a reader.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if line.starts_with("dashboard") {
                let address = line
                    .split_whitespace()
                    .find_map(|word| word.strip_prefix("http://"))
                    .and_then(|word| word.trim_end_matches('/').parse::<SocketAddr>().ok());
                let _ = said.send(address);
            }
        }
    });
    match hears.recv_timeout(PATIENCE) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => bail!("the host prints no address of its admin pages"),
        Err(mpsc::RecvTimeoutError::Timeout) => bail!(
            "it does not serve after {PATIENCE:?}; its log: {}",
            tail(log)
        ),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let status = child.wait()?;
            read_whole(reader);
            bail!(
                "{}: the host ended with {status}: {}",
                file.display(),
                tail(log).trim()
            )
        }
    }
}

/// Starts an Envoy with the filters of a configuration and waits until it serves.
///
/// Envoy asks the kernel to be killed with the thread that started it: call this from one that lives on.
pub fn start_envoy(edge: &Edge, options: &Options) -> Result<Running> {
    let program = envoy::find(options.envoy.as_deref())?;
    let mut bootstrap = envoy::bootstrap(edge, options.listener.as_deref())?;
    let apart = options.callbacks.is_some() && envoy::tells_contexts_apart(&mut bootstrap);
    let folder = folder()?;
    let config = folder.path().join("envoy.json");
    let admin_file = folder.path().join("admin");
    let log = folder.path().join("log");
    fs::write(&config, bootstrap.to_string()).context("writing the bootstrap")?;
    let kept = fs::File::create(&log)?;
    let mut command = Command::new(&program);
    command
        .args(["--use-dynamic-base-id", "--log-level", "warning"])
        .args(["--concurrency", &options.workers.max(1).to_string()])
        .arg("--config-path")
        .arg(&config)
        .arg("--admin-address-path")
        .arg(&admin_file)
        .stdin(Stdio::null())
        .stdout(kept.try_clone()?)
        .stderr(errors(options, &kept)?);
    if options.callbacks.is_some() {
        command.args(["--component-log-level", callbacks::ENVOY]);
    }
    let child = command
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let mut child = Guard(Some(child));
    let reader = reads(child.get(), options, kept);
    let (admin, address) = wait("Envoy", &mut child, &log, reader, || {
        serving(&admin_file, envoy::MAIN)
    })?;
    if apart {
        let (_, address) =
            serving(&admin_file, envoy::APART).context("Envoy does not say where it listens")?;
        refused(address)?;
    }
    Ok(Running {
        address,
        admin: Some(admin),
        child: child.take(),
        folder,
    })
}

/// Starts a `wasmtime serve` with the components of a configuration and waits until it serves.
pub fn start_wasmtime(edge: &Edge, options: &Options) -> Result<Running> {
    let program = wasmtime::find()?;
    let served = wasmtime::composed(edge, options.listener.as_deref())?;
    let folder = folder()?;
    let component = folder.path().join("composed.wasm");
    let log = folder.path().join("log");
    fs::write(&component, served.wasm).context("writing the component")?;
    let out = fs::File::create(&log)?;
    let mut command = Command::new(&program);
    command
        .args(["serve", "--addr", "127.0.0.1:0"])
        .args(["-Scli", "-Sp3", "-Wcomponent-model-async"])
        .args(
            served
                .environment
                .iter()
                .map(|(name, value)| format!("--env={name}={value}")),
        )
        .arg(&component)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out);
    if options.workers > 0 {
        command.env("TOKIO_WORKER_THREADS", options.workers.to_string());
    }
    let mut child = Guard(Some(
        command
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?,
    ));
    let address = wait("wasmtime", &mut child, &log, None, || {
        wasmtime::address_in(&fs::read_to_string(&log).ok()?)
    })?;
    Ok(Running {
        address,
        admin: None,
        child: child.take(),
        folder,
    })
}

/// Asks until there is an answer, the child ends (then its log is read whole) or patience does.
fn wait<T>(
    name: &str,
    child: &mut Guard,
    log: &Path,
    reader: Option<JoinHandle<()>>,
    mut ready: impl FnMut() -> Option<T>,
) -> Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.get().try_wait()? {
            read_whole(reader);
            bail!("{name} ended with {status}: {}", tail(log));
        }
        if let Some(found) = ready() {
            return Ok(found);
        }
        if Instant::now() > until {
            bail!(
                "{name} does not serve after {PATIENCE:?}; its log: {}",
                tail(log)
            );
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// The admin address and a listener of an Envoy, once it is live.
fn serving(admin: &Path, listener: &str) -> Option<(SocketAddr, SocketAddr)> {
    let admin: SocketAddr = fs::read_to_string(admin).ok()?.trim().parse().ok()?;
    get(admin, "/ready").ok()?;
    let listeners: Value =
        serde_json::from_str(&get(admin, "/listeners?format=json").ok()?).ok()?;
    let all = listeners["listener_statuses"].as_array()?;
    let found = all.iter().find(|status| status["name"] == listener)?;
    let address = &found["local_address"]["socket_address"];
    let port = u16::try_from(address["port_value"].as_u64()?).ok()?;
    Some((admin, SocketAddr::from(([127, 0, 0, 1], port))))
}

/// A request without Host, which Envoy refuses before any filter sees it: it only makes the contexts, and ends them.
fn refused(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).context("connecting to Envoy")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n")?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Where a child's errors go: to its log, or first to whom is told of callbacks.
fn errors(options: &Options, kept: &fs::File) -> Result<Stdio> {
    Ok(match options.callbacks {
        Some(_) => Stdio::piped(),
        None => kept.try_clone()?.into(),
    })
}

/// Reads a child's errors to their end: callbacks are told, the rest goes to its log.
fn reads(child: &mut Child, options: &Options, mut kept: fs::File) -> Option<JoinHandle<()>> {
    let (hearer, errors) = (options.callbacks.clone()?, child.stderr.take()?);
    Some(std::thread::spawn(move || {
        let mut errors = BufReader::with_capacity(1 << 16, errors);
        let mut line = Vec::new();
        while errors
            .read_until(b'\n', &mut line)
            .is_ok_and(|size| size > 0)
        {
            if !hearer.takes(&String::from_utf8_lossy(&line)) {
                // A full disk costs the log, not the run.
                let _ = kept.write_all(&line);
            }
            line.clear();
        }
    }))
}

/// Waits until all that a child said before it ended is in its log.
fn read_whole(reader: Option<JoinHandle<()>>) {
    if let Some(reader) = reader {
        // It has nothing to panic about; its log would be what it is.
        let _ = reader.join();
    }
}

fn folder() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("edgeweir-")
        .tempdir()
        .context("making a temporary folder")
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let from = text.len().saturating_sub(TAIL);
    String::from_utf8_lossy(&text[from..]).into_owned()
}

/// Kills a child that was not handed on.
struct Guard(Option<Child>);

impl Guard {
    fn get(&mut self) -> &mut Child {
        self.0.as_mut().expect("it is taken once, at the end")
    }

    fn take(&mut self) -> Child {
        self.0.take().expect("it is taken once, at the end")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
