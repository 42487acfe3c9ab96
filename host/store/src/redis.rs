//! Redis or Valkey behind the store: one script per operation, so each is atomic and takes one round trip.
//!
//! Keys begin `{<prefix>:<part>}:`; what one script touches has one hash tag, so Redis Cluster keeps it on one node. With
//! several parts (a cluster) an invalidation goes to each of them; everything else to one.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::{
    Client, ErrorKind, FromRedisValue, RedisError, Script, ScriptInvocation, ServerErrorKind,
    TlsCertificates,
};
use serde_json::{Value, json};

use crate::backend::{Decided, Failure, Found, Put};
use crate::decision::{self, limit_name};
use crate::limit::Standing;
use crate::news::{self, Mark, News};
use crate::pattern::What;
use crate::scripts;
use crate::shelf::{Deleted, Space, Written};
use crate::wire::{Ask, Condition};

/// Prefixes and patterns that are remembered, each part; one more forgets everything of it.
const MOST_BANS: u32 = 1024;
/// Failures in a row that open the breaker.
const BREAKS_AT: u32 = 5;
/// How long Redis is left alone then; one request tries it afterwards.
const BREAK: Duration = Duration::from_millis(250);

/// How Redis is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `redis://[user:password@]host:port[/database]` or `redis+unix:///path`; several for a cluster.
    pub urls: Vec<String>,
    /// Redis Cluster.
    pub cluster: bool,
    /// What keys begin with.
    pub prefix: String,
    /// Hash tags that keys are spread over.
    pub parts: u32,
    /// Connections; requests are pipelined over each.
    pub connections: usize,
    /// How long an operation may take.
    pub timeout: Duration,
    /// Certificates (PEM) that a Redis with TLS may be signed by; `None` for the system's.
    pub authority: Option<Vec<u8>>,
}

/// Redis or Valkey.
pub struct Redis {
    settings: Settings,
    link: Link,
    next: AtomicUsize,
    breaker: Breaker,
    scripts: Scripts,
    failures: AtomicU64,
}

enum Link {
    Single {
        client: Box<Client>,
        connections: RwLock<Vec<ConnectionManager>>,
    },
    Cluster {
        client: Box<ClusterClient>,
        connection: tokio::sync::RwLock<Option<ClusterConnection>>,
    },
}

struct Scripts {
    get: Script,
    put: Script,
    delete: Script,
    ban: Script,
    limit: Script,
    tell: Script,
    since: Script,
}

impl Redis {
    /// Connects when first asked; a Redis that is down now may come later. Must be called within a tokio runtime.
    pub fn open(settings: Settings) -> anyhow::Result<Self> {
        let first = settings.urls.first().context("no address of Redis")?;
        if settings.urls.iter().any(|url| url.starts_with("rediss")) {
            // An error says that there is one already.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let certificates = || TlsCertificates {
            client_tls: None,
            root_cert: settings.authority.clone(),
        };
        let link = if settings.cluster {
            let mut builder = ClusterClientBuilder::new(settings.urls.clone());
            if settings.authority.is_some() {
                builder = builder.certs(certificates());
            }
            let client = builder
                .connection_timeout(settings.timeout)
                .response_timeout(settings.timeout)
                .retries(1)
                .build()
                .context("the addresses of the cluster are not understood")?;
            let connection = tokio::sync::RwLock::new(None);
            Link::Cluster {
                client: Box::new(client),
                connection,
            }
        } else {
            // The error would quote the address with its password.
            let client = match settings.authority {
                Some(_) => Client::build_with_tls(first.as_str(), certificates()),
                None => Client::open(first.as_str()),
            };
            let client = client.map_err(|error| {
                anyhow::anyhow!(
                    "the address of Redis is not understood ({}): write redis://host:port or rediss://host:port",
                    error.category()
                )
            })?;
            let connections = RwLock::new(connect(&client, &settings)?);
            Link::Single {
                client: Box::new(client),
                connections,
            }
        };
        Ok(Self {
            settings,
            link,
            next: AtomicUsize::new(0),
            breaker: Breaker::new(),
            scripts: Scripts {
                get: on_entries(scripts::GET),
                put: on_entries(scripts::PUT),
                delete: on_entries(scripts::DELETE),
                ban: Script::new(scripts::BAN),
                limit: Script::new(scripts::LIMIT),
                tell: Script::new(scripts::TELL),
                since: Script::new(scripts::SINCE),
            },
            failures: AtomicU64::new(0),
        })
    }

