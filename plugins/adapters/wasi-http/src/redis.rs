//! The store's protocol over `spin:redis`, as far as the cache's third tier and global limits speak it: a store named
//! `redis://…` is a Redis or Valkey itself.
//!
//! It speaks the scripts of `edgeweir store` and names keys as that does (prefix `edgeweir`, one part), so components on Spin and
//! Envoys with a store over the same Redis share what is kept. Every request is raced against its time-out; a connection that
//! failed is opened anew.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::{Failed, Fetch, Fetched, Reply};
use edgeweir_store_protocol::scripts::{ALIVE, BAN, GET, LIMIT, PUT, SINCE, TELL};
use edgeweir_store_protocol::{decision, wire};

use crate::bindings::spin::redis::redis::{Connection, Error, RedisParameter, RedisResult};
use crate::time;

/// What keys begin with.
const START: &str = "{edgeweir:0}:";
/// Lines of news that are kept, and in one answer: as the store has them.
const NEWS_KEPT: i64 = 4096;
const NEWS_AT_ONCE: i64 = 256;
/// Prefixes and patterns that are remembered.
const MOST_BANS: i64 = 1024;
/// Addresses with a connection at once.
const ADDRESSES: usize = 4;

/// Whether a target is a Redis.
pub(crate) fn is_redis(to: &str) -> bool {
    to.starts_with("redis://") || to.starts_with("rediss://")
}

/// Connections of an instance.
#[derive(Default)]
pub(crate) struct Redis(RefCell<HashMap<String, Rc<Connection>>>);

/// Why a command was not done.
enum Refused {
    /// Redis is out of memory: 507.
    Full,
    /// It wants another password: 401.
    Denied,
    /// Anything else.
    Failed(Failed),
}

impl Redis {
    /// Does what a request to a store asks for; the answer is what the store would say.
    pub(crate) async fn fetch(&self, address: &str, fetch: Fetch) -> Result<Fetched, Failed> {
        let done = time::within(fetch.timeout, self.perform(address, &fetch)).await;
        match done {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(Refused::Full)) => Ok(says(507)),
            Some(Err(Refused::Denied)) => Ok(says(401)),
            Some(Err(Refused::Failed(failed))) => Err(failed),
            None => {
                // It may wait for an answer that never comes.
                self.0.borrow_mut().remove(address);
                Err(Failed::TimedOut)
            }
        }
    }

    async fn perform(&self, address: &str, fetch: &Fetch) -> Result<Fetched, Refused> {
        let path = String::from_utf8_lossy(&fetch.head.path).into_owned();
        let at = At {
            redis: self,
            address,
        };
        if path == "/limit" && &fetch.head.method[..] == b"POST" {
            return at.limit(&fetch.body).await;
        }
        let Some(rest) = path.strip_prefix("/cache/") else {
            return Err(Refused::Failed(Failed::Unsupported));
        };
        let lease = fetch.head.fields.text("edgeweir-lease");
        match (&fetch.head.method[..], rest.split_once('?')) {
            (b"GET", Some(("news", query))) => at.news(query).await,
            (b"GET", None) => at.get(rest, lease).await,
            (b"PUT", None) => at.put(rest, fetch, lease.is_some()).await,
            (b"DELETE", None) if lease.is_some() => at.release(rest).await,
            (b"POST", Some(("invalidate", query))) => {
                at.invalidate(query).await?;
                if let Some(line) = fetch.head.fields.text("edgeweir-news") {
                    at.tell(line).await?;
                }
                Ok(says(204))
            }
            _ => Err(Refused::Failed(Failed::Unsupported)),
        }
    }

    async fn execute(
        &self,
        address: &str,
        command: &str,
        arguments: Vec<RedisParameter>,
    ) -> Result<Vec<RedisResult>, Refused> {
        let known = self.0.borrow().get(address).cloned();
        if let Some(connection) = known {
            match connection
                .execute(command.to_owned(), arguments.clone())
                .await
            {
                Err(error) if lost(&error) => drop(self.0.borrow_mut().remove(address)),
                done => return done.map_err(|error| refused(&error)),
            }
        }
        let opened = Connection::open(address.to_owned()).await;
        let connection = Rc::new(opened.map_err(|error| refused(&error))?);
        let done = connection.execute(command.to_owned(), arguments).await;
        let mut all = self.0.borrow_mut();
        if all.len() >= ADDRESSES {
            all.clear();
        }
        all.insert(address.to_owned(), connection);
        done.map_err(|error| refused(&error))
    }
}

