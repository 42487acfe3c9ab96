//! `spin:redis`, as Spin 4 has it: connections to the Redis that a plugin may reach.

use std::time::Duration;

use edgeweir_host_formats::outbound::Outbound;
use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionAddr, FromRedisValue, RedisError, ToRedisArgs, Value};
use wasmtime::component::{Access, Accessor, Linker, Resource};

use super::Spin;
use crate::context::Guest;
use crate::stores::remote;

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

pub(super) use generated::spin::redis::redis::{Error, RedisParameter, RedisResult};

use generated::spin::redis::redis as api;

/// A connection a guest has opened.
pub struct Opened(MultiplexedConnection);

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
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
    let connection = accessor.with(|mut access| access.get().connection(connection, call))?;
    Ok(connection.ask(command).await)
}

fn failed(error: RedisError) -> Error {
    match error.kind() {
        redis::ErrorKind::UnexpectedReturnType => Error::TypeError,
        _ => Error::Other(error.to_string()),
    }
}

pub(super) fn command<A: ToRedisArgs>(name: &str, arguments: A) -> redis::Cmd {
    let mut command = redis::cmd(name);
    command.arg(arguments);
    command
}

impl Guest {
    /// Whom an address names, if this one may reach it, and how long it may take to answer: as long as the whole exchange,
    /// since a command may be one that waits (`BLPOP`).
    pub(super) fn redis(&mut self, address: String) -> Result<(Client, Duration), Error> {
        let client = Client::open(address).map_err(|_| Error::InvalidAddress)?;
        self.count("redis.open");
        let plugin = &self.loaded.plugin;
        if is_allowed(
            &plugin.allowed_outbound,
            client.get_connection_info().addr(),
        ) {
            return Ok((client, plugin.limits.timeout));
        }
        // Where the network is somebody else's, nobody has to be told.
        if self.loaded.world.clusters.is_none() {
            tracing::warn!("a connection to Redis denied: the component is not granted it");
        }
        Err(Error::InvalidAddress)
    }

    /// Counts a call on a connection, and gives the connection.
    pub(super) fn connection(
        &mut self,
        connection: &Resource<Opened>,
        call: &'static str,
    ) -> wasmtime::Result<Opened> {
        self.count(call);
        Ok(Opened(self.table.get(connection)?.0.clone()))
    }
}

fn is_allowed(all: &[Outbound], address: &ConnectionAddr) -> bool {
    let (scheme, host, port) = match address {
        ConnectionAddr::Tcp(host, port) => ("redis", host, *port),
        ConnectionAddr::TcpTls { host, port, .. } => ("rediss", host, *port),
        _ => return false,
    };
    all.iter().any(|it| it.allows(scheme, host, Some(port)))
}

pub(super) async fn dial((client, patience): &(Client, Duration)) -> Result<Opened, Error> {
    // A guest that wants to wait less races it.
    let opened = remote::dial(client, *patience).await;
    opened.map(Opened).map_err(failed)
}

impl Opened {
    pub(super) async fn ask<T: FromRedisValue>(mut self, command: redis::Cmd) -> Result<T, Error> {
        command.query_async(&mut self.0).await.map_err(failed)
    }

    pub(super) async fn execute(
        self,
        name: String,
        arguments: Vec<RedisParameter>,
    ) -> Result<Vec<RedisResult>, Error> {
        let mut command = redis::cmd(&name);
        for argument in arguments {
            match argument {
                RedisParameter::Int64(number) => command.arg(number),
                RedisParameter::Binary(bytes) => command.arg(bytes),
            };
        }
        let mut flat = Vec::new();
        flatten(self.ask(command).await?, &mut flat)?;
        Ok(flat)
    }
}

impl api::Host for Guest {}

impl api::HostConnection for Guest {}

impl api::HostConnectionWithStore<Guest> for Spin {
    async fn open(accessor: &Accessor<Guest, Self>, address: String) -> Told<Resource<Opened>> {
        let allowed = accessor.with(|mut access| access.get().redis(address));
        match allowed {
            Err(why) => Ok(Err(why)),
            Ok(client) => match dial(&client).await {
                Err(why) => Ok(Err(why)),
                Ok(opened) => accessor.with(|mut access| {
                    let pushed = access.get().table.push(opened);
                    Ok(pushed.map_err(|_| Error::TooManyConnections))
                }),
            },
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
        let connection =
            accessor.with(|mut access| access.get().connection(&connection, "redis.execute"))?;
        Ok(connection.execute(name, arguments).await)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_with_tls_and_without_are_granted_apart() {
        for (pattern, address, want) in [
            ("redis://a:6379", "redis://a", true),
            ("redis://a:6379", "redis://a:6380", false),
            ("redis://a:6379", "rediss://a", false),
            ("rediss://a:6379", "rediss://a", true),
            ("rediss://a:6379", "redis://a", false),
            ("*://a:6379", "rediss://a:6379", true),
            ("*://*:*", "unix:///tmp/a", false),
        ] {
            let granted = [Outbound::parse(pattern).expect("a pattern")];
            let client = Client::open(address).expect("an address");
            let allowed = is_allowed(&granted, client.get_connection_info().addr());
            assert_eq!(allowed, want, "{pattern} {address}");
        }
    }
}