    /// Reads a key.
    pub async fn get(&self, space: Space, name: &[u8]) -> Result<Option<Found>, Failure> {
        let place = self.place(space, name);
        let mut call = self.scripts.get.prepare_invoke();
        call.key(&place.entry).key(&place.meta).arg(&place.groups);
        let found: Option<(u64, i64, Vec<u8>)> = self.run(&call).await?;
        Ok(found.map(|(version, left, value)| Found {
            version,
            left: Duration::from_millis(u64::try_from(left).unwrap_or(0)),
            value: Bytes::from(value),
        }))
    }

    /// Writes a key when the condition holds.
    pub async fn put(
        &self,
        space: Space,
        name: &[u8],
        put: Put,
        condition: Condition,
    ) -> Result<Written, Failure> {
        let place = self.place(space, name);
        let uri = if put.uri.is_empty() { name } else { &put.uri };
        let ttl = u64::try_from(put.ttl.as_millis()).unwrap_or(u64::MAX);
        let mut call = self.scripts.put.prepare_invoke();
        call.key(&place.entry).key(&place.meta).arg(&place.groups);
        call.arg(ttl.max(1)).arg(written(condition)).arg(uri);
        call.arg(&put.value[..]);
        for group in &put.groups {
            call.arg(group);
        }
        let (what, version): (u8, u64) = self.run(&call).await?;
        Ok(match what {
            0 => Written::Precondition,
            what => Written::Stored {
                version,
                created: what == 2,
            },
        })
    }

    /// Deletes a key when the condition holds.
    pub async fn delete(
        &self,
        space: Space,
        name: &[u8],
        condition: Condition,
    ) -> Result<Deleted, Failure> {
        let place = self.place(space, name);
        let mut call = self.scripts.delete.prepare_invoke();
        call.key(&place.entry).key(&place.meta).arg(&place.groups);
        call.arg(written(condition));
        Ok(match self.run::<u8>(&call).await? {
            0 => Deleted::Missing,
            1 => Deleted::Gone,
            _ => Deleted::Precondition,
        })
    }

    /// Forgets what is named, in every part.
    pub async fn invalidate(&self, space: Space, what: &What) -> Result<(), Failure> {
        let letter = char::from(space.letter());
        let parts = 0..self.settings.parts;
        let mut calls = Vec::new();
        match what {
            What::Names(names) => {
                for part in parts {
                    let here = names.iter().filter(|name| self.part(name) == part);
                    let keys: Vec<Vec<u8>> =
                        here.map(|name| self.place(space, name).entry).collect();
                    if !keys.is_empty() {
                        calls.push(keys);
                    }
                }
            }
            What::Groups(groups) => {
                for part in parts {
                    let start = format!("{}g:{letter}:", self.start(part));
                    let keys = groups
                        .iter()
                        .map(|group| format!("{start}{group}").into_bytes());
                    calls.push(keys.collect());
                }
            }
            What::All => calls.extend(parts.map(|part| vec![self.meta(part, letter)])),
            What::Prefix(text) | What::Pattern(text) => {
                let kind = match what {
                    What::Prefix(_) => b'p',
                    _ => b'g',
                };
                let ban = [&[kind], &text[..]].concat();
                return all(parts.map(|part| {
                    let mut call = self.scripts.ban.prepare_invoke();
                    call.key(self.meta(part, letter))
                        .arg(&ban[..])
                        .arg(MOST_BANS);
                    async move { self.run::<i64>(&call).await }
                }))
                .await;
            }
        }
        all(calls.into_iter().map(|keys| async move {
            let mut unlink = redis::cmd("UNLINK");
            unlink.arg(keys);
            self.ask::<i64>(Asked::Command(&unlink)).await
        }))
        .await
    }

