//! `spin:redis`, as Spin offers it: connections to the Redis that a plugin may reach.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionAddr, FromRedisValue, RedisError, ToRedisArgs, Value};
use wasmtime::component::{Access, Accessor, HasData, Linker, Resource};

use crate::context::Guest;

mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package edgeweir:host;
            world redis {
                import spin:redis/redis@3.0.0;
            }
        ",
        world: "edgeweir:host/redis",
        imports: { default: store | trappable },
        with: { "spin:redis/redis.connection": super::Opened },
    });
}

use generated::spin::redis::redis::{self as api, Error, RedisParameter, RedisResult};

/// How long connecting and an answer may take; a guest that wants less races it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection a guest has opened.
pub struct Opened(MultiplexedConnection);

struct Spin;

impl HasData for Spin {
    type Data<'a> = &'a mut Guest;
}

pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    api::add_to_linker::<Guest, Spin>(linker, |guest| guest)
}

type Told<T> = wasmtime::Result<Result<T, Error>>;

/// Counts the call and asks.
async fn ask<T: FromRedisValue>(
    accessor: &Accessor<Guest, Spin>,
    connection: &Resource<Opened>,
    call: &'static str,
    command: redis::Cmd,
) -> Told<T> {
    let mut connection = accessor.with(|mut access| {
        let guest = access.get();
        guest.count(call);
        wasmtime::error::Ok(guest.table.get(connection)?.0.clone())
    })?;
    Ok(command.query_async(&mut connection).await.map_err(failed))
}

fn failed(error: RedisError) -> Error {
    match error.kind() {
        redis::ErrorKind::UnexpectedReturnType => Error::TypeError,
        _ => Error::Other(error.to_string()),
    }
}

fn command<A: ToRedisArgs>(name: &str, arguments: A) -> redis::Cmd {
    let mut command = redis::cmd(name);
    command.arg(arguments);
    command
}

impl api::Host for Guest {}

impl api::HostConnection for Guest {}

impl api::HostConnectionWithStore<Guest> for Spin {
    async fn open(accessor: &Accessor<Guest, Self>, address: String) -> Told<Resource<Opened>> {
        let Ok(client) = Client::open(address) else {
            return Ok(Err(Error::InvalidAddress));
        };
        let (allowed, staged) = accessor.with(|mut access| {
            let guest = access.get();
            guest.count("redis.open");
            let allowed = match client.get_connection_info().addr() {
                ConnectionAddr::Tcp(host, port) => {
                    let all = &guest.loaded.plugin.allowed_outbound;
                    all.iter().any(|it| it.allows("redis", host, Some(*port)))
                }
                _ => false,
            };
            (allowed, guest.loaded.world.clusters.is_some())
        });
        if !allowed {
            // Where the network is somebody else's, nobody has to be told.
            if !staged {
                tracing::warn!("a connection to Redis denied: not in allowed_outbound");
            }
            return Ok(Err(Error::InvalidAddress));
        }
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let opened = client
            .get_multiplexed_async_connection_with_config(&config)
            .await;
        match opened {
            Err(error) => Ok(Err(failed(error))),
            Ok(connection) => accessor.with(|mut access| {
                let pushed = access.get().table.push(Opened(connection));
                Ok(pushed.map_err(|_| Error::TooManyConnections))
            }),
        }
    }

    async fn publish(
        accessor: &Accessor<Guest, Self>,
        connection: Resource<Opened>,
        channel: String,
        payload: Vec<u8>,
    ) -> Told<()> {
        let command = command("PUBLISH", (channel, payload));
        let told = ask::<i64>(accessor, &connection, "redis.publish", command).await?;
        Ok(told.map(drop))
    }

    async fn get(
        accessor: &Accessor<Guest, Self>,
        connection: Resource<Opened>,
        key: String,
    ) -> Told<Option<Vec<u8>>> {
        ask(accessor, &connection, "redis.get", command("GET", key)).await
    }

    async fn set(
        accessor: &Accessor<Guest, Self>,
        connection: Resource<Opened>,
        key: String,
        value: Vec<u8>,
    ) -> Told<()> {
        let command = command("SET", (key, value));
        ask(accessor, &connection, "redis.set", command).await
    }

    async fn incr(
        accessor: &Accessor<Guest, Self>,
        connection: Resource<Opened>,
        key: String,
    ) -> Told<i64> {
        ask(accessor, &connection, "redis.incr", command("INCR", key)).await
    }

    async fn del(
        accessor: &Accessor<Guest, Self>,
        connection: Resource<Opened>,
        keys: Vec<String>,
    ) -> Told<u32> {
        ask(accessor, &connection, "redis.del", command("DEL", keys)).await
    }

    async fn sadd(
        accessor: &Accessor<Guest, Self>,
        connection: Resource<Opened>,
        key: String,
        values: Vec<String>,
    ) -> Told<u32> {
        let command = command("SADD", (key, values));
        ask(accessor, &connection, "redis.sadd", command).await
    }

    async fn smembers(
        accessor: &Accessor<Guest, Self>,
        connection: Resource<Opened>,
        key: String,
    ) -> Told<Vec<String>> {
        let command = command("SMEMBERS", key);
        ask(accessor, &connection, "redis.smembers", command).await
    }

    async fn srem(
        accessor: &Accessor<Guest, Self>,
        connection: Resource<Opened>,
        key: String,
        values: Vec<String>,
    ) -> Told<u32> {
        let command = command("SREM", (key, values));
        ask(accessor, &connection, "redis.srem", command).await
    }

    async fn execute(
        accessor: &Accessor<Guest, Self>,
        connection: Resource<Opened>,
        name: String,
        arguments: Vec<RedisParameter>,
    ) -> Told<Vec<RedisResult>> {
        let mut command = redis::cmd(&name);
        for argument in arguments {
            match argument {
                RedisParameter::Int64(number) => command.arg(number),
                RedisParameter::Binary(bytes) => command.arg(bytes),
            };
        }
        let told = ask::<Value>(accessor, &connection, "redis.execute", command).await?;
        Ok(told.and_then(|value| {
            let mut flat = Vec::new();
            flatten(value, &mut flat)?;
            Ok(flat)
        }))
    }

    fn drop(
        mut access: Access<'_, Guest, Self>,
        connection: Resource<Opened>,
    ) -> wasmtime::Result<()> {
        access.get().table.delete(connection)?;
        Ok(())
    }
}

/// Nested replies in a row, as Spin gives them.
fn flatten(value: Value, out: &mut Vec<RedisResult>) -> Result<(), Error> {
    out.push(match value {
        Value::Nil => RedisResult::Nil,
        Value::Int(number) => RedisResult::Int64(number),
        Value::BulkString(bytes) => RedisResult::Binary(bytes),
        Value::SimpleString(text) => RedisResult::Status(text),
        Value::Okay => RedisResult::Status("OK".to_owned()),
        Value::Array(values) => {
            return values.into_iter().try_for_each(|value| flatten(value, out));
        }
        Value::ServerError(error) => return Err(Error::Other(format!("{error:?}"))),
        _ => return Err(Error::TypeError),
    });
    Ok(())
}
