//! The proxies, a process each.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::instructions::Callgrind;
use super::{Keeps, Proxy, empty, others, redis};
use crate::process::{self, Helper};
use crate::workspace::{edge_dir, root, target_dir};
use crate::{envoy, tools};

/// A proxy that listens.
pub struct Running {
    /// Where.
    pub address: SocketAddr,
    process: Helper,
    /// What it needs beside it, whose time does not count.
    _beside: Option<Box<Running>>,
}

impl Running {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// CPU time of all its threads since its start, and of the processes it started.
    pub fn cpu(&self) -> Result<Duration> {
        cpu_of(self.process.id())
    }
}

fn cpu_of(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let mut all = cpu_time(&stat).with_context(|| format!("{path} has another form"))?;
    for task in fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
        // A thread may have ended since it was listed.
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            all += cpu_of(child.parse()?)?;
        }
    }
    Ok(all)
}

/// Fields 14 and 15 of `/proc/PID/stat`, in ticks of a hundredth of a second (proc(5); the kernel's USER_HZ is 100).
fn cpu_time(stat: &str) -> Option<Duration> {
    // The program's name may hold spaces and parentheses: what follows the last one is regular.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 10))
}

/// Where the files of one are.
pub fn folder(number: usize) -> Result<PathBuf> {
    let folder = target_dir().join("bench").join(number.to_string());
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// Starts one and waits until it listens; an Envoy may be one whose instructions are counted.
pub fn start(
    proxy: &Proxy,
    origin: SocketAddr,
    host: &Path,
    number: usize,
    counted: Option<&Callgrind>,
) -> Result<Running> {
    let folder = folder(number)?;
    let log = folder.join("log");
    match proxy {
        Proxy::Native(filters) => {
            let bootstrap = envoy::bootstrap(filters.clone(), origin, false);
            start_envoy(&bootstrap, &folder, &log, counted)
        }
        Proxy::Envoy(filters) => {
            let bootstrap = envoy::bootstrap(modules(filters), origin, false);
            start_envoy(&bootstrap, &folder, &log, counted)
        }
        Proxy::Empty => {
            fs::write(folder.join("empty.proxy-wasm.wasm"), empty::module())?;
            let filter = envoy::wasm("empty", "{}", &folder);
            start_envoy(
                &envoy::bootstrap(vec![filter], origin, false),
                &folder,
                &log,
                counted,
            )
        }
        Proxy::Stored(filters, keeps) => {
            let store = start_store(host, *keeps, &folder)?;
            let mut bootstrap = envoy::bootstrap(modules(filters), origin, false);
            let clusters = &mut bootstrap["static_resources"]["clusters"];
            let mut cluster = clusters[0].clone();
            cluster["name"] = "store".into();
            let assigned = &mut cluster["load_assignment"];
            assigned["cluster_name"] = "store".into();
            let endpoint = &mut assigned["endpoints"][0]["lb_endpoints"][0]["endpoint"];
            endpoint["address"]["socket_address"]["port_value"] = store.address.port().into();
            if let Some(clusters) = clusters.as_array_mut() {
                clusters.push(cluster);
            }
            let mut running = start_envoy(&bootstrap, &folder, &log, counted)?;
            running._beside = Some(Box::new(store));
            Ok(running)
        }
        Proxy::Modules(filters) => start_host(host, filters, "proxy-wasm", origin, &folder, &log),
        Proxy::Components(filters) => start_host(host, filters, "wasi-http", origin, &folder, &log),
        Proxy::Nginx(does) => others::nginx(*does, origin, &folder, &log),
        Proxy::Varnish => others::varnish(origin, &folder, &log),
        Proxy::Redis => redis::start(&folder, &log),
    }
}

fn modules(filters: &[(&'static str, Value)]) -> Vec<Value> {
    let filters = filters.iter();
    let filters = filters.map(|(name, config)| envoy::wasm(name, &config.to_string(), &edge_dir()));
    filters.collect()
}

fn start_store(host: &Path, keeps: Keeps, folder: &Path) -> Result<Running> {
    let beside = match keeps {
        Keeps::Memory => None,
        Keeps::Redis => Some(redis::start(folder, &folder.join("redis.log"))?),
    };
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(host);
    command.args(["store", "--listen", &address.to_string()]);
    match &beside {
        None => command.arg("--memory"),
        Some(redis) => command.args(["--redis", &format!("redis://{}", redis.address)]),
    };
    let log = folder.join("store.log");
    let process = spawn(command, &log)?;
    let mut running = wait(process, &log, || {
        TcpStream::connect(address).ok().map(|_| address)
    })?;
    running._beside = beside.map(Box::new);
    Ok(running)
}

fn start_envoy(
    bootstrap: &Value,
    folder: &Path,
    log: &Path,
    counted: Option<&Callgrind>,
) -> Result<Running> {
    let config = folder.join("envoy.json");
    let admin = folder.join("admin");
    // Of an earlier run.
    let _ = fs::remove_file(&admin);
    fs::write(&config, bootstrap.to_string())?;
    let mut command = Command::new(tools::envoy()?);
    command
        .args([
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
            "--log-level",
            "warning",
        ])
        .arg("--config-path")
        .arg(&config)
        .arg("--admin-address-path")
        .arg(&admin);
    if let Some(callgrind) = counted {
        command = callgrind.around(&command);
    }
    let process = spawn(command, log)?;
    wait(process, log, || envoy::listener(&admin))
}

fn start_host(
    host: &Path,
    filters: &[(&'static str, Value)],
    kind: &str,
    origin: SocketAddr,
    folder: &Path,
    log: &Path,
) -> Result<Running> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let names: Vec<String> = filters
        .iter()
        .map(|(name, _)| format!("{name:?}"))
        .collect();
    let mut config = format!(
        "[[listener]]\nname = \"main\"\nlisten = \"{address}\"\nupstream = \"origin\"\nfilters = [{}]\n\n\
         [upstream.origin]\naddress = \"{origin}\"\n",
        names.join(", ")
    );
    for (name, settings) in filters {
        let module: PathBuf = edge_dir().join(format!("{name}.{kind}.wasm"));
        config.push_str(&format!(
            "\n[filter.{name}]\nmodule = {:?}\n",
            module.display().to_string()
        ));
        if settings
            .as_object()
            .is_some_and(|members| !members.is_empty())
        {
            config.push_str(&format!("config = {}\n", inline_toml(settings)));
        }
    }
    let file = folder.join("edgeweir.toml");
    fs::write(&file, config)?;
    let mut command = Command::new(host);
    // One worker, as Envoy has.
    command
        .arg("run")
        .arg(&file)
        .env("TOKIO_WORKER_THREADS", "1");
    let process = spawn(command, log)?;
    wait(process, log, || {
        TcpStream::connect(address).ok().map(|_| address)
    })
}

/// Starts a program whose output goes to a log.
pub fn spawn(mut command: Command, log: &Path) -> Result<Helper> {
    let file = File::create(log).with_context(|| format!("making {}", log.display()))?;
    command
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    let program = command.get_program().to_owned();
    process::spawn(command).with_context(|| format!("starting {}", program.display()))
}

/// Waits until it listens.
pub fn wait(
    mut process: Helper,
    log: &Path,
    listens: impl Fn() -> Option<SocketAddr>,
) -> Result<Running> {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(status) = process.ended()? {
            let log = fs::read_to_string(log).unwrap_or_default();
            bail!("it ended with {status}: {log}");
        }
        if let Some(address) = listens() {
            return Ok(Running {
                address,
                process,
                _beside: None,
            });
        }
        if Instant::now() > until {
            bail!(
                "it does not listen after two minutes; see {}",
                log.display()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// JSON as an inline TOML value; members that are null are left out.
pub fn inline_toml(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(inline_toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .filter(|(_, value)| !value.is_null())
                // Basic strings of TOML have the escapes of JSON's.
                .map(|(name, value)| {
                    format!("{} = {}", Value::from(name.as_str()), inline_toml(value))
                })
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
        // TOML has no null.
        Value::Null => "\"\"".to_owned(),
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_after_the_name() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_time("42 (x"), None);
    }

    #[test]
    fn json_becomes_toml() {
        let value = serde_json::json!({ "a b": [1, true, { "c": "x\"\n" }], "none": null });
        assert_eq!(
            inline_toml(&value),
            r#"{ "a b" = [1, true, { "c" = "x\"\n" }] }"#
        );
    }
}
