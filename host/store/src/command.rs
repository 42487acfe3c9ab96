//! The command line of `edgeweir store`.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::backend::Backend;
use crate::embedded::Embedded;
use crate::journal::Sync;
use crate::listen::{Address, Serving};
use crate::redis::{Redis, Settings};
use crate::service::{Rules, Service};
use crate::shelf::Bounds;

/// What `--help` shows at its end.
pub const HELP: &str = "Keeps what outgrows one edge: cached responses (the cache's third tier, `l3`), keys and values, \
and limits that count once for all.\n\nExamples:\n  \
  edgeweir store                                    on 127.0.0.1:7440, in ./edgeweir-store.redb\n  \
  edgeweir store --memory                           nothing outlives it\n  \
  edgeweir store --listen unix:/run/edgeweir.sock   no port, no token\n  \
  edgeweir store --listen 0.0.0.0:7440 --token-file /etc/edgeweir/token\n  \
  edgeweir store --redis redis://10.0.0.5:6379      Redis or Valkey keeps it; start as many as you like\n  \
  edgeweir store --redis redis://a:6379,redis://b:6379 --redis-cluster\n\nTry it:\n  \
  curl -X PUT -H 'edgeweir-ttl: 60' --data-binary hello http://127.0.0.1:7440/kv/greeting\n  \
  curl -i http://127.0.0.1:7440/kv/greeting\n  \
  curl http://127.0.0.1:7440/stats";

/// Options of the store.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct Store {
    /// Address and port, or unix:<path>. Off loopback a token is needed.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7440")]
    pub listen: Address,
    /// A file whose first line is the token that requests must carry (`Authorization: Bearer …`).
    /// Without it the environment variable EDGEWEIR_STORE_TOKEN counts.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Where the embedded back-end keeps everything; logs named <FILE>.log.<n> lie beside it.
    #[arg(long, value_name = "FILE", default_value = "edgeweir-store.redb", conflicts_with_all = ["memory", "redis"])]
    pub file: PathBuf,
    /// When a write is answered: `os` survives the end of the process, `disk` a power cut too.
    #[arg(long, value_enum, default_value = "os", conflicts_with_all = ["memory", "redis"])]
    pub sync: Sync,
    /// Keep everything in memory only.
    #[arg(long, conflicts_with = "redis")]
    pub memory: bool,
    /// Keys at most, all kinds together (embedded, memory).
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub max_keys: u64,
    /// Memory at most, MiB: keys, values and what keeping them costs (embedded, memory).
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub max_mib: u64,
    /// The longest anything is kept, and how long it is without a time of its own, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 2_678_400, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub max_ttl: u64,
    /// A request's body at most, KiB.
    #[arg(long, value_name = "KIB", default_value_t = 8192, value_parser = clap::value_parser!(u64).range(1..=262_144))]
    pub max_request_kib: u64,
    /// Requests at once; one more is refused with 503.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub concurrency: u64,
    /// Connections at once; one more waits.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub connections: u64,
    /// Redis or Valkey instead of a file: redis://[user:password@]host:port[/database], rediss:// with TLS. Several, separated by commas, with
    /// --redis-cluster. `env` reads the environment variable EDGEWEIR_STORE_REDIS, so that no password is in the list of
    /// processes.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub redis: Vec<String>,
    /// A file with the certificates (PEM) that a Redis with TLS (rediss://) may be signed by, instead of the system's.
    #[arg(long, value_name = "FILE", requires = "redis")]
    pub redis_ca: Option<PathBuf>,
    /// The addresses are nodes of a Redis Cluster.
    #[arg(long, requires = "redis")]
    pub redis_cluster: bool,
    /// What keys in Redis begin with; 1 to 64 of letters, digits, - _ . Stores that share it share everything.
    #[arg(long, value_name = "PREFIX", default_value = "edgeweir")]
    pub redis_prefix: String,
    /// Hash tags that keys are spread over: 1 for a single Redis, 16 for a cluster. The same for all that share a prefix.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub redis_parts: Option<u32>,
    /// Connections to Redis; requests are pipelined over each.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub redis_connections: u64,
    /// How long Redis may take, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub redis_timeout_ms: u64,
    /// How long requests in flight may take to finish at SIGTERM or SIGINT, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    pub grace_ms: u64,
}

/// Serves until SIGTERM or SIGINT.
pub fn execute(store: &Store) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    runtime.block_on(serve(store))
    // Dropping the runtime drops the back-end's last user: everything is in the file then.
}

