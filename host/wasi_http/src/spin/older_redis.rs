//! `fermyon:spin/redis`, as Spin 2 and 3 have it.

use wasmtime::component::{Linker, Resource};

use super::Spin;
use super::redis::{self, Opened, command, dial};
use crate::context::Guest;

mod generated {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "older-redis",
        imports: { default: async | trappable },
        with: { "fermyon:spin/redis.connection": super::super::redis::Opened },
    });
}

use generated::fermyon::spin::redis::{self as api, Error, RedisParameter, RedisResult};

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    api::add_to_linker::<Guest, Spin>(linker, |guest| guest)
}

impl From<redis::Error> for Error {
    fn from(error: redis::Error) -> Self {
        match error {
            redis::Error::InvalidAddress => Self::InvalidAddress,
            redis::Error::TooManyConnections => Self::TooManyConnections,
            redis::Error::TypeError => Self::TypeError,
            redis::Error::Other(why) => Self::Other(why),
        }
    }
}

type Told<T> = wasmtime::Result<Result<T, Error>>;

impl Guest {
    async fn ask<T: ::redis::FromRedisValue>(
        &mut self,
        connection: &Resource<Opened>,
        call: &'static str,
        command: ::redis::Cmd,
    ) -> Told<T> {
        let connection = self.connection(connection, call)?;
        Ok(connection.ask(command).await.map_err(Error::from))
    }
}

impl api::Host for Guest {}

impl api::HostConnection for Guest {
    async fn open(&mut self, address: String) -> Told<Resource<Opened>> {
        let client = match self.redis(address) {
            Ok(client) => client,
            Err(why) => return Ok(Err(why.into())),
        };
        Ok(match dial(&client).await {
            Err(why) => Err(why.into()),
            Ok(opened) => {
                let pushed = self.table.push(opened);
                pushed.map_err(|_| Error::TooManyConnections)
            }
        })
    }

    async fn publish(
        &mut self,
        connection: Resource<Opened>,
        channel: String,
        payload: Vec<u8>,
    ) -> Told<()> {
        let command = command("PUBLISH", (channel, payload));
        let told = self.ask::<i64>(&connection, "redis.publish", command);
        Ok(told.await?.map(drop))
    }

    async fn get(&mut self, connection: Resource<Opened>, key: String) -> Told<Option<Vec<u8>>> {
        self.ask(&connection, "redis.get", command("GET", key))
            .await
    }

    async fn set(&mut self, connection: Resource<Opened>, key: String, value: Vec<u8>) -> Told<()> {
        let command = command("SET", (key, value));
        self.ask(&connection, "redis.set", command).await
    }

    async fn incr(&mut self, connection: Resource<Opened>, key: String) -> Told<i64> {
        self.ask(&connection, "redis.incr", command("INCR", key))
            .await
    }

    async fn del(&mut self, connection: Resource<Opened>, keys: Vec<String>) -> Told<u32> {
        self.ask(&connection, "redis.del", command("DEL", keys))
            .await
    }

    async fn sadd(
        &mut self,
        connection: Resource<Opened>,
        key: String,
        values: Vec<String>,
    ) -> Told<u32> {
        let command = command("SADD", (key, values));
        self.ask(&connection, "redis.sadd", command).await
    }

    async fn smembers(&mut self, connection: Resource<Opened>, key: String) -> Told<Vec<String>> {
        let command = command("SMEMBERS", key);
        self.ask(&connection, "redis.smembers", command).await
    }

    async fn srem(
        &mut self,
        connection: Resource<Opened>,
        key: String,
        values: Vec<String>,
    ) -> Told<u32> {
        let command = command("SREM", (key, values));
        self.ask(&connection, "redis.srem", command).await
    }

    async fn execute(
        &mut self,
        connection: Resource<Opened>,
        name: String,
        arguments: Vec<RedisParameter>,
    ) -> Told<Vec<RedisResult>> {
        let connection = self.connection(&connection, "redis.execute")?;
        let arguments = arguments.into_iter().map(|argument| match argument {
            RedisParameter::Int64(number) => redis::RedisParameter::Int64(number),
            RedisParameter::Binary(bytes) => redis::RedisParameter::Binary(bytes),
        });
        let told = connection.execute(name, arguments.collect()).await;
        let results = told.map(|results| {
            let results = results.into_iter().map(|result| match result {
                redis::RedisResult::Nil => RedisResult::Nil,
                redis::RedisResult::Status(text) => RedisResult::Status(text),
                redis::RedisResult::Int64(number) => RedisResult::Int64(number),
                redis::RedisResult::Binary(bytes) => RedisResult::Binary(bytes),
            });
            results.collect()
        });
        Ok(results.map_err(Error::from))
    }

    async fn drop(&mut self, connection: Resource<Opened>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}