/// One Redis.
struct At<'a> {
    redis: &'a Redis,
    address: &'a str,
}

impl At<'_> {
    async fn get(&self, name: &str, lease: Option<&str>) -> Result<Fetched, Refused> {
        let entry = key('c', name);
        let script = [ALIVE, GET].concat();
        let found = self
            .eval(&script, &[&entry, &meta('c')], vec![text(&groups_of('c'))])
            .await?;
        if let [_, _, RedisResult::Binary(value)] = &found[..] {
            return Ok(Reply::new(200, &[], Bytes::copy_from_slice(value)));
        }
        let Some(millis) = lease.and_then(|it| it.parse::<i64>().ok()) else {
            return Ok(says(404));
        };
        let arguments = vec![
            text(&groups_of('k')),
            RedisParameter::Int64(millis.max(1)),
            text("absent"),
            text(""),
            text(""),
        ];
        let script = [ALIVE, PUT].concat();
        let keys = [&lease_of(name)[..], &meta('k')];
        let done = self.eval(&script, &keys, arguments).await?;
        match done.first() {
            Some(RedisResult::Int64(0)) => Ok(says(409)),
            _ => Ok(says(404)),
        }
    }

    async fn put(&self, name: &str, fetch: &Fetch, releases: bool) -> Result<Fetched, Refused> {
        let fields = &fetch.head.fields;
        let seconds = fields.text("edgeweir-ttl").and_then(|it| it.parse().ok());
        let millis = seconds.unwrap_or(1_i64).clamp(1, 31_536_000) * 1_000;
        let uri = fields.get("edgeweir-uri").unwrap_or_default();
        let mut arguments = vec![
            text(&groups_of('c')),
            RedisParameter::Int64(millis),
            text(""),
            RedisParameter::Binary(uri.to_vec()),
            RedisParameter::Binary(fetch.body.to_vec()),
        ];
        arguments.extend(listed(fields.text("edgeweir-groups").unwrap_or("")).map(text));
        let script = [ALIVE, PUT].concat();
        self.eval(&script, &[&key('c', name), &meta('c')], arguments)
            .await?;
        if releases {
            let _ = self.release(name).await;
        }
        Ok(says(204))
    }

    /// One script for each decision; all limits of it admit, or none is charged.
    async fn limit(&self, message: &[u8]) -> Result<Fetched, Refused> {
        let Ok(asks) = wire::asks(message) else {
            return Ok(says(400));
        };
        let (mut latest, mut decisions) = (0, Vec::with_capacity(asks.len()));
        for ask in &asks {
            let name = [key('l', "").as_bytes(), &decision::limit_name(ask)].concat();
            let mut all = vec![
                text(LIMIT),
                RedisParameter::Int64(1),
                RedisParameter::Binary(name),
            ];
            let arguments = decision::arguments(ask, None);
            all.extend(arguments.iter().map(|argument| text(argument)));
            let said = self.run("EVAL", all).await?;
            let [
                RedisResult::Int64(admits),
                RedisResult::Int64(seconds),
                RedisResult::Int64(micros),
                RedisResult::Binary(kept),
            ] = &said[..]
            else {
                return Err(Refused::Failed(Failed::Unavailable));
            };
            let time = [*seconds, *micros].map(|part| u64::try_from(part).unwrap_or(0));
            let kept = String::from_utf8_lossy(kept);
            let (now, standings) =
                decision::standings(ask, *admits == 1, (time[0], time[1]), &kept);
            latest = now.max(latest);
            decisions.push(standings);
        }
        Ok(Reply::new(200, &[], wire::answer_bytes(latest, &decisions)))
    }

    async fn release(&self, name: &str) -> Result<Fetched, Refused> {
        self.run("UNLINK", vec![text(&lease_of(name))]).await?;
        Ok(says(204))
    }

    async fn invalidate(&self, query: &str) -> Result<(), Refused> {
        let (what, value) = query.split_once('=').unwrap_or((query, ""));
        let keys: Vec<RedisParameter> = match what {
            "names" => listed(value).map(|name| text(&key('c', name))).collect(),
            "groups" => {
                let start = groups_of('c');
                listed(value)
                    .map(|group| text(&format!("{start}{group}")))
                    .collect()
            }
            "all" => vec![text(&meta('c'))],
            "prefix" | "pattern" => {
                let mut ban = vec![if what == "prefix" { b'p' } else { b'g' }];
                ban.extend(edgeweir_filter::percent_decoded(value.as_bytes(), |_| true));
                let arguments = vec![
                    RedisParameter::Binary(ban),
                    RedisParameter::Int64(MOST_BANS),
                ];
                self.eval(BAN, &[&meta('c')], arguments).await?;
                return Ok(());
            }
            _ => return Err(Refused::Failed(Failed::Unsupported)),
        };
        if !keys.is_empty() {
            self.run("UNLINK", keys).await?;
        }
        Ok(())
    }

    async fn tell(&self, line: &str) -> Result<(), Refused> {
        let arguments = vec![text(line), RedisParameter::Int64(NEWS_KEPT), text(&fresh())];
        self.eval(TELL, &board(), arguments).await.map(drop)
    }

    async fn news(&self, query: &str) -> Result<Fetched, Refused> {
        let mark = query.strip_prefix("since=").unwrap_or("");
        let (order, number) = mark.rsplit_once('-').unwrap_or(("", "0"));
        let arguments = vec![
            text(order),
            RedisParameter::Int64(number.parse().unwrap_or(0)),
            RedisParameter::Int64(NEWS_AT_ONCE),
            text(&fresh()),
        ];
        // Nested replies come flattened: the lines follow the three before them.
        let said = self.eval(SINCE, &board(), arguments).await?;
        let [
            RedisResult::Binary(order),
            RedisResult::Int64(number),
            RedisResult::Int64(lost),
            lines @ ..,
        ] = &said[..]
        else {
            return Err(Refused::Failed(Failed::Unavailable));
        };
        let order = String::from_utf8_lossy(order);
        let known = if *lost == 1 { "lost" } else { "known" };
        let mut out = format!("{order}-{number}\n{known}\n");
        for line in lines {
            if let RedisResult::Binary(line) = line {
                out.push_str(&String::from_utf8_lossy(line));
                out.push('\n');
            }
        }
        Ok(Reply::new(200, &[], out))
    }

    async fn eval(
        &self,
        script: &str,
        keys: &[&str],
        arguments: Vec<RedisParameter>,
    ) -> Result<Vec<RedisResult>, Refused> {
        let count = i64::try_from(keys.len()).unwrap_or(0);
        let mut all = vec![text(script), RedisParameter::Int64(count)];
        all.extend(keys.iter().copied().map(text));
        all.extend(arguments);
        self.run("EVAL", all).await
    }

    async fn run(
        &self,
        command: &str,
        arguments: Vec<RedisParameter>,
    ) -> Result<Vec<RedisResult>, Refused> {
        self.redis.execute(self.address, command, arguments).await
    }
}