    /// Decides by the clock of Redis.
    pub async fn limit(&self, asks: &[Ask]) -> Result<Decided, Failure> {
        self.limit_at(asks, None).await
    }

    /// Decides at a time (seconds and microseconds since the epoch), or by the clock of Redis.
    pub async fn limit_at(
        &self,
        asks: &[Ask],
        now: Option<(u64, u32)>,
    ) -> Result<Decided, Failure> {
        let mut decided = Decided {
            now: 0,
            decisions: Vec::with_capacity(asks.len()),
        };
        // One after the other is one round trip each: they are sent together and answered in order.
        let results = together(asks.iter().map(|ask| self.limit_one(ask, now))).await;
        for result in results {
            let (now, standings) = result?;
            decided.now = decided.now.max(now);
            decided.decisions.push(standings);
        }
        Ok(decided)
    }

    async fn limit_one(
        &self,
        ask: &Ask,
        now: Option<(u64, u32)>,
    ) -> Result<(u64, Vec<Standing>), Failure> {
        let mut call = self.scripts.limit.prepare_invoke();
        call.key(self.place(Space::Limits, &limit_name(ask)).entry);
        for argument in decision::arguments(ask, now) {
            call.arg(argument);
        }
        let (admits, seconds, micros, kept): (u8, u64, u64, String) = self.run(&call).await?;
        Ok(decision::standings(
            ask,
            admits == 1,
            (seconds, micros),
            &kept,
        ))
    }

    /// Adds a line to what edges tell one another.
    pub async fn tell(&self, line: &str) -> Result<(), Failure> {
        let mut call = self.scripts.tell.prepare_invoke();
        let [lines, end] = self.board();
        call.key(lines).key(end).arg(line).arg(news::KEPT);
        call.arg(news::fresh_order());
        self.run::<i64>(&call).await.map(drop)
    }

    /// What edges told one another since a mark.
    pub async fn since(&self, mark: &Mark) -> Result<News, Failure> {
        let mut call = self.scripts.since.prepare_invoke();
        let [lines, end] = self.board();
        call.key(lines).key(end).arg(&mark.order).arg(mark.number);
        call.arg(news::AT_ONCE).arg(news::fresh_order());
        let (order, number, lost, lines): (String, u64, u8, Vec<String>) = self.run(&call).await?;
        Ok(News {
            mark: Mark { order, number },
            lost: lost == 1,
            lines,
        })
    }

    fn board(&self) -> [String; 2] {
        let start = self.start(0);
        [format!("{start}news"), format!("{start}news:end")]
    }

    /// Whether Redis answers.
    pub async fn health(&self) -> Result<(), Failure> {
        let ping = redis::cmd("PING");
        self.ask::<String>(Asked::Command(&ping)).await.map(drop)
    }

    /// What is known without asking Redis.
    pub fn stats(&self) -> Value {
        json!({
            "backend": "redis",
            "breaker": if self.breaker.is_open() { "open" } else { "closed" },
            "failures": self.failures.load(Ordering::Relaxed),
        })
    }

    /// What it is, in a line; without passwords.
    pub fn describe(&self) -> String {
        let urls: Vec<String> = self.settings.urls.iter().map(|url| shown(url)).collect();
        format!(
            "{} {}, keys {{{}:0}}…, {} part(s), answers within {} ms; bounded by its maxmemory",
            if self.settings.cluster {
                "Redis Cluster"
            } else {
                "Redis"
            },
            urls.join(" "),
            self.settings.prefix,
            self.settings.parts,
            self.settings.timeout.as_millis()
        )
    }

