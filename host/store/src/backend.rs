//! What every back-end does, and why one could not.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::embedded::Embedded;
use crate::limit::Standing;
use crate::news::{Mark, News};
use crate::pattern::What;
use crate::redis::Redis;
use crate::shelf::{Deleted, Space, Written};
use crate::wire::{Ask, Condition};

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Put {
    /// How long it is kept.
    pub ttl: Duration,
    /// What prefixes and patterns are held against; empty: the key.
    pub uri: Vec<u8>,
    /// Its groups.
    pub groups: Vec<String>,
    /// The bytes.
    pub value: Bytes,
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its version.
    pub version: u64,
    /// How long it is still kept.
    pub left: Duration,
    /// The bytes.
    pub value: Bytes,
}

/// Decisions, and the time they were made at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decided {
    /// Nanoseconds since the epoch, by the clock that decided.
    pub now: u64,
    /// In the order asked.
    pub decisions: Vec<Vec<Standing>>,
}

/// Why a back-end did not do it. Each has a name, a status and one treatment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No room, and nothing that may be evicted.
    Full,
    /// What was changed could not be written down: it may be lost with the process.
    Disk(String),
    /// No connection to Redis.
    Unreachable(String),
    /// Redis did not answer in time; what was asked may still happen.
    TimedOut,
    /// Redis refused the password or the permission.
    Denied(String),
    /// Redis is at its `maxmemory` and evicts nothing.
    OutOfMemory,
    /// Redis is loading its data, read-only, or a part of its cluster is down.
    NotReady(String),
    /// Redis answered with another error.
    Broken(String),
    /// Redis failed just now: not asked again for a moment.
    BreakerOpen,
}

impl Failure {
    /// The name in problems, logs and statistics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Full => "store-full",
            Self::Disk(_) => "disk-failed",
            Self::Unreachable(_) => "redis-unreachable",
            Self::TimedOut => "redis-timed-out",
            Self::Denied(_) => "redis-denied",
            Self::OutOfMemory => "redis-out-of-memory",
            Self::NotReady(_) => "redis-not-ready",
            Self::Broken(_) => "redis-error",
            Self::BreakerOpen => "redis-breaker-open",
        }
    }

    /// The status it is answered with.
    pub fn status(&self) -> u16 {
        match self {
            Self::Full | Self::OutOfMemory => 507,
            Self::Disk(_) => 500,
            Self::Unreachable(_) | Self::NotReady(_) | Self::BreakerOpen => 503,
            Self::TimedOut => 504,
            Self::Denied(_) | Self::Broken(_) => 502,
        }
    }

    /// What else is known.
    pub fn detail(&self) -> String {
        match self {
            Self::Full => "no room, and nothing that may be evicted: raise --max-keys or --max-mib".to_owned(),
            Self::Disk(why) => format!("the change could not be written down: {why}"),
            Self::Unreachable(why) | Self::Denied(why) | Self::NotReady(why) | Self::Broken(why) => why.clone(),
            Self::TimedOut => "Redis did not answer in time; what was asked may still happen".to_owned(),
            Self::OutOfMemory => "Redis is at its maxmemory and evicts nothing: raise it, or keep cached responses in a Redis of their own".to_owned(),
            Self::BreakerOpen => "Redis failed several times in a row and is asked again in a moment".to_owned(),
        }
    }
}

/// Where things are kept.
pub enum Backend {
    /// In this process, with or without a file.
    Embedded(Embedded),
    /// In Redis or Valkey.
    Redis(Box<Redis>),
}

impl Backend {
    /// Reads a key.
    pub async fn get(&self, space: Space, name: &[u8]) -> Result<Option<Found>, Failure> {
        match self {
            Self::Embedded(embedded) => Ok(embedded.get(space, name)),
            Self::Redis(redis) => redis.get(space, name).await,
        }
    }

    /// Writes a key when the condition holds.
    pub async fn put(
        &self,
        space: Space,
        name: &[u8],
        put: Put,
        condition: Condition,
    ) -> Result<Written, Failure> {
        let written = match self {
            Self::Embedded(embedded) => embedded.put(space, name, put, condition).await,
            Self::Redis(redis) => redis.put(space, name, put, condition).await,
        }?;
        match written {
            Written::Full => Err(Failure::Full),
            written => Ok(written),
        }
    }

    /// Deletes a key when the condition holds.
    pub async fn delete(
        &self,
        space: Space,
        name: &[u8],
        condition: Condition,
    ) -> Result<Deleted, Failure> {
        match self {
            Self::Embedded(embedded) => embedded.delete(space, name, condition).await,
            Self::Redis(redis) => redis.delete(space, name, condition).await,
        }
    }

    /// Forgets what is named; nothing of it is found after this returns.
    pub async fn invalidate(&self, space: Space, what: &What) -> Result<(), Failure> {
        match self {
            Self::Embedded(embedded) => embedded.invalidate(space, what).await,
            Self::Redis(redis) => redis.invalidate(space, what).await,
        }
    }

    /// Adds a line to what edges tell one another.
    pub async fn tell(&self, line: &str) -> Result<(), Failure> {
        match self {
            Self::Embedded(embedded) => {
                embedded.board().tell(line);
                Ok(())
            }
            Self::Redis(redis) => redis.tell(line).await,
        }
    }

    /// What edges told one another since a mark.
    pub async fn since(&self, mark: &Mark) -> Result<News, Failure> {
        match self {
            Self::Embedded(embedded) => Ok(embedded.board().since(mark)),
            Self::Redis(redis) => redis.since(mark).await,
        }
    }

    /// Decides; each decision is atomic in itself.
    pub async fn limit(&self, asks: &[Ask]) -> Result<Decided, Failure> {
        match self {
            Self::Embedded(embedded) => embedded.limit(asks).await,
            Self::Redis(redis) => redis.limit(asks).await,
        }
    }

    /// Whether it works now.
    pub async fn health(&self) -> Result<(), Failure> {
        match self {
            Self::Embedded(embedded) => embedded.health(),
            Self::Redis(redis) => redis.health().await,
        }
    }

    /// What is known of it, for `/stats`.
    pub fn stats(&self) -> Value {
        match self {
            Self::Embedded(embedded) => embedded.stats(),
            Self::Redis(redis) => redis.stats(),
        }
    }

    /// What it is, in a line.
    pub fn describe(&self) -> String {
        match self {
            Self::Embedded(embedded) => embedded.describe(),
            Self::Redis(redis) => redis.describe(),
        }
    }
}