fn key(space: char, name: &str) -> String {
    format!("{START}{space}:{name}")
}

fn lease_of(name: &str) -> String {
    key('k', &format!("cache-lease/{name}"))
}

fn meta(space: char) -> String {
    format!("{START}m:{space}")
}

fn groups_of(space: char) -> String {
    format!("{START}g:{space}:")
}

fn board() -> [&'static str; 2] {
    ["{edgeweir:0}:news", "{edgeweir:0}:news:end"]
}

/// A name for an order of news, should there be none.
fn fresh() -> String {
    use std::hash::BuildHasher as _;
    let hash = std::collections::hash_map::RandomState::new().hash_one(0);
    format!("{hash:016x}")
}

fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|item| !item.is_empty())
}

fn text(text: &str) -> RedisParameter {
    RedisParameter::Binary(text.as_bytes().to_vec())
}

fn says(status: u16) -> Fetched {
    Reply::new(status, &[], "")
}

/// Errors of Redis itself begin with a word in capitals; anything else is about the connection.
fn lost(error: &Error) -> bool {
    match error {
        Error::Other(why) => ![
            "OOM",
            "NOAUTH",
            "WRONGPASS",
            "NOPERM",
            "ERR",
            "MOVED",
            "READONLY",
        ]
        .iter()
        .any(|word| why.contains(word)),
        _ => false,
    }
}

fn refused(error: &Error) -> Refused {
    match error {
        Error::Other(why) if why.contains("OOM") => Refused::Full,
        Error::Other(why)
            if ["NOAUTH", "WRONGPASS", "NOPERM", "AUTH"]
                .iter()
                .any(|word| why.contains(word)) =>
        {
            Refused::Denied
        }
        Error::InvalidAddress => Refused::Failed(Failed::Unsupported),
        _ => Refused::Failed(Failed::Unavailable),
    }
}
