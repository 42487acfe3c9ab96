//! Both sides: what each is to serve, whether its callbacks can be compared, its start.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use edgeweir_host_launch::{Edge, Hearer, Options, Running, Side};
use serde_json::Value;

use super::Diff;

/// The configuration of a side.
pub(super) fn edge(side: &Side, arguments: &Diff, config: Option<&Value>) -> Result<Edge> {
    let file = match side {
        Side::Host(file) | Side::Envoy(file) | Side::Wasmtime(file) => file,
        Side::Url(_) => bail!("{side} is not started here"),
    };
    let edge = Edge::of(file, config).with_context(|| format!("{side} does not start"))?;
    // Its origin is not there yet: any will do to see whether it can be started.
    let placed = edge
        .clone()
        .with_origin(SocketAddr::from(([127, 0, 0, 1], 1)));
    side.check(|_| Ok(placed), arguments.listener.as_deref())?;
    Ok(edge.with_one_instance())
}

/// Why no callbacks are compared, if they are not.
pub(super) fn uncalled(edges: &[Edge], arguments: &Diff) -> Option<String> {
    if arguments.lanes > 1 && arguments.replay.is_none() {
        return Some("those of several sessions at once cannot be told apart".to_owned());
    }
    let listener = arguments.listener.as_deref();
    // What cannot be read is said by the side that gets it.
    let why = |edge: &Edge| edge.uncalled(listener).unwrap_or(None);
    edges.iter().find_map(why)
}

/// Starts a side in front of this origin; it tells its callbacks.
pub(super) fn start(
    side: &Side,
    edge: &Edge,
    arguments: &Diff,
    origin: SocketAddr,
    callbacks: Option<Hearer>,
) -> Result<Running> {
    let options = Options {
        workers: 1,
        listener: arguments.listener.clone(),
        envoy: arguments.envoy.clone(),
        callbacks,
    };
    let edge = edge.clone().with_origin(origin);
    let edge = if arguments.http2_origin {
        edge.with_http2()
    } else {
        edge
    };
    match side.start(|_| Ok(edge), &options)? {
        Some(running) => Ok(running),
        None => bail!("{side} is not started here"),
    }
}