    fn part(&self, name: &[u8]) -> u32 {
        let hash = name.iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        hash % self.settings.parts
    }

    fn start(&self, part: u32) -> String {
        format!("{{{}:{part}}}:", self.settings.prefix)
    }

    fn meta(&self, part: u32, letter: char) -> Vec<u8> {
        format!("{}m:{letter}", self.start(part)).into_bytes()
    }

    fn place(&self, space: Space, name: &[u8]) -> Place {
        let part = self.part(name);
        let letter = char::from(space.letter());
        let start = self.start(part);
        Place {
            entry: [format!("{start}{letter}:").as_bytes(), name].concat(),
            meta: self.meta(part, letter),
            groups: format!("{start}g:{letter}:"),
        }
    }

    async fn run<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, Failure> {
        self.ask(Asked::Script(call)).await
    }

    async fn ask<T: FromRedisValue>(&self, asked: Asked<'_, '_>) -> Result<T, Failure> {
        if !self.breaker.lets_through() {
            return Err(Failure::BreakerOpen);
        }
        // The connection and the script that has to be loaded first count too.
        let result = tokio::time::timeout(self.settings.timeout, self.send(asked)).await;
        let result = match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(named(&error)),
            Err(_) => Err(Failure::TimedOut),
        };
        match &result {
            Err(failure) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let gone = matches!(
                    failure,
                    Failure::TimedOut | Failure::Unreachable(_) | Failure::Denied(_)
                );
                if !gone {
                    self.breaker.well();
                } else if self.breaker.failed() {
                    tracing::warn!(
                        failure = failure.name(),
                        detail = failure.detail(),
                        "Redis is left alone for a moment"
                    );
                    self.reconnect().await;
                }
            }
            Ok(_) => self.breaker.well(),
        }
        result
    }

    async fn send<T: FromRedisValue>(&self, asked: Asked<'_, '_>) -> Result<T, RedisError> {
        match &self.link {
            Link::Single { connections, .. } => {
                let at = self.next.fetch_add(1, Ordering::Relaxed);
                let mut connection = {
                    let all = connections.read().unwrap_or_else(PoisonError::into_inner);
                    all[at % all.len()].clone()
                };
                asked.of(&mut connection).await
            }
            Link::Cluster { client, connection } => {
                let ready = connection.read().await.clone();
                let mut ready = match ready {
                    Some(ready) => ready,
                    None => {
                        let mut place = connection.write().await;
                        match &*place {
                            Some(ready) => ready.clone(),
                            None => place.insert(client.get_async_connection().await?).clone(),
                        }
                    }
                };
                asked.of(&mut ready).await
            }
        }
    }

    /// New connections: an old one may wait for answers that never come.
    async fn reconnect(&self) {
        match &self.link {
            Link::Single {
                client,
                connections,
            } => match connect(client, &self.settings) {
                Ok(fresh) => *connections.write().unwrap_or_else(PoisonError::into_inner) = fresh,
                Err(error) => tracing::error!(%error, "no new connection to Redis"),
            },
            Link::Cluster { connection, .. } => *connection.write().await = None,
        }
    }
}

struct Place {
    entry: Vec<u8>,
    meta: Vec<u8>,
    groups: String,
}

#[derive(Clone, Copy)]
enum Asked<'a, 'b> {
    Script(&'a ScriptInvocation<'b>),
    Command(&'a redis::Cmd),
}

impl Asked<'_, '_> {
    async fn of<T: FromRedisValue>(
        self,
        connection: &mut impl redis::aio::ConnectionLike,
    ) -> Result<T, RedisError> {
        match self {
            Self::Script(call) => call.invoke_async(connection).await,
            Self::Command(command) => command.query_async(connection).await,
        }
    }
}

/// An address without what may be a password: the user's part, and the query, which says it of a Unix socket.
fn shown(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    match (bare.split_once("://"), bare.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => bare.to_owned(),
    }
}

fn on_entries(script: &str) -> Script {
    Script::new(&[scripts::ALIVE, script].concat())
}

fn connect(client: &Client, settings: &Settings) -> anyhow::Result<Vec<ConnectionManager>> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(settings.timeout))
        .set_response_timeout(Some(settings.timeout))
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(10));
    let connections = (0..settings.connections.max(1))
        .map(|_| ConnectionManager::new_lazy_with_config(client.clone(), config.clone()));
    Ok(connections.collect::<Result<_, _>>()?)
}