async fn serve(store: &Store) -> anyhow::Result<()> {
    let token = token(store)?;
    guarded(&store.listen, token.as_deref())?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be watched")?;
    let rules = Rules {
        body: size(store.max_request_kib) * 1024,
        concurrency: size(store.concurrency),
        body_timeout: Duration::from_secs(10),
        ttl: Duration::from_secs(store.max_ttl),
        token,
    };
    let asked = match &rules.token {
        Some(_) => "a token is asked for",
        None => "no token",
    };
    let service = Arc::new(Service::new(backend(store)?, rules));
    let serving = Serving::start(&store.listen, size(store.connections), service.clone())
        .await
        .with_context(|| format!("cannot listen on {}", store.listen))?;
    say(&format!(
        "store {} ({asked})\nkept  {}\nbound {} KiB a request, {} requests and {} connections at once, {} s the longest\n",
        serving.address,
        service.backend().describe(),
        store.max_request_kib,
        store.concurrency,
        store.connections,
        store.max_ttl,
    ));
    if let Err(failure) = service.backend().health().await {
        // It may come later: the store answers what fails until then.
        say(&format!("warn  {}: {}\n", failure.name(), failure.detail()));
    }
    let stopped_by = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    say(&format!("{stopped_by}: finishing what is in flight\n"));
    serving.stop(Duration::from_millis(store.grace_ms)).await;
    Ok(())
}

fn backend(store: &Store) -> anyhow::Result<Backend> {
    if store.redis.is_empty() {
        let bounds = Bounds {
            keys: size(store.max_keys),
            bytes: store.max_mib.saturating_mul(1024 * 1024),
        };
        let file = (!store.memory).then_some((store.file.as_path(), store.sync));
        return Embedded::open(file, bounds).map(Backend::Embedded);
    }
    let urls = match store.redis.as_slice() {
        [only] if only == "env" => std::env::var("EDGEWEIR_STORE_REDIS")
            .context("--redis env: EDGEWEIR_STORE_REDIS is not set")?
            .split(',')
            .map(str::to_owned)
            .collect(),
        urls => urls.to_vec(),
    };
    if urls.len() > 1 && !store.redis_cluster {
        bail!(
            "--redis has {} addresses: one, or --redis-cluster",
            urls.len()
        );
    }
    let prefix = &store.redis_prefix;
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !(1..=64).contains(&prefix.len()) || !prefix.bytes().all(good) {
        bail!("--redis-prefix is {prefix:?}, must be 1 to 64 of letters, digits, - _ .");
    }
    let parts = if store.redis_cluster { 16 } else { 1 };
    let authority = store
        .redis_ca
        .as_deref()
        .map(|file| std::fs::read(file).with_context(|| format!("--redis-ca {}", file.display())));
    let authority = authority.transpose()?;
    Redis::open(Settings {
        urls,
        cluster: store.redis_cluster,
        prefix: prefix.clone(),
        parts: store.redis_parts.unwrap_or(parts),
        connections: size(store.redis_connections),
        timeout: Duration::from_millis(store.redis_timeout_ms),
        authority,
    })
    .map(|redis| Backend::Redis(Box::new(redis)))
}

/// Whoever reaches the store reads and writes everything in it.
fn guarded(listen: &Address, token: Option<&str>) -> anyhow::Result<()> {
    match listen {
        Address::Tcp(address) if !address.ip().is_loopback() && token.is_none() => bail!(
            "--listen is {address}, which other machines reach: give a token (--token-file or EDGEWEIR_STORE_TOKEN), \
             or listen on 127.0.0.1 or on unix:<path>"
        ),
        _ => Ok(()),
    }
}

fn token(store: &Store) -> anyhow::Result<Option<String>> {
    let text = match &store.token_file {
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("--token-file {} cannot be read", file.display()))?,
        None => match std::env::var("EDGEWEIR_STORE_TOKEN") {
            Ok(text) => text,
            Err(_) => return Ok(None),
        },
    };
    let token = text.lines().next().unwrap_or("").trim();
    if !(16..=512).contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!(
            "the token has {} characters, must be 16 to 512, visible ASCII: try `openssl rand -hex 32`",
            token.len()
        );
    }
    Ok(Some(token.to_owned()))
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Prints, and does not mind when nobody reads any more.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_loopback_only_with_a_token() {
        for (listen, token, good) in [
            ("127.0.0.1:1", None, true),
            ("[::1]:1", None, true),
            ("unix:/x", None, true),
            ("0.0.0.0:1", None, false),
            ("10.0.0.1:1", None, false),
            ("[::]:1", None, false),
            ("0.0.0.0:1", Some("t"), true),
        ] {
            let address: Address = listen.parse().expect("an address");
            assert_eq!(guarded(&address, token).is_ok(), good, "{listen}");
        }
    }
}
