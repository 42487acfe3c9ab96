//! A store in Redis, as Spin keeps it there: a key is a key of Redis.

use std::time::Duration;

use anyhow::Context as _;
use redis::aio::MultiplexedConnection;
use redis::{Client, RedisResult};

/// How long Redis may take to be connected to, and a store's to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// One connection, opened when it is first used and again after it has failed.
pub(crate) struct Remote {
    client: Client,
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
}

/// Sets a key to the last argument if it is as the first says, or absent where there is one argument only.
const SWAP: &str = "
local there = redis.call('GET', KEYS[1])
if #ARGV == 1 and there or #ARGV == 2 and there ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[#ARGV])
return 1";

impl Remote {
    pub(super) fn new(address: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::open(address).context("this is no address of a Redis")?,
            connection: tokio::sync::Mutex::default(),
        })
    }

    pub(super) async fn swap(
        &self,
        key: String,
        old: Option<&[u8]>,
        new: Vec<u8>,
    ) -> Result<bool, String> {
        let mut command = redis::cmd("EVAL");
        command.arg(SWAP).arg(1).arg(key);
        if let Some(old) = old {
            command.arg(old);
        }
        self.ask(command.arg(new)).await
    }

    pub(super) async fn ask<T: redis::FromRedisValue>(
        &self,
        command: &redis::Cmd,
    ) -> Result<T, String> {
        let mut connection = self.connected().await?;
        let told = command.query_async(&mut connection).await;
        told.map_err(|error: redis::RedisError| error.to_string())
            .inspect_err(|_| {
                // Whatever it was, the next one begins anew.
                if let Ok(mut kept) = self.connection.try_lock() {
                    *kept = None;
                }
            })
    }

    async fn connected(&self) -> Result<MultiplexedConnection, String> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = &*kept {
            return Ok(connection.clone());
        }
        let opened = dial(&self.client, PATIENCE).await;
        Ok(kept
            .insert(opened.map_err(|error| error.to_string())?)
            .clone())
    }
}

/// A connection that does not wait long to be made, nor longer than `patience` for an answer.
pub(crate) async fn dial(
    client: &Client,
    patience: Duration,
) -> RedisResult<MultiplexedConnection> {
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(patience));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}