fn written(condition: Condition) -> String {
    match condition {
        Condition::Any => String::new(),
        Condition::Absent => "absent".to_owned(),
        Condition::Present => "present".to_owned(),
        Condition::Version(version) => version.to_string(),
    }
}

fn named(error: &RedisError) -> Failure {
    let text = error.to_string();
    if text.contains("OOM command not allowed") || error.code() == Some("OOM") {
        return Failure::OutOfMemory;
    }
    if error.is_timeout() {
        return Failure::TimedOut;
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => {
            Failure::Denied(text)
        }
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => Failure::Unreachable(text),
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::TryAgain,
        ) => Failure::NotReady(text),
        _ => match error.code() {
            Some("NOAUTH" | "WRONGPASS") => Failure::Denied(text),
            Some("MISCONF" | "NOREPLICAS" | "BUSY") => Failure::NotReady(text),
            _ => Failure::Broken(text),
        },
    }
}

/// All of them at once, in order.
async fn together<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut ready = true;
        for (future, result) in &mut waiting {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => ready = false,
                }
            }
        }
        if ready {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    waiting
        .into_iter()
        .filter_map(|(_, result)| result)
        .collect()
}

/// All of them, or the first failure.
async fn all<T>(
    futures: impl Iterator<Item = impl Future<Output = Result<T, Failure>>>,
) -> Result<(), Failure> {
    for result in together(futures).await {
        result?;
    }
    Ok(())
}

/// Leaves Redis alone for a moment after several failures in a row; then one request tries.
struct Breaker {
    started: Instant,
    failures: AtomicU32,
    /// Milliseconds since `started`; 0: closed.
    until: AtomicU64,
}

impl Breaker {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            failures: AtomicU32::new(0),
            until: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_open(&self) -> bool {
        self.until.load(Ordering::Relaxed) != 0
    }

    fn lets_through(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        let now = self.now();
        if until == 0 {
            return true;
        }
        // Whoever moves the end is the one that tries.
        now >= until
            && self
                .until
                .compare_exchange(until, self.end(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    fn well(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.until.store(0, Ordering::Relaxed);
    }

    /// Whether it opened now, or a try failed.
    fn failed(&self) -> bool {
        let failures = self
            .failures
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        if failures >= BREAKS_AT {
            self.until.store(self.end(), Ordering::Relaxed);
        }
        failures == BREAKS_AT || (failures > BREAKS_AT && failures.is_multiple_of(64))
    }

    fn end(&self) -> u64 {
        self.now() + u64::try_from(BREAK.as_millis()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (url, want) in [
            (
                "redis://cache.example:6379/1",
                "redis://cache.example:6379/1",
            ),
            (
                "redis://user:secret@cache.example/1",
                "redis://cache.example/1",
            ),
            ("rediss://:sec@ret@cache.example", "rediss://cache.example"),
            (
                "redis+unix:///run/x.sock?db=1&pass=secret",
                "redis+unix:///run/x.sock",
            ),
            (
                "redis+unix:///run/x.sock?user=a&pass=sec@ret",
                "redis+unix:///run/x.sock",
            ),
            (
                "redis://:secret@cache.example/1?protocol=resp3#x",
                "redis://cache.example/1",
            ),
        ] {
            assert_eq!(shown(url), want);
        }
    }
}
