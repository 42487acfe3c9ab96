//! Logs and the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use tracing::Level;

use crate::host::{Guest, Host, view, write, write_u32};
use crate::status::{Reply, Status};

/// A longer message is cut, bytes.
const MESSAGE: usize = 16 << 10;

pub(super) fn log(guest: &mut Guest<'_>, level: u32, message: u32, size: u32) -> Reply {
    if level > 5 {
        return Err(Status::BadArgument.into());
    }
    let (bytes, host) = view(guest, message, size)?;
    let text = String::from_utf8_lossy(bytes.get(..MESSAGE).unwrap_or(bytes));
    say(host, level, &text);
    Ok(())
}

/// Writes a plugin's message to the host's log, or tells it who watches in its place.
pub(super) fn say(host: &mut Host, level: u32, text: &str) {
    host.note(text);
    if let Some(witness) = &host.common.world.witness {
        witness.log(Some(u8::try_from(level).unwrap_or(5)), text);
        return;
    }
    if level >= 4 && host.hold(text) {
        return;
    }
    let (plugin, context) = (&host.common.name, host.current);
    match level {
        0 => tracing::trace!(target: "edgeweir::plugin", %plugin, context, "{text}"),
        1 => tracing::debug!(target: "edgeweir::plugin", %plugin, context, "{text}"),
        2 => tracing::info!(target: "edgeweir::plugin", %plugin, context, "{text}"),
        3 => tracing::warn!(target: "edgeweir::plugin", %plugin, context, "{text}"),
        4 => tracing::error!(target: "edgeweir::plugin", %plugin, context, "{text}"),
        _ => {
            tracing::error!(target: "edgeweir::plugin", %plugin, context, critical = true, "{text}")
        }
    }
}

/// The lowest level that is written at all.
pub(super) fn level(guest: &mut Guest<'_>, at: u32) -> Reply {
    let level = if guest.data().common.world.witness.is_some()
        || tracing::enabled!(target: "edgeweir::plugin", Level::TRACE)
    {
        0
    } else if tracing::enabled!(target: "edgeweir::plugin", Level::DEBUG) {
        1
    } else if tracing::enabled!(target: "edgeweir::plugin", Level::INFO) {
        2
    } else if tracing::enabled!(target: "edgeweir::plugin", Level::WARN) {
        3
    } else {
        4
    };
    Ok(write_u32(guest, at, level)?)
}

pub(super) fn now(guest: &mut Guest<'_>, at: u32) -> Reply {
    let now = nanos(guest.data().common.world.wall());
    Ok(write(guest, at, &now.to_le_bytes())?)
}

/// Nanoseconds since 1970; 0 before, and the largest number after the year 2554.
pub(super) fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
